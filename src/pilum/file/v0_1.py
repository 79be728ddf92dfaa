"""Reading data files of format 0.1 (`spec/file-2.0-and-0.1.md`, part B).

```
pages of batch 0, 1, …      one page per field and batch, no padding
page table                  int64[fields][batches][2]: position and length of each page
statistics, dictionaries    optional
u32 length | Manifest       only its schema counts
u32 length | Metadata       row offsets of the batches, positions of the other sections
footer                      i64 position of the Metadata, u16 major, u16 minor, "LANC"
```

Opening reads the tail, then manifest and page table together; what pages mean is `pilum.encoding.v0_1`.  The page table
begins with the smallest field id of the file's own schema, whatever the table around it says.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding.v0_1 import Batches, Pages, open_column, page_sizes
from pilum.encoding.v2_0 import Column
from pilum.errors import CorruptFileError, InvalidInputError, PilumError, UnsupportedError, located
from pilum.file.metadata import relocated
from pilum.file.plan import DAMAGE
from pilum.file.tree_reader import TreeProjection, TreeReader
from pilum.io import Bytes, Store
from pilum.proto.lazy import legacy_file_pb2, table_pb2
from pilum.schema import Schema

if TYPE_CHECKING:
    from pilum.file.cache import Cache
    from pilum.proto import file_pb2

__all__ = ["FileReader01", "LegacyMetadata"]

_FOOTER = struct.Struct("<qHH4s")
_LENGTH = struct.Struct("<I")
_VERSIONS = {(0, 0), (0, 1), (0, 2)}
_MAX_ID = 1 << 20
# Statistics up to this size are fetched in one request.
_MAX_STATISTICS = 4 << 20
_STRINGS = frozenset(("string", "binary", "large_string", "large_binary"))
Ints = npt.NDArray[np.int64]


class PageTable:
    """Positions and lengths of pages by field id and batch.

    Attributes:
        low: field id of the first row.
        ids: fields that the file holds.
        entries: int64, (fields, batches, 2).
    """

    __slots__ = ("_ends", "entries", "ids", "low")

    def __init__(self, low: int, ids: frozenset[int], entries: Ints) -> None:
        self.low, self.ids, self.entries = low, ids, entries
        self._ends: Ints | None = None

    def find(self, field_id: int) -> Pages | None:
        """The pages of a field, None if the file does not hold it."""
        if field_id not in self.ids:
            return None
        pages = self.entries[field_id - self.low]
        positions = pages[:, 0]
        floors = None
        if self._ends is not None:
            # Pages do not overlap, so the last of all ends up to a position is that of the page before.
            floors = np.maximum(self._ends[np.searchsorted(self._ends, positions, "right") - 1], 0)
        return Pages(positions, pages[:, 1], floors)

    def know_ends(self, schema: Schema) -> None:
        """Work out where all pages end, which the types in the file's own schema say."""
        if self._ends is None:
            ends = [np.zeros(1, np.int64)]
            for field in schema.walk():
                if field.id in self.ids:
                    pages = self.entries[field.id - self.low]
                    ends.append(pages[:, 0] + page_sizes(field, pages[:, 1]))
            self._ends = np.sort(np.concatenate(ends))


class LegacyMetadata:
    """What is known of a file once it has been opened; a plain value without a store.

    Attributes:
        path: the file's key, for messages.
        size: its length.
        version: of the footer.
        offsets: first row of each batch, then the number of rows.
        batches: the same for columns.
        table: where the pages are.
        fields: messages of the embedded schema, flat.
        schema_metadata: of the embedded schema.
        table_end: where the page table ends; statistics follow.
        statistics: the ``StatisticsMetadata`` message, None without.
        bounds: the statistics, once they have been read.
        dictionaries: values of dictionary fields that were read so far, by field id.
        projections: resolved projections by identity of their schema.
    """

    __slots__ = (
        "_schema", "batches", "bounds", "dictionaries", "fields", "offsets", "path", "projections", "schema_metadata",
        "size", "statistics", "table", "table_end", "version",
    )  # fmt: skip

    def __init__(
        self, path: str, size: int, version: tuple[int, int], offsets: Ints, table: PageTable,
        table_end: int, fields: Sequence[file_pb2.Field], schema_metadata: Any, statistics: Any,
    ) -> None:  # fmt: skip
        self.path, self.size, self.version, self.offsets, self.table = path, size, version, offsets, table
        self.fields, self.schema_metadata, self.statistics = fields, schema_metadata, statistics
        self.table_end = table_end
        self.bounds: pa.RecordBatch | None = None
        self.batches = Batches(np.diff(offsets))
        self.dictionaries: dict[int, Any] = {}
        self.projections: dict[int, TreeProjection] = {}
        self._schema: Schema | None = None

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        return int(self.offsets[-1])

    @property
    def schema(self) -> Schema:
        """The embedded schema.

        Raises:
            CorruptFileError: old writers could store one with duplicate ids; read such a file through its table.
        """
        if self._schema is None:
            self._schema = Schema.from_proto(self.fields, self.schema_metadata)
        return self._schema

    @property
    def nbytes(self) -> int:
        """Memory held, for the cache."""
        return 1000 + 4 * self.table.entries.nbytes + 500 * len(self.fields)


class FileReader01(TreeReader):
    """One opened data file of format 0.1.

    Attributes:
        metadata: what was learnt when it was opened.
    """

    __slots__ = ("metadata",)

    def __init__(
        self, store: Store, path: str, metadata: LegacyMetadata, schema: Schema | None, cache: Cache | None,
        body: Bytes | None,
    ) -> None:  # fmt: skip
        super().__init__(store, path, schema, None, cache, body)
        self.metadata = metadata

    @classmethod
    async def open(
        cls,
        store: Store,
        path: str,
        *,
        size: int | None = None,
        schema: Schema | None = None,
        fields: Sequence[int] | None = None,
        cache: Cache | None = None,
        body: Bytes | None = None,
    ) -> FileReader01:
        """Open a file; the metadata I/O happens in this await.

        Args:
            store: where the file lies.
            path: its key.
            size: its length in bytes, if known.
            schema: what is read by default; the file's own schema if None.  Whether strings may be null is what
                this schema says.
            fields: field ids as the manifest lists them, for files without a schema of their own.
            cache: of the session; nothing is kept if None.
            body: the bytes of the whole file, when another reader has them.

        Raises:
            CorruptFileError: the file contradicts the format.
            UnsupportedError: a file of another format.
            NotFoundError: there is no such file.
        """
        key = (store.uri, path)
        metadata: LegacyMetadata | None = cache.get(key) if cache is not None else None
        if metadata is None:
            try:
                metadata = await _load(store, path, size, fields or (), body)
            except PilumError as error:
                raise relocated(error, path) from error.__cause__
            except DAMAGE as error:
                damaged = CorruptFileError(f"the metadata cannot be used: {type(error).__name__}: {error}")
                raise relocated(damaged, path) from error
            if cache is not None:
                cache.put(key, metadata, metadata.nbytes)
        reader = cls(store, path, metadata, schema, cache, body)
        await reader.initialise()
        return reader

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        return self.metadata.num_rows

    @property
    def file_schema(self) -> Schema:
        """The schema stored in the file."""
        return self.metadata.schema

    @property
    def version(self) -> tuple[int, int]:
        """Version of the footer, (0, 0) to (0, 2)."""
        return self.metadata.version

    @property
    def _projections(self) -> dict[int, TreeProjection]:
        return self.metadata.projections

    def with_body(self, body: Bytes | None) -> FileReader01:
        """A reader of the same file that serves data from ``body``, or from the store if None."""
        if self._body is body:
            return self
        return FileReader01(self.store, self.path, self.metadata, self._schema, self._cache, body)

    async def statistics(self) -> pa.RecordBatch | None:
        """What the file says of its batches: one row each, one struct column per covered field, named by its id.

        A struct has ``null_count``, ``min_value`` and ``max_value``; null in the last two means that no bound is
        known (B.6).  None if the file has no statistics.

        Raises:
            CorruptFileError: the statistics contradict the format.
        """
        metadata = self.metadata
        message = metadata.statistics
        if message is None:
            return None
        if metadata.bounds is None:
            try:
                metadata.bounds = await self._read_statistics(message)
            except PilumError as error:
                raise relocated(error, self.path) from error.__cause__
            except DAMAGE as error:
                damaged = CorruptFileError(f"the statistics cannot be used: {type(error).__name__}: {error}")
                raise relocated(damaged, self.path) from error
        return metadata.bounds

    async def _read_statistics(self, message: Any) -> pa.RecordBatch:
        schema = Schema.from_proto(message.schema)
        ids = frozenset(node.id for node in schema.walk())
        if not ids or min(ids) < 0 or max(ids) > _MAX_ID:
            raise CorruptFileError("the fields of the statistics have no usable ids")
        count = len(self.metadata.offsets) - 1
        low, rows = min(ids), max(ids) - min(ids) + 1
        at = message.page_table_position
        _check_table(at, rows, 1, self.metadata.size)
        # The pages lie between the two page tables: one request for all of it.
        start, end = self.metadata.table_end, at + 16 * rows
        reader = self
        if self._body is None and start <= at and end - start <= _MAX_STATISTICS:
            (data,) = await self._fetch([(start, end)], who="statistics")
            reader = FileReader01(_Part(self.store, start, data), self.path, self.metadata, None, None, None)
        (data,) = await reader._fetch([(at, end)], who="statistics")
        table = PageTable(low, ids, _entries(data, rows, 1))
        whole = Batches(np.array([count], np.int64))
        columns = tuple(open_column(top, table.find, whole, self.metadata.size, {}) for top in schema.fields)
        projection = TreeProjection(schema, schema.to_arrow(), columns, None)
        return await reader.execute(reader.schedule(projection, range(count)))

    # -- columns -----------------------------------------------------------------------------------------

    async def _resolve(self, schema: Schema) -> tuple[Column, ...]:
        metadata = self.metadata
        table = metadata.table
        for top in schema.fields:
            if not any(node.id in table.ids for node in top.walk()):
                raise InvalidInputError(f"{self.path} holds no column for field {top.name!r} (id {top.id})")
            for node in top.walk():
                if node.logical_type.startswith("dict:") and node.id in table.ids:
                    await self._load_dictionary(node.id, node.arrow_type.value_type)
        self._learn_ends(schema)
        columns = []
        for top in schema.fields:
            try:
                columns.append(
                    open_column(top, table.find, metadata.batches, metadata.size, metadata.dictionaries)
                )
            except PilumError as error:
                raise relocated(error, self.path, repr(top.name)) from None
            except DAMAGE as error:
                raise self._damaged(error, top.name) from error
        return tuple(columns)

    def _learn_ends(self, schema: Schema) -> None:
        """Let strings be read with their positions, if the file's own schema is in order."""
        if any(node.logical_type in _STRINGS for top in schema.fields for node in top.walk()):
            with contextlib.suppress(PilumError):
                self.metadata.table.know_ends(self.metadata.schema)

    async def _load_dictionary(self, field_id: int, kind: Any) -> None:
        """Read the values of a dictionary field; each file carries its own copy (B.5)."""
        metadata = self.metadata
        if field_id in metadata.dictionaries:
            return
        message = next(
            (one for one in metadata.fields if one.id == field_id and one.HasField("dictionary")), None
        )
        if message is None:
            raise CorruptFileError(f"{self.path} holds no dictionary for field id {field_id}")
        length = message.dictionary.length
        if length < 0:
            raise CorruptFileError(f"{self.path}: a dictionary of {length} values")
        pages = Pages(np.array([message.dictionary.offset], np.int64), np.array([length], np.int64))
        field = Schema.from_arrow(pa.schema([pa.field("values", kind)])).fields[0]
        column = open_column(field, lambda number: pages, Batches(pages.lengths), metadata.size, {})
        schema = Schema((field,), {})
        projection = TreeProjection(schema, schema.to_arrow(), (column,), None)
        batch = await self.execute(self.schedule(projection, range(length)))
        metadata.dictionaries[field_id] = batch.column(0)


class _Part(Store):
    """A store that has a part of one object in memory, and the rest where it lies."""

    def __init__(self, store: Store, start: int, data: Bytes) -> None:
        super().__init__(store.uri)
        self.suspends, self.block_size = store.suspends, store.block_size
        self._store, self._start, self._data = store, start, data

    async def get(self, path: str, start: int, end: int, *, who: str = "") -> Bytes:
        low, high = start - self._start, end - self._start
        if 0 <= low <= high <= len(self._data):
            return self._data[low:high]
        return await self._store.get(path, start, end, who=who)

    async def get_ranges(self, path: str, ranges: Sequence[tuple[int, int]], *, who: str = "") -> list[Bytes]:
        return [await self.get(path, start, end, who=who) for start, end in ranges]


async def _load(
    store: Store, path: str, size: int | None, fields: Sequence[int], body: Bytes | None
) -> LegacyMetadata:
    from google.protobuf.message import DecodeError

    if body is not None:
        tail, size = body, len(body)
    else:
        tail, size = await store.get_tail(path, max(store.block_size, 4096), size=size, who="footer")
    start = size - len(tail)
    if len(tail) < _FOOTER.size:
        raise CorruptFileError(f"{size} bytes are too short for a Lance file")
    position, major, minor, magic = _FOOTER.unpack(tail[-_FOOTER.size :].tobytes())
    if magic != b"LANC":
        raise CorruptFileError(f"not a Lance file: it ends in {magic!r} instead of b'LANC'")
    if (major, minor) not in _VERSIONS:
        raise UnsupportedError(f"version {major}.{minor} is not format 0.1; open_file reads it")
    end = size - _FOOTER.size

    async def pieces(ranges: list[tuple[int, int]]) -> list[Bytes]:
        if all(low >= start for low, _ in ranges):
            return [tail[low - start : high - start] for low, high in ranges]
        return list(await store.get_ranges(path, ranges, who="metadata"))

    if not 0 <= position <= end - _LENGTH.size:
        raise CorruptFileError(located("the position of the metadata leaves the file", offset=position))
    (data,) = await pieces([(position, end)])
    try:
        message = legacy_file_pb2.Metadata.FromString(_section(data, "metadata"))
    except DecodeError as error:
        raise CorruptFileError(f"the metadata is not a valid message: {error}") from None
    offsets = np.array([*message.batch_offsets] or [0], np.int64)
    if int(offsets[0]) != 0 or bool((np.diff(offsets) < 0).any()):
        raise CorruptFileError("the batch offsets decrease or do not begin with 0")
    batches = len(offsets) - 1

    at = message.manifest_position
    embedded = table_pb2.Manifest()
    if at:
        if not at <= position - _LENGTH.size:
            raise CorruptFileError(located("the schema does not lie before the metadata", offset=at))
        (data,) = await pieces([(at, position)])
        try:
            embedded.ParseFromString(_section(data, "schema"))
        except DecodeError as error:
            raise CorruptFileError(f"the schema is not a valid message: {error}") from None
        ids = frozenset(field.id for field in embedded.fields)
    else:
        ids = frozenset(number for number in fields if number >= 0)
    if not ids:
        entries, low, table_end = np.zeros((0, batches, 2), np.int64), 0, 0
    else:
        low = min(ids)
        rows = max(ids) - low + 1
        if low < 0 or rows > _MAX_ID:
            raise CorruptFileError(f"field ids from {low} to {max(ids)}")
        table_at = message.page_table_position
        _check_table(table_at, rows, batches, size)
        (data,) = await pieces([(table_at, table_at + 16 * rows * batches)])
        entries, table_end = _entries(data, rows, batches), table_at + 16 * rows * batches
    statistics = message.statistics if message.HasField("statistics") else None
    return LegacyMetadata(
        path, size, (major, minor), offsets, PageTable(low, ids, entries), table_end,
        list(embedded.fields), dict(embedded.schema_metadata), statistics,
    )  # fmt: skip


def _section(data: Bytes, what: str) -> bytes:
    """A message behind its length."""
    raw = data.tobytes()
    (length,) = _LENGTH.unpack_from(raw)
    if length > len(raw) - _LENGTH.size:
        raise CorruptFileError(f"the {what} claims {length} bytes, {len(raw) - _LENGTH.size} are there")
    return raw[_LENGTH.size : _LENGTH.size + length]


def _check_table(position: int, rows: int, batches: int, size: int) -> None:
    if position + 16 * rows * batches > size:
        raise CorruptFileError(located("the page table leaves the file", offset=position))


def _entries(data: Bytes, rows: int, batches: int) -> Ints:
    entries: Ints = np.frombuffer(data.tobytes(), "<i8").reshape(rows, batches, 2)
    return entries
