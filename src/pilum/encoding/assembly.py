"""Assembly: decoded leaf columns back to one Arrow array (`spec/file-container-and-structure.md`, 5.3).

The way back from `structure.shred`.  The section describes it from the inside out; here it is written
down per node of the tree, which needs no intermediate streams.  A node inside k lists has one *slot* per
entry that begins at most k lists deep and got into the k-th list::

    slots(k)    entries with  rep >= R - k  and  def <= limit(k)         (levels.inside_limits)
    item        a slot is null when its def is at least the null level of the layer
    list        its offsets count the slots of k + 1 before each slot of k; a slot that is not one of
                k + 1 itself is null or empty, which its def says

Structs and lists are taken from the first leaf below them; the other leaves must have as many slots.
Pages may declare different layers: their levels are joined under unified ones first, and their values
are concatenated once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding import levels
from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import DictionaryBlock, concat_blocks, pack_bits
from pilum.encoding.kernels import levels as list_levels
from pilum.encoding.page import Decoded, Levels
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.schema.field import Field

__all__ = ["assemble", "holds_items"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

_FLAT = frozenset({(levels.ALL_VALID_ITEM,), (levels.NULLABLE_ITEM,)})
_STRUCT = pa.struct([]).id
_DICTIONARY = pa.dictionary(pa.int8(), pa.int8()).id
_SPECIAL = frozenset((_STRUCT, _DICTIONARY))
_MAX_I32 = 2**31 - 1


def assemble(field: Field, leaves: Sequence[Sequence[Decoded]]) -> pa.Array:
    """The rows of one top-level column.

    Args:
        field: the top-level field, possibly with only some of its members.
        leaves: for each leaf in the order of ``field.leaves()`` its decoded pages in row order; leaves
            may cut their pages at different rows.

    Returns:
        An array of ``field.arrow_type`` (the storage type of extensions).

    Raises:
        CorruptFileError: levels, values and layers contradict each other or the field, or leaves differ
            in their structure.
        InvalidInputError: more than 2 GiB of values for a type with 32-bit offsets.
        UnsupportedError: fixed-size lists of structs together with lists.
    """
    if len(leaves) == 1 and leaves[0] and not field.children and field.arrow_type.id not in _SPECIAL:
        # most columns: nothing to build
        pages, kind = leaves[0], field.arrow_type
        page = pages[0]
        if len(pages) == 1 and page.definition is None and page.rep is None:
            if page.layers in _FLAT and page.block.count == page.num_rows:
                return to_arrow(page.block, kind)
        elif all(map(_is_flat, pages)):
            parts = [to_arrow(page.block, kind, _flat_validity(page)) for page in pages]
            return parts[0] if len(parts) == 1 else _concat(parts)
    if len(leaves) == 1 and leaves[0] and holds_items(field):
        lists = [_list_of_items(field, page) for page in leaves[0]]
        if all(array is not None for array in lists):
            return lists[0] if len(lists) == 1 else _concat(lists)
    columns = [
        _Leaf(leaf, pages, kinds, factor)
        for (leaf, kinds, factor), pages in zip(_paths(field), leaves, strict=True)
    ]
    rows = columns[0].num_rows
    for column in columns:
        if column.num_rows != rows:
            raise CorruptFileError(f"leaf columns of one field have {rows} and {column.num_rows} rows")
    return _build(field, columns, 0, 0, columns[0].factor)


def holds_items(field: Field) -> bool:
    """Whether a field is a list of leaves."""
    kind = field.arrow_type
    if len(field.children) != 1 or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    child = field.children[0]
    return not child.children and child.arrow_type.id not in _SPECIAL


def _list_of_items(field: Field, page: Decoded) -> pa.Array | None:
    """The lists of one page, checked and built in one pass; None where that cannot be done: `_Leaf` tells why."""
    layers, kind = page.layers, field.arrow_type
    if len(layers) != 2 or layers[0] in levels.LIST_KINDS or levels.max_rep(layers) != 1 or page.rep is None:
        return None
    (item_null, _), (_, empty) = levels.level_numbers(layers)
    top, inside = levels.inside_limits(layers)
    found = list_levels.lists(
        page.rep, page.definition, (top, inside), empty, page.num_rows, page.block.count,
        pa.types.is_large_list(kind),
    )  # fmt: skip
    if found is None:
        return None
    offsets, valid, valid_items = found
    bitmap, nulls = _bitmap(valid)
    items = to_arrow(page.block, field.children[0].arrow_type, valid_items if item_null else None)
    return pa.Array.from_buffers(
        kind, page.num_rows, [bitmap, pa.py_buffer(offsets)], nulls, children=[items]
    )


def _is_flat(page: Decoded) -> bool:
    """Whether a page needs no structure: one item layer, and as many levels and values as rows."""
    if page.layers not in _FLAT or page.block.count != page.num_rows:
        return False
    definition = page.definition
    return definition is None or (
        page.rep is None
        and page.layers[0] == levels.NULLABLE_ITEM
        and len(definition) == page.num_rows
        and (not page.num_rows or int(definition.max()) <= 1)
    )


def _flat_validity(page: Decoded) -> Bools | None:
    return None if page.definition is None else page.definition == 0


def _paths(
    field: Field, above: tuple[bool, ...] = (), factor: int = 1
) -> Iterator[tuple[Field, tuple[bool, ...], int]]:
    """Per leaf: the leaf, whether each layer from the outside in is a list, page rows per row."""
    kind = field.arrow_type
    if field.is_leaf:
        yield field, (*above, False), factor
        return
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind)
    if pa.types.is_fixed_size_list(kind):
        factor *= kind.list_size
    for child in field.children:
        yield from _paths(child, (*above, is_list), factor)


class _Leaf:
    """One leaf column: its pages, checked, and their levels as one stream.

    Attributes:
        hollow: a struct without members, whose page says nothing about the structure around it.
        num_rows: top-level rows.
        entries: level entries.
    """

    __slots__ = (
        "_slots",
        "definition",
        "entries",
        "factor",
        "field",
        "hollow",
        "kinds",
        "limits",
        "num_rows",
        "numbers",
        "pages",
        "rep",
        "top",
    )

    def __init__(self, field: Field, pages: Sequence[Decoded], kinds: tuple[bool, ...], factor: int) -> None:
        self.field, self.pages, self.kinds, self.factor = field, pages, kinds, factor
        if factor > 1 and any(kinds):
            raise UnsupportedError("fixed-size lists of structs together with lists")
        empty = field.arrow_type.id == _STRUCT and not field.children
        self.hollow = empty and any(len(page.layers) < len(kinds) for page in pages)
        page_rows = sum(page.num_rows for page in pages)
        if page_rows % factor:
            raise CorruptFileError(f"a column of {page_rows} page rows holds lists of {factor}")
        self.num_rows = page_rows // factor
        self.rep: Levels | None = None
        self.definition: Levels | None = None
        layers: levels.Layers = tuple(
            levels.ALL_VALID_LIST if k else levels.ALL_VALID_ITEM for k in kinds[::-1]
        )
        self.entries = page_rows
        if pages and not self.hollow:
            parts = [self._checked(page) for page in pages]
            self.rep, self.definition, layers = levels.concat_levels(parts)
            self.entries = sum(part[3] for part in parts)
        self.numbers = levels.level_numbers(layers)[::-1]  # outermost first, like kinds
        self.limits = levels.inside_limits(layers)
        self.top = levels.max_rep(layers)
        self._slots: dict[int, Ints | None] = {}

    def _checked(self, page: Decoded) -> tuple[Levels | None, Levels | None, levels.Layers, int]:
        rep, definition = page.rep, page.definition
        depth = len(self.kinds)
        layers = page.layers if len(page.layers) == depth else page.layers[:depth]
        if [kind in levels.LIST_KINDS for kind in layers] != list(self.kinds[::-1]) or any(
            extra != levels.ALL_VALID_ITEM for extra in page.layers[depth:]
        ):
            raise CorruptFileError(
                f"layers {list(page.layers)} do not fit field {self.field.name!r} inside {depth - 1} others"
            )
        levels.check_levels(rep, definition, layers)
        if rep is not None:
            entries = len(rep)
        elif definition is not None:
            entries = len(definition)
        else:
            entries = page.num_rows
        if rep is None and levels.max_rep(layers) and entries:
            raise CorruptFileError("a page of lists has no repetition levels")
        rows = levels.count_rows(rep, layers, entries)
        if rows != page.num_rows:
            raise CorruptFileError(f"the levels of a page hold {rows} rows instead of {page.num_rows}")
        visible = levels.count_visible(definition, layers, entries)
        if visible != page.block.count:
            raise CorruptFileError(
                f"the levels of a page place {visible} values, the page has {page.block.count}"
            )
        return rep, definition, layers, entries

    # ------------------------------------------------------------ structure

    def slots(self, depth: int) -> Ints | None:
        """Entries that are slots of a node inside ``depth`` lists; None means all of them."""
        if self.rep is None:
            return None
        if depth not in self._slots:
            self._slots[depth] = self._find_slots(depth)
        return self._slots[depth]

    def _find_slots(self, depth: int) -> Ints | None:
        mask = self._mask(depth)
        return None if mask is None else np.flatnonzero(mask)

    def _mask(self, depth: int) -> Bools | None:
        """Which entries are slots of a node inside ``depth`` lists; None when all are."""
        assert self.rep is not None
        least, limit = self.top - depth, self.limits[depth]
        mask: Bools | None = None
        if least > 0:
            mask = self.rep >= np.uint16(least)
        if self.definition is not None and limit < self.limits[0]:
            inside = self.definition <= np.uint16(limit)
            mask = inside if mask is None else mask & inside
        return mask

    def count(self, depth: int, stride: int) -> int:
        """How many slots there are."""
        found = self.slots(depth)
        return self.entries // stride if found is None else len(found)

    def levels_of(self, depth: int, stride: int) -> Levels | None:
        """The def levels of the slots; None when all are 0."""
        definition = self.definition
        if definition is None:
            return None
        found = self.slots(depth)
        if found is not None:
            return definition[found]
        return definition if stride == 1 else definition[::stride]

    def item_validity(self, layer: int, depth: int, stride: int) -> Bools | None:
        """Validity of the slots of an item layer (counted from the outside); None when all are valid."""
        null = self.numbers[layer][0]
        if not null:
            return None
        found = self.levels_of(depth, stride)
        return None if found is None else found < np.uint16(null)

    def list_shape(self, layer: int, depth: int) -> tuple[npt.NDArray[Any], Bools | None]:
        """Offsets (one more than slots) and validity of a list layer inside ``depth`` lists."""
        slots = self.slots(depth)
        if slots is None or not self.entries:  # no pages: otherwise lists have rep levels
            return np.zeros(1, np.int64), None
        mask = self._mask(depth + 1)
        if mask is None:
            offsets = np.append(slots, self.entries)
        else:
            # NumPy sums booleans as 32-bit numbers five times as fast as wider ones
            ends = np.cumsum(mask, dtype=np.int32 if self.entries <= _MAX_I32 else np.int64)
            offsets = np.append(ends[slots] - mask[slots], ends[-1:])
        limit = self.limits[depth + 1]
        if limit == self.limits[depth]:
            # neither this layer nor an item layer around it has levels
            return offsets, None
        found = self.levels_of(depth, 1)
        if found is None:
            return offsets, None
        valid = found <= np.uint16(limit)
        empty = self.numbers[layer][1]
        if empty:
            valid |= found == np.uint16(empty)
        return offsets, valid

    # ------------------------------------------------------------ values

    def values(self) -> pa.Array:
        """The values of the visible entries with the nulls of the leaf (and of structs around it)."""
        kind = self.field.arrow_type
        if not self.pages:
            return pa.nulls(0, kind)
        if kind.id == _DICTIONARY:
            return self._dictionary_values(kind)
        parts = [to_arrow(page.block, kind, _validity(page)) for page in self.pages]
        return parts[0] if len(parts) == 1 else _concat(parts)

    def _dictionary_values(self, kind: Any) -> pa.Array:
        """Each page may have a dictionary of its own, or plain values."""
        pages = self.pages
        blocks = [page.block for page in pages if isinstance(page.block, DictionaryBlock)]
        if len(blocks) == len(pages) and len({block.indices.bits for block in blocks}) == 1:
            try:
                joined = concat_blocks(list(blocks))
            except InvalidInputError as error:
                raise InvalidInputError(f"field {self.field.name!r}: {error}; read smaller batches") from None
            valid = [_validity(page) for page in pages]
            whole = None
            if any(part is not None for part in valid):
                sizes = [block.count for block in blocks]
                whole = np.concatenate(
                    [np.ones(n, np.bool_) if v is None else v for v, n in zip(valid, sizes, strict=True)]
                )
            return to_arrow(joined, kind, whole)
        parts = [to_arrow(page.block, kind.value_type, _validity(page)) for page in pages]
        array = parts[0] if len(parts) == 1 else _concat(parts)
        try:
            pc = arrays.compute()
            return pc.cast(pc.dictionary_encode(array), kind)
        except pa.ArrowInvalid as error:
            raise InvalidInputError(
                f"field {self.field.name!r}: the values do not fit a {kind}: {error}"
            ) from None


def _validity(page: Decoded) -> Bools | None:
    definition = page.definition
    if definition is None:
        return None
    visible = levels.visible_mask(definition, page.layers)
    if visible is not None:
        definition = definition[visible]
    valid: Bools = definition == 0
    return valid


def _concat(parts: list[pa.Array]) -> pa.Array:
    try:
        return pa.concat_arrays(parts)
    except pa.ArrowInvalid as error:  # offsets overflow
        raise InvalidInputError(f"{error}; read smaller batches") from None


# --------------------------------------------------------------------------- building


def _build(field: Field, columns: Sequence[_Leaf], layer: int, depth: int, stride: int) -> pa.Array:
    """The array of one node.

    Args:
        columns: the leaves below it, in order.
        layer: its layer, counted from the outside.
        depth: lists around it.
        stride: entries per slot (fixed-size lists of structs repeat them).
    """
    if field.is_leaf and (field.children or field.arrow_type.id != _STRUCT):
        return columns[0].values()
    lead = next((column for column in columns if not column.hollow), columns[0])
    count = lead.count(depth, stride)
    if lead.hollow and depth:
        raise CorruptFileError(f"the column of field {field.name!r} has no levels for the lists around it")
    kind = field.arrow_type
    if field.is_leaf:  # a struct without members: never null, whatever its page says
        return pa.Array.from_buffers(kind, count, [None], 0, children=[])
    if pa.types.is_struct(kind):
        bitmap, nulls = _bitmap(lead.item_validity(layer, depth, stride))
        children = []
        position = 0
        for child in field.children:
            width = sum(1 for _ in child.leaves())
            part = columns[position : position + width]
            position += width
            if part[0].hollow and child.is_leaf:
                children.append(pa.Array.from_buffers(child.arrow_type, count, [None], 0, children=[]))
            else:
                children.append(_build(child, part, layer + 1, depth, stride))
            _same_length(child, children[-1], count)
        return pa.Array.from_buffers(kind, count, [bitmap], nulls, children=children)
    child = field.children[0]
    if pa.types.is_fixed_size_list(kind):
        bitmap, nulls = _bitmap(lead.item_validity(layer, depth, stride))
        items = _build(child, columns, layer + 1, depth, stride // kind.list_size)
        _same_length(child, items, count * kind.list_size)
        return pa.Array.from_buffers(kind, count, [bitmap], nulls, children=[items])
    offsets, valid = lead.list_shape(layer, depth)
    bitmap, nulls = _bitmap(valid)
    total = int(offsets[-1])
    if not pa.types.is_large_list(kind):
        if total > _MAX_I32:
            raise InvalidInputError(
                f"{total} items of field {field.name!r} do not fit one {kind}; read smaller batches"
            )
        offsets = offsets.astype(np.int32, copy=False)
    else:
        offsets = offsets.astype(np.int64, copy=False)
    items = _build(child, columns, layer + 1, depth + 1, stride)
    _same_length(child, items, total)
    if pa.types.is_map(kind) and (items.null_count or items.field(0).null_count):
        raise CorruptFileError(f"map {field.name!r} has null keys")
    buffers = [bitmap, pa.py_buffer(offsets)]
    return pa.Array.from_buffers(kind, count, buffers, nulls, children=[items])


def _same_length(field: Field, array: Any, count: int) -> None:
    if len(array) != count:
        raise CorruptFileError(
            f"leaf columns disagree: field {field.name!r} has {len(array)} values where its siblings have {count}"
        )


def _bitmap(valid: Bools | None) -> tuple[Any, int]:
    if valid is None:
        return None, 0
    nulls = len(valid) - int(np.count_nonzero(valid))
    return (pa.py_buffer(pack_bits(valid)), nulls) if nulls else (None, 0)
