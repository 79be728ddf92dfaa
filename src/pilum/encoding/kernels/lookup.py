"""Values of dictionary indices, written to where Arrow wants them.

    fixed width    index -> word
    byte strings   index -> bytes, with the offsets that follow from their sizes

An index outside the dictionary is an error, unless its definition level says that the value is null; then it means
item 0, whatever it is.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.words import put_word, word_at

__all__ = ["expand", "take_words"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[Any]

_SLACK = 64  # bytes that are read and written beyond a string, because pieces of so many are copied
_MAX_I32 = 2**31 - 1


def take_words(items: Words, indices: Words, levels: npt.NDArray[np.uint16] | None) -> Words | None:
    """``items[indices]`` where the level is 0 (everywhere without levels), else item 0; None if it cannot be done here.

    Args:
        items: words of 4 or 8 bytes.
        indices: words of 4 bytes, not checked yet.
        levels: one definition level per index.
    """
    kernel = _TAKE.get((indices.itemsize, items.itemsize))
    compiled = None if kernel is None else kernel.get(indices.nbytes)
    if compiled is None or not len(items) or (levels is not None and len(levels) != len(indices)):
        return None
    out = empty(len(indices), items.dtype)
    good = compiled(items, indices, _NO_LEVELS if levels is None else levels, out)
    return out if good else None


def take_numba(items: Words, indices: Words, levels: npt.NDArray[np.uint16], out: Words) -> int:
    size = np.uint64(items.size)
    bad = False
    if levels.size:
        for i in range(np.uint64(out.size)):
            index = np.uint64(indices[i]) if levels[i] == 0 else np.uint64(0)
            if index >= size:
                bad = True
                index = np.uint64(0)
            out[i] = items[index]
    else:
        for i in range(np.uint64(out.size)):
            index = np.uint64(indices[i])
            if index >= size:
                bad = True
                index = np.uint64(0)
            out[i] = items[index]
    return 0 if bad else 1


def expand(
    indices: Words, offsets: Words, data: Bytes, large: bool, limit: int
) -> tuple[Words, Bytes] | None:
    """The strings of indices as offsets and bytes; None if there is no kernel, or they are more than ``limit`` bytes.

    Args:
        indices: words of 4 bytes, all inside the dictionary.
        offsets: of the items, one more than there are.
        data: the bytes of the items.
        large: whether the offsets are to be 64 bits wide.
    """
    kernels = _STRINGS.get(indices.itemsize)
    if kernels is None:
        return None
    measure = kernels[0].get(indices.nbytes)
    copy = kernels[2 if large else 1].get(indices.nbytes)
    if measure is None or copy is None:
        return None
    starts = offsets.astype(np.int64)
    total = int(measure(indices, starts))
    if not 0 <= total <= min(limit, 1 << 40 if large else _MAX_I32):
        return None
    padded = np.zeros(int(starts[-1]) + _SLACK, np.uint8)
    padded[:-_SLACK] = data[: int(starts[-1])]
    ends = empty(len(indices) + 1, np.int64 if large else np.int32)
    out = empty(total + _SLACK, np.uint8)
    copy(indices, starts, padded, ends, out)
    return ends, out[:total]


def measure_numba(indices: Words, starts: npt.NDArray[np.int64]) -> int:
    total = 0
    for i in range(np.uint64(indices.size)):
        index = np.uint64(indices[i])
        total += starts[index + np.uint64(1)] - starts[index]
    return total


def strings_numba(
    indices: Words, starts: npt.NDArray[np.int64], data: Bytes, ends: Words, out: Bytes
) -> None:
    one = np.uint64(1)
    at = np.uint64(0)
    ends[0] = 0
    for i in range(np.uint64(indices.size)):
        index = np.uint64(indices[i])
        source = np.uint64(starts[index])
        stop = at + np.uint64(starts[index + one]) - source
        to = at
        while to < stop:
            # All loads before all stores: LLVM makes a few vector moves of them.  Most strings take one round, so the
            # end of the loop is predicted: six times as fast as 8 bytes a round.
            a, b = word_at(data, source), word_at(data, source + np.uint64(8))
            c, d = word_at(data, source + np.uint64(16)), word_at(data, source + np.uint64(24))
            e, f = word_at(data, source + np.uint64(32)), word_at(data, source + np.uint64(40))
            g, h = word_at(data, source + np.uint64(48)), word_at(data, source + np.uint64(56))
            put_word(out, to, a)
            put_word(out, to + np.uint64(8), b)
            put_word(out, to + np.uint64(16), c)
            put_word(out, to + np.uint64(24), d)
            put_word(out, to + np.uint64(32), e)
            put_word(out, to + np.uint64(40), f)
            put_word(out, to + np.uint64(48), g)
            put_word(out, to + np.uint64(56), h)
            to += np.uint64(64)
            source += np.uint64(64)
        at = stop
        ends[i + one] = at


_NO_LEVELS = np.empty(0, np.uint16)
_TAKE = {(4, width): Kernel(take_numba, f"u1(r.u{width}, r.u4, r.u2, u{width})", small=0) for width in (4, 8)}
_STRINGS = {
    4: (
        Kernel(measure_numba, "i8(r.u4, r.i8)", small=1 << 10),
        *(
            Kernel(
                strings_numba,
                f"void(r.u4, r.i8, r.u1, i{width}, u1)",
                small=1 << 10,
                helpers=(word_at, put_word),
            )
            for width in (4, 8)
        ),
    )
}
