"""OutOfLineBitpacking: a block of words packed to one width that the description names.

`spec/compression.md`, section 4.6; the bit order is in `kernels.bitpacking`.  Only in block
position (levels, dictionary values).

    block   n // 1024 groups of 128 * W bytes | tail of t = n % 1024 values

The tail is raw (t words of T bits) or packed (padded with zeros to 1024).  Which one is not
recorded: it is raw exactly when what remains has the size of t words.  The writer packs when
the raw tail would be larger than a packed group.
"""

from __future__ import annotations

import numpy as np

from pilum.encoding.blocks import Block, Bytes, FixedBlock
from pilum.encoding.codecs.base import CE, BlocksEncoded, ChunkSet, Codec, EncodeOptions, Ints
from pilum.encoding.codecs.flat import flat_bits, flat_ce
from pilum.encoding.codecs.inline_bitpacking import word_bits
from pilum.encoding.kernels import bitpacking, ranges
from pilum.encoding.kernels.levels import unpack_blocks
from pilum.encoding.kernels.memory import empty, zeros
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["CODEC"]

GROUP = bitpacking.GROUP


class OutOfLineBitpackingCodec(Codec):
    name = "out_of_line_bitpacking"

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        one = ChunkSet(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))
        return self.decode_blocks(ce, one, np.array([count], np.int64))

    def decode_blocks(self, ce: CE, chunks: ChunkSet, counts: Ints) -> FixedBlock:
        message = ce.out_of_line_bitpacking
        bits = word_bits(int(message.uncompressed_bits_per_value), self.name)
        if not message.HasField("values"):
            raise CorruptFileError("codec out_of_line_bitpacking has no child")
        width = flat_bits(message.values)
        if width > bits:
            raise CorruptFileError(f"words of {bits} bits packed to {width} bits")
        if len(counts) == 1:
            return _decode_one(chunks.chunk(0), int(counts[0]), bits, width)
        if bits == 16:
            levels = unpack_blocks(chunks.data, chunks.starts, chunks.sizes, counts, width)
            if levels is not None:
                return FixedBlock(bits, levels.view(np.uint8), len(levels))
        step, packed = bits // 8, 128 * width
        full, tail = counts // GROUP, counts % GROUP
        rest = chunks.sizes - full * packed
        raw = rest == tail * step
        if bool((~raw & ((tail == 0) | (rest != packed))).any()):
            at = int(np.flatnonzero(~raw & ((tail == 0) | (rest != packed)))[0])
            raise CorruptFileError(
                f"block {at}: {int(chunks.sizes[at])} bytes do not hold {int(counts[at])} values of {width} bits"
            )
        total = int(counts.sum())
        groups = full + ~raw
        first = np.cumsum(groups) - groups
        nth = np.arange(int(groups.sum())) - np.repeat(first, groups)  # group number within its block
        starts = np.repeat(chunks.starts, groups) + nth * packed
        values = bitpacking.unpack(chunks.data, starts, np.full(len(starts), width), bits)
        if not bool(raw[tail > 0].any()) and not bool(tail[:-1].any()):
            return FixedBlock(bits, values[: total * step], total)
        out = empty(total * step, np.uint8)
        targets = (np.cumsum(counts) - counts) * step
        sizes = np.full(len(starts), GROUP * step)
        last = np.flatnonzero(~raw)
        sizes[first[last] + full[last]] = tail[last] * step
        heads = np.arange(len(starts)) * (GROUP * step)
        ranges.scatter(values, heads, sizes, out, np.repeat(targets, groups) + nth * (GROUP * step))
        loose = np.flatnonzero(raw & (tail > 0))
        ranges.scatter(
            chunks.data,
            (chunks.starts + full * packed)[loose],
            (tail * step)[loose],
            out,
            (targets + full * (GROUP * step))[loose],
        )
        return FixedBlock(bits, out, total)

    def encode_block(self, block: Block, options: EncodeOptions) -> tuple[Bytes, CE]:
        if not isinstance(block, FixedBlock):
            raise InvalidInputError("bit-packing takes words of 8, 16, 32 or 64 bits")
        encoded = self.encode_blocks(block, np.array([block.count], np.int64), options)
        return encoded.data, encoded.ce

    def encode_blocks(self, block: FixedBlock, counts: Ints, options: EncodeOptions) -> BlocksEncoded:
        from pilum.proto import encodings_pb2

        bits, step = word_bits(block.bits, self.name), block.bits // 8
        data = block.data[: block.count * step]
        width = max(1, int(bitpacking.bit_widths(data.view(f"<u{step}")).max(initial=0)))
        packed = 128 * width
        full, tail = counts // GROUP, counts % GROUP
        pack_tail = tail * step > packed
        groups = full + pack_tail
        first = np.cumsum(groups) - groups
        nth = np.arange(int(groups.sum())) - np.repeat(first, groups)
        origin = (np.cumsum(counts) - counts) * step
        sources = np.repeat(origin, groups) + nth * (GROUP * step)
        sizes = np.full(len(nth), GROUP * step)
        short = np.flatnonzero(pack_tail)
        sizes[first[short] + full[short]] = tail[short] * step
        padded = zeros(len(nth) * GROUP * step, np.uint8)
        ranges.scatter(data, sources, sizes, padded, np.arange(len(nth)) * (GROUP * step))
        body, _ = bitpacking.pack(padded, np.full(len(nth), width), bits)
        loose = ~pack_tail * tail * step
        out_sizes = groups * packed + loose
        out = empty(int(out_sizes.sum()), np.uint8)
        targets = np.cumsum(out_sizes) - out_sizes
        ranges.scatter(body, first * packed, groups * packed, out, targets)
        ranges.scatter(data, origin + full * (GROUP * step), loose, out, targets + groups * packed)
        message = encodings_pb2.OutOfLineBitpacking(uncompressed_bits_per_value=bits, values=flat_ce(width))
        return BlocksEncoded(
            out, out_sizes, encodings_pb2.CompressiveEncoding(out_of_line_bitpacking=message)
        )


def _decode_one(data: Bytes, count: int, bits: int, width: int) -> FixedBlock:
    """A single block on plain integers: the levels of a chunk, when one row is taken."""
    step, packed = bits // 8, 128 * width
    groups, tail = divmod(count, GROUP)
    rest = len(data) - groups * packed
    raw = rest == tail * step
    if not raw and (not tail or rest != packed):
        raise CorruptFileError(f"block of {len(data)} bytes does not hold {count} values of {width} bits")
    if not raw:
        groups += 1
    starts = np.arange(groups, dtype=np.int64) * packed
    values = bitpacking.unpack(data, starts, np.full(groups, width), bits)
    if raw and tail:
        values = np.concatenate([values, data[groups * packed :]])
    return FixedBlock(bits, values[: count * step], count)


CODEC = OutOfLineBitpackingCodec()
