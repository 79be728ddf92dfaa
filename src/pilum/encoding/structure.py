"""Structure: Arrow arrays to shredded leaf columns, and shredded rows cut and joined.

Since format 2.1 nested data is stored as leaf columns; what structs, lists and maps say about them
travels as levels (`levels.py`; `spec/file-container-and-structure.md`, sections 5.1, 5.2 and 5.6)::

    list<struct<x, y>>        rows                      leaf x          leaf y
                              [{1, a}, {2, null}]       rep 1 0 1 1     rep 1 0 1 1
                              null                      def 0 0 1 0     def 0 1 2 0     (layers differ)
                              [{3, b}]                  1, 2, 3         a, -, b

Shredding goes from the outside in.  At each node there is a stream of *entries*; those that still have
a slot in the node's Arrow array are set in ``slots``.  An item layer marks the entries whose slot is
null; a list layer replaces each entry by one per list item, and entries of null and empty lists stay
behind without a slot.  While the inner layers are unknown, entries are marked with *codes*: numbers in
the order of declaration from the outside, an empty list before a null one, so that the def level is
just ``D + 1 - code``.  Siblings share the arrays of their parents; nothing is changed in place.

The way back is `assembly.py`.  Must not know: pages, codecs, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding import levels
from pilum.encoding.arrow_blocks import from_arrow
from pilum.encoding.assembly import assemble
from pilum.encoding.blocks import Block, NullBlock, block_bytes, concat_blocks, slice_block, unpack_bits
from pilum.encoding.page import LeafRows, Levels
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.schema.field import Field

__all__ = ["assemble", "cut_to_budget", "merge", "row_factors", "shred", "size_of", "slice_rows"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

_LEVEL_BITS = 131072  # bits of levels of a page with entries that own no value
_MAX_LEVELS = 65535


# --------------------------------------------------------------------------- shredding


@dataclass(frozen=True, slots=True)
class _Entries:
    """The stream of entries at one node of the tree.

    Attributes:
        count: entries.
        kinds: layers so far, outermost first.
        codes: how many codes are taken; 0 means an entry is alive.
        rep: how many lists the place lies in where an entry begins (0 = begins a row); None outside lists.
        code: per entry, None when all are alive.
        slots: which entries have a slot in the node's array (in that order), None when all have.
        dead: slots whose entry has ended since the last list (a struct around them is null); None when
            there is none.
        num_rows: top-level rows, times the dimensions of the fixed-size lists passed.
        fixed: whether a fixed-size list was passed.
    """

    count: int
    num_rows: int
    kinds: tuple[int, ...] = ()
    codes: int = 0
    rep: Levels | None = None
    code: Levels | None = None
    slots: Bools | None = None
    dead: Bools | None = None
    fixed: bool = False

    def marked(self, marks: Sequence[tuple[Bools, int]]) -> Levels:
        """The codes of all entries after giving these slots a number."""
        code = np.zeros(self.count, np.uint16) if self.code is None else self.code.copy()
        for marked, number in marks:
            which = marked
            if self.slots is not None:
                which = np.zeros(self.count, np.bool_)
                which[self.slots] = marked
            # marked slots were 0, and adding is faster than a masked copy
            code += which.view(np.uint8) * np.uint16(number)
        return code


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
    _shred(field, array, _Entries(len(array), len(array)), leaves)
    return leaves


def row_factors(field: Field) -> tuple[int, ...]:
    """Per leaf of a top-level field: page rows per row, 1 except below fixed-size lists of structs (5.6)."""
    if field.is_leaf:
        return (1,)
    factor = field.arrow_type.list_size if pa.types.is_fixed_size_list(field.arrow_type) else 1
    return tuple(factor * inner for child in field.children for inner in row_factors(child))


def _shred(field: Field, array: pa.Array, entries: _Entries, leaves: list[LeafRows]) -> None:
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    kind = array.type
    if field.is_leaf:
        leaves.append(_leaf(field, array, entries))
    elif pa.types.is_struct(kind):
        names = [child.name for child in field.children]
        if [kind.field(i).name for i in range(kind.num_fields)] != names:
            raise InvalidInputError(f"struct {field.name!r} needs the members {names}, got {kind}")
        inner = _enter_item(entries, _nulls(array))
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


def _leaf(field: Field, array: pa.Array, entries: _Entries) -> LeafRows:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _finish(_enter_item(entries, _dictionary_nulls(array)), from_arrow(array))
    if pa.types.is_struct(kind) and not field.children:
        return _empty_struct(field, array, entries)
    inner = _enter_item(entries, _nulls(array))
    return _finish(inner, from_arrow(array))


def _dictionary_nulls(array: pa.Array) -> Bools | None:
    """Slots whose index is null, or points to an item that is (4.8)."""
    if not array.dictionary.null_count:
        return _nulls(array.indices)
    nulls: Bools = array.dictionary.is_null().take(array.indices).fill_null(True).to_numpy(False)
    return nulls if nulls.any() else None


def _empty_struct(field: Field, array: pa.Array, entries: _Entries) -> LeafRows:
    """A struct without members has a column of nothing but nulls, which means non-null ``{}`` (4.4)."""
    nulls = _nulls(array)
    if nulls is not None and bool((nulls if entries.dead is None else nulls & ~entries.dead).any()):
        raise InvalidInputError(f"field {field.name!r}: nulls of a struct without members cannot be stored")
    inner = _enter_item(entries, np.ones(len(array), np.bool_), always=True)
    return _finish(inner, NullBlock(len(array)))


def _finish(entries: _Entries, block: Block) -> LeafRows:
    layers = entries.kinds[::-1]
    rep, definition = entries.rep, entries.code
    if rep is not None:
        rep = np.uint16(levels.max_rep(layers)) - rep
    top = entries.codes
    if definition is not None and top > 1:  # with one code it is the level already
        definition = (np.uint16(top + 1) - definition) * (definition != 0)
    return LeafRows(block, rep, definition, layers, entries.num_rows)


def _enter_item(entries: _Entries, nulls: Bools | None, *, always: bool = False) -> _Entries:
    """Pass an item layer (a leaf, a struct, a fixed-size list) whose slots are null as given."""
    dead = entries.dead
    if nulls is not None:
        if dead is not None:
            nulls = nulls & ~dead
        if not always and not nulls.any():
            nulls = None
    if nulls is None:
        return replace(entries, kinds=(*entries.kinds, levels.ALL_VALID_ITEM))
    number = entries.codes + 1
    return replace(
        entries,
        kinds=(*entries.kinds, levels.NULLABLE_ITEM),
        codes=number,
        code=entries.marked([(nulls, number)]),
        dead=nulls if dead is None else dead | nulls,
    )


def _enter_list(field: Field, entries: _Entries, array: pa.Array) -> tuple[_Entries, pa.Array]:
    """Pass a list layer; returns the entries of the items, and the items of the lists that have any."""
    if entries.fixed:
        raise UnsupportedError(f"field {field.name!r}: lists inside fixed-size lists of structs")
    starts, sizes = _list_ranges(array)
    nulls, gone = _nulls(array), entries.dead
    if nulls is not None and gone is not None:
        nulls &= ~gone
        gone = gone | nulls
    elif nulls is not None:
        gone = nulls
    # A list below null structs is nullable even if it has no nulls of its own: release 14.0.2 of the
    # reference cannot rebuild the structs otherwise.
    nullable = gone is not None and bool(gone.any())
    filled = sizes > 0
    if gone is not None:
        filled &= ~gone
        sizes = np.where(gone, 0, sizes)
    empty: Bools | None = ~filled if gone is None else ~(filled | gone)
    if empty is not None and not empty.any():
        empty = None

    # codes from the outside in: of the two levels of a list, empty is the higher
    code, codes = entries.code, entries.codes
    marks = []
    if empty is not None:
        codes += 1
        marks.append((empty, codes))
    if nullable:
        codes += 1
        if nulls is not None:
            marks.append((nulls, codes))
    if marks:
        code = entries.marked(marks)
    kind = levels.LIST_KIND[nullable, empty is not None]

    # each entry becomes one per item; those without items stay as one
    if entries.slots is None:
        spread = sizes if code is None else np.maximum(sizes, 1)
    else:
        spread = np.ones(entries.count, np.int64)
        spread[entries.slots] = np.maximum(sizes, 1)
    ends = np.cumsum(spread)
    count = int(ends[-1]) if len(ends) else 0
    first = ends - spread
    depth = 1 + sum(k in levels.LIST_KINDS for k in entries.kinds)
    rep = np.full(count, depth, np.uint16)
    rep[first] = 0 if entries.rep is None else entries.rep
    slots = None
    if code is not None:
        spread_code = np.zeros(count, np.uint16)
        spread_code[first] = code
        code = spread_code
        slots = code == 0
    kinds = (*entries.kinds, kind)
    inner = _Entries(count, entries.num_rows, kinds, codes, rep, code, slots)
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
        return values.take(pa.array(np.repeat(starts - (ends - sizes), sizes) + np.arange(total)))
    except pa.ArrowNotImplementedError:  # views: Arrow joins them but does not take from them
        parts = zip(starts.tolist(), sizes.tolist(), strict=True)
        return pa.concat_arrays([values.slice(start, size) for start, size in parts])


def _enter_fixed_size_list(field: Field, entries: _Entries, array: pa.Array) -> tuple[_Entries, pa.Array]:
    """Pass a fixed-size list of structs: its entries are repeated for each item (5.6)."""
    if entries.rep is not None:
        raise UnsupportedError(f"field {field.name!r}: fixed-size lists of structs inside lists")
    dimension = array.type.list_size
    inner = _enter_item(entries, _nulls(array))
    code, dead = inner.code, inner.dead
    if code is not None:
        code = np.repeat(code, dimension)
    if dead is not None:
        dead = np.repeat(dead, dimension)
    items = array.values.slice(array.offset * dimension, len(array) * dimension)
    count, num_rows = inner.count * dimension, inner.num_rows * dimension
    return replace(inner, count=count, num_rows=num_rows, code=code, dead=dead, fixed=True), items


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


def cut_to_budget(rows: LeafRows) -> list[LeafRows]:
    """The rows in parts whose levels do not exceed the budget of a page (5.5), cut between rows.

    Only rows with entries that own no value need it: chunks hold a bounded number of values, and so many entries.
    A part of one row may be larger.
    """
    rep = rows.rep
    if rep is None or len(rep) == rows.block.count:
        return [rows]
    bits = levels.max_rep(rows.layers).bit_length() + levels.max_def(rows.layers).bit_length()
    budget = min(_LEVEL_BITS // bits, _MAX_LEVELS)
    if len(rep) <= budget:
        return [rows]
    begins = np.append(levels.row_starts(rep, rows.layers), len(rep))
    parts, at = [], 0
    while at < rows.num_rows:
        stop = max(at + 1, int(np.searchsorted(begins, begins[at] + budget, "right")) - 1)
        parts.append(slice_rows(rows, at, stop - at))
        at = stop
    return parts


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
