"""Single files for users, synchronous: the calls of `pilum.file.api`, driven to their end.

A method here is its signature, its documentation and one line; on local disks and in memory the coroutine runs right
here, for remote stores on one background loop.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa

from pilum.file.api import AsyncLanceFileReader, AsyncLanceFileWriter, AsyncReaderResults, locate
from pilum.file.details import LanceFileMetadata, LanceFileStatistics
from pilum.file.folder import AsyncLanceFileSession, ListResult
from pilum.file.synchronous_blobs import DedicatedBlobWriter, PackedBlobWriter
from pilum.io import iterate, run

__all__ = ["LanceFileReader", "LanceFileSession", "LanceFileWriter", "ReaderResults"]

T = TypeVar("T")


class ReaderResults:
    """Rows of a file, to be taken once: as batches, or as one table."""

    __slots__ = ("_results", "_suspends")

    def __init__(self, results: AsyncReaderResults, suspends: bool) -> None:
        self._results, self._suspends = results, suspends

    def to_batches(self) -> pa.RecordBatchReader:
        """Record batches in row order, of at most ``batch_size`` rows."""
        batches = iterate(self._results.to_batches(), suspends=self._suspends)
        return pa.RecordBatchReader.from_batches(self._results.schema, batches)

    def to_table(self) -> pa.Table:
        """All rows as one table."""
        return run(self._results.to_table(), suspends=self._suspends)


class LanceFileReader:
    """Reads one data file of any format.

    Args:
        path: a path or address.
        storage_options: options of the store.
        columns: names (dotted paths for members of structs) of what is read; all columns by default.

    Raises:
        InvalidInputError: (an `OSError` and `ValueError`) no such column.
        NotFoundError: (a `FileNotFoundError` and `ValueError`) no such file.
        CorruptFileError: (an `OSError` and `ValueError`) not a Lance file.

    Example:
        >>> import pilum, pyarrow as pa
        >>> with pilum.LanceFileWriter("memory://doc-files/a.lance") as writer:
        ...     writer.write_batch(pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]}))
        >>> reader = pilum.LanceFileReader("memory://doc-files/a.lance", columns=["b"])
        >>> reader.read_range(1, 2).to_table().to_pydict()
        {'b': ['y', 'z']}
    """

    __slots__ = ("_async", "_suspends")

    def __init__(
        self,
        path: str | os.PathLike[str],
        storage_options: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        store, _ = locate(path, storage_options)
        self._suspends = store.suspends
        self._async = self._run(AsyncLanceFileReader.open(path, storage_options, columns))

    @classmethod
    def _of(cls, opened: AsyncLanceFileReader, suspends: bool) -> LanceFileReader:
        reader = cls.__new__(cls)
        reader._async, reader._suspends = opened, suspends
        return reader

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self._suspends)

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of what is read."""
        return self._async.schema

    def num_rows(self) -> int:
        """Rows in the file."""
        return self._async.num_rows()

    def metadata(self) -> LanceFileMetadata:
        """Columns, pages and buffers of the file."""
        return self._run(self._async.metadata())

    def file_statistics(self) -> LanceFileStatistics:
        """Pages and bytes of each column."""
        return self._run(self._async.file_statistics())

    def read_all(self, *, batch_size: int = 1024, batch_readahead: int = 16) -> ReaderResults:
        """All rows; see `AsyncLanceFileReader.read_all`."""
        return self._results(self._async.read_all(batch_size=batch_size, batch_readahead=batch_readahead))

    def read_range(
        self, start: int, num_rows: int, *, batch_size: int = 1024, batch_readahead: int = 16
    ) -> ReaderResults:
        """``num_rows`` rows from ``start`` on; a `ValueError` if the range leaves the file."""
        results = self._async.read_range(
            start, num_rows, batch_size=batch_size, batch_readahead=batch_readahead
        )
        return self._results(results)

    def take_rows(self, indices: Any, *, batch_size: int = 1024, batch_readahead: int = 16) -> ReaderResults:
        """Rows by strictly increasing number; a `ValueError` if they are not, or leave the file."""
        results = self._async.take_rows(indices, batch_size=batch_size, batch_readahead=batch_readahead)
        return self._results(results)

    def _results(self, coroutine: Coroutine[Any, Any, AsyncReaderResults]) -> ReaderResults:
        return ReaderResults(self._run(coroutine), self._suspends)

    def read_global_buffer(self, index: int) -> bytes:
        """The bytes of a global buffer; 0 is the schema, users' begin at 1."""
        return self._run(self._async.read_global_buffer(index))


class LanceFileWriter:
    """Writes one data file; end it with `close` or a ``with`` block.

    The file appears under its name when it is closed, and not at all if the block ends with an error.

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

    __slots__ = ("_async", "_suspends")

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: pa.Schema | None = None,
        *,
        data_cache_bytes: int | None = None,
        version: str | None = None,
        storage_options: Mapping[str, str] | None = None,
        max_page_bytes: int | None = None,
    ) -> None:
        store, _ = locate(path, storage_options)
        self._suspends = store.suspends
        self._async = self._run(
            AsyncLanceFileWriter.open(
                path,
                schema,
                data_cache_bytes=data_cache_bytes,
                version=version,
                storage_options=storage_options,
                max_page_bytes=max_page_bytes,
            )
        )

    @classmethod
    def _of(cls, opened: AsyncLanceFileWriter, suspends: bool) -> LanceFileWriter:
        writer = cls.__new__(cls)
        writer._async, writer._suspends = opened, suspends
        return writer

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self._suspends)

    def write_batch(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Append rows; columns are matched by name.

        Raises:
            InvalidInputError: (a `ValueError`) a column of the file is missing or has another type; the writer
                is closed.
        """
        self._run(self._async.write_batch(batch))

    def add_global_buffer(self, data: bytes) -> int:
        """Store bytes of any meaning beside the columns; returns the index to read them by, from 1 on."""
        return self._run(self._async.add_global_buffer(data))

    def add_schema_metadata(self, key: str, value: str) -> None:
        """Set a key of the schema's metadata; it is written when the file is closed."""
        self._async.add_schema_metadata(key, value)

    def close(self) -> int | None:
        """Finish the file; returns the number of rows, None when it was closed before."""
        return self._run(self._async.close())

    def __enter__(self) -> LanceFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._async.__aexit__(kind, error, trace))


class LanceFileSession:
    """Files below one address; paths are relative to it.

    Args:
        base_path: a path or address.
        storage_options: options of the store.
    """

    __slots__ = ("_async",)

    def __init__(
        self, base_path: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None
    ) -> None:
        self._async = AsyncLanceFileSession(base_path, storage_options)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self._async.suspends)

    def open_reader(self, path: str, columns: Sequence[str] | None = None) -> LanceFileReader:
        """A reader of a data file."""
        return LanceFileReader._of(self._run(self._async.open_reader(path, columns)), self._async.suspends)

    def open_writer(
        self,
        path: str,
        *,
        schema: pa.Schema | None = None,
        data_cache_bytes: int | None = None,
        version: str | None = None,
        max_page_bytes: int | None = None,
    ) -> LanceFileWriter:
        """A writer of a data file."""
        opened = self._async.open_writer(
            path,
            schema=schema,
            data_cache_bytes=data_cache_bytes,
            version=version,
            max_page_bytes=max_page_bytes,
        )
        return LanceFileWriter._of(self._run(opened), self._async.suspends)

    def open_packed_blob_writer(self, path: str, blob_id: int) -> PackedBlobWriter:
        """A writer of a file of many blobs.

        Args:
            path: of the data file whose rows will refer to it; the blobs lie in a folder of the same name.
            blob_id: 1 to 2**32 - 1; another one for each file of blobs of this data file.

        Raises:
            InvalidInputError: (a `ValueError`) no such id; ``path`` does not end in ``.lance``.
        """
        opened = self._run(self._async.open_packed_blob_writer(path, blob_id))
        return PackedBlobWriter(opened, self._async.suspends)

    def open_dedicated_blob_writer(self, path: str, blob_id: int) -> DedicatedBlobWriter:
        """A writer of a file of one blob; arguments and errors as of `open_packed_blob_writer`."""
        opened = self._run(self._async.open_dedicated_blob_writer(path, blob_id))
        return DedicatedBlobWriter(opened, self._async.suspends)

    def contains(self, path: str) -> bool:
        """Whether there is a file of that name."""
        return self._run(self._async.contains(path))

    def list(self, path: str | None = None) -> list[str]:
        """All files below a folder, at any depth."""
        return self._run(self._async.list(path))

    def list_with_delimiter(self, path: str | None = None) -> ListResult:
        """Files and folders directly in a folder."""
        return self._run(self._async.list_with_delimiter(path))

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Bytes of any file."""
        return self._run(self._async.read_range(path, offset, length))

    def upload_file(self, local_path: str | Path, remote_path: str) -> None:
        """Copy a local file to ``remote_path``."""
        self._run(self._async.upload_file(local_path, remote_path))

    def download_file(self, remote_path: str, local_path: str | Path) -> None:
        """Copy ``remote_path`` to a local file."""
        self._run(self._async.download_file(remote_path, local_path))

    def delete_file(self, path: str) -> None:
        """Delete a file; an `OSError` if there is none."""
        self._run(self._async.delete_file(path))
