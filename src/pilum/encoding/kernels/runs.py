"""Expanding run-length encoded chunks (`spec/compression.md`, section 4.9) in one pass, with all checks.

    chunk    values v0 v1 ... | lengths of one byte n0 n1 ...      v0 n0 times, then v1 n1 times, ...

Like the kernels of `chunks`, it says yes or no; after a no the NumPy code of the codec says why.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty

__all__ = ["expand"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[Any]


def expand(
    data: tuple[Bytes, Bytes], starts: tuple[Ints, Ints], sizes: tuple[Ints, Ints], counts: Ints, step: int,
    *, exact: bool,
) -> Words | None:  # fmt: skip
    """The values of all chunks.

    Args:
        data, starts, sizes: where the values and the lengths of each chunk are.
        counts: values per chunk.
        step: bytes per value.
        exact: whether runs must add up to ``counts``; else they may go beyond, and are cut.

    Returns:
        The words; None if there is no kernel for them, or something is wrong.
    """
    total = int(counts.sum())
    if not 0 < total <= 255 * int(sizes[1].sum()):  # nothing is allocated but what the bytes justify
        return None
    kernel = _EXPAND[step].get(total * step)
    if kernel is None:
        return None
    values = data[0]
    residue = int(starts[0][0]) % step
    usable = (len(values) - residue) // step * step
    words = values[residue : residue + usable].view(f"<u{step}")
    out = empty(total, words.dtype)
    good = kernel(words, residue, starts[0], sizes[0], data[1], starts[1], sizes[1], counts, exact, out)
    return out if good else None


def expand_numba(
    words: Words, residue: int, starts: Ints, sizes: Ints, lengths: Bytes, begins: Ints, length_sizes: Ints,
    counts: Ints, exact: int, out: Words,
) -> int:  # fmt: skip
    step = words.itemsize
    at = 0
    for c in range(counts.size):
        count = counts[c]
        entries = length_sizes[c]
        first = starts[c] - residue
        if count < 0 or first < 0 or first % step or sizes[c] != entries * step or begins[c] < 0:
            return 0
        if first + sizes[c] > step * words.size or begins[c] + entries > lengths.size:
            return 0
        values = words[first // step : first // step + entries]
        runs = lengths[begins[c] : begins[c] + entries]
        place = out[at : at + count]
        done = np.uint64(0)
        most = np.uint64(count)
        for e in range(np.uint64(entries)):
            run = np.uint64(runs[e])
            if run == np.uint64(0):
                return 0
            stop = done + run
            if stop > most:
                if exact:
                    return 0
                stop = max(most, done)
            value = values[e]
            while done < stop:
                place[done] = value
                done += np.uint64(1)
        if done != most:
            return 0
        at += count
    return 1


_EXPAND = {
    step: Kernel(
        expand_numba, f"u1(r.u{step}, =i8, r.i8, r.i8, r.u1, r.i8, r.i8, r.i8, =i8, u{step})", small=0
    )
    for step in (1, 2, 4, 8)
}
