"""Planning of requests: against a naive oracle, and the numbers of the specification."""

from __future__ import annotations

from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pilum.errors import InvalidInputError
from pilum.io import Range, plan_requests
from pilum.io import ranges as ranges_module
from pilum.io.ranges import assemble

CONTENT = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)

RANGES = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(0, 96)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    max_size=30,
)


def naive(ranges: list[Range], gap: int, max_size: int) -> list[Range]:
    """Byte by byte: wanted bytes, short holes between them filled, cut into equal pieces."""
    wanted = sorted({byte for start, end in ranges for byte in range(start, end)})
    runs: list[list[int]] = []
    for byte in wanted:
        if runs and byte - runs[-1][1] <= gap:
            runs[-1][1] = byte + 1
        else:
            runs.append([byte, byte + 1])
    requests = []
    for start, end in runs:
        count = -(-(end - start) // max_size)
        for index in range(count):
            low, high = (start + (end - start) * at // count for at in (index, index + 1))
            requests.append((low, high))
    return requests


@pytest.mark.property
@settings(deadline=None)
@given(RANGES, st.integers(0, 200), st.integers(1, 500), st.sampled_from([1, 1 << 20]))
def test_plans_against_a_naive_oracle(ranges: list[Range], gap: int, max_size: int, many: int) -> None:
    """In the loop that few ranges take, and on the arrays that many take."""
    with patch.object(ranges_module, "_MANY", many):
        check_plan(ranges, gap, max_size)


def check_plan(ranges: list[Range], gap: int, max_size: int) -> None:
    requests = plan_requests(ranges, gap=gap, max_size=max_size)
    assert requests == naive(ranges, gap, max_size)
    assert all(0 < end - start <= max_size for start, end in requests)
    buffers = [CONTENT[start:end] for start, end in requests]
    answers = assemble(ranges, requests, buffers)
    assert [bytes(one) for one in answers] == [bytes(CONTENT[start:end]) for start, end in ranges]
    for (start, end), answer in zip(ranges, answers, strict=True):
        inside = any(low <= start and end <= high for low, high in requests)
        assert np.shares_memory(answer, CONTENT) == (inside and start < end)


def test_numbers_of_the_specification() -> None:
    mib = 1 << 20
    assert plan_requests([(0, 24_576_000)], gap=4096, max_size=16 * mib) == [
        (0, 12_288_000),
        (12_288_000, 24_576_000),
    ]
    rows = [(20480, 24576), (81920, 90112), (245760, 249856)]
    assert plan_requests(rows, gap=65536, max_size=16 * mib) == [(20480, 90112), (245760, 249856)]
    assert plan_requests([(0, 1), (101, 102)], gap=100, max_size=mib) == [(0, 102)]
    assert plan_requests([(0, 1), (102, 103)], gap=100, max_size=mib) == [(0, 1), (102, 103)]
    assert plan_requests([], gap=1, max_size=1) == []
    assert plan_requests([(5, 5), (9, 9)], gap=100, max_size=1) == []


@pytest.mark.parametrize("bad", [(-1, 4), (5, 4)])
@pytest.mark.parametrize("many", [1, 1 << 20])
def test_impossible_ranges(bad: Range, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges_module, "_MANY", many)
    with pytest.raises(InvalidInputError, match="not a range"):
        plan_requests([(0, 3), bad], gap=0, max_size=10)
