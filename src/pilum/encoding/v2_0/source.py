"""Opening the columns of a 2.0 file: from messages to the trees of `columns` (`spec/file-2.0-and-0.1.md`, A.2).

A `ColumnSource` is what the metadata says of one column.  `open_column` walks a field, finds the column of each node
by field id and decides by the *encoding of the pages*, not by the schema, where history left a choice: a packed
struct or one with member columns, a string in one column or in two, a blob or a plain binary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from pilum.encoding.page import Rows
from pilum.encoding.v2_0.arrays import open_array
from pilum.encoding.v2_0.columns import (
    BlobColumn,
    Column,
    LeafColumn,
    ListColumn,
    ListPage,
    NullColumn,
    StringColumn,
    StructColumn,
)
from pilum.encoding.v2_0.ends import schedule_ends
from pilum.encoding.v2_0.reads import ArrayDecoder, ArrayRead, PageBuffers
from pilum.errors import CorruptFileError, PilumError, located
from pilum.schema import Field

__all__ = ["ColumnSource", "PageEncoding", "Sources", "open_column"]

_DESCRIPTOR: Any = pa.struct([("position", pa.uint64()), ("size", pa.uint64())])
_ENDS: Any = pa.uint64()
_MAX_LENGTH = 1 << 62


class PageEncoding(NamedTuple):
    """One page: its length in rows, the buffers it may name, its ``ArrayEncoding``."""

    length: int
    buffers: PageBuffers
    encoding: Any


class ColumnSource(NamedTuple):
    """What the metadata says of one column.

    Attributes:
        number: of the column in the file.
        pages: those that hold rows.
        num_pages: all of them, empty ones included.
        blob: the pages hold descriptors of blobs.
    """

    number: int
    pages: tuple[PageEncoding, ...]
    num_pages: int
    blob: bool

    @property
    def num_rows(self) -> int:
        """Rows of all pages."""
        return sum(page.length for page in self.pages)

    @property
    def kind(self) -> str | None:
        """The encoding of the first page that holds rows."""
        return self.pages[0].encoding.WhichOneof("array_encoding") if self.pages else None


Sources: TypeAlias = Callable[[int, int], ColumnSource | None]
"""The column of a field id, moved by a number of columns; None if the file has none for the field."""


def open_column(field: Field, sources: Sources, file_size: int) -> Column:
    """The column tree of a field.

    Args:
        field: possibly with only some of its members.
        sources: the columns of the file.
        file_size: bounds blobs.

    Raises:
        CorruptFileError: the pages contradict the field, their buffers or each other.
        UnsupportedError: encodings that format 2.0 does not have.
    """
    found = _open(field, sources, file_size)
    if found is None:
        raise CorruptFileError(f"the file holds no column for field {field.name!r} (id {field.id})")
    return found


def _open(field: Field, sources: Sources, file_size: int) -> Column | None:
    """None if neither the field nor any member has a column."""
    source = sources(field.id, 0)
    kind = field.arrow_type
    if source is not None and source.blob:
        return BlobColumn(LeafColumn(_decoders(source, _DESCRIPTOR), _DESCRIPTOR), kind, file_size)
    if pa.types.is_struct(kind):
        if source is not None and (source.kind == "packed_struct" or (field.is_leaf and field.children)):
            return LeafColumn(_decoders(source, kind), kind)
        return _open_struct(field, source, sources, file_size)
    if source is None:
        return None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items = _open(field.children[0], sources, file_size)
        if items is None:
            raise CorruptFileError(
                f"the file holds no items of the list {field.name!r} (column {source.number})"
            )
        return ListColumn(_list_pages(source), items, kind)
    if source.kind == "list":
        data = sources(field.id, 1)
        if data is None:
            raise CorruptFileError(
                f"the file holds no bytes of the strings {field.name!r} (column {source.number})"
            )
        items = LeafColumn(_decoders(data, pa.uint8()), pa.uint8())
        return StringColumn(_list_pages(source), items, kind)
    return LeafColumn(_decoders(source, kind), kind)


def _open_struct(
    field: Field, source: ColumnSource | None, sources: Sources, file_size: int
) -> Column | None:
    members = [_open(child, sources, file_size) for child in field.children]
    present = [member for member in members if member is not None]
    if source is None:
        if not present:
            return None
        num_rows = present[0].num_rows
    else:
        if source.num_pages != 1 or (source.pages and source.kind != "struct"):
            raise CorruptFileError(
                f"the header of struct {field.name!r} (column {source.number}) has {source.num_pages} pages "
                f"of encoding {source.kind}; it must be one page without values"
            )
        num_rows = source.num_rows
    filled = [
        NullColumn(num_rows, child.arrow_type) if member is None else member
        for child, member in zip(field.children, members, strict=True)
    ]
    return StructColumn(num_rows, filled, field.arrow_type)


def _decoders(source: ColumnSource, kind: Any) -> list[ArrayDecoder]:
    found = []
    for number, page in enumerate(source.pages):
        _check_length(page, source, number)
        try:
            found.append(open_array(page.encoding, page.buffers, page.length, kind))
        except PilumError as error:
            raise type(error)(located(str(error), page=number)) from None
    return found


def _list_pages(source: ColumnSource) -> list[ListPage]:
    found = []
    for number, page in enumerate(source.pages):
        _check_length(page, source, number)
        if page.encoding.WhichOneof("array_encoding") != "list":
            raise CorruptFileError(located("a page of lists has another encoding", page=number))
        message = page.encoding.list
        try:
            ends = open_array(message.offsets, page.buffers, page.length, _ENDS)
        except PilumError as error:
            raise type(error)(located(str(error), page=number)) from None
        items = int(message.num_items)
        found.append(
            ListPage(page.length, items, partial(_extents, ends, int(message.null_offset_adjustment), items))
        )
    return found


def _extents(ends: ArrayDecoder, adjustment: int, items: int, rows: Rows) -> ArrayRead:
    return schedule_ends(ends, rows, adjustment, items, wrap=True)


def _check_length(page: PageEncoding, source: ColumnSource, number: int) -> None:
    if page.length > _MAX_LENGTH:
        raise CorruptFileError(
            located(f"a page of {page.length} rows in column {source.number}", page=number)
        )
