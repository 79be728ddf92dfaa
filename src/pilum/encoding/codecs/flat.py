"""Flat: values as they are (`spec/compression.md`, section 4.1).

    M, B   ceil(bits * n / 8) bytes; one bit per value is packed LSB first
    V      bits / 8 bytes per value

How many values there are is said by the framing; unused high bits of the last byte of a
boolean buffer are garbage and stay so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pilum.encoding.blocks import Block, Bytes, FixedBlock, NullBlock, pack_bits, unpack_bits
from pilum.encoding.codecs.base import (
    CE,
    BlocksEncoded,
    ChunkSet,
    Codec,
    EncodeOptions,
    FixedValues,
    Ints,
    MiniBlockEncoded,
    Values,
    variant,
)
from pilum.encoding.kernels import ranges
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["CODEC", "chunk_counts", "flat_bits", "flat_ce", "values_per_chunk"]

CHUNK_BYTES = 8186  # a mini-block chunk of the reference's writer stays below this


def flat_ce(bits: int) -> CE:
    """``Flat(bits)``."""
    from pilum.proto import encodings_pb2

    return encodings_pb2.CompressiveEncoding(flat=encodings_pb2.Flat(bits_per_value=bits))


def flat_bits(ce: CE) -> int:
    """Bits per value of a `Flat` node, checked."""
    name = variant(ce)
    if name != "flat":
        raise CorruptFileError(f"codec flat expected, found {name}")
    flat = ce.flat
    if flat.HasField("data"):
        raise UnsupportedError("compressed buffers inside codec flat are not supported")
    bits = int(flat.bits_per_value)
    if not 0 < bits < 1 << 35:
        raise CorruptFileError(f"codec flat with {bits} bits per value")
    return bits


def values_per_chunk(width: int, max_values: int = 4096) -> int:
    """Largest power of two ≥ 2 of values of ``width`` bytes that stays below 8186 bytes."""
    if 2 * width >= CHUNK_BYTES:
        raise InvalidInputError(f"values of {width} bytes are too wide for mini-block chunks")
    count = 2
    while 2 * count <= max_values and 2 * count * width < CHUNK_BYTES:
        count *= 2
    return count


def chunk_counts(total: int, per_chunk: int) -> Ints:
    """``total`` values cut into chunks of ``per_chunk``; the last one holds the rest."""
    counts = np.full(max(1, -(-total // per_chunk)), per_chunk, np.int64)
    counts[-1] = total - per_chunk * (len(counts) - 1)
    return counts


def bytes_of(bits: int, counts: Ints) -> Ints:
    """Buffer size of each chunk."""
    return (counts * bits + 7) // 8


def _need(sizes: Ints, needed: Ints, bits: int) -> None:
    short = np.flatnonzero(sizes < needed)
    if len(short):
        at = int(short[0])
        raise CorruptFileError(
            f"chunk {at}: {int(sizes[at])} bytes hold fewer values of {bits} bits than the chunk has"
            f" ({int(needed[at])} bytes needed)"
        )


def join_flat(bits: int, chunks: ChunkSet, counts: Ints) -> FixedBlock:
    """Chunks of flat values as one block: a view if they are adjacent, else one copy."""
    if len(counts) == 1:  # a take, a small page: plain integers are several times faster
        count, start = int(counts[0]), int(chunks.starts[0])
        size = (count * bits + 7) // 8
        if size > int(chunks.sizes[0]):
            raise CorruptFileError(
                f"chunk of {int(chunks.sizes[0])} bytes cannot hold {count} values of {bits} bits"
            )
        return FixedBlock(bits, chunks.data[start : start + size], count)
    total = int(counts.sum())
    if int(counts.max(initial=0)) * bits > 8 * (1 << 40):
        raise CorruptFileError(f"chunks of values of {bits} bits exceed every file")
    needed = bytes_of(bits, counts)
    _need(chunks.sizes, needed, bits)
    if bits % 8 == 0 or len(counts) < 2 or not np.any(counts[:-1] * bits % 8):
        return FixedBlock(bits, ranges.gather(chunks.data, chunks.starts, needed), total)
    parts = [unpack_bits(chunks.chunk(c), int(n) * bits) for c, n in enumerate(counts)]
    return FixedBlock(bits, pack_bits(np.concatenate(parts)), total)


class FlatCodec(Codec):
    name = "flat"

    def num_buffers(self, ce: CE) -> int:
        flat_bits(ce)
        return 1

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        return join_flat(flat_bits(ce), buffers[0], counts)

    def decode_values(self, ce: CE, values: Values) -> Block:
        return self.values_decoder(ce)(values)

    def values_decoder(self, ce: CE) -> Callable[[Values], Block]:
        bits = flat_bits(ce)

        def decode(values: Values) -> Block:
            if not isinstance(values, FixedValues) or bits != 8 * values.width:
                raise CorruptFileError(
                    f"codec flat of {bits} bits does not fit the full-zip values of the page"
                )
            if len(values.data) < values.count * values.width:
                raise CorruptFileError(
                    f"{values.count} values of {values.width} bytes, got {len(values.data)} bytes"
                )
            return FixedBlock(bits, values.data, values.count)

        return decode

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        bits = flat_bits(ce)
        size = (bits * count + 7) // 8
        if len(data) < size:
            raise CorruptFileError(f"block of {len(data)} bytes cannot hold {count} values of {bits} bits")
        return FixedBlock(bits, data[:size], count)

    def decode_blocks(self, ce: CE, chunks: ChunkSet, counts: Ints) -> FixedBlock:
        return join_flat(flat_bits(ce), chunks, counts)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        fixed = _fixed(block)
        bits = fixed.bits
        if bits % 8 == 0:
            per_chunk = values_per_chunk(bits // 8, options.max_values)
        else:  # the unit is 8 values; the reference counts each group of 8 double
            per_chunk = 8
            while 2 * per_chunk <= options.max_values and per_chunk // 2 * bits < CHUNK_BYTES:
                per_chunk *= 2
        counts = chunk_counts(fixed.count, per_chunk)
        sizes = bytes_of(bits, counts)
        return MiniBlockEncoded([fixed.data[: int(sizes.sum())]], [sizes], counts, flat_ce(bits))

    def encode_values(self, block: Block, options: EncodeOptions) -> tuple[Values, CE]:
        if isinstance(block, NullBlock):
            return FixedValues(0, np.empty(0, np.uint8), block.count), None
        fixed = _fixed(block)
        if fixed.bits == 1:  # full-zip stores one byte per boolean
            data = unpack_bits(fixed.data, fixed.count).view(np.uint8)
            return FixedValues(1, data, fixed.count), flat_ce(8)
        if fixed.bits % 8:
            raise InvalidInputError(f"values of {fixed.bits} bits cannot be stored as full-zip")
        width = fixed.bits // 8
        return FixedValues(width, fixed.data[: fixed.count * width], fixed.count), flat_ce(fixed.bits)

    def encode_block(self, block: Block, options: EncodeOptions) -> tuple[Bytes, CE]:
        fixed = _fixed(block)
        return fixed.data[: (fixed.count * fixed.bits + 7) // 8], flat_ce(fixed.bits)

    def encode_blocks(self, block: FixedBlock, counts: Ints, options: EncodeOptions) -> BlocksEncoded:
        if block.bits % 8:
            raise InvalidInputError(f"levels of {block.bits} bits")
        width = block.bits // 8
        return BlocksEncoded(block.data[: block.count * width], counts * width, flat_ce(block.bits))


def _fixed(block: Block) -> FixedBlock:
    if not isinstance(block, FixedBlock):
        raise InvalidInputError("codec flat stores fixed-width values only")
    return block


CODEC = FlatCodec()
