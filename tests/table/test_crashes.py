"""Crash consistency: a store that fails, loses an answer or stops, at every single call in turn.

After each the table opens at the old or at the new version with all its files, and trying again succeeds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from pilum.errors import AlreadyExistsError, PilumError, StoreError
from pilum.io import MemoryStore, Store
from pilum.table import (
    Append,
    Delete,
    Fragment,
    Manifest,
    NamingScheme,
    Overwrite,
    Restore,
    Update,
    UpdateConfig,
    UpdateMap,
    branch_store,
    cleanup,
    commit,
    create_branch,
    create_tag,
    deep_clone,
    find_problems,
    get_tag,
    latest_version,
    list_branches,
    list_versions,
    load_manifest,
    migrate_names_to_v2,
    read_deletions,
    read_transactions,
    write_deletions,
)
from tests.table.faulty import MODES, FaultyStore
from tests.table.tables import SCHEMA, drive, fragment

pytestmark = pytest.mark.fault

Action = Callable[[Store], Coroutine[Any, Any, Any]]


def with_data(store: Store, rows: int = 3) -> Fragment:
    """A fragment whose data file exists (its content does not matter here)."""
    one = fragment(rows)
    drive(store.put(f"data/{one.files[0].path}", bytes(100)))
    return one


def table() -> Store:
    """Versions 1 to 3: three fragments, another one, one row deleted."""
    store = MemoryStore()
    drive(commit(store, Overwrite(tuple(with_data(store) for _ in range(3)), SCHEMA), read_version=None))
    drive(commit(store, Append((with_data(store),)), read_version=1))
    drive(delete(store, 0, 2))
    return store


async def delete(store: Store, offset: int, version: int) -> Manifest:
    manifest = await load_manifest(store, version)
    one = manifest.fragments[0]
    gone = {*(await read_deletions(store, one)).tolist(), offset}
    file = await write_deletions(store, one, sorted(gone), version)
    operation = Delete((replace(one, deletion_file=file),), (), f"row {offset}")
    return await commit(store, operation, read_version=version)


def state(manifest: Manifest) -> Any:
    """What a reader sees of a version."""
    return (
        [(one.id, one.files, one.num_rows) for one in manifest.fragments],
        dict(manifest.config),
        manifest.schema,
    )


def opens(store: Store) -> Manifest:
    """The newest version; every version that is listed must be whole."""
    versions = drive(list_versions(store))
    manifests = [drive(load_manifest(store, version)) for version in versions]
    for manifest in manifests:
        assert drive(find_problems(store, manifest)) == []
    assert all(drive(read_transactions(store, versions)))
    return manifests[-1]


@dataclass(frozen=True)
class Case:
    """One change.

    Attributes:
        act: does it on the version that is newest in `table`.
        again: does it after a failure, on whatever is newest then; by default ``act``.
    """

    act: Action
    again: Action | None = None


NEW = fragment(5)


async def append(store: Store) -> None:
    await commit(store, Append((NEW,)), read_version=3)


async def append_again(store: Store) -> None:
    await commit(store, Append((NEW,)), read_version=await latest_version(store))


async def overwrite(store: Store) -> None:
    await commit(store, Overwrite((NEW,), SCHEMA), read_version=await latest_version(store))


async def delete_one(store: Store) -> None:
    newest = await latest_version(store)
    if (await load_manifest(store, newest)).num_rows == 11:  # not done yet
        await delete(store, 1, newest)


async def stale_delete(store: Store) -> None:
    """Computed on version 2, so that the vectors of both deletes must be merged."""
    if (await load_manifest(store, await latest_version(store))).num_rows == 11:
        await delete(store, 2, 2)


async def move_row(store: Store) -> None:
    newest = await latest_version(store)
    manifest = await load_manifest(store, newest)
    if any(one.physical_rows == 5 for one in manifest.fragments):
        return
    one = manifest.fragments[1]
    file = await write_deletions(store, one, [0], newest)
    update = Update(updated_fragments=(replace(one, deletion_file=file),), new_fragments=(NEW,))
    await commit(store, update, read_version=newest)


async def restore(store: Store) -> None:
    await commit(store, Restore(1), read_version=await latest_version(store))


async def configure(store: Store) -> None:
    operation = UpdateConfig(UpdateMap({"k": "v"}))
    await commit(store, operation, read_version=await latest_version(store))


CHANGES = {
    "append": Case(append, append_again),
    "overwrite": Case(overwrite),
    "delete": Case(delete_one),
    "stale delete": Case(stale_delete),
    "update": Case(move_row),
    "restore": Case(restore),
    "config": Case(configure),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CHANGES)
def test_a_commit_happens_or_does_not(name: str, mode: str) -> None:
    case = CHANGES[name]
    reference = table()
    drive(reference.put(f"data/{NEW.files[0].path}", bytes(100)))
    drive(case.act(reference))
    done = state(opens(reference))
    number = 0
    while True:
        store = table()
        drive(store.put(f"data/{NEW.files[0].path}", bytes(100)))
        before = opens(store)
        faulty = FaultyStore(store, number, mode)
        error: Exception | None = None
        try:
            drive(case.act(faulty))
        except PilumError as raised:
            error = raised
        after = opens(store)
        if after.version == 3:
            assert state(after) == state(before)
            assert error is not None, "reported as done, but is not"
        else:
            assert after.version == 4
            assert _same(state(after), done)
            assert error is None or "unknown" in str(error) or mode.startswith("stops"), error
        drive((case.again or case.act)(store))
        final = opens(store)
        if after.version == 3:
            assert _same(state(final), done)
        if not faulty.failed:
            assert error is None
            return
        number += 1


def _same(found: Any, wanted: Any) -> bool:
    """Equal but for the random names of files."""
    rows = [[(one[0], one[2]) for one in each[0]] for each in (found, wanted)]
    return rows[0] == rows[1] and found[1:] == wanted[1:]


@pytest.mark.parametrize("mode", MODES)
def test_creating_a_table(mode: str) -> None:
    number = 0
    while True:
        store = MemoryStore()
        create = Overwrite((with_data(store),), SCHEMA)
        faulty = FaultyStore(store, number, mode)
        try:
            drive(commit(faulty, create, read_version=None))
        except PilumError:
            pass
        else:
            assert drive(list_versions(store)) == [1]
        try:
            drive(commit(store, create, read_version=None))
        except AlreadyExistsError:
            assert faulty.failed is False or mode != "fails before" or drive(list_versions(store)) == [1]
        assert opens(store).num_rows == 3
        if not faulty.failed:
            return
        number += 1


@pytest.mark.parametrize("mode", MODES)
def test_cleanup_leaves_whole_versions(mode: str) -> None:
    async def clean(store: Store) -> None:
        await cleanup(store, older_than=timedelta(0), delete_unverified=True)

    reference = table()
    drive(overwrite_with_data(reference))
    drive(clean(reference))
    wanted = {one.path for one in drive(reference.list(""))}
    assert len(wanted) == 3  # manifest, transaction, data file
    number = 0
    while True:
        store = table()
        drive(overwrite_with_data(store))
        faulty = FaultyStore(store, number, mode)
        with contextlib.suppress(StoreError):
            drive(clean(faulty))
        assert opens(store).version == 4
        drive(clean(store))
        assert opens(store).version == 4
        assert drive(list_versions(store)) == [4]
        assert len(drive(store.list(""))) == 3
        if not faulty.failed:
            return
        number += 1


async def overwrite_with_data(store: Store) -> None:
    await store.put(f"data/{NEW.files[0].path}", bytes(100))
    await overwrite(store)


@pytest.mark.parametrize("mode", MODES)
def test_tags_and_branches(mode: str) -> None:
    number = 0
    reached = False
    while True:
        store = table()
        faulty = FaultyStore(store, number, mode)
        try:
            drive(create_tag(faulty, "t", None, 2))
            drive(create_branch(faulty, "dev/x", None, 2))
        except PilumError:
            pass
        for call in (create_tag(store, "t", None, 2), create_branch(store, "dev/x", None, 2)):
            try:
                drive(call)
            except AlreadyExistsError:
                reached = True
        assert drive(get_tag(store, "t")).version == 2
        assert list(drive(list_branches(store))) == ["dev/x"]
        assert drive(load_manifest(branch_store(store, "dev/x"), 2)).num_rows == 12
        assert opens(store).version == 3
        if not faulty.failed:
            assert reached
            return
        number += 1


@pytest.mark.parametrize("mode", MODES)
def test_migration(mode: str) -> None:
    number = 0
    while True:
        store = MemoryStore()
        one = with_data(store)
        drive(commit(store, Overwrite((one,), SCHEMA), read_version=None, naming=NamingScheme.V1))
        drive(commit(store, Append((with_data(store),)), read_version=1))
        faulty = FaultyStore(store, number, mode)
        try:
            drive(migrate_names_to_v2(faulty))
        except PilumError:
            pass
        drive(migrate_names_to_v2(store))
        assert opens(store).version == 2
        assert len(drive(list_versions(store))) == 2
        if not faulty.failed:
            return
        number += 1


@pytest.mark.parametrize("mode", MODES)
def test_deep_clones(mode: str) -> None:
    number = 0
    source = table()
    while True:
        store = MemoryStore()
        faulty = FaultyStore(store, number, mode)
        try:
            drive(deep_clone(source, 3, faulty))
        except PilumError:
            pass
        try:
            drive(deep_clone(source, 3, store))
        except AlreadyExistsError:
            assert number > 0
        assert opens(store).num_rows == 11
        if not faulty.failed:
            return
        number += 1


def test_an_unreadable_outcome_is_said_to_be_unknown() -> None:
    class Deaf(FaultyStore):
        """Cannot read manifests any more after the failure."""

        async def get_all(self, path: str, *, who: str = "") -> Any:
            if path.endswith("manifest") and self.failed:
                raise StoreError("no answer")
            return await super().get_all(path, who=who)

    calls = FaultyStore(table(), -1, MODES[0])
    drive(append(calls))
    unknown = 0
    for number in range(calls.calls):
        store = table()
        with contextlib.suppress(StoreError):
            drive(append(Deaf(store, number, "fails after")))
            continue
        if drive(latest_version(store)) == 4:
            unknown += 1
            with pytest.raises(StoreError, match="unknown"):
                drive(append(Deaf(table(), number, "fails after")))
            # The transaction is the way to find out: it must not have been removed.
            assert drive(read_transactions(store, [4])) != [None]
    assert unknown == 1
