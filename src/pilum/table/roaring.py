"""Portable 32-bit Roaring bitmaps to and from sorted arrays (spec/table.md, section 11).

    u32 cookie: 12346, then u32 container count n
            or: 12347 | (n - 1) << 16, then ceil(n / 8) bytes of run flags, least significant bit first
    n x (u16 key, u16 cardinality - 1)
    n x u32 byte offset of the container          always for 12346, for 12347 when n >= 4
    containers: array   sorted u16 values                       cardinality <= 4096
                bitset  8192 bytes, least significant bit first  above
                run     u16 count, count x (u16 start, u16 length - 1)

Deletion files and the fragment bitmaps of indices use this form.  The decoder trusts nothing: it is written
here because a native library fed with contradictory cardinalities may write outside its buffers.  Work is per
container (65,536 values), not per value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pilum import distinct
from pilum.errors import CorruptFileError

__all__ = ["decode_roaring", "encode_roaring"]

Offsets = npt.NDArray[np.uint32]

_COOKIE = 12346
_COOKIE_WITH_RUNS = 12347
_ARRAY_LIMIT = 4096
_BITSET_BYTES = 8192
_OFFSETS_FROM = 4


def encode_roaring(values: Offsets) -> bytes:
    """Encode strictly ascending values as the reference does: without run containers."""
    keys, starts = distinct.unique_first(values >> np.uint32(16))
    count = len(keys)
    bounds = [*starts.tolist(), len(values)]
    head = np.empty((count, 2), dtype="<u2")
    offsets = np.empty(count, dtype="<u4")
    containers: list[bytes] = []
    position = 8 + 8 * count
    for index in range(count):
        low = (values[bounds[index] : bounds[index + 1]] & np.uint32(0xFFFF)).astype("<u2")
        head[index] = keys[index], len(low) - 1
        offsets[index] = position
        if len(low) <= _ARRAY_LIMIT:
            container = low.tobytes()
        else:
            bits = np.zeros(1 << 16, dtype=np.uint8)
            bits[low] = 1
            container = np.packbits(bits, bitorder="little").tobytes()
        containers.append(container)
        position += len(container)
    start = np.array([_COOKIE, count], dtype="<u4").tobytes()
    return b"".join([start, head.tobytes(), offsets.tobytes(), *containers])


def decode_roaring(data: Any, where: str) -> Offsets:
    """Decode a bitmap to strictly ascending values.

    Args:
        data: bytes or a uint8 array.
        where: path of the file, for messages.

    Raises:
        CorruptFileError: the bytes contradict the format.
    """
    reader = _Reader(np.frombuffer(data, dtype=np.uint8), where)
    cookie = int(reader.numbers(1, "<u4")[0])
    runs: npt.NDArray[Any]
    if cookie == _COOKIE:
        count = int(reader.numbers(1, "<u4")[0])
        if count > 1 << 16:
            raise reader.error(f"it claims {count} containers")
        runs = np.zeros(count, dtype=np.uint8)
    elif cookie & 0xFFFF == _COOKIE_WITH_RUNS:
        count = (cookie >> 16) + 1
        flags = reader.numbers((count + 7) // 8, "u1")
        runs = np.unpackbits(flags, count=count, bitorder="little")
    else:
        raise reader.error(f"it begins with {cookie} instead of {_COOKIE}")
    head = reader.numbers(2 * count, "<u2").reshape(count, 2)
    keys = head[:, 0].astype(np.uint32)
    if np.any(keys[1:] <= keys[:-1]):
        raise reader.error("its keys do not ascend")
    cardinalities = head[:, 1].astype(np.int64) + 1
    if cookie == _COOKIE or count >= _OFFSETS_FROM:
        # Containers follow each other, so the offsets only confirm what is read anyway.
        offsets = reader.numbers(count, "<u4")
        if count and offsets[0] != reader.position:
            raise reader.error(f"its first container begins at {offsets[0]}, expected {reader.position}")
    parts = [np.empty(0, dtype=np.uint32)]
    for index in range(count):
        low = reader.container(int(cardinalities[index]), bool(runs[index]))
        parts.append(low.astype(np.uint32) + (keys[index] << np.uint32(16)))
    return np.concatenate(parts)


class _Reader:
    """A cursor over the bytes that checks every step."""

    def __init__(self, data: npt.NDArray[np.uint8], where: str) -> None:
        self.data = data
        self.where = where
        self.position = 0

    def error(self, what: str) -> CorruptFileError:
        return CorruptFileError(f"{self.where}: not a valid Roaring bitmap: {what}")

    def numbers(self, count: int, kind: str) -> npt.NDArray[Any]:
        size = count * np.dtype(kind).itemsize
        end = self.position + size
        if end > len(self.data):
            raise self.error(f"it ends at byte {len(self.data)}, needs {end}")
        part = np.frombuffer(self.data[self.position : end].tobytes(), dtype=kind)
        self.position = end
        return part

    def container(self, cardinality: int, is_run: bool) -> npt.NDArray[Any]:
        """Low halves of one container, strictly ascending."""
        values: npt.NDArray[Any]
        if is_run:
            values = self._runs()
        elif cardinality <= _ARRAY_LIMIT:
            values = self.numbers(cardinality, "<u2")
            if np.any(values[1:] <= values[:-1]):
                raise self.error("the values of a container do not ascend")
        else:
            values = np.flatnonzero(np.unpackbits(self.numbers(_BITSET_BYTES, "u1"), bitorder="little"))
        if len(values) != cardinality:
            raise self.error(f"a container holds {len(values)} values, its header says {cardinality}")
        return values

    def _runs(self) -> npt.NDArray[Any]:
        count = int(self.numbers(1, "<u2")[0])
        pairs = self.numbers(2 * count, "<u2").reshape(count, 2).astype(np.int64)
        first, last = pairs[:, 0], pairs[:, 0] + pairs[:, 1]
        if np.any(first[1:] <= last[:-1]) or (count and last[-1] > 0xFFFF):
            raise self.error("the runs of a container overlap or leave it")
        lengths = pairs[:, 1] + 1
        total = int(lengths.sum())
        ends = np.cumsum(lengths)
        return np.repeat(first - (ends - lengths), lengths) + np.arange(total)
