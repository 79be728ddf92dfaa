"""Data blocks: what codecs produce and consume, one step away from Arrow.

A block holds the values of one leaf column with nulls already moved to definition levels
(`spec/compression.md`, section 3).  Six shapes cover every leaf type:

    FixedBlock       n values of `bits` bits        data: ceil(n*bits/8) bytes, little-endian, LSB first
    VariableBlock    n byte strings                 offsets: n+1 numbers starting at 0, data: bytes
    FslBlock         n rows of `dimension` items    child block of n*dimension items, item validity
    StructBlock      n packed structs               one block of n values per member
    DictionaryBlock  n indices                      into a block of items
    NullBlock        n values without any content   (all items null inside a fixed-size list)

Blocks are plain values; whoever makes one guarantees its invariants (lengths fit, offsets
start at 0, never decrease and end inside `data`, indices lie inside the dictionary).  The way
to Arrow and back is `arrow_blocks`.  Nothing in here knows files, pages or codecs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pilum.encoding import dictionaries
from pilum.encoding.kernels import ranges
from pilum.encoding.kernels.memory import empty
from pilum.errors import InvalidInputError, UnsupportedError

__all__ = [
    "Block",
    "DictionaryBlock",
    "FixedBlock",
    "FslBlock",
    "NullBlock",
    "StructBlock",
    "VariableBlock",
    "block_bytes",
    "concat_blocks",
    "decode_dictionary",
    "joined",
    "pack_bits",
    "slice_bits",
    "slice_block",
    "take_block",
    "unpack_bits",
]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Bools: TypeAlias = npt.NDArray[np.bool_]
Offsets: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_MAX_I32 = 2**31 - 1
_MAX_EXPANDED = 1 << 36  # bytes that a dictionary of long values may expand to in one read


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


@dataclass(slots=True)
class StructBlock:
    """``count`` packed structs; every child has as many values."""

    children: tuple[Block, ...]
    count: int


@dataclass(slots=True)
class DictionaryBlock:
    """``count`` values given as unsigned indices of 8 to 64 bits into ``items``; those of nulls are valid, too."""

    indices: FixedBlock
    items: Block
    count: int


Block: TypeAlias = FixedBlock | VariableBlock | FslBlock | StructBlock | DictionaryBlock | NullBlock

_WORDS: dict[int, np.dtype[Any]] = {
    8: np.dtype("<u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<u4"),
    64: np.dtype("<u8"),
}


def block_bytes(block: Block | None) -> int:
    """Bytes that a block takes in memory; a dictionary counts whole."""
    if isinstance(block, FixedBlock):
        return (block.count * block.bits + 7) // 8
    if isinstance(block, VariableBlock):
        return int(block.offsets[-1]) + block.offsets.nbytes
    if isinstance(block, FslBlock):
        return (0 if block.validity is None else block.validity.nbytes) + block_bytes(block.child)
    if isinstance(block, StructBlock):
        return sum(map(block_bytes, block.children))
    if isinstance(block, DictionaryBlock):
        return block_bytes(block.indices) + block_bytes(block.items)
    return 0


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


def slice_bits(data: Bytes, start: int, count: int) -> Bytes:
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
            return FixedBlock(1, slice_bits(block.data, start, count), count)
        return _odd_bits(block, np.arange(start, start + count))
    if isinstance(block, VariableBlock):
        offsets = block.offsets[start : start + count + 1]
        low, high = int(offsets[0]), int(offsets[-1])
        if low:
            offsets = offsets - offsets.dtype.type(low)
        return VariableBlock(block.offset_bits, offsets, block.data[low:high], count)
    if isinstance(block, FslBlock):
        first, items = start * block.dimension, count * block.dimension
        validity = None if block.validity is None else slice_bits(block.validity, first, items)
        return FslBlock(block.dimension, validity, slice_block(block.child, first, items), count)
    if isinstance(block, StructBlock):
        return StructBlock(tuple(slice_block(child, start, count) for child in block.children), count)
    if isinstance(block, DictionaryBlock):
        return DictionaryBlock(_indices(slice_block(block.indices, start, count)), block.items, count)
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
    if isinstance(block, StructBlock):
        return StructBlock(tuple(take_block(child, indices) for child in block.children), count)
    if isinstance(block, DictionaryBlock):
        return DictionaryBlock(_indices(take_block(block.indices, indices)), block.items, count)
    return NullBlock(count)


def _indices(block: Block) -> FixedBlock:
    assert isinstance(block, FixedBlock)
    return block


def decode_dictionary(block: DictionaryBlock) -> Block:
    """The values that the indices stand for.

    Raises:
        InvalidInputError: few indices of long strings expand to more than one array can hold.
    """
    positions = block.indices.words().astype(np.int64)
    items = block.items
    if isinstance(items, VariableBlock) and len(positions):
        sizes = np.diff(items.offsets)
        limit = _MAX_I32 if items.offset_bits == 32 else _MAX_EXPANDED
        if len(positions) * int(sizes.max(initial=0)) > limit:
            total = int(sizes[positions].sum(dtype=np.int64))
            if total > limit:
                raise InvalidInputError(
                    f"{len(positions)} dictionary values expand to {total} bytes; read fewer rows at once"
                )
    return take_block(items, positions)


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
            return FixedBlock(first.bits, joined(parts), count)
        return FixedBlock(first.bits, _concat_bits([(b.data, b.count * b.bits) for b in fixed]), count)
    if isinstance(first, VariableBlock):
        variable = cast("list[VariableBlock]", blocks)
        data = joined([b.data[: int(b.offsets[-1])] for b in variable])
        bits = 32 if first.offset_bits == 32 and len(data) <= _MAX_I32 else 64
        offsets: Offsets = empty(count + 1, np.int32 if bits == 32 else np.int64)
        offsets[0] = at = base = 0
        for b in variable:
            np.add(b.offsets[1:], base, out=offsets[at + 1 : at + b.count + 1], casting="unsafe")
            at += b.count
            base += int(b.offsets[-1])
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
    if isinstance(first, StructBlock):
        structs = cast("list[StructBlock]", blocks)
        members = zip(*(b.children for b in structs), strict=True)
        return StructBlock(tuple(concat_blocks(list(member)) for member in members), count)
    if isinstance(first, DictionaryBlock):
        return dictionaries.unify(cast("list[DictionaryBlock]", blocks))
    return NullBlock(count)


def joined(parts: list[Bytes]) -> Bytes:
    """Bytes back to back, in memory that is not asked of the system each time."""
    out: Bytes = empty(sum(map(len, parts)), np.uint8)
    return np.concatenate(parts, out=out)


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
