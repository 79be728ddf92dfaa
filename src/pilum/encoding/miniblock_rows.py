"""Rows of a mini-block page: in which chunks they lie, and where inside.

`spec/file-container-and-structure.md`, section 4.2.  Without lists row numbers are item numbers, so
the item counts of the chunks say it all.  With lists a page has a repetition index, two u64
per chunk::

    ends      rows whose last entry lies in the chunk
    partial   entries after the end of the last of them; 0 if the chunk ends with a row

    chunk 0          chunk 1          chunk 2
    r . r . . r .  | . . . . . . .  | . . r . r .        r = first entry of a row, . = its others
    ends 2           ends 0           ends 3
    partial 2        partial 7        partial 0
    3 rows begin     none begins      2 rows begin

A row that begins in a chunk with a trailer (partial > 0) continues through the following chunks up
to the first that either begins another row or has no trailer itself.  What the index says is
compared with the repetition levels of the chunks that were read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pilum.encoding import levels
from pilum.encoding.blocks import Bytes
from pilum.encoding.codecs.base import Ints
from pilum.encoding.kernels.locate import Located, locate
from pilum.encoding.page import Levels
from pilum.errors import CorruptFileError

__all__ = ["ListTrim", "RowIndex", "cut_levels", "index_without_lists", "pack_index", "read_index"]

Bools = npt.NDArray[np.bool_]
_MAX_ROWS = 1 << 48


@dataclass(slots=True)
class RowIndex:
    """Which rows begin in which chunk.

    Attributes:
        first: number of the first row that begins in each chunk, and the number of rows (n + 1).
        trailer: whether the last row of a chunk continues in the next; None without lists.
        stops: chunks that end a row which continues into them, ascending; None without lists.
    """

    first: Ints
    trailer: Bools | None = None
    stops: Ints | None = None

    @property
    def nbytes(self) -> int:
        lists = 0 if self.trailer is None or self.stops is None else self.trailer.nbytes + self.stops.nbytes
        return self.first.nbytes + lists

    def chunk_range(self, start: int, stop: int) -> tuple[int, int]:
        """Chunks that hold all of rows ``start .. stop`` (at least one row)."""
        first = self.first
        if len(first) == 2:
            return 0, 1
        low = int(first.searchsorted(start, "right")) - 1
        high = int(first.searchsorted(stop, "left"))
        if (
            self.trailer is not None
            and self.stops is not None
            and first[high] == stop
            and self.trailer[high - 1]
        ):
            high = int(self.stops[self.stops.searchsorted(high)]) + 1
        return low, high

    def locate(self, rows: npt.NDArray[np.int64], begins: Ints, ends: Ints, *, join: bool = True) -> Located:
        """The chunks of scattered rows; ``begins`` and ``ends`` are those of the chunks in the file."""
        return locate(rows, self.first, self.trailer, self.stops, begins, ends, join=join)

    def shape(self, chunks: slice | Ints) -> tuple[Ints, Bools]:
        """Rows that begin in each of these chunks, and whether it begins inside a row."""
        assert self.trailer is not None
        inside = np.append(False, self.trailer[:-1])
        return np.diff(self.first)[chunks], inside[chunks]


def index_without_lists(counts: Ints) -> RowIndex:
    """Rows are items."""
    first = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=first[1:])
    return RowIndex(first)


def read_index(data: Bytes, chunks: int, rows: int) -> RowIndex:
    """The repetition index of ``chunks`` chunks and ``rows`` rows.

    Raises:
        CorruptFileError: it does not have that many chunks or rows, or contradicts itself.
    """
    if len(data) != 16 * chunks:
        raise CorruptFileError(f"repetition index of {len(data)} bytes for {chunks} chunks")
    table = data.view("<u8").reshape(chunks, 2)
    if rows > _MAX_ROWS or bool((table[:, 0] > rows).any()):
        raise CorruptFileError(f"repetition index of a page of {rows} rows has more in one chunk")
    ends, trailer = table[:, 0].astype(np.int64), table[:, 1] > 0
    found = int(np.cumsum(ends).max())  # the maximum: a sum that wraps around passes a larger one
    if found != rows or bool(trailer[-1]):
        raise CorruptFileError(f"repetition index of {found} rows for a page of {rows} rows")
    inside = np.append(False, trailer[:-1])
    begins = ends + trailer - inside
    first = np.zeros(chunks + 1, np.int64)
    np.cumsum(begins, out=first[1:])
    bad = (begins < 0) | ((begins == 0) & ~inside)
    if bool(bad.any()):
        at = int(np.flatnonzero(bad)[0])
        raise CorruptFileError(f"repetition index: no row begins or continues in chunk {at}")
    return RowIndex(first, trailer, np.flatnonzero((begins > 0) | ~trailer))


def pack_index(rep: Levels, top: int, num_levels: Ints) -> Bytes:
    """The repetition index of levels cut into ``num_levels`` per chunk; ``top`` begins a row."""
    heads = np.flatnonzero(rep == top)
    row_ends = np.append(heads[1:], len(rep))  # one past the last entry of each row
    stops = np.cumsum(num_levels)
    done = np.searchsorted(row_ends, stops, "right")  # rows finished at the end of each chunk
    finished = np.append(0, row_ends)[done]  # entries of these rows
    table = np.empty((len(stops), 2), "<u8")
    table[:, 0] = np.diff(done, prepend=0)
    table[:, 1] = stops - np.maximum(finished, stops - num_levels)
    return table.reshape(-1).view(np.uint8)


def cut_levels(counts: Ints, visible: Bools | None, entries: int) -> Ints:
    """Level entries per chunk: up to its last visible entry, the last chunk takes the rest."""
    if visible is None:
        return counts
    stops = np.cumsum(counts)
    cuts = np.flatnonzero(visible)[stops - 1] + 1
    cuts[-1] = entries
    return np.diff(cuts, prepend=0)


class ListTrim:
    """Finds rows in the decoded levels of some chunks.

    Args:
        rep, definition: levels of the chunks, back to back.
        layers: of the page.
        num_levels: entries per chunk.
    """

    __slots__ = ("_bounds", "_heads", "_is_head", "_visible")

    def __init__(
        self, rep: Levels, definition: Levels | None, layers: tuple[int, ...], num_levels: Ints
    ) -> None:
        self._is_head = rep == np.uint16(levels.max_rep(layers))
        self._visible = levels.visible_mask(definition, layers)
        self._bounds = np.zeros(len(num_levels) + 1, np.int64)
        np.cumsum(num_levels, out=self._bounds[1:])
        self._heads: Ints | None = None

    def check(self, counts: Ints, begins: Ints, inside: Bools, *, positions: bool = True) -> None:
        """Compare the levels with the chunk words and the repetition index.

        Args:
            counts: visible items per chunk.
            begins: rows that begin in each chunk.
            inside: whether the chunk begins inside a row.
            positions: False for a read of the whole page, which depends on totals only.

        Raises:
            CorruptFileError: they differ.
        """
        bounds = self._bounds
        if bool((bounds[1:] == bounds[:-1]).any()):
            raise CorruptFileError("a mini-block chunk of a page of lists has no level entries")
        total = int(bounds[-1])
        visible = total if self._visible is None else int(np.count_nonzero(self._visible))
        if visible != int(counts.sum()):
            raise CorruptFileError(f"levels of {visible} visible items in chunks of {int(counts.sum())}")
        rows, expected = int(np.count_nonzero(self._is_head)), int(begins.sum())
        if rows != expected or bool(self._is_head[0]) == bool(inside[0]):
            raise CorruptFileError(
                f"repetition levels of {rows} rows in chunks that have {expected} by the repetition index"
            )
        if not positions:
            return
        at = bounds[:-1]
        # positions follow from sums over the chunks before, so each chunk must hold what it claims
        same = np.array_equal(np.add.reduceat(self._is_head, at, dtype=np.int64), begins)
        if not same or not np.array_equal(self._is_head[at], ~inside):
            raise CorruptFileError("repetition levels and repetition index contradict each other")
        items = (
            np.diff(bounds) if self._visible is None else np.add.reduceat(self._visible, at, dtype=np.int64)
        )
        if not np.array_equal(items, counts):
            raise CorruptFileError("a mini-block chunk has more or fewer visible entries than values")

    def row_range(self, skip: int, rows: int) -> tuple[slice, slice]:
        """Entries and values of ``rows`` rows after the first ``skip`` that begin here."""
        heads = np.flatnonzero(self._is_head)
        start = int(heads[skip])
        stop = int(heads[skip + rows]) if skip + rows < len(heads) else int(self._bounds[-1])
        if self._visible is None:
            return slice(start, stop), slice(start, stop)
        before = int(np.count_nonzero(self._visible[:start]))
        count = int(np.count_nonzero(self._visible[start:stop]))
        return slice(start, stop), slice(before, before + count)

    def rows(self, positions: Ints, run_starts: Ints) -> tuple[Ints, Ints]:
        """Entries and values of scattered rows.

        Args:
            positions: rows, counted among those that begin here.
            run_starts: chunks that do not continue the chunk before them.
        """
        starts = np.flatnonzero(self._is_head)[positions]
        marks = self._is_head.copy()  # a row ends where the next begins, or where its run of chunks ends
        marks[self._bounds[run_starts]] = True
        edges = np.append(np.flatnonzero(marks), self._bounds[-1])
        sizes = edges[edges.searchsorted(starts, "right")] - starts
        shift = starts - (np.cumsum(sizes) - sizes)
        entries = np.repeat(shift, sizes) + np.arange(int(sizes.sum()))
        if self._visible is None:
            return entries, entries
        number = np.cumsum(self._visible, dtype=np.int64) - 1
        return entries, number[entries[self._visible[entries]]]
