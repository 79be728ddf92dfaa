"""Which chunks hold some rows, and where the rows are in them: one pass for what takes a dozen array operations.

`spec/file-container-and-structure.md`, section 4.2; how rows lie in chunks is told in `encoding/miniblock_rows.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel

__all__ = ["LOCATE", "Located", "locate"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

_WITHOUT = 20 << 10  # what a call costs without the kernel, in bytes that NumPy would process meanwhile
_NO_FLAGS: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
_NO_INTS: Ints = np.empty(0, np.int64)


class Located(NamedTuple):
    """Rows in their chunks.

    Attributes:
        chunks: numbers of the chunks that hold the rows, ascending; chunks in which a row goes on included.
        starts, ends: where each of them lies among the bytes of all, joined.
        of_row: the place in ``chunks`` of the chunk in which each row begins.
        positions: of each row among those that begin in its chunk.
        ranges: what to read of the file.
    """

    chunks: Ints
    starts: Ints
    ends: Ints
    of_row: Ints
    positions: Ints
    ranges: list[tuple[int, int]]


def locate(
    rows: Ints,
    first: Ints,
    trailer: Bools | None,
    stops: Ints | None,
    begins: Ints,
    ends: Ints,
    *,
    join: bool,
) -> Located:
    """The chunks of some rows.

    Args:
        rows: strictly increasing row numbers, at least one.
        first: number of the first row that begins in each chunk, and the number of rows.
        trailer: whether the last row of a chunk goes on in the next; None without lists.
        stops: chunks that end a row which goes on into them, ascending; None without lists.
        begins, ends: where the chunks lie in the file.
        join: read chunks that are neighbours in one range.
    """
    kernel = LOCATE.get(_WITHOUT)
    if kernel is None:
        return locate_numpy(rows, first, trailer, stops, begins, ends, join=join)
    rows = np.ascontiguousarray(rows)
    count = len(rows)
    flags = _NO_FLAGS if trailer is None else trailer.view(np.uint8)
    marks = _NO_INTS if stops is None else stops
    room = min(len(begins), 2 * count + 64)
    while True:
        table = np.empty((5, room), np.int64)
        places = np.empty((2, count), np.int64)
        found = int(kernel(rows, first, flags, marks, begins, ends, join, table, places))
        if found >= 0:
            break
        room = len(begins)
    used, runs = found & 0xFFFFFFFF, found >> 32
    ranges = list(zip(table[3, :runs].tolist(), table[4, :runs].tolist(), strict=True))
    return Located(table[0, :used], table[1, :used], table[2, :used], places[0], places[1], ranges)


def locate_numpy(
    rows: Ints,
    first: Ints,
    trailer: Bools | None,
    stops: Ints | None,
    begins: Ints,
    ends: Ints,
    *,
    join: bool,
) -> Located:
    of_row = first.searchsorted(rows, "right") - 1
    last = np.flatnonzero(np.append(of_row[1:] != of_row[:-1], True))  # the last row of each chunk
    low = of_row[last]
    high = low + 1
    if trailer is not None and stops is not None:
        onward = trailer[low] & (rows[last] + 1 == first[low + 1])
        high = np.where(onward, stops[stops.searchsorted(high) * onward] + 1, high)
    # a row may go on into a chunk in which the next one begins
    low = np.maximum(low, np.append(0, high[:-1]))
    lengths = high - low
    chunks = np.repeat(low - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    after = np.cumsum(ends[chunks] - begins[chunks])
    starts = after - (ends[chunks] - begins[chunks])
    heads = np.ones(len(chunks), np.bool_)
    if join:
        heads[1:] = begins[chunks[1:]] != ends[chunks[:-1]]
    tails = np.append(heads[1:], True)
    ranges = list(zip(begins[chunks[heads]].tolist(), ends[chunks[tails]].tolist(), strict=True))
    return Located(chunks, starts, after, chunks.searchsorted(of_row), rows - first[of_row], ranges)


def locate_numba(
    rows: Any,
    first: Any,
    trailer: Any,
    stops: Any,
    begins: Any,
    ends: Any,
    join: int,
    table: Any,
    places: Any,
) -> int:
    """How many chunks, and 2^32 times how many ranges; -1 if there is no room for the chunks."""
    used = 0
    runs = 0
    at = 0
    newest = -1  # the last chunk of the table
    room = table.shape[1]
    chunk = -1
    for i in range(rows.size):
        row = rows[i]
        if chunk < 0 or row >= first[chunk + 1]:
            low, high = chunk + 1, first.size - 1
            while low < high:  # the last chunk that begins with this row or one before
                middle = (low + high) // 2
                if first[middle] <= row:
                    low = middle + 1
                else:
                    high = middle
            chunk = low - 1
        until = chunk
        if trailer.size and trailer[chunk] and row + 1 == first[chunk + 1]:
            low, high = 0, stops.size
            while low < high:  # the first stop after the chunk
                middle = (low + high) // 2
                if stops[middle] <= chunk:
                    low = middle + 1
                else:
                    high = middle
            until = stops[low]
        for one in range(max(chunk, newest + 1), until + 1):
            if used == room:
                return -1
            size = ends[one] - begins[one]
            table[0, used] = one
            table[1, used] = at
            at += size
            table[2, used] = at
            used += 1
            if join and runs > 0 and table[4, runs - 1] == begins[one]:
                table[4, runs - 1] = ends[one]
            else:
                table[3, runs] = begins[one]
                table[4, runs] = ends[one]
                runs += 1
            newest = one
        places[0, i] = used - 1 - (newest - chunk)
        places[1, i] = row - first[chunk]
    return used + (runs << 32)


LOCATE = Kernel(
    locate_numba,
    "i8(r.i8, r.i8, r.u1, r.i8, r.i8, r.i8, =i8, i8[2], i8[2])",
    small=0,
    nogil=False,
)
