"""Writing format 2.0: Arrow arrays to pages of array encodings (`spec/file-2.0-and-0.1.md`, A.11).

The simplest encodings that the reference reads, and the choices that it makes itself::

    fixed width       nullable(flat), per page without, with some or with only nulls
    fixed-size list   nullable(fixed_size_list(d, nullable(flat)))
    strings           binary; utf8 with few distinct values as a dictionary whose index 0 is null;
                      bytes compressed where the field's metadata asks for zstd, lz4 or fsst
    dictionary        indices without nulls, which point to a null item instead
    list              ends with the null adjustment, then the items in a column of their own
    struct            members only; its header is one page for the whole file and written by the file
    packed struct     rows of all members, one buffer
    blob              descriptors; the bytes are written by the file

`encode_rows` walks a field and gives one page per column, in the order of the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pilum import arrays
from pilum.encoding.arrow_blocks import from_arrow
from pilum.encoding.blocks import (
    Block,
    Bools,
    Bytes,
    FixedBlock,
    FslBlock,
    NullBlock,
    VariableBlock,
    pack_bits,
    unpack_bits,
)
from pilum.encoding.codecs import fsst, general
from pilum.encoding.page import EncodedPage
from pilum.encoding.v2_0.values import member_bits
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.proto.lazy import array_encodings_pb2 as pb
from pilum.schema import Field
from pilum.schema.jsonb import is_json_text, jsonb_of_text

__all__ = ["BlobRows", "StructRows", "encode_rows", "struct_header"]

# Automatic dictionaries: pages of at least so many rows with fewer distinct values.
_DICTIONARY_ROWS = 100
_DICTIONARY_VALUES = 100
_SAMPLE = 4096
_COMPRESSION = "lance-encoding:compression"
_LEVEL = "lance-encoding:compression-level"
_SCHEMES = {"lz4": 1, "zstd": 2}


class StructRows(NamedTuple):
    """Rows of a struct, whose header column says only how many there are."""

    length: int


class BlobRows(NamedTuple):
    """Rows of a blob column; the file decides where the bytes lie.

    Attributes:
        values: the byte strings, not null ones included as empty.
        valid: which are not null, None = all.
    """

    values: VariableBlock
    valid: Bools | None

    def page(self, positions: Any) -> EncodedPage:
        """The page of descriptors for bytes that were written at ``positions`` (0 where there are none)."""
        sizes = np.diff(self.values.offsets).astype(np.uint64)
        rows = np.zeros((len(sizes), 2), np.uint64)
        rows[:, 0] = positions
        rows[:, 1] = sizes
        if self.valid is not None:
            rows[~self.valid] = (1, 0)
        members = [_no_nulls(_flat_message(64, 0)) for _ in range(2)]
        packed = pb.PackedStruct(inner=members, buffer=pb.Buffer())
        message = pb.ArrayEncoding(packed_struct=packed)
        return EncodedPage([rows.reshape(-1).view(np.uint8)], message.SerializeToString(), len(sizes))


ColumnRows = EncodedPage | StructRows | BlobRows


def encode_rows(field: Field, array: Any) -> list[ColumnRows]:
    """The rows of a field, one entry for each of its columns in their order.

    Args:
        field: top level or below.
        array: at least one row at top level; of the field's type.

    Raises:
        InvalidInputError: nulls that the format, or the field, cannot hold.
        UnsupportedError: a type that the format cannot hold.
    """
    if field.logical_type == "json" and is_json_text(array.type):
        array = jsonb_of_text(array, field.name)
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    kind = field.arrow_type
    if array.null_count and not field.nullable and not pa.types.is_null(kind):
        raise InvalidInputError(f"field {field.name!r} is not nullable but holds {array.null_count} nulls")
    if field.is_blob:
        return [_blob(array)]
    if pa.types.is_struct(kind):
        if array.null_count:
            raise InvalidInputError(
                f"field {field.name!r}: file format 2.0 cannot store nulls of structs; use 2.1 or later"
            )
        if field.is_packed:
            return [_packed(field, array)]
        members = [encode_rows(child, array.field(i)) for i, child in enumerate(field.children)]
        return [StructRows(len(array)), *(rows for member in members for rows in member)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        page, items = _list(array)
        return [page, *encode_rows(field.children[0], items)]
    buffers = _Buffers()
    message = _array(array, buffers, field.metadata)
    return [EncodedPage(buffers.data, message.SerializeToString(), len(array))]


def struct_header(length: int) -> EncodedPage:
    """The one page of a struct's header column."""
    message = pb.ArrayEncoding(struct=pb.SimpleStruct())
    return EncodedPage([], message.SerializeToString(), length)


# --------------------------------------------------------------------------- arrays


class _Buffers:
    """The buffers of a page in the order they are numbered."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: list[Bytes] = []

    def add(self, data: Bytes) -> int:
        self.data.append(data)
        return len(self.data) - 1


def _array(array: Any, buffers: _Buffers, metadata: Mapping[str, str]) -> Any:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _dictionary(array, buffers)
    if pa.types.is_string(kind):
        message = _automatic_dictionary(array, buffers)
        if message is not None:
            return message
    block = from_arrow(array)
    valid = _valid(array)
    if isinstance(block, VariableBlock):
        return _binary(block, valid, buffers, metadata)
    return _nullable(block, valid, buffers)


def _valid(array: Any) -> Bools | None:
    if not array.null_count:
        return None
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.bool_)
    return unpack_bits(np.frombuffer(array.buffers()[0], np.uint8), len(array), array.offset)


def _nullable(block: Block, valid: Bools | None, buffers: _Buffers) -> Any:
    if isinstance(block, NullBlock) or (valid is not None and not valid.any()):
        return pb.ArrayEncoding(nullable=pb.Nullable(all_nulls=pb.Nullable.AllNull()))
    if valid is None or valid.all():
        return _no_nulls(_inner(block, buffers))
    validity = _flat_message(1, buffers.add(pack_bits(valid)))
    some = pb.Nullable.SomeNull(validity=validity, values=_inner(block, buffers))
    return pb.ArrayEncoding(nullable=pb.Nullable(some_nulls=some))


def _inner(block: Block, buffers: _Buffers) -> Any:
    if isinstance(block, FixedBlock):
        return _flat(block, buffers)
    if isinstance(block, FslBlock):
        valid = None
        if block.validity is not None:
            valid = unpack_bits(block.validity, block.count * block.dimension)
        items = _nullable(block.child, valid, buffers)
        message = pb.FixedSizeList(dimension=block.dimension, items=items)
        return pb.ArrayEncoding(fixed_size_list=message)
    raise UnsupportedError("file format 2.0 cannot hold fixed-size lists of strings")


def _flat(block: FixedBlock, buffers: _Buffers) -> Any:
    return _flat_message(block.bits, buffers.add(block.data[: (block.count * block.bits + 7) // 8]))


def _flat_message(bits: int, index: int) -> Any:
    # An empty Buffer means buffer 0 of the page: it has to be there.
    return pb.ArrayEncoding(flat=pb.Flat(bits_per_value=bits, buffer=pb.Buffer(buffer_index=index)))


def _no_nulls(values: Any) -> Any:
    return pb.ArrayEncoding(nullable=pb.Nullable(no_nulls=pb.Nullable.NoNull(values=values)))


def _binary(block: VariableBlock, valid: Bools | None, buffers: _Buffers, metadata: Mapping[str, str]) -> Any:
    scheme = metadata.get(_COMPRESSION, "")
    if scheme == "fsst" and block.offset_bits == 32:
        block, table = fsst.code_strings(block)
        if table is not None:
            binary = _binary(block, valid, buffers, {})
            return pb.ArrayEncoding(fsst=pb.Fsst(binary=binary, symbol_table=table))
    total = int(block.offsets[-1])
    ends = block.offsets[1:].astype(np.uint64)
    if valid is not None:
        ends[~valid] += np.uint64(total + 1)
    indices = _no_nulls(_flat_message(64, buffers.add(ends.view(np.uint8))))
    data = block.data[:total]
    compression = None
    if scheme in _SCHEMES and total:
        level = int(metadata[_LEVEL]) if metadata.get(_LEVEL, "").isdigit() else None
        data = np.frombuffer(general.compress(_SCHEMES[scheme], data, level), np.uint8)
        compression = pb.Compression(scheme=scheme, level=level)
    bytes_flat = _flat_message(8, buffers.add(data))
    if compression is not None:
        bytes_flat.flat.compression.CopyFrom(compression)
    message = pb.Binary(indices=indices, bytes=bytes_flat, null_adjustment=total + 1)
    return pb.ArrayEncoding(binary=message)


def _automatic_dictionary(array: Any, buffers: _Buffers) -> Any:
    """The shifted dictionary of a utf8 page with few distinct values; None for all others."""
    if len(array) < _DICTIONARY_ROWS or array.null_count == len(array):
        return None
    # Most columns of many values show it in their first rows.
    if len(array) > _SAMPLE and len(arrays.compute().unique(array.slice(0, _SAMPLE))) > _DICTIONARY_VALUES:
        return None
    encoded = arrays.compute().dictionary_encode(array)
    items = encoded.dictionary
    if len(items) >= _DICTIONARY_VALUES:
        return None
    shifted = np.where(arrays.valid(encoded.indices), arrays.filled(encoded.indices) + 1, 0)
    indices = _no_nulls(_flat_message(8, buffers.add(shifted.astype(np.uint8))))
    message = pb.Dictionary(indices=indices, items=_plain(items, buffers), num_dictionary_items=len(items))
    return pb.ArrayEncoding(dictionary=message)


def _plain(array: Any, buffers: _Buffers) -> Any:
    """Items of a dictionary: an array without a dictionary of its own."""
    block, valid = from_arrow(array), _valid(array)
    if isinstance(block, VariableBlock):
        return _binary(block, valid, buffers, {})
    return _nullable(block, valid, buffers)


def _dictionary(array: Any, buffers: _Buffers) -> Any:
    """A dictionary array; nulls move from the indices into the items."""
    items, indices = array.dictionary, array.indices
    if indices.null_count:
        missing = ~arrays.valid(items)
        if missing.any():
            place = int(np.flatnonzero(missing)[0])
        else:
            place = len(items)
            items = pa.concat_arrays([items, pa.nulls(1, items.type)])
        kind = indices.type.to_pandas_dtype()
        if place > np.iinfo(kind).max:
            raise InvalidInputError(
                f"a dictionary of {place} values has no index of type {indices.type} left for null; use a wider index"
            )
        indices = arrays.compute().fill_null(indices, arrays.scalar(place, indices.type))
    block = from_arrow(indices)
    if not len(items):  # only for a column without rows: an index needs something to point to
        items = pa.nulls(1, items.type)
    message = pb.Dictionary(
        indices=_no_nulls(_inner(block, buffers)),
        items=_plain(items, buffers),
        num_dictionary_items=len(items),
    )
    return pb.ArrayEncoding(dictionary=message)


# --------------------------------------------------------------------------- nested


def _list(array: Any) -> tuple[EncodedPage, Any]:
    """The page of ends, and the items of the lists back to back."""
    count = len(array)
    dtype = np.int64 if pa.types.is_large_list(array.type) else np.int32
    valid = _valid(array)
    offsets = _offsets(array, dtype)
    if valid is not None and bool((np.diff(offsets) > 0)[~valid].any()):
        array = arrays.take(array, np.arange(count))  # null lists give up the items they own
        offsets = _offsets(array, dtype)
    low, high = int(offsets[0]), int(offsets[-1])
    ends = (offsets[1:] - dtype(low)).astype(np.uint64)
    total = high - low
    if valid is not None:
        ends[~valid] += np.uint64(total + 1)
    message = pb.List(
        offsets=_no_nulls(_flat_message(64, 0)), null_offset_adjustment=total + 1, num_items=total
    )
    page = EncodedPage([ends.view(np.uint8)], pb.ArrayEncoding(list=message).SerializeToString(), count)
    return page, array.values.slice(low, total)


def _offsets(array: Any, dtype: Any) -> Any:
    buffer = array.buffers()[1]
    if not len(array) or buffer is None or not buffer.size:
        return np.zeros(1, dtype)
    return np.frombuffer(buffer, dtype)[array.offset : array.offset + len(array) + 1]


def _packed(field: Field, array: Any) -> EncodedPage:
    widths = [bits // 8 for bits in member_bits(field.arrow_type)]
    count = len(array)
    grid = np.empty((count, sum(widths)), np.uint8)
    inner, at = [], 0
    for index, width in enumerate(widths):
        member = array.field(index)
        if _nulls_inside(member):
            raise InvalidInputError(f"field {field.name!r}: members of packed structs cannot be null")
        block = from_arrow(member)
        bits: list[int] = []
        while isinstance(block, FslBlock):
            bits.append(block.dimension)
            block = block.child
        if not isinstance(block, FixedBlock):
            raise UnsupportedError(f"field {field.name!r}: packed structs of {member.type}")
        grid[:, at : at + width] = block.data[: count * width].reshape(count, width)
        at += width
        message = _no_nulls(_flat_message(block.bits, 0))
        for dimension in reversed(bits):
            message = _no_nulls(
                pb.ArrayEncoding(fixed_size_list=pb.FixedSizeList(dimension=dimension, items=message))
            )
        inner.append(message)
    packed = pb.ArrayEncoding(packed_struct=pb.PackedStruct(inner=inner, buffer=pb.Buffer()))
    return EncodedPage([grid.reshape(-1)], packed.SerializeToString(), count)


def _nulls_inside(array: Any) -> bool:
    if array.null_count:
        return True
    return pa.types.is_fixed_size_list(array.type) and _nulls_inside(array.flatten())


def _blob(array: Any) -> BlobRows:
    valid = _valid(array)
    if valid is not None:
        arrays.prepare()
        array = array.fill_null(b"")
    block = from_arrow(array)
    if not isinstance(block, VariableBlock):
        raise UnsupportedError(f"blobs of type {array.type} cannot be stored in file format 2.0")
    return BlobRows(block, valid)
