"""What a data file says about itself: footer, schema, pages and their sizes, without reading any data.

For statistics and for people: `describe_file` reads the end of the file and the metadata of all columns.  Files of
format 0.1 have no such metadata; they are described by row count and schema only.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilum.errors import CorruptFileError
from pilum.file.open import open_file
from pilum.io import Range, Store
from pilum.schema import Schema

__all__ = ["ColumnDescription", "FileDescription", "PageDescription", "describe_file"]


@dataclass(frozen=True, slots=True)
class PageDescription:
    """A page of a column.

    Attributes:
        buffers: byte ranges of its buffers.
        num_rows: its rows (rows x dimension inside structural fixed-size lists).
        encoding: the encoded description of how it is stored.
    """

    buffers: tuple[Range, ...]
    num_rows: int
    encoding: bytes


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """A column of a file.

    Attributes:
        buffers: byte ranges of buffers that belong to the whole column.
        pages: its pages in the order of the rows.
    """

    buffers: tuple[Range, ...]
    pages: tuple[PageDescription, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all buffers."""
        ranges = [*self.buffers, *(one for page in self.pages for one in page.buffers)]
        return sum(high - low for low, high in ranges)


@dataclass(frozen=True, slots=True)
class FileDescription:
    """A data file.

    Attributes:
        version: format version as the footer has it.
        num_rows: its rows.
        schema: the schema stored in it.
        global_buffers: byte ranges of the global buffers; the first holds the schema.
        columns: its columns; empty for format 0.1.
        column_metadata_bytes: bytes of the metadata of all columns.
    """

    version: tuple[int, int]
    num_rows: int
    schema: Schema
    global_buffers: tuple[Range, ...] = ()
    columns: tuple[ColumnDescription, ...] = ()
    column_metadata_bytes: int = 0


async def describe_file(store: Store, path: str, size: int | None = None) -> FileDescription:
    """Describe a file.

    Args:
        store: where it lies.
        path: its key.
        size: its length in bytes, if known.

    Raises:
        CorruptFileError: it contradicts the format.
        NotFoundError: there is no such file.
    """
    reader = await open_file(store, path, size=size)
    metadata = getattr(reader, "metadata", None)
    if metadata is None or not hasattr(metadata, "container"):
        return FileDescription(reader.version, reader.num_rows, reader.schema)
    container = metadata.container
    columns = []
    for number, (low, high) in enumerate(container.ranges):
        data = container.column_bytes(number)
        if data is None:
            data = bytes(await store.get(path, low, high, who="columns"))
        columns.append(_column(data, container.footer.size, f"{store.uri}/{path}, column {number}"))
    return FileDescription(
        container.footer.version,
        container.num_rows,
        container.schema,
        tuple(container.buffers),
        tuple(columns),
        sum(high - low for low, high in container.ranges),
    )


def _column(data: bytes, file_size: int, where: str) -> ColumnDescription:
    from google.protobuf.message import DecodeError

    from pilum.proto import container_pb2

    try:
        message = container_pb2.ColumnMetadata.FromString(data)
    except DecodeError as error:
        raise CorruptFileError(f"{where}: the metadata cannot be decoded: {error}") from error

    def ranges(holder: container_pb2.ColumnMetadata | container_pb2.ColumnMetadata.Page) -> tuple[Range, ...]:
        found = tuple(
            [(low, low + size) for low, size in zip(holder.buffer_offsets, holder.buffer_sizes, strict=False)]
        )
        if any(high > file_size for _, high in found):
            raise CorruptFileError(f"{where}: a buffer lies behind the end of the file")
        return found

    pages = [
        PageDescription(ranges(page), page.length, page.encoding.direct.encoding) for page in message.pages
    ]
    return ColumnDescription(ranges(message), tuple(pages))
