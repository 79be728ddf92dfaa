"""Columns of format 0.1: one page per field and batch, chosen by the type alone (`spec/file-2.0-and-0.1.md`, B.3).

    fixed width          values back to back; booleans as bits; fixed-size lists as their items
    strings, binary      int64[n + 1] absolute positions; value i is  file[pos[i] : pos[i + 1]]
    list                 int32 or int64 [n + 1] offsets into the items page of the same batch
    struct               nothing; null: nothing
    dictionary           indices; the values are somewhere else

Nothing says that a value is null; a nullable string is null when it is empty (B.4).  A batch has 1024 rows by default,
so a column has many small pages: they are planned and decoded together, with work per page counted in nanoseconds.

The trees and the reads are those of `pilum.encoding.v2_0`.  Must not know: files, stores, messages.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import Block, Bytes, FixedBlock, FslBlock, VariableBlock, pack_bits, unpack_bits
from pilum.encoding.page import Range, Rows
from pilum.encoding.v2_0.columns import Column, Lists, NullColumn, StructColumn, over_all_items, read_items
from pilum.encoding.v2_0.flat import fixed_bits, read_spans
from pilum.encoding.v2_0.reads import ArrayRead, Ints, Values, join, then
from pilum.encoding.v2_0.values import converter, to_array
from pilum.errors import CorruptFileError, UnsupportedError
from pilum.io.buffers import allocate
from pilum.schema import Field

__all__ = ["Batches", "Pages", "open_column", "page_sizes"]

_MAX_I32 = 2**31 - 1
# Up to this many bytes of strings are read along with their positions instead of in a second round.
_FEW_BYTES = 16 << 10


class Pages(NamedTuple):
    """The pages of one field, one per batch.

    Attributes:
        positions: where each begins.
        lengths: stored elements of each.
        floors: where the page before each of them ends, so that what lies between belongs to it; None if unknown.
    """

    positions: Ints
    lengths: Ints
    floors: Ints | None = None


FindPages: TypeAlias = Callable[[int], Pages | None]
"""The pages of a field id; None if the file does not hold the field."""


class _Parts(NamedTuple):
    """The elements of some pages that hold a range of rows."""

    pages: Ints
    lows: Ints
    highs: Ints


class Batches:
    """How the rows of a file, or the items of its lists, are cut into batches.

    All columns of a file share one, so what a range or a list of rows means in batches is worked out once for all.

    Attributes:
        counts: rows of each batch.
        starts: first row of each batch, then the number of rows.
        num_rows: of all batches.
    """

    __slots__ = ("_edges", "_located", "_parted", "counts", "num_rows", "starts")

    def __init__(self, counts: Ints) -> None:
        self.counts = counts
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.num_rows = int(self.starts[-1])
        self._edges: list[int] = self.starts.tolist()
        # The last answer with what it was for: threads replace them as a whole.
        self._parted: tuple[range, _Parts] | None = None
        self._located: tuple[Ints, tuple[Ints, Ints]] | None = None

    def within(self, rows: range) -> tuple[int, int, int] | None:
        """The batch that holds all of a few rows, and which of its elements they are."""
        page = bisect.bisect_right(self._edges, rows.start) - 1
        low = self._edges[page]
        if rows.stop > self._edges[page + 1]:
            return None
        return page, rows.start - low, rows.stop - low

    def parts(self, rows: range) -> _Parts:
        """The elements of each batch that are among ``rows``."""
        last = self._parted
        if last is not None and last[0] == rows:
            return last[1]
        starts = self.starts
        first = int(np.searchsorted(starts, rows.start, "right")) - 1
        end = int(np.searchsorted(starts, rows.stop, "left"))
        pages = np.arange(first, end)
        lows = np.maximum(starts[first:end], rows.start) - starts[first:end]
        highs = np.minimum(starts[first + 1 : end + 1], rows.stop) - starts[first:end]
        filled = highs > lows
        found = (
            _Parts(pages, lows, highs) if filled.all() else _Parts(pages[filled], lows[filled], highs[filled])
        )
        self._parted = (rows, found)
        return found

    def locate(self, rows: Ints) -> tuple[Ints, Ints]:
        """Batch of each row, and its place there."""
        last = self._located
        if last is not None and last[0] is rows:
            return last[1]
        pages = np.searchsorted(self.starts, rows, "right") - 1
        found = pages, rows - self.starts[pages]
        self._located = (rows, found)
        return found


class _Batched(Column):
    """A column whose pages are cut at the batches.

    Attributes:
        batches: where they are cut.
        positions: where each page begins.
    """

    __slots__ = ("batches", "positions")

    def __init__(self, pages: Pages, batches: Batches, arrow_type: Any) -> None:
        self.positions = pages.positions
        self.batches = batches
        self.num_rows = batches.num_rows
        self.arrow_type = arrow_type


def _ranges(lows: Ints, highs: Ints) -> list[Range]:
    return list(zip(lows.tolist(), highs.tolist(), strict=True))


def _merged(lows: Ints, highs: Ints) -> list[Range]:
    """Ranges whose bytes are used back to back: pages of a file with one column touch each other."""
    if len(lows) > 1:
        apart = lows[1:] != highs[:-1]
        lows, highs = lows[np.append(True, apart)], highs[np.append(apart, True)]
    return _ranges(lows, highs)


def _joined(buffers: list[Bytes]) -> Bytes:
    if len(buffers) == 1:
        return buffers[0]
    # Memory that keeps its pages: a fresh one of this size costs as much again as the copy.
    joined = allocate(sum(map(len, buffers)))
    np.concatenate(buffers, out=joined)
    return joined


class _FixedColumn(_Batched):
    """Values of whole bytes, among them fixed-size lists and dictionary indices."""

    __slots__ = ("_convert", "dictionary", "width")

    def __init__(
        self, pages: Pages, batches: Batches, arrow_type: Any, width: int, file_size: int, dictionary: Any
    ) -> None:
        super().__init__(pages, batches, arrow_type)
        self.width, self.dictionary = width, dictionary
        self._convert = converter(arrow_type)
        _check_inside(pages.positions, batches.counts * width, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        width, count = self.width, len(rows)
        if isinstance(rows, range):
            single = self.batches.within(rows)
            if single is not None:
                page, low, high = single
                at = int(self.positions[page])
                return ArrayRead(
                    [(at + low * width, at + high * width)], lambda buffers: self._array(buffers[0], count)
                )
            parts = self.batches.parts(rows)
            base = self.positions[parts.pages]
            ranges = _merged(base + parts.lows * width, base + parts.highs * width)
            return ArrayRead(ranges, lambda buffers: self._array(_joined(buffers), count))
        pages, places = self.batches.locate(rows)
        read = read_spans(self.positions[pages] + places * width, np.full(count, width))
        return then(read, lambda data: self._array(data, count))

    def _array(self, data: Bytes, count: int) -> Any:
        kind = self.arrow_type
        if self.dictionary is None:
            return self._convert(Values(_block(kind, data, count)))
        block = FixedBlock(8 * self.width, data, count)
        if count and int(block.words().max()) >= len(self.dictionary):
            raise CorruptFileError(
                f"dictionary index {int(block.words().max())}, the dictionary has {len(self.dictionary)} items"
            )
        return to_array(Values(block, None, self.dictionary), kind)


def _block(kind: Any, data: Bytes, count: int) -> Block:
    if pa.types.is_fixed_size_list(kind):
        return FslBlock(kind.list_size, None, _block(kind.value_type, data, count * kind.list_size), count)
    return FixedBlock(int(kind.bit_width), data, count)


class _BitsColumn(_Batched):
    """Booleans, and fixed-size lists of booleans: one bit stream per page."""

    __slots__ = ("dimension",)

    def __init__(
        self, pages: Pages, batches: Batches, arrow_type: Any, dimension: int, file_size: int
    ) -> None:
        super().__init__(pages, batches, arrow_type)
        self.dimension = dimension
        _check_inside(pages.positions, (batches.counts * dimension + 7) // 8, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        dimension, count = self.dimension, len(rows)
        if isinstance(rows, range):
            parts = self.batches.parts(rows)
            lows, highs = parts.lows * dimension, parts.highs * dimension
            base = self.positions[parts.pages]
            shifts = (lows & 7).tolist()
            sizes = (highs - lows).tolist()

            def decode(buffers: list[Bytes]) -> Any:
                pieces = zip(buffers, sizes, shifts, strict=True)
                return self._array(np.concatenate([unpack_bits(data, n, k) for data, n, k in pieces]), count)

            return ArrayRead(_ranges(base + lows // 8, base + (highs + 7) // 8), decode)
        pages, places = self.batches.locate(rows)
        bits = (places[:, None] * dimension + np.arange(dimension)).reshape(-1)
        holders = np.repeat(self.positions[pages], dimension) + (bits >> 3)
        distinct, back = np.unique(holders, return_inverse=True)

        def pick(data: Bytes) -> Any:
            return self._array((data[back] >> (bits & 7).astype(np.uint8)) & np.uint8(1), count)

        return then(read_spans(distinct, np.ones(len(distinct), np.int64)), pick)

    def _array(self, bits: Any, count: int) -> Any:
        return to_arrow(_bit_block(self.arrow_type, pack_bits(bits), count), self.arrow_type)


def _bit_block(kind: Any, data: Bytes, count: int) -> Block:
    if pa.types.is_fixed_size_list(kind):
        return FslBlock(
            kind.list_size, None, _bit_block(kind.value_type, data, count * kind.list_size), count
        )
    return FixedBlock(1, data, count)


class _BinaryColumn(_Batched):
    """Strings and binary: positions, and bytes anywhere before them.

    Writers put the bytes of a page right before its positions.  Where the page before ends is known, so the bytes of
    whole pages, and of pages with few of them, are read along with the positions; if the positions then say something
    else, there is another round.
    """

    __slots__ = ("file_size", "floors", "large", "nullable")

    def __init__(
        self, pages: Pages, batches: Batches, arrow_type: Any, nullable: bool, file_size: int
    ) -> None:
        super().__init__(pages, batches, arrow_type)
        self.nullable, self.file_size, self.floors = nullable, file_size, pages.floors
        self.large = bool(pa.types.is_large_string(arrow_type) or pa.types.is_large_binary(arrow_type))
        _check_inside(pages.positions, (batches.counts + 1) * 8, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        if isinstance(rows, range):
            single = self.batches.within(rows)
            if single is not None and self.floors is not None:
                return self._within(*single)
            parts = self.batches.parts(rows)
            base = self.positions[parts.pages]
            counts = parts.highs - parts.lows
            begins, ends = base + 8 * parts.lows, base + 8 * (parts.highs + 1)
            if self.floors is not None:
                floors = self.floors[parts.pages]
                along = (base - floors <= _FEW_BYTES) | (counts == self.batches.counts[parts.pages])
                if along.all():
                    return self._with_bytes(floors, base, _ranges(begins, ends), counts)
            return ArrayRead(
                _ranges(begins, ends), lambda buffers: self._pages(_joined(buffers).view(np.int64), counts)
            )
        pages, places = self.batches.locate(rows)
        read = read_spans(self.positions[pages] + 8 * places, np.full(len(rows), 16))
        return then(read, self._rows)

    def _within(self, page: int, low: int, high: int) -> ArrayRead:
        """Rows of one page, with few steps: most reads of few rows are such."""
        assert self.floors is not None
        base, floor = int(self.positions[page]), int(self.floors[page])
        along = base - floor <= _FEW_BYTES or high - low == int(self.batches.counts[page])

        def decode(buffers: list[Bytes]) -> Any:
            positions = buffers[0].view(np.int64)
            first, last = int(positions[0]), int(positions[-1])
            sizes = positions[1:] - positions[:-1]
            if int(sizes.min()) < 0 or first < 0 or last > self.file_size:
                raise CorruptFileError("positions of strings decrease or leave the file")
            offsets = positions - first
            if along and first >= floor and last <= base:
                return self._run(buffers[1][first - floor : last - floor], offsets, sizes)
            rest = [] if first == last else [(first, last)]
            return ArrayRead(rest, lambda found: self._run(found[0] if rest else _NOTHING, offsets, sizes))

        positions = (base + 8 * low, base + 8 * (high + 1))
        return ArrayRead([positions, (floor, base)] if along else [positions], decode)

    def _with_bytes(self, floors: Ints, base: Ints, positions: list[Range], counts: Ints) -> ArrayRead:
        """Positions of runs of rows, and all bytes before the positions of their pages."""
        size = len(counts)

        def decode(buffers: list[Bytes]) -> Any:
            found = _joined(buffers[:size]).view(np.int64)
            lows, highs, sizes = self._runs(found, counts)
            if bool((lows < floors).any() or (highs > base).any()):
                return self._fetched(lows, highs, sizes)
            pieces = zip(buffers[size:], (lows - floors).tolist(), (highs - floors).tolist(), strict=True)
            return self._array(_joined([data[low:high] for data, low, high in pieces]), sizes)

        return ArrayRead(positions + _ranges(floors, base), decode)

    def _pages(self, positions: Ints, counts: Ints) -> ArrayRead:
        """Positions of runs of rows: the bytes of each run are one range."""
        return self._fetched(*self._runs(positions, counts))

    def _fetched(self, lows: Ints, highs: Ints, sizes: Ints) -> ArrayRead:
        return then(read_spans(lows, highs - lows), lambda data: self._array(data, sizes))

    def _runs(self, positions: Ints, counts: Ints) -> tuple[Ints, Ints, Ints]:
        """Where the bytes of each run begin and end, and the size of each value."""
        lows, highs, sizes = _cut(positions, counts)
        if int(sizes.min()) < 0 or int(lows.min()) < 0 or int(highs.max()) > self.file_size:
            raise CorruptFileError("positions of strings decrease or leave the file")
        if int((highs - lows).sum()) > self.file_size:
            raise CorruptFileError("strings overlap: they are larger than the file")
        return lows, highs, sizes

    def _rows(self, data: Bytes) -> ArrayRead:
        pairs = data.view(np.int64).reshape(-1, 2)
        starts, ends = pairs[:, 0], pairs[:, 1]
        sizes = ends - starts
        if int(starts.min()) < 0 or int(ends.max()) > self.file_size or int(sizes.min()) < 0:
            raise CorruptFileError("positions of strings decrease or leave the file")
        if int(sizes.sum()) > self.file_size:
            raise CorruptFileError("strings overlap: they are larger than the file")
        return then(read_spans(starts, sizes), lambda found: self._array(found, sizes))

    def _array(self, data: Bytes, sizes: Ints) -> Any:
        wide = self.large or len(data) > _MAX_I32
        offsets: Any = np.empty(len(sizes) + 1, np.int64 if wide else np.int32)
        offsets[0] = 0
        np.cumsum(sizes, out=offsets[1:], dtype=offsets.dtype)
        return self._run(data, offsets, sizes)

    def _run(self, data: Bytes, offsets: Any, sizes: Ints) -> Any:
        """The strings, which lie back to back in ``data``."""
        if not self.large and len(data) <= _MAX_I32:
            offsets = offsets.astype(np.int32, copy=False)
        block = VariableBlock(8 * offsets.itemsize, offsets, data, len(sizes))
        return to_arrow(block, self.arrow_type, sizes > 0 if self.nullable else None)


_NOTHING: Bytes = np.empty(0, np.uint8)


def _cut(values: Any, counts: Ints) -> tuple[Any, Any, Any]:
    """First and last of the n + 1 edges of each of several pages, back to back, and the differences within pages."""
    if len(counts) == 1:
        return values[:1], values[-1:], np.diff(values)
    lasts = np.cumsum(counts + 1) - 1
    firsts = lasts - counts
    inner = np.ones(len(values) - 1, np.bool_)
    inner[lasts[:-1]] = False
    return values[firsts], values[lasts], np.diff(values)[inner]


class _ListColumn(_Batched):
    """Offsets into the items of the same batch."""

    __slots__ = ("items", "limits", "width", "words")

    def __init__(
        self, pages: Pages, batches: Batches, arrow_type: Any, items: Column, limits: Ints, file_size: int
    ) -> None:
        super().__init__(pages, batches, arrow_type)
        self.items = items
        self.width = 8 if pa.types.is_large_list(arrow_type) else 4
        self.words = np.dtype(f"<i{self.width}")
        self.limits = limits
        _check_inside(pages.positions, (batches.counts + 1) * self.width, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        width, kind = self.width, self.arrow_type
        if not isinstance(rows, range):
            pages, places = self.batches.locate(rows)
            read = read_spans(self.positions[pages] + width * places, np.full(len(rows), 2 * width))

            def pick(data: Bytes) -> ArrayRead:
                pairs = data.view(self.words).reshape(-1, 2)
                return read_items(self._picked(pairs[:, 0], pairs[:, 1], pages), self.items, kind)

            return then(read, pick)
        parts = self.batches.parts(rows)
        base = self.positions[parts.pages]
        counts = parts.highs - parts.lows
        ranges = _ranges(base + width * parts.lows, base + width * (parts.highs + 1))

        def lists(data: Bytes) -> Lists:
            return self._lists(data.view(self.words), counts, parts.pages)

        offsets = ArrayRead(ranges, _joined)
        # Whole batches own all of their items; those of parts of a batch at either end are read along.
        first, last = int(parts.pages[0]), int(parts.pages[-1]) + 1
        if 2 * len(rows) >= int(self.batches.starts[last] - self.batches.starts[first]):
            low, high = int(self.limits[first]), int(self.limits[last])
            everything = self.items.schedule(range(low, high))
            return join(
                [offsets, everything], lambda found: over_all_items(lists(found[0]), found[1], kind, low)
            )
        return then(offsets, lambda data: read_items(lists(data), self.items, kind))

    def _lists(self, values: Any, counts: Ints, pages: Ints) -> Lists:
        """The lists of runs of rows, one run in each of some batches."""
        if len(counts) == 1:
            low, high = int(self.limits[pages[0]]), int(self.limits[pages[0] + 1])
            first, last = int(values[0]), int(values[-1])
            if first < 0 or last > high - low or bool((values[1:] < values[:-1]).any()):
                raise CorruptFileError("offsets of lists decrease or leave the items of their batch")
            return Lists.adjacent(low + first, values - values.dtype.type(first))
        firsts, lasts, sizes = _cut(values, counts)
        shift = self.limits[pages]
        lows, highs = shift + firsts, shift + lasts
        if bool((firsts < 0).any() or (highs > self.limits[pages + 1]).any()) or int(sizes.min()) < 0:
            raise CorruptFileError("offsets of lists decrease or leave the items of their batch")
        offsets = np.empty(len(sizes) + 1, np.int64)
        offsets[0] = 0
        np.cumsum(sizes, out=offsets[1:])
        if np.array_equal(lows[1:], highs[:-1]):
            return Lists.adjacent(int(lows[0]), offsets)
        begins = offsets[np.cumsum(counts) - counts]
        return Lists(offsets, None, None, offsets[:-1] + np.repeat(lows - begins, counts))

    def _picked(self, starts: Ints, ends: Ints, pages: Ints) -> Lists:
        """Lists here and there."""
        starts, ends = starts + self.limits[pages], ends + self.limits[pages]
        inside = (starts >= self.limits[pages]) & (ends >= starts) & (ends <= self.limits[pages + 1])
        if not inside.all() or bool((starts[1:] < ends[:-1]).any()):
            raise CorruptFileError("offsets of lists decrease or leave the items of their batch")
        return Lists.of(starts, ends - starts, None)


def _check_inside(positions: Ints, sizes: Ints, file_size: int) -> None:
    filled = sizes > 0
    if bool(((positions < 0) | (sizes < 0) | (positions > file_size - sizes))[filled].any()):
        raise CorruptFileError(f"a page leaves the file of {file_size} bytes")


def open_column(
    field: Field,
    find: FindPages,
    batches: Batches,
    file_size: int,
    dictionaries: dict[int, Any],
    nullable: bool | None = None,
) -> Column:
    """The column tree of a field.

    Args:
        field: possibly with only some of its members.
        find: the pages of a field.
        batches: of the rows of the file; of the items inside a list.
        file_size: no page lies beyond.
        dictionaries: values of dictionary fields by field id.
        nullable: of the field as it is read, None = as the field says.

    Raises:
        CorruptFileError: the page table contradicts the field, or pages leave the file.
    """
    kind = field.arrow_type
    pages = find(field.id)
    if pa.types.is_struct(kind):
        members = [
            open_column(child, find, batches, file_size, dictionaries)
            if any(find(node.id) is not None for node in child.walk())
            else NullColumn(batches.num_rows, child.arrow_type)
            for child in field.children
        ]
        return StructColumn(batches.num_rows, members, kind)
    if pages is None:
        raise CorruptFileError(f"the file holds no pages for field {field.name!r} (id {field.id})")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _check_lengths(field, pages.lengths, batches.counts + 1)
        (item,) = field.children
        inner = Batches(_item_counts(item, find))
        items = open_column(item, find, inner, file_size, dictionaries)
        return _ListColumn(pages, batches, kind, items, inner.starts, file_size)
    _check_lengths(field, pages.lengths, batches.counts)
    if pa.types.is_null(kind):
        return NullColumn(batches.num_rows, kind)
    if pa.types.is_dictionary(kind):
        width = int(kind.index_type.bit_width) // 8
        return _FixedColumn(pages, batches, kind, width, file_size, dictionaries[field.id])
    bits, dimension = _element(kind)
    if bits == 1:
        return _BitsColumn(pages, batches, kind, dimension, file_size)
    if bits is not None:
        if dimension * bits > 8 * _MAX_I32:
            raise UnsupportedError(f"field {field.name!r}: values of {dimension * bits} bits")
        return _FixedColumn(pages, batches, kind, dimension * bits // 8, file_size, None)
    return _BinaryColumn(pages, batches, kind, field.nullable if nullable is None else nullable, file_size)


def _element(kind: Any) -> tuple[int | None, int]:
    """Bits of one stored element, None for strings, and elements per row."""
    dimension = 1
    while pa.types.is_fixed_size_list(kind):
        dimension *= kind.list_size
        kind = kind.value_type
    return fixed_bits(kind), dimension


def page_sizes(field: Field, lengths: Ints) -> Ints:
    """Bytes that pages of these lengths take from their positions on."""
    kind = field.arrow_type
    if pa.types.is_struct(kind) or pa.types.is_null(kind):
        return np.zeros(len(lengths), np.int64)
    if pa.types.is_list(kind):
        return 4 * lengths
    if pa.types.is_large_list(kind):
        return 8 * lengths
    bits, dimension = _element(kind.index_type if pa.types.is_dictionary(kind) else kind)
    if bits is None:
        return 8 * (lengths + 1)
    sizes: Ints = (lengths * dimension * bits + 7) // 8
    return sizes


def _check_lengths(field: Field, found: Ints, expected: Ints) -> None:
    if not np.array_equal(found, expected):
        raise CorruptFileError(f"the pages of field {field.name!r} have other lengths than the batches")


def _item_counts(item: Field, find: FindPages) -> Ints:
    """Items of each batch: what the page table says of the item field, or of the first member that has pages."""
    for node in item.walk():
        if pa.types.is_struct(node.arrow_type):
            continue
        pages = find(node.id)
        if pages is not None:
            listed = pa.types.is_list(node.arrow_type) or pa.types.is_large_list(node.arrow_type)
            return np.maximum(pages.lengths - 1, 0) if listed else pages.lengths
    raise CorruptFileError(f"the file holds no pages of the list items {item.name!r} (id {item.id})")
