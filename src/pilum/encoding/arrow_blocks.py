"""Blocks of Arrow arrays, and back (`spec/compression.md`, section 3).

`from_arrow` takes the values of a leaf array without its nulls, which are definition levels by then; `to_arrow`
makes an array of a block and the validity that the levels say.  Buffers are shared both ways where alignment
allows.  What goes to Arrow must never make C++ read outside a buffer, so widths and offsets are checked once
more here, and UTF-8 with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding.blocks import (
    Block,
    Bools,
    Bytes,
    DictionaryBlock,
    FixedBlock,
    FslBlock,
    NullBlock,
    StructBlock,
    VariableBlock,
    decode_dictionary,
    pack_bits,
    slice_bits,
    unpack_bits,
)
from pilum.encoding.kernels import lookup, utf8
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["aligned", "from_arrow", "is_large", "is_text", "is_variable", "to_arrow"]

_EMPTY: Bytes = np.empty(0, np.uint8)
_MAX_I32 = 2**31 - 1
_MAX_EXPANDED = 1 << 36  # bytes that a dictionary of long values may expand to in one read


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
        return from_arrow(arrays.compute().cast(array, pa.string()))
    if pa.types.is_binary_view(kind):
        return from_arrow(arrays.compute().cast(array, pa.binary()))
    if is_variable(kind):
        return _variable_from_arrow(array, 64 if is_large(kind) else 32)
    if pa.types.is_dictionary(kind):
        return _dictionary_from_arrow(array)
    if pa.types.is_struct(kind) and kind.num_fields:
        return _struct_from_arrow(array)
    if kind.num_fields:
        raise UnsupportedError(f"no data block for Arrow type {kind}")
    bits = _bit_width(kind)
    buffer = array.buffers()[1]
    data = _EMPTY if buffer is None else np.frombuffer(buffer, np.uint8)
    if bits == 1:
        return FixedBlock(1, slice_bits(data, offset, count), count)
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


def _struct_from_arrow(array: pa.Array) -> StructBlock:
    """A packed struct; its members have no definition levels of their own, so they must have no nulls."""
    count, children = len(array), []
    for index, field in enumerate(array.type):
        child = _storage(array.field(index))
        if child.null_count and (not array.null_count or not arrays.valid(child)[arrays.valid(array)].all()):
            raise InvalidInputError(
                f"member {field.name!r} of a packed struct has nulls, which cannot be stored; fill them, or do"
                " not pack the struct"
            )
        children.append(from_arrow(child))
    return StructBlock(tuple(children), count)


def _dictionary_from_arrow(array: pa.Array) -> DictionaryBlock:
    """Indices, null ones as 0, and the items without their nulls, which are definition levels (4.8)."""
    indices, dictionary = array.indices, array.dictionary
    bits = array.type.index_type.bit_width
    words = _fixed_words(indices)
    if indices.null_count:
        valid = unpack_bits(np.frombuffer(indices.buffers()[0], np.uint8), len(indices), indices.offset)
        words = np.where(valid, words, words.dtype.type(0))
    if len(words) and int(words.max()) >= max(1, len(dictionary)):
        raise InvalidInputError(f"dictionary index {int(words.max())} is not below {len(dictionary)}")
    if dictionary.null_count:
        kept = arrays.valid(dictionary)
        table = np.cumsum(kept) - 1
        words = np.maximum(table, 0).astype(words.dtype)[words]
        dictionary = arrays.take(dictionary, np.flatnonzero(kept))
    items = from_arrow(dictionary)
    return DictionaryBlock(FixedBlock(bits, words.view(np.uint8), len(words)), items, len(words))


def _fixed_words(array: pa.Array) -> npt.NDArray[Any]:
    block = from_arrow(array)
    assert isinstance(block, FixedBlock)
    return block.words()


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array.type, pa.BaseExtensionType) else array


def is_variable(kind: pa.DataType) -> bool:
    """Whether values are byte strings with offsets."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_binary(kind) or is_large(kind))


def is_large(kind: pa.DataType) -> bool:
    """Whether they are, with offsets of 64 bits."""
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether they must be UTF-8."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _bit_width(kind: pa.DataType) -> int:
    try:
        bits = int(kind.bit_width)
    except ValueError:
        raise UnsupportedError(f"no data block for Arrow type {kind}") from None
    if bits == 0 and not pa.types.is_fixed_size_binary(kind):
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
    if isinstance(block, DictionaryBlock):
        if not pa.types.is_dictionary(arrow_type):
            return _decoded_to_arrow(block, arrow_type, validity)
        return _dictionary_to_arrow(block, arrow_type, validity)
    bitmap, nulls = None, 0
    if validity is not None:
        nulls = block.count - int(np.count_nonzero(validity))
        if nulls:
            bitmap = pa.py_buffer(pack_bits(validity))
    if isinstance(block, FslBlock):
        return _fsl_to_arrow(block, arrow_type, bitmap, nulls)
    if isinstance(block, StructBlock):
        return _struct_to_arrow(block, arrow_type, bitmap, nulls)
    if isinstance(block, VariableBlock):
        return _variable_to_arrow(block, arrow_type, bitmap, nulls)
    return _fixed_to_arrow(block, arrow_type, bitmap, nulls)


def _fixed_to_arrow(block: FixedBlock, kind: pa.DataType, bitmap: Any, nulls: int) -> pa.Array:
    if is_variable(kind) or kind.num_fields:
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
    return pa.Array.from_buffers(kind, block.count, [bitmap, aligned(data[:size], bits // 8)], nulls)


def aligned(data: npt.NDArray[Any], width: int) -> pa.Buffer:
    """An Arrow buffer over ``data``; copied only if values would straddle their alignment."""
    if not data.flags.c_contiguous:
        data = np.ascontiguousarray(data)
    buffer = pa.py_buffer(data)
    if width in (2, 4, 8, 16, 32) and buffer.address % min(width, 8):
        return pa.py_buffer(data.copy())
    return buffer


def _variable_to_arrow(
    block: VariableBlock, kind: pa.DataType, bitmap: Any, nulls: int, *, text: bool = True
) -> pa.Array:
    """The array; ``text`` False when its strings are known to be UTF-8."""
    if not is_variable(kind):
        raise CorruptFileError(f"column of type {kind} is stored as variable-width values")
    large, offsets = is_large(kind), block.offsets
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
    buffers = [bitmap, aligned(offsets, 8 if large else 4), pa.py_buffer(np.ascontiguousarray(data))]
    array = pa.Array.from_buffers(kind, block.count, buffers, nulls)
    if text and is_text(kind) and len(data) and not _is_utf8(data, offsets):
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise CorruptFileError(f"string column holds invalid UTF-8: {error}") from None
    return array


def _is_utf8(data: Bytes, offsets: npt.NDArray[Any]) -> bool:
    """Whether all values are UTF-8: their bytes as one text are, and each begins with a character.

    Five times as fast as one check per value; False may also mean that nulls have other bytes.  ASCII is recognised
    by its largest byte.
    """
    found = utf8.valid(data, offsets)
    if found is not None:
        return found
    if int(data.max()) < 128:
        return True
    starts = offsets[:-1]
    starts = starts[starts < len(data)]
    if bool(((data[starts] & 0xC0) == 0x80).any()):
        return False
    ends = np.array([0, len(data)], np.int64)
    whole = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(ends), pa.py_buffer(data)], 0)
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _fsl_to_arrow(block: FslBlock, kind: pa.DataType, bitmap: Any, nulls: int) -> pa.Array:
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != block.dimension:
        raise CorruptFileError(f"column of type {kind} is stored as lists of {block.dimension} items")
    items = block.count * block.dimension
    if block.child.count != items:
        raise CorruptFileError(f"{items} list items expected, the page has {block.child.count}")
    valid = None if block.validity is None else unpack_bits(block.validity, items)
    child = to_arrow(block.child, kind.value_type, valid)
    return pa.Array.from_buffers(kind, block.count, [bitmap], nulls, children=[child])


def _struct_to_arrow(block: StructBlock, kind: pa.DataType, bitmap: Any, nulls: int) -> pa.Array:
    if not pa.types.is_struct(kind) or kind.num_fields != len(block.children):
        raise CorruptFileError(
            f"column of type {kind} is stored as packed structs of {len(block.children)} members"
        )
    children = [to_arrow(child, field.type) for child, field in zip(block.children, kind, strict=True)]
    return pa.Array.from_buffers(kind, block.count, [bitmap], nulls, children=children)


def _decoded_to_arrow(block: DictionaryBlock, kind: pa.DataType, validity: Bools | None) -> pa.Array:
    """The values of a dictionary; that they are UTF-8 is checked once per entry."""
    items = block.items
    if not isinstance(items, VariableBlock) or not is_variable(kind):
        return to_arrow(decode_dictionary(block), kind, validity)
    if block.count < items.count:  # few of many: those are checked
        return to_arrow(decode_dictionary(block), kind, validity)
    to_arrow(items, kind)
    nulls = 0 if validity is None else block.count - int(np.count_nonzero(validity))
    bitmap = pa.py_buffer(pack_bits(validity)) if validity is not None and nulls else None
    # not more than this if the dictionary is of long strings: `decode_dictionary` says what is too much
    limit = max(items.offset_bits == 64 and _MAX_EXPANDED, _MAX_I32)
    found = lookup.expand(block.indices.words(), items.offsets, items.data, is_large(kind), limit)
    if found is not None:
        buffers = [bitmap, pa.py_buffer(found[0]), pa.py_buffer(found[1])]
        return pa.Array.from_buffers(kind, block.count, buffers, nulls)
    values = decode_dictionary(block)
    assert isinstance(values, VariableBlock)
    return _variable_to_arrow(values, kind, bitmap, nulls, text=False)


def _dictionary_to_arrow(block: DictionaryBlock, kind: pa.DataType, validity: Bools | None) -> pa.Array:
    """Indices of the width that the type wants, over the stored items; whoever made the block has checked them."""
    words = block.indices.words()
    stored = np.dtype(kind.index_type.to_pandas_dtype())
    if block.items.count - 1 > np.iinfo(stored).max:
        raise InvalidInputError(f"a dictionary of {block.items.count} items does not fit a {kind}")
    mask = None if validity is None else ~validity
    # of equal width they are the same bytes, since none is negative
    words = words.view(stored) if words.itemsize == stored.itemsize else words.astype(stored)
    indices = arrays.from_numpy(words, kind.index_type, mask)
    items = to_arrow(block.items, kind.value_type)
    return pa.DictionaryArray.from_arrays(indices, items, ordered=kind.ordered, safe=False)
