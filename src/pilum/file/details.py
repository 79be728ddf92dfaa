"""What a data file consists of, for people who look into it: columns, pages, buffers (`spec/api.md`, section 6).

The classes have the names and attributes of the reference's.  They are made from the metadata at the end of the
file; no data is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pilum.errors import CorruptFileError, UnsupportedError
from pilum.file.generic import GenericReader
from pilum.file.metadata import FileMetadata
from pilum.proto.lazy import array_encodings_pb2, planar_pb2

__all__ = [
    "LanceBufferDescriptor",
    "LanceColumnMetadata",
    "LanceColumnStatistics",
    "LanceFileMetadata",
    "LanceFileStatistics",
    "LancePageMetadata",
    "describe",
    "statistics_of",
]


@dataclass(frozen=True, slots=True)
class LanceBufferDescriptor:
    """Where a buffer lies.

    Attributes:
        position: first byte in the file.
        size: bytes.
    """

    position: int
    size: int


@dataclass(frozen=True, slots=True)
class LancePageMetadata:
    """One page of a column.

    Attributes:
        buffers: in the order of the page's layout.
        encoding: the layout and value encoding as text.
    """

    buffers: list[LanceBufferDescriptor]
    encoding: str


@dataclass(frozen=True, slots=True)
class LanceColumnMetadata:
    """One column.

    Attributes:
        column_buffers: buffers of the column itself; no format uses them so far.
        pages: in row order.
    """

    column_buffers: list[LanceBufferDescriptor]
    pages: list[LancePageMetadata]


@dataclass(frozen=True, slots=True)
class LanceFileMetadata:
    """One file.

    Attributes:
        schema: Arrow schema, with schema metadata.
        num_rows: rows.
        num_data_bytes: bytes of page buffers and padding.
        num_column_metadata_bytes: bytes that describe columns.
        num_global_buffer_bytes: bytes of global buffers, the schema included.
        global_buffers: buffer 0 is the schema, users' begin at 1.
        columns: in column order (in 2.1 and later only leaves have one).
        major_version, minor_version: of the file format.
    """

    schema: pa.Schema
    num_rows: int
    num_data_bytes: int
    num_column_metadata_bytes: int
    num_global_buffer_bytes: int
    global_buffers: list[LanceBufferDescriptor]
    columns: list[LanceColumnMetadata]
    major_version: int
    minor_version: int


@dataclass(frozen=True, slots=True)
class LanceColumnStatistics:
    """Attributes: ``num_pages``, and ``size_bytes`` of their buffers."""

    num_pages: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LanceFileStatistics:
    """Attributes: ``columns``, one `LanceColumnStatistics` per column."""

    columns: list[LanceColumnStatistics]


async def describe(reader: GenericReader, schema: pa.Schema) -> LanceFileMetadata:
    """The metadata of an open file; reads the column metadata that is not here yet.

    Raises:
        UnsupportedError: a file of format 0.1, which has no such metadata.
    """
    metadata = getattr(reader, "metadata", None)
    if not isinstance(metadata, FileMetadata):
        raise UnsupportedError("files of format 0.1 have no column metadata")
    container, footer = metadata.container, metadata.footer
    held = [container.column_bytes(number) for number in range(metadata.num_columns)]
    missing = [number for number, data in enumerate(held) if data is None]
    if missing:
        ranges = [container.ranges[number] for number in missing]
        fetched = await reader.store.get_ranges(reader.path, ranges, who="metadata")
        for number, data in zip(missing, fetched, strict=True):
            held[number] = data.tobytes()
    shared = [LanceBufferDescriptor(low, high - low) for low, high in metadata.buffers]
    shared_bytes = sum(buffer.size for buffer in shared)
    major, minor = (2, 0) if footer.version == (0, 3) else footer.version
    return LanceFileMetadata(
        schema,
        metadata.num_rows,
        footer.columns_start - shared_bytes,
        footer.buffer_table - footer.columns_start,
        shared_bytes,
        shared,
        [_column(data or b"") for data in held],
        major,
        minor,
    )


def statistics_of(metadata: LanceFileMetadata) -> LanceFileStatistics:
    """Pages and bytes of each column."""
    return LanceFileStatistics(
        [
            LanceColumnStatistics(
                len(column.pages), sum(buffer.size for page in column.pages for buffer in page.buffers)
            )
            for column in metadata.columns
        ]
    )


def _column(data: bytes) -> LanceColumnMetadata:
    from google.protobuf.message import DecodeError

    from pilum.proto import container_pb2

    try:
        message = container_pb2.ColumnMetadata.FromString(data)
        pages = [LancePageMetadata(_buffers(page), _encoding(page)) for page in message.pages]
    except DecodeError as error:
        raise CorruptFileError(f"column metadata is not a valid message: {error}") from None
    return LanceColumnMetadata(_buffers(message), pages)


def _buffers(message: Any) -> list[LanceBufferDescriptor]:
    pairs = zip(message.buffer_offsets, message.buffer_sizes, strict=False)
    return [LanceBufferDescriptor(position, size) for position, size in pairs]


def _encoding(page: Any) -> str:
    from google.protobuf.any_pb2 import Any as AnyMessage

    from pilum.proto import encodings_pb2

    wrapped = AnyMessage.FromString(page.encoding.direct.encoding)
    kinds: dict[str, Any] = {
        "lance.encodings21.PageLayout": encodings_pb2.PageLayout,
        "lance.encodings23.PlanarLayout": planar_pb2.PlanarLayout,
        "lance.encodings.ArrayEncoding": array_encodings_pb2.ArrayEncoding,
    }
    kind = kinds.get(wrapped.type_url.rpartition("/")[2])
    name = wrapped.type_url.rpartition(".")[2]
    return f"{name} {{\n{kind.FromString(wrapped.value)}}}" if kind is not None else name
