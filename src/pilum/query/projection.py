"""Which columns a query reads and how its output is built from them.

A `Projection` separates the two: ``read`` is the schema of the stored columns that must be fetched,
``outputs`` says how each output column is made of them (a stored column, a nested field, a system column
or an expression).  Resolving needs the table's schema only; `Projection.build` needs one decoded batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query import binding
from pilum.query.system import DISTANCE, QUERY_INDEX, ROW_ADDRESS, ROW_ID, SYSTEM_TYPES
from pilum.schema import Schema, split_path, with_stored_blobs

__all__ = ["DISTANCE", "QUERY_INDEX", "ROW_ADDRESS", "ROW_ID", "Projection", "resolve", "stored_columns"]

_MAX_KNOWN = 64  # projections that are kept with a schema
_MADE = {**SYSTEM_TYPES, DISTANCE: pa.float32(), QUERY_INDEX: pa.int32()}


@dataclass(frozen=True, slots=True)
class Output:
    """One output column: where it comes from.

    Exactly one of ``path`` (a stored column, or a field below it), ``system`` (a system column) and
    ``expression`` is set.
    """

    field: pa.Field
    path: tuple[str, ...] = ()
    system: str = ""
    expression: Any = None


@dataclass(frozen=True, slots=True)
class Projection:
    """The columns to read and the columns to return, in order.

    Attributes:
        system: the system columns that outputs are made of, each once.
    """

    read: Schema
    outputs: tuple[Output, ...]
    schema: pa.Schema
    system: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _plain: bool = field(init=False, repr=False, compare=False)  # stored columns, as they are

    def __post_init__(self) -> None:
        system = dict.fromkeys(output.system for output in self.outputs if output.system)
        object.__setattr__(self, "system", tuple(system))
        paths = [output.path for output in self.outputs]
        plain = paths == [(field.name,) for field in self.read.fields]
        object.__setattr__(
            self, "_plain", plain and self.schema.equals(self.read.to_arrow(), check_metadata=True)
        )

    def extended(self, schema: Schema, columns: Mapping[str, str]) -> Projection:
        """With further output columns at the end: name -> a column of the table or a system column."""
        more = [_named(schema, source) for source in columns.values()]
        outputs = [
            *self.outputs,
            *(replace(one, field=one.field.with_name(name)) for name, one in zip(columns, more, strict=True)),
        ]
        paths = [field.name for field in self.read.fields] + [one.path[0] for one in more if one.path]
        arrow = pa.schema([one.field for one in outputs], metadata=self.schema.metadata)
        # Parts of structs that were projected are read whole: what is sorted by may be another part.
        return Projection(stored_columns(schema, paths), tuple(outputs), arrow)

    def build(self, batch: pa.RecordBatch, made: Mapping[str, pa.Array] | None = None) -> pa.RecordBatch:
        """Make the output batch from the stored columns and from the columns named by `system`."""
        if self._plain and batch.schema.equals(self.schema, check_metadata=True):
            return batch
        arrays = [self._column(output, batch, made or {}) for output in self.outputs]
        if not arrays:
            # A batch without columns still has a row count, which from_arrays cannot be told.
            return batch.select([])
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    @staticmethod
    def _column(output: Output, batch: pa.RecordBatch, made: Mapping[str, pa.Array]) -> pa.Array:
        if output.path:
            column = batch.column(output.path[0])
            for name in output.path[1:]:
                column = arrays.compute().struct_field(column, name)  # 50 ms for the import
            return column
        if output.system:
            return made[output.system]
        return output.expression.evaluate(batch)


def resolve(
    schema: Schema,
    columns: Sequence[str] | Mapping[str, str] | None,
    *,
    with_row_id: bool = False,
    with_row_address: bool = False,
    with_distance: bool = False,
    with_query_index: bool = False,
) -> Projection:
    """Resolve a user's column list (or name -> SQL mapping) against a table's schema.

    Blobs of v2 are read as their descriptors.

    Raises:
        InvalidInputError: a column is unknown (the nearest name is suggested) or named twice.
    """
    if columns is not None and not isinstance(columns, (list, tuple)):
        return _resolved(schema, columns, with_row_id, with_row_address, with_distance, with_query_index)
    # programs ask for the same columns again and again
    known: dict[Any, Projection] = schema.memo("projections")
    names = None if columns is None else tuple(columns)
    key = (names, with_row_id, with_row_address, with_distance, with_query_index)
    try:
        found = known.get(key)
    except TypeError:  # names that are no strings are refused below
        found = None
    if found is None:
        found = _resolved(schema, columns, with_row_id, with_row_address, with_distance, with_query_index)
        if len(known) >= _MAX_KNOWN:
            known.clear()
        known[key] = found
    return found


def _resolved(
    schema: Schema,
    columns: Sequence[str] | Mapping[str, str] | None,
    with_row_id: bool,
    with_row_address: bool,
    with_distance: bool,
    with_query_index: bool,
) -> Projection:
    schema = with_stored_blobs(schema)
    if columns is None:
        outputs = [Output(field.to_arrow(), (field.name,)) for field in schema.fields]
    elif isinstance(columns, Mapping):
        outputs = _expressions(schema, columns)
        if outputs and not any(one.path or one.system or one.expression.columns for one in outputs):
            raise InvalidInputError("a projection of constants only: at least one column must be read")
    else:
        outputs = [_named(schema, name) for name in columns]
    if with_distance and all(output.field.name != DISTANCE for output in outputs if output.system):
        outputs.append(_system(DISTANCE))
    for wanted, name in ((with_row_id, ROW_ID), (with_row_address, ROW_ADDRESS)):
        if wanted:
            # What the option asks for comes last, also when the column is named.
            outputs = [one for one in outputs if one.system != name or one.field.name != name]
            outputs.append(_system(name))
    if with_query_index:
        outputs = [_system(QUERY_INDEX), *(one for one in outputs if one.system != QUERY_INDEX)]
    names = [output.field.name for output in outputs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"column {twice!r} is asked for twice")
    paths: list[str] = []
    for output in outputs:
        if output.path:
            paths.append(
                ".".join("`" + part + "`" if "." in part or "`" in part else part for part in output.path)
            )
        elif output.expression is not None:
            paths.extend(output.expression.columns)
    metadata = dict(schema.metadata) or None
    return Projection(
        stored_columns(schema, paths),
        tuple(outputs),
        pa.schema([output.field for output in outputs], metadata=metadata),
    )


def stored_columns(schema: Schema, paths: Sequence[str]) -> Schema:
    """The part of ``schema`` needed for ``paths``, in schema order; system columns are skipped."""
    names = {field.name for field in schema.fields}
    wanted = {path for path in paths if path not in _MADE or path in names}
    if all(field.name in wanted for field in schema.fields):
        return schema
    return schema.project(list(_in_schema_order(schema, wanted)))


def _in_schema_order(schema: Schema, paths: set[str]) -> list[str]:
    order = {field.name: position for position, field in enumerate(schema.fields)}
    return sorted(paths, key=lambda path: (order.get(path, order.get(path.split(".", 1)[0], -1)), path))


def _system(name: str) -> Output:
    nullable = name != QUERY_INDEX
    return Output(pa.field(name, _MADE[name], nullable), system=name)


def _named(schema: Schema, name: str) -> Output:
    if not isinstance(name, str):
        raise TypeError(f"column names are strings, got {type(name).__name__}")
    by_name = {field.name: field for field in schema.fields}
    if name in by_name:
        return Output(by_name[name].to_arrow(), (name,))
    if name in _MADE:
        return _system(name)
    head, *rest = split_path(name) if "`" in name else name.split(".")
    field = by_name.get(head)
    for part in rest:
        field = (
            None if field is None else next((child for child in field.children if child.name == part), None)
        )
    if field is None:
        hint = get_close_matches(name, list(by_name), 1)
        raise InvalidInputError(
            f"no column named {name!r}"
            + (f"; did you mean {hint[0]!r}?" if hint else "")
            + f" (columns: {', '.join(list(by_name)[:20])})"
        )
    return Output(field.to_arrow().with_name(name).with_nullable(True), (head, *rest))


def _expressions(schema: Schema, columns: Mapping[str, str]) -> list[Output]:
    outputs = []
    plain = {field.name: field for field in schema.fields}
    for name, text in columns.items():
        if text in _MADE and text not in plain:
            outputs.append(Output(pa.field(name, _MADE[text]), system=text))
        elif text in plain:
            outputs.append(Output(plain[text].to_arrow().with_name(name), (text,)))
        else:
            (bound,) = binding.parse_projection({name: text}, schema)
            outputs.append(Output(pa.field(name, bound.type), expression=bound))
    return outputs
