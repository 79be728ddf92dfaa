"""Opening the columns of a 0.1 file: from the page table to the trees of `pilum.encoding.v2_0.columns`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pilum.encoding.v0_1.batches import Batches, FindPages
from pilum.encoding.v0_1.fixed import BitsColumn, FixedColumn
from pilum.encoding.v0_1.variable import BinaryColumn, ListColumn
from pilum.encoding.v2_0.columns import Column, NullColumn, StructColumn
from pilum.encoding.v2_0.flat import fixed_bits
from pilum.encoding.v2_0.reads import Ints
from pilum.errors import CorruptFileError, UnsupportedError
from pilum.schema import Field

__all__ = ["open_column", "page_sizes"]

_MAX_BYTES = 2**31 - 1


def open_column(
    field: Field,
    find: FindPages,
    batches: Batches,
    file_size: int,
    dictionaries: dict[int, Any],
    nullable: bool | None = None,
) -> Column:
    """The column tree of a field.

    Args:
        field: possibly with only some of its members.
        find: the pages of a field.
        batches: of the rows of the file; of the items inside a list.
        file_size: no page lies beyond.
        dictionaries: values of dictionary fields by field id.
        nullable: of the field as it is read, None = as the field says.

    Raises:
        CorruptFileError: the page table contradicts the field, or pages leave the file.
    """
    kind = field.arrow_type
    pages = find(field.id)
    if pa.types.is_struct(kind):
        members = [
            open_column(child, find, batches, file_size, dictionaries)
            if any(find(node.id) is not None for node in child.walk())
            else NullColumn(batches.num_rows, child.arrow_type)
            for child in field.children
        ]
        return StructColumn(batches.num_rows, members, kind)
    if pages is None:
        raise CorruptFileError(f"the file holds no pages for field {field.name!r} (id {field.id})")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _check_lengths(field, pages.lengths, batches.counts + 1)
        (item,) = field.children
        inner = Batches(_item_counts(item, find))
        items = open_column(item, find, inner, file_size, dictionaries)
        return ListColumn(pages, batches, kind, items, inner.starts, file_size)
    _check_lengths(field, pages.lengths, batches.counts)
    if pa.types.is_null(kind):
        return NullColumn(batches.num_rows, kind)
    if pa.types.is_dictionary(kind):
        width = int(kind.index_type.bit_width) // 8
        return FixedColumn(pages, batches, kind, width, file_size, dictionaries[field.id])
    bits, dimension = _element(kind)
    if bits == 1:
        return BitsColumn(pages, batches, kind, dimension, file_size)
    if bits is not None:
        if dimension * bits > 8 * _MAX_BYTES:
            raise UnsupportedError(f"field {field.name!r}: values of {dimension * bits} bits")
        return FixedColumn(pages, batches, kind, dimension * bits // 8, file_size, None)
    return BinaryColumn(pages, batches, kind, field.nullable if nullable is None else nullable, file_size)


def _element(kind: Any) -> tuple[int | None, int]:
    """Bits of one stored element, None for strings, and elements per row."""
    dimension = 1
    while pa.types.is_fixed_size_list(kind):
        dimension *= kind.list_size
        kind = kind.value_type
    return fixed_bits(kind), dimension


def page_sizes(field: Field, lengths: Ints) -> Ints:
    """Bytes that pages of these lengths take from their positions on."""
    kind = field.arrow_type
    if pa.types.is_struct(kind) or pa.types.is_null(kind):
        return np.zeros(len(lengths), np.int64)
    if pa.types.is_list(kind):
        return 4 * lengths
    if pa.types.is_large_list(kind):
        return 8 * lengths
    bits, dimension = _element(kind.index_type if pa.types.is_dictionary(kind) else kind)
    if bits is None:
        return 8 * (lengths + 1)
    sizes: Ints = (lengths * dimension * bits + 7) // 8
    return sizes


def _check_lengths(field: Field, found: Ints, expected: Ints) -> None:
    if not np.array_equal(found, expected):
        raise CorruptFileError(f"the pages of field {field.name!r} have other lengths than the batches")


def _item_counts(item: Field, find: FindPages) -> Ints:
    """Items of each batch: what the page table says of the item field, or of the first member that has pages."""
    for node in item.walk():
        if pa.types.is_struct(node.arrow_type):
            continue
        pages = find(node.id)
        if pages is not None:
            listed = pa.types.is_list(node.arrow_type) or pa.types.is_large_list(node.arrow_type)
            return np.maximum(pages.lengths - 1, 0) if listed else pages.lengths
    raise CorruptFileError(f"the file holds no pages of the list items {item.name!r} (id {item.id})")
