"""PackedStruct: the members of each struct side by side (`spec/compression.md`, section 4.13).

    row     member 0 | member 1 | ...          bits_per_value[j] / 8 bytes each
    M       the rows as flat values of the sum of the widths, chunked like those
    V       a row per value (written by 2.3 only, read everywhere)

Members are whole bytes of fixed width and have no nulls of their own.  Structs with other members are the
business of `variable_packed_struct`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bytes, FixedBlock, StructBlock
from pilum.encoding.codecs.base import CE, ChunkSet, Codec, EncodeOptions, Ints, MiniBlockEncoded, Values
from pilum.encoding.codecs.flat import flat_bits
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["CODEC", "is_fixed"]

_MAX_BITS = 1 << 34
_MAX_MEMBERS = 1 << 16


def is_fixed(block: StructBlock) -> bool:
    """Whether all members are of fixed width and whole bytes, as this codec needs them."""
    return all(isinstance(child, FixedBlock) and child.bits % 8 == 0 for child in block.children)


class PackedStructCodec(Codec):
    name = "packed_struct"

    def _widths(self, ce: CE) -> list[int]:
        """Bytes of each member, checked against the child."""
        message = ce.packed_struct
        bits = list(message.bits_per_value)
        if not bits or len(bits) > _MAX_MEMBERS or any(not b or b % 8 or b > _MAX_BITS for b in bits):
            raise CorruptFileError(f"packed struct of {len(bits)} members, of {bits[:8]} bits")
        if not message.HasField("values"):
            raise CorruptFileError("codec packed_struct has no child")
        found = flat_bits(message.values)
        if found != sum(bits):
            raise CorruptFileError(f"packed struct of {sum(bits)} bits in values of {found} bits")
        return [b // 8 for b in bits]

    def num_buffers(self, ce: CE) -> int:
        self._widths(ce)
        return 1

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        from pilum.encoding import registry

        widths = self._widths(ce)
        return _split(registry.decode_miniblock(ce.packed_struct.values, buffers, counts), widths)

    def decode_values(self, ce: CE, values: Values) -> Block:
        from pilum.encoding import registry

        widths = self._widths(ce)
        return _split(registry.decode_values(ce.packed_struct.values, values), widths)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        from pilum.encoding import registry
        from pilum.proto import encodings_pb2

        if not isinstance(block, StructBlock) or not is_fixed(block):
            raise InvalidInputError("codec packed_struct takes structs of members of fixed width")
        members = [child for child in block.children if isinstance(child, FixedBlock)]
        rows = _join(members, block.count)
        encoded = registry.codec("flat").encode_miniblock(rows, options)
        message = encodings_pb2.PackedStruct(
            bits_per_value=[member.bits for member in members], values=encoded.ce
        )
        encoded.ce = encodings_pb2.CompressiveEncoding(packed_struct=message)
        return encoded


def _row_type(widths: Sequence[int]) -> np.dtype[Any]:
    """Rows as a NumPy record: strided copies of words are several times faster than of byte columns."""
    words = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
    return np.dtype([(f"m{j}", words.get(width, f"V{width}")) for j, width in enumerate(widths)])


def _split(block: Block, widths: list[int]) -> StructBlock:
    assert isinstance(block, FixedBlock)
    row = sum(widths)
    rows: npt.NDArray[Any] = np.ascontiguousarray(block.data[: block.count * row]).view(_row_type(widths))
    children: list[Block] = []
    for j, width in enumerate(widths):
        member: Bytes = np.ascontiguousarray(rows[f"m{j}"]).view(np.uint8)
        children.append(FixedBlock(8 * width, member, block.count))
    return StructBlock(tuple(children), block.count)


def _join(members: list[FixedBlock], count: int) -> FixedBlock:
    widths = [member.bits // 8 for member in members]
    kind = _row_type(widths)
    rows = np.empty(count, kind)
    for j, (member, width) in enumerate(zip(members, widths, strict=True)):
        rows[f"m{j}"] = np.ascontiguousarray(member.data[: count * width]).view(kind[j])
    return FixedBlock(8 * sum(widths), rows.view(np.uint8), count)


CODEC = PackedStructCodec()
