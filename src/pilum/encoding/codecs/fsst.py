"""Fsst: strings as codes of a page-wide symbol table (`spec/compression.md`, section 4.7).

The child, always `variable`, splits the bytes into values; then each value is expanded.

    table, 2312 bytes   u8 n | u8 terminator | u8 suffix limit | u8 switch | "TSSF"
                        n symbols of 8 bytes | n lengths | zeros

With bit 0 of the switch clear the values are stored as they are.  Reading only: pilum does
not write this codec yet.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pilum.encoding.blocks import Block, Bytes, Offsets, VariableBlock
from pilum.encoding.codecs.base import CE, ChunkSet, Codec, Ints, Values, variant
from pilum.encoding.kernels import fsst
from pilum.errors import CorruptFileError

__all__ = ["CODEC"]

_TABLE = 2312
_MAGIC = b"TSSF"
_MAX_I32 = 2**31 - 1


class FsstCodec(Codec):
    name = "fsst"

    def _child(self, ce: CE) -> CE:
        message = ce.fsst
        if not message.HasField("values") or variant(message.values) != "variable":
            raise CorruptFileError("codec fsst needs codec variable as its child")
        return message.values

    def num_buffers(self, ce: CE) -> int:
        from pilum.encoding import registry

        return registry.num_buffers(self._child(ce))

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        from pilum.encoding import registry

        table = _table(ce.fsst.symbol_table)
        return _expand(registry.decode_miniblock(self._child(ce), buffers, counts), table)

    def decode_values(self, ce: CE, values: Values) -> Block:
        from pilum.encoding import registry

        table = _table(ce.fsst.symbol_table)
        return _expand(registry.decode_values(self._child(ce), values), table)


def _table(raw: bytes) -> tuple[Bytes, Bytes] | None:
    """Symbols and lengths of a symbol table; None when values are stored verbatim."""
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


def _expand(block: Block, table: tuple[Bytes, Bytes] | None) -> Block:
    if table is None or not isinstance(block, VariableBlock):
        return block
    codes = block.data[: int(block.offsets[-1])]
    found = fsst.expand(codes, block.offsets, *table)
    if found is None:
        raise CorruptFileError("FSST value with a code that has no symbol, or that ends in an escape")
    data, ends = found
    wide = block.offset_bits == 64 or len(data) > _MAX_I32
    offsets: Offsets = ends if wide else ends.astype(np.int32)
    return VariableBlock(64 if wide else 32, offsets, data, block.count)


CODEC = FsstCodec()
