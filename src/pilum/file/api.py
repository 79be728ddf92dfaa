"""Single files for users, asynchronous: read one, write one (`spec/api.md`, section 6).

`pilum.aio` exports these classes under the names of the reference, `pilum` their synchronous twins
(`synchronous.py`).  Everything is done by `FileReader` and `FileWriter`; here are addresses, Arrow extension
types, names of versions and the reference's argument lists.

```
LanceFileReader.open    ──►  read_all / read_range / take_rows  ──►  ReaderResults  ──►  batches or a table
LanceFileWriter.open    ──►  write_batch ... close                  (schema: given, or of the first batch)
```
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any

import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.file.details import LanceFileMetadata, LanceFileStatistics, describe, statistics_of
from pilum.file.generic import GenericReader
from pilum.file.open import open_file
from pilum.file.reader import FileReader
from pilum.file.rows import Selection
from pilum.file.writer import PAGE_BYTES, FileWriter
from pilum.io import Store, store_for
from pilum.schema import Schema, with_extensions

__all__ = ["AsyncLanceFileReader", "AsyncLanceFileWriter", "AsyncReaderResults", "stable_version"]

_STABLE = "2.2"
_VERSIONS = {
    "2.0": (2, 0), "0.3": (2, 0), "2.1": (2, 1), "2.2": (2, 2), "stable": (2, 2), "2.3": (2, 3), "next": (2, 3),
}  # fmt: skip
_LEGACY = ("0.1", "legacy")


def stable_version() -> str:
    """The file format that is written by default."""
    return _STABLE


def _version_of(name: str | None) -> tuple[int, int]:
    if name is None:
        name = _STABLE
    if name.lower() in _LEGACY:
        raise UnsupportedError("files of format 0.1 cannot be written; use 2.1 or 2.2")
    version = _VERSIONS.get(name.lower())
    if version is None:
        raise InvalidInputError(f"unknown file format {name!r}; use {', '.join(_VERSIONS)}")
    if version == (2, 3):
        raise UnsupportedError("file format 2.3 is not stable and cannot be written; use 2.2")
    return version


def locate(
    path: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None
) -> tuple[Store, str]:
    """The store of the folder that holds a file, and the file's name in it."""
    address = os.fsdecode(os.fspath(path))
    folder, slash, name = address.replace(os.sep, "/").rpartition("/")
    if not name:
        raise InvalidInputError(f"{address!r} does not name a file")
    return store_for(folder or slash or ".", storage_options), name


# --------------------------------------------------------------------------- reading


class AsyncReaderResults:
    """Rows of a file, to be taken once: as batches, or as one table."""

    __slots__ = ("_batches", "schema")

    def __init__(self, schema: pa.Schema, batches: AsyncIterator[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches

    async def to_batches(self) -> AsyncIterator[pa.RecordBatch]:
        """Record batches in row order, of at most ``batch_size`` rows.

        The stream is closed when the iteration ends or is closed.
        """
        async with aclosing(self._batches) as stream:  # type: ignore[type-var]
            async for batch in stream:
                yield _extended(batch, self.schema)

    async def to_table(self) -> pa.Table:
        """All rows as one table."""
        return pa.Table.from_batches([batch async for batch in self.to_batches()], self.schema)


def _extended(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the extension types of ``schema``."""
    if batch.schema.equals(schema):
        return batch
    arrays.compute()
    return batch.cast(schema)


class AsyncLanceFileReader:
    """Reads one data file of any format; make it with `open`.

    Example:
        >>> import asyncio, pyarrow as pa, pilum.aio
        >>> async def main() -> list[int]:
        ...     async with await pilum.aio.LanceFileWriter.open("memory://doc-file/a.lance") as writer:
        ...         await writer.write_batch(pa.table({"a": [1, 2, 3]}))
        ...     reader = await pilum.aio.LanceFileReader.open("memory://doc-file/a.lance")
        ...     table = await (await reader.take_rows([0, 2])).to_table()
        ...     return table["a"].to_pylist()
        >>> asyncio.run(main())
        [1, 3]
    """

    __slots__ = ("_projection", "_reader", "_schema")

    def __init__(self, reader: GenericReader, columns: Sequence[str] | None = None) -> None:
        self._reader = reader
        self._projection = reader.schema if columns is None else reader.schema.project(list(columns))
        self._schema: pa.Schema = with_extensions(self._projection.to_arrow())

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        storage_options: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> AsyncLanceFileReader:
        """Open a file.

        Args:
            path: a path or address.
            storage_options: options of the store.
            columns: names (dotted paths for members of structs) of what is read; all columns by default.

        Raises:
            InvalidInputError: (an `OSError` and `ValueError`) no such column.
            NotFoundError: (a `FileNotFoundError` and `ValueError`) no such file.
            CorruptFileError: (an `OSError` and `ValueError`) not a Lance file.
        """
        store, name = locate(path, storage_options)
        return cls(await open_file(store, name), columns)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of what is read."""
        return self._schema

    def num_rows(self) -> int:
        """Rows in the file."""
        return self._reader.num_rows

    async def metadata(self) -> LanceFileMetadata:
        """Columns, pages and buffers of the file."""
        return await describe(self._reader, with_extensions(self._reader.schema.to_arrow()))

    async def file_statistics(self) -> LanceFileStatistics:
        """Pages and bytes of each column."""
        return statistics_of(await self.metadata())

    async def read_all(self, *, batch_size: int = 1024, batch_readahead: int = 16) -> AsyncReaderResults:
        """All rows.

        Args:
            batch_size: rows of a batch at most.
            batch_readahead: batches that may be decoded ahead of the consumer.
        """
        return await self._results(None, batch_size, batch_readahead)

    async def read_range(
        self, start: int, num_rows: int, *, batch_size: int = 1024, batch_readahead: int = 16
    ) -> AsyncReaderResults:
        """``num_rows`` rows from ``start`` on.

        Raises:
            InvalidInputError: (a `ValueError`) the range leaves the file.
        """
        return await self._results(range(start, start + num_rows), batch_size, batch_readahead)

    async def take_rows(
        self, indices: Any, *, batch_size: int = 1024, batch_readahead: int = 16
    ) -> AsyncReaderResults:
        """Rows by number.

        Args:
            indices: strictly increasing row numbers: a sequence, a NumPy or an Arrow array.

        Raises:
            InvalidInputError: (a `ValueError`) out of range, or not strictly increasing.
        """
        if isinstance(indices, pa.Array | pa.ChunkedArray):
            indices = arrays.to_numpy(indices)
        return await self._results(indices, batch_size, batch_readahead)

    async def _results(
        self, selection: Selection, batch_size: int, batch_readahead: int
    ) -> AsyncReaderResults:
        stream = await self._reader.read_stream_projected(
            selection, batch_size, batch_readahead, self._projection
        )
        return AsyncReaderResults(self._schema, stream)

    async def read_global_buffer(self, index: int) -> bytes:
        """The bytes of a global buffer; 0 is the schema, users' begin at 1.

        Raises:
            InvalidInputError: (a `ValueError`) no such buffer.
        """
        reader = self._reader
        metadata = getattr(reader, "metadata", None)
        buffers = [] if metadata is None else metadata.buffers
        if isinstance(reader, FileReader):
            return await reader.read_global_buffer(index)
        if not 0 <= index < len(buffers):
            raise InvalidInputError(f"global buffer {index} does not exist: {reader.path} has {len(buffers)}")
        low, high = buffers[index]
        return (await reader.store.get(reader.path, low, high, who="global buffer")).tobytes()


# --------------------------------------------------------------------------- writing


class AsyncLanceFileWriter:
    """Writes one data file; make it with `open`, end it with `close` or a ``with`` block.

    The file appears under its name when it is closed, and not at all if the block ends with an error.
    """

    def __init__(
        self, store: Store, path: str, schema: pa.Schema | None, version: tuple[int, int], cache_bytes: int | None
    ) -> None:  # fmt: skip
        self._store, self._path = store, path
        self._arrow = schema
        self._version = version
        self._cache_bytes = cache_bytes
        self._writer: FileWriter | None = None
        self._buffers: list[bytes] = []  # those added before the schema was known
        self._metadata: dict[str, str] = {}
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        schema: pa.Schema | None = None,
        *,
        data_cache_bytes: int | None = None,
        version: str | None = None,
        storage_options: Mapping[str, str] | None = None,
        max_page_bytes: int | None = None,
    ) -> AsyncLanceFileWriter:
        """Begin a file.

        Args:
            path: a path or address.
            schema: of the file; that of the first batch by default.
            data_cache_bytes: raw bytes that all columns together may hold back for their next pages (8 MiB
                for each by default).
            version: ``"2.0"``, ``"2.1"``, ``"2.2"`` or ``"stable"`` (2.2, the default).
            storage_options: options of the store.
            max_page_bytes: raw bytes of a page at most.

        Raises:
            InvalidInputError: (a `ValueError`) an unknown version.
            UnsupportedError: (a `NotImplementedError`) a version or a type that cannot be written.
        """
        store, name = locate(path, storage_options)
        return await cls.begin(store, name, schema, data_cache_bytes, version, max_page_bytes)

    @classmethod
    async def begin(
        cls, store: Store, path: str, schema: pa.Schema | None, data_cache_bytes: int | None,
        version: str | None, max_page_bytes: int | None,
    ) -> AsyncLanceFileWriter:  # fmt: skip
        """`open` with the store at hand and the file named in it."""
        limit = data_cache_bytes
        if max_page_bytes is not None:
            columns = 1 if schema is None else max(1, len(schema))
            limit = max_page_bytes * columns if limit is None else min(limit, max_page_bytes * columns)
        writer = cls(store, path, schema, _version_of(version), limit)
        if schema is not None:
            await writer._start(schema)
        return writer

    async def _start(self, schema: pa.Schema) -> FileWriter:
        self._arrow = schema
        limit = PAGE_BYTES
        if self._cache_bytes is not None:
            limit = max(1, self._cache_bytes // max(1, len(schema)))
        writer = await FileWriter.create(
            self._store, self._path, Schema.from_arrow(schema), version=self._version, page_bytes=limit
        )
        for data in self._buffers:
            await writer.add_global_buffer(data)
        self._writer = writer
        return writer

    async def write_batch(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Append rows; columns are matched by name.

        Raises:
            InvalidInputError: (a `ValueError`) a column of the file is missing or has another type; the writer
                is closed.
        """
        if self._closed:
            raise InvalidInputError(f"{self._path}: the writer is closed")
        writer = self._writer or await self._start(batch.schema)
        assert self._arrow is not None
        missing = [name for name in self._arrow.names if name not in batch.schema.names]
        if missing:
            raise InvalidInputError(f"{self._path}: the batch has no column {missing[0]!r}")
        if batch.schema.names != self._arrow.names:
            batch = batch.select(self._arrow.names)
        for part in batch.to_batches() if isinstance(batch, pa.Table) else [batch]:
            await writer.write(part)

    async def add_global_buffer(self, data: bytes) -> int:
        """Store bytes of any meaning beside the columns; returns the index to read them by, from 1 on."""
        if self._closed:
            raise InvalidInputError(f"{self._path}: the writer is closed")
        if self._writer is not None:
            return await self._writer.add_global_buffer(bytes(data))
        self._buffers.append(bytes(data))
        return len(self._buffers)

    def add_schema_metadata(self, key: str, value: str) -> None:
        """Set a key of the schema's metadata; it is written when the file is closed."""
        self._metadata[key] = value

    async def close(self) -> int | None:
        """Finish the file.

        Returns:
            The number of rows; None when it was closed before.

        Raises:
            InvalidInputError: (a `ValueError`) neither a schema nor a batch was given.
        """
        if self._closed:
            return None
        self._closed = True
        writer = self._writer
        if writer is None:
            raise InvalidInputError(
                f"{self._path}: neither a schema nor a batch was given, so the columns are not known"
            )
        if self._metadata:
            schema = writer.schema
            writer.schema = Schema(schema.fields, {**schema.metadata, **self._metadata})
        return (await writer.finish()).num_rows

    async def abort(self) -> None:
        """Give up; nothing remains of the file."""
        self._closed = True
        if self._writer is not None:
            await self._writer.abort()

    async def __aenter__(self) -> AsyncLanceFileWriter:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.close() if kind is None else self.abort())
