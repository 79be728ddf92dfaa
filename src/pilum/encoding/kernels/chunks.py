"""Headers of the chunks of a mini-block page, read and checked in one pass.

`spec/file-container-and-structure.md`, section 4.2, and `spec/compression.md`, section 4.5.  A page has hundreds
of chunks; each check on arrays of their numbers costs a microsecond or two, and there are some twenty of them.  The
kernels here do all of them at once and only say yes or no.  After a no the NumPy code of the caller runs: it is the
readable definition, finds out what is wrong and says so.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel

__all__ = ["read_headers", "read_widths"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]

_GROUP = 1024


def read_headers(
    data: Bytes, starts: Ints, ends: Ints, fields: int, large: int, header: int
) -> tuple[Ints, Ints, Ints] | None:
    """Take the headers of chunks apart.

    Args:
        data: the chunks; chunk c is ``data[starts[c]:ends[c]]``, both multiples of 8.
        fields: buffers of a chunk, those of levels included.
        large: how many of them, from the end, have a size of 32 bits.
        header: bytes of a header with its padding.

    Returns:
        Level entries per chunk, and one row for each buffer of where it begins and how long it is; None if there
        is no kernel or a buffer reaches past the end of its chunk.
    """
    kernel = _HEADERS.get(16 * len(starts) * fields)
    if kernel is None or len(data) % 2:
        return None
    levels = np.empty(len(starts), np.int64)
    at = np.empty((2, fields, len(starts)), np.int64)
    if not kernel(data.view("<u2"), starts, ends, fields, large, header, levels, at.reshape(-1)):
        return None
    return levels, at[0], at[1]


def headers_numba(
    halves: npt.NDArray[np.uint16],
    starts: Ints,
    ends: Ints,
    fields: int,
    large: int,
    header: int,
    levels: Ints,
    found: Ints,
) -> int:
    count = starts.size
    begins = found[: fields * count]
    sizes = found[fields * count :]
    for c in range(count):
        start = starts[c]
        end = ends[c]
        if start < 0 or end > 2 * halves.size or end - start < header:
            return 0
        head = halves[start >> 1 : (start + header) >> 1]
        levels[c] = head[0]
        at = start + header
        last = at
        k = 1
        for b in range(fields):
            size = np.int64(head[k])
            k += 1
            if b >= fields - large:
                size |= np.int64(head[k]) << 16
                k += 1
            begins[b * count + c] = at
            sizes[b * count + c] = size
            last = at + size
            at += (size + 7) & -8
        if last > end:
            return 0
    return 1


def read_widths(
    data: Bytes, starts: Ints, sizes: Ints, counts: Ints, bits: int
) -> tuple[int, Ints, Ints] | None:
    """Check chunks of inline bit-packing.

    Args:
        data: chunk c is ``data[starts[c] : starts[c] + sizes[c]]``: its width as a word of ``bits`` bits, then
            1024 values packed to it.
        counts: values per chunk.

    Returns:
        The distance of all packed groups from a word boundary; where each begins, in words of 8 bytes after that;
        and its width.  None if there is no kernel, a chunk is not as it should be, or one but the last is short.
    """
    kernel = _WIDTHS.get(16 * len(starts))
    if kernel is None or not len(starts):
        return None
    found = np.empty((2, len(starts)), np.int64)
    residue = (int(starts[0]) + bits // 8) % 8
    if not kernel(data, starts, sizes, counts, bits, residue, found.reshape(-1)):
        return None
    return residue, found[0], found[1]


def widths_numba(
    data: Bytes, starts: Ints, sizes: Ints, counts: Ints, bits: int, residue: int, found: Ints
) -> int:
    chunks = starts.size
    step = bits // 8
    at = found[:chunks]
    widths = found[chunks:]
    for c in range(chunks):
        start = starts[c]
        count = counts[c]
        if count > 1024 or count < 1 or (count < 1024 and c < chunks - 1):
            return 0
        if start < 0 or sizes[c] < step or start + sizes[c] > data.size:
            return 0
        head = data[start : start + step]
        width = np.int64(head[0])
        for k in range(1, step):
            if head[k]:
                return 0
        body = start + step - residue
        if width > bits or sizes[c] != step + 128 * width or body % 8:
            return 0
        at[c] = body // 8
        widths[c] = width
    return 1


_HEADERS = Kernel(headers_numba, "u1(r.u2, r.i8, r.i8, =i8, =i8, =i8, i8, i8)", small=0, nogil=False)
_WIDTHS = Kernel(widths_numba, "u1(r.u1, r.i8, r.i8, r.i8, =i8, =i8, i8)", small=0, nogil=False)
