"""Cleanup, validation and lists of files: rules one by one, golden tables, and the reference beside us."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from pilum.errors import CorruptFileError, InvalidInputError, NotFoundError, PilumError
from pilum.io import LocalStore, MemoryStore, Store
from pilum.table import (
    Append,
    CreateIndex,
    Delete,
    Fragment,
    Overwrite,
    Restore,
    UpdateConfig,
    UpdateMap,
    all_files,
    branch_store,
    cleanup,
    commit,
    create_branch,
    create_tag,
    data_file_name,
    find_problems,
    find_versions,
    latest_version,
    list_versions,
    load_manifest,
    new_index,
    parse_duration,
    tracked_files,
    validate,
    write_deletions,
)
from pilum.table.cleanup_plan import CleanupPolicy, KnownVersion, choose_versions, plan_cleanup
from tests.support import GOLDEN
from tests.table.tables import SCHEMA, copy_golden, drive, fragment

TABLES = GOLDEN / "table"
NOTHING = timedelta(0)
LONG_AGO = time.time() - 30 * 86400


def with_data(store: Store, rows: int = 3) -> Fragment:
    one = fragment(rows)
    drive(store.put(f"data/{one.files[0].path}", bytes(100)))
    return one


def overwritten(store: Store, times: int = 3) -> Store:
    """A table whose versions share no file."""
    drive(commit(store, Overwrite((with_data(store),), SCHEMA), read_version=None))
    for version in range(1, times):
        drive(commit(store, Overwrite((with_data(store),), SCHEMA), read_version=version))
    return store


def names(store: Store, folder: str) -> set[str]:
    return {one.path.rpartition("/")[2] for one in drive(store.list(folder))}


# -- choosing versions ---------------------------------------------------------------------------------

TIMES = [(1, 10), (2, 20), (3, 30), (4, 40)]


@pytest.mark.parametrize(
    ("policy", "current", "expected"),
    [
        (CleanupPolicy(before_ns=30), 4, [1, 2]),
        (CleanupPolicy(before_ns=99), 4, [1, 2, 3]),
        (CleanupPolicy(before_ns=99), 2, [1]),
        (CleanupPolicy(retain_versions=3), 4, [1]),
        (CleanupPolicy(retain_versions=9), 4, []),
        (CleanupPolicy(before_ns=30, retain_versions=3), 4, [1]),
        (CleanupPolicy(versions=[2, 4, 7]), 4, [2]),
        (CleanupPolicy(before_ns=20, versions=[2]), 4, []),
    ],
)
def test_which_versions_go(policy: CleanupPolicy, current: int, expected: list[int]) -> None:
    assert choose_versions(TIMES, current, {}, policy) == expected


def test_tagged_versions_stay() -> None:
    policy = CleanupPolicy(before_ns=99)
    with pytest.raises(InvalidInputError, match=r"1 tagged versions would be removed: \{'t': 2\}"):
        choose_versions(TIMES, 4, {2: "t", 4: "u"}, policy)
    silent = replace(policy, error_if_tagged=False)
    assert choose_versions(TIMES, 4, {2: "t"}, silent) == [1, 3]
    with pytest.raises(InvalidInputError, match="at least one"):
        CleanupPolicy(retain_versions=0)


def test_which_files_go() -> None:
    uuid = "ccf39345-0716-4a6c-9f42-d20a31cd661e"
    other = uuid.replace("c", "d")
    removed = KnownVersion(1, 0, frozenset({"data/a.lance", "data/b.lance", f"_indices/{uuid}/"}))
    listing = [
        ("data/a.lance", 1),
        ("data/a/blob", 7),
        ("data/b.lance", 1),
        ("data/b/blob", 7),
        ("data/c.lance", 1),
        ("data/c/0/blob", 7),
        ("data/notes.txt", 1),
        ("_deletions/0-1-2.arrow", 1),
        ("_deletions/0-1-2.bin", 1),
        ("_deletions/x.tmp", 1),
        ("_transactions/0-x.txn", 1),
        (f"_indices/{uuid}/page.lance", 1),
        (f"_indices/{other}/page.lance", 1),
        ("_indices/notes", 1),
        ("_versions/1.manifest", 5),
        ("_versions/1.manifest-0f3d", 5),
        ("_versions/latest_version_hint.json", 5),
    ]
    plan = plan_cleanup([removed], [frozenset({"data/b.lance"})], listing, {1: ("_versions/1.manifest", 5)})
    assert plan.versions == (1,)
    assert [one.path for one in plan.manifests] == ["_versions/1.manifest"]
    assert {one.path: one.verified for one in plan.files} == {
        "data/a/blob": True,
        "data/a.lance": True,
        "data/c.lance": False,
        "_deletions/0-1-2.arrow": False,
        "_deletions/0-1-2.bin": False,
        "_transactions/0-x.txn": False,
        f"_indices/{uuid}/page.lance": True,
        f"_indices/{other}/page.lance": False,
        "_versions/1.manifest-0f3d": False,
    }
    assert plan.files[0].path == "data/a/blob"


# -- cleanup -------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "t.lance")


def test_old_versions_go_with_their_files(store: Store) -> None:
    overwritten(store)
    newest = drive(load_manifest(store, 3))
    planned = drive(cleanup(store, older_than=NOTHING, dry_run=True))
    assert drive(list_versions(store)) == [1, 2, 3]
    done = drive(cleanup(store, older_than=NOTHING))
    assert done == planned
    assert (done.old_versions, done.data_files_removed, done.transaction_files_removed) == (2, 2, 2)
    assert done.bytes_removed == sum(one.size for one in done.files)
    assert drive(list_versions(store)) == [3]
    assert names(store, "data") == {newest.fragments[0].files[0].path}
    assert names(store, "_transactions") == {newest.transaction_file}
    assert drive(cleanup(store, older_than=NOTHING)).files == ()
    assert drive(find_problems(store, newest)) == []


def test_nothing_young_goes_by_default(store: Store) -> None:
    overwritten(store)
    assert drive(cleanup(store)).versions == ()
    later = time.time_ns() + int(15 * 86400 * 1e9)
    assert drive(cleanup(store, now_ns=later)).versions == (1, 2)


def test_shared_files_stay(store: Store) -> None:
    drive(commit(store, Overwrite((with_data(store),), SCHEMA), read_version=None))
    drive(commit(store, Append((with_data(store),)), read_version=1))
    done = drive(cleanup(store, older_than=NOTHING))
    assert (done.versions, done.data_files_removed) == ((1,), 0)
    assert drive(find_problems(store, drive(load_manifest(store, 2)))) == []


def test_unfinished_writes_are_left_alone(tmp_path: Path) -> None:
    store = overwritten(LocalStore(tmp_path), 1)
    young, old = f"data/{data_file_name()}", f"data/{data_file_name()}"
    leftovers = [old, "_transactions/1-x.txn", "_deletions/0-1-2.bin"]
    for path in [young, *leftovers, "data/notes.txt"]:
        drive(store.put(path, b"x"))
    for path in leftovers:
        os.utime(tmp_path / path, (LONG_AGO, LONG_AGO))
    done = drive(cleanup(store))
    assert {one.path for one in done.files} == set(leftovers)
    assert drive(cleanup(store)).files == ()
    done = drive(cleanup(store, delete_unverified=True))
    assert [one.path for one in done.files] == [young]
    assert "notes.txt" in names(store, "data")


def test_files_of_unknown_age_stay() -> None:
    store = overwritten(MemoryStore(), 1)
    drive(store.put(f"data/{data_file_name()}", b"x"))
    assert drive(cleanup(store)).files == ()


def test_tags_protect(store: Store) -> None:
    overwritten(store)
    drive(create_tag(store, "t", None, 1))
    with pytest.raises(InvalidInputError, match="tagged"):
        drive(cleanup(store, older_than=NOTHING))
    done = drive(cleanup(store, older_than=NOTHING, error_if_tagged_old_versions=False))
    assert done.versions == (2,)
    assert drive(find_problems(store, drive(load_manifest(store, 1)))) == []
    drive(create_branch(store, "b", None, 1))
    drive(create_tag(store, "of the branch".replace(" ", "-"), "b", 1))
    assert drive(cleanup(store, older_than=NOTHING, error_if_tagged_old_versions=False)).versions == ()


def test_branches_protect_the_files_they_use(store: Store) -> None:
    overwritten(store)
    drive(create_branch(store, "dev/x", None, 1))
    drive(create_branch(store, "unfinished", None, 2))
    drive(store.delete("_refs/branches/unfinished.json"))
    done = drive(cleanup(store, older_than=NOTHING))
    assert (done.versions, done.data_files_removed) == ((1, 2), 0)
    dev = branch_store(store, "dev/x")
    assert drive(find_problems(dev, drive(load_manifest(dev, 1)))) == []
    # On the branch: what a branch made from it needs, stays.
    drive(commit(dev, Append((with_data(dev),)), read_version=1))
    drive(create_branch(store, "exp", "dev/x", 2))
    drive(commit(dev, Overwrite((with_data(dev),), SCHEMA), read_version=2))
    done = drive(cleanup(dev, older_than=NOTHING))
    assert (done.versions, done.data_files_removed) == ((1, 2), 0)
    exp = branch_store(store, "exp")
    assert drive(find_problems(exp, drive(load_manifest(exp, 2)))) == []


def test_detached_versions_keep_their_files(store: Store) -> None:
    overwritten(store, 1)
    made = drive(commit(store, Append((with_data(store),)), read_version=1, detached=True))
    drive(commit(store, Overwrite((with_data(store),), SCHEMA), read_version=1))
    done = drive(cleanup(store, older_than=NOTHING, delete_unverified=True))
    assert (done.versions, done.data_files_removed) == ((1,), 0)
    assert drive(find_problems(store, made)) == []


def test_a_version_restored_meanwhile_keeps_its_files() -> None:
    class Slow(MemoryStore):
        async def delete(self, path: str) -> None:
            await super().delete(path)
            if not self.restored:
                self.restored = True
                await commit(self, Restore(2), read_version=3)

        restored = False

    store = overwritten(Slow())
    drive(cleanup(store, older_than=NOTHING))
    assert drive(list_versions(store))[-1] == 4
    assert drive(find_problems(store, drive(load_manifest(store, 4)))) == []


def test_cleanup_needs_a_table() -> None:
    with pytest.raises(NotFoundError, match="no versions"):
        drive(cleanup(MemoryStore()))
    with pytest.raises(InvalidInputError, match="delete_rate_limit"):
        drive(cleanup(overwritten(MemoryStore()), delete_rate_limit=0))


def test_the_rate_of_deletions_is_limited() -> None:
    store = overwritten(MemoryStore())
    started = time.monotonic()
    assert len(drive(cleanup(store, older_than=NOTHING, delete_rate_limit=50)).files) == 6
    assert time.monotonic() - started > 0.09


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("14days", 14 * 86400), ("1h", 3600), ("1h 30m", 5400), ("2w", 1209600), ("0s", 0), ("500ms", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "14", "days", "1 parsec", "1h x"])
def test_no_durations(text: str) -> None:
    with pytest.raises(InvalidInputError, match="duration"):
        parse_duration(text)


def test_automatic_cleanup() -> None:
    store = overwritten(MemoryStore(), 1)
    settings = {"lance.auto_cleanup.interval": "3", "lance.auto_cleanup.older_than": "0s"}
    drive(commit(store, UpdateConfig(UpdateMap(settings)), read_version=1))
    assert drive(list_versions(store)) == [1, 2]
    drive(commit(store, Append(()), read_version=2))
    assert drive(list_versions(store)) == [3]
    for version in (3, 4, 5):
        drive(commit(store, Append(()), read_version=version, auto_cleanup=False))
    assert drive(list_versions(store)) == [3, 4, 5, 6]
    nonsense = UpdateConfig(UpdateMap({"lance.auto_cleanup.interval": "often"}))
    assert drive(commit(store, nonsense, read_version=6)).version == 7


@pytest.mark.interop
def test_cleanup_like_the_reference(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")

    def make(path: Path) -> object:
        table = lance.write_dataset(pa.table({"a": range(10)}), path, max_rows_per_file=5)
        table.delete("a = 1")
        table.create_scalar_index("a", "BTREE")
        table.create_scalar_index("a", "BTREE", replace=True)
        table.delete("a = 2")
        return lance.write_dataset(pa.table({"a": [1]}), path, mode="append")

    theirs = make(tmp_path / "theirs.lance").cleanup_old_versions(older_than=NOTHING)  # type: ignore[attr-defined]
    make(tmp_path / "ours.lance")
    store = LocalStore(tmp_path / "ours.lance")
    ours = drive(cleanup(store, older_than=NOTHING))
    assert ours.old_versions == theirs.old_versions
    for name in (
        "data_files_removed",
        "index_files_removed",
        "deletion_files_removed",
        "transaction_files_removed",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    table = lance.dataset(store.uri)
    table.validate()
    assert sorted(table.to_table()["a"].to_pylist()) == [0, 1, 3, 4, 5, 6, 7, 8, 9]


# -- lists and validation ------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.interop
@pytest.mark.parametrize("case", ["history", "index_meta", "stable_compact", "tags_branches", "old_6_0_1"])
def test_lists_of_files_like_the_reference(case: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    path = copy_golden(f"{case}.lance", tmp_path)
    store = LocalStore(path)
    theirs = lance.dataset(path).tracked_files().read_all().to_pylist()
    ours = drive(tracked_files(store))
    assert {(version, one.path, one.kind) for version, one in ours} == {
        (one["version"], one["path"], one["type"]) for one in theirs
    }
    everything = lance.dataset(path).all_files().read_all().to_pylist()
    assert {(one.path, one.size) for one in drive(all_files(store))} == {
        (one["path"], one["size_bytes"]) for one in everything
    }
    assert all(one.modified is not None for one in drive(all_files(store)))
    seen = []
    drive(tracked_files(store, min_version=2, progress=lambda done, of: seen.append((done, of))))
    assert seen[-1][0] == seen[-1][1] == len(drive(list_versions(store))) - 1


@pytest.mark.golden
@pytest.mark.parametrize("path", sorted(TABLES.glob("*.lance")), ids=lambda path: path.name[:-6])
def test_golden_tables_are_valid(path: Path) -> None:
    store = LocalStore(path)
    try:
        manifest = drive(load_manifest(store, drive(latest_version(store))))
    except PilumError:
        pytest.skip("refused")
    if manifest.base_paths and not Path(manifest.base_paths[0].path).exists():
        pytest.skip("has files at absolute paths")
    assert drive(find_problems(store, manifest)) == []


@pytest.mark.golden
def test_validation_finds_what_is_wrong(tmp_path: Path) -> None:
    path = copy_golden("stable_update.lance", tmp_path)
    store = LocalStore(path)
    manifest = drive(load_manifest(store, drive(latest_version(store))))
    drive(validate(store, manifest))
    one = manifest.fragments[0]
    file = one.files[0]
    wrong = {
        "has 634 bytes, the manifest says 7": replace(one, files=(replace(file, size=7),)),
        "x.lance is missing": replace(one, files=(replace(file, path="x.lance"),)),
        "field 0 is in two files": replace(one, files=(file, file)),
        "row ids for": replace(one, row_ids=b""),
        "live in fragment 0 and in fragment": replace(one, deletion_file=None),
        "above the highest id": replace(one, id=99),
        "base path 4": replace(one, files=(replace(file, base_id=4),)),
    }
    for message, changed in wrong.items():
        with pytest.raises(CorruptFileError, match=message):
            drive(validate(store, replace(manifest, fragments=(changed, *manifest.fragments[1:]))))
    with pytest.raises(CorruptFileError, match="not given out"):
        drive(validate(store, replace(manifest, next_row_id=5)))
    entry = new_index("i", [77], 1, [0], details=("/x.BTreeIndexDetails", b""), files=[("page", 3)])
    with pytest.raises(CorruptFileError, match=r"field that the schema does not have.*page is missing"):
        drive(validate(store, replace(manifest, indices=(entry,))))


def test_folders_of_indices_whose_files_are_not_recorded() -> None:
    store = overwritten(MemoryStore(), 1)
    entry = new_index("i", [0], 1, [0], details=("/x.BTreeIndexDetails", b""))
    table = drive(commit(store, CreateIndex((entry,)), read_version=1))
    assert "is missing" in drive(find_problems(store, table))[0]
    (folder,) = [one.path for _, one in drive(tracked_files(store)) if one.kind == "index file"]
    drive(store.put(folder + "page.lance", b"x"))
    assert drive(find_problems(store, table)) == []
    drive(commit(store, CreateIndex((), (entry,)), read_version=2))
    done = drive(cleanup(store, older_than=NOTHING))
    assert done.index_files_removed == 1


def test_deletion_files_are_kept_and_removed() -> None:
    store = overwritten(MemoryStore(), 1)
    for version, offsets in ((1, [0]), (2, [0, 1])):
        one = drive(load_manifest(store, version)).fragments[0]
        file = drive(write_deletions(store, one, offsets, version))
        drive(commit(store, Delete((replace(one, deletion_file=file),), ()), read_version=version))
    done = drive(cleanup(store, older_than=NOTHING))
    assert done.deletion_files_removed == 1
    assert drive(find_problems(store, drive(load_manifest(store, 3)))) == []
    assert drive(find_versions(store)).versions == [3]
