"""Writers at once: every success is in the history exactly once, and nothing is lost.

Threads and processes on one table; commit locks; the pace of retries; answers that were lost.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pilum.errors import AlreadyExistsError, CommitConflictError, PilumError, StoreError
from pilum.io import LocalStore, MemoryStore, Store, run
from pilum.table import (
    Append,
    Delete,
    Overwrite,
    Transaction,
    UpdateConfig,
    UpdateMap,
    cleanup,
    commit,
    find_problems,
    latest_version,
    list_versions,
    load_manifest,
    read_deletions,
    read_transactions,
    write_deletions,
)
from pilum.table.transaction import new_uuid
from tests.support import REPOSITORY
from tests.table.tables import SCHEMA, drive, fragment, memory_table

ROWS = 40


async def work(store: Store, seed: int, steps: int) -> list[tuple[str, str, int]]:
    """Random commits; returns uuid, kind and version of those that succeeded."""
    rng = random.Random(seed)
    done = []
    for step in range(steps):
        newest = await latest_version(store)
        manifest = await load_manifest(store, newest)
        kind = rng.choice(["append", "append", "delete", "config"])
        operation: Any
        if kind == "append":
            operation = Append((fragment(ROWS),))
        elif kind == "config":
            operation = UpdateConfig(UpdateMap({f"{seed}-{step}": "x"}))
        else:
            one = rng.choice(manifest.fragments)
            gone = {*(await read_deletions(store, one)).tolist(), rng.randrange(ROWS)}
            if len(gone) == one.num_deleted_rows or len(gone) == ROWS:
                continue
            file = await write_deletions(store, one, sorted(gone), newest)
            operation = Delete((replace(one, deletion_file=file),), (), str(len(gone)))
        transaction = Transaction(newest, new_uuid(), operation)
        try:
            made = await commit(
                store, operation, read_version=newest, transaction=transaction, max_retries=100
            )
        except CommitConflictError as error:
            if not error.retryable:
                raise
            continue
        done.append((transaction.uuid, kind, made.version))
    return done


def check(store: Store, done: list[tuple[str, str, int]]) -> None:
    """The history is exactly what was reported, and so is the table."""
    versions = drive(list_versions(store))
    assert versions == list(range(1, len(versions) + 1))
    history = drive(read_transactions(store, versions))
    found = {one.uuid: version for one, version in zip(history[1:], versions[1:], strict=True) if one}
    assert len(found) == len(versions) - 1
    assert found == {uuid: version for uuid, _, version in done}
    kinds = Counter(kind for _, kind, _ in done)
    table = drive(load_manifest(store, versions[-1]))
    assert len(table.fragments) == 3 + kinds["append"]
    assert len(table.config) == kinds["config"]
    deleted = sum(len(drive(read_deletions(store, one))) for one in table.fragments)
    assert deleted == kinds["delete"]
    assert table.num_rows == ROWS * len(table.fragments) - deleted
    # No transaction of a lost race is left behind.
    assert len(drive(store.list("_transactions"))) == len(versions)


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_threads(kind: str, tmp_path: Path) -> None:
    store: Store = MemoryStore() if kind == "memory" else LocalStore(tmp_path)
    memory_table(3, ROWS, store)
    done: list[tuple[str, str, int]] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def write(seed: int) -> None:
        try:
            done.extend(run(work(store, seed, 8), suspends=False))
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        seen = 0
        while not stop.is_set():
            try:
                newest = run(latest_version(store), suspends=False)
                table = run(load_manifest(store, newest), suspends=False)
                assert newest >= seen
                assert table.num_rows > 0
                seen = newest
            except BaseException as error:
                failures.append(error)
                return

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(8)]
    reader = threading.Thread(target=read)
    for thread in [*writers, reader]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert failures == []
    assert len(done) > 20
    check(store, done)


_PROCESS = """
import json, sys
from pilum.io import LocalStore, run
from tests.table.test_concurrency import work
print(json.dumps(run(work(LocalStore(sys.argv[1]), int(sys.argv[2]), 8), suspends=False)))
"""


@pytest.mark.slow
def test_processes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    memory_table(3, ROWS, store)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(tmp_path), str(seed)],
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        for seed in range(4)
    ]
    done = []
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        done += [tuple(one) for one in json.loads(output)]
    check(store, done)


def test_cleanup_beside_writers(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    memory_table(0, store=store)
    failures: list[BaseException] = []
    committed: list[str] = []
    writing = threading.Event()

    def write(seed: int) -> None:
        try:
            for _ in range(10):
                while True:
                    # Files of a commit that failed are not committed again: they may be gone.
                    one = fragment(ROWS)
                    run(store.put(f"data/{one.files[0].path}", bytes(100)), suspends=False)
                    try:
                        newest = run(latest_version(store), suspends=False)
                        run(commit(store, Append((one,)), read_version=newest), suspends=False)
                    except CommitConflictError as error:
                        if not error.retryable:
                            raise
                        continue
                    break
                committed.append(one.files[0].path)
        except BaseException as error:
            failures.append(error)

    def clean() -> None:
        try:
            while not writing.is_set():
                run(cleanup(store, older_than=timedelta(0)), suspends=False)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    cleaner = threading.Thread(target=clean)
    for thread in [*writers, cleaner]:
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    cleaner.join()
    assert failures == []
    table = drive(load_manifest(store, drive(latest_version(store))))
    assert sorted(one.files[0].path for one in table.fragments) == sorted(committed)
    assert len(committed) == 30
    assert drive(find_problems(store, table)) == []


def test_one_of_many_creates(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    outcomes: list[str] = []

    def create() -> None:
        try:
            run(commit(store, Overwrite((fragment(),), SCHEMA), read_version=None), suspends=False)
            outcomes.append("made")
        except AlreadyExistsError:
            outcomes.append("exists")

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["exists"] * 7 + ["made"]


# -- retries -------------------------------------------------------------------------------------------


class Racing(MemoryStore):
    """Another writer is faster, a number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.races = 0

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        if if_absent and self.races:
            self.races -= 1
            races, self.races = self.races, 0
            newest = await latest_version(self)
            await commit(self, Append((fragment(),)), read_version=newest)
            self.races = races
        await super().put(path, data, if_absent=if_absent)


def test_losers_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("pilum.table.waiting.pause", pause)
    store = Racing()
    memory_table(1, store=store)
    store.races = 3
    table = drive(commit(store, Append((fragment(),)), read_version=1))
    assert (table.version, len(table.fragments), len(waited)) == (5, 5, 3)
    assert len({one.id for one in table.fragments}) == 5
    store.races = 100
    with pytest.raises(CommitConflictError, match="faster 4 times in a row") as raised:
        drive(commit(store, Append((fragment(),)), read_version=5, max_retries=4))
    assert raised.value.retryable


def test_the_time_for_retries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilum.table.waiting._RETRY_BUDGET_SECONDS", -1.0)
    store = Racing()
    memory_table(1, store=store)
    store.races = 100
    with pytest.raises(CommitConflictError, match="faster 1 times"):
        drive(commit(store, Append((fragment(),)), read_version=1))


def test_a_strict_overwrite_replaces_one_version_only() -> None:
    store, _ = memory_table()
    drive(commit(store, Append((fragment(),)), read_version=1))
    with pytest.raises(CommitConflictError, match="is to replace no other"):
        drive(commit(store, Overwrite((), SCHEMA), read_version=1, max_retries=0))
    assert drive(commit(store, Overwrite((), SCHEMA), read_version=2, max_retries=0)).version == 3
    drive(commit(store, Append((fragment(),)), read_version=3))
    assert drive(commit(store, Overwrite((), SCHEMA), read_version=3)).version == 5


def test_versions_that_were_removed_cannot_be_checked() -> None:
    store, _ = memory_table()
    for version in (1, 2, 3):
        drive(commit(store, Append(()), read_version=version))
    drive(store.delete(f"_versions/{2**64 - 1 - 2:020d}.manifest"))
    with pytest.raises(CommitConflictError, match="versions after 1 are gone") as raised:
        drive(commit(store, Append(()), read_version=1))
    assert raised.value.retryable
    assert drive(commit(store, Append(()), read_version=2)).version == 5


# -- locks ---------------------------------------------------------------------------------------------


class Careless(MemoryStore):
    """A store that cannot put only if absent: the last one wins."""

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        await super().put(path, data)


def test_a_lock_keeps_writers_apart() -> None:
    store = Careless()
    memory_table(3, ROWS, store)
    mutex = threading.Lock()
    locked: list[int] = []

    @contextmanager
    def lock(version: int) -> Iterator[None]:
        with mutex:
            locked.append(version)
            yield

    done = []
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(5):
                newest = run(latest_version(store), suspends=False)
                one = Append((fragment(ROWS),))
                made = commit(store, one, read_version=newest, commit_lock=lock, max_retries=50)
                done.append(run(made, suspends=False).version)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(done) == list(range(2, 32))
    assert set(locked) == set(done)
    assert len(drive(load_manifest(store, 31)).fragments) == 33


def test_a_lock_that_cannot_be_had() -> None:
    store, _ = memory_table()

    @contextmanager
    def lock(version: int) -> Iterator[None]:
        raise TimeoutError(f"no lock for {version}")
        yield

    with pytest.raises(TimeoutError, match="no lock for 2"):
        drive(commit(store, Append(()), read_version=1, commit_lock=lock))
    assert drive(list_versions(store)) == [1]
    assert len(drive(store.list("_transactions"))) == 1


def test_a_lock_is_released_after_a_failure() -> None:
    held: list[str] = []

    @contextmanager
    def lock(version: int) -> Iterator[None]:
        held.append("taken")
        try:
            yield
        finally:
            held.append("released")

    class Broken(MemoryStore):
        async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
            if if_absent:
                raise OSError("disk full")
            await super().put(path, data)

    store = Broken()
    with pytest.raises(OSError, match="disk full"):
        drive(commit(store, Overwrite((), SCHEMA), read_version=None, commit_lock=lock))
    assert held == ["taken", "released"]


def test_a_success_whose_answer_was_lost_is_recognised() -> None:
    class Lossy(MemoryStore):
        async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
            await super().put(path, data, if_absent=if_absent)
            if if_absent:
                # What a retrying client reports after the answer to its first try was lost.
                raise AlreadyExistsError(path)

    store = Lossy()
    assert drive(commit(store, Overwrite((), SCHEMA), read_version=None)).version == 1
    assert drive(commit(store, Append((fragment(),)), read_version=1)).version == 2
    assert issubclass(AlreadyExistsError, PilumError)
    assert drive(list_versions(store)) == [1, 2]


class Swept(MemoryStore):
    """At the next put of a manifest others get in first, or at once after it, and a cleanup removes the version.

    Attributes:
        rival: another handle on the same objects; None until `sweep`.
        answer: what the put says: ``exists`` (the first attempt met the rival's), ``maybe`` (so did a repeated one) or
            ``nothing`` (no answer came).
        ours: whether the put was the first after all, its answer having been lost.
        next_operation: what the version after it does.
        read: manifests that were read since.
    """

    rival: Store | None = None

    def sweep(self, answer: str, ours: bool, next_operation: Any) -> None:
        self.rival = MemoryStore(self.name)
        self.answer, self.ours, self.next_operation = answer, ours, next_operation
        self.read: list[str] = []

    async def get_all(self, path: str, *, who: str = "") -> Any:
        if self.rival is None and path.endswith(".manifest") and hasattr(self, "read"):
            self.read.append(path)
        return await super().get_all(path, who=who)

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        rival = self.rival
        if rival is None or not if_absent:
            await super().put(path, data, if_absent=if_absent)
            return
        self.rival = None
        newest = await latest_version(rival)
        if self.ours:
            await super().put(path, data, if_absent=True)
        else:
            await commit(rival, Append((fragment(ROWS),)), read_version=newest)
        if self.next_operation is not None:
            await commit(rival, self.next_operation, read_version=newest + 1)
        await rival.delete(path)
        if self.answer == "nothing":
            raise StoreError("no answer")
        raise AlreadyExistsError(path, certain=self.answer == "exists")


def swept(answer: str, ours: bool, next_operation: Any) -> Swept:
    store = Swept()
    memory_table(2, ROWS, store)
    store.sweep(answer, ours, next_operation)
    return store


def test_a_version_that_somebody_owned_and_that_is_gone() -> None:
    """The first attempt was told that the version exists: that it is gone a moment later does not matter."""
    store = swept("exists", False, Append((fragment(ROWS),)))
    newest = drive(latest_version(store))
    one = fragment(ROWS)
    # What it changed cannot be checked any more; done again, it succeeds.
    with pytest.raises(CommitConflictError) as raised:
        drive(commit(store, Append((one,)), read_version=newest))
    assert raised.value.retryable
    made = drive(commit(store, Append((one,)), read_version=drive(latest_version(store))))
    assert made.version == newest + 3
    assert made.num_rows == 5 * ROWS


def test_a_lost_race_reads_each_version_once() -> None:
    store = swept("exists", False, None)
    newest = drive(latest_version(store))
    # The rival's version stays this time.
    store.delete = MemoryStore.delete.__get__(store)  # type: ignore[method-assign]
    rival = store.rival
    assert rival is not None
    rival.delete = _nothing  # type: ignore[method-assign]
    assert drive(commit(store, Append((fragment(ROWS),)), read_version=newest)).version == newest + 2
    assert len(store.read) == 1  # to see what the rival did, not to see whose it is


async def _nothing(path: str) -> None:
    pass


@pytest.mark.parametrize("answer", ["maybe", "nothing"])
@pytest.mark.parametrize(
    "next_operation",
    [Append((fragment(ROWS),)), UpdateConfig(UpdateMap({"k": "v"}))],
    ids=["append", "config"],
)
def test_a_version_of_ours_that_is_gone_is_known_by_its_files(answer: str, next_operation: Any) -> None:
    store = swept(answer, True, next_operation)
    newest = drive(latest_version(store))
    one = fragment(ROWS)
    made = drive(commit(store, Append((one,)), read_version=newest))
    assert made.version == newest + 1
    table = drive(load_manifest(store, newest + 2))
    assert [file.path for each in table.fragments for file in each.files].count(one.files[0].path) == 1


@pytest.mark.parametrize("answer", ["maybe", "nothing"])
def test_a_version_of_somebody_else_that_is_gone_is_known_by_its_files(answer: str) -> None:
    store = swept(answer, False, Append((fragment(ROWS),)))
    newest = drive(latest_version(store))
    one = fragment(ROWS)
    # Certainly not published: the caller may do it again, and gets no row twice.
    with pytest.raises(StoreError if answer == "nothing" else CommitConflictError) as raised:
        drive(commit(store, Append((one,)), read_version=newest))
    assert "unknown" not in str(raised.value)
    assert len(drive(store.list("_transactions"))) == newest + 2
    made = drive(commit(store, Append((one,)), read_version=newest + 2))
    assert made.num_rows == 5 * ROWS


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("answer", ["maybe", "nothing"])
@pytest.mark.parametrize("next_operation", [Overwrite((), SCHEMA), None], ids=["overwrite", "none"])
def test_what_nothing_tells_is_said_to_be_unknown(ours: bool, answer: str, next_operation: Any) -> None:
    store = swept(answer, ours, next_operation)
    newest = drive(latest_version(store))
    if answer == "nothing" and next_operation is None:
        # No newer version: the put did not happen, as far as anybody can see.
        with pytest.raises(StoreError, match="no answer"):
            drive(commit(store, Append((fragment(ROWS),)), read_version=newest))
        return
    transaction = Transaction(newest, new_uuid(), Append((fragment(ROWS),)))
    with pytest.raises(StoreError, match="status of the commit of version 2 is unknown"):
        drive(commit(store, transaction.operation, read_version=newest, transaction=transaction))
    # It may be in the history.
    assert transaction.file_name in drive(store.list_names("_transactions"))


class Late(MemoryStore):
    """Before the next put of a manifest others commit this version and more, and a cleanup removes old ones."""

    others: tuple[Any, ...] = ()

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        others, self.others = (self.others, ()) if if_absent else ((), self.others)
        if others:
            rival = MemoryStore(self.name)
            for one in others:
                await commit(rival, one, read_version=await latest_version(rival))
            await cleanup(rival, older_than=timedelta(0))
        await super().put(path, data, if_absent=if_absent)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_version_is_not_put_into_the_past(count: int) -> None:
    """The put succeeds, because the version that was there is gone."""
    store = Late()
    memory_table(2, ROWS, store)
    store.others = tuple(Append((fragment(ROWS),)) for _ in range(count))
    with pytest.raises(CommitConflictError, match="cleaned up while") as raised:
        drive(commit(store, Append((fragment(ROWS),)), read_version=1))
    assert raised.value.retryable
    assert drive(list_versions(store)) == [count + 1]
    assert len(drive(store.list("_transactions"))) == 1
    made = drive(commit(store, Append((fragment(ROWS),)), read_version=count + 1))
    assert made.num_rows == (3 + count) * ROWS


def test_a_version_that_may_be_in_the_past_is_said_to_be_unknown() -> None:
    store = Late()
    memory_table(2, ROWS, store)
    store.others = tuple(UpdateConfig(UpdateMap({str(number): "x"})) for number in range(3))
    with pytest.raises(StoreError, match="unknown"):
        drive(commit(store, UpdateConfig(UpdateMap({"mine": "x"})), read_version=1))


@pytest.mark.parametrize("next_operations", [(), (Append((fragment(ROWS),)),)], ids=["newest", "followed"])
def test_a_cleanup_right_after_a_commit_changes_nothing(next_operations: tuple[Any, ...]) -> None:
    class Cleaned(MemoryStore):
        after: tuple[Any, ...] | None = None

        async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
            await super().put(path, data, if_absent=if_absent)
            if if_absent and self.after is not None:
                rival = MemoryStore(self.name)
                for one in self.after:
                    await commit(rival, one, read_version=await latest_version(rival))
                await cleanup(rival, older_than=timedelta(0))

    store = Cleaned()
    memory_table(2, ROWS, store)
    store.after = next_operations
    assert drive(commit(store, Append((fragment(ROWS),)), read_version=1)).version == 2
    newest = drive(latest_version(store))
    assert newest == 2 + len(next_operations)
    assert drive(load_manifest(store, newest)).num_rows == (1 + newest) * ROWS


def test_a_config_is_no_file_to_be_known_by() -> None:
    store = swept("maybe", True, UpdateConfig(UpdateMap({"k": "v"})))
    with pytest.raises(StoreError, match="unknown"):
        drive(
            commit(store, UpdateConfig(UpdateMap({"other": "v"})), read_version=drive(latest_version(store)))
        )
