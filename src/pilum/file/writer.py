"""Writing one data file: shred, cut into pages, encode, append (`spec/file-container-and-structure.md`, sections 2 and 5.5).

```
batch ─► one array per field ─► shredded leaves ─► buffered until 8 MiB ─► pages ─► encoded ─► appended
                                     blobs ─► appended at once, descriptors buffered    finish: metadata, footer
```

Memory is bounded by the pages being filled, and one finished page per core: every leaf column buffers its own rows and is flushed alone, so columns
cut their pages independently.  Buffered rows reference the caller's arrays, which must not change before the page is
written.  Nothing appears under the file's name before `finish`; `abort` leaves nothing behind.

Encoding is pure computation, so the pages that are due at once are encoded on all cores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import config
from pilum.encoding import (
    EncodedPage,
    EncodeOptions,
    LeafRows,
    blob,
    cut_to_budget,
    descriptors_of,
    encode_page,
    merge,
    prepared_blobs,
    shred,
    size_of,
)
from pilum.encoding.blocks import DictionaryBlock, VariableBlock, block_bytes
from pilum.encoding.dictionaries import same_items
from pilum.encoding.kernels import ranges
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.file import writer_v2_0
from pilum.file.container import ALIGNMENT, closing_sections, column_encoding, page_encoding
from pilum.file.late import prepare
from pilum.file.storable import accepts, check_storable
from pilum.io import ObjectWriter, Range, Store, current_runtime
from pilum.schema import Field, Schema, is_prepared, with_stored_blobs

__all__ = ["FileWriter", "WrittenFile"]

PAGE_BYTES = 8 << 20
WRITABLE_VERSIONS = ((2, 1), (2, 2))
_STRUCTURAL_KEY = "lance-encoding:structural-encoding"
_PADDING = bytes(ALIGNMENT)
# Below this, handing a page to another thread costs more than encoding it.
_PARALLEL_BYTES = 256 << 10
# Blobs are put together for one write up to this many bytes.
_BLOB_WRITE = 8 << 20


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """What a finished file holds, as the manifest lists it.

    Attributes:
        path: its key.
        fields: ids of the fields that own a column.
        column_indices: the column of each.
        version: format version.
        size: bytes.
        num_rows: rows.
    """

    path: str
    fields: tuple[int, ...]
    column_indices: tuple[int, ...]
    version: tuple[int, int]
    size: int
    num_rows: int


@dataclass(slots=True)
class _LeafColumn:
    """One column being written: rows waiting for a page, and the pages already there."""

    field: Field
    options: EncodeOptions
    structural: str | None
    blob: bool
    prepared: bool
    waiting: list[LeafRows] = dataclasses.field(default_factory=list)
    nbytes: int = 0
    rows: int = 0  # top-level rows in finished pages, the priority of the next one
    pages: list[bytes] = dataclasses.field(default_factory=list)
    entries: int = 0  # of the dictionaries of the rows waiting

    def add(self, rows: LeafRows) -> None:
        """Let rows wait for a page; a dictionary that they share with the rows before counts once."""
        block = rows.block
        if isinstance(block, DictionaryBlock):
            last = self.waiting[-1].block if self.waiting else None
            if not isinstance(last, DictionaryBlock) or last.items is not block.items:
                self.entries += block.items.count
                self.nbytes += block_bytes(block.items)
            self.nbytes -= block_bytes(block.items)
        self.waiting.append(rows)
        self.nbytes += size_of(rows)


class _Due(NamedTuple):
    column: _LeafColumn
    rows: LeafRows


class FileWriter:
    """Writes record batches to one data file; use `create`.

    Example:
        >>> import asyncio, pyarrow as pa
        >>> from pilum.file import FileReader, FileWriter
        >>> from pilum.io import MemoryStore
        >>> from pilum.schema import Schema
        >>> async def main() -> pa.RecordBatch:
        ...     rows = pa.record_batch({"a": [1, 2, 3]})
        ...     writer = await FileWriter.create(MemoryStore("doc"), "a.lance", Schema.from_arrow(rows.schema))
        ...     async with writer:
        ...         await writer.write(rows)
        ...     return await (await FileReader.open(MemoryStore("doc"), "a.lance")).read_batch(range(1, 3))
        >>> asyncio.run(main()).to_pydict()
        {'a': [2, 3]}
    """

    def __init__(
        self, sink: ObjectWriter, path: str, schema: Schema, version: tuple[int, int], page_bytes: int
    ) -> None:
        self.path = path
        self.schema = with_stored_blobs(schema)
        self.version = version
        self.num_rows = 0
        self.finished: WrittenFile | None = None
        self._sink = sink
        self._page_bytes = page_bytes
        self._fields = schema.fields
        defaults = EncodeOptions.from_environment(version)
        self._leaves = [
            _leaf_columns(top, stored, defaults)
            for top, stored in zip(schema.fields, self.schema.fields, strict=True)
        ]
        self._buffers: list[Range] = []
        self._position = 0
        self._due: list[_Due] = []
        self._cores = config.cpu_threads()

    @classmethod
    async def create(
        cls,
        store: Store,
        path: str,
        schema: Schema,
        *,
        version: tuple[int, int] = (2, 2),
        page_bytes: int = PAGE_BYTES,
    ) -> FileWriter:
        """Begin a file.

        Args:
            store: where it goes.
            path: its key.
            schema: the columns, with the ids they have in the dataset.
            version: (2, 0), (2, 1) or (2, 2).
            page_bytes: raw bytes that fill a page of one column.

        Raises:
            UnsupportedError: the version cannot be written, or a type cannot be written in it.
            InvalidInputError: field metadata asks for what the type of the field does not allow.
        """
        prepare()
        if version == (2, 0):
            return await writer_v2_0.FileWriter20.create(store, path, schema, page_bytes=page_bytes)
        if version not in WRITABLE_VERSIONS:
            raise UnsupportedError(
                f"file format {version[0]}.{version[1]} cannot be written; use 2.0, 2.1 or 2.2"
            )
        check_storable(schema, version)
        return cls(await store.create(path), path, schema, version, page_bytes)

    @property
    def position(self) -> int:
        """Bytes written so far; buffered rows are not among them."""
        return self._position

    async def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; columns are matched by position and must have the types of the schema.

        Raises:
            InvalidInputError: other columns than the schema's.
        """
        self._check_columns(batch)
        self.num_rows += batch.num_rows
        due = self._due
        for column, top, leaves in zip(batch.columns, self._fields, self._leaves, strict=True):
            for piece in self._pieces(column):
                for leaf, rows in zip(leaves, shred(top, piece), strict=True):
                    if leaf.blob:
                        rows = await self._store_blobs(rows)
                    elif leaf.prepared:
                        values = prepared_blobs.inline_values(rows)
                        rows = prepared_blobs.stored_blobs(rows, await self._store_values(values, rows))
                    if leaf.waiting and _must_end(leaf, rows):
                        due += _pages_of(leaf)
                    leaf.add(rows)
                    if leaf.nbytes >= self._page_bytes:
                        due += _pages_of(leaf)
        # Pages wait for each other, so that a file of one column is encoded on all cores, too.
        if len(due) >= self._cores:
            self._due = []
            await self._append(due)

    def _check_columns(self, batch: pa.RecordBatch) -> None:
        if batch.num_columns != len(self._fields):
            raise InvalidInputError(
                f"{self.path}: {batch.num_columns} columns written, {len(self._fields)} expected"
            )
        for column, top in zip(batch.columns, self._fields, strict=True):
            if not accepts(top, column.type):
                raise InvalidInputError(
                    f"column {top.name!r} is {column.type}, the file has {top.arrow_type}"
                )

    def _pieces(self, column: pa.Array) -> list[pa.Array]:
        """The column in slices of about one page, so that no page is much larger than that."""
        rows, size = len(column), column.nbytes
        if size <= self._page_bytes or rows < 2:
            return [column] if rows else []
        step = max(1, -(-rows * self._page_bytes // size))
        return [column.slice(at, step) for at in range(0, rows, step)]

    async def add_global_buffer(self, data: bytes) -> int:
        """Append a global buffer of the caller's; returns its index, counted from 1."""
        start = self._position
        await self._write_aligned([data])
        self._buffers.append((start, start + len(data)))
        return len(self._buffers)

    async def finish(self) -> WrittenFile:
        """Write what is buffered, the metadata and the footer; the file appears under its name."""
        if self.finished is not None:
            return self.finished
        from pilum.proto import file_pb2

        columns = [leaf for leaves in self._leaves for leaf in leaves]
        due, self._due = self._due, []
        await self._append(due + [page for leaf in columns if leaf.waiting for page in _pages_of(leaf)])
        descriptor = file_pb2.FileDescriptor(schema=self.schema.to_proto_message(), length=self.num_rows)
        tail = closing_sections(
            descriptor.SerializeToString(deterministic=True),
            [_column_metadata(leaf.pages) for leaf in columns],
            self._buffers,
            self._position,
            self.version,
        )
        await self._sink.write([tail])
        self._position += len(tail)
        await self._sink.finish()
        ids = tuple(leaf.field.id for leaf in columns)
        self.finished = WrittenFile(
            self.path, ids, tuple(range(len(ids))), self.version, self._position, self.num_rows
        )
        return self.finished

    async def abort(self) -> None:
        """Give up; nothing remains of the file."""
        await self._sink.abort()

    async def __aenter__(self) -> FileWriter:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.finish()
        else:
            await self.abort()

    # -- blobs ----

    async def _store_blobs(self, rows: LeafRows) -> LeafRows:
        """Append values and return their descriptors."""
        block = rows.block
        if not isinstance(block, VariableBlock):
            return descriptors_of(rows, np.zeros(rows.num_rows, np.int64))
        return descriptors_of(rows, await self._store_values(block, rows))

    async def _store_values(self, block: VariableBlock, rows: LeafRows) -> npt.NDArray[np.int64]:
        """Append the values of rows, each at a multiple of 64, and return where; a group of them is one write."""
        sizes = np.diff(block.offsets).astype(np.int64)
        if rows.definition is not None and rows.rep is None:
            sizes[rows.definition > 0] = 0
        room = -(-sizes // ALIGNMENT) * ALIGNMENT
        ends = np.cumsum(room)
        positions = self._position + ends - room
        done = 0
        for stop in _groups(ends):
            part = slice(done, stop)
            starts = block.offsets[:-1][part].astype(np.int64)
            if stop == done + 1:
                await self._write_aligned([block.data[int(starts[0]) : int(starts[0] + sizes[done])]])
            else:
                out = np.zeros(int(room[part].sum()), np.uint8)
                ranges.scatter(block.data, starts, sizes[part], out, np.cumsum(room[part]) - room[part])
                await self._write_aligned([out])
            done = stop
        return positions

    # -- pages ------------------------------------------------------------------------------------------

    async def _append(self, due: Sequence[_Due]) -> None:
        """Encode pages, on all cores where there is enough to do, and append them in order."""
        if not due:
            return
        if len(due) > 1 and sum(size_of(one.rows) for one in due) >= _PARALLEL_BYTES:
            stream = current_runtime().map_ordered(_encode, due, window=4, suspends=False)
            async with aclosing(stream):
                at = 0
                async for page in stream:
                    await self._append_page(due[at], page)
                    at += 1
            return
        for one in due:
            await self._append_page(one, await _encode(one))

    async def _append_page(self, due: _Due, page: EncodedPage) -> None:
        offsets, sizes = [], []
        parts: list[Any] = []
        at = self._position
        for buffer in page.buffers:
            size = len(buffer)
            offsets.append(at)
            sizes.append(size)
            padding = -size % ALIGNMENT
            parts.append(buffer)
            if padding:
                parts.append(_PADDING[:padding])
            at += size + padding
        await self._sink.write(parts)
        self._position = at
        due.column.pages.append(_page_message(offsets, sizes, page, due.column.rows))
        due.column.rows += due.rows.num_rows

    async def _write_aligned(self, parts: list[Any]) -> None:
        size = sum(len(part) for part in parts)
        padding = -size % ALIGNMENT
        await self._sink.write([*parts, _PADDING[:padding]] if padding else parts)
        self._position += size + padding


def _leaf_columns(top: Field, stored: Field, defaults: EncodeOptions) -> list[_LeafColumn]:
    """The columns of a top-level field.

    Args:
        top: as rows come.
        stored: as the file has it; not the same where there are prepared blobs.
        defaults: of fields that ask for nothing.
    """
    pairs = zip(top.leaves(), stored.leaves(), strict=True)
    return [_leaf_column(top, leaf, defaults, prepared=is_prepared(given)) for given, leaf in pairs]


def _leaf_column(top: Field, leaf: Field, defaults: EncodeOptions, *, prepared: bool) -> _LeafColumn:
    options = _options(leaf, defaults)
    if leaf.children:
        members = tuple(_options(child, defaults) for child in leaf.children)
        options = dataclasses.replace(options, members=members)
    is_blob = leaf.is_blob and not leaf.children
    return _LeafColumn(leaf, options, top.metadata.get(_STRUCTURAL_KEY), is_blob, prepared)


def _options(field: Field, defaults: EncodeOptions) -> EncodeOptions:
    return defaults.of_field(field.metadata, is_text=field.logical_type in ("string", "large_string"))


def _must_end(leaf: _LeafColumn, rows: LeafRows) -> bool:
    """Whether rows cannot join those that wait: other layers of blobs, or too many dictionary entries."""
    last = leaf.waiting[-1]
    if leaf.blob:
        return last.layers != rows.layers
    block = rows.block
    if not isinstance(block, DictionaryBlock) or not isinstance(last.block, DictionaryBlock):
        return False
    if same_items(last.block.items, block.items):
        block.items = last.block.items  # kept once
        return False
    return leaf.entries + block.items.count > 1 << (block.indices.bits - 1)


def _pages_of(leaf: _LeafColumn) -> list[_Due]:
    """The rows that wait as one page, or as several where their levels would be too many for one (5.5)."""
    rows = leaf.waiting[0] if len(leaf.waiting) == 1 else merge(leaf.waiting)
    leaf.waiting = []
    leaf.nbytes = leaf.entries = 0
    return [_Due(leaf, part) for part in cut_to_budget(rows, leaf.options)]


def _groups(ends: npt.NDArray[np.int64]) -> Iterator[int]:
    """Where to cut values that end at ``ends``: each part is of some megabytes, or a single value."""
    at, done = 0, 0
    while at < len(ends):
        stop = max(at + 1, int(np.searchsorted(ends, done + _BLOB_WRITE, "right")))
        yield stop
        at, done = stop, int(ends[stop - 1])


async def _encode(due: _Due) -> EncodedPage:
    if due.column.blob:
        return blob.encode(due.rows, due.column.options)
    return encode_page(due.rows, options=due.column.options, structural=due.column.structural)


def _page_message(offsets: list[int], sizes: list[int], page: EncodedPage, priority: int) -> bytes:
    from pilum.proto import container_pb2

    encoding = container_pb2.Encoding(
        direct=container_pb2.DirectEncoding(encoding=page_encoding(page.layout))
    )
    message = container_pb2.ColumnMetadata.Page(
        buffer_offsets=offsets, buffer_sizes=sizes, length=page.length, encoding=encoding, priority=priority
    )
    return message.SerializeToString()


def _column_metadata(pages: list[bytes]) -> bytes:
    from pilum.proto import container_pb2

    encoding = container_pb2.Encoding(direct=container_pb2.DirectEncoding(encoding=column_encoding()))
    message = container_pb2.ColumnMetadata(encoding=encoding)
    for page in pages:
        message.pages.add().MergeFromString(page)
    return message.SerializeToString()
