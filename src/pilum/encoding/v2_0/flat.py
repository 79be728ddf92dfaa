"""Flat: values back to back (`spec/file-2.0-and-0.1.md`, A.4).

    bits = 1          bit i is  byte[i >> 3] >> (i & 7) & 1       booleans and validity
    bits = 8 * W      value i begins at byte i * W
    compression       the whole buffer is one compressed block

Without compression every value is addressable.  `spans` reads byte ranges of an 8-bit buffer: the bytes of strings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pilum.encoding.blocks import Bytes, FixedBlock, pack_bits, slice_block, take_block
from pilum.encoding.codecs import general
from pilum.encoding.kernels import ranges
from pilum.encoding.page import Range, Rows
from pilum.encoding.v2_0.reads import GAP, ArrayDecoder, ArrayRead, Ints, PageBuffers, Values, plan_runs
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = ["FlatDecoder", "fixed_bits", "open_flat", "read_spans"]

_SCHEMES = {"lz4": 1, "zstd": 2}


class FlatDecoder(ArrayDecoder):
    """Values of ``bits`` bits in one buffer.

    Attributes:
        bits: per value.
        low, high: byte range of the buffer.
        scheme: ``lz4`` or ``zstd``; None when not compressed.
    """

    __slots__ = ("bits", "high", "low", "scheme")

    def __init__(self, bits: int, buffer: Range, count: int, scheme: str | None = None) -> None:
        self.bits = bits
        self.low, self.high = buffer
        self.count = count
        self.scheme = scheme
        if scheme is None and 8 * (self.high - self.low) < count * bits:
            raise CorruptFileError(
                f"{count} values of {bits} bits do not fit a buffer of {self.high - self.low} bytes"
            )

    def schedule(self, rows: Rows) -> ArrayRead:
        if not len(rows):
            return ArrayRead([], lambda buffers: Values(FixedBlock(self.bits, _NOTHING, 0)))
        if self.scheme is not None:
            return ArrayRead([(self.low, self.high)], lambda buffers: self._decompressed(buffers[0], rows))
        if self.bits == 1:
            return self._schedule_bits(rows)
        width, low = self.bits // 8, self.low
        if isinstance(rows, range):
            count = len(rows)
            return ArrayRead(
                [(low + rows.start * width, low + rows.stop * width)],
                lambda buffers: Values(FixedBlock(self.bits, buffers[0], count)),
            )
        starts, stops, picks = plan_runs(rows, GAP // width if width else 0)

        def decode(buffers: list[Bytes]) -> Values:
            data = buffers[0] if len(buffers) == 1 else np.concatenate(buffers)
            block = FixedBlock(self.bits, data, len(data) // width)
            return Values(block if picks is None else take_block(block, picks))

        return ArrayRead(
            [(low + a * width, low + b * width) for a, b in zip(starts, stops, strict=True)], decode
        )

    def _schedule_bits(self, rows: Rows) -> ArrayRead:
        low = self.low
        if isinstance(rows, range):
            shift, count = rows.start & 7, len(rows)
            return ArrayRead(
                [(low + rows.start // 8, low + (rows.stop + 7) // 8)],
                lambda buffers: Values(slice_block(FixedBlock(1, buffers[0], shift + count), shift, count)),
            )
        holders = rows >> 3
        new = np.append(True, holders[1:] != holders[:-1])
        holders, place = holders[new], np.cumsum(new) - 1
        starts, stops, picks = plan_runs(holders, GAP)

        def decode(buffers: list[Bytes]) -> Values:
            data = np.concatenate(buffers)
            at = place if picks is None else picks[place]
            bits = (data[at] >> (rows & 7).astype(np.uint8)) & np.uint8(1)
            return Values(FixedBlock(1, pack_bits(bits), len(rows)))

        return ArrayRead([(low + a, low + b) for a, b in zip(starts, stops, strict=True)], decode)

    def _plain(self, data: Bytes) -> Bytes:
        if self.scheme is None:
            return data
        return general.decompress(_SCHEMES[self.scheme], data)

    def _decompressed(self, buffer: Bytes, rows: Rows) -> Values:
        data = self._plain(buffer)
        if 8 * len(data) < self.count * self.bits:
            raise CorruptFileError(
                f"{self.count} values of {self.bits} bits do not fit {len(data)} decompressed bytes"
            )
        block = FixedBlock(self.bits, data, self.count)
        if isinstance(rows, range):
            return Values(slice_block(block, rows.start, len(rows)))
        return Values(take_block(block, rows))

    # -- byte strings ------------------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Length of the stored buffer."""
        return self.high - self.low

    def whole(self) -> ArrayRead:
        """All bytes of the buffer, decompressed."""
        if self.low == self.high:
            return ArrayRead([], lambda buffers: _NOTHING)
        return ArrayRead([(self.low, self.high)], lambda buffers: self._plain(buffers[0]))

    def spans(self, starts: Ints, sizes: Ints) -> ArrayRead:
        """The bytes of spans of the buffer, back to back.  Not for compressed buffers.

        Args:
            starts, sizes: in bytes of the buffer; checked by the caller to lie inside.
        """
        return read_spans(starts + self.low, sizes)


def read_spans(starts: Ints, sizes: Ints) -> ArrayRead:
    """The bytes of spans of the file, back to back in the order given; decodes to bytes.

    Args:
        starts, sizes: absolute; in any order, empty or overlapping; checked by the caller to lie in the file.
    """
    filled = np.flatnonzero(sizes)
    if not len(filled):
        return ArrayRead([], lambda buffers: _NOTHING)
    if len(filled) == 1:
        low, size = int(starts[filled[0]]), int(sizes[filled[0]])
        return ArrayRead([(low, low + size)], lambda buffers: buffers[0])
    if len(filled) != len(sizes):
        starts, sizes = starts[filled], sizes[filled]
    lows, highs, order = starts, starts + sizes, None
    if bool((lows[1:] < lows[:-1]).any()):
        order = np.argsort(lows, kind="stable")
        lows, highs = lows[order], highs[order]
    reach = np.maximum.accumulate(highs)
    cuts = np.flatnonzero(lows[1:] - reach[:-1] > GAP)
    firsts = lows[np.concatenate([[0], cuts + 1])]
    lasts = reach[np.concatenate([cuts, [len(reach) - 1]])]
    lengths = lasts - firsts
    ends = np.cumsum(lengths)
    exact = order is None and int(ends[-1]) == int(sizes.sum()) and bool((lows[1:] >= reach[:-1]).all())
    moved = _NO_INTS
    if not exact:
        counts = np.diff(np.concatenate([[0], cuts + 1, [len(lows)]]))
        places = lows - np.repeat(firsts - (ends - lengths), counts)
        if order is None:
            moved = places
        else:
            moved = np.empty(len(places), np.int64)
            moved[order] = places

    def decode(buffers: list[Bytes]) -> Bytes:
        data = buffers[0] if len(buffers) == 1 else np.concatenate(buffers)
        return data if exact else ranges.gather(data, moved, sizes)

    return ArrayRead(list(zip(firsts.tolist(), lasts.tolist(), strict=True)), decode)


def open_flat(message: Any, buffers: PageBuffers, count: int | None, arrow_type: Any) -> FlatDecoder:
    """The decoder of a ``Flat`` message.

    Args:
        message: it.
        buffers: of the page.
        count: values; None = as many as the buffer holds (byte buffers of strings).
        arrow_type: what the values are; None skips the check of their width.

    Raises:
        CorruptFileError: a width that is not allowed or not that of the type, a buffer that is too short.
        UnsupportedError: an unknown compression.
    """
    bits = int(message.bits_per_value)
    if bits != 1 and (bits % 8 or not bits):
        raise CorruptFileError(f"flat values of {bits} bits; 1 or a multiple of 8 is allowed")
    if arrow_type is not None and bits != fixed_bits(arrow_type):
        raise CorruptFileError(f"a column of type {arrow_type} is stored as flat values of {bits} bits")
    scheme = None
    if message.HasField("compression") and message.compression.scheme != "none":
        scheme = message.compression.scheme
        if scheme not in _SCHEMES:
            raise UnsupportedError(
                f"buffer compression {scheme!r} is not known; known are zstd, lz4 and none"
            )
    low, high = buffers.find(message)
    if count is None:
        count = 0 if scheme is not None else 8 * (high - low) // bits
    return FlatDecoder(bits, (low, high), count, scheme)


def fixed_bits(arrow_type: Any) -> int | None:
    """Bits of one stored value of a fixed-width type, None for all others."""
    if arrow_type.num_fields or pa.types.is_dictionary(arrow_type):
        return None
    try:
        return int(arrow_type.bit_width)
    except ValueError:
        return None


_NOTHING: Bytes = np.empty(0, np.uint8)
_NO_INTS: Ints = np.empty(0, np.int64)
