"""Entries: the stream of places that shredding passes through the layers of a column.

Shredding goes from the outside in.  At each node there is a stream of *entries*; those that still have
a slot in the node's Arrow array are set in ``slots``.  An item layer marks the entries whose slot is
null; a list layer replaces each entry by one per list item, and entries of null and empty lists stay
behind without a slot.  While the inner layers are unknown, entries are marked with *codes*: numbers in
the order of declaration from the outside, an empty list before a null one, so that the def level is
just ``D + 1 - code``.  Siblings share the arrays of their parents; nothing is changed in place.

`structure` drives this with Arrow arrays, `sparse` with the positions that a sparse page stores.
`spec/file-container-and-structure.md`, sections 5.1, 5.2 and 5.6.  Must not know: Arrow, pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding import levels
from pilum.encoding.blocks import Block
from pilum.encoding.page import LeafRows, Levels

__all__ = ["Entries", "enter_item", "enter_list", "finish", "repeat_entries"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Entries:
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


def finish(entries: Entries, block: Block) -> LeafRows:
    """The levels of a leaf that has been passed, with its values."""
    layers = entries.kinds[::-1]
    rep, definition = entries.rep, entries.code
    if rep is not None:
        rep = np.uint16(levels.max_rep(layers)) - rep
    top = entries.codes
    if definition is not None and top > 1:  # with one code it is the level already
        definition = (np.uint16(top + 1) - definition) * (definition != 0)
    return LeafRows(block, rep, definition, layers, entries.num_rows)


def enter_item(entries: Entries, nulls: Bools | None, *, always: bool = False) -> Entries:
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


def enter_list(entries: Entries, sizes: Ints, nulls: Bools | None) -> tuple[Entries, Ints]:
    """Pass a list layer.

    Args:
        sizes: items of the list in each slot.
        nulls: which slots are null; None when none is.

    Returns:
        The entries of the items, and the sizes with those of null and dead lists as 0.
    """
    gone = entries.dead
    if nulls is not None and gone is not None:
        nulls = nulls & ~gone
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
    inner = Entries(count, entries.num_rows, kinds, codes, rep, code, slots)
    return inner, sizes


def repeat_entries(entries: Entries, dimension: int) -> Entries:
    """Pass from the slots of a fixed-size list of structs to its items: each entry is repeated (5.6)."""
    code, dead = entries.code, entries.dead
    if code is not None:
        code = np.repeat(code, dimension)
    if dead is not None:
        dead = np.repeat(dead, dimension)
    count, num_rows = entries.count * dimension, entries.num_rows * dimension
    return replace(entries, count=count, num_rows=num_rows, code=code, dead=dead, fixed=True)
