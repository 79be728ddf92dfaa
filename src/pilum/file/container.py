"""The container of a data file: footer, offset tables, messages (format 2.0 and later).

Pure: bytes in, values out, and the other way when a file is finished.  The sections at the end of a file
(`spec/file-container-and-structure.md`, section 2)::

    data buffers …          each at a multiple of 64 (not in 2.0)
    global buffer 0         FileDescriptor: schema and row count
    column metadata         one message per column, no gaps
    column offset table     (u64 position, u64 size) per column
    global buffer table     (u64 position, u64 size) per global buffer
    footer                  40 bytes: the three positions, two counts, version, "LANC"

Everything read here is untrusted: positions are checked against the file before they are used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pilum.encoding import PageSource, Range
from pilum.errors import CorruptFileError, UnsupportedError, located
from pilum.proto.lazy import planar_pb2

__all__ = [
    "ALIGNMENT",
    "FOOTER_SIZE",
    "PAGE_LAYOUT_URL",
    "Footer",
    "LegacyFileError",
    "parse_column",
    "parse_footer",
    "parse_table",
]

ALIGNMENT = 64
FOOTER_SIZE = 40
MAGIC = b"LANC"
PAGE_LAYOUT_URL = "/lance.encodings21.PageLayout"
PLANAR_LAYOUT_URL = "/lance.encodings23.PlanarLayout"
COLUMN_ENCODING_URL = "/lance.encodings.ColumnEncoding"

_FOOTER = struct.Struct("<QQQIIHH4s")
_LEGACY = {(0, 0), (0, 1), (0, 2)}
_VERSIONS = {(0, 3), (2, 0), (2, 1), (2, 2), (2, 3)}
# A single column of more pages than this is no file of ours or of the reference (8 MiB and more a page).
_MAX_PAGES = 1 << 24


class LegacyFileError(UnsupportedError):
    """The file is of format 0.1, whose reader is `pilum.file.v0_1`."""


@dataclass(frozen=True, slots=True)
class Footer:
    """The decoded last 40 bytes of a file of ``size`` bytes."""

    size: int
    columns_start: int
    column_table: int
    buffer_table: int
    num_buffers: int
    num_columns: int
    version: tuple[int, int]

    @property
    def alignment(self) -> int:
        """What positions of buffers must be multiples of; old writers of 2.0 did not align."""
        return ALIGNMENT if self.version >= (2, 1) else 1


def parse_footer(tail: bytes, size: int) -> Footer:
    """Decode and check the footer.

    Args:
        tail: the last bytes of the file, at least 40 unless the file is shorter.
        size: length of the file.

    Raises:
        CorruptFileError: no Lance file, or positions outside the file.
        UnsupportedError: a file version that is not read; `LegacyFileError` for 0.1.
    """
    if size < FOOTER_SIZE or len(tail) < FOOTER_SIZE:
        raise CorruptFileError(f"{size} bytes are too short for a Lance file")
    columns_start, column_table, buffer_table, buffers, columns, major, minor, magic = _FOOTER.unpack(
        tail[-FOOTER_SIZE:]
    )
    if magic != MAGIC:
        raise CorruptFileError(f"not a Lance file: it ends in {magic!r} instead of {MAGIC!r}")
    version = (major, minor)
    if version not in _VERSIONS:
        if version in _LEGACY:
            raise LegacyFileError("file format 0.1 is not supported here; open_file reads it")
        raise CorruptFileError(located(f"unknown file format {major}.{minor}", offset=size - 8))
    if not columns_start <= column_table <= buffer_table <= size - FOOTER_SIZE:
        raise CorruptFileError("the footer's positions are not ascending or leave the file")
    if buffers < 1 or buffer_table + 16 * buffers > size - FOOTER_SIZE:
        raise CorruptFileError(
            located(f"{buffers} global buffers do not fit their table", offset=buffer_table)
        )
    if column_table + 16 * columns > buffer_table:
        raise CorruptFileError(located(f"{columns} columns do not fit their table", offset=column_table))
    return Footer(size, columns_start, column_table, buffer_table, buffers, columns, version)


def parse_table(data: bytes, low: int, high: int, what: str, align: int = 1) -> list[Range]:
    """The entries of an offset table as ranges, each checked to lie in ``[low, high)``."""
    numbers = struct.unpack(f"<{len(data) // 8}Q", data)
    ranges = []
    for start, size in zip(numbers[::2], numbers[1::2], strict=True):
        if start < low or size > high or start + size > high:
            raise CorruptFileError(
                located(f"{what} of {size} bytes lies outside [{low}, {high})", offset=start)
            )
        if start % align:
            raise CorruptFileError(located(f"{what} is not aligned to {align} bytes", offset=start))
        ranges.append((start, start + size))
    return ranges


def parse_column(data: bytes, size: int) -> list[PageSource]:
    """The pages of one column from its ``ColumnMetadata`` message.

    Args:
        data: the serialized message.
        size: length of the file.

    Raises:
        CorruptFileError: the message contradicts the format or points outside the file.
    """
    from google.protobuf.message import DecodeError

    from pilum.proto import container_pb2

    try:
        message = container_pb2.ColumnMetadata.FromString(data)
    except DecodeError as error:
        raise CorruptFileError(f"column metadata is not a valid message: {error}") from None
    if not message.HasField("encoding"):
        raise CorruptFileError("the column has no encoding")
    pages = message.pages
    if len(pages) > _MAX_PAGES:
        raise CorruptFileError(f"a column of {len(pages)} pages")
    return [_page_source(page, number, size) for number, page in enumerate(pages)]


def _page_source(page: Any, number: int, file_size: int) -> PageSource:
    offsets, sizes = tuple(page.buffer_offsets), tuple(page.buffer_sizes)
    if len(offsets) != len(sizes):
        raise CorruptFileError(located(f"{len(offsets)} buffer offsets, {len(sizes)} sizes", page=number))
    for offset, size in zip(offsets, sizes, strict=True):
        if offset % ALIGNMENT or offset + size > file_size:
            raise CorruptFileError(
                located(
                    f"a page buffer of {size} bytes is misaligned or leaves the file of {file_size} bytes",
                    page=number,
                    offset=offset,
                )
            )
    encoding = page.encoding
    if encoding.WhichOneof("location") != "direct":
        raise CorruptFileError(located("the page has no inline encoding", page=number))
    try:
        layout = _layout_of(encoding.direct.encoding)
    except CorruptFileError as error:
        raise CorruptFileError(located(str(error), page=number)) from None
    return PageSource(offsets, sizes, page.length, layout, file_size)


@lru_cache(maxsize=512)
def _layout_of(data: bytes) -> Any:
    """The ``PageLayout`` inside a serialized ``Any``; small fragments share theirs, so they are parsed once."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import DecodeError

    from pilum.proto import encodings_pb2

    try:
        wrapped = AnyMessage.FromString(data)
        _, slash, name = wrapped.type_url.rpartition("/")
        if slash and name == PLANAR_LAYOUT_URL[1:]:
            return planar_pb2.PlanarLayout.FromString(wrapped.value)
        if not slash or name != PAGE_LAYOUT_URL[1:]:
            raise CorruptFileError(
                f"unexpected page encoding {wrapped.type_url!r}, expected {PAGE_LAYOUT_URL!r}"
            )
        return encodings_pb2.PageLayout.FromString(wrapped.value)
    except DecodeError as error:
        raise CorruptFileError(f"the page encoding is not a valid message: {error}") from None


# --------------------------------------------------------------------------- writing


def page_encoding(layout: bytes) -> bytes:
    """A serialized ``PageLayout`` wrapped in an ``Any``."""
    from google.protobuf.any_pb2 import Any as AnyMessage

    data: bytes = AnyMessage(type_url=PAGE_LAYOUT_URL, value=layout).SerializeToString()
    return data


@lru_cache(maxsize=1)
def column_encoding() -> bytes:
    """The ``Any`` of the only column encoding in use: plain values."""
    from google.protobuf.any_pb2 import Any as AnyMessage

    data: bytes = AnyMessage(type_url=COLUMN_ENCODING_URL, value=b"\x0a\x00").SerializeToString()
    return data


def closing_sections(
    descriptor: bytes, columns: list[bytes], user_buffers: list[Range], start: int, version: tuple[int, int]
) -> bytes:
    """Everything from global buffer 0 to the footer, for a file whose data ends at ``start`` (aligned).

    Args:
        descriptor: serialized ``FileDescriptor``.
        columns: serialized ``ColumnMetadata``, in column order.
        user_buffers: ranges of the global buffers 1, 2, …
        start: position of the first byte returned; a multiple of 64.
        version: file format version.
    """
    parts = [descriptor]
    at = columns_start = start + len(descriptor)
    table = []
    for column in columns:
        table += [at, len(column)]
        parts.append(column)
        at += len(column)
    column_table = at
    buffer_table = column_table + 8 * len(table)
    table += [start, len(descriptor)]
    for low, high in user_buffers:
        table += [low, high - low]
    parts.append(struct.pack(f"<{len(table)}Q", *table))
    parts.append(
        _FOOTER.pack(
            columns_start, column_table, buffer_table, 1 + len(user_buffers), len(columns), *version, MAGIC
        )
    )
    return b"".join(parts)
