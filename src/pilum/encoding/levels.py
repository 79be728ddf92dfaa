"""Repetition and definition levels: the arithmetic of layers.

A page of a leaf column stores one (rep, def) pair per entry.  What a level means follows from the
layers of the page, one per nesting step, innermost first: the leaf itself, then each struct, list or
map around it (`spec/file-container-and-structure.md`, sections 4.1 and 5.1)::

    list<struct<x: int32>>       layers  NULLABLE_ITEM   x        def 1 = x is null
                                         ALL_VALID_ITEM  struct
                                         NULLABLE_LIST   list     def 2 = list is null

    R  = number of list layers               rep R begins a row, rep 0 continues the innermost list
    D  = all def levels                      def 0 is a valid leaf; outer layers have larger numbers
    V  = def levels below the first list     an entry with def <= V owns a value ("visible")

Everything here is pure and works on whole arrays.  Functions of the layers alone are cached: a file has
few different lists of layers.  Must not know: Arrow, blocks, pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.errors import CorruptFileError

__all__ = [
    "ALL_VALID_ITEM",
    "ALL_VALID_LIST",
    "EMPTYABLE_LIST",
    "LIST_KIND",
    "LIST_KINDS",
    "NULLABLE_ITEM",
    "NULLABLE_LIST",
    "NULL_AND_EMPTY_LIST",
    "Layers",
    "check_layers",
    "check_levels",
    "concat_levels",
    "count_rows",
    "count_visible",
    "inside_limits",
    "level_numbers",
    "max_def",
    "max_rep",
    "row_starts",
    "unify_layers",
    "visible_limit",
    "visible_mask",
]

Layers: TypeAlias = tuple[int, ...]
Levels: TypeAlias = npt.NDArray[np.uint16]
Bools: TypeAlias = npt.NDArray[np.bool_]

# The values of enum RepDefLayer; 0 is "unspecified" and never valid.
ALL_VALID_ITEM = 1
ALL_VALID_LIST = 2
NULLABLE_ITEM = 3
NULLABLE_LIST = 4
EMPTYABLE_LIST = 5
NULL_AND_EMPTY_LIST = 6

LIST_KINDS = frozenset((ALL_VALID_LIST, NULLABLE_LIST, EMPTYABLE_LIST, NULL_AND_EMPTY_LIST))
LIST_KIND = {  # by (nullable, emptyable)
    (False, False): ALL_VALID_LIST,
    (True, False): NULLABLE_LIST,
    (False, True): EMPTYABLE_LIST,
    (True, True): NULL_AND_EMPTY_LIST,
}
_DEF_LEVELS = (0, 0, 0, 1, 1, 1, 2)  # by kind
_MAX_LAYERS = 256  # twice the deepest schema; keeps every level far inside 16 bits


# --------------------------------------------------------------------------- of the layers alone


def check_layers(layers: Iterable[int]) -> Layers:
    """The layers of a page message as a tuple, checked.

    Raises:
        CorruptFileError: no layer, an unknown kind, or more layers than any schema has.
    """
    return _checked(tuple(layers))


@lru_cache(maxsize=1024)
def _checked(layers: Layers) -> Layers:
    if not layers:
        raise CorruptFileError("the page declares no layers")
    if len(layers) > _MAX_LAYERS:
        raise CorruptFileError(f"the page declares {len(layers)} layers; at most {_MAX_LAYERS} make sense")
    for kind in layers:
        if not ALL_VALID_ITEM <= kind <= NULL_AND_EMPTY_LIST:
            raise CorruptFileError(f"the page declares a layer of unknown kind {kind}")
    return layers


@lru_cache(maxsize=1024)
def max_rep(layers: Layers) -> int:
    """R: the number of list layers, which is the rep level of the first entry of a row."""
    return sum(kind in LIST_KINDS for kind in layers)


@lru_cache(maxsize=1024)
def max_def(layers: Layers) -> int:
    """D: the largest def level that the layers declare."""
    return sum(_DEF_LEVELS[kind] for kind in layers)


@lru_cache(maxsize=1024)
def visible_limit(layers: Layers) -> int | None:
    """V: entries with def <= V own a value; None without a list layer, where every entry does."""
    total = 0
    for kind in layers:
        if kind in LIST_KINDS:
            return total
        total += _DEF_LEVELS[kind]
    return None


@lru_cache(maxsize=1024)
def level_numbers(layers: Layers) -> tuple[tuple[int, int], ...]:
    """The def levels (null, empty) of each layer, innermost first; 0 where a layer has none (5.1)."""
    numbers = []
    used = 0
    for kind in layers:
        null = empty = 0
        if kind in (NULLABLE_ITEM, NULLABLE_LIST, NULL_AND_EMPTY_LIST):
            used += 1
            null = used
        if kind in (EMPTYABLE_LIST, NULL_AND_EMPTY_LIST):
            used += 1
            empty = used
        numbers.append((null, empty))
    return tuple(numbers)


@lru_cache(maxsize=1024)
def inside_limits(layers: Layers) -> tuple[int, ...]:
    """Per number of lists entered, the largest def level of an entry that got that far.

    Element 0 is D (every entry); element k is the sum of the levels of all layers inside the k-th
    list from the outside; element R is V.
    """
    limits = [max_def(layers)]
    numbers = limits[0]
    for kind in reversed(layers):
        numbers -= _DEF_LEVELS[kind]
        if kind in LIST_KINDS:
            limits.append(numbers)
    return tuple(limits)


# --------------------------------------------------------------------------- of levels


def visible_mask(definition: Levels | None, layers: Layers) -> Bools | None:
    """Which entries own a value; None means all of them."""
    limit = visible_limit(layers)
    if limit is None or definition is None or limit >= max_def(layers):
        return None
    return definition <= np.uint16(limit)


def count_visible(definition: Levels | None, layers: Layers, entries: int) -> int:
    """How many of ``entries`` entries own a value."""
    mask = visible_mask(definition, layers)
    return entries if mask is None else int(np.count_nonzero(mask))


def count_rows(rep: Levels | None, layers: Layers, entries: int) -> int:
    """How many rows begin in ``entries`` entries (with rep levels: those with rep = R)."""
    return entries if rep is None else int(np.count_nonzero(rep == np.uint16(max_rep(layers))))


def row_starts(rep: Levels, layers: Layers) -> npt.NDArray[np.int64]:
    """Positions of the entries that begin a row, ascending."""
    return np.flatnonzero(rep == np.uint16(max_rep(layers)))


def check_levels(rep: Levels | None, definition: Levels | None, layers: Layers) -> None:
    """Whether levels form rows: then, and only then, rebuilding yields what was shredded.

    An entry that continues a list must lie in that list, and so must the entry before it; nothing
    may lie in a list that its def level declares null or empty.

    Raises:
        CorruptFileError: they do not.
    """
    top_def = max_def(layers)
    if definition is not None and len(definition):
        found = int(definition.max())
        if found > top_def:
            raise CorruptFileError(f"definition level {found} in a page whose layers allow {top_def}")
    top = max_rep(layers)
    if rep is None:
        if top and definition is not None and len(definition):
            raise CorruptFileError("a page of lists has no repetition levels")
        return
    if definition is not None and len(definition) != len(rep):
        raise CorruptFileError(f"{len(rep)} repetition levels but {len(definition)} definition levels")
    if len(rep) == 0:
        return
    found = int(rep.max())
    if found > top:
        raise CorruptFileError(f"repetition level {found} in a page of {top} list layers")
    if int(rep[0]) != top:
        raise CorruptFileError(f"the first entry has repetition level {int(rep[0])}, a row begins with {top}")
    if definition is not None and not _is_stream(rep, definition, top, inside_limits(layers)):
        raise CorruptFileError("repetition and definition levels contradict each other")


def _is_stream(rep: Levels, definition: Levels, top: int, limits: tuple[int, ...]) -> bool:
    if limits[0] == limits[-1]:  # no list is ever null or empty
        return True
    if top == 1:
        # an entry that continues the list: it is in the list, and the entry before it is too
        outside = definition > np.uint16(limits[1])
        continues = rep == 0
        return not bool((continues & outside).any() or (continues[1:] & outside[:-1]).any())
    inside = np.zeros(limits[0] + 1, np.uint16)  # lists entered, by def level
    for limit in limits[1:]:
        inside[: limit + 1] += np.uint16(1)
    begins = np.uint16(top) - rep  # lists around the place where the entry begins
    reached = inside[definition]
    return bool((begins <= reached).all() and (begins[1:] <= reached[:-1]).all())


# --------------------------------------------------------------------------- of several pages


def unify_layers(parts: Sequence[Layers]) -> Layers:
    """The smallest layers that can say what each of ``parts`` says.

    Raises:
        CorruptFileError: they are not layers of one column (lists where others have items).
    """
    first = parts[0]
    if all(part == first for part in parts):
        return first
    if any(len(part) != len(first) for part in parts):
        raise CorruptFileError("pages of one column declare different numbers of layers")
    unified = []
    for kinds in zip(*parts, strict=True):
        found = set(kinds)
        if found <= LIST_KINDS:
            null = not found.isdisjoint((NULLABLE_LIST, NULL_AND_EMPTY_LIST))
            empty = not found.isdisjoint((EMPTYABLE_LIST, NULL_AND_EMPTY_LIST))
            unified.append(LIST_KIND[null, empty])
        elif found.isdisjoint(LIST_KINDS):
            unified.append(NULLABLE_ITEM if NULLABLE_ITEM in found else ALL_VALID_ITEM)
        else:
            raise CorruptFileError("a layer of one column is a list in one page and an item in another")
    return tuple(unified)


def concat_levels(
    parts: Sequence[tuple[Levels | None, Levels | None, Layers, int]],
) -> tuple[Levels | None, Levels | None, Layers]:
    """The levels of consecutive parts of a column as one stream, under the unified layers.

    Args:
        parts: (rep, definition, layers, entries) of each part.

    Returns:
        rep, definition (None when every part lacks them) and the layers that they follow.
    """
    layers = unify_layers([part[2] for part in parts])
    if len(parts) == 1:
        return parts[0][0], parts[0][1], layers
    rep = definition = None
    if any(part[0] is not None for part in parts):
        rep = np.concatenate([np.zeros(n, np.uint16) if r is None else r for r, _, _, n in parts])
    if any(part[1] is not None for part in parts):
        pieces = []
        for _, levels, old, entries in parts:
            if levels is None:
                pieces.append(np.zeros(entries, np.uint16))
                continue
            table = _renumbering(old, layers)
            pieces.append(levels if table is None else table[levels])
        definition = np.concatenate(pieces)
    return rep, definition, layers


@lru_cache(maxsize=1024)
def _renumbering(old: Layers, new: Layers) -> Levels | None:
    """Table from def levels under ``old`` to those under ``new``, None when they are the same."""
    table = np.zeros(max_def(old) + 1, np.uint16)
    for before, after in zip(level_numbers(old), level_numbers(new), strict=True):
        for level, renumbered in zip(before, after, strict=True):
            if level:
                table[level] = renumbered
    return None if np.array_equal(table, np.arange(len(table))) else table
