"""ByteStreamSplit: the bytes of equal rank side by side (`spec/compression.md`, section 4.10).

    chunk of n values of b bytes: byte j of value i is at j * n + i         b = 4 or 8

Only in mini-block position.  It does not compress by itself; it prepares for `general`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pilum.encoding.blocks import Block, FixedBlock
from pilum.encoding.codecs.base import CE, ChunkSet, Codec, EncodeOptions, Ints, MiniBlockEncoded
from pilum.encoding.codecs.flat import chunk_counts, flat_bits, flat_ce, values_per_chunk
from pilum.encoding.kernels import ranges
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
        out = np.empty(total * width, np.uint8)
        _transpose(data, out, counts, width, split=False)
        return FixedBlock(8 * width, out, total)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        if not isinstance(block, FixedBlock) or block.bits not in (32, 64):
            raise InvalidInputError("codec byte_stream_split takes words of 32 or 64 bits")
        from pilum.proto import encodings_pb2

        width = block.bits // 8
        counts = chunk_counts(block.count, values_per_chunk(width, options.max_values))
        out = np.empty(block.count * width, np.uint8)
        _transpose(block.data, out, counts, width, split=True)
        message = encodings_pb2.ByteStreamSplit(values=flat_ce(block.bits))
        ce = encodings_pb2.CompressiveEncoding(byte_stream_split=message)
        return MiniBlockEncoded([out], [counts * width], counts, ce)


def _transpose(
    src: np.ndarray[tuple[int], np.dtype[np.uint8]],
    dst: np.ndarray[tuple[int], np.dtype[np.uint8]],
    counts: Ints,
    width: int,
    *,
    split: bool,
) -> None:
    """Transpose each chunk; chunks of equal count that follow each other are done at once."""
    if not len(counts):
        return
    edges = np.concatenate([[0], np.flatnonzero(np.diff(counts)) + 1, [len(counts)]]).tolist()
    at = 0
    for low, high in pairwise(edges):
        count, chunks = int(counts[low]), high - low
        size = chunks * count * width
        shape = (chunks, count, width) if split else (chunks, width, count)
        part = src[at : at + size].reshape(shape)
        dst[at : at + size].reshape(chunks, *shape[:0:-1])[:] = part.transpose(0, 2, 1)
        at += size


CODEC = ByteStreamSplitCodec()
