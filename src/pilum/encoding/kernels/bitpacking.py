"""FastLanes bit-packing of groups of 1024 words (`spec/compression.md`, sections 4.4 and 11).

A group of 1024 values of T bits is L = 1024 / T lanes of T rows; row r of all lanes is the
contiguous run of L values that starts at ``16 * FL[r // 8] + 128 * (r % 8)``, and word k of
all lanes is the contiguous run of L packed words at ``k * L``.  Both runs are 1024 bits, that
is 16 words of 64 bits, whatever T is:

    packed group   W rows x 16 x u64          value group   T rows x 16 x u64

So a row is unpacked with shifts of whole 64-bit words and masks that cut off what came from
the neighbouring lane, and one loop over 16 words serves every T and every W:

    k, sh = divmod(r * W, T)
    lo = packed[k] >> sh              & lanes(low bits, as many as are left in word k)
    hi = packed[k+1] << (T - sh)      & lanes(the rest)          only if sh + W > T

All functions work on groups: the caller says where each packed group starts and how wide it
is, and pads the last group.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum import distinct
from pilum.encoding.kernels import Kernel, ranges
from pilum.encoding.kernels.memory import empty, zeros

__all__ = ["GROUP", "bit_length", "bit_widths", "pack", "unpack", "unpack_words"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Words64: TypeAlias = npt.NDArray[np.uint64]
Ints: TypeAlias = npt.NDArray[Any]

_FL = (0, 4, 2, 6, 1, 5, 3, 7)
GROUP = 1024
_FEW = 4  # groups of one width that are gathered by position


def unpack(data: Bytes, starts: Ints, widths: Ints, bits: int) -> Bytes:
    """Unpack groups of 1024 words.

    Args:
        data: the bytes that hold the packed groups.
        starts: byte offset of each group's first packed word (after any header).
        widths: packed bits per value of each group, 0 ≤ W ≤ ``bits``; ``128 * W`` bytes
            at each start have been checked to lie inside ``data``.
        bits: T, one of 8, 16, 32, 64.

    Returns:
        ``1024 * bits // 8`` bytes per group, in group order.
    """
    words, at = ranges.word_view(data, starts, 128 * np.asarray(widths, np.int64), 8)
    return unpack_words(words, at, np.ascontiguousarray(widths, np.int64), bits)


def unpack_words(words: Words64, at: Ints, widths: Ints, bits: int) -> Bytes:
    """`unpack` of groups that begin at ``at`` in ``words``."""
    out = empty(len(at) * bits * 16, np.uint64)
    kernel = _UNPACK.get(out.nbytes)
    (kernel or unpack_numpy)(words, at, widths, bits, out)
    return out.view(np.uint8)


def pack(values: Bytes, widths: Ints, bits: int, header: int = 0) -> tuple[Bytes, Ints]:
    """Pack groups of 1024 words, each to its own width.

    Args:
        values: ``1024 * bits // 8`` bytes per group (zero-padded by the caller).
        widths: packed bits per value; every value of the group must fit.
        bits: T.
        header: bytes to leave free (zeroed) in front of each packed group.

    Returns:
        The packed bytes and the size of each group, header included.
    """
    sizes = header + 128 * np.ascontiguousarray(widths, np.int64)
    ends = np.cumsum(sizes)
    packed = zeros(int(widths.sum()) * 16, np.uint64)
    source = np.ascontiguousarray(values).view(np.uint64)
    kernel = _PACK.get(source.nbytes)
    (kernel or pack_numpy)(source, np.ascontiguousarray(widths, np.int64), bits, packed)
    if not header:
        return packed.view(np.uint8), sizes
    out = empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    out[(ends - sizes)[:, None] + np.arange(header)] = 0
    body = sizes - header
    ranges.scatter(packed.view(np.uint8), np.cumsum(body) - body, body, out, ends - body)
    return out, sizes


def bit_widths(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Bit length of the OR of each group of 1024 unsigned words (the last may be short)."""
    if len(values) <= GROUP:  # a small page: plain integers are several times faster
        return np.array([int(np.bitwise_or.reduce(values)).bit_length()] if len(values) else [], np.int64)
    full = len(values) // GROUP
    ors = np.bitwise_or.reduce(values[: full * GROUP].reshape(full, GROUP), axis=1)
    if len(values) % GROUP:
        ors = np.append(ors, np.bitwise_or.reduce(values[full * GROUP :]))
    return bit_length(ors)


def bit_length(words: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Bit length of each unsigned word (exact for all 64 bits)."""
    high = (words.astype(np.uint64) >> np.uint64(32)).astype(np.float64)
    low = (words.astype(np.uint64) & np.uint64(0xFFFFFFFF)).astype(np.float64)
    value = np.where(high > 0, high, low)
    exponent = np.frexp(value)[1].astype(np.int64)  # value < 2**32 is exact in f64; frexp(0) gives 0
    return np.where(high > 0, exponent + 32, exponent)


def _row_start(row: int, bits: int) -> int:
    """Row's position among the group's output, in units of 1024 bits."""
    return (16 * _FL[row // 8] + 128 * (row % 8)) * bits // GROUP


def _lanes(count: int, bits: int) -> int:
    """A 64-bit mask with the low ``count`` bits of every lane of ``bits`` bits."""
    mask = 0
    for lane in range(64 // bits):
        mask |= ((1 << count) - 1) << (lane * bits)
    return mask


def unpack_numpy(words: Words64, starts: Ints, widths: Ints, bits: int, out: Words64) -> None:
    grid = out.reshape(len(starts), bits, 16)
    for width in distinct.unique(widths).tolist():
        members = np.flatnonzero(widths == width)
        if width == 0:
            grid[members] = 0
            continue
        first = int(members[0])
        if len(members) == len(starts) and bool((np.diff(starts) == 16 * width).all()):
            base = int(starts[0])
            packed = words[base : base + len(starts) * width * 16].reshape(len(starts), width, 16)
            target = grid
        elif len(members) == 1:
            base = int(starts[first])
            packed = words[base : base + width * 16].reshape(1, width, 16)
            target = grid[first : first + 1]
        else:
            packed = words[starts[members][:, None] + np.arange(width * 16)].reshape(-1, width, 16)
            target = np.empty((len(members), bits, 16), np.uint64)
        if len(members) <= _FEW:
            _gather_groups(packed.reshape(len(members), -1), width, bits, target)
            if target.base is not grid and target is not grid:
                grid[members] = target
            continue
        for row in range(bits):
            k, shift = divmod(row * width, bits)
            left = min(width, bits - shift)
            value = (packed[:, k] >> np.uint64(shift)) & np.uint64(_lanes(left, bits))
            if left < width:
                mask = _lanes(width, bits) & ~_lanes(left, bits)
                value |= (packed[:, k + 1] << np.uint64(bits - shift)) & np.uint64(mask)
            target[:, _row_start(row, bits)] = value
        if target.base is not grid and target is not grid:
            grid[members] = target


@lru_cache(maxsize=128)
def _gather_plan(width: int, bits: int) -> tuple[npt.NDArray[Any], ...]:
    """Per position of a group: the two words that hold its bits, shifts and mask of the second."""
    lanes = GROUP // bits
    row, lane = np.divmod(np.arange(GROUP), lanes)
    position = (16 * np.array(_FL)[row // 8] + 128 * (row % 8)) + lane
    first = np.empty(GROUP, np.int64)
    first[position] = row * width
    where = np.empty(GROUP, np.int64)
    where[position] = lane
    k, shift = np.divmod(first, bits)
    spills = shift + width > bits
    low = k * lanes + where
    word = np.dtype(f"<u{bits // 8}")
    high_shift = np.where(spills, bits - shift, 0).astype(word)
    high_mask = np.where(spills, word.type((1 << width) - 1), word.type(0))
    return low, shift.astype(word), np.where(spills, low + lanes, low), high_shift, high_mask


def _gather_groups(packed: Words64, width: int, bits: int, target: Words64) -> None:
    """Unpack few groups: 10 µs each instead of four NumPy calls for each of ``bits`` rows."""
    low, shift, high, high_shift, high_mask = _gather_plan(width, bits)
    words = packed.view(shift.dtype)
    value = (words[:, low] >> shift) & shift.dtype.type((1 << width) - 1)
    value |= (words[:, high] << high_shift) & high_mask
    target.reshape(len(packed), -1)[:] = np.ascontiguousarray(value).view(np.uint64)


def pack_numpy(values: Words64, widths: Ints, bits: int, out: Words64) -> None:
    grid = values.reshape(len(widths), bits, 16)
    ends = np.cumsum(widths)
    starts = ends - widths
    rows = out.reshape(-1, 16)
    for width in distinct.unique(widths).tolist():
        if width == 0:
            continue
        members = np.flatnonzero(widths == width)
        source = grid[members]
        packed = np.zeros((len(members), width, 16), np.uint64)
        for row in range(bits):
            k, shift = divmod(row * width, bits)
            left = min(width, bits - shift)
            value = source[:, _row_start(row, bits)]
            packed[:, k] |= (value & np.uint64(_lanes(left, bits))) << np.uint64(shift)
            if left < width:
                rest = np.uint64(_lanes(width - left, bits))
                packed[:, k + 1] |= (value >> np.uint64(left)) & rest
        rows[starts[members][:, None] + np.arange(width)] = packed


# The compiled loops keep every index unsigned or relative to a slice: Numba then needs no check
# for negative indices, and the loops over 16 words vectorise (10 to 20 GB/s of values per core).


def unpack_numba(words: Words64, starts: Ints, widths: Ints, bits: int, out: Words64) -> None:
    one = np.uint64(1)
    step = np.uint64(16)
    size = np.uint64(bits)
    ones = np.uint64(0)  # the lowest bit of every lane
    for lane in range(64 // bits):
        ones |= one << np.uint64(lane * bits)
    full = ~np.uint64(0) if bits == 64 else (one << size) - one
    for g in range(starts.size):
        width = np.uint64(widths[g])
        place = out[g * bits * 16 : (g + 1) * bits * 16]
        if width == np.uint64(0):
            place[:] = np.uint64(0)
            continue
        piece = words[starts[g] : starts[g] + 16 * widths[g]]
        low = full if width == size else (one << width) - one
        mask = ones * low
        at = np.uint64(0)
        shift = np.uint64(0)
        for octet in range(bits // 8):
            order = ((octet & 1) << 2) | (octet & 2) | ((octet & 4) >> 2)
            for s in range(8):
                to = np.uint64((16 * order + 128 * s) * bits // 64)
                if shift + width <= size:
                    for j in range(step):
                        place[to + j] = (piece[at + j] >> shift) & mask
                else:
                    left = size - shift
                    low_left = (one << left) - one
                    first = ones * low_left
                    rest = ones * (low & ~low_left)
                    for j in range(step):
                        place[to + j] = ((piece[at + j] >> shift) & first) | (
                            (piece[at + step + j] << left) & rest
                        )
                shift += width
                if shift >= size:
                    shift -= size
                    at += step


def pack_numba(values: Words64, widths: Ints, bits: int, out: Words64) -> None:
    one = np.uint64(1)
    step = np.uint64(16)
    size = np.uint64(bits)
    ones = np.uint64(0)
    for lane in range(64 // bits):
        ones |= one << np.uint64(lane * bits)
    full = ~np.uint64(0) if bits == 64 else (one << size) - one
    base = 0
    for g in range(widths.size):
        width = np.uint64(widths[g])
        if width == np.uint64(0):
            continue
        piece = values[g * bits * 16 : (g + 1) * bits * 16]
        place = out[base : base + 16 * widths[g]]
        base += 16 * widths[g]
        low = full if width == size else (one << width) - one
        mask = ones * low
        at = np.uint64(0)
        shift = np.uint64(0)
        for octet in range(bits // 8):
            order = ((octet & 1) << 2) | (octet & 2) | ((octet & 4) >> 2)
            for s in range(8):
                source = np.uint64((16 * order + 128 * s) * bits // 64)
                if shift + width <= size:
                    for j in range(step):
                        place[at + j] |= (piece[source + j] & mask) << shift
                else:
                    left = size - shift
                    first = ones * ((one << left) - one)
                    rest = ones * (low >> left)
                    for j in range(step):
                        place[at + j] |= (piece[source + j] & first) << shift
                        place[at + step + j] |= (piece[source + j] >> left) & rest
                shift += width
                if shift >= size:
                    shift -= size
                    at += step


_UNPACK = Kernel(unpack_numba, "void(r.u8, r.i8, r.i8, =i8, u8)", small=0)
_PACK = Kernel(pack_numba, "void(r.u8, r.i8, =i8, u8)", small=0)
