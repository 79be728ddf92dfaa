"""Which rows of a file are wanted: the forms callers use, checked and cut into batches.  Pure.

A selection is everything, one range, several ranges, or indices (spec/read-path.md, section 5.2).  Readers
see `Rows`: a range of step 1 or strictly increasing int64 offsets.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from pilum.encoding import Rows
from pilum.errors import InvalidInputError

__all__ = ["Selection", "check_rows", "count", "cut", "cut_at_pages", "select"]

Selection: TypeAlias = range | Sequence[range] | Sequence[int] | Any | None


def check_rows(rows: Rows | Sequence[int] | Any, num_rows: int) -> Rows:
    """One range or one list of indices, checked against the number of rows.

    Raises:
        InvalidInputError: out of range, null, or indices that are not strictly increasing.
    """
    if isinstance(rows, range):
        if rows.step != 1:
            raise InvalidInputError(f"a row range has step 1, not {rows.step}")
        if rows.start < 0 or rows.stop > num_rows:
            raise InvalidInputError(
                f"rows {rows.start}..{rows.stop} are out of range: the file has {num_rows} rows"
            )
        return rows
    indices = np.asarray(rows)
    if indices.size == 0:
        return range(0)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise InvalidInputError("row indices must be one-dimensional integers without nulls")
    indices = indices.astype(np.int64, copy=False)
    low, high = int(indices[0]), int(indices[-1])
    if len(indices) > 1 and int(np.diff(indices).min()) < 1:
        raise InvalidInputError("row indices must be strictly increasing")
    if low < 0 or high >= num_rows:
        raise InvalidInputError(
            f"row {low if low < 0 else high} is out of range: the file has {num_rows} rows"
        )
    return range(low, high + 1) if high - low == len(indices) - 1 else indices


def select(selection: Selection, num_rows: int) -> list[Rows]:
    """The parts of a selection in row order, empty ones dropped.

    Raises:
        InvalidInputError: as `check_rows`; ranges that overlap or are not sorted.
    """
    if selection is None:
        parts: list[Rows] = [range(num_rows)]
    elif isinstance(selection, range):
        parts = [check_rows(selection, num_rows)]
    elif isinstance(selection, (list, tuple)) and selection and isinstance(selection[0], range):
        parts = [check_rows(part, num_rows) for part in selection]
        at = 0
        for part in parts:
            assert isinstance(part, range)
            if len(part):
                if part.start < at:
                    raise InvalidInputError("row ranges must be sorted and must not overlap")
                at = part.stop
    else:
        parts = [check_rows(selection, num_rows)]
    return [part for part in parts if len(part)]


def count(parts: Sequence[Rows]) -> int:
    """Rows in all parts."""
    return sum(len(part) for part in parts)


def cut(parts: Sequence[Rows], size: int) -> list[Rows]:
    """The same rows in pieces of exactly ``size`` (the last may be shorter).

    Pieces that span several parts become indices, so that batches are full whatever the ranges are.
    """
    if len(parts) == 1:
        part = parts[0]
        return [part[at : at + size] for at in range(0, len(part), size)]
    pieces: list[Rows] = []
    pending: list[Rows] = []
    missing = size
    for part in parts:
        at = 0
        while at < len(part):
            piece = part[at : at + missing]
            pending.append(piece)
            at += len(piece)
            missing -= len(piece)
            if not missing:
                pieces.append(_joined(pending))
                pending, missing = [], size
    if pending:
        pieces.append(_joined(pending))
    return pieces


def cut_at_pages(rows: range, size: int, edges: Sequence[int]) -> list[Rows]:
    """A range in pieces of about ``size`` rows that end at ``edges`` (ascending) where one is near."""
    pieces: list[Rows] = []
    at = rows.start
    while at < rows.stop:
        stop = at + size
        low, high = (
            bisect.bisect_left(edges, at + size // 2),
            bisect.bisect_right(edges, at + size + size // 2),
        )
        near = edges[low:high]
        if near:
            stop = min(near, key=lambda edge: abs(edge - (at + size)))
        stop = min(stop, rows.stop)
        pieces.append(range(at, stop))
        at = stop
    return pieces


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    first, last = parts[0], parts[-1]
    if isinstance(first, range) and isinstance(last, range) and last.stop - first.start == count(parts):
        return range(first.start, last.stop)
    arrays = [np.arange(part.start, part.stop) if isinstance(part, range) else part for part in parts]
    return np.concatenate(arrays)
