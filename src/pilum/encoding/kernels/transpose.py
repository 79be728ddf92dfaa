"""Byte-stream-split: the bytes of words, sorted by rank and back (`spec/compression.md`, section 4.10).

    chunk of n words of b bytes      byte j of word i at j * n + i

Chunks follow each other on both sides, so a chunk begins at the same byte in either.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty

__all__ = ["join", "split"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]


def split(data: Bytes, counts: Ints, width: int) -> Bytes:
    """Words of ``width`` bytes (4 or 8) as streams of bytes, chunk by chunk."""
    out = empty(len(data), np.uint8)
    kernel = (_SPLIT_32 if width == 4 else _SPLIT_64).get(len(data))
    if kernel is None:
        transpose_numpy(data, out, counts, width, split=True)
    else:
        kernel(np.ascontiguousarray(data).view(f"<u{width}"), counts, out)
    return out


def join(data: Bytes, counts: Ints, width: int) -> Bytes:
    """The inverse of `split`."""
    out = empty(len(data), np.uint8)
    kernel = (_JOIN_32 if width == 4 else _JOIN_64).get(len(data))
    if kernel is None:
        transpose_numpy(data, out, counts, width, split=False)
    else:
        kernel(np.ascontiguousarray(data), counts, out.view(f"<u{width}"))
    return out


def transpose_numpy(source: Bytes, target: Bytes, counts: Ints, width: int, *, split: bool) -> None:
    """Transpose each chunk; chunks of equal count that follow each other are done at once."""
    if not len(counts):
        return
    edges = np.concatenate([[0], np.flatnonzero(np.diff(counts)) + 1, [len(counts)]]).tolist()
    at = 0
    for low, high in pairwise(edges):
        count, chunks = int(counts[low]), high - low
        size = chunks * count * width
        shape = (chunks, count, width) if split else (chunks, width, count)
        part = source[at : at + size].reshape(shape)
        target[at : at + size].reshape(chunks, *shape[:0:-1])[:] = part.transpose(0, 2, 1)
        at += size


def split_32_numba(words: Any, counts: Ints, out: Bytes) -> None:
    at = 0
    for c in range(counts.size):
        n = counts[c]
        source = words[at : at + n]
        for j in range(4):
            stream = out[4 * at + j * n : 4 * at + (j + 1) * n]
            shift = np.uint32(8 * j)
            for i in range(n):
                stream[i] = np.uint8((source[i] >> shift) & np.uint32(255))
        at += n


def split_64_numba(words: Any, counts: Ints, out: Bytes) -> None:
    at = 0
    for c in range(counts.size):
        n = counts[c]
        source = words[at : at + n]
        for j in range(8):
            stream = out[8 * at + j * n : 8 * at + (j + 1) * n]
            shift = np.uint64(8 * j)
            for i in range(n):
                stream[i] = np.uint8((source[i] >> shift) & np.uint64(255))
        at += n


def join_32_numba(data: Bytes, counts: Ints, out: Any) -> None:
    at = 0
    for c in range(counts.size):
        n = counts[c]
        place = out[at : at + n]
        base = 4 * at
        b0 = data[base : base + n]
        b1 = data[base + n : base + 2 * n]
        b2 = data[base + 2 * n : base + 3 * n]
        b3 = data[base + 3 * n : base + 4 * n]
        for i in range(n):
            place[i] = (
                np.uint32(b0[i])
                | np.uint32(b1[i]) << np.uint32(8)
                | np.uint32(b2[i]) << np.uint32(16)
                | np.uint32(b3[i]) << np.uint32(24)
            )
        at += n


def join_64_numba(data: Bytes, counts: Ints, out: Any) -> None:
    at = 0
    for c in range(counts.size):
        n = counts[c]
        place = out[at : at + n]
        base = 8 * at
        for half in range(2):
            start = base + 4 * half * n
            b0 = data[start : start + n]
            b1 = data[start + n : start + 2 * n]
            b2 = data[start + 2 * n : start + 3 * n]
            b3 = data[start + 3 * n : start + 4 * n]
            for i in range(n):
                word = (
                    np.uint64(b0[i])
                    | np.uint64(b1[i]) << np.uint64(8)
                    | np.uint64(b2[i]) << np.uint64(16)
                    | np.uint64(b3[i]) << np.uint64(24)
                )
                if half == 0:
                    place[i] = word
                else:
                    place[i] |= word << np.uint64(32)
        at += n


_SPLIT_32 = Kernel(split_32_numba, "void(r.u4, r.i8, u1)")
_SPLIT_64 = Kernel(split_64_numba, "void(r.u8, r.i8, u1)")
_JOIN_32 = Kernel(join_32_numba, "void(r.u1, r.i8, u4)")
_JOIN_64 = Kernel(join_64_numba, "void(r.u1, r.i8, u8)")
