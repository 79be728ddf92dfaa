"""Single rows of mini-block chunks of lists: their levels, and which values of the chunk are theirs.

The companion of `pick` for pages with repetition levels (`spec/file-container-and-structure.md`, section 4.2).  Of the
chunk of each row, and of those in which the row goes on, the levels are unpacked, which is quick, and compared with
what the page says about the chunk; the values are left to `pick`, which reads those of the wanted rows where they lie.
The kernel says yes or no; after a no the page is decoded chunk by chunk, which says what is wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.pick import cost_without

__all__ = ["MOST_LEVELS", "PICK_LISTS", "Found", "ListShape", "pick_lists"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
Levels: TypeAlias = npt.NDArray[np.uint16]

_ALL = 1 << 16  # above every level
MOST_LEVELS = 1 << 16  # of a chunk
_ROOM = 64  # entries a row, for a first try


class ListShape(NamedTuple):
    """How the levels of all chunks of a page are stored and what they mean.

    Attributes:
        header: bytes of the chunk header, padded.
        rep, rep_bits: codec of the repetition levels (`pick.FLAT`, `pick.OUT_OF_LINE`, `pick.RUNS`), bits of a packed one.
        definition, definition_bits: likewise; `pick.NONE` if there are none.
        top: repetition level of the first entry of a row.
        visible: largest definition level of an entry with a value; None: all have one.
    """

    header: int
    rep: int
    rep_bits: int
    definition: int
    definition_bits: int
    top: int
    visible: int | None


class Found(NamedTuple):
    """The levels of the rows, back to back, and their values.

    Attributes:
        rep, definition: one for each entry of the rows; None if not stored.
        owners: of each value the row, by its place among those asked for.
        chunks: of each value the chunk, by its place among those given.
        positions: of each value within its chunk.
    """

    rep: Levels
    definition: Levels | None
    owners: Ints
    chunks: Ints
    positions: Ints


def pick_lists(
    data: Bytes, starts: Ints, ends: Ints, counts: Ints, begins: Ints, inside: Bools, trailer: Bools,
    of_row: Ints, positions: Ints, shape: ListShape,
) -> Found | None:  # fmt: skip
    """The levels and value positions of some rows.

    Args:
        data: the chunks; chunk c is ``data[starts[c]:ends[c]]``.  One that continues a row follows the one before it.
        counts: values in each chunk.
        begins: rows that begin in each.
        inside: whether it begins inside a row.
        trailer: whether its last row goes on in the next chunk.
        of_row: the chunk in which each row begins, ascending.
        positions: of each row among those that begin in its chunk.
        shape: of the levels.

    Returns:
        What was found; None if there is no kernel, or a chunk is not as it should be.
    """
    kernel = PICK_LISTS.get(3 * cost_without(len(positions)))
    if kernel is None:
        return None
    visible = _ALL if shape.visible is None else shape.visible
    room = _ROOM * len(positions)
    flags = inside.view(np.uint8), trailer.view(np.uint8)
    levels = np.empty((2, MOST_LEVELS), np.uint16)
    while True:
        rep = empty(room, np.uint16)
        definition = empty(room if shape.definition else 0, np.uint16)
        owners, chunks, places = empty(room, np.int64), empty(room, np.int64), empty(room, np.int64)
        total = np.zeros(2, np.int64)
        good = kernel(
            data, starts, ends, counts, begins, *flags, of_row, positions, shape.header, shape.rep,
            shape.rep_bits, shape.definition, shape.definition_bits, shape.top, visible, rep, definition, owners,
            chunks, places, total, levels,
        )  # fmt: skip
        if not good:
            return None
        entries, values = total.tolist()
        if entries <= room:
            found = definition[:entries] if shape.definition else None
            return Found(rep[:entries], found, owners[:values], chunks[:values], places[:values])
        room = entries


def pick_lists_numba(
    data: Any, starts: Any, ends: Any, counts: Any, begins: Any, inside: Any, trailer: Any, of_row: Any,
    positions: Any, header: int, rep: int, rep_bits: int, definition: int, definition_bits: int, top: int,
    visible: int, out_rep: Any, out_definition: Any, owners: Any, chunks: Any, places: Any, total: Any,
    levels: Any,
) -> int:  # fmt: skip
    for chunk in range(starts.size):
        if starts[chunk] < 0 or ends[chunk] > data.size or ends[chunk] - starts[chunk] < header:
            return 0
    entries: Any = 0
    values = 0
    size: Any = 0
    row = 0
    goes_on = False  # the row goes on in this chunk
    for chunk in range(starts.size):
        start, end = starts[chunk], ends[chunk]
        if not goes_on and (row == positions.size or of_row[row] != chunk):
            return 0
        # -- the levels of the chunk: repetition, then definition
        size = np.int64(data[start]) | np.int64(data[start + 1]) << 8
        if size < 1:
            return 0
        at = start + header
        field = start + 2
        for part in range(2):
            codec, packed = rep, rep_bits
            if part:
                codec, packed = definition, definition_bits
            if codec == 0:
                continue
            room = np.int64(data[field]) | np.int64(data[field + 1]) << 8
            field += 2
            if at + room > end:
                return 0
            out = levels[part]
            raw_from = size  # levels from here on are not packed
            raw_at = at
            if codec == 1:  # flat
                if room < 2 * size:
                    return 0
                raw_from = 0
            elif codec == 3:  # packed groups of 1024 and a rest, which may not be packed
                full = size // 1024
                tail = size % 1024
                rest = room - full * 128 * packed
                if rest == 2 * tail:
                    raw_from = full * 1024
                    raw_at = at + full * 128 * packed
                elif tail == 0 or rest != 128 * packed:
                    return 0
                else:
                    full += 1
                mask = np.uint16((1 << packed) - 1)
                for group in range(full):
                    base = at + group * 128 * packed
                    for step in range(16):
                        bit = step * packed
                        shift = np.uint16(bit % 16)
                        word = base + bit // 16 * 128
                        to = group * 1024 + step % 8 * 128 + step // 8 * 64
                        here = min(64, size - to)
                        spill = bit % 16 + packed > 16
                        for lane in range(here):
                            value = (
                                np.uint16(data[word + 2 * lane])
                                | np.uint16(data[word + 2 * lane + 1]) << np.uint16(8)
                            ) >> shift
                            if spill:
                                more = np.uint16(data[word + 128 + 2 * lane]) | np.uint16(
                                    data[word + 129 + 2 * lane]
                                ) << np.uint16(8)
                                value |= more << np.uint16(16 - shift)
                            out[to + lane] = value & mask
            else:  # runs: the size of the values in front, values, lengths
                if room < 8:
                    return 0
                bytes_ = np.int64(0)
                for k in range(7):
                    bytes_ |= np.int64(data[at + k]) << (8 * k)
                if data[at + 7] or bytes_ > room - 8 or bytes_ != 2 * (room - 8 - bytes_):
                    return 0
                filled: Any = 0
                for k in range(bytes_ // 2):
                    value = np.uint16(data[at + 8 + 2 * k]) | np.uint16(data[at + 9 + 2 * k]) << np.uint16(8)
                    run = np.int64(data[at + 8 + bytes_ + k])
                    if run == 0 or filled + run > size:
                        return 0
                    for i in range(filled, filled + run):
                        out[i] = value
                    filled += run
                if filled != size:
                    return 0
            for i in range(raw_from, size):
                place = raw_at + 2 * (i - raw_from)
                out[i] = np.uint16(data[place]) | np.uint16(data[place + 1]) << np.uint16(8)
            at += (room + 7) // 8 * 8
        # -- what the page says about the chunk
        heads = 0
        shown = size
        for i in range(size):
            heads += levels[0, i] == top
        if definition:
            shown = 0
            for i in range(size):
                shown += levels[1, i] <= visible
        if heads != begins[chunk] or shown != counts[chunk] or (levels[0, 0] == top) == (inside[chunk] != 0):
            return 0
        # -- the rows
        number = -1
        place_of: Any = 0
        wanted = goes_on  # the entry belongs to a row that is wanted
        for i in range(size):
            if levels[0, i] == top:
                number += 1
                if wanted:
                    row += 1
                wanted = row < positions.size and of_row[row] == chunk and positions[row] == number
                if row == positions.size or of_row[row] != chunk:
                    break
            has_value = definition == 0 or levels[1, i] <= visible
            if wanted:
                if entries < out_rep.size:
                    out_rep[entries] = levels[0, i]
                    if definition:
                        out_definition[entries] = levels[1, i]
                    if has_value:
                        owners[values] = row
                        chunks[values] = chunk
                        places[values] = place_of
                        values += 1
                entries += 1
            place_of += has_value
        goes_on = wanted and trailer[chunk] != 0
        if wanted and not goes_on:
            row += 1
    if row != positions.size or goes_on:
        return 0
    total[0], total[1] = entries, values
    return 1


PICK_LISTS = Kernel(
    pick_lists_numba,
    "u1(r.u1, r.i8, r.i8, r.i8, r.i8, r.u1, r.u1, r.i8, r.i8, =i8, =i8, =i8, =i8, =i8, =i8, =i8, u2, u2, i8, i8, i8, i8, u2[2])",
    small=0,
    nogil=False,
)
