"""Kernels on lists, on offsets and flat values instead of per row (spec api.md, 10.2 and 10.6).

A list column is seen as (starts, lengths, flat values, validity); fixed-size and large lists are converted once.
What is rarely filtered on (array_sort, array_slice, …) runs in Python per distinct row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays, distinct
from pilum.query.vectors import broadcast, mask_to_array, validity

__all__ = [
    "Lists",
    "element",
    "has",
    "has_all",
    "has_any",
    "length",
    "lists_equal",
    "position",
    "reduce_extreme",
]


@dataclass(frozen=True, slots=True)
class Lists:
    """A list array taken apart.

    Attributes:
        starts, lengths: int64, per row, into ``values``; the length of a null row is 0.
        values: the flat items that rows refer to.
        valid: False for null rows.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    values: Any
    valid: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, array: Any) -> Lists:
        valid = validity(array)
        if pa.types.is_fixed_size_list(array.type):
            size = array.type.list_size
            starts = (np.arange(len(array), dtype=np.int64) + array.offset) * size
            lengths = np.full(len(array), size, dtype=np.int64)
        else:
            offsets = arrays.to_numpy(array.offsets).astype(np.int64)
            starts, lengths = offsets[:-1], np.diff(offsets)
        return cls(starts, np.where(valid, lengths, 0), array.values, valid)

    def flatten(self) -> tuple[npt.NDArray[np.int64], Any]:
        """(row of each item, the items), in row order."""
        rows = np.repeat(np.arange(len(self.starts)), self.lengths)
        ends = np.cumsum(self.lengths)
        within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - self.lengths, self.lengths)
        return rows, arrays.take(self.values, np.repeat(self.starts, self.lengths) + within)


def _same(a: Any, b: Any) -> npt.NDArray[np.bool_]:
    """Item equality without nulls: null equals null (as a value), NaN equals NaN."""
    result = pc.fill_null(pc.equal(a, b), False)
    result = pc.or_(result, pc.and_(pc.is_null(a), pc.is_null(b)))
    if pa.types.is_floating(a.type):
        result = pc.or_(result, pc.fill_null(pc.and_(pc.is_nan(a), pc.is_nan(b)), False))
    mask: npt.NDArray[np.bool_] = arrays.to_numpy(result)
    return mask


def lists_equal(left: Any, right: Any) -> Any:
    """Row-wise equality of two list arrays with the same item type; null where either is null."""
    left, right = (Lists.of(side) for side in broadcast(left, right))
    result = left.lengths == right.lengths
    rows = np.flatnonzero(result & (left.lengths > 0))
    if len(rows):
        pick = [
            Lists(s.starts[rows], s.lengths[rows], s.values, s.valid[rows]).flatten() for s in (left, right)
        ]
        differs = ~_same(pick[0][1], pick[1][1])
        result[rows[distinct.unique(pick[0][0][differs])]] = False
    return mask_to_array(result, left.valid & right.valid)


def length(lists: Any) -> Any:
    """Items per row as uint64; 0 for an empty list, null for null."""
    parts = Lists.of(lists)
    return arrays.from_numpy(parts.lengths.astype(np.uint64), mask=~parts.valid)


def element(lists: Any, index: Any) -> Any:
    """The item at a 1-based index; negative counts from the end; null outside."""
    lists, index = broadcast(lists, index)
    parts = Lists.of(lists)
    valid = parts.valid & validity(index)
    at = arrays.filled(index).astype(np.int64)
    at = np.where(at < 0, parts.lengths + at, at - 1)
    inside = valid & (at >= 0) & (at < parts.lengths) & (arrays.filled(index) != 0)
    return arrays.take(parts.values, parts.starts + at, ~inside)


def _matches(lists: Any, item: Any) -> tuple[Lists, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(parts, row of each item, whether the item equals that row's ``item``)."""
    lists, item = broadcast(lists, item)
    parts = Lists.of(lists)
    rows, values = parts.flatten()
    wanted = arrays.take(item, rows)
    return parts, rows, _same(values, wanted) & validity(wanted)


def has(lists: Any, item: Any) -> Any:
    """Whether the row's list contains the item; null for a null list or item."""
    parts, rows, hit = _matches(lists, item)
    found = np.zeros(len(parts.starts), dtype=np.bool_)
    found[rows[hit]] = True
    return mask_to_array(found, parts.valid & validity(broadcast(lists, item)[1]))


def position(lists: Any, item: Any) -> Any:
    """1-based position of the first equal item as uint64; null when there is none."""
    parts, rows, hit = _matches(lists, item)
    out = np.zeros(len(parts.starts), dtype=np.uint64)
    firsts = np.cumsum(parts.lengths) - parts.lengths
    at = np.flatnonzero(hit)[::-1]  # the last assignment wins: the first hit
    out[rows[at]] = (at - firsts[rows[at]] + 1).astype(np.uint64)
    return arrays.from_numpy(out, mask=out == 0)


def has_all(lists: Any, items: Sequence[Any]) -> Any:
    """Whether the list holds every one of the scalars ``items``; no items: true, even for null."""
    if not items:
        return arrays.from_numpy(np.ones(len(lists), dtype=np.bool_))
    result = has(lists, items[0])
    for item in items[1:]:
        result = pc.and_kleene(result, has(lists, item))
    return result


def has_any(lists: Any, items: Sequence[Any]) -> Any:
    """Whether the list holds at least one of the scalars ``items``."""
    parts = Lists.of(lists)
    rows, values = parts.flatten()
    found = np.zeros(len(parts.starts), dtype=np.bool_)
    if items:
        wanted = arrays.from_python([item.as_py() for item in items], values.type)
        hit = arrays.to_numpy(pc.is_in(values, value_set=wanted))
        found[rows[hit]] = True
    return mask_to_array(found, parts.valid)


def reduce_extreme(lists: Any, *, largest: bool) -> Any:
    """The largest (or smallest) item of each row; null for an empty list."""
    parts = Lists.of(lists)
    rows, values = parts.flatten()
    order = arrays.to_numpy(pc.sort_indices(values))  # nulls last
    order = order[: len(values) - values.null_count]
    if not largest:
        order = order[::-1]
    best = np.full(len(parts.starts), -1, dtype=np.int64)
    best[rows[order]] = order  # the last assignment wins
    return (
        arrays.take(values, np.maximum(best, 0), best < 0)
        if len(values)
        else pa.nulls(len(best), values.type)
    )
