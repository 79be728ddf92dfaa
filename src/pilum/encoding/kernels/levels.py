"""Levels of a page of lists: unpacked, compared with its chunks, and turned into lists, in one pass each.

`spec/file-container-and-structure.md`, sections 4.2 and 5.3.  Like the kernels of `chunks` these say yes or no; after
a no the NumPy code of the caller, the definition of what happens here, finds out what is wrong.

    blocks     packed groups of 1024 levels and a raw or packed rest    ->  levels back to back
    rows       levels of some chunks, rows and items of each            ->  where the wanted rows and their items are
    lists      levels of lists of items                                 ->  offsets, validity of lists and of items
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel, bitpacking
from pilum.encoding.kernels.memory import empty

__all__ = ["find_rows", "lists", "unpack_blocks"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]
Levels: TypeAlias = npt.NDArray[np.uint16]

_NO_LEVELS: Levels = np.empty(0, np.uint16)
_ALL = 1 << 16  # above every level


# --------------------------------------------------------------------------- unpacking


def unpack_blocks(data: Bytes, starts: Ints, sizes: Ints, counts: Ints, width: int) -> Levels | None:
    """The levels of blocks of out-of-line bit-packing (`spec/compression.md`, section 4.6); None if not done here.

    Args:
        data: block c is ``data[starts[c] : starts[c] + sizes[c]]``.
        counts: levels of each block.
        width: bits of a packed level.
    """
    total = int(counts.sum())
    find, move = _GROUPS.get(2 * total), _MOVE.get(2 * total)
    if find is None or move is None or not len(starts):
        return None
    residue = int(starts[0]) % 8
    at = np.empty(total // 1024 + len(starts), np.int64)
    groups = int(find(data, starts, sizes, counts, width, residue, at))
    if groups < 0:
        return None
    usable = (len(data) - residue) // 8 * 8
    words = data[residue : residue + usable].view("<u8")
    widths = np.full(groups, width, np.int64)
    values = bitpacking.unpack_words(words, at[:groups], widths, 16).view(np.uint16)
    if groups * 1024 == total:
        return values
    out = empty(total, np.uint16)
    move(values, data, starts, sizes, counts, width, out)
    return out


def groups_numba(
    data: Bytes, starts: Ints, sizes: Ints, counts: Ints, width: int, residue: int, at: Ints
) -> int:
    """Where the packed groups begin, in words of 8 bytes; how many there are, -1 if a block has another size."""
    found = 0
    packed = 128 * width
    for c in range(starts.size):
        start = starts[c]
        count = counts[c]
        if start < 0 or count < 0 or start + sizes[c] > data.size or (start - residue) % 8:
            return -1
        full = count // 1024
        tail = count % 1024
        rest = sizes[c] - full * packed
        if rest != 2 * tail:
            if tail == 0 or rest != packed:
                return -1
            full += 1
        for k in range(full):
            at[found] = (start - residue + k * packed) // 8
            found += 1
    return found


def move_numba(
    values: Levels, data: Bytes, starts: Ints, sizes: Ints, counts: Ints, width: int, out: Levels
) -> None:
    packed = 128 * width
    group = 0
    to = 0
    for c in range(starts.size):
        count = counts[c]
        full = count // 1024
        tail = count % 1024
        here = full * 1024
        raw = sizes[c] - full * packed == 2 * tail
        if not raw:
            here = count
        piece = values[1024 * group : 1024 * group + here]
        place = out[to : to + here]
        for i in range(here):
            place[i] = piece[i]
        if raw:
            begin = starts[c] + full * packed
            rest = data[begin : begin + 2 * tail]
            place = out[to + here : to + count]
            for i in range(tail):
                place[i] = np.uint16(rest[2 * i]) | np.uint16(rest[2 * i + 1]) << np.uint16(8)
        group += full if raw else full + 1
        to += count


# --------------------------------------------------------------------------- rows


def find_rows(
    rep: Levels, definition: Levels | None, top: int, visible: int | None, num_levels: Ints, counts: Ints,
    begins: Ints, inside: Bools, skip: int, rows: int,
) -> tuple[slice, slice] | None:  # fmt: skip
    """Entries and values of ``rows`` rows after the first ``skip`` that begin in some chunks; None if not done here.

    Args:
        rep, definition: levels of the chunks.
        top: repetition level of the first entry of a row.
        visible: largest definition level of an entry with a value; None: all have one.
        num_levels, counts, begins: entries, values and beginnings of rows that each chunk should have.
        inside: whether a chunk should begin inside a row.
    """
    kernel = _ROWS.get(2 * len(rep))
    if kernel is None:
        return None
    if definition is None or visible is None:
        definition, visible = _NO_LEVELS, _ALL
    if len(definition) not in (0, len(rep)):
        return None
    found = np.zeros(4, np.int64)
    good = kernel(
        rep, definition, top, visible, num_levels, counts, begins, inside.view(np.uint8), skip, rows, found
    )
    if not good:
        return None
    start, stop, first, last = found.tolist()
    return slice(start, stop), slice(first, last)


def rows_numba(
    rep: Levels, definition: Levels, top: int, visible: int, num_levels: Ints, counts: Ints, begins: Ints,
    inside: Bytes, skip: int, rows: int, found: Ints,
) -> int:  # fmt: skip
    at = 0
    before = 0
    values = 0
    first, last = skip, skip + rows
    head = np.uint16(top)
    limit = np.uint16(min(visible, 65535))
    found[1] = rep.size
    has_stop = False
    for c in range(num_levels.size):
        size = num_levels[c]
        if size < 1 or at + size > rep.size:
            return 0
        piece = rep[at : at + size]
        heads = 0
        for i in range(size):
            heads += piece[i] == head
        shown = size
        if definition.size:
            part = definition[at : at + size]
            shown = 0
            for i in range(size):
                shown += part[i] <= limit
        if heads != begins[c] or shown != counts[c] or (piece[0] == head) == (inside[c] != 0):
            return 0
        if before <= first < before + heads or before <= last < before + heads:
            number = before
            value = values
            for i in range(size):
                if piece[i] == head:
                    if number == first:
                        found[0], found[2] = at + i, value
                    if number == last:
                        found[1], found[3] = at + i, value
                        has_stop = True
                    number += 1
                if definition.size == 0 or definition[at + i] <= limit:
                    value += 1
        before += heads
        values += shown
        at += size
    if at != rep.size or first >= before or last > before:
        return 0
    if not has_stop:
        found[3] = values
    return 1


# --------------------------------------------------------------------------- lists


def lists(
    rep: Levels, definition: Levels | None, limits: tuple[int, int], empty_list: int, rows: int, items: int,
    large: bool,
) -> tuple[npt.NDArray[Any], Bools | None, Bools | None] | None:  # fmt: skip
    """Offsets of lists of items, and the validity of the lists and of the items; None if it is not done here.

    Args:
        rep, definition: the levels.
        limits: largest definition level, and that of an entry with an item.
        empty_list: definition level of an empty list, 0 if there are none.
        rows, items: lists and items that the levels must place.
        large: whether the offsets are to be 64 bits wide.
    """
    kernel = (_LISTS_64 if large else _LISTS_32).get(2 * len(rep))
    if kernel is None or not len(rep) > 0 or max(rows, items) > len(rep) or (not large and items >= 1 << 31):
        return None
    offsets = empty(rows + 1, np.int64 if large else np.int32)
    if definition is None:
        definition = _NO_LEVELS
        valid = valid_items = np.empty(0, np.bool_)
    elif len(definition) != len(rep):
        return None
    else:
        valid, valid_items = empty(rows + 1, np.bool_), empty(items + 1, np.bool_)
    flags = valid.view(np.uint8), valid_items.view(np.uint8)
    if not kernel(rep, definition, limits[0], limits[1], empty_list, rows, items, offsets, *flags):
        return None
    if not len(definition):
        return offsets, None, None
    return offsets, valid[:rows], valid_items[:items]


def lists_numba(
    rep: Levels, definition: Levels, top: int, limit: int, empty_list: int, rows: int, items: int, offsets: Any,
    valid: Bytes, valid_items: Bytes,
) -> int:  # fmt: skip
    if rep[0] != 1:
        return 0
    row = np.uint64(0)
    item = np.uint64(0)
    most_rows, most_items = np.uint64(rows), np.uint64(items)
    bad = np.uint64(0)
    if definition.size:
        was_inside = np.uint64(1)
        for i in range(np.uint64(rep.size)):
            # without branches that nothing predicts: what is written too early is overwritten
            begins = np.uint64(rep[i])
            level = np.int64(definition[i])
            is_inside = np.uint64(level <= limit)
            if row > most_rows or item > most_items:
                return 0
            offsets[row] = item
            valid[row] = is_inside | np.uint64(level == empty_list)
            valid_items[item] = np.uint64(level == 0)
            continues = np.uint64(begins == np.uint64(0))
            bad |= np.uint64(begins > np.uint64(1)) | np.uint64(level > top)
            bad |= continues & ~(is_inside & was_inside)
            was_inside = is_inside
            row += begins
            item += is_inside
    else:
        for i in range(np.uint64(rep.size)):
            begins = np.uint64(rep[i])
            if row > most_rows:
                return 0
            offsets[row] = item
            bad |= np.uint64(begins > np.uint64(1))
            row += begins
            item += np.uint64(1)
    if bad or row != most_rows or item != most_items:
        return 0
    offsets[row] = item
    return 1


_GROUPS = Kernel(groups_numba, "i8(r.u1, r.i8, r.i8, r.i8, =i8, =i8, i8)", small=0, nogil=False)
_MOVE = Kernel(move_numba, "void(r.u2, r.u1, r.i8, r.i8, r.i8, =i8, u2)", small=0)
_ROWS = Kernel(rows_numba, "u1(r.u2, r.u2, =i8, =i8, r.i8, r.i8, r.i8, r.u1, =i8, =i8, i8)", small=0)
_LISTS_32 = Kernel(lists_numba, "u1(r.u2, r.u2, =i8, =i8, =i8, =i8, =i8, i4, u1, u1)", small=0)
_LISTS_64 = Kernel(lists_numba, "u1(r.u2, r.u2, =i8, =i8, =i8, =i8, =i8, i8, u1, u1)", small=0)
