"""Expanding FSST code strings (`spec/compression.md`, sections 4.7 and 11).

A code byte c < n stands for symbol c of 1 to 8 bytes; 255 says that the next byte is literal.
Values are independent: no value ends in an escape, so all code bytes of a page can be
expanded as one run and the offsets follow from where each value's codes end.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.words import put_word

__all__ = ["expand"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[Any]

ESCAPE = 255
_BLOCK = 2048  # codes
_SAMPLED = 16384  # codes
_MAX_I32 = 2**31 - 1
_CORRUPT = 1  # of the kernel; 2 means that there was too little room


def expand(codes: Bytes, offsets: Ints, symbols: Bytes, lengths: Bytes) -> tuple[Bytes, Ints] | None:
    """Expand all values.

    Args:
        codes: code bytes of all values, back to back.
        offsets: int32 or int64, ascending: where each value begins in ``codes``, and their end.
        symbols: ``8 * n`` bytes, symbol c at ``8 * c``.
        lengths: ``n`` symbol lengths, each 1 to 8.

    Returns:
        The bytes and their offsets, int32 or int64; None if a code has no symbol or a value ends in an escape.
    """
    narrow = offsets.dtype == np.int32 and 8 * len(codes) <= _MAX_I32
    offsets = np.ascontiguousarray(offsets, np.int32 if narrow else np.int64)
    sizes = np.zeros(256, np.int64)  # 0 marks a code without a symbol
    sizes[: len(lengths)] = lengths
    table = np.zeros(2048, np.uint8)
    table[: len(symbols)] = symbols
    # NumPy's way takes some 60 ns a code byte, many times what its bytes suggest: the kernel is worth loading early.
    kernel = _EXPAND[offsets.itemsize].get(64 * len(codes))
    if kernel is None:
        return expand_numpy(codes, offsets, table, sizes)
    codes = np.ascontiguousarray(codes)
    ends = empty(len(offsets), offsets.dtype)
    places = np.empty(min(_BLOCK, len(codes)) + 2, np.uint64)
    rooms = [8 * len(codes) + 8]  # symbols are written 8 bytes wide
    if len(codes) > _SAMPLED:
        # what some codes yield tells how much room all of them need; a block must have room for the longest symbols
        likely = sizes[codes[:: 1 + len(codes) // _SAMPLED]].mean()
        rooms.insert(0, min(rooms[0], int(1.06 * likely * len(codes)) + 9 * _BLOCK))
    for room in rooms:
        out = empty(room, np.uint8)
        status = int(kernel(codes, offsets, table.view("<u8"), sizes.astype(np.uint64), out, ends, places))
        if status == 0:
            return out[: int(ends[-1])], ends
        if status == _CORRUPT:
            return None
    raise AssertionError("a code yields more than 8 bytes")


def expand_numpy(codes: Bytes, offsets: Ints, table: Bytes, sizes: Ints) -> tuple[Bytes, Ints] | None:
    count = len(codes)
    marks = codes == ESCAPE
    position = np.arange(count)
    # in a run of 255s every second one is an escape, the others are literals
    begins = marks & ~np.concatenate([[False], marks[:-1]])
    run = np.maximum.accumulate(np.where(begins, position, 0)) if count else position
    escapes = marks & ((position - run) % 2 == 0)
    literals = np.concatenate([[False], escapes[:-1]]) if count else escapes
    filled = offsets[1:][offsets[1:] > offsets[:-1]]
    if bool(escapes[filled - 1].any()):
        return None
    grows = np.where(literals, 1, np.where(escapes, 0, sizes[codes]))
    if bool((grows[~escapes] == 0).any()):
        return None
    ends = np.concatenate([[0], np.cumsum(grows)])
    out = np.empty(int(ends[-1]), np.uint8)
    out[ends[:-1][literals]] = codes[literals]
    plain = np.flatnonzero(~literals & ~escapes)
    at, code, size = ends[plain], codes[plain].astype(np.int64), grows[plain]
    for j in range(8):
        more = size > j
        if j and not more.all():
            at, code, size = at[more], code[more], size[more]
        out[at + j] = table[8 * code + j]
    return out, ends[offsets]


def expand_numba(
    codes: Bytes, offsets: Ints, table: Ints, sizes: Ints, out: Bytes, ends: Ints, places: Ints
) -> int:
    """Blocks of codes, whatever values they belong to: where a value ends is not predictable, a block is.

    ``places`` has two more elements than a block has codes; where each code's bytes go is noted there, and the ends
    of values are looked up afterwards.  That takes less than half the time of one loop for each value.
    """
    one = np.uint64(1)
    inside = np.uint64(0xFFFFFFFFFFFFFFFF)  # between an escape and its literal
    total, values, room = np.uint64(codes.size), np.uint64(offsets.size), np.uint64(out.size)
    block = np.uint64(places.size - 2)
    at = i = np.uint64(0)
    v = np.uint64(0)
    while v < values and offsets[v] == 0:
        ends[v] = 0
        v += one
    while i < total:
        begin = i
        stop = min(begin + block, total)
        if at + np.uint64(8) * (stop - begin) + np.uint64(8) > room:
            return 2
        while i < stop:
            code = codes[i]
            places[i - begin] = at
            if code == ESCAPE:
                i += one
                if i >= total:
                    return 1
                places[i - begin] = inside
                out[at] = codes[i]
                at += one
            else:
                size = sizes[code]
                if size == np.uint64(0):
                    return 1
                put_word(out, at, table[code])
                at += size
            i += one
        places[i - begin] = at
        while v < values and np.uint64(offsets[v]) <= i:
            end = places[np.uint64(offsets[v]) - begin]
            if end == inside:
                return 1
            ends[v] = end
            v += one
    return 0


_EXPAND = {
    width: Kernel(
        expand_numba, f"i8(r.u1, r.i{width}, r.u8, r.u8, u1, i{width}, u8)", small=0, helpers=(put_word,)
    )
    for width in (4, 8)
}
