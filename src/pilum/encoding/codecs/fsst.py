"""Fsst: strings as codes of a page-wide symbol table (`spec/compression.md`, section 4.7).

The child, always `variable`, splits the bytes into values; then each value is expanded.

    table, 2312 bytes   u8 n | u8 terminator | u8 suffix limit | u8 switch | "TSSF"
                        n symbols of 8 bytes | n lengths | zeros

With bit 0 of the switch clear the values are stored as they are, which is how less than 32 KiB of them are
written.  A table is made for each page from a sample of its values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pilum.encoding.blocks import Block, Bytes, Offsets, VariableBlock
from pilum.encoding.codecs.base import (
    CE,
    ChunkSet,
    Codec,
    EncodeOptions,
    Ints,
    MiniBlockEncoded,
    Values,
    variant,
)
from pilum.encoding.kernels import fsst, fsst_encode
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["CODEC", "Expander", "code_strings"]

_TABLE = 2312
_MAGIC = b"TSSF"
_MAX_I32 = 2**31 - 1
_WORTH = 32768  # bytes of values from which a page gets symbols


class Expander:
    """Makes values of the code strings of a page.

    Attributes:
        table: symbols, 8 bytes each, and their lengths; None if values are stored verbatim.
    """

    __slots__ = ("table",)

    def __init__(self, table: tuple[Bytes, Bytes] | None) -> None:
        self.table = table

    def __call__(self, block: Block) -> Block:
        return _expand(block, self.table)


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

    def finisher(self, ce: CE) -> Expander:
        """What makes values of code strings, for a decoder to keep."""
        return Expander(_table(ce.fsst.symbol_table))

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        from pilum.encoding import registry

        codes, table = code_strings(block)
        encoded = registry.codec("variable").encode_miniblock(codes, options)
        if table is not None:
            encoded.ce = _wrap(encoded.ce, table)
        return encoded

    def encode_values(self, block: Block, options: EncodeOptions) -> tuple[Values, CE]:
        from pilum.encoding import registry

        codes, table = code_strings(block)
        values, ce = registry.codec("variable").encode_values(codes, options)
        return values, ce if table is None else _wrap(ce, table)


def code_strings(block: Block) -> tuple[VariableBlock, bytes | None]:
    """Code strings and their symbol table; None for values that no table makes shorter."""
    if not isinstance(block, VariableBlock):
        raise InvalidInputError("codec fsst takes byte strings")
    size = int(block.offsets[-1])
    if size < _WORTH:
        return block, bytes(4) + _MAGIC + bytes(_TABLE - 8)
    offsets = block.offsets.astype(np.int64, copy=False)
    table = fsst_encode.train(block.data, offsets)
    codes, ends = fsst_encode.compress(block.data, offsets, table)
    if len(codes) >= size:
        return block, None
    narrow: Offsets = ends.astype(np.int32) if block.offset_bits == 32 else ends
    count = len(table.lengths)
    raw = bytes([count, 0, 0, 1]) + _MAGIC + table.symbols().tobytes()
    raw += table.lengths.astype(np.uint8).tobytes()
    return VariableBlock(block.offset_bits, narrow, codes, block.count), raw.ljust(_TABLE, b"\0")


def _wrap(ce: CE, table: bytes) -> CE:
    from pilum.proto import encodings_pb2

    message = encodings_pb2.Fsst(symbol_table=table, values=ce)
    return encodings_pb2.CompressiveEncoding(fsst=message)


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
    offsets: Offsets = ends.astype(np.int64, copy=False) if wide else ends.astype(np.int32, copy=False)
    return VariableBlock(64 if wide else 32, offsets, data, block.count)


CODEC = FsstCodec()
