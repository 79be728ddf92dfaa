"""Dictionaries of a page: made of repeated values, joined when batches bring their own (6.4, 4.8).

    values   b  a  b  c  a         indices  0 1 0 2 1         items  b a c      in order of appearance

A plain column is written as indices when that saves a fifth of its bytes; a sample of the page says early when it
cannot (`spec/compression.md`, section 6.4).  Hashing is Arrow's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays, distinct
from pilum.encoding.arrow_blocks import from_arrow
from pilum.encoding.blocks import (
    Block,
    DictionaryBlock,
    FixedBlock,
    NullBlock,
    VariableBlock,
    concat_blocks,
    take_block,
)
from pilum.encoding.options import EncodeOptions
from pilum.errors import InvalidInputError, UnsupportedError

__all__ = ["compacted", "dictionary_of", "same_items", "unify"]

_SAMPLED_FROM = 1024  # values; smaller pages are tried without asking a sample
_SAMPLE = 4096
_FEW = 256  # values
_RANGES = 32
_UNIQUE = 0.98
_BEGINNING = 16  # bytes
_INTEGERS: dict[int, Any] = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


def dictionary_of(block: Block, options: EncodeOptions) -> DictionaryBlock | None:
    """The block as 32-bit indices into a dictionary; None when that does not pay."""
    count = block.count
    if count < options.dict_too_small:
        return None
    if isinstance(block, VariableBlock):
        size = int(block.offsets[-1]) + block.offsets.itemsize * count
    elif isinstance(block, FixedBlock) and (
        block.bits == 128 or (block.bits == 64 and options.version >= (2, 2))
    ):
        size = count * block.bits // 8
    else:
        return None
    limit = min(count // options.dict_divisor, options.dict_max_cardinality)
    allowed = options.dict_size_ratio * size
    if limit < 1 or 4 * count >= allowed or _too_many(block, count, limit):
        return None
    values = _hashable(block)
    # a page may look repetitive at the sampled places only: an eighth of it says so at an eighth of the cost
    if count >= 8 * _SAMPLED_FROM and len(arrays.compute().unique(values.slice(0, count // 8))) > limit:
        return None
    encoded = arrays.compute().dictionary_encode(values)
    items = from_arrow(encoded.dictionary)
    if items.count > limit:
        return None
    if isinstance(items, VariableBlock):
        stored = len(items.data) + items.offsets.itemsize * (items.count + 1)
    else:
        assert isinstance(items, FixedBlock)
        stored = items.count * items.bits // 8
    if 4 * count + stored > allowed:
        return None
    if isinstance(items, VariableBlock) and isinstance(block, VariableBlock):
        items.offset_bits = block.offset_bits
    indices = from_arrow(encoded.indices)
    assert isinstance(indices, FixedBlock)
    return DictionaryBlock(indices, items, count)


def _too_many(block: Block, count: int, limit: int) -> bool:
    """Whether a sample of the page, or a look at few numbers, shows more different values than a dictionary may have."""
    if count <= _FEW and isinstance(block, FixedBlock) and block.bits == 64:
        return (
            len(set(block.words().tolist())) > limit
        )  # to call Arrow's function takes several times as long
    if count < _SAMPLED_FROM:
        return False
    length = min(count, _SAMPLE) // _RANGES
    heads = np.arange(_RANGES) * count // _RANGES
    places = (heads[:, None] + np.arange(length)).reshape(-1)

    def many(sample: Block) -> bool:
        ratio = len(arrays.compute().unique(_hashable(sample))) / len(places)
        return ratio >= _UNIQUE or math.ceil(ratio * count) > limit

    # Long values whose beginnings differ differ: for most of them that spares copying and hashing all of it.
    long = isinstance(block, VariableBlock) and int(block.offsets[-1]) > 8 * _BEGINNING * count
    return (long and many(_beginnings(block, places))) or many(take_block(block, places))


def _beginnings(block: Block, places: npt.NDArray[np.int64]) -> FixedBlock:
    """The first bytes of some values, and how long these are."""
    assert isinstance(block, VariableBlock)
    starts = block.offsets[:-1][places].astype(np.int64)
    sizes = block.offsets[1:][places] - starts
    nth = np.arange(_BEGINNING)
    shown = block.data[np.minimum(starts[:, None] + nth, len(block.data) - 1)]
    shown[nth >= sizes[:, None]] = 0
    rows = np.concatenate([shown, sizes.view(np.uint8).reshape(-1, 8)], axis=1)
    return FixedBlock(8 * rows.shape[1], rows.reshape(-1), len(places))


def _hashable(block: Block) -> Any:
    """The values as an Arrow array without nulls; bytes are compared, whatever they mean."""
    if isinstance(block, VariableBlock):
        kind = pa.binary() if block.offsets.dtype == np.int32 else pa.large_binary()
        buffers = [None, pa.py_buffer(np.ascontiguousarray(block.offsets)), pa.py_buffer(block.data)]
        return pa.Array.from_buffers(kind, block.count, buffers, 0)
    if not isinstance(block, FixedBlock) or block.bits % 8:
        raise UnsupportedError("dictionaries of these values cannot be joined; write one batch at a time")
    kind = _INTEGERS.get(block.bits) or pa.binary(block.bits // 8)
    data = np.ascontiguousarray(block.data[: block.count * block.bits // 8])
    return pa.Array.from_buffers(kind, block.count, [None, pa.py_buffer(data)], 0)


# --------------------------------------------------------------------------- dictionaries of batches


def same_items(left: Block, right: Block) -> bool:
    """Whether two dictionaries are equal, entry by entry; most batches of one source share theirs."""
    if left is right:
        return True
    if isinstance(left, VariableBlock) and isinstance(right, VariableBlock):
        return (
            left.count == right.count
            and np.array_equal(left.offsets, right.offsets)
            and np.array_equal(left.data[: int(left.offsets[-1])], right.data[: int(right.offsets[-1])])
        )
    if isinstance(left, FixedBlock) and isinstance(right, FixedBlock):
        return left.count == right.count and np.array_equal(left.data, right.data)
    return False


def unify(parts: Sequence[DictionaryBlock]) -> DictionaryBlock:
    """Indices of several batches under one dictionary.

    Raises:
        InvalidInputError: the entries of all batches are more than the indices can count.
    """
    first = parts[0]
    bits, count = first.indices.bits, sum(part.count for part in parts)
    if isinstance(first.items, NullBlock) or all(same_items(first.items, part.items) for part in parts[1:]):
        indices = concat_blocks([part.indices for part in parts])
        assert isinstance(indices, FixedBlock)
        return DictionaryBlock(indices, first.items, count)
    encoded = arrays.compute().dictionary_encode(_hashable(concat_blocks([part.items for part in parts])))
    table = arrays.to_numpy(encoded.indices)
    items = from_arrow(encoded.dictionary)
    if items.count > 1 << (bits - 1):
        raise InvalidInputError(f"{items.count} dictionary entries do not fit indices of {bits} bits")
    word = first.indices.words().dtype
    words, base = [], 0
    for part in parts:
        known = table[base : base + part.items.count]
        base += part.items.count
        # a batch of nulls may bring no entries at all
        words.append(known[part.indices.words()] if len(known) else np.zeros(part.count, np.int32))
    joined = np.concatenate(words).astype(word)
    return DictionaryBlock(FixedBlock(bits, joined.view(np.uint8), count), items, count)


def compacted(block: DictionaryBlock) -> DictionaryBlock:
    """Without the entries that nobody points to, where the dictionary is larger than the page."""
    if block.items.count <= block.count:
        return block
    words = block.indices.words()
    used, narrow = distinct.unique_inverse(words)
    indices = FixedBlock(block.indices.bits, narrow.astype(words.dtype).view(np.uint8), block.count)
    return DictionaryBlock(indices, take_block(block.items, used.astype(np.int64)), block.count)
