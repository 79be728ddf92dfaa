"""Which column of a file holds which field.

Pure numbering of the schema tree in pre-order (file-container-and-structure.md section 3.3)::

    field                         2.0                    2.1 and later
    leaf                          column                 column
    struct, list, map             column, then children  children only
    packed struct, blob           column                 column
    empty struct                  column                 column

A manifest stores this mapping per data file; prefer the stored one.  Must not know: files.
"""

from __future__ import annotations

from pilum.errors import UnsupportedError
from pilum.schema.field import Field, Schema

__all__ = ["column_fields", "column_indices"]


def column_indices(schema: Schema, version: tuple[int, int]) -> dict[int, int]:
    """Field id → column index for every field that owns a column.

    Args:
        schema: the fields of the file, all of them.
        version: file format as (major, minor); (0, 3) and (2, 0) both mean 2.0.

    Raises:
        UnsupportedError: format 0.1, or a type that 2.0 cannot hold.
    """
    return {field.id: column for column, field in enumerate(column_fields(schema, version))}


def column_fields(schema: Schema, version: tuple[int, int]) -> tuple[Field, ...]:
    """The fields that own a column, in column order."""
    if version >= (2, 1):
        return schema.leaves()
    if version not in ((0, 3), (2, 0)):
        raise UnsupportedError(f"file format {version[0]}.{version[1]} has no column numbering")
    owners: list[Field] = []
    for top in schema.fields:
        _number_2_0(top, owners)
    return tuple(owners)


def _number_2_0(field: Field, owners: list[Field]) -> None:
    if field.logical_type == "map" or (field.children and field.logical_type.startswith("fixed_size_list:")):
        raise UnsupportedError(
            f"field {field.name!r}: file format 2.0 cannot hold {field.logical_type}; it needs 2.2 or later"
        )
    owners.append(field)
    if not field.is_leaf:
        for child in field.children:
            _number_2_0(child, owners)
