"""Blob columns as their descriptors: where the values lie instead of what they are.

A blob field (metadata key ``lance-encoding:blob``) reads as its bytes.  The same field with the type
``struct<position: uint64, size: uint64>`` reads as descriptors (file-container-and-structure.md section 4.5);
id, name and metadata stay, so readers find the column.

Blob v2 (extension ``lance.blob.v2``, from format 2.2 on) is a struct all the way, in three shapes:

```
logical     data, uri, position, size                      what users hand to a dataset (`blob_values`)
prepared    kind, data, uri, blob_id, blob_size, position  what a file writer takes: bytes, or where they lie
stored      kind, position, size, blob_id, blob_uri        what the file holds, a packed struct
```
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pilum.schema.field import BLOB_KEY, BLOB_V2, PACKED_KEY, Field, Schema
from pilum.schema.logical import EXTENSION_NAME

__all__ = [
    "BLOB_DESCRIPTOR",
    "PREPARED_BLOB",
    "is_descriptor",
    "is_prepared",
    "prepared_field",
    "with_descriptors",
    "with_stored_blobs",
]

BLOB_DESCRIPTOR: Any = pa.struct([("position", pa.uint64()), ("size", pa.uint64())])
_MEMBERS = ("position", "size")

PREPARED_BLOB: Any = pa.struct(
    [
        ("kind", pa.uint8()),
        ("data", pa.large_binary()),
        ("uri", pa.string()),
        ("blob_id", pa.uint32()),
        ("blob_size", pa.uint64()),
        ("position", pa.uint64()),
    ]
)
_PREPARED = tuple((member.name, str(member.type)) for member in PREPARED_BLOB)
# Names and logical types, in the order of the file.
_STORED = (
    ("kind", "uint8"),
    ("position", "uint64"),
    ("size", "uint64"),
    ("blob_id", "uint32"),
    ("blob_uri", "string"),
)


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


def prepared_field(name: str) -> Any:
    """`pa.Field` of a column of prepared blobs."""
    return pa.field(name, PREPARED_BLOB, metadata={EXTENSION_NAME: BLOB_V2})


def is_prepared(field: Field) -> bool:
    """Whether a field is a column of prepared blobs."""
    return (
        field.extension_name == BLOB_V2
        and tuple((child.name, child.logical_type) for child in field.children) == _PREPARED
    )


def with_stored_blobs(schema: Schema) -> Schema:
    """The schema with every blob of v2, at any depth, as the file stores it; computed once.

    The members have no ids (file-container-and-structure.md section 8, 13), and of the field's metadata nothing
    stays, as in the reference.
    """
    derived = schema._derived
    if "stored blobs" not in derived:
        fields = tuple(map(_stored, schema.fields))
        derived["stored blobs"] = None if fields == schema.fields else Schema(fields, schema.metadata)
    found: Schema | None = derived["stored blobs"]
    return schema if found is None else found


def _stored(field: Field) -> Field:
    if field.extension_name == BLOB_V2 and field.logical_type == "struct":
        members = tuple(Field(-1, name, logical, nullable=False) for name, logical in _STORED)
        metadata = {BLOB_KEY: "true", PACKED_KEY: "true"}
        return Field(field.id, field.name, "struct", field.nullable, metadata, members, field.parent_id)
    if not field.children or field.is_leaf:
        return field
    return field.with_children(tuple(map(_stored, field.children)))
