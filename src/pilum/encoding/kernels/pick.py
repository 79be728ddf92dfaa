"""Single values of mini-block chunks, read where they lie: what a take of scattered rows needs of a page.

A chunk holds up to thousands of values; unpacking them all, with some fifteen array operations, to use one of them
took 200 µs a column.  Here the header of each row's chunk is read, and then one value and one definition level of it.
Only codecs whose values can be found without the others take part (`spec/compression.md`, sections 4.1, 4.2, 4.5,
4.6 and 4.9).  The kernel says yes or no; after a no the page is decoded chunk by chunk, which says what is wrong.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.locate import LOCATE

__all__ = [
    "FLAT",
    "INLINE",
    "NONE",
    "OUT_OF_LINE",
    "PICK",
    "RUNS",
    "STRINGS",
    "Shape",
    "cost_without",
    "pick",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]
Levels: TypeAlias = npt.NDArray[np.uint16]

# What a call and each of its rows cost without the kernel, in bytes that NumPy would process meanwhile.
_CALL = 96 << 10
_ROW = 16 << 10
NONE, FLAT, INLINE, OUT_OF_LINE, RUNS, STRINGS = range(6)


class Shape(NamedTuple):
    """What all chunks of a page have in common.

    Attributes:
        header: bytes of the header, padded.
        large: whether sizes of value buffers have 32 bits.
        levels: codec of the definition levels, `NONE` if there are none.
        level_bits: bits of a packed one (`OUT_OF_LINE`).
        values: codec of the values; `RUNS` have two buffers, all others one.
        bits: of a value; of an offset (`STRINGS`).
        passed: level buffers in front of the values that are not looked at (`pick_lists` has read them).
    """

    header: int
    large: bool
    levels: int
    level_bits: int
    values: int
    bits: int
    passed: int = 0


def cost_without(rows: int) -> int:
    """What it costs to decode the chunks of some rows instead, for `Kernel.get`."""
    return _CALL + _ROW * rows


def pick(
    data: Bytes, starts: Ints, ends: Ints, counts: Ints, of_value: Ints, positions: Ints, shape: Shape
) -> tuple[npt.NDArray[np.uint64], Ints, Levels | None] | None:
    """Single values of some chunks.

    Args:
        data: the chunks; chunk c is ``data[starts[c]:ends[c]]``.
        counts: values in each chunk.
        of_value: the chunk of each value.
        positions: of each value within its chunk.
        shape: of the chunks.

    Returns:
        The values as words, or where strings begin in ``data``; the sizes of the strings; the levels.  None if there
        is no kernel, or a chunk is not as it should be.
    """
    kernel = PICK.get(cost_without(len(positions)))
    if kernel is None:
        return None
    count = len(positions)
    values = np.empty(count, np.uint64)
    sizes = np.empty(count if shape.values == STRINGS else 0, np.int64)
    levels = np.empty(count if shape.levels else 0, np.uint16)
    good = kernel(
        data, starts, ends, counts, of_value, positions, shape.header, shape.large, shape.levels, shape.level_bits,
        shape.values, shape.bits, shape.passed, values, sizes, levels,
    )  # fmt: skip
    return (values, sizes, levels if shape.levels else None) if good else None


def pick_numba(
    data: Any, starts: Any, ends: Any, counts: Any, of_value: Any, positions: Any, header: int, large: int, levels: int,
    level_bits: int, values: int, bits: int, passed: int, out: Any, sizes: Any, out_levels: Levels,
) -> int:  # fmt: skip
    for row in range(positions.size):
        chunk, position = of_value[row], positions[row]
        if not 0 <= chunk < starts.size:
            return 0
        start, end, count = starts[chunk], ends[chunk], counts[chunk]
        if start < 0 or end > data.size or end - start < header or not 0 <= position < count:
            return 0
        at = start + header
        field = start + 2
        for _ in range(passed):
            size = np.int64(data[field]) | np.int64(data[field + 1]) << 8
            field += 2
            at += (size + 7) // 8 * 8
        # -- the definition level, then the value: one codec each, in the same words
        for part in range(2):
            if part == 0:
                if levels == 0:
                    continue
                if np.int64(data[start]) | np.int64(data[start + 1]) << 8 != count:
                    return 0
                codec, width = levels, 16
                size = np.int64(data[field]) | np.int64(data[field + 1]) << 8
                field += 2
            else:
                codec, width = values, bits
                size = np.int64(data[field]) | np.int64(data[field + 1]) << 8
                field += 2
                if large:
                    size |= np.int64(data[field]) << 16 | np.int64(data[field + 1]) << 24
                    field += 2
            if at + size > end:
                return 0
            step = width // 8
            value = np.uint64(0)
            if codec == 1 and width == 1:  # flat, booleans
                if 8 * size < count:
                    return 0
                value = np.uint64((data[at + position // 8] >> (position % 8)) & 1)
            elif codec == 1:  # flat
                if size < count * step:
                    return 0
                for k in range(step):
                    value |= np.uint64(data[at + position * step + k]) << np.uint64(8 * k)
            elif codec == 2 or codec == 3:  # packed groups of 1024: the width in front of one, or known
                body = at
                inner = position
                packed = level_bits
                raw = False
                if codec == 2:
                    if size < step or count > 1024:
                        return 0
                    packed = int(data[at])
                    for k in range(1, step):
                        if data[at + k]:
                            return 0
                    if packed > width or size != step + 128 * packed:
                        return 0
                    body = at + step
                else:
                    full = count // 1024
                    tail = count % 1024
                    rest = size - full * 128 * packed
                    raw = rest == 2 * tail
                    if not raw and (tail == 0 or rest != 128 * packed):
                        return 0
                    group = position // 1024
                    raw = raw and group == full
                    body = at + group * 128 * packed
                    inner = position % 1024
                if raw:
                    value = np.uint64(data[body + 2 * inner]) | np.uint64(
                        data[body + 2 * inner + 1]
                    ) << np.uint64(8)
                elif packed:
                    # the inverse of the order of rows (kernels.bitpacking); reversing three bits undoes itself
                    lanes = 1024 // width
                    octet = (inner % 128) // lanes * (lanes // 16) if lanes <= 64 else 0
                    octet = (octet & 1) << 2 | (octet & 2) | (octet & 4) >> 2
                    lane = inner % lanes
                    bit = (8 * octet + inner // 128) * packed
                    shift = bit % width
                    place = body + (bit // width * lanes + lane) * step
                    for k in range(step):
                        value |= np.uint64(data[place + k]) << np.uint64(8 * k)
                    value >>= np.uint64(shift)
                    if shift + packed > width:
                        more = np.uint64(0)
                        for k in range(step):
                            more |= np.uint64(data[place + lanes * step + k]) << np.uint64(8 * k)
                        value |= more << np.uint64(width - shift)
                    if packed < 64:
                        value &= (np.uint64(1) << np.uint64(packed)) - np.uint64(1)
            elif (
                codec == 4
            ):  # runs: values and lengths, in two buffers or in one with the size of the first in front
                first = at
                if part == 0:
                    if size < 8:
                        return 0
                    bytes_ = np.int64(0)
                    for k in range(7):
                        bytes_ |= np.int64(data[at + k]) << (8 * k)
                    if data[at + 7] or bytes_ > size - 8:
                        return 0
                    first = at + 8
                    lengths = first + bytes_
                    entries = size - 8 - bytes_
                else:
                    bytes_ = size
                    lengths = at + (size + 7) // 8 * 8
                    entries = np.int64(data[field]) | np.int64(data[field + 1]) << 8
                    if large:
                        entries |= np.int64(data[field + 2]) << 16 | np.int64(data[field + 3]) << 24
                if bytes_ != entries * step or lengths + entries > end:
                    return 0
                total = 0
                found = -1
                for e in range(entries):
                    run = int(data[lengths + e])
                    if run == 0:
                        return 0
                    if found < 0 and total + run > position:
                        found = e
                    total += run
                if found < 0 or total < count or (part == 0 and total != count):
                    return 0
                for k in range(step):
                    value |= np.uint64(data[first + found * step + k]) << np.uint64(8 * k)
            else:  # strings: offsets from the start of the buffer
                head = (count + 1) * step
                if size < head:
                    return 0
                place = at + position * step
                low, high = np.int64(0), np.int64(0)
                for k in range(min(step, 7)):
                    low |= np.int64(data[place + k]) << (8 * k)
                    high |= np.int64(data[place + step + k]) << (8 * k)
                if step == 8 and (data[place + 7] or data[place + 15]):
                    return 0
                if not head <= low <= high <= size:
                    return 0
                value = np.uint64(at + low)
                sizes[row] = high - low
            if part == 0:
                out_levels[row] = value
                at += (size + 7) // 8 * 8
            else:
                out[row] = value
    return 1


PICK = Kernel(
    pick_numba,
    "u1(r.u1, r.i8, r.i8, r.i8, r.i8, r.i8, =i8, =i8, =i8, =i8, =i8, =i8, =i8, u8, i8, u2)",
    small=0,
    nogil=False,
    companions=(LOCATE,),
)
