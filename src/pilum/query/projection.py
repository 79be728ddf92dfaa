"""Which columns a query reads and how its output is built from them.

A `Projection` separates the two: ``read`` is the schema of the stored columns that must be fetched,
``outputs`` says how each output column is made of them (a stored column, a nested field, a system column
or an expression).  Resolving needs the table's schema only; `Projection.build` needs one decoded batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.errors import InvalidInputError
from pilum.query.late import parse_projection
from pilum.schema import Schema

__all__ = ["DISTANCE", "ROW_ADDRESS", "ROW_ID", "Projection", "resolve", "stored_columns"]

ROW_ID = "_rowid"
ROW_ADDRESS = "_rowaddr"
DISTANCE = "_distance"
_SYSTEM_TYPES: Mapping[str, pa.DataType] = {ROW_ID: pa.uint64(), ROW_ADDRESS: pa.uint64()}


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
    """The columns to read and the columns to return, in order."""

    read: Schema
    outputs: tuple[Output, ...]
    schema: pa.Schema

    @property
    def needs_address(self) -> bool:
        """Whether an output is a row id or a row address."""
        return any(output.system in _SYSTEM_TYPES for output in self.outputs)

    @property
    def needs_row_id(self) -> bool:
        """Whether an output is a row id."""
        return any(output.system == ROW_ID for output in self.outputs)

    def build(
        self,
        batch: pa.RecordBatch,
        addresses: npt.NDArray[np.uint64] | None = None,
        distances: pa.Array | None = None,
        row_ids: npt.NDArray[np.uint64] | None = None,
    ) -> pa.RecordBatch:
        """Make the output batch from the stored columns and, where asked for, addresses, distances and row ids
        (which are the addresses by default)."""
        ids = addresses if row_ids is None else row_ids
        arrays = [self._column(output, batch, addresses, distances, ids) for output in self.outputs]
        if not arrays:
            # A batch without columns still has a row count, which from_arrays cannot be told.
            return batch.select([])
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    @staticmethod
    def _column(
        output: Output,
        batch: pa.RecordBatch,
        addresses: npt.NDArray[np.uint64] | None,
        distances: pa.Array | None,
        row_ids: npt.NDArray[np.uint64] | None,
    ) -> pa.Array:
        if output.path:
            column = batch.column(output.path[0])
            for name in output.path[1:]:
                import pyarrow.compute as pc  # 50 ms

                column = pc.struct_field(column, name)
            return column
        if output.system == DISTANCE:
            return distances
        if output.system:
            return pa.array(row_ids if output.system == ROW_ID else addresses, pa.uint64())
        return output.expression.evaluate(batch)


def resolve(
    schema: Schema,
    columns: Sequence[str] | Mapping[str, str] | None,
    *,
    with_row_id: bool = False,
    with_row_address: bool = False,
    with_distance: bool = False,
) -> Projection:
    """Resolve a user's column list (or name -> SQL mapping) against a table's schema.

    Raises:
        InvalidInputError: a column is unknown (the nearest name is suggested) or named twice.
    """
    if columns is None:
        outputs = [Output(field.to_arrow(), (field.name,)) for field in schema.fields]
    elif isinstance(columns, Mapping):
        outputs = _expressions(schema, columns)
    else:
        outputs = [_named(schema, name) for name in columns]
    for wanted, name in ((with_distance, DISTANCE), (with_row_id, ROW_ID), (with_row_address, ROW_ADDRESS)):
        if wanted and all(output.system != name for output in outputs):
            outputs.append(_system(name))
    names = [output.field.name for output in outputs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"column {twice!r} is asked for twice")
    paths: list[str] = []
    for output in outputs:
        if output.path:
            paths.append(".".join(output.path))
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
    wanted = {path for path in paths if path not in _SYSTEM_TYPES and path != DISTANCE}
    if all(field.name in wanted for field in schema.fields):
        return schema
    return schema.project(list(_in_schema_order(schema, wanted)))


def _in_schema_order(schema: Schema, paths: set[str]) -> list[str]:
    order = {field.name: position for position, field in enumerate(schema.fields)}
    return sorted(paths, key=lambda path: (order.get(path, order.get(path.split(".", 1)[0], -1)), path))


def _system(name: str) -> Output:
    if name == DISTANCE:
        return Output(pa.field(DISTANCE, pa.float32()), system=DISTANCE)
    return Output(pa.field(name, _SYSTEM_TYPES[name]), system=name)


def _named(schema: Schema, name: str) -> Output:
    if not isinstance(name, str):
        raise TypeError(f"column names are strings, got {type(name).__name__}")
    if name in _SYSTEM_TYPES or name == DISTANCE:
        return _system(name)
    by_name = {field.name: field for field in schema.fields}
    if name in by_name:
        return Output(by_name[name].to_arrow(), (name,))
    head, *rest = name.split(".")
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
        if text in _SYSTEM_TYPES:
            outputs.append(Output(pa.field(name, _SYSTEM_TYPES[text]), system=text))
        elif text in plain:
            outputs.append(Output(plain[text].to_arrow().with_name(name), (text,)))
        else:
            (bound,) = parse_projection({name: text}, schema)
            outputs.append(Output(pa.field(name, bound.type), expression=bound))
    return outputs
