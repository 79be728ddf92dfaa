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
    measure, write = _MEASURE.get(len(codes)), _WRITE.get(len(codes))
    if measure is None or write is None:
        return expand_numpy(codes, offsets, table, sizes)
    ends = np.empty(len(offsets), np.int64)
    if int(measure(codes, offsets, sizes, ends)) != 0:
        return None
    out = np.empty(int(ends[-1]) + 8, np.uint8)  # symbols are copied 8 bytes wide
    write(codes, offsets, table, sizes, out)
    return out[:-8], ends


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


def measure_numba(codes: Bytes, offsets: Ints, sizes: Ints, ends: Ints) -> int:
    total = 0
    ends[0] = 0
    for v in range(offsets.size - 1):
        value = codes[offsets[v] : offsets[v + 1]]
        i = 0
        while i < value.size:
            code = value[i]
            if code == ESCAPE:
                i += 1
                if i >= value.size:
                    return 1
                total += 1
            else:
                size = sizes[code]
                if size == 0:
                    return 1
                total += size
            i += 1
        ends[v + 1] = total
    return 0


def write_numba(codes: Bytes, offsets: Ints, table: Bytes, sizes: Ints, out: Bytes) -> None:
    # the page as one run: `measure` has checked that escapes do not cross values
    at = 0
    i = offsets[0]
    stop = offsets[offsets.size - 1]
    while i < stop:
        code = codes[i]
        if code == ESCAPE:
            i += 1
            out[at] = codes[i]
            at += 1
        else:
            place = out[at : at + 8]
            symbol = table[8 * np.int64(code) : 8 * np.int64(code) + 8]
            for j in range(8):
                place[j] = symbol[j]
            at += sizes[code]
        i += 1


_MEASURE = Kernel(measure_numba, "i8(r.u1, r.i8, r.i8, i8)")
_WRITE = Kernel(write_numba, "void(r.u1, r.i8, r.u1, r.i8, u1)")
