"""Offsets of variable-width mini-block chunks (`spec/compression.md`, section 4.2, layout M).

A chunk starts with n + 1 offsets relative to its own start, the bytes follow.  `join_offsets`
turns the offsets of many chunks into one run that starts at 0, and tells whether any chunk's
offsets decrease; `plan_chunks` cuts values into chunks as the reference's writer does.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel

__all__ = ["join_offsets", "plan_chunks", "spread_offsets"]

Ints: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[Any]


def join_offsets(words: Words, starts: Ints, counts: Ints, shifts: Ints, out: Words) -> bool:
    """Write ``out[1:]``: offset i + 1 of each chunk plus the chunk's shift; ``out[0]`` = 0.

    Args:
        words: offsets as unsigned words (4 or 8 bytes).
        starts: index of each chunk's first offset in ``words``.
        counts: values per chunk.
        shifts: what to add to each chunk's offsets.
        out: ``sum(counts) + 1`` int32 or int64 numbers.

    Returns:
        Whether the result never decreases.
    """
    out[0] = 0
    kernel = {(4, 4): _JOIN_32, (8, 8): _JOIN_64}.get((words.itemsize, out.itemsize))
    compiled = kernel.get(out.nbytes) if kernel is not None else None
    return bool((compiled or join_numpy)(words, starts, counts, shifts, out))


def join_numpy(words: Words, starts: Ints, counts: Ints, shifts: Ints, out: Words) -> bool:
    before = np.cumsum(counts) - counts
    index = np.repeat(starts + 1 - before, counts) + np.arange(len(out) - 1)
    values = words[index].astype(np.int64) + np.repeat(shifts, counts)
    # compared, not subtracted, and before narrowing: a wrapped number must not look fine
    increasing = bool(len(values) == 0 or (values[0] >= 0 and (values[1:] >= values[:-1]).all()))
    out[1:] = values
    return increasing


def join_numba(words: Words, starts: Ints, counts: Ints, shifts: Ints, out: Words) -> bool:
    k = 1
    bad = 0
    for c in range(starts.size):
        shift = shifts[c]
        n = counts[c]
        piece = words[starts[c] : starts[c] + n + 1]  # slices: see copy_numba
        place = out[k : k + n]
        for i in range(n):
            value = np.int64(piece[i + 1]) + shift
            bad |= value < np.int64(piece[i]) + shift
            place[i] = value
        k += n
    return bad == 0


def spread_offsets(
    offsets: Ints, begins: Ints, counts: Ints, shifts: Ints, words: Words, starts: Ints
) -> None:
    """The reverse: write ``counts[c] + 1`` offsets of each chunk, shifted, to ``words[starts[c]:]``."""
    kernel = (_SPREAD_32 if words.itemsize == 4 else _SPREAD_64).get(words.nbytes)
    (kernel or spread_numpy)(np.ascontiguousarray(offsets, np.int64), begins, counts, shifts, words, starts)


def spread_numpy(offsets: Ints, begins: Ints, counts: Ints, shifts: Ints, words: Words, starts: Ints) -> None:
    per = counts + 1
    nth = np.arange(int(per.sum())) - np.repeat(np.cumsum(per) - per, per)
    words[np.repeat(starts, per) + nth] = offsets[np.repeat(begins, per) + nth] + np.repeat(shifts, per)


def spread_numba(offsets: Ints, begins: Ints, counts: Ints, shifts: Ints, words: Words, starts: Ints) -> None:
    for c in range(counts.size):
        size = counts[c] + 1
        place = words[starts[c] : starts[c] + size]
        piece = offsets[begins[c] : begins[c] + size]
        for i in range(size):
            place[i] = piece[i] + shifts[c]


def plan_chunks(offsets: Words, width: int, target: int, max_values: int) -> Ints:
    """Values per chunk for values with these offsets (section 4.2, "Writer's chunking")."""
    if len(offsets) < 2:
        return np.zeros(1, np.int64)
    counts = np.empty(len(offsets) // 2 + 1, np.int64)
    kernel = _PLAN.get(8 * len(offsets))
    used = (kernel or plan_numpy)(np.ascontiguousarray(offsets, np.int64), width, target, max_values, counts)
    return counts[: int(used)]


def plan_numpy(offsets: Ints, width: int, target: int, max_values: int, counts: Ints) -> int:
    total = offsets.size - 1
    at = 0
    chunks = 0
    while at < total:
        left = total - at
        count = min(2, left)
        while count < left:
            doubled = 2 * count
            if doubled > left:  # everything that is left, or nothing more
                if offsets[total] - offsets[at] + (left + 1) * width <= target:
                    count = left
                break
            size = offsets[at + doubled] - offsets[at] + (doubled + 1) * width
            if size > target or 2 * doubled > max_values:
                break
            count = doubled
        counts[chunks] = count
        chunks += 1
        at += count
    return chunks


_JOIN_32 = Kernel(join_numba, "u1(r.u4, r.i8, r.i8, r.i8, i4)")
_JOIN_64 = Kernel(join_numba, "u1(r.u8, r.i8, r.i8, r.i8, i8)")
_SPREAD_32 = Kernel(spread_numba, "void(r.i8, r.i8, r.i8, r.i8, u4, r.i8)")
_SPREAD_64 = Kernel(spread_numba, "void(r.i8, r.i8, r.i8, r.i8, u8, r.i8)")
_PLAN = Kernel(plan_numpy, "i8(r.i8, =i8, =i8, =i8, i8)")
