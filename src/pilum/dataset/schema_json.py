"""Arrow schemas as JSON and back (spec/api.md, section 2).

```
{"fields": [{"name": "v", "type": {"type": "fixed_size_list", "fields": [...], "length": 3}, "nullable": true}],
 "metadata": {"key": "value"}}
```

Types without parameters of their own are written as the format's logical types (``timestamp:us:UTC``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.schema import arrow_type_of, logical_type_of

__all__ = ["json_to_schema", "schema_to_json"]


def schema_to_json(schema: pa.Schema) -> dict[str, Any]:
    """An Arrow schema as values that `json.dumps` takes.

    Raises:
        InvalidInputError: a type that has no such form (maps, views, unions, intervals).

    Example:
        >>> import pilum, pyarrow as pa
        >>> pilum.schema_to_json(pa.schema([pa.field("a", pa.int32(), nullable=False)]))
        {'fields': [{'name': 'a', 'type': {'type': 'int32'}, 'nullable': False}]}
    """
    result: dict[str, Any] = {"fields": [_field(one) for one in schema]}
    if schema.metadata:
        result["metadata"] = _text(schema.metadata)
    return result


def _field(field: pa.Field) -> dict[str, Any]:
    result = {"name": field.name, "type": _type(field.type), "nullable": field.nullable}
    if field.metadata:
        result["metadata"] = _text(field.metadata)
    return result


def _text(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in metadata.items()}


def _type(kind: pa.DataType) -> dict[str, Any]:
    types = pa.types
    if types.is_struct(kind):
        return {"type": "struct", "fields": [_field(kind.field(at)) for at in range(kind.num_fields)]}
    if types.is_list(kind):
        return {"type": "list", "fields": [_field(kind.value_field)]}
    if types.is_large_list(kind):
        return {"type": "large_list", "fields": [_field(kind.value_field)]}
    if types.is_fixed_size_list(kind):
        return {"type": "fixed_size_list", "fields": [_field(kind.value_field)], "length": kind.list_size}
    if types.is_fixed_size_binary(kind):
        return {"type": "fixed_size_binary", "length": kind.byte_width}
    try:
        logical = logical_type_of(kind)
        if types.is_map(kind) or (arrow_type_of(logical) != kind and not types.is_dictionary(kind)):
            raise InvalidInputError(f"type {kind} has no form in JSON")
    except UnsupportedError as error:
        raise InvalidInputError(f"type {kind} has no form in JSON: {error}") from error
    return {"type": logical}


def json_to_schema(schema_json: Mapping[str, Any]) -> pa.Schema:
    """What `schema_to_json` returned, as a schema again.

    Raises:
        InvalidInputError: the values do not describe a schema (a `ValueError`).
    """
    try:
        fields = [_read_field(one) for one in schema_json["fields"]]
        return pa.schema(fields, metadata=schema_json.get("metadata"))
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"this does not describe a schema: {type(error).__name__}: {error}"
        ) from error


def _read_field(values: Mapping[str, Any]) -> pa.Field:
    return pa.field(
        values["name"],
        _read_type(values["type"]),
        nullable=values["nullable"],
        metadata=values.get("metadata") or None,
    )


def _read_type(values: Mapping[str, Any]) -> pa.DataType:
    name = values["type"]
    children = [_read_field(one) for one in values.get("fields") or ()]
    if name == "fixed_size_binary":
        return pa.binary(values["length"])
    if name == "fixed_size_list":
        (child,) = children
        return pa.list_(child, values["length"])
    try:
        return arrow_type_of(name, children)
    except UnsupportedError as error:
        raise InvalidInputError(f"unknown type {name!r}: {error}") from error
