"""ByteStreamSplit: the bytes of equal rank side by side (`spec/compression.md`, section 4.10).

    chunk of n values of b bytes: byte j of value i is at j * n + i         b = 4 or 8

Only in mini-block position.  It does not compress by itself; it prepares for `general`.
"""

from __future__ import annotations

import numpy as np

from pilum.encoding.blocks import Block, FixedBlock
from pilum.encoding.codecs.base import CE, ChunkSet, Codec, EncodeOptions, Ints, MiniBlockEncoded
from pilum.encoding.codecs.flat import chunk_counts, flat_bits, flat_ce, values_per_chunk
from pilum.encoding.kernels import ranges, transpose
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["CODEC"]


class ByteStreamSplitCodec(Codec):
    name = "byte_stream_split"

    def _width(self, ce: CE) -> int:
        if not ce.byte_stream_split.HasField("values"):
            raise CorruptFileError("codec byte_stream_split has no child")
        bits = flat_bits(ce.byte_stream_split.values)
        if bits not in (32, 64):
            raise CorruptFileError(f"codec byte_stream_split over values of {bits} bits")
        return bits // 8

    def num_buffers(self, ce: CE) -> int:
        self._width(ce)
        return 1

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        width, total = self._width(ce), int(counts.sum())
        chunks = buffers[0]
        if bool((chunks.sizes != counts * width).any()):
            at = int(np.flatnonzero(chunks.sizes != counts * width)[0])
            raise CorruptFileError(
                f"byte-stream-split chunk {at}: {int(chunks.sizes[at])} bytes for {int(counts[at])} values"
            )
        data = ranges.gather(chunks.data, chunks.starts, chunks.sizes)
        return FixedBlock(8 * width, transpose.join(data, counts, width), total)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        if not isinstance(block, FixedBlock) or block.bits not in (32, 64):
            raise InvalidInputError("codec byte_stream_split takes words of 32 or 64 bits")
        from pilum.proto import encodings_pb2

        width = block.bits // 8
        counts = chunk_counts(block.count, values_per_chunk(width, options.max_values))
        out = transpose.split(block.data[: block.count * width], counts, width)
        message = encodings_pb2.ByteStreamSplit(values=flat_ce(block.bits))
        ce = encodings_pb2.CompressiveEncoding(byte_stream_split=message)
        return MiniBlockEncoded([out], [counts * width], counts, ce)


CODEC = ByteStreamSplitCodec()
