"""InlineBitpacking: groups of up to 1024 words, each packed to its own width.

`spec/compression.md`, section 4.5; the bit order is in `kernels.bitpacking`.

    payload   W as one word of T bits | 1024 * W / T words        T in 8, 16, 32, 64

In mini-block position a chunk is one payload and holds 1024 values (the last one fewer; it
is padded with zeros before packing).  In block position the whole block is one payload.
"""

from __future__ import annotations

import numpy as np

from pilum.encoding.blocks import Block, Bytes, FixedBlock, joined
from pilum.encoding.codecs.base import (
    CE,
    BlocksEncoded,
    ChunkSet,
    Codec,
    EncodeOptions,
    Ints,
    MiniBlockEncoded,
)
from pilum.encoding.codecs.flat import chunk_counts
from pilum.encoding.kernels import bitpacking, ranges
from pilum.encoding.kernels.chunks import read_widths
from pilum.encoding.kernels.memory import zeros
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["CODEC", "word_bits"]

GROUP = bitpacking.GROUP
_SLAB = 2048  # groups unpacked at once when chunks are short: bounds the scratch memory


def word_bits(bits: int, name: str) -> int:
    """T of a bit-packing or run-length node, checked."""
    if bits not in (8, 16, 32, 64):
        raise CorruptFileError(f"codec {name} of words of {bits} bits")
    return bits


class InlineBitpackingCodec(Codec):
    name = "inline_bitpacking"

    def _bits(self, ce: CE) -> int:
        message = ce.inline_bitpacking
        if message.HasField("values"):
            raise UnsupportedError("compressed buffers inside codec inline_bitpacking are not supported")
        return word_bits(int(message.uncompressed_bits_per_value), self.name)

    def num_buffers(self, ce: CE) -> int:
        self._bits(ce)
        return 1

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        return self.decode_blocks(ce, buffers[0], counts)

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        one = ChunkSet(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))
        return self.decode_blocks(ce, one, np.array([count], np.int64))

    def decode_blocks(self, ce: CE, chunks: ChunkSet, counts: Ints) -> FixedBlock:
        bits = self._bits(ce)
        width, total = bits // 8, int(counts.sum())
        data, starts, sizes = chunks.data, chunks.starts, chunks.sizes
        found = read_widths(data, starts, sizes, counts, bits)
        if found is not None:
            residue, groups, widths = found
            usable = (len(data) - residue) // 8 * 8
            values = bitpacking.unpack_words(
                data[residue : residue + usable].view("<u8"), groups, widths, bits
            )
            return FixedBlock(bits, values[: total * width], total)
        if not bool(counts.all()):  # nothing is known about the payload of an empty chunk
            used = np.flatnonzero(counts)
            starts, sizes, counts = starts[used], sizes[used], counts[used]
        if not len(counts):
            return FixedBlock(bits, np.empty(0, np.uint8), 0)
        if int(counts.max()) > GROUP or int(sizes.min()) < width:
            raise CorruptFileError(
                f"bit-packed chunk of {int(counts.max())} values (1024 at most) or {int(sizes.min())} bytes"
            )
        header = data[starts[:, None] + np.arange(width)].view(f"<u{width}")[:, 0]
        if int(header.max()) > bits:
            raise CorruptFileError(f"words of {bits} bits packed to {int(header.max())} bits")
        widths = header.astype(np.int64)
        if bool((sizes != width + 128 * widths).any()):
            at = int(np.flatnonzero(sizes != width + 128 * widths)[0])
            raise CorruptFileError(
                f"bit-packed chunk {at}: {int(sizes[at])} bytes for width {int(widths[at])}"
            )
        bodies = starts + width
        if len(counts) < 2 or int(counts[:-1].min()) == GROUP:
            values = bitpacking.unpack(data, bodies, widths, bits)
            return FixedBlock(bits, values[: total * width], total)
        parts = []
        for low in range(0, len(counts), _SLAB):
            part = slice(low, low + _SLAB)
            values = bitpacking.unpack(data, bodies[part], widths[part], bits)
            heads = np.arange(len(counts[part])) * (GROUP * width)
            parts.append(ranges.gather(values, heads, counts[part] * width))
        return FixedBlock(bits, np.concatenate(parts), total)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        fixed = _words(block)
        counts = chunk_counts(fixed.count, GROUP)
        encoded = self.encode_blocks(fixed, counts, options)
        return MiniBlockEncoded([encoded.data], [encoded.sizes], counts, encoded.ce)

    def encode_block(self, block: Block, options: EncodeOptions) -> tuple[Bytes, CE]:
        encoded = self.encode_blocks(_words(block), np.array([block.count], np.int64), options)
        return encoded.data, encoded.ce

    def encode_blocks(self, block: FixedBlock, counts: Ints, options: EncodeOptions) -> BlocksEncoded:
        from pilum.proto import encodings_pb2

        bits, width = block.bits, block.bits // 8
        if int(counts.max(initial=0)) > GROUP:
            raise InvalidInputError("inline bit-packing holds at most 1024 values per block")
        padded = pad_groups(block, counts)
        widths = bitpacking.bit_widths(padded.view(f"<u{width}"))
        data, sizes = bitpacking.pack(padded, widths, bits, header=width)
        data[np.cumsum(sizes) - sizes] = widths  # W < 256: the low byte of the header word
        message = encodings_pb2.InlineBitpacking(uncompressed_bits_per_value=bits)
        ce = encodings_pb2.CompressiveEncoding(inline_bitpacking=message)
        return BlocksEncoded(data, sizes, ce)


def pad_groups(block: FixedBlock, counts: Ints) -> Bytes:
    """Slices of at most 1024 values, each padded with zeros to a whole group."""
    width = block.bits // 8
    data = block.data[: block.count * width]
    if len(counts) < 2 or int(counts[:-1].min()) == GROUP:
        missing = len(counts) * GROUP * width - len(data)
        return joined([data, np.zeros(missing, np.uint8)]) if missing else data
    padded = zeros(len(counts) * GROUP * width, np.uint8)
    sizes = counts * width
    ranges.scatter(data, np.cumsum(sizes) - sizes, sizes, padded, np.arange(len(counts)) * (GROUP * width))
    return padded


def _words(block: Block) -> FixedBlock:
    if not isinstance(block, FixedBlock) or block.bits not in (8, 16, 32, 64):
        raise InvalidInputError("bit-packing takes words of 8, 16, 32 or 64 bits")
    return block


CODEC = InlineBitpackingCodec()
