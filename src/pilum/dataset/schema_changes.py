"""Schemas that change: columns dropped, renamed, made nullable or required, given another type.  Pure.

A column keeps its field id as long as its stored values can stay; one of another type gets a new id, and new files
for it (spec/table.md, sections 10.1 and 15.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.schema import Field, Schema, split_path

__all__ = ["Alteration", "Altered", "altered", "path_of", "with_columns", "without_columns"]

_KEYS = ("path", "name", "nullable", "data_type")


@dataclass(frozen=True, slots=True)
class Alteration:
    """What becomes of a column; None leaves it as it is.

    Attributes:
        path: the column, ``a.b`` for a field of a struct.
        name: its new name.
        nullable: whether it allows nulls.
        data_type: its new type.
    """

    path: str
    name: str | None = None
    nullable: bool | None = None
    data_type: pa.DataType | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Alteration:
        """Check what a user hands over.

        Raises:
            InvalidInputError: a key is unknown, or nothing is to change.
        """
        if "path" not in given:
            raise InvalidInputError("alter_columns: 'path' is required")
        unknown = [one for one in given if one not in _KEYS]
        if unknown:
            raise InvalidInputError(
                f"alter_columns: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}"
            )
        if len(given) == 1:
            raise InvalidInputError(
                f"alter_columns: {given['path']!r} is to get neither name, nor nullable, nor data_type"
            )
        data_type = given.get("data_type")
        if isinstance(data_type, pa.Field):
            data_type = data_type.type
        if data_type is not None and not isinstance(data_type, pa.DataType):
            raise TypeError(f"data_type must be an Arrow type, got {type(data_type).__name__}")
        return cls(given["path"], given.get("name"), given.get("nullable"), data_type)


def path_of(schema: Schema, path: str) -> tuple[Field, ...]:
    """The fields on the way to a column, itself last.

    Raises:
        InvalidInputError: there is none.
    """
    parts = [path] if path in schema.names else split_path(path)
    fields: Sequence[Field] = schema.fields
    way: list[Field] = []
    for part in parts:
        found = next((one for one in fields if one.name == part), None)
        if found is None:
            raise InvalidInputError(f"no column named {path!r} (columns: {', '.join(schema.names[:20])})")
        way.append(found)
        fields = found.children
    return tuple(way)


def with_columns(schema: Schema, added: pa.Schema, first_id: int) -> tuple[Schema, Schema]:
    """The schema with further columns; also these alone.

    Raises:
        InvalidInputError: one exists already.
    """
    for name in added.names:
        if name in schema.names:
            raise InvalidInputError(f"column {name!r} exists already in the dataset")
    new = Schema.from_arrow(added.remove_metadata(), first_id=first_id)
    return Schema((*schema.fields, *new.fields), schema.metadata), new


def without_columns(schema: Schema, paths: Iterable[str]) -> Schema:
    """The schema without some columns; a struct that lost all its fields goes, too.

    Raises:
        InvalidInputError: a column is unknown, or none would be left.
    """
    gone = {path_of(schema, path)[-1].id for path in paths}

    def kept(fields: Sequence[Field]) -> tuple[Field, ...]:
        result = []
        for field in fields:
            if field.id in gone:
                continue
            children = kept(field.children)
            if field.children and not children:
                continue
            result.append(field if len(children) == len(field.children) and children == field.children
                          else field.with_children(children))  # fmt: skip
        return tuple(result)

    for field in schema.walk():
        if field.logical_type != "struct" and any(child.id in gone for child in field.children):
            raise UnsupportedError(f"drop_columns: the fields of {field.name!r}, a {field.logical_type}")
    fields = kept(schema.fields)
    if not fields:
        raise InvalidInputError("cannot drop all columns of a dataset")
    return Schema(fields, schema.metadata)


@dataclass(frozen=True, slots=True)
class Altered:
    """The outcome of alterations.

    Attributes:
        schema: the new schema.
        cast: columns that need new values: path of names before, and the way to the new field.
        required: paths of columns that must not hold nulls any more.
        replaced: ids of fields whose values are superseded.
    """

    schema: Schema
    cast: tuple[tuple[tuple[str, ...], tuple[Field, ...]], ...]
    required: tuple[tuple[str, ...], ...]
    replaced: frozenset[int]


def altered(schema: Schema, alterations: Sequence[Alteration], next_id: int) -> Altered:
    """Alter columns.

    Args:
        schema: as it is.
        alterations: one for each column.
        next_id: first field id that was never used.

    Raises:
        InvalidInputError: a column is unknown, altered twice, gets a name that is taken, or cannot be cast.
    """
    changes: dict[int, tuple[Alteration, tuple[Field, ...]]] = {}
    for one in alterations:
        way = path_of(schema, one.path)
        if way[-1].id in changes:
            raise InvalidInputError(f"alter_columns: {one.path!r} is altered twice")
        changes[way[-1].id] = (one, way)
    casts = {key: change for key, (change, way) in changes.items() if _casts(change, way[-1])}
    required = tuple(
        tuple(field.name for field in way)
        for change, way in changes.values()
        if change.nullable is False and way[-1].nullable
    )
    if casts and required:
        raise InvalidInputError(
            "alter_columns: cannot cast columns and make some required in one call; cast first"
        )
    new: dict[int, Field] = {}
    for key, change in casts.items():
        field = changes[key][1][-1]
        _check_cast(change.path, field, change.data_type)
        (fresh,) = Schema.from_arrow(
            pa.schema([pa.field(field.name, change.data_type, field.nullable)]), first_id=next_id
        ).fields
        new[key] = fresh
        next_id = max(one.id for one in fresh.walk()) + 1

    def changed(field: Field, parent_id: int) -> Field:
        change = changes[field.id][0] if field.id in changes else Alteration("")
        source = new.get(field.id, field)
        return Field(
            source.id,
            field.name if change.name is None else change.name,
            source.logical_type,
            field.nullable if change.nullable is None else change.nullable,
            field.metadata,
            source.children
            if source is not field
            else tuple([changed(one, field.id) for one in field.children]),
            parent_id,
        )

    fields = tuple([changed(field, -1) for field in schema.fields])
    for level in [fields, *(field.children for top in fields for field in top.walk())]:
        names = [field.name for field in level]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InvalidInputError(f"alter_columns: there would be two columns named {twice[0]!r}")
    for field in fields:
        if "." in field.name:
            raise InvalidInputError(f"alter_columns: the name {field.name!r} must not contain a dot")
    result = Schema(fields, schema.metadata)
    by_id = {field.id: field for field in result.walk()}
    cast = []
    for key in casts:
        way = changes[key][1]
        ids = [field.id for field in way[:-1]] + [new[key].id]
        cast.append((tuple(field.name for field in way), tuple(by_id[one] for one in ids)))
    replaced = frozenset(one.id for key in casts for one in changes[key][1][-1].walk())
    return Altered(result, tuple(cast), required, replaced)


def _casts(change: Alteration, field: Field) -> bool:
    return change.data_type is not None and not change.data_type.equals(field.arrow_type)


def _check_cast(path: str, field: Field, wanted: Any) -> None:
    if _kind(field.arrow_type) is None or _kind(field.arrow_type) != _kind(wanted):
        raise InvalidInputError(f"cannot cast column {path!r} from {field.arrow_type} to {wanted}")


def _kind(arrow_type: Any) -> Any:
    """Types of one kind can be cast into each other; None for a type that cannot be cast."""
    types = pa.types
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        inner = _kind(arrow_type.value_type)
        return None if inner is None else ("list", inner)
    if types.is_fixed_size_list(arrow_type):
        inner = _kind(arrow_type.value_type)
        return None if inner is None else ("vector", arrow_type.list_size, inner)
    for kind, holds in (
        ("integer", types.is_integer),
        ("float", types.is_floating),
        ("decimal", types.is_decimal),
        ("text", lambda one: types.is_string(one) or types.is_large_string(one)),
        ("binary", lambda one: types.is_binary(one) or types.is_large_binary(one)),
        ("timestamp", types.is_timestamp),
        ("date", types.is_date),
        ("time", types.is_time),
        ("duration", types.is_duration),
    ):
        if holds(arrow_type):
            return kind
    return None
