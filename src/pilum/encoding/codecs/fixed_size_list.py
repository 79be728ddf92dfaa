"""FixedSizeList: rows of a fixed number of items (`spec/compression.md`, section 4.12).

Lists nest; the innermost values are flat.  Null rows are definition levels, null items are
bitmaps stored with the values, for each layer that has any.  With cum(k) the product of the
dimensions of layers 1..k:

    M  one buffer per layer with item validity (rows * cum(k) bits, outer layer first), then
       one of rows * cum * bits bits; every buffer is byte-aligned per chunk
    V  per row: ceil(cum(k) / 8) validity bytes per such layer, then cum * bits / 8 bytes

Unused high bits of validity bytes are garbage.  When all items of a page are null the leaf is
a constant without value and there are no data bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilum.encoding.blocks import Block, Bytes, FixedBlock, FslBlock, NullBlock, pack_bits, unpack_bits
from pilum.encoding.codecs.base import (
    CE,
    ChunkSet,
    Codec,
    EncodeOptions,
    FixedValues,
    Ints,
    MiniBlockEncoded,
    Values,
    variant,
)
from pilum.encoding.codecs.constant import constant_ce
from pilum.encoding.codecs.flat import bytes_of, chunk_counts, flat_bits, flat_ce, join_flat, values_per_chunk
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["CODEC"]

_MAX_ROW_BITS = 1 << 40
_MAX_LAYERS = 16


@dataclass(frozen=True, slots=True)
class _Shape:
    """The layers of a list, outer first; ``bits`` of the leaf is 0 when it has no values."""

    dimensions: tuple[int, ...]
    cumulative: tuple[int, ...]
    validity: tuple[bool, ...]
    bits: int

    @property
    def items(self) -> int:
        return self.cumulative[-1]

    def block(self, bitmaps: list[Bytes], data: Bytes | None, rows: int) -> Block:
        """Put validity bitmaps (of layers that have one) and leaf data together."""
        block: Block
        count = rows * self.items
        block = NullBlock(count) if data is None else FixedBlock(self.bits, data, count)
        remaining = list(bitmaps)
        for layer in range(len(self.dimensions) - 1, -1, -1):
            bitmap = remaining.pop() if self.validity[layer] else None
            count = rows * self.cumulative[layer] // self.dimensions[layer]
            block = FslBlock(self.dimensions[layer], bitmap, block, count)
        return block


def _shape(ce: CE) -> _Shape:
    dimensions: list[int] = []
    cumulative: list[int] = []
    validity: list[bool] = []
    product = 1
    while variant(ce) == "fixed_size_list":
        message = ce.fixed_size_list
        dimension = int(message.items_per_value)
        product *= dimension
        if not dimension or product > _MAX_ROW_BITS or len(dimensions) == _MAX_LAYERS:
            raise CorruptFileError(f"fixed-size list of {product} items in layer {len(dimensions) + 1}")
        if not message.HasField("values"):
            raise CorruptFileError("codec fixed_size_list has no child")
        dimensions.append(dimension)
        cumulative.append(product)
        validity.append(bool(message.has_validity))
        ce = message.values
    if variant(ce) == "constant":
        if ce.constant.HasField("value"):
            raise CorruptFileError("fixed-size list of constant values")
        bits = 0
    else:
        bits = flat_bits(ce)
        if product * bits > _MAX_ROW_BITS:
            raise CorruptFileError(f"fixed-size list of {product} values of {bits} bits")
    return _Shape(tuple(dimensions), tuple(cumulative), tuple(validity), bits)


class FixedSizeListCodec(Codec):
    name = "fixed_size_list"

    def num_buffers(self, ce: CE) -> int:
        shape = _shape(ce)
        return sum(shape.validity) + (shape.bits > 0)

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        shape = _shape(ce)
        layers = [cum for cum, has in zip(shape.cumulative, shape.validity, strict=True) if has]
        if int(counts.max(initial=0)) * shape.items * max(shape.bits, 1) > _MAX_ROW_BITS:
            raise CorruptFileError(f"chunk of {int(counts.max())} fixed-size lists of {shape.items} items")
        bitmaps = [
            join_flat(1, chunks, counts * cum).data for chunks, cum in zip(buffers, layers, strict=False)
        ]
        data = None
        if shape.bits:
            data = join_flat(shape.bits, buffers[-1], counts * shape.items).data
        return shape.block(bitmaps, data, int(counts.sum()))

    def decode_values(self, ce: CE, values: Values) -> Block:
        return self.values_decoder(ce)(values)

    def values_decoder(self, ce: CE) -> Callable[[Values], Block]:
        shape = _shape(ce)
        layers = [cum for cum, has in zip(shape.cumulative, shape.validity, strict=True) if has]
        prefix = sum((cum + 7) // 8 for cum in layers)
        body = shape.items * shape.bits
        if body % 8:
            raise CorruptFileError(f"full-zip rows of {body} bits are not whole bytes")
        width = prefix + body // 8
        items, bits = shape.items, shape.bits
        vectors = len(shape.dimensions) == 1 and not layers and bits > 0

        def decode(values: Values) -> Block:
            if not isinstance(values, FixedValues) or values.width != width:
                raise CorruptFileError(f"full-zip rows should have {width} bytes")
            data, rows = values.data, values.count
            if len(data) != rows * width:
                if len(data) < rows * width:
                    raise CorruptFileError(f"{rows} rows of {width} bytes, got {len(data)} bytes")
                data = data[: rows * width]
            if vectors:  # the values are what was read
                return FslBlock(items, None, FixedBlock(bits, data, rows * items), rows)
            return _unzip(shape, layers, data.reshape(rows, width))

        return decode

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        shape = _shape(ce)
        if any(shape.validity) or not shape.bits:
            raise CorruptFileError("block of fixed-size lists with null items")
        size = (count * shape.items * shape.bits + 7) // 8
        if len(data) < size:
            raise CorruptFileError(f"block of {len(data)} bytes cannot hold {count} fixed-size lists")
        return shape.block([], data[:size], count)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        shape, bitmaps, data, ce = _take_apart(block)
        layers = [cum for cum, has in zip(shape.cumulative, shape.validity, strict=True) if has]
        width = (shape.items * shape.bits + 7) // 8 + sum((cum + 7) // 8 for cum in layers)
        counts = chunk_counts(block.count, values_per_chunk(width, options.max_values))
        parts = [(bitmap, counts * cum) for bitmap, cum in zip(bitmaps, layers, strict=True)]
        if shape.bits:
            parts.append((data, counts * (shape.items * shape.bits)))
        buffers = [_align_chunks(part, bits) for part, bits in parts]
        return MiniBlockEncoded(buffers, [bytes_of(1, bits) for _, bits in parts], counts, ce)

    def encode_values(self, block: Block, options: EncodeOptions) -> tuple[Values, CE]:
        shape, bitmaps, data, ce = _take_apart(block)
        rows, body = block.count, shape.items * shape.bits
        if body % 8 or (shape.bits % 8 and bitmaps):
            raise InvalidInputError(
                f"lists of {shape.items} values of {shape.bits} bits cannot be stored as full-zip"
            )
        columns = []
        layers = [cum for cum, has in zip(shape.cumulative, shape.validity, strict=True) if has]
        for bitmap, cum in zip(bitmaps, layers, strict=True):
            bits = unpack_bits(bitmap, rows * cum).reshape(rows, cum)
            columns.append(np.packbits(bits, axis=1, bitorder="little"))
        width = body // 8 + sum(column.shape[1] for column in columns)
        if not columns:
            return FixedValues(width, data[: rows * width], rows), ce
        if shape.bits:
            columns.append(data[: rows * body // 8].reshape(rows, body // 8))
        return FixedValues(width, np.concatenate(columns, axis=1).reshape(-1), rows), ce


def _unzip(shape: _Shape, layers: list[int], grid: np.ndarray[Any, np.dtype[np.uint8]]) -> Block:
    """Bitmaps and items of one row per line; ``layers``: items per row of each layer with validity."""
    bitmaps, at = [], 0
    for cum in layers:
        size = (cum + 7) // 8
        bits = np.unpackbits(grid[:, at : at + size], axis=1, count=cum, bitorder="little")
        bitmaps.append(pack_bits(bits.reshape(-1)))
        at += size
    data = np.ascontiguousarray(grid[:, at:]).reshape(-1) if shape.bits else None
    return shape.block(bitmaps, data, len(grid))


def _take_apart(block: Block) -> tuple[_Shape, list[Bytes], Bytes, CE]:
    """Layers, bitmaps, leaf bytes and description of a list block."""
    layers: list[FslBlock] = []
    leaf = block
    while isinstance(leaf, FslBlock):
        layers.append(leaf)
        leaf = leaf.child
    if not layers or not isinstance(leaf, FixedBlock | NullBlock):
        raise InvalidInputError("codec fixed_size_list stores lists of fixed-width values only")
    bits, data = (leaf.bits, leaf.data) if isinstance(leaf, FixedBlock) else (0, np.empty(0, np.uint8))
    ce: Any = flat_ce(bits) if bits else constant_ce()
    cumulative, product = [], 1
    for layer in layers:
        product *= layer.dimension
        cumulative.append(product)
    from pilum.proto import encodings_pb2

    for layer in reversed(layers):
        message = encodings_pb2.FixedSizeList(
            items_per_value=layer.dimension, has_validity=layer.validity is not None, values=ce
        )
        ce = encodings_pb2.CompressiveEncoding(fixed_size_list=message)
    shape = _Shape(
        tuple(layer.dimension for layer in layers),
        tuple(cumulative),
        tuple(layer.validity is not None for layer in layers),
        bits,
    )
    return shape, [layer.validity for layer in layers if layer.validity is not None], data, ce


def _align_chunks(data: Bytes, bits: Ints) -> Bytes:
    """A run of bits cut into chunks of ``bits[c]`` bits, each of which starts on a byte."""
    if len(bits) < 2 or not bool((bits[:-1] % 8).any()):
        return data[: (int(bits.sum()) + 7) // 8]
    ends = np.cumsum(bits)
    loose = unpack_bits(data, int(ends[-1]))
    pieces = zip((ends - bits).tolist(), ends.tolist(), strict=True)
    return np.concatenate([pack_bits(loose[a:b]) for a, b in pieces])


CODEC = FixedSizeListCodec()
