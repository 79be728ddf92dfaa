"""Fragments that are alike are searched together: the same rows as one by one, whatever is different in one of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum import jit
from pilum.errors import PilumError
from pilum.io import trace
from pilum.io.batch import _KERNEL
from pilum.query import search

ROWS, DIMENSION, FRAGMENTS = 60, 64, 12


@pytest.fixture(autouse=True, params=["compiled", "plain"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "compiled" and (not jit.enabled() or _KERNEL.load() is None):
        pytest.skip("Numba is not available")
    monkeypatch.setattr(_KERNEL, "small", 1 if request.param == "compiled" else 1 << 60)


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((ROWS * FRAGMENTS, DIMENSION)).astype(np.float32)


def write(path: Path, vectors: np.ndarray, nulls: list[int] | None = None, **options: Any) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    if nulls:
        mask = np.zeros(len(vectors), bool)
        mask[nulls] = True
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.ravel()), vectors.shape[1], mask=pa.array(mask)
        )
    table = pa.table({"id": np.arange(len(vectors), dtype=np.int32), "vec": column})
    pilum.write_dataset(table, path, max_rows_per_file=ROWS, **options)


def nearest(ds: pilum.LanceDataset, query: np.ndarray, k: int = 15, **options: Any) -> tuple[list[int], Any]:
    found = ds.to_table(columns=["id"], nearest={"column": "vec", "q": query, "k": k}, **options)
    return found["id"].to_pylist(), found["_distance"].to_numpy()


def expected(vectors: np.ndarray, query: np.ndarray, keep: np.ndarray, k: int = 15) -> tuple[list[int], Any]:
    distances = ((vectors.astype(np.float64) - query) ** 2).sum(axis=1)
    distances[~keep] = np.inf
    order = np.argsort(distances, kind="stable")[:k]
    return order.tolist(), distances[order]


def check(ds: pilum.LanceDataset, vectors: np.ndarray, keep: np.ndarray | None = None) -> None:
    keep = np.ones(len(vectors), bool) if keep is None else keep
    for seed in (3, 4):
        query = vectors[seed * 50] + 0.01
        for _ in range(2):
            ids, distances = nearest(ds, query)
            assert ids == expected(vectors, query, keep)[0]
            np.testing.assert_allclose(distances, expected(vectors, query, keep)[1], rtol=1e-4)


def runs(ds: pilum.LanceDataset, query: np.ndarray) -> list[tuple[int, bool]]:
    plan = ds.scanner(nearest={"column": "vec", "q": query, "k": 1}).aio._plan
    return [(len(run.units), bool(run.paths)) for item in search.search_groups(plan) for run in item.runs]


def test_equal_fragments_are_read_together_whole_first_then_their_values(
    tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "t.lance", vectors)
    ds = pilum.dataset(tmp_path / "t.lance")
    assert runs(ds, vectors[0]) == [(FRAGMENTS, True)]
    monkeypatch.setattr(search, "open_fragments", None)  # not needed
    query = vectors[5]
    sizes = []
    for _ in range(2):
        with trace() as log:
            assert nearest(ds, query)[0][0] == 5
        vectors_read = [one for one in log.requests if one.who in ("file", "data")][:FRAGMENTS]
        assert len({one.path for one in vectors_read}) == FRAGMENTS
        # The rows of the result are taken from files whose metadata is known.
        assert not [one for one in log.requests if one.who == "footer"]
        sizes.append({one.end - one.start for one in vectors_read})
    assert sizes[1] == {ROWS * DIMENSION * 4}
    assert min(sizes[0]) > ROWS * DIMENSION * 4
    check(ds, vectors)


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_fragments_that_differ(tmp_path: Path, vectors: np.ndarray, version: str) -> None:
    path = tmp_path / "t.lance"
    write(path, vectors, data_storage_version=version)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors[:30].ravel()), DIMENSION)
    # Another length, other ids, then the first kind again.
    more = pa.table({"id": np.arange(30, dtype=np.int32) * 1000 + 10_000, "vec": column})
    pilum.write_dataset(more, path, mode="append")
    write_again = pa.table(
        {
            "id": np.arange(ROWS, dtype=np.int32) + 100_000,
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors[:ROWS].ravel() + 5), DIMENSION),
        }
    )
    ds = pilum.write_dataset(write_again, path, mode="append")
    both = np.concatenate([vectors, vectors[:30], vectors[:ROWS] + 5])
    ids = np.concatenate([np.arange(len(vectors)), np.arange(30) * 1000 + 10_000, np.arange(ROWS) + 100_000])
    for row in (7, 333, len(both) - 9):
        got = nearest(ds, both[row], k=2)[0]
        want, _ = expected(both, both[row], np.ones(len(both), bool), k=2)
        assert got == ids[want].tolist()


def test_deletions_filters_and_nulls(tmp_path: Path, vectors: np.ndarray) -> None:
    path = tmp_path / "t.lance"
    write(path, vectors)
    ds = pilum.dataset(path)
    ds.delete("id % 7 = 0")
    keep = np.arange(len(vectors)) % 7 != 0
    check(ds, vectors, keep)
    query = vectors[8]
    keep &= np.arange(len(vectors)) >= 100
    got, _ = nearest(pilum.dataset(path), query, filter="id >= 100", prefilter=True)
    assert got == expected(vectors, query, keep)[0]

    write(tmp_path / "nulls.lance", vectors, nulls=[3, 200, 201])
    ds = pilum.dataset(tmp_path / "nulls.lance")
    keep = np.ones(len(vectors), bool)
    keep[[3, 200, 201]] = False
    check(ds, vectors, keep)
    assert 200 not in nearest(ds, vectors[200], k=len(vectors))[0]


def test_a_session_finds_the_fragments_again(tmp_path: Path, vectors: np.ndarray) -> None:
    write(tmp_path / "t.lance", vectors)
    session = pilum.Session()
    for _ in range(2):
        ds = pilum.dataset(tmp_path / "t.lance", session=session)
        check(ds, vectors)
        assert ds.to_table()["id"].to_pylist() == list(range(len(vectors)))


def test_the_request_plan_says_what_is_read(tmp_path: Path, vectors: np.ndarray) -> None:
    write(tmp_path / "t.lance", vectors)
    ds = pilum.dataset(tmp_path / "t.lance")
    for _ in range(2):
        scanner = ds.scanner(columns=[], nearest={"column": "vec", "q": vectors[0], "k": 3})
        planned = scanner.request_plan()
        with trace() as log:
            scanner.to_table()
        assert planned.exact
        assert planned.nbytes == sum(one.end - one.start for one in log.requests)
        assert planned.requests == len(log.requests)


def test_damage_in_one_of_them(tmp_path: Path, vectors: np.ndarray) -> None:
    """A bit flipped anywhere in the closing bytes of one file: an error, or the rows of that file as they are."""
    source = tmp_path / "t.lance"
    write(source, vectors)
    rng = np.random.default_rng(2)
    names = sorted(file.name for file in (source / "data").iterdir())
    size = (source / "data" / names[0]).stat().st_size
    begin = size - ROWS * DIMENSION * 4 // 8
    refused = []
    for number in range(40):
        copy = tmp_path / f"copy{number}.lance"
        shutil.copytree(source, copy)
        victim = copy / "data" / names[number % len(names)]
        data = bytearray(victim.read_bytes())
        at = int(rng.integers(begin, size)) if number % 2 else size - 1 - int(rng.integers(600))
        data[at] ^= 1 << int(rng.integers(8))
        victim.write_bytes(bytes(data))
        ds = pilum.dataset(copy)
        try:
            ids, _ = nearest(ds, vectors[77])
        except (PilumError, OSError) as error:
            refused.append(victim.name in str(error))
        else:
            assert 77 in ids or victim.name in {file.path for file in ds.get_fragment(1).metadata.files}
        shutil.rmtree(copy)
    assert len(refused) > 5
    assert all(refused)
