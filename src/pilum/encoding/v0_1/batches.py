"""How rows are cut into batches, and what the columns of format 0.1 share (`spec/file-2.0-and-0.1.md`, B.2 and B.3).

A batch has 1024 rows by default, so a column has many small pages: they are planned and decoded together, with work per
page counted in nanoseconds.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pilum.encoding.blocks import Bytes
from pilum.encoding.page import Range
from pilum.encoding.v2_0.columns import Column
from pilum.encoding.v2_0.reads import Ints
from pilum.errors import CorruptFileError
from pilum.io.buffers import allocate

__all__ = [
    "BatchedColumn", "Batches", "FindPages", "Pages", "Parts", "check_inside", "joined", "merged_ranges", "page_ranges",
]  # fmt: skip


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


class Parts(NamedTuple):
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
        self._parted: tuple[range, Parts] | None = None
        self._located: tuple[Ints, tuple[Ints, Ints]] | None = None

    def within(self, rows: range) -> tuple[int, int, int] | None:
        """The batch that holds all of a few rows, and which of its elements they are."""
        page = bisect.bisect_right(self._edges, rows.start) - 1
        low = self._edges[page]
        if rows.stop > self._edges[page + 1]:
            return None
        return page, rows.start - low, rows.stop - low

    def parts(self, rows: range) -> Parts:
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
            Parts(pages, lows, highs) if filled.all() else Parts(pages[filled], lows[filled], highs[filled])
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


class BatchedColumn(Column):
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


def page_ranges(lows: Ints, highs: Ints) -> list[Range]:
    return list(zip(lows.tolist(), highs.tolist(), strict=True))


def merged_ranges(lows: Ints, highs: Ints) -> list[Range]:
    """Ranges whose bytes are used back to back: pages of a file with one column touch each other."""
    if len(lows) > 1:
        apart = lows[1:] != highs[:-1]
        lows, highs = lows[np.append(True, apart)], highs[np.append(apart, True)]
    return page_ranges(lows, highs)


def joined(buffers: list[Bytes]) -> Bytes:
    if len(buffers) == 1:
        return buffers[0]
    # Memory that keeps its pages: a fresh one of this size costs as much again as the copy.
    found = allocate(sum(map(len, buffers)))
    np.concatenate(buffers, out=found)
    return found


def check_inside(positions: Ints, sizes: Ints, file_size: int) -> None:
    filled = sizes > 0
    if bool(((positions < 0) | (sizes < 0) | (positions > file_size - sizes))[filled].any()):
        raise CorruptFileError(f"a page leaves the file of {file_size} bytes")
