"""Whether rows fit a table: names that a table can hold, and columns matched by name.  Pure."""

from __future__ import annotations

import pyarrow as pa

from pilum.errors import InvalidInputError
from pilum.schema import Schema

__all__ = ["check_schema", "matching_schema"]

_RESERVED = frozenset(
    {"_rowid", "_rowaddr", "_rowoffset", "_row_created_at_version", "_row_last_updated_at_version"}
)


def check_schema(schema: pa.Schema) -> None:
    """Refuse names that a table cannot hold.

    Raises:
        InvalidInputError: there is one.
    """
    names = schema.names
    if len(set(names)) != len(names):
        raise InvalidInputError(f"column {next(n for n in names if names.count(n) > 1)!r} appears twice")
    for name in names:
        if "." in name:
            raise InvalidInputError(f"column name {name!r} must not contain a dot")
        if name in _RESERVED:
            raise InvalidInputError(f"column name {name!r} is reserved")


def matching_schema(table: Schema, rows: pa.Schema) -> Schema:
    """The part of the table's schema that the appended rows fill, matched by name.

    Raises:
        InvalidInputError: they do not fit.
    """
    by_name = {field.name: field for field in table.fields}
    for field in rows:
        if field.name not in by_name:
            raise InvalidInputError(
                f"append: the dataset has no column {field.name!r} (columns: {', '.join(by_name)})"
            )
        expected = by_name[field.name].arrow_type
        if not _same_type(field.type, expected):
            raise InvalidInputError(
                f"append: column {field.name!r} is {field.type}, the dataset has {expected}"
            )
    for name, existing in by_name.items():
        if name not in rows.names and not existing.nullable:
            raise InvalidInputError(f"append: the required column {name!r} is missing")
    if len(rows.names) == len(by_name):
        return table
    return table.project([name for name in by_name if name in rows.names])


def _same_type(given: pa.DataType, expected: pa.DataType) -> bool:
    if given.equals(expected):
        return True
    field = Schema.from_arrow(pa.schema([pa.field("x", given)])).fields[0]
    return bool(field.arrow_type.equals(expected))
