"""The arithmetic of layers, with the numbers of the specification."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from pilum.encoding import levels
from pilum.errors import CorruptFileError


def u16(*values: int) -> Any:
    return np.array(values, np.uint16)


@pytest.mark.parametrize(
    ("layers", "rep", "definition", "limit", "numbers", "limits"),
    [
        ((1,), 0, 0, None, [(0, 0)], (0,)),
        ((3,), 0, 1, None, [(1, 0)], (1,)),
        ((3, 3), 0, 2, None, [(1, 0), (2, 0)], (2,)),
        ((3, 6), 1, 3, 1, [(1, 0), (2, 3)], (3, 1)),
        ((3, 6, 6), 2, 5, 1, [(1, 0), (2, 3), (4, 5)], (5, 3, 1)),
        ((3, 6, 3), 1, 4, 1, [(1, 0), (2, 3), (4, 0)], (4, 1)),
        ((3, 1, 6), 1, 3, 1, [(1, 0), (0, 0), (2, 3)], (3, 1)),
        ((1, 5, 3, 4), 2, 3, 0, [(0, 0), (0, 1), (2, 0), (3, 0)], (3, 2, 0)),
        ((3, 3, 2), 1, 2, 2, [(1, 0), (2, 0), (0, 0)], (2, 2)),
    ],
)
def test_numbers_of_layers(
    layers: Any, rep: int, definition: int, limit: int | None, numbers: Any, limits: Any
) -> None:
    assert levels.check_layers(list(layers)) == layers
    assert levels.max_rep(layers) == rep
    assert levels.max_def(layers) == definition
    assert levels.visible_limit(layers) == limit
    assert list(levels.level_numbers(layers)) == numbers
    assert levels.inside_limits(layers) == limits


@pytest.mark.parametrize(
    ("layers", "message"),
    [([], "no layers"), ([0], "kind 0"), ([3, 7], "kind 7"), ([-1], "kind -1"), ([1] * 257, "257 layers")],
)
def test_layers_of_files_are_checked(layers: list[int], message: str) -> None:
    with pytest.raises(CorruptFileError, match=message):
        levels.check_layers(layers)


def test_visible_entries_and_rows() -> None:
    layers = (3, 6)
    rep, definition = u16(1, 0, 0, 1, 1, 1, 0, 1), u16(0, 0, 0, 2, 3, 0, 1, 0)
    mask = levels.visible_mask(definition, layers)
    assert mask is not None
    assert mask.tolist() == [True, True, True, False, False, True, True, True]
    assert levels.count_visible(definition, layers, 8) == 6
    assert levels.count_rows(rep, layers, 8) == 5
    assert levels.row_starts(rep, layers).tolist() == [0, 3, 4, 5, 7]
    assert levels.visible_mask(definition, (3, 3)) is None  # no lists: every entry has a value
    assert levels.visible_mask(None, layers) is None
    assert levels.visible_mask(definition, (3, 2)) is None  # a list that is never null nor empty
    assert levels.count_visible(None, layers, 8) == 8
    assert levels.count_rows(None, (3,), 8) == 8


def rebuilds(rep: Any, definition: Any, layers: Any) -> bool:
    """Whether a stream of entries is what shredding some rows emits: the grammar, entry by entry."""
    top, limits = levels.max_rep(layers), levels.inside_limits(layers)
    inside = -1  # lists that the entry before lies in; none before the first row
    for r, d in zip(rep.tolist(), definition.tolist(), strict=True):
        begins = top - r
        if begins < 0 or d > limits[0] or begins > max(inside, 0) or (inside < 0 and begins):
            return False
        inside = max(k for k in range(top + 1) if d <= limits[k])
        if inside < begins:
            return False
    return True


@pytest.mark.parametrize("layers", [(1, 4), (3, 6), (3, 4, 3), (1, 4, 4), (1, 5, 3, 4), (1, 2, 4), (1, 4, 2)])
def test_check_levels_is_exact(layers: tuple[int, ...]) -> None:
    reps, defs = range(levels.max_rep(layers) + 1), range(levels.max_def(layers) + 1)
    seen = set()
    for size in range(4):
        for rep in product(reps, repeat=size):
            for definition in product(defs, repeat=size):
                stored = np.array(rep, np.uint16), np.array(definition, np.uint16)
                try:
                    levels.check_levels(*stored, layers)
                    found = True
                except CorruptFileError:
                    found = False
                assert found == rebuilds(*stored, layers), (rep, definition)
                seen.add(found)
    assert seen == {True, False}


def test_levels_beyond_the_layers() -> None:
    with pytest.raises(CorruptFileError, match="definition level 2"):
        levels.check_levels(None, u16(0, 2), (3,))
    with pytest.raises(CorruptFileError, match="repetition level 3"):
        levels.check_levels(u16(1, 3), None, (3, 2))
    with pytest.raises(CorruptFileError, match="2 repetition levels but 1"):
        levels.check_levels(u16(1, 0), u16(0), (3, 2))
    with pytest.raises(CorruptFileError, match="no repetition levels"):
        levels.check_levels(None, u16(0), (3, 2))
    levels.check_levels(None, None, (3, 2))


def test_unified_layers() -> None:
    assert levels.unify_layers([(1, 2), (1, 2)]) == (1, 2)
    assert levels.unify_layers([(1, 2), (3, 4), (1, 5)]) == (3, 6)
    assert levels.unify_layers([(1, 4), (1, 2)]) == (1, 4)
    assert levels.unify_layers([(1, 6), (1, 2)]) == (1, 6)
    with pytest.raises(CorruptFileError, match="numbers of layers"):
        levels.unify_layers([(1,), (1, 1)])
    with pytest.raises(CorruptFileError, match="a list in one page"):
        levels.unify_layers([(1, 1), (1, 2)])


def test_concatenated_levels_are_renumbered() -> None:
    rep, definition, layers = levels.concat_levels(
        [
            (u16(1, 0), None, (1, 2), 2),
            (u16(1, 1), u16(1, 0), (1, 5), 2),
            (u16(1, 0, 1), u16(0, 1, 2), (3, 4), 3),
        ]
    )
    assert layers == (3, 6)
    assert rep is not None
    assert rep.tolist() == [1, 0, 1, 1, 1, 0, 1]
    assert definition is not None
    assert definition.tolist() == [0, 0, 3, 0, 0, 1, 2]
    assert levels.concat_levels([(None, None, (1,), 2), (None, None, (3,), 3)]) == (None, None, (3,))
