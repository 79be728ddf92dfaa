"""Files of blobs beside a data file, synchronous: the calls of `pilum.file.blob_writers`, driven to their end."""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa

from pilum.file.blob_descriptors import BlobDescriptor
from pilum.file.blob_writers import AsyncDedicatedBlobWriter, AsyncPackedBlobWriter
from pilum.io import run

__all__ = ["DedicatedBlobWriter", "PackedBlobWriter"]

T = TypeVar("T")


class _BlobWriter:
    """What both writers share."""

    __slots__ = ("_suspends", "_writer")

    _writer: AsyncPackedBlobWriter | AsyncDedicatedBlobWriter
    _suspends: bool

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self._suspends)

    @property
    def blob_id(self) -> int:
        """The id of the file."""
        return self._writer.blob_id

    @property
    def path(self) -> str:
        """Where the file lies in its disk or bucket, without a leading slash."""
        return self._writer.path

    def abort(self) -> None:
        """Give up; nothing remains of the file.  Does nothing after it is finished."""
        self._run(self._writer.abort())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class DedicatedBlobWriter(_BlobWriter):
    """Writes one blob to a file of its own; `LanceFileSession.open_dedicated_blob_writer` makes one.

    A ``with`` block that is left without `finish` leaves no file.

    Example:
        >>> import pilum
        >>> session = pilum.LanceFileSession("memory://doc-dedicated")
        >>> with session.open_dedicated_blob_writer("data/films.lance", 1) as writer:
        ...     writer.write(b"first part, ")
        ...     writer.write(b"second part")
        ...     writer.finish()
        Dedicated { blob_id: 1, size: 23 }
    """

    __slots__ = ()

    _writer: AsyncDedicatedBlobWriter

    def __init__(self, writer: AsyncDedicatedBlobWriter, suspends: bool) -> None:
        self._writer, self._suspends = writer, suspends

    def write(self, data: Any) -> None:
        """Append bytes; arguments and errors as of `AsyncDedicatedBlobWriter.write`."""
        self._run(self._writer.write(data))

    def finish(self) -> BlobDescriptor:
        """Give the file its name; returns the descriptor of the blob."""
        return self._run(self._writer.finish())


class PackedBlobWriter(_BlobWriter):
    """Writes many blobs to one file; `LanceFileSession.open_packed_blob_writer` makes one.

    A ``with`` block that is left without `finish` or `finish_array` leaves no file.

    Example:
        >>> import pilum, pyarrow as pa
        >>> session = pilum.LanceFileSession("memory://doc-packed")
        >>> with session.open_packed_blob_writer("data/pictures.lance", 1) as blobs:
        ...     blobs.write_blobs(pa.array([b"a picture", None, b"another"]))
        ...     column = blobs.finish_array("picture")
        >>> with session.open_writer("data/pictures.lance", schema=pa.schema([blobs.field])) as writer:
        ...     writer.write_batch(pa.table([column], schema=pa.schema([blobs.field])))
        >>> session.list()
        ['data/pictures.lance', 'data/pictures/10000000000000000000000000000000.blob']
    """

    __slots__ = ()

    _writer: AsyncPackedBlobWriter

    def __init__(self, writer: AsyncPackedBlobWriter, suspends: bool) -> None:
        self._writer, self._suspends = writer, suspends

    @property
    def field(self) -> pa.Field:
        """The field of what `finish_array` returned; a `ValueError` before."""
        return self._writer.field

    def write_blob(self, data: Any) -> None:
        """Append one blob; arguments and errors as of `AsyncPackedBlobWriter.write_blob`."""
        self._run(self._writer.write_blob(data))

    def write_blobs(self, payloads: pa.Array | pa.ChunkedArray) -> None:
        """Append a blob for each value; arguments and errors as of `AsyncPackedBlobWriter.write_blobs`."""
        self._run(self._writer.write_blobs(payloads))

    def finish(self) -> list[BlobDescriptor]:
        """Give the file its name; returns one descriptor for each blob, in order, nulls included."""
        return self._run(self._writer.finish())

    def finish_array(self, field_name: str) -> pa.StructArray:
        """Give the file its name; returns the descriptors as an array whose `field` has the name ``field_name``."""
        return self._run(self._writer.finish_array(field_name))
