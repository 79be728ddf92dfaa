"""Sets of numbers beside NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pilum import distinct

VALUES = [
    np.array([], np.int64),
    np.array([5], np.uint32),
    np.array([3, 1, 3, 2, 1, 1]),
    np.arange(10, dtype=np.uint64),
    np.array([np.nan, 1.0, -0.0, 0.0, np.nan, np.inf, -np.inf, 1.0]),
    np.random.default_rng(1).integers(0, 50, 300, dtype=np.uint64),
]


@pytest.mark.parametrize("values", VALUES, ids=repr)
def test_unique(values: npt.NDArray[Any]) -> None:
    expected, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(distinct.unique(values), expected)
    assert distinct.unique(values).dtype == values.dtype
    for found, also in ((distinct.unique_first(values), first), (distinct.unique_inverse(values), inverse)):
        np.testing.assert_array_equal(found[0], expected)
        np.testing.assert_array_equal(found[1], also)


@pytest.mark.parametrize("left", VALUES[:4] + VALUES[5:], ids=repr)
@pytest.mark.parametrize("right", [np.array([], np.uint64), np.array([3, 9, 60, 3, 1])], ids=repr)
def test_two_sets(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> None:
    right = right.astype(left.dtype)
    np.testing.assert_array_equal(distinct.union(left, right), np.union1d(left, right))
    np.testing.assert_array_equal(distinct.difference(left, right), np.setdiff1d(left, right))
    np.testing.assert_array_equal(distinct.intersection(left, right), np.intersect1d(left, right))
