"""Decompressing many LZ4 blocks at once (the published block format; `spec/compression.md`, section 4.11).

    sequence   token: high 4 bits literals, low 4 bits match length - 4
               more bytes of 255 and a last one if the 4 bits are 15 | literals
               u16 distance back | more bytes of the match length       (the last sequence has literals only)

Every position is checked before it is used: against the end of the block, the room for its result, and the
beginning of that result.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding.kernels import Kernel

__all__ = ["decompress"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]


def decompress(data: Bytes, starts: Ints, ends: Ints, out: Bytes, targets: Ints, sizes: Ints) -> int:
    """Decompress blocks; each must yield exactly as many bytes as it claims.

    Args:
        data: holds the blocks; block c is ``data[starts[c]:ends[c]]``.
        out: where block c goes, to ``targets[c]``, ``sizes[c]`` bytes.

    Returns:
        -1, or the number of the first block that is corrupt.
    """
    kernel = _DECOMPRESS.get(int(sizes.sum()))
    if kernel is None:
        return decompress_arrow(data, starts, ends, out, targets, sizes)
    return int(kernel(data, starts, ends, out, targets, sizes))


def decompress_arrow(data: Bytes, starts: Ints, ends: Ints, out: Bytes, targets: Ints, sizes: Ints) -> int:
    """The twin: Arrow's own, block by block."""
    codec: Any = pa.Codec("lz4_raw")
    edges = zip(starts.tolist(), ends.tolist(), targets.tolist(), sizes.tolist(), strict=True)
    for number, (start, end, target, size) in enumerate(edges):
        body = np.ascontiguousarray(data[start:end])
        if not size:  # an empty block is one token without literals
            if end - start > 1:
                return number
            continue
        try:
            plain = codec.decompress(body, size)
        except (OSError, pa.ArrowException):
            return number
        try:
            codec.decompress(body, size - 1)  # Arrow does not say how much it wrote; less room must fail
        except (OSError, pa.ArrowException):
            out[target : target + size] = np.frombuffer(plain, np.uint8)
            continue
        return number
    return -1


def decompress_numba(data: Bytes, starts: Ints, ends: Ints, out: Bytes, targets: Ints, sizes: Ints) -> int:
    for c in range(starts.size):
        source = data[starts[c] : ends[c]]
        place = out[targets[c] : targets[c] + sizes[c]]
        stop = np.uint64(source.size)
        room = np.uint64(place.size)
        i = np.uint64(0)
        o = np.uint64(0)
        one = np.uint64(1)
        if stop == np.uint64(0) and room > np.uint64(0):
            return c
        while i < stop:
            token = np.uint64(source[i])
            i += one
            length = token >> np.uint64(4)
            if length == np.uint64(15):
                more = np.uint64(255)
                while more == np.uint64(255):
                    if i >= stop:
                        return c
                    more = np.uint64(source[i])
                    i += one
                    length += more
            if length > stop - i or length > room - o:
                return c
            literals = source[i : i + length]
            written = place[o : o + length]
            for k in range(literals.size):
                written[k] = literals[k]
            i += length
            o += length
            if i == stop:
                break
            if stop - i < np.uint64(2):
                return c
            distance = np.uint64(source[i]) | np.uint64(source[i + one]) << np.uint64(8)
            i += np.uint64(2)
            if distance == np.uint64(0) or distance > o:
                return c
            length = token & np.uint64(15)
            if length == np.uint64(15):
                more = np.uint64(255)
                while more == np.uint64(255):
                    if i >= stop:
                        return c
                    more = np.uint64(source[i])
                    i += one
                    length += more
            length += np.uint64(4)
            if length > room - o:
                return c
            if distance >= length:
                before = place[o - distance : o - distance + length]
                after = place[o : o + length]
                for k in range(before.size):
                    after[k] = before[k]
            else:
                back = o - distance
                for k in range(length):
                    place[o + k] = place[back + k]
            o += length
        if o != room:
            return c
    return -1


_DECOMPRESS = Kernel(decompress_numba, "i8(r.u1, r.i8, r.i8, u1, r.i8, r.i8)")
