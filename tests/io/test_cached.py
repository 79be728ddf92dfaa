"""The cache of immutable files on disk: what is kept, what is found, and what becomes of damage and of full disks."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum.errors import InvalidInputError, NotFoundError, StoreError
from pilum.io import MemoryStore, Store, run, trace
from pilum.io import disk_cache as module
from pilum.io.cached import CachedStore, CacheSettings, is_immutable, with_cache
from pilum.io.cached_piece import DamagedError, piece_size, read_piece, write_piece
from pilum.io.disk_bound import DiskBound
from pilum.io.disk_cache import DiskCache, Extent, cover
from pilum.io.storage_options import cache_settings
from pilum.table.folder_store import folder_of
from pilum.table.naming import data_file_name, deletion_file_path, manifest_path, new_deletion_id
from tests.io.stores import SuspendingStore

DATA = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
FILE = "data/" + data_file_name()
GIB = 1 << 30


class Counting(SuspendingStore):
    """A store behind a network that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.asked: list[tuple[str, int, int | None]] = []

    async def _fetch(self, path: str, start: int, end: int | None) -> Any:
        self.asked.append((path, start, end))
        return await super()._fetch(path, start, end)

    def took(self) -> list[tuple[str, int, int | None]]:
        found, self.asked = self.asked, []
        return found


@pytest.fixture
def inner() -> Counting:
    store = Counting()
    for path in (FILE, "data/by hand.lance", "_versions/1.manifest"):
        run(store.put(path, DATA), suspends=True)
    return store


@pytest.fixture(autouse=True)
def _forget_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has the caches of a fresh process."""
    monkeypatch.setattr(module, "_caches", {})


def opened(inner: Store, tmp_path: Path, capacity: int = GIB) -> CachedStore:
    store = with_cache(inner, CacheSettings(str(tmp_path / "cache"), capacity))
    assert isinstance(store, CachedStore)
    return store


def call(store: Store, name: str, *args: Any, **options: Any) -> Any:
    return run(getattr(store, name)(*args, **options), suspends=True)


def files(tmp_path: Path) -> list[Path]:
    return sorted(one for one in (tmp_path / "cache").rglob("*") if one.is_file() and one.name != "usage")


# -- what is kept ----------------------------------------------------------------------------------------


def test_names_that_never_change() -> None:
    uuid = "0d3c9e60-8f2a-4a2f-9d1b-6a1f6f2b7c11"
    kept = [
        "data/" + data_file_name(),
        "tree/side/data/" + data_file_name(),
        data_file_name(),  # in a base path that is no dataset
        f"data/{uuid}.lance",
        deletion_file_path(3, 7, (1 << 63) + new_deletion_id() % (1 << 63), "arrow"),
        f"_indices/{uuid}/index.idx",
    ]
    changing = [
        manifest_path(1),
        "_versions/latest_version_hint.json",
        f"_transactions/1-{uuid}.txn",
        "_refs/tags/a.json",
        "data/mine.lance",
        "data/0.lance",
        f"data/{uuid}.lance.tmp",
        "_deletions/1-2-3.arrow",
        f"_indices/{uuid}",
    ]
    assert [one for one in kept if not is_immutable(one)] == []
    assert [one for one in changing if is_immutable(one)] == []


def test_what_was_read_is_not_asked_for_again(inner: Counting, tmp_path: Path) -> None:
    reads: list[Callable[[Store], Any]] = [
        lambda store: bytes(call(store, "get", FILE, 1000, 90_000)),
        lambda store: [bytes(one) for one in call(store, "get_ranges", FILE, [(5, 10), (200_000, 299_999), (8, 8), (7, 90)])],
        lambda store: [bytes(one) for one in call(store, "get_many", [(FILE, 0, 10), (FILE, 150_000, 170_000)])],
        lambda store: bytes(call(store, "get_stack", [FILE, FILE], 100, 900).memory[:800]),
        lambda store: [bytes(one) if isinstance(one, np.ndarray) else one for one in call(store, "get_tail", FILE, 500)],
        lambda store: bytes(call(store, "get_tail", FILE, 70_000, size=len(DATA))[0]),
        lambda store: bytes(call(store, "get_all", FILE)),
    ]  # fmt: skip
    for read in reads:
        store = opened(inner, tmp_path)
        expected = read(inner)
        inner.took()
        assert read(store) == expected
        assert inner.took() or read is not reads[0]
        # Another process has nothing but the folder.
        module._caches.clear()
        before = store.stats.cache_hits
        assert read(opened(inner, tmp_path)) == expected
        assert inner.took() == []
        assert store.stats.cache_hits > before
    # All of it is there now, so any range is.
    assert bytes(call(store, "get", FILE, 3, 290_001)) == DATA[3:290_001]
    assert inner.took() == []


def test_the_first_reading_asks_for_what_it_would_without(inner: Counting, tmp_path: Path) -> None:
    ranges = [(0, 10), (3000, 3010), (150_000, 150_100), (290_000, 300_000), (5, 20)]
    call(inner, "get_ranges", FILE, ranges)
    expected = inner.took()
    store = opened(inner, tmp_path)
    call(store, "get_ranges", FILE, ranges)
    assert sorted(inner.took()) == sorted(expected)
    assert store.planned(ranges) == inner.planned(ranges)
    # What is not here is fetched alone.
    assert bytes(call(store, "get", FILE, 149_000, 200_000)) == DATA[149_000:200_000]
    assert inner.took() == [(FILE, 149_000, 200_000)]  # one request, with the 100 bytes between the two gaps
    assert bytes(call(store, "get", FILE, 100_000, 210_000)) == DATA[100_000:210_000]
    assert inner.took() == [(FILE, 100_000, 149_000), (FILE, 200_000, 210_000)]
    # Two gaps that are close are one request, with what lies between them.
    assert bytes(call(store, "get", FILE, 2000, 4000)) == DATA[2000:4000]
    assert inner.took() == [(FILE, 3010, 4000)]  # the first 3010 bytes came in one piece before
    call(store, "get", FILE, 6000, 6010)
    inner.took()
    assert bytes(call(store, "get", FILE, 5000, 7000)) == DATA[5000:7000]
    assert inner.took() == [(FILE, 5000, 7000)]


def test_other_files_go_to_the_store_each_time(inner: Counting, tmp_path: Path) -> None:
    store = opened(inner, tmp_path)
    for path in ("data/by hand.lance", "_versions/1.manifest"):
        for _ in range(2):
            assert bytes(call(store, "get", path, 1, 5)) == DATA[1:5]
            assert bytes(call(store, "get_all", path)) == DATA
            assert bytes(call(store, "get_tail", path, 3)[0]) == DATA[-3:]
            assert [bytes(one) for one in call(store, "get_ranges", path, [(1, 2), (3, 4)])] == [
                DATA[1:2],
                DATA[3:4],
            ]
            mixed = call(store, "get_many", [(path, 0, 2), (FILE, 0, 2)])
            assert [bytes(one) for one in mixed] == [DATA[:2], DATA[:2]]
        assert sum(one[0] == path for one in inner.took()) == 10
    assert len(files(tmp_path)) == 1


def test_the_rest_of_the_contract(inner: Counting, tmp_path: Path) -> None:
    store = opened(inner, tmp_path)
    assert (store.uri, store.suspends, store.block_size) == (inner.uri, True, inner.block_size)
    assert call(store, "head", FILE).size == len(DATA)
    assert [one.path for one in call(store, "list", "data")] == sorted([FILE, "data/by hand.lance"])
    assert call(store, "list_names", "_versions") == ["1.manifest"]
    missing = "data/" + data_file_name()
    for name, *args in (("get", 0, 5), ("get_all",), ("get_tail", 5)):
        with pytest.raises(NotFoundError):
            call(store, name, missing, *args)
    with pytest.raises(StoreError):
        call(store, "get", FILE, 299_999, 300_001)
    with pytest.raises(InvalidInputError):
        call(store, "get", FILE, 5, 3)
    assert len(call(store, "get", FILE, 5, 5)) == 0
    assert call(store, "get_ranges", FILE, []) == []
    branch = folder_of(store, "tree/side")
    name = "data/" + data_file_name()
    call(branch, "put", name, DATA)
    for _ in range(2):
        assert bytes(call(branch, "get_many", [(name, 1, 3)])[0]) == DATA[1:3]
    assert [one for one in inner.took() if name in one[0]] == [(f"tree/side/{name}", 1, 3)]


def test_a_store_without_a_network_has_no_cache(tmp_path: Path) -> None:
    store = MemoryStore()
    assert with_cache(store, CacheSettings(str(tmp_path), 1)) is store
    cached = with_cache(SuspendingStore(store), CacheSettings(str(tmp_path), 1))
    assert with_cache(cached, CacheSettings(str(tmp_path), 1)) is cached
    assert with_cache(cached, None) is cached


def test_a_file_that_is_written_again_after_all(inner: Counting, tmp_path: Path) -> None:
    store = opened(inner, tmp_path)
    for change in (lambda: call(store, "put", FILE, b"other"), lambda: call(store, "delete", FILE)):
        call(store, "get", FILE, 0, 5)
        assert files(tmp_path)
        change()
        assert files(tmp_path) == []
    with pytest.raises(NotFoundError):
        call(store, "get", FILE, 0, 5)


def test_pickled(tmp_path: Path) -> None:
    store = opened(PicklableStore("cached pickles"), tmp_path)
    call(store, "put", FILE, DATA)
    copy = pickle.loads(pickle.dumps(store))
    assert bytes(call(copy, "get", FILE, 3, 9)) == DATA[3:9]
    assert isinstance(copy, CachedStore)
    assert copy.disk.capacity == GIB
    assert not isinstance(copy.inner, CachedStore)


class PicklableStore(SuspendingStore):
    def __init__(self, name: str) -> None:
        super().__init__(MemoryStore(name))
        self.name = name

    def __reduce__(self) -> Any:
        return PicklableStore, (self.name,)


def test_traces_tell_what_the_cache_had(inner: Counting, tmp_path: Path) -> None:
    store = opened(inner, tmp_path)
    call(store, "get", FILE, 0, 1000)
    with trace() as log:
        call(store, "get", FILE, 500, 1500, who="data")
    assert [(one.kind, one.start, one.end, one.who) for one in log.requests if one.kind == "cache"] == [
        ("cache", 500, 1000, "data")
    ]
    assert [(one.start, one.end) for one in log.requests if one.kind == "get"] == [(1000, 1500)]
    assert (store.stats.cache_hits, store.stats.cache_bytes) == (1, 500)
    assert store.stats.read_bytes == 1500


# -- pieces ----------------------------------------------------------------------------------------------


@st.composite
def _ranges(draw: Any) -> list[tuple[int, int]]:
    pairs = draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8))
    return [(low, low + size) for low, size in pairs]


@pytest.mark.property
@given(_ranges(), _ranges())
def test_covering(wanted: list[tuple[int, int]], held: list[tuple[int, int]]) -> None:
    hits, missing = cover(wanted, sorted(Extent(low, high) for low, high in held if low < high))
    here = {at for low, high in held for at in range(low, high)}
    asked = {at for low, high in wanted for at in range(low, high)}
    got = [at for _, (low, high) in hits for at in range(low, high)]
    lacking = [at for low, high in missing for at in range(low, high)]
    assert sorted(got) == sorted(asked & here)
    assert sorted(lacking) == sorted(asked - here)
    assert all(extent.start <= low < high <= extent.end for extent, (low, high) in hits)


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 299_999), st.integers(1, 150_000)), min_size=1, max_size=6), st.data()
)
def test_any_reads_in_any_order(spans: list[tuple[int, int]], data: Any) -> None:
    import tempfile

    ranges = [(low, min(low + size, len(DATA))) for low, size in spans]
    inner = Counting()
    run(inner.put(FILE, DATA), suspends=True)
    with tempfile.TemporaryDirectory() as folder:
        store = CachedStore(inner, CacheSettings(folder, GIB))
        at = 0
        while at < len(ranges):
            some = data.draw(st.integers(1, len(ranges) - at))
            chosen = ranges[at : at + some]
            assert [bytes(one) for one in call(store, "get_ranges", FILE, chosen)] == [
                DATA[a:b] for a, b in chosen
            ]
            at += some
        inner.took()
        assert [bytes(one) for one in call(store, "get_ranges", FILE, ranges)] == [
            DATA[a:b] for a, b in ranges
        ]
        assert inner.took() == []


@pytest.mark.parametrize("length", [1, 65_535, 65_536, 65_537, 200_000])
def test_a_piece_and_every_kind_of_damage(length: int, tmp_path: Path) -> None:
    data = np.frombuffer(DATA[:length], np.uint8)
    path = str(tmp_path / "piece")
    with open(path, "xb") as file:
        write_piece(file, b"d" * 16, 7, data)
    assert os.path.getsize(path) == piece_size(length)
    wanted = [(7 + length // 2, 7 + length), (7, 8)]
    found = read_piece(path, b"d" * 16, 7, 7 + length, wanted)
    assert [bytes(one) for one in found] == [DATA[length // 2 : length], DATA[:1]]
    with pytest.raises(DamagedError, match="another piece"):
        read_piece(path, b"e" * 16, 7, 7 + length, wanted)
    with pytest.raises(DamagedError, match="another piece"):
        read_piece(path, b"d" * 16, 8, 8 + length, wanted)
    whole = Path(path).read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        Path(path).write_bytes(whole[:cut])
        with pytest.raises(DamagedError):
            read_piece(path, b"d" * 16, 7, 7 + length, [(7, 7 + length)])
    for at in {0, 9, 25, 33, 41, len(whole) - length - 1, len(whole) - length, len(whole) - 1}:
        spoiled = bytearray(whole)
        spoiled[at] ^= 4
        Path(path).write_bytes(spoiled)
        with pytest.raises(DamagedError):
            read_piece(path, b"d" * 16, 7, 7 + length, [(7, 7 + length)])


@pytest.mark.fault
def test_damage_is_found_out_and_fetched_again(
    inner: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for spoil in (
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: data[:-9] + b"123456789",
        lambda _: b"",
    ):
        store = opened(inner, tmp_path)
        call(store, "get", FILE, 0, 200_000)
        (path,) = files(tmp_path)
        path.write_bytes(spoil(path.read_bytes()))
        inner.took()
        caplog.clear()
        assert bytes(call(store, "get", FILE, 100_000, 200_000)) == DATA[100_000:200_000]
        assert inner.took() == [(FILE, 100_000, 200_000)]
        assert "it is fetched again" in caplog.text
        assert not path.exists()
        call(store, "get", FILE, 0, 200_000)
        assert bytes(call(store, "get", FILE, 0, 200_000)) == DATA[:200_000]
        assert [one[1:] for one in inner.took()] == [(0, 100_000)]
        store.disk.forget([f"{store.uri}/{FILE}"])


def test_other_files_in_the_folder_are_left_alone(inner: Counting, tmp_path: Path) -> None:
    store = opened(inner, tmp_path)
    call(store, "get", FILE, 0, 10)
    (path,) = files(tmp_path)
    for name in ("0-10.old", "5-3", "00-a", "readme", "-", ".writing"):
        (path.parent / name).write_bytes(b"?")
    assert bytes(call(store, "get", FILE, 0, 16)) == DATA[:16]


# -- bounds ----------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    disk = DiskCache(str(tmp_path / "cache"), 64 << 10)
    piece = np.frombuffer(DATA[:4000], np.uint8)  # a page each
    now = time.time() - 10_000
    for number in range(16):
        disk.write(f"key {number}", [(0, piece)])
    assert disk.nbytes() == 64 << 10
    for number in range(16):
        (path,) = (
            one
            for one in files(tmp_path)
            if one.parent == Path(disk._folder(module._digest(f"key {number}")))
        )
        os.utime(path, (now + number, now + number))
    assert disk.read("key 0", [(0, 10)]).buffers  # used just now
    disk.write("more", [(0, piece)])
    left = [number for number in range(16) if disk.read(f"key {number}", [(0, 10)]).buffers]
    assert left == [0, *range(4, 16)]
    assert disk.read("more", [(0, 10)]).buffers
    assert disk.nbytes() <= 64 << 10
    # Folders of what went are gone, too.
    assert len(list((tmp_path / "cache" / "v1").glob("*/*"))) == 14


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    disk = DiskCache(str(tmp_path / "cache"), 64 << 10)
    disk.write("small", [(0, np.frombuffer(DATA[:4000], np.uint8))])
    disk.write("large", [(0, np.frombuffer(DATA, np.uint8))])
    assert disk.read("small", [(0, 10)]).buffers
    assert disk.read("large", [(0, 10)]).missing == [(0, 10)]


def test_a_smaller_bound_and_a_lost_count(tmp_path: Path) -> None:
    piece = np.frombuffer(DATA[:40_000], np.uint8)
    large = DiskCache(str(tmp_path / "cache"), GIB)
    for number in range(20):
        large.write(f"key {number}", [(0, piece)])
    assert large.nbytes() > 600_000
    DiskCache(str(tmp_path / "cache"), 400_000).write("more", [(0, piece)])
    assert large.nbytes() <= 400_000
    (tmp_path / "cache" / "v1" / "usage").unlink()
    DiskCache(str(tmp_path / "cache"), 200_000).write("again", [(0, piece)])
    assert large.nbytes() <= 200_000
    # What a killed writer left goes when it is old.
    left = next(one for one in files(tmp_path)).parent / ".killed"
    left.write_bytes(bytes(100_000))
    os.utime(left, (1, 1))
    DiskCache(str(tmp_path / "cache"), 100_000).write("again", [(9, piece)])
    assert not left.exists()


WRITER = """
import sys
import numpy as np
from pilum.io.disk_bound import DiskBound
from pilum.io.disk_cache import DiskCache
disk = DiskCache(sys.argv[1], 2_000_000)
piece = np.full(50_000, int(sys.argv[2]), np.uint8)
most = 0
for number in range(80):
    disk.write(f"key {sys.argv[2]} {number}", [(0, piece)])
    if number % 20 == 0:
        most = max(most, disk.nbytes())
    for other in range(4):
        found = disk.read(f"key {other} {number}", [(100, 200)])
        assert all((one == other).all() for one in found.buffers)
print(most)
"""


def test_the_first_writers_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = DiskCache(str(tmp_path / "cache"), GIB)
    looking = DiskBound._make_room

    def slow(self: DiskBound) -> None:
        time.sleep(0.1)
        looking(self)

    monkeypatch.setattr(DiskBound, "_make_room", slow)
    piece = np.frombuffer(DATA[:40_000], np.uint8)
    threads = [
        threading.Thread(target=disk.write, args=(f"key {number}", [(0, piece)])) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(disk.read(f"key {number}", [(0, 40_000)]).missing for number in range(8))
    assert os.path.getsize(tmp_path / "cache" / "v1" / "usage") * 4096 >= disk.nbytes()


def test_processes_share_one_bound(tmp_path: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "cache"), str(number)],
                         stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]  # fmt: skip
    most = [int(one.communicate(timeout=120)[0]) for one in running]
    assert [one.returncode for one in running] == [0, 0, 0]
    assert 1_000_000 < max(most) <= 2_000_000
    assert 1_000_000 < DiskCache(str(tmp_path / "cache"), 1).nbytes() <= 2_000_000
    assert not [one for one in files(tmp_path) if one.name.startswith(".")]


KILLED = """
import itertools, sys
import numpy as np
from pilum.io.disk_bound import DiskBound
from pilum.io.disk_cache import DiskCache
disk = DiskCache(sys.argv[1], 3_000_000)
print("begun", flush=True)
for number in itertools.count():
    disk.write(f"key {number % 200}", [(7, np.full(100_000, number % 200, np.uint8))])
"""


@pytest.mark.fault
def test_writers_that_are_killed(tmp_path: Path) -> None:
    held = 0
    for turn in range(4):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "cache")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            assert running.stdout.readline()
            time.sleep(0.05 + 0.06 * turn)
            running.kill()
        disk = DiskCache(str(tmp_path / "cache"), 3_000_000)
        for number in range(200):
            found = disk.read(f"key {number}", [(7, 100_007)])
            assert found.missing or (found.buffers[0] == number).all()
            held += not found.missing
        assert disk.nbytes() <= 3_000_000
    assert held > 0


@pytest.mark.fault
def test_one_that_was_killed_while_it_made_room(tmp_path: Path) -> None:
    disk = DiskCache(str(tmp_path / "cache"), 100_000)
    piece = np.frombuffer(DATA[:40_000], np.uint8)
    disk.write("a", [(0, piece)])
    disk.write("b", [(0, piece)])
    busy = tmp_path / "cache" / "v1" / "busy"
    busy.write_bytes(b"")
    disk.write("c", [(0, piece)])
    assert disk.read("c", [(0, 9)]).missing  # somebody is at it
    assert disk.nbytes() <= 100_000
    started = time.monotonic()
    for _ in range(100):
        disk.write("c", [(0, piece)])  # does not wait again
    assert disk._paused > started
    disk._paused = 0.0
    os.utime(busy, (1, 1))
    disk.write("c", [(0, piece)])
    assert disk.read("c", [(0, 9)]).buffers
    assert not busy.exists()
    assert disk.nbytes() <= 100_000


def test_a_read_that_is_cancelled(inner: Counting, tmp_path: Path) -> None:
    inner.delay = 30.0
    store = opened(inner, tmp_path)

    async def main() -> None:
        task = asyncio.ensure_future(store.get_ranges(FILE, [(0, 10), (100_000, 100_010)]))
        while len(inner.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert inner.in_flight == 0
        inner.delay = 0.0
        assert bytes(await store.get(FILE, 5, 10)) == DATA[5:10]

    asyncio.run(main())


# -- disks that refuse -----------------------------------------------------------------------------------


@pytest.mark.fault
@pytest.mark.parametrize("what", ["full", "read-only", "a file", "while writing"])
def test_a_disk_that_refuses_is_passed_over(
    what: str,
    inner: Counting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = opened(inner, tmp_path)
    if what == "a file":
        (tmp_path / "cache").write_bytes(b"")
    elif what == "while writing":

        def write(file: Any, *_: Any) -> None:
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_piece", write)
    else:
        error = (
            OSError(28, "No space left on device") if what == "full" else OSError(30, "Read-only file system")
        )

        def refuse(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(module.os, "makedirs", refuse)
    for _ in range(3):
        assert bytes(call(store, "get", FILE, 0, 1000)) == DATA[:1000]
        assert bytes(call(store, "get_all", FILE)) == DATA
        store.disk._paused = 0.0  # a minute has passed
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert str(tmp_path / "cache") in warnings[0].getMessage()
    assert files(tmp_path) == []
    assert len(inner.took()) == 6


@pytest.mark.fault
def test_a_disk_that_became_read_only_goes_on_to_serve(
    inner: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(inner, tmp_path)
    call(store, "get", FILE, 0, 50_000)
    (path,) = files(tmp_path)
    os.utime(path, (1, 1))  # so that its use is to be noted

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(DiskCache, "_create", refuse)
    monkeypatch.setattr(module.os, "utime", refuse)
    monkeypatch.setattr(module.os, "unlink", refuse)
    inner.took()
    for _ in range(2):
        assert bytes(call(store, "get", FILE, 10, 40_000)) == DATA[10:40_000]
    assert inner.took() == []
    assert caplog.records == []
    for _ in range(2):
        assert bytes(call(store, "get", FILE, 10, 60_000)) == DATA[10:60_000]
    assert inner.took() == [(FILE, 50_000, 60_000)] * 2
    assert len(caplog.records) == 1


@pytest.mark.fault
def test_nothing_is_written_for_a_while_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = DiskCache(str(tmp_path / "cache"), GIB)
    attempts = []

    def refuse(*_: Any, **__: Any) -> None:
        attempts.append(1)
        raise OSError(28, "No space left on device")

    piece = np.frombuffer(DATA, np.uint8)
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_piece", refuse)
        for _ in range(3):
            disk.write("a", [(0, piece)])
    assert len(attempts) == 1
    disk.write("a", [(0, piece)])
    assert disk.read("a", [(0, 1)]).missing
    disk._paused = 0.0
    disk.write("a", [(0, piece)])
    assert disk.read("a", [(0, 1)]).buffers


@pytest.mark.fault
def test_files_that_cannot_be_removed_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = DiskCache(str(tmp_path / "cache"), 200_000)
    piece = np.frombuffer(DATA[:60_000], np.uint8)

    def refuse(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(module.os, "unlink", refuse)
    for number in range(6):
        disk.write(f"key {number}", [(0, piece)])
        disk._paused = 0.0
    assert disk.nbytes() <= 200_000
    assert len(caplog.records) == 1


# -- threads and forks -----------------------------------------------------------------------------------


def test_the_loop_is_not_held(inner: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    for name in ("read", "write", "read_many", "read_tail", "forget"):
        original = getattr(DiskCache, name)

        def watched(self: Any, *args: Any, original: Any = original) -> Any:
            seen.add(threading.get_ident())
            return original(self, *args)

        monkeypatch.setattr(DiskCache, name, watched)

    async def main() -> int:
        store = opened(inner, tmp_path)
        await asyncio.gather(*[store.get(FILE, at, at + 5000) for at in range(0, 100_000, 5000)])
        await store.get_many([(FILE, 0, 5), (FILE, 0, 250_000)])
        await store.get_all(FILE)
        await store.delete(FILE)
        return threading.get_ident()

    assert asyncio.run(main()) not in seen
    assert seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_fork_reads_and_writes(inner: Counting, tmp_path: Path) -> None:
    store = opened(inner, tmp_path)
    call(store, "get", FILE, 0, 1000)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            good = bytes(call(store, "get", FILE, 10, 20)) == DATA[10:20]
            good &= bytes(call(store, "get", FILE, 5000, 6000)) == DATA[5000:6000]
            status = 0 if good else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    inner.took()
    assert bytes(call(store, "get", FILE, 5500, 6000)) == DATA[5500:6000]
    assert inner.took() == []


# -- options ---------------------------------------------------------------------------------------------


def test_options(tmp_path: Path) -> None:
    assert cache_settings(None) is None
    assert cache_settings({"aws_region": "r"}) is None
    assert cache_settings({"cache_dir": ""}) is None
    assert cache_settings({"cache_dir": "/c", "cache_bytes": 0}) is None
    assert cache_settings({"Cache_Dir": tmp_path}) == (str(tmp_path), 10 << 30)
    for text, size in (
        ("1000", 1000),
        (1000, 1000),
        ("2kB", 2000),
        ("1.5 GiB", 3 << 29),
        ("1m", 10**6),
        ("1T", 10**12),
    ):
        assert cache_settings({"cache_dir": "/c", "cache_bytes": text}) == ("/c", size)
    for text in ("much", "-1", "", "5 miles"):
        with pytest.raises(InvalidInputError, match="cache_bytes"):
            cache_settings({"cache_dir": "/c", "cache_bytes": text})
