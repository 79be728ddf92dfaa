"""Byte strings: ``binary``, ``fsst`` and ``fixed_size_binary`` (`spec/file-2.0-and-0.1.md`, A.5).

    binary               indices (u64 ends, see `ends`) | bytes of all values, back to back
    fsst                 binary whose values are codes of a symbol table
    fixed_size_binary    bytes, w per value

Reading some values of ``binary`` takes two rounds: where their bytes are, then the bytes.  One is enough when the
whole page is wanted, when its bytes are few, and when they are compressed, since then all of them are read anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pilum.encoding.blocks import Block, Bytes, VariableBlock
from pilum.encoding.kernels import fsst, ranges
from pilum.encoding.page import Rows
from pilum.encoding.v2_0.ends import Extents, schedule_ends
from pilum.encoding.v2_0.flat import FlatDecoder
from pilum.encoding.v2_0.reads import ArrayDecoder, ArrayRead, Values, done, join, then
from pilum.errors import CorruptFileError

__all__ = ["BinaryDecoder", "FixedBytesDecoder", "FsstDecoder", "PackedBytes", "variable_block"]

# Up to this many bytes are read along with the ends instead of in a second round.
_FEW_BYTES = 16 << 10
_MAX_I32 = 2**31 - 1
_TABLE = 2312
_MAGIC = b"TSSF"


class PackedBytes:
    """The bytes of strings as bit-packed numbers, a habit of previews of 2.1; they are always read whole."""

    __slots__ = ("_decoder", "nbytes", "scheme")

    def __init__(self, decoder: ArrayDecoder, nbytes: int) -> None:
        self._decoder, self.nbytes, self.scheme = decoder, nbytes, "bitpacked"

    def whole(self) -> ArrayRead:
        """All bytes."""
        return then(self._decoder.schedule(range(self._decoder.count)), _bytes_of)


def _bytes_of(values: Values) -> Bytes:
    block: Any = values.block
    data: Bytes = block.data
    return data


class BinaryDecoder(ArrayDecoder):
    """Ends and bytes."""

    __slots__ = ("adjustment", "data", "indices", "offset_bits")

    def __init__(
        self, indices: ArrayDecoder, data: FlatDecoder | PackedBytes, adjustment: int, offset_bits: int
    ) -> None:
        self.indices, self.data = indices, data
        self.adjustment, self.offset_bits = adjustment, offset_bits
        self.count = indices.count

    def schedule(self, rows: Rows) -> ArrayRead:
        if not len(rows):
            return done(
                Values(VariableBlock(self.offset_bits, np.zeros(1, np.int32), np.empty(0, np.uint8), 0))
            )
        data = self.data
        limit = None if data.scheme is not None else data.nbytes
        ends = schedule_ends(self.indices, rows, self.adjustment, limit, wrap=False)
        if data.scheme is not None or data.nbytes <= _FEW_BYTES or len(rows) == self.count:
            return join([ends, data.whole()], lambda parts: self._cut(*parts))
        return then(ends, self._fetch)

    def _fetch(self, extents: Extents) -> ArrayRead:
        starts, ends, validity, adjacent = extents
        if adjacent:
            starts, ends = starts[:1], ends[-1:]
        assert isinstance(self.data, FlatDecoder)
        read = self.data.spans(starts, ends - starts)
        offsets = _offsets(extents, self.offset_bits)
        return then(read, lambda data: Values(variable_block(offsets, data, self.offset_bits), validity))

    def _cut(self, extents: Extents, data: Bytes) -> Values:
        starts, ends, validity, adjacent = extents
        if int(ends.max()) > len(data):
            raise CorruptFileError(f"strings end at {int(ends.max())}, there are only {len(data)} bytes")
        if adjacent:
            data = data[int(starts[0]) : int(ends[-1])]
        else:
            filled = ends > starts
            data = ranges.gather(data, starts[filled], (ends - starts)[filled])
        return Values(variable_block(_offsets(extents, self.offset_bits), data, self.offset_bits), validity)


def _offsets(extents: Extents, offset_bits: int) -> Any:
    """Arrow offsets of values that lie back to back, starting at 0; as wide as the type has them, if they fit."""
    starts, ends, _, adjacent = extents
    if adjacent:
        low = starts[0]
        narrow = offset_bits == 32 and int(ends[-1]) - int(low) <= _MAX_I32
        offsets: Any = np.empty(len(ends) + 1, np.int32 if narrow else np.int64)
        np.subtract(ends, low, out=offsets[1:], casting="unsafe")
    else:
        offsets = np.empty(len(ends) + 1, np.int64)
        np.cumsum(ends - starts, out=offsets[1:])
    offsets[0] = 0
    return offsets


def variable_block(offsets: Any, data: Bytes, offset_bits: int) -> VariableBlock:
    """A block of byte strings whose offsets are as wide as the type has them, if they fit."""
    if offset_bits == 32 and int(offsets[-1]) <= _MAX_I32:
        return VariableBlock(32, offsets.astype(np.int32, copy=False), data, len(offsets) - 1)
    return VariableBlock(64, offsets, data, len(offsets) - 1)


class FixedBytesDecoder(ArrayDecoder):
    """Byte strings of one length."""

    __slots__ = ("data", "offset_bits", "width")

    def __init__(self, data: FlatDecoder, width: int, count: int, offset_bits: int) -> None:
        self.width, self.count, self.offset_bits = width, count, offset_bits
        self.data = FlatDecoder(8 * width, (data.low, data.high), count, data.scheme) if width else data

    def schedule(self, rows: Rows) -> ArrayRead:
        if not self.width:
            block = variable_block(np.zeros(len(rows) + 1, np.int64), np.empty(0, np.uint8), self.offset_bits)
            return done(Values(block))
        return then(self.data.schedule(rows), self._strings)

    def _strings(self, values: Values) -> Values:
        block: Any = values.block
        offsets = np.arange(block.count + 1, dtype=np.int64) * self.width
        return Values(variable_block(offsets, block.data, self.offset_bits))


class FsstDecoder(ArrayDecoder):
    """Byte strings as codes of a symbol table."""

    __slots__ = ("codes", "table")

    def __init__(self, codes: ArrayDecoder, symbol_table: bytes) -> None:
        self.codes, self.count = codes, codes.count
        self.table = _table(symbol_table)

    def schedule(self, rows: Rows) -> ArrayRead:
        return then(self.codes.schedule(rows), self._expand)

    def _expand(self, values: Values) -> Values:
        block: Block = values.block
        if self.table is None or not isinstance(block, VariableBlock):
            return values
        found = fsst.expand(block.data[: int(block.offsets[-1])], block.offsets, *self.table)
        if found is None:
            raise CorruptFileError("FSST value with a code that has no symbol, or that ends in an escape")
        return Values(variable_block(found[1], found[0], block.offset_bits), values.validity)


def _table(raw: bytes) -> tuple[Bytes, Bytes] | None:
    """Symbols and lengths; None when the switch is off and values are stored as they are."""
    if len(raw) != _TABLE or raw[4:8] != _MAGIC:
        raise CorruptFileError(f"FSST symbol table of {len(raw)} bytes starts with {raw[:8].hex()}")
    if not raw[3] & 1:
        return None
    count = raw[0]
    data: Any = np.frombuffer(raw, np.uint8)
    symbols, lengths = data[8 : 8 + 8 * count], data[8 + 8 * count : 8 + 9 * count]
    if count and (int(lengths.min()) < 1 or int(lengths.max()) > 8):
        raise CorruptFileError("FSST symbol table with a symbol that is not 1 to 8 bytes long")
    return symbols, lengths
