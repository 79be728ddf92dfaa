"""Constant: the value is in the description (`spec/compression.md`, section 4.3).

Files of 2.1 and 2.2 have it only inside a fixed-size list whose items are all null: no value,
no bytes.  As a block it stands for ``count`` copies of its value.
"""

from __future__ import annotations

import numpy as np

from pilum.encoding.blocks import Block, Bytes, FixedBlock, NullBlock
from pilum.encoding.codecs.base import CE, Codec, Values
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = ["CODEC", "constant_ce"]

_MAX_BYTES = 1 << 28  # a block has no bytes that would bound it; real ones are levels of a page


def constant_ce() -> CE:
    """``Constant()`` without a value: all null."""
    from pilum.proto import encodings_pb2

    return encodings_pb2.CompressiveEncoding(constant=encodings_pb2.Constant())


class ConstantCodec(Codec):
    name = "constant"

    def decode_values(self, ce: CE, values: Values) -> Block:
        if ce.constant.HasField("value"):
            raise UnsupportedError("codec constant with a value is not supported for full-zip values")
        return NullBlock(values.count)

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        if not ce.constant.HasField("value"):
            return NullBlock(count)
        value = np.frombuffer(ce.constant.value, np.uint8)
        if not len(value) or len(value) * count > _MAX_BYTES:
            raise CorruptFileError(f"codec constant: {count} values of {len(value)} bytes")
        return FixedBlock(8 * len(value), np.tile(value, count), count)


CODEC = ConstantCodec()
