"""Compressing many pieces with zstd, by the library of the system where there is one (`spec/compression.md`, 4.11).

Arrow's codec makes a context for each call, which takes longer than to compress a short string, and Python holds on to
the interpreter between the calls.  Here one compiled loop calls the library itself, with one context:

    u64 size | frame | u64 size | frame ...     back to back, nothing for an empty piece

Without the library callers use Arrow's codec.  They always do to decompress: a context for that is small, all frames
together are one call, and Arrow's build of zstd is the faster one.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty

__all__ = ["compress"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]

_LIBRARY = {"linux": "libzstd.so.1", "darwin": "libzstd.1.dylib"}.get(sys.platform, "zstd.dll")
_PREFIX = 8

# The C functions exist in the compiled loop only (see `Kernel`, externals).
c_compressor: Any = None
c_compress: Any = None
c_free_compressor: Any = None


def compress(data: Bytes, sizes: Ints, level: int) -> tuple[Bytes, Ints] | None:
    """Compress consecutive pieces of ``data``, ``sizes[k]`` bytes each.

    Returns:
        The payloads, back to back, and the size of each; None if it cannot be done here.
    """
    kernel = _COMPRESS.get(len(data))
    if kernel is None or int(sizes.sum()) > len(data):
        return None
    # zstd's bound of what a piece may take
    bounds = sizes + (sizes >> 8) + (np.maximum((128 << 10) - sizes, 0) >> 11) + _PREFIX
    out = empty(int(bounds.sum()), np.uint8)
    written = np.zeros(len(sizes), np.int64)
    if not kernel(np.ascontiguousarray(data), np.ascontiguousarray(sizes, np.int64), level, out, written):
        return None
    return out[: int(written.sum())], written


def compress_numba(data: Bytes, sizes: Ints, level: int, out: Bytes, written: Ints) -> int:
    context = c_compressor()
    if context == 0:
        return 0
    source = data.ctypes.data
    target = out.ctypes.data
    at = 0
    start = 0
    good = 1
    for k in range(sizes.size):
        size = sizes[k]
        if size == 0:
            continue
        room = out.size - at - 8
        got = c_compress(context, target + at + 8, room, source + start, size, level)
        if got <= 0 or got > room:  # an error is a number close to 0, from below
            good = 0
            break
        for j in range(8):
            out[at + j] = (size >> (8 * j)) & 0xFF
        written[k] = got + 8
        at += got + 8
        start += size
    c_free_compressor(context)
    return good


_COMPRESS = Kernel(
    compress_numba,
    "u1(r.u1, r.i8, =i8, u1, i8)",
    externals={
        "c_compressor": "p ZSTD_createCCtx()",
        "c_compress": "i8 ZSTD_compressCCtx(p, p, i8, p, i8, i4)",
        "c_free_compressor": "i8 ZSTD_freeCCtx(p)",
    },
    library=_LIBRARY,
)
