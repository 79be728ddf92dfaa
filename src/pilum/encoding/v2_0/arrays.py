"""Array encodings: which decoder reads a message of the encoding tree (`spec/file-2.0-and-0.1.md`, A.3).

`open_array` maps each kind of ``ArrayEncoding`` to its module; the type of the column decides what the same bytes
mean (offset width of strings, shifted automatic dictionaries), so it is passed down with the number of values.
Encodings of structs and lists are not among them: those columns consist of several, see `columns`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pilum.encoding.v2_0.binary import BinaryDecoder, FixedBytesDecoder, FsstDecoder, PackedBytes
from pilum.encoding.v2_0.bitpacked import BitpackedDecoder, GroupsDecoder
from pilum.encoding.v2_0.dictionary import DictionaryDecoder
from pilum.encoding.v2_0.fixed_size_list import FixedSizeListDecoder
from pilum.encoding.v2_0.flat import FlatDecoder, fixed_bits, open_flat
from pilum.encoding.v2_0.nullable import AllNullsDecoder, SomeNullsDecoder, inside_no_nulls
from pilum.encoding.v2_0.reads import ArrayDecoder, PageBuffers
from pilum.encoding.v2_0.values import member_bits
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = ["open_array"]

_BITMAP: Any = pa.bool_()
_ENDS: Any = pa.uint64()


def open_array(message: Any, buffers: PageBuffers, count: int, arrow_type: Any) -> ArrayDecoder:
    """The decoder of an array encoding.

    How deep encodings nest is bounded by protobuf, which refuses messages more than 100 deep.

    Args:
        message: an ``ArrayEncoding``.
        buffers: those it may name.
        count: number of values.
        arrow_type: storage type of the values.

    Raises:
        CorruptFileError: the encoding contradicts itself, its buffers or the type.
        UnsupportedError: a kind that format 2.0 does not have.
    """
    name = message.WhichOneof("array_encoding")
    if name is None:
        raise UnsupportedError("the page has an array encoding that format 2.0 does not know")
    opener = _OPENERS.get(name)
    if opener is None:
        raise CorruptFileError(f"array encoding {name} in a column of type {arrow_type}")
    return opener(getattr(message, name), buffers, count, arrow_type)


def _flat(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    return open_flat(message, buffers, count, kind)


def _nullable(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    which = message.WhichOneof("nullability")
    if which == "no_nulls":
        return open_array(message.no_nulls.values, buffers, count, kind)
    if which == "all_nulls":
        return AllNullsDecoder(count)
    if which != "some_nulls":
        raise CorruptFileError("a nullable encoding says nothing about nulls")
    validity = open_array(message.some_nulls.validity, buffers, count, _BITMAP)
    return SomeNullsDecoder(validity, open_array(message.some_nulls.values, buffers, count, kind))


def _fixed_size_list(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    dimension = int(message.dimension)
    if not pa.types.is_fixed_size_list(kind) or kind.list_size != dimension:
        raise CorruptFileError(f"a column of type {kind} is stored as lists of {dimension} items")
    items = open_array(message.items, buffers, count * dimension, kind.value_type)
    return FixedSizeListDecoder(dimension, items, count)


def _binary(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    indices = open_array(message.indices, buffers, count, _ENDS)
    adjustment, offset_bits = int(message.null_adjustment), _offset_bits(kind)
    inner = inside_no_nulls(message.bytes)
    if inner.WhichOneof("array_encoding") == "bitpacked":
        low, high = buffers.find(inner.bitpacked)
        nbytes = 8 * (high - low) // max(int(inner.bitpacked.compressed_bits_per_value), 1)
        packed = PackedBytes(open_array(inner, buffers, nbytes, pa.uint8()), nbytes)
        return BinaryDecoder(indices, packed, adjustment, offset_bits)
    return BinaryDecoder(indices, _bytes(inner, buffers), adjustment, offset_bits)


def _bytes(message: Any, buffers: PageBuffers) -> FlatDecoder:
    """The bytes of strings: flat, in old files inside ``nullable.no_nulls``; bits per value says nothing here."""
    inner = inside_no_nulls(message)
    if inner.WhichOneof("array_encoding") != "flat":
        raise CorruptFileError("the bytes of strings are not stored flat")
    found = open_flat(inner.flat, buffers, None, None)
    return FlatDecoder(8, (found.low, found.high), 0, found.scheme)


def _fixed_size_binary(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    data = _bytes(message.bytes, buffers)
    width = int(message.byte_width)
    if fixed_bits(kind) == 8 * width:
        return FlatDecoder(8 * width, (data.low, data.high), count, data.scheme)
    return FixedBytesDecoder(data, width, count, _offset_bits(kind))


def _offset_bits(kind: Any) -> int:
    types = pa.types
    if types.is_string(kind) or types.is_binary(kind):
        return 32
    if types.is_large_string(kind) or types.is_large_binary(kind):
        return 64
    raise CorruptFileError(f"a column of type {kind} is stored as strings")


def _fsst(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    inner = inside_no_nulls(message.binary)
    if inner.WhichOneof("array_encoding") != "binary":
        raise CorruptFileError("FSST codes are not stored as binary")
    return FsstDecoder(open_array(inner, buffers, count, kind), message.symbol_table)


def _dictionary(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    declared = pa.types.is_dictionary(kind)
    item_type = kind.value_type if declared else kind
    items = open_array(message.items, buffers, int(message.num_dictionary_items), item_type)
    indices = open_array(message.indices, buffers, count, _index_type(message.indices))
    return DictionaryDecoder(indices, items, item_type, shifted=not declared)


def _index_type(message: Any) -> Any:
    """Dictionary indices have the width that they are stored with, whatever the type declares."""
    while True:
        name = message.WhichOneof("array_encoding")
        if name == "nullable":
            which = message.nullable.WhichOneof("nullability")
            if which == "all_nulls":
                return pa.uint8()
            message = (
                message.nullable.some_nulls.values
                if which == "some_nulls"
                else message.nullable.no_nulls.values
            )
        elif name == "flat":
            return _UNSIGNED.get(int(message.flat.bits_per_value), pa.uint8())
        elif name in ("bitpacked", "bitpacked_for_non_neg"):
            return _UNSIGNED.get(int(getattr(message, name).uncompressed_bits_per_value), pa.uint8())
        else:
            raise CorruptFileError("dictionary indices are not stored as integers")


_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}


def _packed_struct(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    if not pa.types.is_struct(kind):
        raise CorruptFileError(f"a column of type {kind} is stored as packed structs")
    return FlatDecoder(sum(member_bits(kind)), buffers.find(message), count)


def _bitpacked(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    width, bits = _packed_widths(message, kind)
    return BitpackedDecoder(width, bits, bool(message.signed), buffers.find(message), count)


def _bitpacked_for_non_neg(message: Any, buffers: PageBuffers, count: int, kind: Any) -> ArrayDecoder:
    width, bits = _packed_widths(message, kind)
    return GroupsDecoder(width, bits, buffers.find(message), count)


def _packed_widths(message: Any, kind: Any) -> tuple[int, int]:
    width, bits = int(message.compressed_bits_per_value), int(message.uncompressed_bits_per_value)
    if bits != fixed_bits(kind):
        raise CorruptFileError(f"a column of type {kind} is stored as packed integers of {bits} bits")
    return width, bits


_OPENERS: dict[str, Callable[[Any, PageBuffers, int, Any], ArrayDecoder]] = {
    "flat": _flat,
    "nullable": _nullable,
    "fixed_size_list": _fixed_size_list,
    "binary": _binary,
    "fsst": _fsst,
    "fixed_size_binary": _fixed_size_binary,
    "dictionary": _dictionary,
    "packed_struct": _packed_struct,
    "bitpacked": _bitpacked,
    "bitpacked_for_non_neg": _bitpacked_for_non_neg,
}
