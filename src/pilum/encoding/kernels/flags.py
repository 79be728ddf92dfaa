"""Which rows a mask keeps, as their numbers: what a filter does after every condition.

NumPy looks at each flag.  Most filters keep few rows, so here eight flags are looked at as one word.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel

__all__ = ["positions"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]


def positions(mask: Bools, count: int) -> Ints:
    """The numbers of the flags that are set, ascending, as `numpy.flatnonzero`.

    Args:
        mask: the flags.
        count: how many are set.
    """
    kernel = _POSITIONS.get(len(mask)) if mask.flags.c_contiguous else None
    if kernel is None:
        return np.flatnonzero(mask)
    whole = len(mask) // 8
    found = np.empty(count + 8, np.int64)
    flags = mask.view(np.uint8)
    number = int(kernel(flags[: 8 * whole].view(np.uint64), flags[8 * whole :], found))
    assert number == count
    return found[:count]


def positions_numba(words: Any, rest: Any, found: Any) -> Any:
    number: Any = 0
    room = found.size - 8
    for w in range(words.size):
        word = words[w]
        if word == np.uint64(0):
            continue
        if number > room:
            return -1
        for k in range(8):
            found[number] = 8 * w + k
            number += np.int64(word >> np.uint64(8 * k) & np.uint64(1))
    for k in range(rest.size):
        if rest[k]:
            if number >= found.size:
                return -1
            found[number] = 8 * words.size + k
            number += 1
    return number


_POSITIONS = Kernel(positions_numba, "i8(r.u8, r.u1, i8)", small=4 << 10)
