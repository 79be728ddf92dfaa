"""Where the values of new columns come from: SQL, a function over batches, a stream, another table.

A transform reads some columns of the live rows of a fragment and says what the new columns are; it never writes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import pyarrow as pa

from pilum import arrays, imports
from pilum.dataset.inputs import InputStream, read_input
from pilum.dataset.udf import BatchUDF
from pilum.errors import InvalidInputError
from pilum.query.projection import resolve
from pilum.query.request import ScanRequest
from pilum.query.scan import open_scan, plan_scan
from pilum.query.snapshot import Snapshot
from pilum.table import Fragment

__all__ = ["Expressions", "Function", "Joined", "Stream", "Transform", "read_live", "transform_of"]


async def read_live(
    snapshot: Snapshot, fragment: Fragment, columns: Any, batch_size: int | None = None
) -> AsyncGenerator[pa.RecordBatch, None]:
    """The live rows of a fragment."""
    request = ScanRequest(columns=columns, fragment_ids=(fragment.id,), batch_size=batch_size)
    async with aclosing(await open_scan(plan_scan(snapshot, request))) as stream:
        async for batch in stream:
            yield batch


class Transform:
    """Makes new columns of rows."""

    async def schema(self, snapshot: Snapshot, fragments: Sequence[Fragment]) -> pa.Schema:
        """Schema of the new columns."""
        raise NotImplementedError

    def values(self, snapshot: Snapshot, fragment: Fragment) -> AsyncGenerator[pa.RecordBatch, None]:
        """The new columns of the live rows of a fragment; fragments are asked for in order."""
        raise NotImplementedError

    def end(self) -> None:
        """All fragments have been asked for."""


class Expressions(Transform):
    """Columns computed by SQL expressions."""

    def __init__(self, expressions: Mapping[str, str], batch_size: int | None = None) -> None:
        self._expressions, self._batch_size = dict(expressions), batch_size

    async def schema(self, snapshot: Snapshot, fragments: Sequence[Fragment]) -> pa.Schema:
        outputs = self._resolve(snapshot)
        return pa.schema([one.field.with_nullable(True) for one in outputs])

    def _resolve(self, snapshot: Snapshot) -> Any:
        # A column is read along, so that constants have rows.
        first = snapshot.manifest.schema.names[0]
        columns = {**self._expressions, "": "`" + first + "`"}
        return resolve(snapshot.manifest.schema, columns).outputs[:-1]

    async def values(self, snapshot: Snapshot, fragment: Fragment) -> AsyncGenerator[pa.RecordBatch, None]:
        first = snapshot.manifest.schema.names[0]
        columns = {**self._expressions, "": "`" + first + "`"}
        async for batch in read_live(snapshot, fragment, columns, self._batch_size):
            yield batch.select(list(self._expressions))


class Function(Transform):
    """Columns computed by a user's function."""

    def __init__(self, udf: BatchUDF, columns: Sequence[str] | None, batch_size: int | None = None) -> None:
        self._udf, self._columns, self._batch_size = udf, columns, batch_size
        self._first: tuple[int, pa.RecordBatch] | None = None

    async def schema(self, snapshot: Snapshot, fragments: Sequence[Fragment]) -> pa.Schema:
        if self._udf.output_schema is not None:
            return self._udf.output_schema
        # The first result says it; it is not computed twice.
        for fragment in fragments:
            async with aclosing(self._read(snapshot, fragment)) as batches:
                async for batch in batches:
                    self._first = (fragment.id, self._udf.at(fragment.id, 0, batch))
                    return self._first[1].schema
        arrow = resolve(snapshot.manifest.schema, self._columns).schema
        return self._udf(pa.RecordBatch.from_pylist([], schema=arrow)).schema

    def _read(self, snapshot: Snapshot, fragment: Fragment) -> AsyncGenerator[pa.RecordBatch, None]:
        return read_live(snapshot, fragment, self._columns, self._batch_size)

    async def values(self, snapshot: Snapshot, fragment: Fragment) -> AsyncGenerator[pa.RecordBatch, None]:
        number = 0
        async for batch in self._read(snapshot, fragment):
            first, self._first = self._first, None
            known = first is not None and first[0] == fragment.id and first[1].num_rows == batch.num_rows
            if known and first is not None:
                yield first[1]
            else:
                yield self._udf.at(fragment.id, number, batch)
            number += 1


class Stream(Transform):
    """Columns that come along as rows, in the order of the table."""

    def __init__(self, stream: InputStream) -> None:
        self._schema = stream.schema
        self._batches: Iterator[pa.RecordBatch] = iter(stream.batches)
        self._rest: pa.RecordBatch | None = None

    async def schema(self, snapshot: Snapshot, fragments: Sequence[Fragment]) -> pa.Schema:
        return self._schema

    async def values(self, snapshot: Snapshot, fragment: Fragment) -> AsyncGenerator[pa.RecordBatch, None]:
        missing = fragment.num_rows
        while missing:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise InvalidInputError("the stream ended before it had values for all rows of the dataset")
            taken = min(missing, batch.num_rows)
            self._rest = batch.slice(taken) if taken < batch.num_rows else None
            missing -= taken
            yield batch.slice(0, taken)

    def end(self) -> None:
        rest = self._rest if self._rest is not None else next(self._batches, None)
        while rest is not None and not rest.num_rows:
            rest = next(self._batches, None)
        if rest is not None:
            raise InvalidInputError("the stream has more values than the dataset has rows")


class Joined(Transform):
    """Columns of another table, by a key; rows without a match get nulls, of several matches the last wins."""

    def __init__(self, right: pa.Table, left_on: str, right_on: str) -> None:
        if right_on not in right.column_names:
            raise InvalidInputError(f"the data has no column {right_on!r}")
        # Looking up finds the first of equal keys.
        backwards = np.arange(right.num_rows - 1, -1, -1)
        self._right = arrays.take(right, backwards).combine_chunks()
        self._left_on, self._right_on = left_on, right_on

    @property
    def names(self) -> list[str]:
        """The columns beside the key."""
        return [one for one in self._right.column_names if one != self._right_on]

    async def schema(self, snapshot: Snapshot, fragments: Sequence[Fragment]) -> pa.Schema:
        (key,) = resolve(snapshot.manifest.schema, [self._left_on]).schema
        given = self._right.schema.field(self._right_on).type
        if key.type != given:
            raise InvalidInputError(f"column {self._left_on!r} is {key.type}, {self._right_on!r} is {given}")
        return pa.schema([self._right.schema.field(one) for one in self.names])

    def matches(self, keys: pa.Array) -> pa.Array:
        """Row of the other table for each key, null without a match."""
        compute = imports.load("pyarrow.compute")
        wanted = self._right.column(self._right_on).combine_chunks()
        return compute.index_in(keys, value_set=wanted)

    def columns_at(self, rows: pa.Array) -> pa.RecordBatch:
        """The columns beside the key at some rows; null where the row is."""
        table = self._right.select(self.names).take(rows).combine_chunks()
        batches = table.to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

    async def values(self, snapshot: Snapshot, fragment: Fragment) -> AsyncGenerator[pa.RecordBatch, None]:
        async for batch in read_live(snapshot, fragment, [self._left_on]):
            yield self.columns_at(self.matches(batch.column(0)))


def transform_of(
    given: Any, columns: Sequence[str] | None, reader_schema: pa.Schema | None, batch_size: int | None
) -> Transform:
    """What a user hands over: a dictionary of SQL, a function, or rows.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(given, Mapping) and all(isinstance(one, str) for one in given.values()):
        return Expressions(given, batch_size)
    if isinstance(given, BatchUDF):
        return Function(given, columns, batch_size)
    if callable(given) and not hasattr(given, "__arrow_c_stream__"):
        return Function(BatchUDF(given, reader_schema), columns, batch_size)
    return Stream(read_input(given, reader_schema))
