"""Rows in their chunks: the kernel and its NumPy twin against a search row by row."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pilum.encoding import kernels
from pilum.encoding.kernels import locate as module
from pilum.encoding.miniblock_rows import RowIndex, index_without_lists, pack_index, read_index


@st.composite
def pages(draw: st.DrawFn) -> tuple[RowIndex, Any, Any, Any]:
    """A page's index, where its chunks lie, and some of its rows."""
    chunks = draw(st.integers(1, 12))
    if draw(st.booleans()):
        counts = np.array(draw(st.lists(st.integers(1, 9), min_size=chunks, max_size=chunks)))
        index = index_without_lists(counts)
    else:
        sizes = np.array(draw(st.lists(st.integers(1, 9), min_size=chunks, max_size=chunks)))
        rep = np.array(
            draw(st.lists(st.sampled_from([0, 0, 1]), min_size=int(sizes.sum()), max_size=int(sizes.sum()))),
            np.uint16,
        )
        rep[0] = 1
        index = read_index(pack_index(rep, 1, sizes), chunks, int((rep == 1).sum()))
    rows = int(index.first[-1])
    picked = np.flatnonzero(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    gaps = np.array(draw(st.lists(st.sampled_from([0, 0, 5]), min_size=chunks, max_size=chunks)))
    lengths = np.array(draw(st.lists(st.integers(1, 30), min_size=chunks, max_size=chunks)))
    ends = np.cumsum(lengths + gaps)
    return index, ends - lengths, ends, picked if len(picked) else np.array([rows - 1])


def naive(index: RowIndex, begins: Any, ends: Any, rows: Any, join: bool) -> Any:
    wanted: list[int] = []
    own = []
    for row in rows.tolist():
        chunk = max(c for c in range(len(index.first) - 1) if index.first[c] <= row)
        own.append((chunk, row - int(index.first[chunk])))
        until = chunk
        if index.trailer is not None and index.trailer[chunk] and row + 1 == index.first[chunk + 1]:
            until += 1
            while index.first[until] == index.first[until + 1] and index.trailer[until]:
                until += 1
        wanted += [c for c in range(chunk, until + 1) if c not in wanted]
    ranges: list[tuple[int, int]] = []
    for c in wanted:
        low, high = int(begins[c]), int(ends[c])
        if join and ranges and ranges[-1][1] == low:
            ranges[-1] = (ranges[-1][0], high)
        else:
            ranges.append((low, high))
    sizes = [int(ends[c] - begins[c]) for c in wanted]
    after = np.cumsum(sizes).tolist()
    places = [wanted.index(chunk) for chunk, _ in own]
    return (
        wanted,
        [end - size for end, size in zip(after, sizes, strict=True)],
        after,
        places,
        [p for _, p in own],
        ranges,
    )


@pytest.mark.property
@settings(deadline=None, max_examples=300)
@given(pages(), st.booleans())
def test_against_a_search_row_by_row(page: tuple[RowIndex, Any, Any, Any], join: bool) -> None:
    index, begins, ends, rows = page
    arguments = (rows, index.first, index.trailer, index.stops, begins, ends)
    expected = naive(index, begins, ends, rows, join)
    found = [module.locate_numpy(*arguments, join=join)]
    if kernels.enabled() and module.LOCATE.load() is not None:
        found.append(module.locate(*arguments, join=join))
    for one in found:
        assert tuple(part if isinstance(part, list) else part.tolist() for part in one) == expected


def test_rows_of_very_many_chunks() -> None:
    """More chunks than were reckoned with: one row goes on through all of them."""
    chunks = 500
    rep = np.zeros(10 * chunks, np.uint16)
    rep[[0, 3]] = 1
    index = read_index(pack_index(rep, 1, np.full(chunks, 10)), chunks, 2)
    ends = np.arange(1, chunks + 1) * 8
    for rows, count in ((np.array([0]), 1), (np.array([1]), chunks), (np.array([0, 1]), chunks)):
        if kernels.enabled():
            module.LOCATE.load()
        found = index.locate(rows, ends - 8, ends)
        assert len(found.chunks) == count
        assert found.ranges == [(0, 8 * count)]
