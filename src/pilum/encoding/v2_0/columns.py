"""Columns of format 2.0 and 0.1 as trees: rows of a field planned across pages and, for nested types, across columns.

In both formats a nested field owns several columns (`spec/file-2.0-and-0.1.md`, A.2, A.7, A.8)::

    leaf        pages of values
    struct      its members, all of the same length; every struct is valid
    list        pages of ends, and one contiguous column of items;
                list i of a page owns the items  base + start(i) .. base + end(i),  base = items of all earlier pages
    blob        pages of (position, size), and the bytes anywhere in the file

Each node turns rows into an `ArrayRead` that decodes to an Arrow array.  Lists look up their ends first, then ask
their items; when all rows of the column are wanted, so are all items, and both are read in one round.

Must not know: files, stores, messages (`source.py` opens columns of 2.0, `pilum.encoding.v0_1` those of 0.1).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pilum import arrays
from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import VariableBlock, pack_bits
from pilum.encoding.page import Rows
from pilum.encoding.v2_0.ends import Extents
from pilum.encoding.v2_0.flat import read_spans
from pilum.encoding.v2_0.reads import ArrayDecoder, ArrayRead, Ints, done, join, then
from pilum.encoding.v2_0.values import converter
from pilum.errors import CorruptFileError, InvalidInputError, PilumError, located

__all__ = [
    "BlobColumn",
    "Column",
    "LeafColumn",
    "ListColumn",
    "ListPage",
    "Lists",
    "NullColumn",
    "StringColumn",
    "StructColumn",
    "over_all_items",
    "read_items",
]

_MAX_I32 = 2**31 - 1


class Column:
    """Rows of one field.

    Attributes:
        arrow_type: of the arrays it reads.
        num_rows: rows (items, inside a list).
    """

    __slots__ = ("arrow_type", "num_rows")

    arrow_type: Any
    num_rows: int

    def schedule(self, rows: Rows) -> ArrayRead:
        """Plan the read of some rows, all below ``num_rows``; decodes to an Arrow array.  Pure."""
        if not len(rows):
            return done(arrays.empty(self.arrow_type))
        return self._schedule(rows)

    def _schedule(self, rows: Rows) -> ArrayRead:
        raise NotImplementedError


class _Paged(Column):
    """A column that consists of pages.

    Attributes:
        starts: first row of each page, then the number of rows.
    """

    __slots__ = ("starts",)

    def __init__(self, counts: Sequence[int], arrow_type: Any) -> None:
        starts = [0]
        for count in counts:
            starts.append(starts[-1] + count)
        self.starts = starts
        self.num_rows = starts[-1]
        self.arrow_type = arrow_type

    def _reads(self, rows: Rows, plan: Callable[[int, Rows], ArrayRead]) -> tuple[list[int], list[ArrayRead]]:
        """The pages that hold some of ``rows`` and their reads; a plan that fails is told its page."""
        numbers, reads = [], []
        for number, part in self._overlapping(rows):
            try:
                reads.append(plan(number, part))
            except PilumError as error:
                raise _named(error, number) from None
            numbers.append(number)
        return numbers, reads

    def _overlapping(self, rows: Rows) -> list[tuple[int, Rows]]:
        starts = self.starts
        last = len(starts) - 2
        if last == 0:
            return [(0, rows)]
        found: list[tuple[int, Rows]] = []
        if isinstance(rows, range):
            number = bisect.bisect_right(starts, rows.start) - 1
            while number <= last and starts[number] < rows.stop:
                low = starts[number]
                begin, end = max(rows.start - low, 0), min(rows.stop, starts[number + 1]) - low
                if begin < end:
                    found.append((number, range(begin, end)))
                number += 1
            return found
        edges = np.searchsorted(rows, np.array(starts)).tolist()
        for number in range(last + 1):
            if edges[number] < edges[number + 1]:
                found.append((number, rows[edges[number] : edges[number + 1]] - starts[number]))
        return found


def _over_pages(numbers: list[int], reads: list[ArrayRead], step: Callable[[list[Any]], Any]) -> ArrayRead:
    """As `join`, for the reads of pages: what fails in one of them is told which page that is."""
    alone = len(reads) == 1
    ranges = reads[0].ranges if alone else [one for read in reads for one in read.ranges]

    def decode(buffers: list[Any]) -> Any:
        results: list[Any] = []
        again, at, page = False, 0, 0
        try:
            for number, read in zip(numbers, reads, strict=True):
                page = number
                size = len(read.ranges)
                found = read.decode(buffers if alone else buffers[at : at + size])
                at += size
                again = again or isinstance(found, ArrayRead)
                results.append(found)
        except PilumError as error:
            raise _named(error, page) from None
        if not again:
            return step(results)
        return _over_pages(
            numbers, [one if isinstance(one, ArrayRead) else done(one) for one in results], step
        )

    return ArrayRead(ranges, decode)


def _named(error: PilumError, number: int) -> PilumError:
    return type(error)(located(str(error), page=number))


def concat(arrays: list[Any]) -> Any:
    """One array of all; dictionaries are unified."""
    if len(arrays) == 1:
        return arrays[0]
    try:
        return pa.concat_arrays(arrays)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(
            f"the pages do not fit one Arrow array, read smaller batches: {error}"
        ) from None


class LeafColumn(_Paged):
    """Pages of values."""

    __slots__ = ("_convert", "pages")

    def __init__(self, pages: Sequence[ArrayDecoder], arrow_type: Any) -> None:
        super().__init__([page.count for page in pages], arrow_type)
        self.pages = pages
        self._convert = converter(arrow_type)

    def _schedule(self, rows: Rows) -> ArrayRead:
        numbers, reads = self._reads(rows, self._plan)
        return _over_pages(numbers, reads, concat)

    def _plan(self, number: int, rows: Rows) -> ArrayRead:
        return then(self.pages[number].schedule(rows), self._convert)


class NullColumn(Column):
    """A field that the file does not hold."""

    __slots__ = ()

    def __init__(self, num_rows: int, arrow_type: Any) -> None:
        self.num_rows, self.arrow_type = num_rows, arrow_type

    def _schedule(self, rows: Rows) -> ArrayRead:
        return done(pa.nulls(len(rows), self.arrow_type))


class StructColumn(Column):
    """Members side by side."""

    __slots__ = ("members",)

    def __init__(self, num_rows: int, members: Sequence[Column], arrow_type: Any) -> None:
        for member in members:
            if member.num_rows != num_rows:
                raise CorruptFileError(f"a struct of {num_rows} rows has a member of {member.num_rows} rows")
        self.num_rows, self.members, self.arrow_type = num_rows, members, arrow_type

    def _schedule(self, rows: Rows) -> ArrayRead:
        count = len(rows)

        def structs(members: list[Any]) -> Any:
            return pa.Array.from_buffers(self.arrow_type, count, [None], 0, children=members)

        if not self.members:
            return done(structs([]))
        return join([member.schedule(rows) for member in self.members], structs)


class ListPage(NamedTuple):
    """One page of ends.

    Attributes:
        num_lists: lists.
        num_items: items that belong to them.
        extents: plans the read of where some of the lists lie, counted from the page's first item.
    """

    num_lists: int
    num_items: int
    extents: Callable[[Rows], ArrayRead]


class Lists(NamedTuple):
    """Where lists lie in the column of items; null lists have no items.

    Attributes:
        offsets: of the lists over their own items, back to back; int32 or int64.
        validity: one boolean per list, None = all valid.
        low: the first item where the items of all lists lie back to back in their column, too; else None.
        starts: first item of each list; only where ``low`` is None.
    """

    offsets: Any
    validity: Any
    low: int | None
    starts: Ints | None = None

    @classmethod
    def adjacent(cls, low: int, offsets: Any) -> Lists:
        """Valid lists of which each begins where the one before ends, the first one at ``low``."""
        return cls(offsets, None, low)

    @classmethod
    def of(cls, starts: Ints, sizes: Ints, validity: Any) -> Lists:
        """Lists that lie there, without the items of null ones."""
        if validity is not None:
            sizes = np.where(validity, sizes, 0)
        offsets = np.empty(len(sizes) + 1, np.int64)
        offsets[0] = 0
        np.cumsum(sizes, out=offsets[1:])
        low = _contiguous(starts, sizes, int(offsets[-1]))
        return cls(offsets, validity, low, None if low is not None else starts)

    @property
    def items(self) -> Rows:
        """The number of every item of every list; strictly increasing, because lists do not overlap."""
        total = int(self.offsets[-1])
        if self.low is not None:
            return range(self.low, self.low + total)
        assert self.starts is not None
        sizes = np.diff(self.offsets)
        return np.repeat(self.starts - self.offsets[:-1], sizes) + np.arange(total)


def read_items(lists: Lists, items: Column, arrow_type: Any) -> ArrayRead:
    """The lists with their items, which are still to be read."""
    return then(items.schedule(lists.items), lambda found: _list_array(lists, found, arrow_type))


def over_all_items(lists: Lists, items: Any, arrow_type: Any, first: int = 0) -> Any:
    """The lists over all items from ``first`` on, of which null lists may own some."""
    total = int(lists.offsets[-1])
    if total != len(items):
        wanted = lists.items
        if isinstance(wanted, range):
            items = _part(items, wanted.start - first, total)
        else:
            items = arrays.take(items, wanted - first)
    return _list_array(lists, items, arrow_type)


def _part(items: Any, low: int, count: int) -> Any:
    """A slice of items.

    Arrow takes and filters slices of fixed-size lists of lists wrongly, so what holds such is copied.
    """
    part = items.slice(low, count)
    return pa.concat_arrays([part, part.slice(0, 0)]) if _has_wide_lists(items.type) else part


def _has_wide_lists(kind: Any) -> bool:
    inside = [kind.field(i).type for i in range(kind.num_fields)]
    if pa.types.is_fixed_size_list(kind) and inside[0].num_fields:
        return True
    return any(_has_wide_lists(one) for one in inside)


def _list_array(lists: Lists, items: Any, kind: Any) -> Any:
    offsets, validity = lists.offsets, lists.validity
    count = len(offsets) - 1
    if not pa.types.is_large_list(kind):
        if int(offsets[-1]) > _MAX_I32:
            raise InvalidInputError(
                f"{int(offsets[-1])} list items do not fit one Arrow array; read smaller batches"
            )
        offsets = offsets.astype(np.int32, copy=False)
    elif offsets.dtype != np.int64:
        offsets = offsets.astype(np.int64)
    bitmap, nulls = None, 0
    if validity is not None:
        bitmap, nulls = pa.py_buffer(pack_bits(validity)), count - int(np.count_nonzero(validity))
    return pa.Array.from_buffers(kind, count, [bitmap, pa.py_buffer(offsets)], nulls, children=[items])


def _contiguous(starts: Ints, sizes: Ints, total: int) -> int | None:
    """The first item if the items of all lists lie back to back, else None."""
    if not len(sizes):
        return 0
    first, last = int(starts[0]), int(starts[-1]) + int(sizes[-1])
    # Starts never decrease, so empty lists at either end only make the span larger.
    if last - first == total:
        return first
    filled = np.flatnonzero(sizes)
    if not len(filled):
        return 0
    begin, end = int(filled[0]), int(filled[-1])
    low = int(starts[begin])
    return low if int(starts[end]) + int(sizes[end]) - low == total else None


class ListColumn(_Paged):
    """Pages of ends over a column of items."""

    __slots__ = ("bases", "items", "pages")

    def __init__(self, pages: Sequence[ListPage], items: Column, arrow_type: Any) -> None:
        super().__init__([page.num_lists for page in pages], arrow_type)
        self.pages, self.items = pages, items
        bases = [0]
        for page in pages:
            bases.append(bases[-1] + page.num_items)
        self.bases = bases
        if bases[-1] > items.num_rows:
            raise CorruptFileError(
                f"lists of {bases[-1]} items, the column of items has {items.num_rows} rows"
            )

    def _schedule(self, rows: Rows) -> ArrayRead:
        numbers, ends = self._reads(rows, lambda number, part: self.pages[number].extents(part))
        bases = [self.bases[number] for number in numbers]
        kind = self.arrow_type
        if len(rows) == self.num_rows:
            lists = _over_pages(numbers, ends, lambda parts: _absolute(parts, bases))
            everything = self.items.schedule(range(self.items.num_rows))
            return join([lists, everything], lambda parts: over_all_items(parts[0], parts[1], kind))
        return _over_pages(numbers, ends, lambda parts: read_items(_absolute(parts, bases), self.items, kind))


def _absolute(parts: list[Extents], bases: list[int]) -> Lists:
    """The lists of several pages by their place in the column of items."""
    if len(parts) == 1:
        (part,) = parts
        base = bases[0]
        if part.adjacent and part.validity is None and len(part.ends):
            low = int(part.starts[0])
            offsets = np.empty(len(part.ends) + 1, np.int64)
            offsets[0] = 0
            np.subtract(part.ends, low, out=offsets[1:])
            return Lists.adjacent(low + base, offsets)
        return Lists.of(part.starts + base if base else part.starts, part.ends - part.starts, part.validity)
    starts = np.concatenate([part.starts + base for part, base in zip(parts, bases, strict=True)])
    sizes = np.concatenate([part.ends - part.starts for part in parts])
    validity = None
    if any(part.validity is not None for part in parts):
        validity = np.concatenate(
            [np.ones(len(part.ends), np.bool_) if part.validity is None else part.validity for part in parts]
        )
    return Lists.of(starts, sizes, validity)


class StringColumn(Column):
    """Strings stored as lists of bytes, as releases before 0.14 did (A.12)."""

    __slots__ = ("lists",)

    def __init__(self, pages: Sequence[ListPage], items: Column, arrow_type: Any) -> None:
        self.lists = ListColumn(pages, items, pa.large_list(pa.uint8()))
        self.num_rows, self.arrow_type = self.lists.num_rows, arrow_type

    def _schedule(self, rows: Rows) -> ArrayRead:
        return then(self.lists.schedule(rows), self._strings)

    def _strings(self, lists: Any) -> Any:
        items = lists.values
        if items.null_count:
            raise CorruptFileError("null bytes inside strings")
        offsets = np.frombuffer(lists.buffers()[1], np.int64)
        data = (
            np.frombuffer(items.buffers()[1], np.uint8)[items.offset : items.offset + len(items)]
            if len(items)
            else _NOTHING
        )
        validity = arrays.valid(lists) if lists.null_count else None
        return to_arrow(VariableBlock(64, offsets, data, len(lists)), self.arrow_type, validity)


class BlobColumn(Column):
    """Blobs: descriptors in the pages, the bytes anywhere in the file (A.9).

    Args:
        descriptors: a column of ``struct<position: uint64, size: uint64>``.
        arrow_type: what is read: that struct, or a binary type for the bytes.
        file_size: no blob lies beyond.
    """

    __slots__ = ("descriptors", "file_size")

    def __init__(self, descriptors: LeafColumn, arrow_type: Any, file_size: int) -> None:
        self.descriptors, self.arrow_type, self.file_size = descriptors, arrow_type, file_size
        self.num_rows = descriptors.num_rows

    def _schedule(self, rows: Rows) -> ArrayRead:
        return then(self.descriptors.schedule(rows), self._fetch)

    def _fetch(self, descriptors: Any) -> ArrayRead | Any:
        if pa.types.is_struct(self.arrow_type):
            return arrays.compute().cast(descriptors, self.arrow_type)
        positions, sizes = (arrays.to_numpy(descriptors.field(i)).astype(np.uint64) for i in range(2))
        limit = np.uint64(self.file_size)
        filled = sizes > 0
        if bool(((sizes > limit) | (positions > limit - np.minimum(sizes, limit)))[filled].any()):
            raise CorruptFileError("a blob lies outside the file")
        if int(sizes.sum(dtype=np.float64)) > self.file_size:
            raise CorruptFileError("blobs overlap: they are larger than the file")
        validity = filled | (positions != 1)
        starts, lengths = positions.astype(np.int64), sizes.astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])

        def strings(data: Any) -> Any:
            return to_arrow(VariableBlock(64, offsets, data, len(lengths)), self.arrow_type, validity)

        return then(read_spans(starts, lengths), strings)


_NOTHING = np.empty(0, np.uint8)
