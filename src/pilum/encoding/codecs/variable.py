"""Variable: byte strings with offsets (`spec/compression.md`, section 4.2).

    M  one buffer per chunk   (n + 1) offsets, relative to the buffer | bytes | padding (0x48)
    V  the bytes of each value; the full-zip framing stores the lengths
    B  dictionary values      bits per offset | start of bytes | (n + 1) offsets, relative to
                              the bytes | bytes          all numbers as wide as an offset

Since format 2.3 the offsets of position M may be a sequence of another codec, in a buffer of its own (or in
none); they are read, chunk by chunk.

In position B an old form exists whose header is one byte of width, the count and the start;
it is recognised by a non-zero byte among bytes 1 to 3 and never written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
from pilum.encoding.codecs.flat import flat_bits, flat_ce
from pilum.encoding.codecs.sequences import has_payload, numbers
from pilum.encoding.kernels import ranges
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.variable import join_offsets, plan_chunks, spread_offsets
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["CODEC", "variable_ce"]

_PADDING = 0x48
_SEQUENCES = ("range", "delta", "constant", "rle")
_MAX_I32 = 2**31 - 1


def variable_ce(offset_bits: int) -> CE:
    """``Variable(Flat(offset_bits))``."""
    from pilum.proto import encodings_pb2

    return encodings_pb2.CompressiveEncoding(variable=encodings_pb2.Variable(offsets=flat_ce(offset_bits)))


def _offset_bits(ce: CE) -> int:
    message = ce.variable
    if message.HasField("values"):
        raise UnsupportedError("compressed buffers inside codec variable are not supported")
    if not message.HasField("offsets"):
        raise CorruptFileError("codec variable has no child for its offsets")
    name = variant(message.offsets)
    if name not in ("flat", *_SEQUENCES):
        raise UnsupportedError(f"codec variable with offsets of codec {name} is not supported")
    if name != "flat":
        return 0
    bits = flat_bits(message.offsets)
    if bits not in (32, 64):
        raise CorruptFileError(f"codec variable with offsets of {bits} bits")
    return bits


class VariableCodec(Codec):
    name = "variable"

    def num_buffers(self, ce: CE) -> int:
        if _offset_bits(ce):
            return 1
        return 1 + has_payload(ce.variable.offsets)

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        bits = _offset_bits(ce)
        width = bits // 8
        if not bits:
            return _decode_sequences(ce.variable.offsets, buffers, counts)
        if len(counts) == 1:
            return _decode_chunk(buffers[0].chunk(0), int(counts[0]), width)
        total = int(counts.sum())
        data, starts, sizes = buffers[0].data, buffers[0].starts, buffers[0].sizes
        if not bool(counts.all()):  # an empty chunk may or may not have its one offset
            used = np.flatnonzero(counts)
            starts, sizes, counts = starts[used], sizes[used], counts[used]
        heads = (counts + 1) * width
        if bool(((sizes % width != 0) | (sizes < heads)).any()):
            at = int(np.flatnonzero((sizes % width != 0) | (sizes < heads))[0])
            raise CorruptFileError(
                f"variable-width chunk {at}: {int(sizes[at])} bytes for {int(counts[at])} values and their offsets"
            )
        words, at_word = ranges.word_view(data, starts, sizes, width)
        data, starts = words.view(np.uint8), at_word * width  # the same bytes, or the chunks gathered
        first = words[at_word].astype(np.int64)
        last = words[at_word + counts].astype(np.int64)
        if bool(((first < heads) | (first > last) | (last > sizes)).any()):
            at = int(np.flatnonzero((first < heads) | (first > last) | (last > sizes))[0])
            raise CorruptFileError(
                f"variable-width chunk {at}: values at {int(first[at])}..{int(last[at])} of {int(sizes[at])} bytes"
            )
        lengths = last - first
        base = np.cumsum(lengths) - lengths
        wide = bits == 64 or int(lengths.sum()) > _MAX_I32
        offsets: Offsets = empty(total + 1, np.int64 if wide else np.int32)
        if not join_offsets(words, at_word, counts, base - first, offsets):
            raise CorruptFileError("offsets of a variable-width chunk decrease")
        values = ranges.gather(data, starts + first, lengths)
        return VariableBlock(64 if wide else 32, offsets, values, total)

    def decode_values(self, ce: CE, values: Values) -> Block:
        bits = _offset_bits(ce)
        if not bits:
            raise UnsupportedError("codec variable of full-zip values has flat offsets only")
        if not isinstance(values, VariableBlock):
            raise CorruptFileError("codec variable over fixed-width full-zip values")
        if values.offset_bits != bits and not (bits == 32 and int(values.offsets[-1]) > _MAX_I32):
            raise CorruptFileError(
                f"codec variable of {bits} bits, full-zip lengths of {values.offset_bits} bits"
            )
        return values

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        _offset_bits(ce)  # the header decides the width; the description must still be valid
        return decode_block(data, count)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        variable = _variable(block)
        width = variable.offset_bits // 8
        offsets = variable.offsets.astype(np.int64, copy=False)
        counts = plan_chunks(offsets, width, options.minichunk_size, options.max_values)
        ends = np.cumsum(counts)
        begins = ends - counts
        first, last = offsets[begins], offsets[ends]
        heads = (counts + 1) * width
        sizes = (heads + (last - first) + width - 1) // width * width
        if width == 4 and int(sizes.max()) > _MAX_I32:
            raise InvalidInputError("a mini-block chunk of strings exceeds 2 GiB")
        starts = np.cumsum(sizes) - sizes
        out = empty(int(sizes.sum()), np.uint8)
        words = out.view(f"<u{width}")
        words[(starts + sizes) // width - 1] = _PADDING * (0x0101010101010101 & ((1 << 8 * width) - 1))
        spread_offsets(offsets, begins, counts, heads - first, words, starts // width)
        ranges.scatter(variable.data, first, last - first, out, starts + heads)
        return MiniBlockEncoded([out], [sizes], counts, variable_ce(variable.offset_bits))

    def encode_values(self, block: Block, options: EncodeOptions) -> tuple[Values, CE]:
        variable = _variable(block)
        return variable, variable_ce(variable.offset_bits)

    def encode_block(self, block: Block, options: EncodeOptions) -> tuple[Bytes, CE]:
        variable = _variable(block)
        bits, width = variable.offset_bits, variable.offset_bits // 8
        head = 2 * width + (variable.count + 1) * width
        numbers = np.empty(variable.count + 3, f"<u{width}")
        numbers[0], numbers[1] = bits, head
        numbers[2:] = variable.offsets
        body = variable.data[: int(variable.offsets[-1])]
        return np.concatenate([numbers.view(np.uint8), body]), variable_ce(bits)


def _decode_sequences(ce: CE, buffers: list[ChunkSet], counts: Ints) -> VariableBlock:
    """Position M of 2.3: the offsets of each chunk are a block of n + 1 numbers."""
    from pilum.encoding import registry

    payload = has_payload(ce)
    values = buffers[-1]
    sizes = []
    for chunk, count in enumerate(counts.tolist()):
        data = buffers[0].chunk(chunk) if payload else np.empty(0, np.uint8)
        offsets = numbers(registry.decode_block(ce, data, count + 1))
        if len(offsets) != count + 1 or int(offsets[0]) or bool((offsets[1:] < offsets[:-1]).any()):
            raise CorruptFileError(f"offsets of variable-width chunk {chunk} do not rise from 0")
        if int(offsets[-1]) != int(values.sizes[chunk]):
            raise CorruptFileError(
                f"variable-width chunk {chunk}: values of {int(offsets[-1])} of {int(values.sizes[chunk])} bytes"
            )
        sizes.append(np.diff(offsets))
    total = int(counts.sum())
    ends = np.zeros(total + 1, np.int64)
    np.cumsum(np.concatenate([*sizes, np.empty(0, np.int64)]), out=ends[1:])
    joined = ranges.gather(values.data, values.starts, values.sizes)
    if int(ends[-1]) <= _MAX_I32:
        return VariableBlock(32, ends.astype(np.int32), joined, total)
    return VariableBlock(64, ends, joined, total)


def _decode_chunk(data: Bytes, count: int, width: int) -> VariableBlock:
    """Position M, a single chunk: the same checks on plain integers."""
    head = (count + 1) * width
    if not count:
        none: Offsets = np.zeros(1, np.int32) if width == 4 else np.zeros(1, np.int64)
        return VariableBlock(8 * width, none, data[:0], 0)
    if len(data) % width or len(data) < head:
        raise CorruptFileError(
            f"variable-width chunk: {len(data)} bytes for {count} values and their offsets"
        )
    words = data[:head].view(f"<u{width}")
    first, last = int(words[0]), int(words[-1])
    if not head <= first <= last <= len(data) or bool((words[1:] < words[:-1]).any()):
        raise CorruptFileError(
            f"variable-width chunk: offsets decrease or leave the chunk ({first}..{last} of {len(data)} bytes)"
        )
    wide = width == 8 or last - first > _MAX_I32
    shifted: npt.NDArray[Any] = words - words[0]
    offsets: Offsets = shifted.astype(np.int64) if wide else shifted.astype(np.int32)
    return VariableBlock(64 if wide else 32, offsets, data[first:last], count)


def decode_block(data: Bytes, count: int) -> VariableBlock:
    """Position B, both headers."""
    if len(data) < 8:
        raise CorruptFileError(f"variable-width block of {len(data)} bytes is shorter than its header")
    old = bool(data[1:4].any())
    bits = int(data[0])
    if bits not in (32, 64):
        raise CorruptFileError(f"variable-width block with offsets of {bits} bits")
    width = bits // 8
    head = 1 + 2 * width if old else 2 * width
    if len(data) < head:
        raise CorruptFileError(f"variable-width block of {len(data)} bytes is shorter than its header")
    fields = data[:head].tobytes()
    numbers = [int.from_bytes(fields[k : k + width], "little") for k in range(1 if old else 0, head, width)]
    if (numbers[0] != count) if old else (numbers[0] != bits):
        raise CorruptFileError(f"variable-width block: header says {numbers[0]} for {count} values")
    body = numbers[1]
    if body != head + (count + 1) * width or body > len(data):
        raise CorruptFileError(f"variable-width block: bytes start at {body} of {len(data)}, {count} values")
    raw = data[head:body].view(f"<u{width}")
    values = data[body:]
    if int(raw[0]) != 0 or int(raw[-1]) > len(values) or bool((raw[1:] < raw[:-1]).any()):
        raise CorruptFileError("offsets of a variable-width block decrease or leave the block")
    wide = bits == 64 or len(values) > _MAX_I32
    offsets: Offsets = raw.astype(np.int64) if wide else raw.astype(np.int32)
    return VariableBlock(64 if wide else 32, offsets, values[: int(raw[-1])], count)


def _variable(block: Block) -> VariableBlock:
    if not isinstance(block, VariableBlock):
        raise InvalidInputError("codec variable stores byte strings only")
    return block


CODEC = VariableCodec()
