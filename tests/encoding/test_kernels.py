"""Kernels: the NumPy twin against the compiled function, and the specification's vectors."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from pilum import jit
from pilum.encoding import kernels
from pilum.encoding.kernels import bitpacking, distance, ranges, variable
from pilum.errors import InvalidInputError

BACKENDS = ["numpy", "numba"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test once with the NumPy twins and once with every kernel compiled."""
    name: str = request.param
    if name == "numpy":
        monkeypatch.setattr(jit, "switched_on", False)
    else:
        if not kernels.enabled() or not kernels.preload():
            pytest.skip("Numba is switched off or missing")
        for kernel in jit._kernels:
            monkeypatch.setattr(kernel, "small", 0)
    return name


@pytest.mark.parametrize(
    ("bits", "width", "digest"),
    [
        (8, 3, "7945d0198a02bc9b"),
        (16, 3, "f949547d2b920f40"),
        (32, 3, "7afe47fcd6854cf9"),
        (64, 3, "1c55f5c97bdf70f5"),
        (8, 5, "993f9b0ef88711b0"),
        (16, 13, "82047b89fbccd81f"),
        (32, 13, "2d44b648a7c7ca02"),
        (64, 13, "03d7087cdcabeeb6"),
    ],
)
def test_fastlanes_vectors(backend: str, bits: int, width: int, digest: str) -> None:
    i = np.arange(1024)
    values = (i % 8 if width == 3 else (37 * i + 11) % 2**width).astype(f"<u{bits // 8}")
    packed, sizes = bitpacking.pack(values.view(np.uint8), np.array([width]), bits)
    assert sizes.tolist() == [128 * width]
    assert hashlib.sha256(packed.tobytes()).hexdigest()[:16] == digest
    unpacked = bitpacking.unpack(packed, np.array([0]), np.array([width]), bits)
    assert np.array_equal(unpacked.view(values.dtype), values)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("lead", [0, 1, 5])
def test_every_width_round_trips(backend: str, bits: int, lead: int) -> None:
    rng = np.random.default_rng(bits + lead)
    widths = rng.permutation(np.concatenate([np.arange(bits + 1), rng.integers(0, bits + 1, 20)]))
    masks = np.array([(1 << int(w)) - 1 for w in widths], np.uint64)
    random = rng.integers(0, 2**64, len(widths) * 1024, dtype=np.uint64, endpoint=False)
    values = (random & np.repeat(masks, 1024)).astype(f"<u{bits // 8}")
    packed, sizes = bitpacking.pack(values.view(np.uint8), widths, bits, header=bits // 8)
    data = np.concatenate([np.zeros(lead, np.uint8), packed])
    starts = lead + np.cumsum(sizes) - sizes + bits // 8
    unpacked = bitpacking.unpack(data, starts, widths, bits)
    assert np.array_equal(unpacked.view(values.dtype), values)
    order = rng.permutation(len(widths))  # a selection of chunks in any order
    unpacked = bitpacking.unpack(data, starts[order], widths[order], bits)
    assert np.array_equal(unpacked.view(values.dtype).reshape(-1, 1024), values.reshape(-1, 1024)[order])


def test_groups_that_share_no_alignment(backend: str) -> None:
    values = np.arange(2048, dtype="<u4") % 512
    packed, _ = bitpacking.pack(values.view(np.uint8), np.array([9, 9]), 32)
    half = len(packed) // 2
    data = np.concatenate([np.zeros(3, np.uint8), packed[:half], np.zeros(2, np.uint8), packed[half:]])
    unpacked = bitpacking.unpack(data, np.array([3, 5 + half]), np.array([9, 9]), 32)
    assert np.array_equal(unpacked.view("<u4"), values)


@pytest.mark.parametrize("count", [0, 1, 5, 1024, 1025, 3000])
@pytest.mark.parametrize("word", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_bit_widths_of_groups(count: int, word: type[np.unsignedinteger[Any]]) -> None:
    values = np.random.default_rng(count).integers(0, np.iinfo(word).max, count, word) >> word(3)
    expected = [
        max((value.bit_length() for value in values[at : at + 1024].tolist()), default=0)
        for at in range(0, count, 1024)
    ]
    found = bitpacking.bit_widths(values)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_bit_length_is_exact_at_every_power_of_two() -> None:
    exponents = np.arange(64)
    powers = np.left_shift(np.uint64(1), exponents.astype(np.uint64))
    assert bitpacking.bit_length(powers).tolist() == (exponents + 1).tolist()
    assert bitpacking.bit_length(powers - np.uint64(1)).tolist() == exponents.tolist()
    assert bitpacking.bit_length(np.array([2**64 - 1], np.uint64)).tolist() == [64]


def test_gather_and_scatter(backend: str) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 10_000, dtype=np.uint8)
    for count, most in [(0, 5), (1, 9), (30, 5), (200, 3), (50, 300)]:
        starts = rng.integers(0, 9000, count)
        sizes = rng.integers(0, most, count)
        expected = b"".join(data[s : s + n].tobytes() for s, n in zip(starts, sizes, strict=True))
        joined = ranges.gather(data, starts, sizes)
        assert joined.tobytes() == expected
        spread = np.zeros(len(expected), np.uint8)
        ranges.scatter(data, starts, sizes, spread, np.cumsum(sizes) - sizes)
        assert spread.tobytes() == expected
    same = ranges.gather(data, np.arange(100) * 7, np.full(100, 5))
    assert same.tobytes() == b"".join(data[7 * i : 7 * i + 5].tobytes() for i in range(100))


def test_gather_of_adjacent_ranges_is_a_view() -> None:
    data = np.arange(100, dtype=np.uint8)
    assert np.shares_memory(ranges.gather(data, np.array([10, 15]), np.array([5, 20])), data)


@pytest.mark.parametrize("width", [4, 8])
def test_join_offsets_finds_a_decrease(backend: str, width: int) -> None:
    words = np.array([12, 15, 20, 12, 13, 12], f"<u{width}")
    out = np.empty(5, np.int32 if width == 4 else np.int64)
    starts, counts, shifts = np.array([0, 3]), np.array([2, 2]), np.array([-12, -4])
    assert not variable.join_offsets(words, starts, counts, shifts, out)
    words[5] = 14
    assert variable.join_offsets(words, starts, counts, shifts, out)
    assert out.tolist() == [0, 3, 8, 9, 10]


def _plan_slowly(sizes: list[int], width: int, target: int, most: int) -> list[int]:
    """Section 4.2, word by word."""
    counts, at = [], 0
    while at < len(sizes):
        left = len(sizes) - at
        count = min(2, left)
        while left > 1:
            doubled = 2 * count
            if doubled > left:
                if sum(sizes[at:]) + (left + 1) * width <= target:
                    count = left
                break
            if sum(sizes[at : at + doubled]) + (doubled + 1) * width > target or 2 * doubled > most:
                break
            count = doubled
        counts.append(count)
        at += count
    return counts


def test_chunk_plan(backend: str) -> None:
    rng = np.random.default_rng(3)
    for size, most in [(1, 10), (2, 5000), (3, 1), (500, 200), (9000, 2), (4096, 0), (300, 6000)]:
        sizes = rng.integers(0, most + 1, size)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        for width in (4, 8):
            plan = variable.plan_chunks(offsets, width, 4096, 4096)
            assert plan.tolist() == _plan_slowly(sizes.tolist(), width, 4096, 4096)
    assert variable.plan_chunks(np.zeros(1, np.int64), 4, 4096, 4096).tolist() == [0]


def _exact(query: Any, matrix: Any, metric: str) -> Any:
    q, m = query.astype(np.float64), matrix.astype(np.float64)
    with np.errstate(all="ignore"):
        if metric == "l2":
            return ((m - q) ** 2).sum(1)
        if metric == "dot":
            return 1 - m @ q
        return 1 - (m @ q) / (np.linalg.norm(m, axis=1) * np.linalg.norm(q))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("metric", distance.METRICS)
@pytest.mark.parametrize("dimension", [1, 7, 128, 200])
def test_distances(backend: str, dtype: Any, metric: str, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    matrix = rng.standard_normal((700, dimension)).astype(dtype)
    query = rng.standard_normal(dimension)
    found = distance.distances(query, matrix, metric)
    expected = _exact(query.astype(np.float32) if dtype != np.float64 else query, matrix, metric)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)
    out = np.empty(700, np.float32)
    assert distance.distances(query, matrix, metric, out) is out


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_distances_of_odd_numbers(backend: str, dtype: Any) -> None:
    matrix = np.ones((4, 8), dtype)
    matrix[0] = 0
    matrix[1, 3] = np.nan
    matrix[2, 3] = np.inf
    query = np.ones(8)
    assert np.isnan(distance.distances(query, matrix, "cosine")).tolist() == [True, True, True, False]
    l2 = distance.distances(query, matrix, "l2")
    assert np.isnan(l2[1])
    assert l2[2] == np.inf
    assert distance.distances(query, matrix, "dot")[2] == -np.inf


def test_every_half_float_is_widened_exactly(backend: str) -> None:
    if backend == "numpy":
        pytest.skip("NumPy widens by itself")
    halves = np.arange(65536, dtype=np.uint16)
    out = np.empty(65536, np.float32)
    widen = distance._WIDEN.load()
    assert widen is not None
    widen(halves, out)
    assert np.array_equal(out, halves.view(np.float16).astype(np.float32), equal_nan=True)


def test_distances_refuse_what_does_not_fit() -> None:
    with pytest.raises(InvalidInputError):
        distance.distances(np.ones(3), np.ones((2, 4), np.float32))
    with pytest.raises(InvalidInputError):
        distance.distances(np.ones(4), np.ones((2, 4), np.int32))
    with pytest.raises(InvalidInputError):
        distance.distances(np.ones(4), np.ones((2, 4), np.float32), "manhattan")


@pytest.mark.parametrize(
    "bounds", [(None, None), (3.0, None), (None, 10.0), (5.0, 20.0), (None, np.inf), (9.0, 9.0)]
)
@pytest.mark.parametrize("k", [1, 10, 100, 3000])
def test_top_k(backend: str, k: int, bounds: tuple[float | None, float | None]) -> None:
    rng = np.random.default_rng(k)
    values = rng.integers(0, 40, 2000).astype(np.float32)  # many ties
    values[rng.random(2000) < 0.1] = np.nan
    values[rng.random(2000) < 0.02] = np.inf
    values[rng.random(2000) < 0.02] = -np.inf
    low, high = bounds
    rows = [
        (float(v), i)
        for i, v in enumerate(values)
        if not np.isnan(v) and (low is None or v >= low) and (high is None or v < high)
    ]
    assert distance.top_k(values, k, low, high).tolist() == [i for _, i in sorted(rows)[:k]]


def test_top_k_of_nothing(backend: str) -> None:
    assert len(distance.top_k(np.empty(0, np.float32), 5)) == 0
    assert len(distance.top_k(np.full(9, np.nan, np.float32), 5)) == 0
    assert len(distance.top_k(np.ones(9, np.float32), 0)) == 0
