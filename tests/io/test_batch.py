"""Reading ranges of many files in one go: the same bytes and the same errors as one by one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from pilum import jit
from pilum.errors import NotFoundError, StoreError
from pilum.io import LocalStore, MemoryStore, Store, run, trace
from pilum.io.batch import _KERNEL


@pytest.fixture(params=["compiled", "plain", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with the objects ``a0`` … ``a39``, object k holding 1000 + k bytes of value k."""
    if request.param == "compiled" and (not jit.enabled() or _KERNEL.load() is None):
        pytest.skip("Numba is not available")
    monkeypatch.setattr(_KERNEL, "small", 1 if request.param == "compiled" else 1 << 60)
    store: Store = MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "ä folder")
    for k in range(40):
        run(store.put(f"a{k}", bytes([k]) * (1000 + k)), suspends=False)
    return store


def get_many(store: Store, requests: list[tuple[str, int, int]]) -> list[Any]:
    return run(store.get_many(requests), suspends=False)


def test_ranges_of_many_objects_come_in_the_order_asked_for(store: Store) -> None:
    rng = random.Random(3)
    requests = []
    for _ in range(100):
        k = rng.randrange(40)
        start = rng.randrange(1000)
        requests.append((f"a{k}", start, rng.randrange(start, 1000 + k) + 1))
    found = get_many(store, requests)
    for (path, start, end), piece in zip(requests, found, strict=True):
        assert bytes(piece) == bytes([int(path[1:])]) * (end - start)
    assert get_many(store, []) == []


def test_empty_ranges(store: Store) -> None:
    assert [bytes(piece) for piece in get_many(store, [("a1", 5, 5), ("a2", 0, 2)])] == [b"", b"\2\2"]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (("nope", 0, 10), NotFoundError, "nope"),
        (("a3", 0, 2000), StoreError, "a3"),
        (("a3", 5000, 5001), StoreError, "a3"),
        (("a3", -1, 4), Exception, "a3"),
        (("a3\0x", 0, 4), Exception, None),
        (("../a3", 0, 4), Exception, "a3"),
    ],
)
def test_errors_are_those_of_a_single_read(
    store: Store, bad: tuple[str, int, int], error: type[Exception], message: str | None
) -> None:
    with pytest.raises(error, match=message):
        get_many(store, [("a1", 0, 10), bad, ("a2", 0, 10)])


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    os.mkdir(tmp_path / "folder")
    run(store.put("a", b"xyz"), suspends=False)
    with pytest.raises(OSError, match="folder"):
        get_many(store, [("a", 0, 1), ("folder", 0, 1)])


def test_counted_and_traced(store: Store) -> None:
    requests = [("a1", 0, 10), ("a2", 5, 10), ("a3", 0, 1)]
    store.stats.incremental()
    get_many(store, requests)
    counts = store.stats.incremental()
    assert (counts.read_iops, counts.read_bytes) == (3, 16)
    with trace() as log:
        get_many(store, requests)
    assert [(one.path, one.start, one.end) for one in log.requests] == requests


def get_stack(store: Store, paths: list[str], start: int, end: int) -> list[bytes]:
    stack = run(store.get_stack(paths, start, end), suspends=False)
    pieces = [bytes(stack.piece(number)) for number in range(len(paths))]
    assert [bytes(row) for row in stack.matrix()] == pieces
    return pieces


@pytest.mark.parametrize(("start", "end"), [(0, 1000), (7, 8), (64, 999)])
def test_the_same_range_of_many_objects(store: Store, start: int, end: int) -> None:
    paths = [f"a{k}" for k in (3, 0, 39, 3)]
    store.stats.incremental()
    assert get_stack(store, paths, start, end) == [bytes([k]) * (end - start) for k in (3, 0, 39, 3)]
    counts = store.stats.incremental()
    assert (counts.read_iops, counts.read_bytes) == (4, 4 * (end - start))
    with trace() as log:
        get_stack(store, paths, start, end)
    assert [(one.path, one.start, one.end) for one in log.requests] == [(p, start, end) for p in paths]


@pytest.mark.parametrize(
    ("bad", "error", "end"),
    [
        ("nope", NotFoundError, 10),
        ("a0", StoreError, 1001),
        ("a3\0x", Exception, 10),
        ("../a3", Exception, 10),
    ],
)
def test_errors_of_the_same_range(store: Store, bad: str, error: type[Exception], end: int) -> None:
    with pytest.raises(error):
        get_stack(store, ["a1", bad, "a2"], 0, end)
