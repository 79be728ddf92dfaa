"""Strings and lists of format 0.1: positions or offsets, and what they point to.

strings, binary      bytes, then int64[n + 1] absolute positions; value i is  file[pos[i] : pos[i + 1]]
list                 int32 or int64 [n + 1] offsets into the items page of the same batch
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import Bytes, VariableBlock
from pilum.encoding.page import Range, Rows
from pilum.encoding.v0_1.batches import BatchedColumn, Batches, Pages, check_inside, joined, page_ranges
from pilum.encoding.v2_0.columns import Column, Lists, over_all_items, read_items
from pilum.encoding.v2_0.flat import read_spans
from pilum.encoding.v2_0.reads import ArrayRead, Ints, join, then
from pilum.errors import CorruptFileError

__all__ = ["BinaryColumn", "ListColumn"]

_MAX_I32 = 2**31 - 1
# Up to this many bytes of strings are read along with their positions instead of in a second round.
_FEW_BYTES = 16 << 10


class BinaryColumn(BatchedColumn):
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
        check_inside(pages.positions, (batches.counts + 1) * 8, file_size)

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
                    return self._with_bytes(floors, base, page_ranges(begins, ends), counts)
            return ArrayRead(
                page_ranges(begins, ends), lambda buffers: self._pages(joined(buffers).view(np.int64), counts)
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
            found = joined(buffers[:size]).view(np.int64)
            lows, highs, sizes = self._runs(found, counts)
            if bool((lows < floors).any() or (highs > base).any()):
                return self._fetched(lows, highs, sizes)
            pieces = zip(buffers[size:], (lows - floors).tolist(), (highs - floors).tolist(), strict=True)
            return self._array(joined([data[low:high] for data, low, high in pieces]), sizes)

        return ArrayRead(positions + page_ranges(floors, base), decode)

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


class ListColumn(BatchedColumn):
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
        check_inside(pages.positions, (batches.counts + 1) * self.width, file_size)

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
        ranges = page_ranges(base + width * parts.lows, base + width * (parts.highs + 1))

        def lists(data: Bytes) -> Lists:
            return self._lists(data.view(self.words), counts, parts.pages)

        offsets = ArrayRead(ranges, joined)
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
