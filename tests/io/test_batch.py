"""Reading ranges of many files in one go: the same bytes and the same errors as one by one."""

from __future__ import annotations

import ctypes
import os
import random
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilum import jit
from pilum.errors import NotFoundError, StoreError
from pilum.io import LocalStore, MemoryStore, Store, batch, run, trace
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


class Disk:
    """The functions of the C library that the loops call, and a clock: a read takes 10 µs, or a millisecond of what
    nobody has asked for before."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.now = 0
        self.asked: list[tuple[str, int, int]] = []
        for name in ("c_open", "c_pread", "c_close", "c_fadvise", "c_clock"):
            monkeypatch.setattr(batch, name, getattr(self, name), raising=True)

    def c_open(self, name: int, flags: int) -> int:
        try:
            return os.open(self.folder / ctypes.string_at(int(name)).decode(), flags)
        except OSError:
            return -1

    def c_pread(self, descriptor: int, address: int, size: int, offset: int) -> int:
        data = os.pread(descriptor, size, offset)
        ctypes.memmove(int(address), data, len(data))
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.now += 10_000 if (name, offset, size) in self.asked else 1_000_000
        return len(data)

    def c_close(self, descriptor: int) -> int:
        os.close(descriptor)
        return 0

    def c_fadvise(self, descriptor: int, offset: int, size: int, advice: int) -> int:
        assert advice == os.POSIX_FADV_WILLNEED
        self.asked.append((os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")), offset, size))
        return 0

    def c_clock(self, clock: int, address: int) -> int:
        assert clock == time.CLOCK_MONOTONIC
        ctypes.memmove(int(address), struct.pack("<qq", *divmod(self.now, 1_000_000_000)), 16)
        return 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    for k in range(5):
        (tmp_path / f"f{k}").write_bytes(bytes([k]) * 400_000)
    return Disk(tmp_path, monkeypatch)


def test_after_one_wait_for_the_disk_the_other_ranges_are_asked_for_at_once(disk: Disk) -> None:
    descriptor = os.open(disk.folder / "f3", os.O_RDONLY)
    spans = np.array([(0, 10), (1000, 1020), (5000, 205_000), (50_000, 50_030)])
    out = np.zeros(200_060, np.uint8)
    assert batch.read_pieces_numba(descriptor, spans, 1, out, np.empty(2, np.int64)) == 1
    os.close(descriptor)
    assert (out == 3).all()
    assert disk.asked == [
        ("f3", 1000, 20),
        ("f3", 50_000, 30),
    ]  # of long ranges the system reads ahead by itself
    assert disk.now < 2_100_000


def test_after_one_wait_for_the_disk_the_other_files_are_asked_for_at_once(disk: Disk) -> None:
    names = np.frombuffer(b"f1\0f2\0nope\0f4\0", np.uint8)
    sizes, got = np.full(4, 100), np.empty(4, np.int64)
    out, targets = np.zeros(400, np.uint8), np.arange(0, 400, 100)
    before = len(os.listdir("/proc/self/fd"))
    batch.read_files_numba(
        names, np.array([0, 3, 6, 11]), np.zeros(4, np.int64), sizes, out, targets, got, np.empty(2, np.int64)
    )
    assert got.tolist() == [100, 100, -1, 100]
    assert out.reshape(4, 100)[:, 0].tolist() == [1, 2, 0, 4]
    assert disk.asked == [("f2", 0, 100), ("f4", 0, 100)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_that_are_not_in_memory(tmp_path: Path) -> None:
    if not jit.enabled() or _KERNEL.load() is None:
        pytest.skip("Numba is not available")
    paths = []
    for k in range(30):
        (tmp_path / f"f{k}").write_bytes(bytes([k]) * 100_000)
        paths.append(os.fsencode(tmp_path / f"f{k}"))
        descriptor = os.open(paths[-1], os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    found = batch.read_files(paths, list(range(30)), [90_000] * 30)
    assert found is not None
    assert [bytes(piece) for piece in found if piece is not None] == [bytes([k]) * 90_000 for k in range(30)]
