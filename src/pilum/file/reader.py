"""Reading one data file: open, initialise, schedule, decode (docs/architecture.md, "The one idea").

```
open            tail of the file              ─► FileMetadata     cached by (store, path)
initialise      metadata of the wanted pages  ─► Column           cached by (store, path, column)
schedule        rows ─► byte ranges of all columns and pages, merged into few requests      (pure)
decode          bytes ─► blocks ─► one Arrow record batch                                   (pure)
```

Every public coroutine does the first two in its await, so that callers overlap them across files, and what goes
wrong with them is raised there, naming file, column and page.  `read_batch` is the whole path for one batch;
the streams of `pilum.file.stream` are made of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding import Decoded, Range, Rows
from pilum.errors import CorruptFileError, InvalidInputError, PilumError
from pilum.file import stream
from pilum.file.late import prepare
from pilum.file.metadata import Column, FileMetadata, keep_bytes, load_metadata, metadata_of_body, relocated
from pilum.file.page_metadata import load_pages
from pilum.file.plan import (
    DAMAGE,
    ReadPlan,
    ResolvedProjection,
    decode_batch,
    decode_pages,
    scaled,
    scaled_leaves,
    schedule,
)
from pilum.file.rows import Selection, check_rows
from pilum.file.scattered import Split, read_scattered, scattered_now
from pilum.io import Bytes, Store, current_runtime
from pilum.io.ordered import drive
from pilum.schema import Schema, column_indices, is_descriptor

if TYPE_CHECKING:
    from pilum.file.cache import Cache
    from pilum.file.stream import ReadTask

__all__ = ["FileReader"]

# Decoding more bytes than this leaves the event loop for the pool.
OFFLOAD_BYTES = 256 << 10
_MAX_PROJECTIONS = 8
_MAX_PLANS = 64


class FileReader:
    """One opened data file of format 2.1 or 2.2.

    Attributes:
        path: the file's key in its store.
        metadata: what the tail said.
        cache: of the session; None if nothing is kept.
        split: how scattered rows are read, kept here if there is no session.
    """

    __slots__ = (
        "_body",
        "_held",
        "_mapping",
        "_plan",
        "_schema",
        "cache",
        "metadata",
        "path",
        "split",
        "store",
    )

    def __init__(
        self, store: Store, path: str, metadata: FileMetadata, schema: Schema | None,
        mapping: tuple[Sequence[int], Sequence[int]] | None, cache: Cache | None, body: Bytes | None,
    ) -> None:  # fmt: skip
        self.store = store
        self.path = path
        self.metadata = metadata
        self._schema = schema
        self._mapping = mapping
        self.cache = cache
        self._body = body
        self._held: list[tuple[int, int, Bytes]] | None = None
        self._plan: ReadPlan | None = None
        self.split: Split | None = None

    # -- opening ----------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        store: Store,
        path: str,
        *,
        size: int | None = None,
        schema: Schema | None = None,
        fields: Sequence[int] | None = None,
        column_indices: Sequence[int] | None = None,
        cache: Cache | None = None,
        whole: bool = False,
        body: Bytes | None = None,
    ) -> FileReader:
        """Open a file; the metadata I/O happens in this await.

        Args:
            store: where the file lies.
            path: its key.
            size: its length in bytes, if known.
            schema: what is read by default; the file's own schema if None.
            fields, column_indices: field ids and the columns that hold them, as the manifest lists them; if
                None the file's schema says.
            cache: of the session; nothing is kept if None.
            whole: fetch the whole file in one request unless its metadata is cached, because most of it will be read.
            body: the bytes of the whole file, when another reader has them.

        Raises:
            CorruptFileError: the file contradicts the format.
            UnsupportedError: a file version that is not read.
            NotFoundError: there is no such file.
        """
        prepare()
        key = (store.uri, path)
        metadata: FileMetadata | None = cache.get(key) if cache is not None else None
        if metadata is None:
            if whole and size and body is None:
                body = await store.get(path, 0, size, who="file")
            wanted = None if schema is None else len(schema.leaves())
            metadata = await load_metadata(store, path, size, wanted, body)
            if cache is not None:
                keep_bytes(cache, store, path, body)
                cache.put(key, metadata, metadata.nbytes)
        return await cls.of_metadata(store, path, metadata, schema, fields, column_indices, cache, body)

    @classmethod
    async def of_metadata(
        cls, store: Store, path: str, metadata: FileMetadata, schema: Schema | None,
        fields: Sequence[int] | None, column_indices: Sequence[int] | None, cache: Cache | None, body: Bytes | None,
    ) -> FileReader:  # fmt: skip
        """A reader of a file whose tail has been read; arguments as `open`."""
        mapping = None
        if fields is not None and column_indices is not None:
            mapping = (fields, column_indices)
        reader = cls(store, path, metadata, schema, mapping, cache, body)
        if reader._known_projection(None) is None:
            await reader._projection(None)
        return reader

    @classmethod
    def of_body(
        cls, store: Store, path: str, body: Bytes, schema: Schema, fields: Sequence[int],
        column_indices: Sequence[int], cache: Cache,
    ) -> FileReader | None:  # fmt: skip
        """A reader of a small file of format 2.1 or later that is here whole, without waiting for anything.

        None if that takes more than a look at the end of the file; then `open` does it.
        """
        metadata = metadata_of_body(path, body)
        if metadata is None or metadata.container.footer.version < (2, 1):
            return None
        cache.put((store.uri, path), metadata, metadata.nbytes)
        keep_bytes(cache, store, path, body)
        return cls(store, path, metadata, schema, (fields, column_indices), cache, body)

    def at_hand(self, ranges: Sequence[Range]) -> list[Bytes | None] | None:
        """What is in memory of some ranges of the file, from its body or from the session; None if nothing is."""
        body = self._body
        if body is not None:
            # A small part must not keep all of the file alive, as arrays that are views of it would.
            half = len(body) // 2
            return [body[low:high] if high - low > half else body[low:high].copy() for low, high in ranges]
        if not self.store.suspends:
            return None
        held: list[tuple[int, int, Bytes]] | None = self._held
        if held is None and self.cache is not None and self.cache.files is not None:
            held = self.cache.files.get((self.store.uri, self.path))
        if held is None:
            return None
        found: list[Bytes | None] = []
        for low, high in ranges:
            pieces = (
                data[low - start : high - start] for start, end, data in held if start <= low <= high <= end
            )
            found.append(next(pieces, None))
        return found if any(piece is not None for piece in found) else None

    def keep(self, ranges: list[Range], buffers: list[Bytes]) -> None:
        """Keep bytes of whole pages: in the session, or here until the next are kept."""
        kept = [(low, high, data) for (low, high), data in zip(ranges, buffers, strict=True)]
        files = self.cache.files if self.cache is not None else None
        if files is None:
            self._held = kept
            return
        key = (self.store.uri, self.path)
        kept += files.get(key) or []
        files.put(key, kept, sum([high - low for low, high, _ in kept]))

    @classmethod
    def known(
        cls, store: Store, path: str, schema: Schema, fields: Sequence[int], column_indices: Sequence[int],
        cache: Cache,
    ) -> FileReader | None:  # fmt: skip
        """A reader of a file of format 2.1 or later, if what opening it needs is in the cache.  Pure."""
        metadata = cache.get((store.uri, path))
        if not isinstance(metadata, FileMetadata) or metadata.footer.version < (2, 1):
            return None
        reader = cls(store, path, metadata, schema, (fields, column_indices), cache, None)
        if reader._known_projection(None) is None:
            numbers, scales, _ = reader._numbers(schema)
            container = metadata.container
            for number, scale in zip(numbers, scales, strict=True):
                if (
                    container.shared_column(number, scale) is None
                    and container.column_bytes(number) is None
                    and cache.get((store.uri, path, number)) is None
                ):
                    return None
            drive(reader._projection(None))
        return reader

    @property
    def body(self) -> Bytes | None:
        """The bytes of the whole file, if they were fetched when it was opened."""
        return self._body

    def with_body(self, body: Bytes | None) -> FileReader:
        """A reader of the same file that serves data from ``body``, or from the store if None."""
        if self._body is body:
            return self
        return FileReader(self.store, self.path, self.metadata, self._schema, self._mapping, self.cache, body)

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        return self.metadata.num_rows

    @property
    def schema(self) -> Schema:
        """What is read when no projection is given."""
        return self._schema or self.metadata.schema

    @property
    def version(self) -> tuple[int, int]:
        """Format version of the file."""
        return self.metadata.footer.version

    def __repr__(self) -> str:
        return f"<FileReader {self.path}, {self.num_rows} rows, format {self.version[0]}.{self.version[1]}>"

    async def initialise(
        self, projection: Schema | Sequence[str] | None = None, rows: Sequence[Rows] | None = None
    ) -> ResolvedProjection:
        """Load the page metadata of the projected columns (of the pages that hold ``rows``; all by default)."""
        resolved = self._known_projection(projection) or await self._projection(self._schema_of(projection))
        for part in (range(self.num_rows),) if rows is None else rows:
            await load_pages(self, resolved, part)
        return resolved

    # -- reading ----------------------------------------------------------------------------------------

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
        resolved = self._known_projection(projection) or await self._projection(self._schema_of(projection))
        if not len(wanted):
            return pa.RecordBatch.from_arrays(
                [arrays.empty(f.type) for f in resolved.arrow], schema=resolved.arrow
            )
        await load_pages(self, resolved, wanted)
        found = await read_scattered(self, resolved, wanted)
        return await self.execute(self.schedule(resolved, wanted)) if found is None else found

    def take_now(self, rows: npt.NDArray[np.int64]) -> pa.RecordBatch | None:
        """Scattered rows of all columns if nothing has to be waited for; None if `read_batch` is to be awaited.

        Args:
            rows: strictly increasing row numbers of the file, at least one.
        """
        resolved = self._known_projection(None)
        if resolved is None or self._body is not None:
            return None
        return scattered_now(self, resolved, rows)

    async def read_decoded(self, start: int, stop: int) -> list[list[Decoded]]:
        """Rows ``[start, stop)`` as decoded pages, one list for each leaf of the schema the file was opened with.

        For callers that compute on values and need no Arrow array.
        """
        return await self.execute_decoded(await self.plan_decoded(start, stop))

    async def plan_decoded(self, start: int, stop: int) -> ReadPlan:
        """The plan of `read_decoded`; loads the metadata it needs."""
        plan = self._plan
        if plan is not None and plan.rows == (start, stop):
            return plan
        # A fragment is read by the same ranges in every query, and so are its neighbours that end in the same
        # bytes; a plan is pure and may be used again.
        container = self.metadata.container
        key = (id(self._schema or container.schema), start, stop)
        plan = container.plans.get(key)
        resolved = self._known_projection(None) or await self._projection(None)
        if plan is None or plan.projection is not resolved:
            wanted = check_rows(range(start, stop), self.num_rows)
            await load_pages(self, resolved, wanted)
            plan = self.schedule(resolved, wanted)
            if resolved is container.projections.get(key[0]) or resolved is container.alike.get(key[0]):
                if len(container.plans) >= _MAX_PLANS:
                    container.plans.clear()
                container.plans[key] = plan
        self._plan = plan
        return plan

    def planned(self, start: int, stop: int) -> ReadPlan | None:
        """The plan to read rows ``[start, stop)``, if everything it takes is known already.  Pure."""
        resolved = self._known_projection(None)
        if resolved is None or not 0 <= start < stop <= self.num_rows:
            return None
        rows = range(start, stop)
        for leaf, column in enumerate(resolved.columns):
            if column.uninitialised(scaled(rows, resolved.scales[leaf])):
                return None
        return self.schedule(resolved, rows)

    async def execute_decoded(
        self, plan: ReadPlan, buffers: list[Bytes] | None = None
    ) -> list[list[Decoded]]:
        """The pages of a plan, from ``buffers`` (the bytes of its ranges) if they have been fetched already."""
        while True:
            if buffers is None:
                buffers = await self.fetch(plan.ranges)
            result = decode_pages(self.path, plan, buffers)
            if not isinstance(result, ReadPlan):
                return result
            plan, buffers = result, None

    async def execute(self, plan: ReadPlan) -> pa.RecordBatch:
        """Fetch the bytes of a scheduled read and decode them."""
        while True:
            buffers = await self.fetch(plan.ranges)
            if sum(map(len, buffers)) > OFFLOAD_BYTES:
                result = await current_runtime().offload(decode_batch, self.path, plan, buffers)
            else:
                result = decode_batch(self.path, plan, buffers)
            if not isinstance(result, ReadPlan):
                return result
            plan = result  # positions had to be looked up first

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

    async def read_global_buffer(self, index: int) -> bytes:
        """The bytes of a global buffer; 0 is the serialized file descriptor, users' begin at 1."""
        buffers = self.metadata.buffers
        if not 0 <= index < len(buffers):
            raise InvalidInputError(f"global buffer {index} does not exist: {self.path} has {len(buffers)}")
        low, high = buffers[index]
        (data,) = await self.fetch([(low, high)], who="global buffer")
        return data.tobytes()

    # -- initialise -------------------------------------------------------------------------------------

    def _schema_of(self, projection: Schema | Sequence[str] | None) -> Schema | None:
        if projection is None or isinstance(projection, Schema):
            return projection
        return self.schema.project(list(projection))

    def _known_projection(self, projection: Schema | Sequence[str] | None) -> ResolvedProjection | None:
        schema = (self._schema or self.metadata.schema) if projection is None else projection
        metadata = self.metadata
        found: ResolvedProjection | None = metadata.projections.get(id(schema))
        if found is None:
            found = metadata.container.projections.get(id(schema))
        if found is not None and found.schema is schema and found.mapping == self._mapping:
            return found
        return None

    async def _projection(self, schema: Schema | None) -> ResolvedProjection:
        """Resolve a schema to columns; loads column metadata that is not here yet."""
        metadata = self.metadata
        if schema is None:
            schema = self.schema
        known = self._known_projection(schema)
        if known is not None:
            return known
        known = self._alike_projection(schema)
        if known is not None:
            return known
        numbers, scales, spans = self._numbers(schema)
        columns = await self._columns(numbers, scales)
        for at, leaf in enumerate(schema.leaves()):
            if leaf.is_blob and is_descriptor(leaf):
                columns[at] = columns[at].descriptors()
        resolved = ResolvedProjection(
            schema, schema.to_arrow(), tuple(columns), tuple(scales), tuple(spans), self._mapping
        )
        # Columns that need no metadata of this file are shared, and so is what was resolved to them.
        shared = all(
            metadata.container.shared_column(n, k) is not None for n, k in zip(numbers, scales, strict=True)
        )
        memo = metadata.container.projections if shared else metadata.projections
        if len(memo) >= _MAX_PROJECTIONS:
            memo.clear()
        memo[id(schema)] = resolved
        if not shared and self._body is not None and all(column.ready for column in columns):
            if len(metadata.container.alike) >= _MAX_PROJECTIONS:
                metadata.container.alike.clear()
            metadata.container.alike[id(schema)] = resolved
        return resolved

    def _alike_projection(self, schema: Schema) -> ResolvedProjection | None:
        """The projection of another file, if this one is here whole and has the very columns of that one."""
        body, metadata = self._body, self.metadata
        found: ResolvedProjection | None = metadata.container.alike.get(id(schema))
        if body is None or found is None or found.schema is not schema or found.mapping != self._mapping:
            return None
        container = metadata.container
        for column, scale in zip(found.columns, found.scales, strict=True):
            number = column.index
            if container.shared_column(number, scale) is column:
                continue
            if container.alike_column(number, scale, body) is not column:
                return None
            if self.cache is not None:
                self.cache.put((self.store.uri, self.path, number), column, column.nbytes)
        metadata.projections[id(schema)] = found
        return found

    def _numbers(self, schema: Schema) -> tuple[list[int], list[int], list[int]]:
        """Column number and items per row of each leaf, and the first leaf of each field, then their number."""
        metadata = self.metadata
        if self._mapping is not None:
            indices = dict(zip(*self._mapping, strict=True))
        else:
            indices = column_indices(metadata.schema, metadata.footer.version)
        numbers: list[int] = []
        scales: list[int] = []
        spans = [0]
        for field in schema.fields:
            for leaf, scale in scaled_leaves(field, 1):
                number = indices.get(leaf.id, -1)
                if not 0 <= number < metadata.num_columns:
                    raise (InvalidInputError if number < 0 else CorruptFileError)(
                        f"{self.path} holds no column for field {leaf.name!r} (id {leaf.id})"
                    )
                numbers.append(number)
                scales.append(scale)
            spans.append(len(numbers))
        return numbers, scales, spans

    async def _columns(self, numbers: list[int], scales: list[int]) -> list[Column]:
        container = self.metadata.container
        found: dict[int, Column] = {}
        missing: list[int] = []
        by_number = dict(zip(numbers, scales, strict=True))
        for number, scale in by_number.items():
            column = container.shared_column(number, scale)
            if column is None and self.cache is not None:
                column = self.cache.get((self.store.uri, self.path, number))
            if column is None and self._body is not None:
                column = container.alike_column(number, scale, self._body)
                if column is not None and self.cache is not None:
                    self.cache.put((self.store.uri, self.path, number), column, column.nbytes)
            if column is None:
                data = container.column_bytes(number)
                if data is None:
                    missing.append(number)
                    continue
                column = self._parse_column(number, data, scale)
            found[number] = column
        if missing:
            ranges = [container.ranges[number] for number in missing]
            for number, fetched in zip(missing, await self.fetch(ranges, who="metadata"), strict=True):
                found[number] = self._parse_column(number, fetched.tobytes(), by_number[number])
        return [found[number] for number in numbers]

    def _parse_column(self, number: int, data: bytes, scale: int) -> Column:
        try:
            column = self.metadata.container.parse_column(number, data, scale)
        except PilumError as error:
            raise relocated(error, self.path, number) from error.__cause__
        except DAMAGE as error:
            damaged = CorruptFileError(f"the column metadata cannot be used: {type(error).__name__}: {error}")
            raise relocated(damaged, self.path, number) from error
        if not column.ready and self.cache is not None:
            self.cache.put((self.store.uri, self.path, number), column, column.nbytes)
        return column

    # -- schedule, fetch, decode ------------------------------------------------------------------------

    def schedule(self, resolved: ResolvedProjection, rows: Rows) -> ReadPlan:
        """Plan the read of rows whose pages are initialised.  Pure."""
        return schedule(self.path, resolved, rows)

    def page_edges(self, resolved: ResolvedProjection) -> Sequence[int]:
        """Rows where pages of the column with the most pages begin: good places to cut a scan."""
        columns = zip(resolved.columns, resolved.scales, strict=True)
        return max((column.starts for column, scale in columns if scale == 1), key=len, default=[])

    async def fetch(self, ranges: list[Range], who: str = "data") -> list[Bytes]:
        """The bytes of some ranges, from memory or from the store."""
        if not ranges:
            return []
        here = self.at_hand(ranges)
        if here is not None:
            missing = [wanted for wanted, piece in zip(ranges, here, strict=True) if piece is None]
            more = iter(await self.store.get_ranges(self.path, missing, who=who) if missing else ())
            return [next(more) if piece is None else piece for piece in here]
        if len(ranges) == 1:
            low, high = ranges[0]
            return [await self.store.get(self.path, low, high, who=who)]
        return await self.store.get_ranges(self.path, ranges, who=who)
