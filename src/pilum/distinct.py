"""Sets of numbers as sorted arrays: `numpy.unique` and its relatives.

NumPy's own functions import ``numpy.ma`` at their first call: 40 ms, and no safe thing beside a fork (see
`pilum.imports`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["difference", "intersection", "union", "unique", "unique_first", "unique_inverse"]

Values = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


def unique(values: Values) -> Values:
    """The distinct values, ascending; all NaN are one."""
    if (
        values.size > 1
        and values.ndim == 1
        and values.dtype.kind in "iu"
        and bool((values[1:] > values[:-1]).all())
    ):
        return values.copy()
    ordered = np.sort(values, axis=None)
    return ordered[_begins(ordered)]


def unique_first(values: Values) -> tuple[Values, Ints]:
    """The distinct values, ascending, and where each is first."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = _begins(ordered)
    return ordered[begins], order[begins]


def unique_inverse(values: Values) -> tuple[Values, Ints]:
    """The distinct values, ascending, and which of them each value is."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = _begins(ordered)
    inverse = np.empty(len(values), np.int64)
    inverse[order] = np.cumsum(begins) - 1
    return ordered[begins], inverse


def union(left: Values, right: Values) -> Values:
    """Values of either, ascending."""
    return unique(np.concatenate([left, right]))


def difference(left: Values, right: Values) -> Values:
    """Values of the first that are not in the second, ascending."""
    mine = unique(left)
    return mine[_absent(mine, right)]


def intersection(left: Values, right: Values) -> Values:
    """Values of both, ascending."""
    mine = unique(left)
    return mine[~_absent(mine, right)]


def _absent(mine: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    others = np.sort(right, axis=None)
    if not len(others):
        return np.ones(len(mine), np.bool_)
    place = np.minimum(np.searchsorted(others, mine), len(others) - 1)
    absent: npt.NDArray[np.bool_] = others[place] != mine
    return absent


def _begins(ordered: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    begins = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    if ordered.dtype.kind == "f":
        begins[1:] &= ordered[:-1] == ordered[:-1]  # NaN is last, and not equal to itself
    return begins
