"""Reading one range of each of many files, or many ranges of one file, in one go, without the GIL.

Small fragments are many files with some hundred kilobytes of each.  Opened and read one by one from Python, every
file lets go of the GIL three times and waits to get it back three times; two threads that do so hinder each other
more than they help (800 × 256 KiB: 55 ms on one thread, 41 ms to 88 ms on two).  Here the C library is called from a
compiled loop: one hand-over for the batch (42 ms on one thread, 24 ms on two).

    paths     file names, each ended by a zero byte, back to back
    out       the ranges, back to back at multiples of 64

What the system has in memory is copied one by one.  A read that has to wait for the disk tells that the others will,
too; then the system is asked for all of them at once, which a disk answers much sooner (a take of 100 rows: 10 ms
instead of 44).

What fails, for whatever reason, is left to the caller, who reads it again the ordinary way and so gets the ordinary
error.  Linux only: elsewhere `open` cannot be called like a function of two arguments on every platform.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.io.buffers import ALIGN, Bytes, Stack, allocate
from pilum.io.ranges import edges_of
from pilum.jit import Kernel

__all__ = ["read_files", "read_joined", "read_pieces", "read_stack"]

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
_MONOTONIC = 1
_WILL_NEED = 3
_SECOND = 1_000_000_000
# A read that takes so many nanoseconds, and half of one for each byte, has waited for the disk.
_SLOW = 30_000
_SMALL = 128 << 10

# The C functions exist in the compiled loop only (see `Kernel`, externals).
c_open: Any = None
c_pread: Any = None
c_close: Any = None
c_fadvise: Any = None
c_clock: Any = None


def read_files(
    paths: Sequence[bytes], starts: Sequence[int], sizes: Sequence[int]
) -> list[Bytes | None] | None:
    """Bytes ``[starts[i], starts[i] + sizes[i])`` of each file, all in one piece of memory.

    Args:
        paths: encoded names of existing files.
        starts: offsets, not negative.
        sizes: bytes wanted, positive; the caller has bounded their sum.

    Returns:
        The bytes of each file, None for a file that could not be read whole; None if there is no compiled loop.
    """
    kernel = _KERNEL.get(sum(sizes)) if sys.platform == "linux" else None
    if kernel is None:
        return None
    names = np.frombuffer(b"\0".join(paths) + b"\0", np.uint8)
    wanted = np.array(sizes, np.int64)
    space = (wanted + (ALIGN - 1)) & -ALIGN
    targets = np.cumsum(space) - space
    out = allocate(int(space.sum()))
    got = np.empty(len(paths), np.int64)
    kernel(
        names, _begins(names), np.array(starts, np.int64), wanted, out, targets, got, np.empty(2, np.int64)
    )
    if bool((got == wanted).all()):
        return [out[at : at + size] for at, size in zip(targets.tolist(), sizes, strict=True)]
    return [
        out[at : at + size] if done == size else None
        for at, size, done in zip(targets.tolist(), sizes, got.tolist(), strict=True)
    ]


def read_pieces(descriptor: int, pieces: Sequence[tuple[int, int]]) -> list[Bytes] | None:
    """The bytes of some ranges of an open file, all in one piece of memory.

    A take of 100 rows of 18 columns reads 425 ranges; one by one, that was half of its time.

    Args:
        descriptor: of the file.
        pieces: start and end of each range, none empty; the caller has bounded their sum.

    Returns:
        The bytes of each range; None if there is no compiled loop or a range could not be read whole.
    """
    edges = edges_of(pieces)
    wanted = edges[:, 1] - edges[:, 0]
    space = (wanted + (ALIGN - 1)) & -ALIGN
    total = int(space.sum())
    kernel = _PIECES.get(total) if sys.platform == "linux" else None
    if kernel is None:
        return None
    targets = np.cumsum(space) - space
    out = allocate(total)
    if not kernel(descriptor, edges, ALIGN, out, np.empty(2, np.int64)):
        return None
    ends = (targets + wanted).tolist()
    return [out[low:high] for low, high in zip(targets.tolist(), ends, strict=True)]


def read_joined(descriptor: int, spans: npt.NDArray[np.int64], total: int) -> Bytes | None:
    """The bytes of some ranges of an open file, back to back; None if there is no loop or one could not be read whole.

    Args:
        descriptor: of the file.
        spans: begin and end of each range, none empty.
        total: the sum of their lengths, which the caller has bounded.
    """
    kernel = _PIECES.get(total) if sys.platform == "linux" else None
    if kernel is None:
        return None
    out = allocate(total)
    return out if kernel(descriptor, spans, 1, out, np.empty(2, np.int64)) else None


def read_pieces_numba(descriptor: int, spans: Any, align: int, out: Bytes, clock: Any) -> int:
    memory, moment = out.ctypes.data, clock.ctypes.data
    waits = False
    c_clock(_MONOTONIC, moment)
    before = clock[0] * _SECOND + clock[1]
    at = 0
    for k in range(spans.shape[0]):
        start, size = spans[k, 0], spans[k, 1] - spans[k, 0]
        done = 0
        while done < size:
            more = c_pread(descriptor, memory + at + done, size - done, start + done)
            if more <= 0:
                return 0
            done += more
        at += (size + align - 1) // align * align
        if not waits:
            c_clock(_MONOTONIC, moment)
            after = clock[0] * _SECOND + clock[1]
            waits = after - before > _SLOW + size // 2
            before = after
            if waits:
                for j in range(k + 1, spans.shape[0]):
                    size = spans[j, 1] - spans[j, 0]
                    if size <= _SMALL:  # of larger ones the system reads ahead by itself
                        c_fadvise(descriptor, spans[j, 0], size, _WILL_NEED)
    return 1


def read_stack(paths: bytes, count: int, start: int, end: int) -> Stack | None:
    """Bytes ``[start, end)`` of each of many files.

    Args:
        paths: encoded names of existing files, each ended by a zero byte.
        count: number of names.
        start, end: the range, not empty; the caller has bounded the sum of all.

    Returns:
        None if there is no compiled loop, or a file could not be read whole.
    """
    size = end - start
    kernel = _KERNEL.get(size * count) if sys.platform == "linux" else None
    if kernel is None:
        return None
    names = np.frombuffer(paths, np.uint8)
    begins = _begins(names)
    if len(begins) != count:  # a zero byte within a name
        return None
    stride = (size + (ALIGN - 1)) & -ALIGN
    out = allocate(stride * count)
    got = np.empty(count, np.int64)
    sizes, targets = np.full(count, size, np.int64), np.arange(0, stride * count, stride, dtype=np.int64)
    kernel(names, begins, np.full(count, start, np.int64), sizes, out, targets, got, np.empty(2, np.int64))
    return Stack(out, stride, size, count) if bool((got == size).all()) else None


def _begins(names: Bytes) -> Any:
    """Where each of some names begins, all of them ended by zero bytes."""
    ends = np.flatnonzero(names == 0)
    begins = np.zeros(len(ends), np.int64)
    np.add(ends[:-1], 1, out=begins[1:])
    return begins


def read_files_numba(
    names: Bytes, begins: Any, starts: Any, sizes: Any, out: Bytes, targets: Any, got: Any, clock: Any
) -> None:
    name = names.ctypes.data
    memory, moment = out.ctypes.data, clock.ctypes.data
    waits = False
    for k in range(begins.size):
        if waits:
            descriptor = got[k]  # opened already
        else:
            descriptor = c_open(name + begins[k], _FLAGS)
        got[k] = -1
        if descriptor < 0:
            continue
        done = 0
        c_clock(_MONOTONIC, moment)
        before = clock[0] * _SECOND + clock[1]
        while done < sizes[k]:
            more = c_pread(descriptor, memory + targets[k] + done, sizes[k] - done, starts[k] + done)
            if more <= 0:
                break
            done += more
        c_close(descriptor)
        got[k] = done
        c_clock(_MONOTONIC, moment)
        if not waits and clock[0] * _SECOND + clock[1] - before > _SLOW + sizes[k] // 2:
            waits = True
            for j in range(k + 1, begins.size):
                got[j] = c_open(name + begins[j], _FLAGS)
                if got[j] >= 0:
                    c_fadvise(got[j], starts[j], sizes[j], _WILL_NEED)


_EXTERNALS = {
    "c_open": "i4 open(p, i4)",
    "c_pread": "p pread(i4, p, p, i8)",
    "c_close": "i4 close(i4)",
    "c_fadvise": "i4 posix_fadvise(i4, i8, i8, i4)",
    "c_clock": "i4 clock_gettime(i4, p)",
}
_KERNEL = Kernel(
    read_files_numba,
    "void(r.u1, r.i8, r.i8, r.i8, u1, r.i8, i8, i8)",
    small=64 << 10,
    externals=_EXTERNALS,
)
_PIECES = Kernel(
    read_pieces_numba,
    "i8(=i4, r.i8[2], =i8, u1, i8)",
    small=0,
    externals={name: one for name, one in _EXTERNALS.items() if name not in ("c_open", "c_close")},
)
