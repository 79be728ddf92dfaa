"""Data blocks: what codecs produce and consume, one step away from Arrow.

A block holds the values of one leaf column with nulls already moved to definition levels
(`spec/compression.md`, section 3).  Four shapes cover every leaf type:

    FixedBlock     n values of `bits` bits           data: ceil(n*bits/8) bytes, little-endian, LSB first
    VariableBlock  n byte strings                    offsets: n+1 numbers starting at 0, data: bytes
    FslBlock       n rows of `dimension` items       child block of n*dimension items, item validity
    NullBlock      n values without any content      (all items null inside a fixed-size list)

Blocks are plain values; whoever makes one guarantees its invariants (lengths fit, offsets
start at 0, never decrease and end inside `data`).  `to_arrow` checks them once more where
that is cheap, because what goes to Arrow must never make C++ read outside a buffer, and it
checks UTF-8.  Nothing in here knows files, pages or codecs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding.kernels import ranges
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = [
    "Block",
    "FixedBlock",
    "FslBlock",
    "NullBlock",
    "VariableBlock",
    "concat_blocks",
    "from_arrow",
    "pack_bits",
    "slice_block",
    "take_block",
    "to_arrow",
    "unpack_bits",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Bools: TypeAlias = npt.NDArray[np.bool_]
Offsets: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_EMPTY: Bytes = np.empty(0, np.uint8)
_MAX_I32 = 2**31 - 1


@dataclass(slots=True)
class FixedBlock:
    """``count`` values of ``bits`` bits each; one bit per value is packed LSB first."""

    bits: int
    data: Bytes
    count: int

    def words(self) -> npt.NDArray[Any]:
        """The values as unsigned words of ``bits`` bits (8, 16, 32 or 64), without a copy."""
        width = self.bits // 8
        words: npt.NDArray[Any] = self.data[: self.count * width].view(_WORDS[self.bits])
        return words


@dataclass(slots=True)
class VariableBlock:
    """``count`` byte strings; value i is ``data[offsets[i]:offsets[i + 1]]``, ``offsets[0] == 0``."""

    offset_bits: int
    offsets: Offsets
    data: Bytes
    count: int


@dataclass(slots=True)
class FslBlock:
    """``count`` lists of ``dimension`` items; ``validity`` has one bit per item (1 = valid)."""

    dimension: int
    validity: Bytes | None
    child: Block
    count: int


@dataclass(slots=True)
class NullBlock:
    """``count`` values that carry nothing (all of them null)."""

    count: int


Block: TypeAlias = FixedBlock | VariableBlock | FslBlock | NullBlock

_WORDS: dict[int, np.dtype[Any]] = {
    8: np.dtype("<u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}


# --------------------------------------------------------------------------- bits


def unpack_bits(data: Bytes, count: int, start: int = 0) -> Bools:
    """Bits ``start .. start + count`` of an LSB-first bit buffer as booleans."""
    first = start // 8
    part = data[first : (start + count + 7) // 8]
    bits = np.unpackbits(part, count=start - 8 * first + count, bitorder="little")
    return bits[start - 8 * first :].view(np.bool_)


def pack_bits(values: npt.NDArray[Any]) -> Bytes:
    """Booleans (or 0/1 bytes) as an LSB-first bit buffer; unused high bits are 0."""
    return np.packbits(values, bitorder="little")


def _slice_bits(data: Bytes, start: int, count: int) -> Bytes:
    if start % 8 == 0:
        return data[start // 8 : (start + count + 7) // 8]
    return pack_bits(unpack_bits(data, count, start))


# --------------------------------------------------------------------------- slicing


def slice_block(block: Block, start: int, count: int) -> Block:
    """Values ``start .. start + count``; shares memory (bits off a byte boundary are copied)."""
    if start == 0 and count == block.count:
        return block
    if isinstance(block, FixedBlock):
        if block.bits % 8 == 0:
            width = block.bits // 8
            return FixedBlock(block.bits, block.data[start * width : (start + count) * width], count)
        if block.bits == 1:
            return FixedBlock(1, _slice_bits(block.data, start, count), count)
        return _odd_bits(block, np.arange(start, start + count))
    if isinstance(block, VariableBlock):
        offsets = block.offsets[start : start + count + 1]
        low, high = int(offsets[0]), int(offsets[-1])
        if low:
            offsets = offsets - offsets.dtype.type(low)
        return VariableBlock(block.offset_bits, offsets, block.data[low:high], count)
    if isinstance(block, FslBlock):
        first, items = start * block.dimension, count * block.dimension
        validity = None if block.validity is None else _slice_bits(block.validity, first, items)
        return FslBlock(block.dimension, validity, slice_block(block.child, first, items), count)
    return NullBlock(count)


def take_block(block: Block, indices: npt.NDArray[np.int64]) -> Block:
    """The values at ``indices`` (each within the block), in that order."""
    count = len(indices)
    if isinstance(block, FixedBlock):
        if block.bits == 1:
            return FixedBlock(1, pack_bits(unpack_bits(block.data, block.count)[indices]), count)
        if block.bits % 8:
            return _odd_bits(block, indices)
        width = block.bits // 8
        data = block.data[: block.count * width]
        if width in (1, 2, 4, 8):
            taken = data.view(_WORDS[block.bits])[indices].view(np.uint8)
        else:
            taken = data.reshape(block.count, width)[indices].reshape(-1)
        return FixedBlock(block.bits, taken, count)
    if isinstance(block, VariableBlock):
        starts = block.offsets[:-1][indices].astype(np.int64, copy=False)
        sizes = block.offsets[1:][indices] - starts
        offsets, bits = _offsets_of(sizes, block.offset_bits)
        return VariableBlock(bits, offsets, ranges.gather(block.data, starts, sizes), count)
    if isinstance(block, FslBlock):
        items = (indices[:, None] * block.dimension + np.arange(block.dimension)).reshape(-1)
        validity = block.validity
        if validity is not None:
            total = block.count * block.dimension
            validity = pack_bits(unpack_bits(validity, total)[items])
        child = block.child
        if isinstance(child, FixedBlock) and child.bits % 8 == 0:
            # a row of items is one wide value: no index per item
            row = FixedBlock(child.bits * block.dimension, child.data, block.count)
            rows = take_block(row, indices)
            assert isinstance(rows, FixedBlock)
            return FslBlock(block.dimension, validity, FixedBlock(child.bits, rows.data, len(items)), count)
        return FslBlock(block.dimension, validity, take_block(child, items), count)
    return NullBlock(count)


def concat_blocks(blocks: list[Block]) -> Block:
    """One block with the values of all; the blocks must have the same shape (NullBlocks only mix with each other)."""
    if len(blocks) == 1:
        return blocks[0]
    if not blocks:
        raise ValueError("no blocks to concatenate")
    first = blocks[0]
    count = sum(block.count for block in blocks)
    if isinstance(first, FixedBlock):
        fixed = cast("list[FixedBlock]", blocks)
        if any(not isinstance(b, FixedBlock) or b.bits != first.bits for b in blocks):
            raise ValueError("blocks of different widths")
        if first.bits % 8 == 0:
            width = first.bits // 8
            parts = [b.data[: b.count * width] for b in fixed]
            return FixedBlock(first.bits, np.concatenate(parts), count)
        return FixedBlock(first.bits, _concat_bits([(b.data, b.count * b.bits) for b in fixed]), count)
    if isinstance(first, VariableBlock):
        variable = cast("list[VariableBlock]", blocks)
        sizes = np.concatenate([np.diff(b.offsets) for b in variable])
        offsets, bits = _offsets_of(sizes, first.offset_bits)
        data = np.concatenate([b.data[: int(b.offsets[-1])] for b in variable])
        return VariableBlock(bits, offsets, data, count)
    if isinstance(first, FslBlock):
        lists = cast("list[FslBlock]", blocks)
        validity = None
        if any(b.validity is not None for b in lists):
            valid = [
                unpack_bits(b.validity, b.count * b.dimension)
                if b.validity is not None
                else np.ones(b.count * b.dimension, np.bool_)
                for b in lists
            ]
            validity = pack_bits(np.concatenate(valid))
        children = _fill_null_children([b.child for b in lists])
        return FslBlock(first.dimension, validity, concat_blocks(children), count)
    return NullBlock(count)


def _fill_null_children(children: list[Block]) -> list[Block]:
    """Replace `NullBlock`s by zeros of the shape that the other children have."""
    model = next((c for c in children if not isinstance(c, NullBlock)), None)
    if model is None or all(not isinstance(c, NullBlock) for c in children):
        return children
    if not isinstance(model, FixedBlock):
        raise UnsupportedError("pages with and without item values in one nested list column")
    return [
        FixedBlock(model.bits, np.zeros((c.count * model.bits + 7) // 8, np.uint8), c.count)
        if isinstance(c, NullBlock)
        else c
        for c in children
    ]


def _concat_bits(parts: list[tuple[Bytes, int]]) -> Bytes:
    if all(bits % 8 == 0 for _, bits in parts[:-1]):
        return np.concatenate([data[: (bits + 7) // 8] for data, bits in parts])
    return pack_bits(np.concatenate([unpack_bits(data, bits) for data, bits in parts]))


def _odd_bits(block: FixedBlock, indices: npt.NDArray[np.int64]) -> FixedBlock:
    """Take from values that are not whole bytes (no Arrow type has them, files may)."""
    grid = unpack_bits(block.data, block.count * block.bits).reshape(block.count, block.bits)
    return FixedBlock(block.bits, pack_bits(grid[indices].reshape(-1)), len(indices))


def _offsets_of(sizes: npt.NDArray[Any], offset_bits: int) -> tuple[Offsets, int]:
    """Offsets from sizes; more than 2 GiB makes them 64 bits wide whatever was wanted."""
    offsets = np.empty(len(sizes) + 1, np.int64)
    offsets[0] = 0
    np.cumsum(sizes, dtype=np.int64, out=offsets[1:])
    if offset_bits == 32 and offsets[-1] <= _MAX_I32:
        return offsets.astype(np.int32), 32
    return offsets, 64


# --------------------------------------------------------------------------- from Arrow


def from_arrow(array: pa.Array) -> Block:
    """The values of a leaf array; honours its offset, ignores its own validity.

    Null items of a fixed-size list become the validity of its block, except the items of
    null rows: those rows are definition levels already.  Buffers are shared, not copied.
    """
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return from_arrow(array.storage)
    if pa.types.is_fixed_size_list(kind):
        return _fsl_from_arrow(array)
    count, offset = len(array), array.offset
    if pa.types.is_null(kind):
        return NullBlock(count)
    if pa.types.is_string_view(kind):
        return from_arrow(array.cast(pa.string()))
    if pa.types.is_binary_view(kind):
        return from_arrow(array.cast(pa.binary()))
    if _is_variable(kind):
        return _variable_from_arrow(array, 64 if _is_large(kind) else 32)
    if kind.num_fields or pa.types.is_dictionary(kind):
        raise UnsupportedError(f"no data block for Arrow type {kind}")
    bits = _bit_width(kind)
    buffer = array.buffers()[1]
    data = _EMPTY if buffer is None else np.frombuffer(buffer, np.uint8)
    if bits == 1:
        return FixedBlock(1, _slice_bits(data, offset, count), count)
    width = bits // 8
    return FixedBlock(bits, data[offset * width : (offset + count) * width], count)


def _variable_from_arrow(array: pa.Array, offset_bits: int) -> VariableBlock:
    count, offset = len(array), array.offset
    dtype: np.dtype[Any] = np.dtype("<i4" if offset_bits == 32 else "<i8")
    _, offsets_buffer, data_buffer = array.buffers()
    if offsets_buffer is None or offsets_buffer.size == 0:
        return VariableBlock(offset_bits, np.zeros(1, dtype), _EMPTY, 0)
    offsets = np.frombuffer(offsets_buffer, dtype)[offset : offset + count + 1]
    low, high = int(offsets[0]), int(offsets[-1])
    data = _EMPTY if data_buffer is None else np.frombuffer(data_buffer, np.uint8)[low:high]
    return VariableBlock(offset_bits, offsets - offsets.dtype.type(low) if low else offsets, data, count)


def _fsl_from_arrow(array: pa.Array) -> FslBlock:
    count, dimension = len(array), array.type.list_size
    items = array.values.slice(array.offset * dimension, count * dimension)
    child = from_arrow(items)
    validity: Bytes | None = None
    if items.null_count:
        buffer = _storage(items).buffers()[0]
        if buffer is None:  # the null type has nulls but no bitmap
            valid = np.zeros(len(items), np.bool_)
        else:
            valid = unpack_bits(np.frombuffer(buffer, np.uint8), len(items), items.offset)
        if array.null_count:
            rows = unpack_bits(np.frombuffer(array.buffers()[0], np.uint8), count, array.offset)
            valid = valid | np.repeat(~rows, dimension)
        if not valid.all():
            validity = pack_bits(valid)
    return FslBlock(dimension, validity, child, count)


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array.type, pa.BaseExtensionType) else array


def _is_variable(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_binary(kind) or _is_large(kind))


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _bit_width(kind: pa.DataType) -> int:
    try:
        bits = int(kind.bit_width)
    except ValueError:
        raise UnsupportedError(f"no data block for Arrow type {kind}") from None
    if bits == 0:
        raise UnsupportedError(f"values of no bytes cannot be stored: Arrow type {kind}")
    return bits


# --------------------------------------------------------------------------- to Arrow


def to_arrow(block: Block, arrow_type: pa.DataType, validity: Bools | None = None) -> pa.Array:
    """The block as an Arrow array of ``arrow_type``, zero copy where alignment allows.

    Args:
        block: the values; its shape must fit the type.
        arrow_type: a leaf type of section 3 (an extension type means its storage).
        validity: one boolean per value, True = valid; None = all valid.

    Raises:
        CorruptFileError: widths, offsets or UTF-8 contradict the type.
    """
    if isinstance(arrow_type, pa.BaseExtensionType):
        storage = to_arrow(block, arrow_type.storage_type, validity)
        return pa.ExtensionArray.from_storage(arrow_type, storage)
    if isinstance(block, NullBlock):
        return pa.nulls(block.count, arrow_type)
    bitmap, nulls = None, 0
    if validity is not None:
        nulls = block.count - int(np.count_nonzero(validity))
        if nulls:
            bitmap = pa.py_buffer(pack_bits(validity))
    if isinstance(block, FslBlock):
        return _fsl_to_arrow(block, arrow_type, bitmap, nulls)
    if isinstance(block, VariableBlock):
        return _variable_to_arrow(block, arrow_type, bitmap, nulls)
    return _fixed_to_arrow(block, arrow_type, bitmap, nulls)


def _fixed_to_arrow(block: FixedBlock, kind: pa.DataType, bitmap: Any, nulls: int) -> pa.Array:
    if _is_variable(kind) or kind.num_fields:
        raise CorruptFileError(f"column of type {kind} is stored as fixed-width values of {block.bits} bits")
    if pa.types.is_null(kind):
        return pa.nulls(block.count)
    bits = _bit_width(kind)
    data = block.data
    if bits == 1 and block.bits == 8:  # full-zip stores one byte per boolean
        data = pack_bits(data[: block.count] != 0)
    elif block.bits != bits:
        raise CorruptFileError(
            f"column of type {kind} needs {bits} bits per value, the page has {block.bits}"
        )
    size = (block.count * bits + 7) // 8
    if len(data) < size:
        raise CorruptFileError(f"{block.count} values of {bits} bits need {size} bytes, got {len(data)}")
    return pa.Array.from_buffers(kind, block.count, [bitmap, _aligned(data[:size], bits // 8)], nulls)


def _aligned(data: npt.NDArray[Any], width: int) -> pa.Buffer:
    """An Arrow buffer over ``data``; copied only if values would straddle their alignment."""
    if not data.flags.c_contiguous:
        data = np.ascontiguousarray(data)
    buffer = pa.py_buffer(data)
    if width in (2, 4, 8, 16, 32) and buffer.address % min(width, 8):
        return pa.py_buffer(data.copy())
    return buffer


def _variable_to_arrow(block: VariableBlock, kind: pa.DataType, bitmap: Any, nulls: int) -> pa.Array:
    if not _is_variable(kind):
        raise CorruptFileError(f"column of type {kind} is stored as variable-width values")
    large, offsets = _is_large(kind), block.offsets
    if len(offsets) != block.count + 1 or offsets[0] != 0:
        raise CorruptFileError(f"{block.count} values have {len(offsets)} offsets")
    if offsets[-1] > len(block.data) or bool(np.any(offsets[1:] < offsets[:-1])):
        raise CorruptFileError("offsets of a variable-width page decrease or leave the page")
    if large:
        offsets = offsets.astype(np.int64, copy=False)
    elif offsets.dtype != np.int32:
        if offsets[-1] > _MAX_I32:
            raise InvalidInputError(
                f"{int(offsets[-1])} bytes of {kind} values do not fit one Arrow array; read smaller batches"
            )
        offsets = offsets.astype(np.int32)
    data = block.data[: int(offsets[-1])]
    buffers = [bitmap, _aligned(offsets, 8 if large else 4), pa.py_buffer(np.ascontiguousarray(data))]
    array = pa.Array.from_buffers(kind, block.count, buffers, nulls)
    # ASCII needs no per-value check: one pass of `max` is several times cheaper than Arrow's
    if _is_text(kind) and len(data) and int(data.max()) > 127:
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise CorruptFileError(f"string column holds invalid UTF-8: {error}") from None
    return array


def _fsl_to_arrow(block: FslBlock, kind: pa.DataType, bitmap: Any, nulls: int) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != block.dimension:
        raise CorruptFileError(f"column of type {kind} is stored as lists of {block.dimension} items")
    items = block.count * block.dimension
    if block.child.count != items:
        raise CorruptFileError(f"{items} list items expected, the page has {block.child.count}")
    valid = None if block.validity is None else unpack_bits(block.validity, items)
    child = to_arrow(block.child, kind.value_type, valid)
    return pa.Array.from_buffers(kind, block.count, [bitmap], nulls, children=[child])
