"""Decoded values as Arrow arrays: what the types of format 2.0 need beyond `blocks.to_arrow`.

dictionary type      indices of the width that is stored, cast to the declared one
anything else with a dictionary      looked up
struct (packed)      row-major bytes cut into the members (`spec/file-2.0-and-0.1.md`, A.7)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pilum import arrays, turns
from pilum.encoding.arrow_blocks import aligned, to_arrow
from pilum.encoding.blocks import FixedBlock, FslBlock, NullBlock
from pilum.encoding.v2_0.flat import fixed_bits
from pilum.encoding.v2_0.reads import Values
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = ["converter", "member_bits", "to_array"]

# Looking up so many strings takes longer than handing the turn over.
_LONG_TAKE = 10_000
_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


def to_array(values: Values, arrow_type: Any) -> Any:
    """The values as an array of ``arrow_type``.

    Raises:
        CorruptFileError: they do not fit the type, or are not valid UTF-8.
    """
    if pa.types.is_dictionary(arrow_type):
        return _dictionary(values, arrow_type)
    if values.dictionary is not None:
        pc = arrays.compute()
        indices = _indices(values)
        had = turns.leave() if len(indices) >= _LONG_TAKE else False
        try:
            found = pc.take(values.dictionary, indices)
        finally:
            turns.resume(had)
        return found if found.type.equals(arrow_type) else pc.cast(found, arrow_type)
    if pa.types.is_struct(arrow_type) and isinstance(values.block, FixedBlock):
        return _packed(values.block, arrow_type)
    return to_arrow(values.block, arrow_type, values.validity)


def converter(arrow_type: Any) -> Callable[[Values], Any]:
    """`to_array` for one type; what the type alone decides is decided once."""
    dimension, item = 1, arrow_type
    if pa.types.is_fixed_size_list(arrow_type):
        dimension, item = arrow_type.list_size, arrow_type.value_type
    bits = None if isinstance(item, pa.BaseExtensionType) else fixed_bits(item)
    if not bits or bits % 8 or pa.types.is_null(item):
        return lambda values: to_array(values, arrow_type)
    width, nested = bits // 8, item is not arrow_type

    def convert(values: Values) -> Any:
        block: Any = values.block
        count = block.count
        plain = values.validity is None and values.dictionary is None
        if nested:
            if not isinstance(block, FslBlock) or block.validity is not None or block.dimension != dimension:
                return to_array(values, arrow_type)
            block = block.child
        size = count * dimension * width
        if not plain or not isinstance(block, FixedBlock) or block.bits != bits or len(block.data) < size:
            return to_array(values, arrow_type)
        found = pa.Array.from_buffers(item, count * dimension, [None, aligned(block.data[:size], width)], 0)
        return pa.Array.from_buffers(arrow_type, count, [None], 0, children=[found]) if nested else found

    return convert


def _indices(values: Values) -> Any:
    block = values.block
    if isinstance(block, NullBlock):
        return pa.nulls(block.count, pa.uint8())
    kind = _UNSIGNED.get(block.bits) if isinstance(block, FixedBlock) else None
    if kind is None:
        raise CorruptFileError("dictionary indices must be integers of 8 to 64 bits")
    return to_arrow(block, kind, values.validity)


def _dictionary(values: Values, arrow_type: Any) -> Any:
    items = values.dictionary
    if items is None:
        if not isinstance(values.block, NullBlock):
            raise CorruptFileError(f"a column of type {arrow_type} is stored without a dictionary")
        return pa.nulls(values.block.count, arrow_type)
    indices = _indices(values)
    if not indices.type.equals(arrow_type.index_type):
        try:
            indices = arrays.compute().cast(indices, arrow_type.index_type)
        except pa.ArrowInvalid as error:
            raise CorruptFileError(
                f"dictionary indices do not fit {arrow_type.index_type}: {error}"
            ) from None
    if items.null_count:
        indices, items = _without_null_items(indices, items)
    return pa.DictionaryArray.from_arrays(indices, items)


def _without_null_items(indices: Any, items: Any) -> tuple[Any, Any]:
    """An index that points to a null item is a null value; Arrow users look at the indices, and cannot unify such items."""
    valid = arrays.valid(items)
    places = arrays.filled(indices)
    keep = valid[places]
    if indices.null_count:
        keep &= arrays.valid(indices)
    moved = np.maximum(np.cumsum(valid) - 1, 0)[places].astype(places.dtype)
    return arrays.from_numpy(moved, indices.type, ~keep), arrays.take(items, np.flatnonzero(valid))


def member_bits(arrow_type: Any) -> tuple[int, ...]:
    """Bits of one value of each member of a packed struct.

    Raises:
        UnsupportedError: a member that is not fixed width in whole bytes.
    """
    found = []
    for index in range(arrow_type.num_fields):
        kind = arrow_type.field(index).type
        bits = _wide_bits(kind)
        if not bits or bits % 8:
            raise UnsupportedError(f"packed structs with a member of type {kind}")
        found.append(bits)
    return tuple(found)


def _wide_bits(kind: Any) -> int | None:
    if pa.types.is_fixed_size_list(kind):
        inner = _wide_bits(kind.value_type)
        return None if inner is None else inner * kind.list_size
    return fixed_bits(kind)


def _packed(block: FixedBlock, arrow_type: Any) -> Any:
    widths = [bits // 8 for bits in member_bits(arrow_type)]
    if block.bits != 8 * sum(widths):
        raise CorruptFileError(f"a packed struct of {sum(widths)} bytes is stored in {block.bits} bits")
    count = block.count
    grid = block.data[: count * sum(widths)].reshape(count, sum(widths))
    members, at = [], 0
    for index, width in enumerate(widths):
        data = np.ascontiguousarray(grid[:, at : at + width]).reshape(-1)
        members.append(_member(data, arrow_type.field(index).type, count))
        at += width
    return pa.StructArray.from_arrays(members, fields=list(arrow_type))


def _member(data: Any, kind: Any, count: int) -> Any:
    def blocks(kind: Any, count: int) -> FixedBlock | FslBlock:
        if pa.types.is_fixed_size_list(kind):
            items = count * kind.list_size
            return FslBlock(kind.list_size, None, blocks(kind.value_type, items), count)
        return FixedBlock(int(kind.bit_width), data, count)

    return to_arrow(blocks(kind, count), kind)
