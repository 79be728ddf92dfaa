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

__all__ = ["expand"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[Any]

ESCAPE = 255
_CORRUPT = 1  # of the kernel; 2 means that there was too little room


def expand(codes: Bytes, offsets: Ints, symbols: Bytes, lengths: Bytes) -> tuple[Bytes, Ints] | None:
    """Expand all values.

    Args:
        codes: code bytes of all values, back to back.
        offsets: int64, where each value begins in ``codes``, and the end.
        symbols: ``8 * n`` bytes, symbol c at ``8 * c``.
        lengths: ``n`` symbol lengths, each 1 to 8.

    Returns:
        The bytes and their int64 offsets; None if a code has no symbol or a value ends in an
        escape.
    """
    offsets = np.ascontiguousarray(offsets, np.int64)
    sizes = np.zeros(256, np.int64)  # 0 marks a code without a symbol
    sizes[: len(lengths)] = lengths
    table = np.zeros(2048, np.uint8)
    table[: len(symbols)] = symbols
    # NumPy's way takes some 60 ns a code byte, many times what its bytes suggest: the kernel is worth loading early.
    kernel = _EXPAND.get(64 * len(codes))
    if kernel is None:
        return expand_numpy(codes, offsets, table, sizes)
    codes = np.ascontiguousarray(codes)
    ends = np.zeros(len(offsets), np.int64)
    # Most text becomes less than four times as long; memory that is not written to costs nothing.
    for factor in (4, 8):
        out = np.empty(factor * len(codes) + 8, np.uint8)  # symbols are written 8 bytes wide
        status = int(kernel(codes, offsets, table.view("<u8"), sizes.astype(np.uint64), out, ends))
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


def expand_numba(codes: Bytes, offsets: Ints, table: Ints, sizes: Ints, out: Bytes, ends: Ints) -> int:
    at = np.uint64(0)
    one = np.uint64(1)
    room = np.uint64(out.size)
    for v in range(offsets.size - 1):
        i = np.uint64(offsets[v])
        stop = np.uint64(offsets[v + 1])
        while i < stop:
            code = codes[i]
            if at + np.uint64(8) > room:
                return 2
            if code == ESCAPE:
                i += one
                if i >= stop:
                    return 1
                out[at] = codes[i]
                at += one
            else:
                size = sizes[code]
                if size == np.uint64(0):
                    return 1
                word = table[code]
                # spelled out: LLVM makes one store of 8 bytes of it
                out[at] = np.uint8(word)
                out[at + np.uint64(1)] = np.uint8(word >> np.uint64(8))
                out[at + np.uint64(2)] = np.uint8(word >> np.uint64(16))
                out[at + np.uint64(3)] = np.uint8(word >> np.uint64(24))
                out[at + np.uint64(4)] = np.uint8(word >> np.uint64(32))
                out[at + np.uint64(5)] = np.uint8(word >> np.uint64(40))
                out[at + np.uint64(6)] = np.uint8(word >> np.uint64(48))
                out[at + np.uint64(7)] = np.uint8(word >> np.uint64(56))
                at += size
            i += one
        ends[v + 1] = np.int64(at)
    return 0


_EXPAND = Kernel(expand_numba, "i8(r.u1, r.i8, r.u8, r.u8, u1, i8)", small=0)
