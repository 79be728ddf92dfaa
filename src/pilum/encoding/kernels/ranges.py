"""Copying many byte ranges at once: gathering chunk payloads, scattering tails.

    gather    out = src[s0:s0+n0] ++ src[s1:s1+n1] ++ ...
    scatter   dst[d_i : d_i+n_i] = src[s_i : s_i+n_i]

Callers have checked that all ranges lie inside their arrays.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty

__all__ = ["adjacent", "gather", "scatter", "word_view"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[Any]


def adjacent(starts: Ints, sizes: Ints) -> bool:
    """Whether each range begins where the one before ends."""
    return len(starts) < 2 or bool(np.array_equal(starts[:-1] + sizes[:-1], starts[1:]))


def gather(src: Bytes, starts: Ints, sizes: Ints) -> Bytes:
    """The ranges back to back; a view of ``src`` when they already are."""
    if len(starts) == 0:
        return np.empty(0, np.uint8)
    if adjacent(starts, sizes):
        return src[int(starts[0]) : int(starts[-1]) + int(sizes[-1])]
    total = int(sizes.sum())
    kernel = _COPY.get(total)
    if kernel is None:
        return gather_numpy(src, starts, sizes)
    out = empty(total, np.uint8)
    ends = np.cumsum(sizes, dtype=np.int64)
    kernel(src, _i64(starts), _i64(sizes), out, ends - sizes)
    return out


def scatter(src: Bytes, starts: Ints, sizes: Ints, dst: Bytes, targets: Ints) -> None:
    """Copy each range of ``src`` to its target in ``dst``."""
    kernel = _COPY.get(len(dst)) if len(starts) else None
    (kernel or copy_numpy)(src, _i64(starts), _i64(sizes), dst, _i64(targets))


def word_view(
    data: Bytes, starts: Ints, sizes: Ints, width: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """``data`` as unsigned words of ``width`` bytes, and where each range starts in words.

    The view shares memory and may be unaligned; ranges that do not agree in their distance
    from a word boundary are gathered first (their sizes must be multiples of ``width``).
    """
    starts = _i64(starts)
    residue = int(starts[0]) % width if len(starts) else 0
    if bool(((starts - residue) % width).any()):
        data = gather(data, starts, sizes)
        starts, residue = np.cumsum(sizes, dtype=np.int64) - sizes, 0
    usable = max(0, len(data) - residue) // width * width
    return data[residue : residue + usable].view(f"<u{width}"), (starts - residue) // width


def gather_numpy(src: Bytes, starts: Ints, sizes: Ints) -> Bytes:
    size = int(sizes[0])
    if len(starts) > 16 and size <= 64 and bool((sizes == size).all()):
        return src[starts[:, None] + np.arange(size)].reshape(-1)
    if len(starts) > 64 and int(sizes.sum()) < 64 * len(starts):  # many tiny ones: index each byte
        ends = np.cumsum(sizes)
        shift = np.repeat(starts - (ends - sizes), sizes)
        return src[shift + np.arange(int(ends[-1]))]
    ends_list = (starts + sizes).tolist()
    return np.concatenate([src[a:b] for a, b in zip(starts.tolist(), ends_list, strict=True)])


def copy_numpy(src: Bytes, starts: Ints, sizes: Ints, dst: Bytes, targets: Ints) -> None:
    for start, size, target in zip(starts.tolist(), sizes.tolist(), targets.tolist(), strict=True):
        dst[target : target + size] = src[start : start + size]


def copy_numba(src: Bytes, starts: Ints, sizes: Ints, dst: Bytes, targets: Ints) -> None:
    for c in range(starts.size):
        # slices first: an index that cannot be negative is what lets LLVM vectorise the loop
        size = sizes[c]
        piece = src[starts[c] : starts[c] + size]
        place = dst[targets[c] : targets[c] + size]
        for i in range(size):
            place[i] = piece[i]


def _i64(values: Ints) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(values, np.int64)


_COPY = Kernel(copy_numba, "void(r.u1, r.i8, r.i8, u1, r.i8)")
