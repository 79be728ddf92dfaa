"""The contract of a store, the same for all: local, in memory, and through a store that suspends."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilum.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StoreError, UnsupportedError
from pilum.io import LocalStore, MemoryStore, ObjectInfo, Store, durable, run, store_for, trace
from tests.io.stores import FailingStore, SuspendingStore

Call = Callable[..., Any]
DATA = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()


@pytest.fixture(params=["local", "memory", "suspending"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "new" / "folder")
    if request.param == "memory":
        return MemoryStore()
    return SuspendingStore(MemoryStore())


@pytest.fixture
def call(store: Store) -> Call:
    """``call("get", ...)`` runs a method to its end."""
    return lambda name, *args, **options: run(getattr(store, name)(*args, **options), suspends=store.suspends)


def test_reading(call: Call) -> None:
    call("put", "a/b", DATA)
    assert bytes(call("get", "a/b", 10, 90)) == DATA[10:90]
    assert bytes(call("get", "a/b", 0, len(DATA))) == DATA
    assert bytes(call("get_all", "a/b")) == DATA
    assert call("head", "a/b") == ObjectInfo("a/b", len(DATA))
    for nbytes in (0, 1, 40, len(DATA), len(DATA) + 5):
        for size in (None, len(DATA)):
            tail, found = call("get_tail", "a/b", nbytes, size=size)
            assert (bytes(tail), found) == (DATA[max(0, len(DATA) - nbytes) :], len(DATA))
    got = call("get", "a/b", 5, 50)
    assert got.dtype == np.uint8
    assert got.ndim == 1
    assert got.flags.c_contiguous


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [(7, 7)],
        [(0, 10)],
        [(50, 60), (0, 10), (20, 20), (5, 55)],
        [(90_000, 100_000), (0, 10), (50_000, 50_100), (0, 10)],
        [(index * 200, index * 200 + 50) for index in range(500)],
    ],
)
def test_reading_ranges(call: Call, store: Store, ranges: list[tuple[int, int]]) -> None:
    call("put", "x", DATA)
    assert [bytes(one) for one in call("get_ranges", "x", ranges)] == [
        DATA[start:end] for start, end in ranges
    ]


def test_requests_of_the_size_limit(
    call: Call, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANCE_MAX_IOP_SIZE", "30000")
    call("put", "x", DATA)
    store.stats.incremental()
    got = call("get_ranges", "x", [(0, 60_000), (60_000, 90_000), (99_000, 99_010)])
    assert [bytes(one) for one in got] == [DATA[:60_000], DATA[60_000:90_000], DATA[99_000:99_010]]
    assert store.stats.read_iops == {"MemoryStore": 3}.get(type(store).__name__, 4)


def test_empty_objects_and_ranges(call: Call, store: Store) -> None:
    call("put", "empty", b"")
    assert call("head", "empty").size == 0
    assert len(call("get_all", "empty")) == 0
    tail, size = call("get_tail", "empty", 10)
    assert (len(tail), size) == (0, 0)
    before = store.stats.snapshot()
    assert len(call("get", "missing", 3, 3)) == 0  # no request is made, so nobody notices
    assert store.stats.snapshot() == before


def test_missing_objects(call: Call) -> None:
    call("put", "there/file", b"x")
    for path in ("missing", "there", "there/file/below", "other/missing"):
        for name, args in [
            ("get", (0, 1)),
            ("get_all", ()),
            ("get_tail", (4,)),
            ("head", ()),
            ("delete", ()),
        ]:
            if (name, path) == ("delete", "there"):
                continue
            with pytest.raises(NotFoundError, match=path):
                call(name, path, *args)
        with pytest.raises(NotFoundError, match=path):
            call("get_ranges", path, [(0, 1), (90_000, 90_001)])


def test_short_objects(call: Call) -> None:
    call("put", "short", DATA[:100])
    for start, end, got in [
        (90, 101, 10),
        (100, 101, 0),
        (200, 300, 0),
        (0, 1 << 50, 100),
        (1 << 62, (1 << 62) + 4, 0),
    ]:
        with pytest.raises(StoreError, match=rf"short: asked for bytes {start}\.\.{end}, got {got} of"):
            call("get", "short", start, end)
    with pytest.raises(StoreError, match="got 0 of"):
        call("get", "short", 1 << 70, (1 << 70) + 4)
    with pytest.raises(StoreError, match="short"):
        call("get_tail", "short", 10, size=101)
    with pytest.raises(StoreError, match="short"):
        call("get_ranges", "short", [(0, 4), (98, 200)])


def test_impossible_ranges(call: Call) -> None:
    call("put", "x", DATA)
    for start, end in [(5, 4), (-1, 4), (-5, -1)]:
        with pytest.raises(InvalidInputError, match="not a range"):
            call("get", "x", start, end)
        with pytest.raises(InvalidInputError, match="not a range"):
            call("get_ranges", "x", [(0, 1), (start, end)])
    with pytest.raises(InvalidInputError, match="not a range"):
        call("get_tail", "x", -3)


def test_listing(call: Call) -> None:
    assert call("list", "") == []
    assert call("list", "data") == []
    for path in ("data/b", "data/a/z", "data/a/y", "database", "top"):
        call("put", path, path.encode())
    assert [one.path for one in call("list", "")] == ["data/a/y", "data/a/z", "data/b", "database", "top"]
    assert call("list", "data") == [
        ObjectInfo("data/a/y", 8),
        ObjectInfo("data/a/z", 8),
        ObjectInfo("data/b", 6),
    ]
    assert call("list", "data/a/") == call("list", "data")[:2]
    assert call("list", "dat") == []
    call("delete", "data/b")
    assert [one.path for one in call("list", "data")] == ["data/a/y", "data/a/z"]


def test_put_replaces_unless_told_not_to(call: Call) -> None:
    call("put", "x", b"one")
    call("put", "x", bytearray(b"two"))
    with pytest.raises(AlreadyExistsError, match="x exists"):
        call("put", "x", b"three", if_absent=True)
    assert bytes(call("get_all", "x")) == b"two"
    call("put", "fresh", memoryview(b"new"), if_absent=True)
    assert bytes(call("get_all", "fresh")) == b"new"
    assert [one.path for one in call("list", "")] == ["fresh", "x"]


def test_the_caller_may_reuse_the_memory_it_wrote_from(call: Call) -> None:
    data = bytearray(b"abc")
    call("put", "x", data)
    data[:] = b"xyz"
    assert bytes(call("get_all", "x")) == b"abc"


def test_writing_front_to_back(store: Store) -> None:
    async def main() -> None:
        writer = await store.create("deep/er/file")
        pieces: list[Any] = [b"abc", bytearray(b""), memoryview(b"defg"), np.arange(4, dtype="<u4")]
        await writer.write(pieces)
        assert writer.position == 23
        await writer.write([bytes([index % 256]) for index in range(3000)])  # more than one system call takes
        await writer.write([DATA * 30])
        assert await store.list("") == []
        await writer.finish()
        expected = b"".join(map(bytes, pieces)) + bytes(index % 256 for index in range(3000)) + DATA * 30
        assert bytes(await store.get_all("deep/er/file")) == expected
        assert writer.position == len(expected)
        await writer.abort()  # too late to have an effect
        assert [one.path for one in await store.list("")] == ["deep/er/file"]
        with pytest.raises(StoreError, match="no longer"):
            await writer.write([b"x"])
        with pytest.raises(StoreError, match="no longer"):
            await writer.finish()

    run(main(), suspends=store.suspends)


def test_abandoned_writers_leave_nothing(store: Store, tmp_path: Path) -> None:
    async def main() -> None:
        writer = await store.create("x")
        await writer.write([b"abc"])
        await writer.abort()
        await writer.abort()
        dropped = await store.create("y")
        await dropped.write([b"abc"])
        del dropped
        assert await store.list("") == []

    run(main(), suspends=store.suspends)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_one_of_many_writers_creates_an_object(
    kind: str, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    store: Store = LocalStore(tmp_path) if kind == "local" else MemoryStore()
    start = threading.Barrier(8)
    won: list[tuple[int, int]] = []

    def write(number: int) -> None:
        for turn in range(20):
            start.wait()
            try:
                run(store.put(f"v/{turn}", b"%d" % number * 5000, if_absent=True), suspends=False)
                won.append((turn, number))
            except AlreadyExistsError:
                pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turn for turn, _ in won) == list(range(20))
    for turn, number in won:
        assert bytes(run(store.get_all(f"v/{turn}"), suspends=False)) == b"%d" % number * 5000
    assert len(run(store.list(""), suspends=False)) == 20
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.skipif(os.name == "nt", reason="Windows renames")
def test_a_link_that_met_itself_has_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system asks again when an answer was lost, and is told that the name exists."""
    store = LocalStore(tmp_path)
    real = os.link

    def twice(source: str, target: str) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", twice)
    run(store.put("x", DATA, if_absent=True), suspends=False)
    assert bytes(run(store.get_all("x"), suspends=False)) == DATA
    with pytest.raises(AlreadyExistsError) as raised:
        run(store.put("x", b"other", if_absent=True), suspends=False)
    assert raised.value.certain
    assert os.listdir(tmp_path) == ["x"]
    assert os.stat(tmp_path / "x").st_nlink == 1


def _no_links(*_: Any) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_links_and_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(os, "link", _no_links)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    store = LocalStore(tmp_path)
    with pytest.raises(StoreError, match="neither hard links nor file locks"):
        run(store.put("x", b"1", if_absent=True), suspends=False)
    run(store.put("x", b"1"), suspends=False)
    assert [one.path for one in run(store.list(""), suspends=False)] == ["x"]


@pytest.mark.fault
@pytest.mark.parametrize("step", ["fsync", "link", "replace"])
def test_a_failing_step_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    store = LocalStore(tmp_path)
    with pytest.raises(StoreError, match="x: No space left"):
        run(store.put("x", DATA, if_absent=step == "link"), suspends=False)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_order_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on disk before the name exists, the name before the call returns."""
    steps: list[str] = []
    for name in ("fsync", "link", "replace", "mkdir"):
        original = getattr(os, name)

        def wrapped(*args: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            steps.append(_name)
            return _original(*args, **options)

        monkeypatch.setattr(os, name, wrapped)
    store = LocalStore(tmp_path)
    run(store.put("a/x", b"1", if_absent=True), suspends=False)
    assert steps == ["mkdir", "fsync", "fsync", "link", "fsync"]
    steps.clear()
    run(store.put("a/x", b"1"), suspends=False)
    assert steps == ["fsync", "replace", "fsync"]


KILLED = """
import os, sys
from pilum.io.local import LocalStore
from pilum.io.ordered import drive
store = LocalStore(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    drive(store.put(f"v/{os.getpid()}-{number}", b"x" * 200_000 + b"end", if_absent=True))
    drive(store.put("v/replaced", b"%d" % (number % 10) * 200_000 + b"end"))
    number += 1
"""


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_writer_leaves_only_whole_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for round_number in range(12):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.002 + 0.003 * round_number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for one in run(store.list("v"), suspends=False):
            data = bytes(run(store.get_all(one.path), suspends=False))
            assert len(data) == one.size == 200_003
            assert data.endswith(b"end")
            assert len(set(data[:-3])) == 1


def test_keys_that_lead_out_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = LocalStore(tmp_path / "dataset")
    for path in ("../secret", "data/../../secret", "..", "data\\..\\..\\secret"):
        with pytest.raises(InvalidInputError, match="leads out"):
            run(store.get(path, 0, 1), suspends=False)
        with pytest.raises(InvalidInputError, match="leads out"):
            run(store.put(path, b""), suspends=False)
    run(store.put("data/a..b", b"fine"), suspends=False)
    with pytest.raises(InvalidInputError, match="not a path"):
        run(store.get("a\0b", 0, 1), suspends=False)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_permissions(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    run(store.put("x", b"1"), suspends=False)
    (tmp_path / "x").chmod(0)
    with pytest.raises(StoreError, match="x: Permission denied"):
        run(store.get("x", 0, 1), suspends=False)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc")
    before = len(list(folder.iterdir()))

    async def main() -> None:
        for number in range(50):
            await store.put(f"{number}", b"12345678")
            await store.get_ranges(f"{number}", [(0, 1), (5, 6)])
            await store.get_tail(f"{number}", 4)
            for bad in (store.get(f"{number}", 0, 100), store.get_tail(f"{number}", 4, size=100)):
                with pytest.raises(StoreError):
                    await bad
            await (await store.create("w")).abort()

    run(main(), suspends=False)
    assert len(list(folder.iterdir())) == before


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilum.io import local

    original = local._pread
    monkeypatch.setattr(local, "_pread", lambda fd, buffer, offset: original(fd, buffer[:1000], offset))
    store = LocalStore(tmp_path)
    run(store.put("x", DATA), suspends=False)
    assert bytes(run(store.get("x", 5, 90_000), suspends=False)) == DATA[5:90_000]
    with pytest.raises(StoreError, match="got 100000 of 100001"):
        run(store.get("x", 0, 100_001), suspends=False)


def test_large_reads_leave_the_event_loop(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    run(store.put("x", bytes(4 << 20)), suspends=False)
    threads: dict[str, set[int]] = {"small": set(), "large": set()}
    original = store._read

    def spy(descriptor: int, path: str, start: int, end: int) -> Any:
        threads["small" if end - start < 100_000 else "large"].add(threading.get_ident())
        return original(descriptor, path, start, end)

    store._read = spy  # type: ignore[method-assign]

    async def main() -> None:
        await store.get("x", 0, 4096)
        await store.get_tail("x", 4096)
        assert len(await store.get("x", 0, 2 << 20)) == 2 << 20
        assert len((await store.get_ranges("x", [(0, 2 << 20), (3 << 20, 4 << 20)]))[1]) == 1 << 20
        assert len((await store.get_tail("x", 2 << 20))[0]) == 2 << 20

    asyncio.run(main())
    assert threads["small"] == {threading.get_ident()}
    assert threads["large"]
    assert threading.get_ident() not in threads["large"]


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / "a b")
    for uri in (
        expected,
        tmp_path / "a b",
        "a b",
        "./x/../a b",
        tmp_path.as_uri() + "/a%20b",
        expected + "/",
    ):
        store = store_for(uri)
        assert isinstance(store, LocalStore)
        assert store.uri == expected
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_for("~/a b").uri == expected
    assert store_for("100%25").uri == str(tmp_path / "100%25")  # a path is not decoded
    assert store_for("memory://one/two/").uri == "memory://one/two"
    assert store_for("memory://x", {"any": "option"}).suspends is False
    with pytest.raises(UnsupportedError, match=r"ftp://.*known: .*file://.*memory://.*s3://"):
        store_for("ftp://host/key")
    for bad in ("", "memory://", "file://host/path", "s3:///key"):
        with pytest.raises(InvalidInputError):
            store_for(bad)


def test_pickling(tmp_path: Path) -> None:
    local = LocalStore(tmp_path)
    run(local.put("x", b"1"), suspends=False)
    memory = MemoryStore("pickled")
    run(memory.put("x", b"2"), suspends=False)
    for store, expected in ((local, b"1"), (memory, b"2")):
        data = pickle.dumps(store)
        assert len(data) < 300
        again = pickle.loads(data)
        assert again.uri == store.uri
        assert bytes(run(again.get_all("x"), suspends=False)) == expected
    unnamed = MemoryStore()
    run(unnamed.put("x", b"3"), suspends=False)
    assert run(pickle.loads(pickle.dumps(unnamed)).head("x"), suspends=False).size == 1


def test_named_memory_stores_share_their_objects() -> None:
    run(MemoryStore("shared").put("x", b"1"), suspends=False)
    assert run(MemoryStore("shared").list(""), suspends=False) == [ObjectInfo("x", 1)]
    assert run(MemoryStore("other").list(""), suspends=False) == []
    assert run(MemoryStore().list(""), suspends=False) == []
    with pytest.raises(ValueError, match="read-only"):
        run(MemoryStore("shared").get_all("x"), suspends=False)[0] = 7


def test_statistics(store: Store, call: Call) -> None:
    counted = store if not isinstance(store, SuspendingStore) else store.inner
    call("put", "x", DATA)
    writer = call("create", "y")
    run(writer.write([b"abc", b"d"]), suspends=store.suspends)
    run(writer.finish(), suspends=store.suspends)
    assert counted.stats.write_iops == 2
    assert counted.stats.write_bytes == len(DATA) + 4
    call("get", "x", 0, 10)
    call("get_tail", "x", 30, size=len(DATA))
    call("get_all", "y")
    call("head", "x")
    call("list", "")
    assert (store.stats.read_iops, store.stats.read_bytes) == (3, 44)
    assert store.stats.snapshot().read_iops == 3
    assert store.stats.incremental().read_bytes == 44
    assert store.stats.incremental() == (0, 0, 0, 0)


def test_statistics_lose_nothing_between_threads() -> None:
    store = MemoryStore()
    run(store.put("x", DATA), suspends=False)
    total = 0

    async def read() -> None:
        for _ in range(5000):
            await store.get("x", 0, 3)

    threads = [threading.Thread(target=lambda: run(read(), suspends=False)) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        total += store.stats.incremental().read_iops
    for thread in threads:
        thread.join()
    assert total + store.stats.incremental().read_iops == 20_000


def test_a_trace_shows_every_request(store: Store, call: Call) -> None:
    call("put", "x", DATA)
    with trace() as log:
        call("get", "x", 0, 10, who="one")
        call("get_ranges", "x", [(0, 10), (50_000, 50_010)], who="two")
        call("get_tail", "x", 8, size=len(DATA), who="three")
        with trace() as inner:
            call("get_all", "x")
    call("get", "x", 0, 10)
    kinds = [(one.path, one.start, one.end, one.who) for one in log.requests if one.kind == "get"]
    assert len(inner.requests) == 1
    assert sorted(kinds[1:3]) == [("x", 0, 10, "two"), ("x", 50_000, 50_010, "two")]
    assert [kinds[0], *kinds[3:]] == [
        ("x", 0, 10, "one"),
        ("x", len(DATA) - 8, len(DATA), "three"),
        ("x", 0, len(DATA), ""),
    ]
    assert all(one.started <= one.finished for one in log.requests)


def test_traces_of_concurrent_queries_do_not_mix(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    run(store.put("x", DATA), suspends=False)

    async def query(number: int) -> list[str]:
        with trace() as log:
            for _ in range(5):
                await store.get("x", 0, 1, who=str(number))
                await asyncio.sleep(0)
            return [one.who for one in log.requests]

    async def main() -> None:
        found = await asyncio.gather(*(query(number) for number in range(20)))
        assert found == [[str(number)] * 5 for number in range(20)]

    asyncio.run(main())


def test_a_failing_request_cancels_the_others_of_the_call() -> None:
    inner = MemoryStore()
    run(inner.put("x", DATA), suspends=False)

    async def main() -> None:
        with pytest.raises(StoreError, match="made up"):
            await FailingStore(inner, pattern="x").get_ranges("x", [(0, 10), (50_000, 50_010)])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_temporary_files_are_hidden(tmp_path: Path) -> None:
    assert durable.HIDDEN.startswith(".")
    store = LocalStore(tmp_path)
    file = durable.TemporaryFile(str(tmp_path / "x"))
    assert run(store.list(""), suspends=False) == []
    file.discard()
    assert list(tmp_path.iterdir()) == []
