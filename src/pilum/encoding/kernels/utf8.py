"""Whether the strings of a column are UTF-8.

The bytes of all strings as one text must be, and no string may begin inside a character.  Most text is ASCII, which
is recognised in blocks; elsewhere each byte is compared with the three before it:

    a byte must continue a character (10xxxxxx) exactly if one before it announced that: the last >= C0, the one
    before it >= E0, or the third >= F0
    after E0 only A0..BF (shorter forms exist for the rest), after ED only 80..9F (surrogates), after F0 only 90..BF,
    after F4 only 80..8F; C0, C1 and F5..FF occur nowhere

These are comparisons of bytes without branches, which compile to vector instructions.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel

__all__ = ["valid"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[Any]

_BLOCK = 2048


def valid(data: Bytes, offsets: Offsets) -> bool | None:
    """Whether each string ``data[offsets[i]:offsets[i + 1]]`` is UTF-8; None if there is no kernel for it.

    Args:
        data: the bytes of all strings, no others.
        offsets: int32 or int64, ascending, the last is ``len(data)``.
    """
    kernel = _VALID[offsets.itemsize].get(len(data))
    if kernel is None:
        return None
    return bool(kernel(np.ascontiguousarray(data), np.ascontiguousarray(offsets), np.zeros(_BLOCK + 3, np.uint8),
                       np.zeros(_BLOCK, np.uint8)))  # fmt: skip


def valid_numba(data: Bytes, offsets: Offsets, window: Bytes, flags: Bytes) -> int:
    block = flags.size
    size = data.size
    words = flags.view(np.uint64)
    text = window[3:]
    open_ = False  # whether the last three bytes may announce more
    ascii_ = True
    at = 0
    while at < size:
        count = min(block, size - at)
        piece = data[at : at + count]
        top = np.uint8(0)
        for i in range(count):
            top |= piece[i]
        if top < 128 and not open_:
            at += count
            continue
        ascii_ = False
        for i in range(count):
            text[i] = piece[i]
        for i in range(count, block):
            text[i] = 0
        first = window[2 : block + 2]
        second = window[1 : block + 1]
        third = window[:block]
        for i in range(block):
            b = text[i]
            p = first[i]
            follows = (b & np.uint8(0xC0)) == np.uint8(0x80)
            must = (p >= np.uint8(0xC0)) | (second[i] >= np.uint8(0xE0)) | (third[i] >= np.uint8(0xF0))
            bad = follows != must
            bad |= (p == np.uint8(0xE0)) & (b < np.uint8(0xA0))
            bad |= (p == np.uint8(0xED)) & (b > np.uint8(0x9F))
            bad |= (p == np.uint8(0xF0)) & (b < np.uint8(0x90))
            bad |= (p == np.uint8(0xF4)) & (b > np.uint8(0x8F))
            bad |= (b == np.uint8(0xC0)) | (b == np.uint8(0xC1)) | (b > np.uint8(0xF4))
            flags[i] = np.uint8(bad)
        any_ = np.uint64(0)
        for i in range(words.size):
            any_ |= words[i]
        if any_:
            return 0
        # a short block is the last one, and what an open character lacks has been missed at its zeros
        if count == block:
            window[0], window[1], window[2] = text[block - 3], text[block - 2], text[block - 1]
            open_ = window[0] > 127 or window[1] > 127 or window[2] > 127
        else:
            open_ = False
        at += count
    if open_ and (window[2] >= 0xC0 or window[1] >= 0xE0 or window[0] >= 0xF0):
        return 0
    if ascii_:
        return 1
    for i in range(offsets.size - 1):
        start = offsets[i]
        if start < size and (data[start] & 0xC0) == 0x80:
            return 0
    return 1


_VALID = {width: Kernel(valid_numba, f"u1(r.u1, r.i{width}, u1, u1)", small=1 << 10) for width in (4, 8)}
