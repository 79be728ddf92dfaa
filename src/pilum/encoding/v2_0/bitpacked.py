"""Bit-packed integers, as previews of 2.1 wrote them (`spec/file-2.0-and-0.1.md`, A.4).

    bitpacked(w, T, signed)        value i is the bits [i*w, (i+1)*w) of the buffer, LSB first, widened to T bits
    bitpacked_for_non_neg(w, T)    groups of 1024 values, 128*w bytes each, in FastLanes order (kernels.bitpacking)

Only read: no writer of format 2.0 produces them by default.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pilum import distinct
from pilum.encoding.blocks import Bytes, FixedBlock, take_block, unpack_bits
from pilum.encoding.kernels import bitpacking
from pilum.encoding.page import Range, Rows
from pilum.encoding.v2_0.reads import GAP, ArrayDecoder, ArrayRead, Values, plan_runs
from pilum.errors import CorruptFileError

__all__ = ["BitpackedDecoder", "GroupsDecoder"]

_GROUP = bitpacking.GROUP
_STEP = 1 << 16  # values widened at once: bounds the memory for single bits


class BitpackedDecoder(ArrayDecoder):
    """Values of ``width`` bits without any padding between them."""

    __slots__ = ("bits", "low", "signed", "width")

    def __init__(self, width: int, bits: int, signed: bool, buffer: Range, count: int) -> None:
        _check(width, bits)
        if 8 * (buffer[1] - buffer[0]) < count * width:
            raise CorruptFileError(
                f"{count} values packed to {width} bits do not fit {buffer[1] - buffer[0]} bytes"
            )
        self.width, self.bits, self.signed = width, bits, signed
        self.low, self.count = buffer[0], count

    def schedule(self, rows: Rows) -> ArrayRead:
        width, low = self.width, self.low
        if not len(rows):
            return ArrayRead([], lambda buffers: Values(FixedBlock(self.bits, np.empty(0, np.uint8), 0)))
        starts, stops, picks = plan_runs(rows, 8 * GAP // width)

        def decode(buffers: list[Bytes]) -> Values:
            parts = [
                self._widen(data, (first * width) & 7, last - first)
                for data, first, last in zip(buffers, starts, stops, strict=True)
            ]
            data = np.concatenate(parts)
            block = FixedBlock(self.bits, data, len(data) * 8 // self.bits)
            return Values(block if picks is None else take_block(block, picks))

        edges = zip(starts, stops, strict=True)
        return ArrayRead([(low + a * width // 8, low + (b * width + 7) // 8) for a, b in edges], decode)

    def _widen(self, data: Bytes, shift: int, count: int) -> Bytes:
        out = []
        for at in range(0, count, _STEP):
            size = min(_STEP, count - at)
            bits = unpack_bits(data, size * self.width, shift + at * self.width).view(np.uint8)
            grid = np.zeros((size, self.bits), np.uint8)
            grid[:, : self.width] = bits.reshape(size, self.width)
            if self.signed:
                grid[:, self.width :] = grid[:, self.width - 1 : self.width]
            out.append(np.packbits(grid.reshape(-1), bitorder="little"))
        return np.concatenate(out)


class GroupsDecoder(ArrayDecoder):
    """FastLanes groups of 1024 values, all of one width."""

    __slots__ = ("bits", "low", "width")

    def __init__(self, width: int, bits: int, buffer: Range, count: int) -> None:
        _check(width, bits)
        if buffer[1] - buffer[0] < -(-count // _GROUP) * 128 * width:
            raise CorruptFileError(
                f"{count} values packed to {width} bits do not fit {buffer[1] - buffer[0]} bytes"
            )
        self.width, self.bits = width, bits
        self.low, self.count = buffer[0], count

    def schedule(self, rows: Rows) -> ArrayRead:
        packed, low, bits = 128 * self.width, self.low, self.bits
        if not len(rows):
            return ArrayRead([], lambda buffers: Values(FixedBlock(bits, np.empty(0, np.uint8), 0)))
        places: npt.NDArray[np.int64]
        if isinstance(rows, range):
            first, last = rows.start // _GROUP, (rows.stop + _GROUP - 1) // _GROUP
            starts, stops = [first], [last]
            places = np.arange(rows.start, rows.stop) - first * _GROUP
        else:
            groups, which = distinct.unique_inverse(rows // _GROUP)
            starts, stops, picks = plan_runs(groups, 0)
            assert picks is None
            places = which * _GROUP + rows % _GROUP

        def decode(buffers: list[Bytes]) -> Values:
            data = np.concatenate(buffers)
            count = len(data) // packed
            words = bitpacking.unpack(data, np.arange(count) * packed, np.full(count, self.width), bits)
            return Values(take_block(FixedBlock(bits, words, count * _GROUP), places))

        edges = zip(starts, stops, strict=True)
        return ArrayRead([(low + a * packed, low + b * packed) for a, b in edges], decode)


def _check(width: int, bits: int) -> None:
    if bits not in (8, 16, 32, 64) or not 1 <= width <= bits:
        raise CorruptFileError(f"integers of {bits} bits packed to {width} bits")
