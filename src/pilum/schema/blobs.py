"""Blob columns as their descriptors: where the values lie instead of what they are.

A blob field (metadata key ``lance-encoding:blob``) reads as its bytes.  The same field with the type
``struct<position: uint64, size: uint64>`` reads as descriptors (file-container-and-structure.md section 4.5);
id, name and metadata stay, so readers find the column.  Blob v2 fields are structs already.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pilum.schema.field import Field, Schema

__all__ = ["BLOB_DESCRIPTOR", "is_descriptor", "with_descriptors"]

BLOB_DESCRIPTOR: Any = pa.struct([("position", pa.uint64()), ("size", pa.uint64())])
_MEMBERS = ("position", "size")


def is_descriptor(field: Field) -> bool:
    """Whether a blob field stands for the descriptors of its values."""
    return field.logical_type == "struct" and tuple(c.name for c in field.children) == _MEMBERS


def with_descriptors(schema: Schema) -> Schema:
    """The schema with every blob field, at any depth, as its descriptors."""
    fields = tuple(map(_described, schema.fields))
    return schema if fields == schema.fields else Schema(fields, schema.metadata)


def _described(field: Field) -> Field:
    if field.is_blob and field.logical_type != "struct":
        members = tuple(Field(-1, name, "uint64", parent_id=field.id) for name in _MEMBERS)
        return Field(field.id, field.name, "struct", field.nullable, field.metadata, members, field.parent_id)
    if not field.children or field.is_leaf:
        return field
    return field.with_children(tuple(map(_described, field.children)))
