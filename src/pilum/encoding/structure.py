"""Structure: Arrow arrays to shredded leaf columns, and shredded rows cut and joined.

Since format 2.1 nested data is stored as leaf columns; what structs, lists and maps say about them
travels as levels (`levels.py`; `spec/file-container-and-structure.md`, sections 5.1, 5.2 and 5.6)::

    list<struct<x, y>>        rows                      leaf x          leaf y
                              [{1, a}, {2, null}]       rep 1 0 1 1     rep 1 0 1 1
                              null                      def 0 0 1 0     def 0 1 2 0     (layers differ)
                              [{3, b}]                  1, 2, 3         a, -, b

Shredding goes from the outside in and turns each node of the tree into layers of a stream of entries
(`entries.py`).

The way back is `assembly.py`.  Must not know: pages, codecs, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding import levels, prepared_blobs
from pilum.encoding.arrow_blocks import from_arrow
from pilum.encoding.assembly import assemble
from pilum.encoding.blocks import NullBlock, block_bytes, concat_blocks, slice_block, unpack_bits
from pilum.encoding.entries import Entries, enter_item, enter_list, finish, repeat_entries
from pilum.encoding.page import LeafRows
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.schema.blobs import is_prepared
from pilum.schema.field import Field
from pilum.schema.jsonb import is_json_text, jsonb_of_text

__all__ = ["assemble", "merge", "row_factors", "shred", "size_of", "slice_rows"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]


# --------------------------------------------------------------------------- shredding


def shred(field: Field, array: pa.Array) -> list[LeafRows]:
    """The leaf columns of one top-level column, in the order of ``field.leaves()``.

    Args:
        field: the top-level field; structs of ``array`` must have its members.
        array: rows of it, possibly a slice; extension arrays count as their storage, dictionaries
            stay what they are.

    Returns:
        One `LeafRows` per leaf.  Below fixed-size lists of structs their ``num_rows`` is rows times
        dimension (see `row_factors`).

    Raises:
        InvalidInputError: the array does not have the members of the field; nulls of a struct without
            members, which the format cannot store.
        UnsupportedError: fixed-size lists of structs together with lists.
    """
    leaves: list[LeafRows] = []
    _shred(field, array, Entries(len(array), len(array)), leaves)
    return leaves


def row_factors(field: Field) -> tuple[int, ...]:
    """Per leaf of a top-level field: page rows per row, 1 except below fixed-size lists of structs (5.6)."""
    if field.is_leaf:
        return (1,)
    factor = field.arrow_type.list_size if pa.types.is_fixed_size_list(field.arrow_type) else 1
    return tuple(factor * inner for child in field.children for inner in row_factors(child))


def _shred(field: Field, array: pa.Array, entries: Entries, leaves: list[LeafRows]) -> None:
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    kind = array.type
    if field.is_leaf:
        leaves.append(_leaf(field, array, entries))
    elif pa.types.is_struct(kind):
        names = [child.name for child in field.children]
        if [kind.field(i).name for i in range(kind.num_fields)] != names:
            raise InvalidInputError(f"struct {field.name!r} needs the members {names}, got {kind}")
        inner = enter_item(entries, _nulls(array))
        for index, child in enumerate(field.children):
            _shred(child, array.field(index), inner, leaves)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        inner, items = _enter_list(field, entries, array)
        _shred(field.children[0], items, inner, leaves)
    elif pa.types.is_fixed_size_list(kind):
        inner, items = _enter_fixed_size_list(field, entries, array)
        _shred(field.children[0], items, inner, leaves)
    else:
        raise InvalidInputError(f"field {field.name!r} is a {field.logical_type}, got an array of {kind}")


def _nulls(array: pa.Array) -> Bools | None:
    """Which slots are null; None when none is."""
    if not array.null_count:
        return None
    if pa.types.is_null(array.type):
        return np.ones(len(array), np.bool_)
    bitmap = np.frombuffer(array.buffers()[0], np.uint8)
    return ~unpack_bits(bitmap, len(array), array.offset)


def _leaf(field: Field, array: pa.Array, entries: Entries) -> LeafRows:
    kind = array.type
    if field.logical_type == "json" and is_json_text(kind):
        array = jsonb_of_text(array, field.name)
        kind = array.type
    if pa.types.is_dictionary(kind):
        return finish(enter_item(entries, _dictionary_nulls(array)), from_arrow(array))
    if pa.types.is_struct(kind) and not field.children:
        return _empty_struct(field, array, entries)
    inner = enter_item(entries, _nulls(array))
    block = prepared_blobs.block_of(array) if is_prepared(field) else from_arrow(array)
    return finish(inner, block)


def _dictionary_nulls(array: pa.Array) -> Bools | None:
    """Slots whose index is null, or points to an item that is (4.8)."""
    if not array.dictionary.null_count:
        return _nulls(array.indices)
    pc = arrays.compute()
    hidden = pc.take(arrays.from_numpy(~arrays.valid(array.dictionary)), array.indices)
    nulls: Bools = arrays.to_numpy(pc.fill_null(hidden, arrays.scalar(True)))
    return nulls if nulls.any() else None


def _empty_struct(field: Field, array: pa.Array, entries: Entries) -> LeafRows:
    """A struct without members has a column of nothing but nulls, which means non-null ``{}`` (4.4)."""
    nulls = _nulls(array)
    if nulls is not None and bool((nulls if entries.dead is None else nulls & ~entries.dead).any()):
        raise InvalidInputError(f"field {field.name!r}: nulls of a struct without members cannot be stored")
    inner = enter_item(entries, np.ones(len(array), np.bool_), always=True)
    return finish(inner, NullBlock(len(array)))


def _enter_list(field: Field, entries: Entries, array: pa.Array) -> tuple[Entries, pa.Array]:
    """Pass a list layer; returns the entries of the items, and the items of the lists that have any."""
    if entries.fixed:
        raise UnsupportedError(f"field {field.name!r}: lists inside fixed-size lists of structs")
    starts, sizes = _list_ranges(array)
    inner, sizes = enter_list(entries, sizes, _nulls(array))
    return inner, _items(array.values, starts, sizes)


def _list_ranges(array: pa.Array) -> tuple[Ints, Ints]:
    """Where the items of each list begin in the values, and how many there are."""
    count = len(array)
    buffer = array.buffers()[1]
    if not count or buffer is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    dtype = np.int64 if pa.types.is_large_list(array.type) else np.int32
    offsets = np.frombuffer(buffer, dtype)[array.offset : array.offset + count + 1].astype(
        np.int64, copy=False
    )
    return offsets[:-1], np.diff(offsets)


def _items(values: pa.Array, starts: Ints, sizes: Ints) -> pa.Array:
    """The items of the lists back to back; a slice unless null lists cover items of their own."""
    total = int(sizes.sum())
    if not total:
        return values.slice(0, 0)
    low = int(starts[0])
    if not sizes.all():
        filled = sizes > 0
        starts, sizes = starts[filled], sizes[filled]
        low = int(starts[0])
    if int(starts[-1]) + int(sizes[-1]) - low == total:  # Arrow's offsets never decrease: no gaps
        return values.slice(low, total)
    ends = np.cumsum(sizes)
    try:
        return arrays.take(values, np.repeat(starts - (ends - sizes), sizes) + np.arange(total))
    except pa.ArrowNotImplementedError:  # views: Arrow joins them but does not take from them
        parts = zip(starts.tolist(), sizes.tolist(), strict=True)
        return pa.concat_arrays([values.slice(start, size) for start, size in parts])


def _enter_fixed_size_list(field: Field, entries: Entries, array: pa.Array) -> tuple[Entries, pa.Array]:
    """Pass a fixed-size list of structs: its entries are repeated for each item (5.6)."""
    if entries.rep is not None:
        raise UnsupportedError(f"field {field.name!r}: fixed-size lists of structs inside lists")
    dimension = array.type.list_size
    inner = repeat_entries(enter_item(entries, _nulls(array)), dimension)
    return inner, array.values.slice(array.offset * dimension, len(array) * dimension)


# --------------------------------------------------------------------------- cutting and joining


def merge(parts: Sequence[LeafRows]) -> LeafRows:
    """The rows of several shredded batches of one leaf column as one.

    Batches may have different layers: the result declares what any of them does, and def levels are
    renumbered.
    """
    if len(parts) == 1:
        return parts[0]
    rep, definition, layers = levels.concat_levels(
        [(part.rep, part.definition, part.layers, _entries(part)) for part in parts]
    )
    block = concat_blocks([part.block for part in parts])
    return LeafRows(block, rep, definition, layers, sum(part.num_rows for part in parts))


def slice_rows(rows: LeafRows, start: int, count: int) -> LeafRows:
    """Rows ``start .. start + count``; shares memory.

    Layers stay as they are, even if the slice has no nulls; def levels that are all zero are dropped.
    Below fixed-size lists of structs both numbers count page rows (see `row_factors`).
    """
    if start == 0 and count == rows.num_rows:
        return rows
    rep, definition = rows.rep, rows.definition
    first, last = start, start + count
    if rep is not None:
        begins = levels.row_starts(rep, rows.layers)
        first = int(begins[start]) if start < rows.num_rows else len(rep)
        last = int(begins[start + count]) if start + count < rows.num_rows else len(rep)
        rep = rep[first:last]
    low, number = first, last - first
    if definition is not None:
        low = levels.count_visible(definition[:first], rows.layers, first)
        definition = definition[first:last]
        number = levels.count_visible(definition, rows.layers, last - first)
        if not definition.any():
            definition = None
    return LeafRows(slice_block(rows.block, low, number), rep, definition, rows.layers, count)


def size_of(rows: LeafRows) -> int:
    """Bytes that the rows take in memory, values and levels."""
    size = block_bytes(rows.block)
    for stored in (rows.rep, rows.definition):
        if stored is not None:
            size += stored.nbytes
    return size


def _entries(rows: LeafRows) -> int:
    if rows.rep is not None:
        return len(rows.rep)
    return rows.num_rows
