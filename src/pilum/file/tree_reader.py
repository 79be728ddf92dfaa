"""The common part of the readers of old formats: column trees read in rounds.

In formats 2.0 and 0.1 a field is a tree of columns (`pilum.encoding.v2_0.columns`) whose reads may need several
rounds: the ends of lists before their items.  All columns of a batch go through their rounds together::

    schedule     rows ─► one ArrayRead per top-level field                (pure)
    execute      fetch all ranges ─► decode ─► arrays, or the next round  (as often as the types are deep)

A reader of one format adds how a file is opened and how a schema is resolved to trees (`_resolve`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pyarrow as pa

from pilum.encoding import Decoded, Range, Rows, shred
from pilum.encoding.v2_0 import ArrayRead, Column
from pilum.errors import CorruptFileError, PilumError
from pilum.file import stream
from pilum.file.metadata import relocated
from pilum.file.plan import DAMAGE
from pilum.file.reader import OFFLOAD_BYTES
from pilum.file.rows import Selection, check_rows
from pilum.io import Bytes, Store, current_runtime
from pilum.schema import Schema

if TYPE_CHECKING:
    from pilum.file.cache import Cache
    from pilum.file.stream import ReadTask

__all__ = ["Mapping", "TreeProjection", "TreeReader"]

Self = TypeVar("Self", bound="TreeReader")
Mapping = tuple[Sequence[int], Sequence[int]] | None
MAX_PROJECTIONS = 8


class TreeProjection(NamedTuple):
    """A schema resolved against the columns of one file.

    Attributes:
        schema, arrow: what is read.
        columns: one tree for each top-level field.
        mapping: field ids and columns it was resolved with, as the manifest lists them.
    """

    schema: Schema
    arrow: Any
    columns: tuple[Column, ...]
    mapping: Mapping


class TreePlan(NamedTuple):
    """A scheduled read: one read for each top-level field."""

    projection: TreeProjection
    reads: list[ArrayRead]
    num_rows: int


class TreeReader:
    """One opened data file of an old format; satisfies `GenericReader`.

    Attributes:
        path: the file's key in its store.
        store: where it lies.
    """

    __slots__ = ("_body", "_cache", "_mapping", "_schema", "path", "store")

    def __init__(
        self, store: Store, path: str, schema: Schema | None, mapping: Mapping, cache: Cache | None, body: Bytes | None
    ) -> None:  # fmt: skip
        self.store = store
        self.path = path
        self._schema = schema
        self._mapping = mapping
        self._cache = cache
        self._body = body

    # -- what a format adds ------------------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        raise NotImplementedError

    @property
    def file_schema(self) -> Schema:
        """The schema stored in the file."""
        raise NotImplementedError

    @property
    def version(self) -> tuple[int, int]:
        """Format version as the footer has it."""
        raise NotImplementedError

    @property
    def _projections(self) -> dict[int, TreeProjection]:
        """What was resolved for this file, by identity of the schema."""
        raise NotImplementedError

    async def _resolve(self, schema: Schema) -> tuple[Column, ...]:
        """The column tree of each top-level field; loads metadata that is not here yet."""
        raise NotImplementedError

    def with_body(self: Self, body: Bytes | None) -> Self:
        """A reader of the same file that serves data from ``body``, or from the store if None."""
        raise NotImplementedError

    # -- reading -----------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        """What is read when no projection is given."""
        return self._schema or self.file_schema

    @property
    def body(self) -> Bytes | None:
        """The bytes of the whole file, if they were fetched when it was opened."""
        return self._body

    def __repr__(self) -> str:
        major, minor = self.version
        return f"<{type(self).__name__} {self.path}, {self.num_rows} rows, version {major}.{minor}>"

    async def initialise(
        self, projection: Schema | Sequence[str] | None = None, rows: Sequence[Rows] | None = None
    ) -> TreeProjection:
        """Resolve a projection; the pages of old formats have no metadata of their own."""
        schema = self.schema if projection is None else projection
        if not isinstance(schema, Schema):
            schema = self.schema.project(list(schema))
        memo = self._projections
        known = memo.get(id(schema))
        if known is not None and known.schema is schema and known.mapping == self._mapping:
            return known
        try:
            columns = await self._resolve(schema)
        except PilumError as error:
            raise relocated(error, self.path) from error.__cause__
        for field, column in zip(schema.fields, columns, strict=True):
            if column.num_rows != self.num_rows:
                raise relocated(
                    CorruptFileError(f"the pages hold {column.num_rows} rows, the file says {self.num_rows}"),
                    self.path,
                    repr(field.name),
                )
        found = TreeProjection(schema, schema.to_arrow(), columns, self._mapping)
        if len(memo) >= MAX_PROJECTIONS:
            memo.clear()
        memo[id(schema)] = found
        return found

    def schedule(self, resolved: TreeProjection, rows: Rows) -> TreePlan:
        """Plan the read of rows, all of them in the file.  Pure."""
        reads = []
        for field, column in zip(resolved.schema.fields, resolved.columns, strict=True):
            try:
                reads.append(column.schedule(rows))
            except PilumError as error:
                raise relocated(error, self.path, repr(field.name)) from None
            except DAMAGE as error:
                raise self._damaged(error, field.name) from error
        return TreePlan(resolved, reads, len(rows))

    def page_edges(self, resolved: TreeProjection) -> Sequence[int]:
        """Where a scan is cut best; old formats leave that to the size of batches."""
        return ()

    async def execute(self, plan: TreePlan) -> pa.RecordBatch:
        """Fetch the bytes of a planned read and decode them, round by round."""
        while True:
            buffers = await self._fetch([one for read in plan.reads for one in read.ranges])
            if sum(map(len, buffers)) > OFFLOAD_BYTES:
                result = await current_runtime().offload(self._decode, plan, buffers)
            else:
                result = self._decode(plan, buffers)
            if not isinstance(result, TreePlan):
                return result
            plan = result

    def _decode(self, plan: TreePlan, buffers: list[Bytes]) -> pa.RecordBatch | TreePlan:
        """The batch, or the next round.  Pure."""
        resolved, num_rows = plan.projection, plan.num_rows
        at, again = 0, False
        results: list[Any] = []
        for field, read in zip(resolved.schema.fields, plan.reads, strict=True):
            size = len(read.ranges)
            try:
                found = read.decode(buffers[at : at + size])
                if isinstance(found, ArrayRead):
                    again = True
                elif len(found) != num_rows:
                    raise CorruptFileError(f"{len(found)} rows decoded, {num_rows} expected")
            except PilumError as error:
                raise relocated(error, self.path, repr(field.name)) from None
            except DAMAGE as error:
                raise self._damaged(error, field.name) from error
            at += size
            results.append(found)
        if again:
            reads = [one if isinstance(one, ArrayRead) else ArrayRead([], _Done(one)) for one in results]
            return TreePlan(resolved, reads, num_rows)
        return pa.RecordBatch.from_arrays(results, schema=resolved.arrow)

    def _damaged(self, error: BaseException, name: str) -> PilumError:
        found = CorruptFileError(f"the page cannot be decoded: {type(error).__name__}: {error}")
        return relocated(found, self.path, repr(name))

    async def _fetch(self, ranges: list[Range], who: str = "data") -> list[Bytes]:
        if not ranges:
            return []
        body = self._body
        if body is not None:
            return [body[low:high] for low, high in ranges]
        if len(ranges) == 1:
            low, high = ranges[0]
            return [await self.store.get(self.path, low, high, who=who)]
        return await self.store.get_ranges(self.path, ranges, who=who)

    async def read_batch(
        self, rows: Rows | Sequence[int] | None = None, projection: Schema | Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Rows of the projected columns as one record batch.

        Args:
            rows: a range, strictly increasing indices, or None for all rows.
            projection: a schema (a part of the file's) or column names; all columns by default.

        Raises:
            InvalidInputError: rows out of range, unknown column.
            CorruptFileError: the bytes contradict the format.
        """
        wanted = range(self.num_rows) if rows is None else check_rows(rows, self.num_rows)
        return await self.execute(self.schedule(await self.initialise(projection), wanted))

    async def read_decoded(self, start: int, stop: int) -> list[list[Decoded]]:
        """Rows ``[start, stop)`` as decoded values, one list for each leaf of the schema."""
        batch = await self.read_batch(range(start, stop))
        leaves = [
            leaf
            for field, array in zip(self.schema.fields, batch.columns, strict=True)
            for leaf in shred(field, array)
        ]
        return [[Decoded(one.block, one.rep, one.definition, one.layers, one.num_rows)] for one in leaves]

    async def read_tasks(
        self,
        selection: Selection = None,
        batch_size: int = 8192,
        projection: Schema | Sequence[str] | None = None,
    ) -> AsyncGenerator[ReadTask, None]:
        """A primed stream of `ReadTask`: a row count and an awaitable that gives the batch.  See `stream`."""
        return await stream.read_tasks(self, selection, batch_size, projection)

    async def read_stream(
        self, selection: Selection = None, batch_size: int = 8192, batch_readahead: int | None = None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches of all columns, in row order.  See `stream`."""
        return await self.read_stream_projected(selection, batch_size, batch_readahead)

    async def read_stream_projected(
        self,
        selection: Selection = None,
        batch_size: int = 8192,
        batch_readahead: int | None = None,
        projection: Schema | Sequence[str] | None = None,
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches of some columns, in row order.  See `stream`."""
        return await stream.read_stream(self, selection, batch_size, batch_readahead, projection)

    async def read_range(
        self, start: int, stop: int, batch_size: int = 8192, projection: Schema | Sequence[str] | None = None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of the rows ``[start, stop)``."""
        return await self.read_stream_projected(range(start, stop), batch_size, None, projection)

    async def read_ranges(
        self,
        ranges: Sequence[range],
        batch_size: int = 8192,
        projection: Schema | Sequence[str] | None = None,
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of the rows of sorted, disjoint ranges; batches are full across ranges."""
        return await self.read_stream_projected(list(ranges), batch_size, None, projection)


class _Done:
    """The decode step of a field whose array is complete while others need another round."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = array

    def __call__(self, buffers: list[Bytes]) -> Any:
        return self._array
