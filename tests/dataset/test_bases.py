"""Data files in base paths: who gets which file, what stays in the table's folder, and what cleanup must not touch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum
import pilum.aio
from pilum import DatasetBasePath, LanceOperation
from pilum.dataset import writing
from pilum.errors import AlreadyExistsError, CommitConflictError, InvalidInputError, StoreError
from pilum.io import LocalStore
from tests.dataset.test_durability import Disk

ROWS = pa.table({"a": range(10)})


def files(root: Path) -> list[str]:
    """Data files below a folder, relative to it, their names left out."""
    return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob("*.lance"))


def owners(ds: Any) -> list[int | None]:
    """Base of the first file of each fragment."""
    return [one.data_files()[0].base_id for one in ds.get_fragments()]


def values(ds: Any) -> list[int]:
    found: list[int] = ds.to_table()["a"].to_pylist()
    return found


class Places:
    """Addresses for a table and its bases."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.table, self.b1, self.b2 = (str(root / name) for name in ("table", "b1", "b2"))
        self.bases = [DatasetBasePath(self.b1, "b1"), DatasetBasePath(self.b2, "b2", is_dataset_root=True)]

    def write(self, rows: int = 2, mode: str = "create", **options: Any) -> pilum.LanceDataset:
        if mode == "create":
            options = {"initial_bases": self.bases, **options}
        return pilum.write_dataset(ROWS, self.table, mode=mode, max_rows_per_file=rows, **options)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


# -- which base gets which file ------------------------------------------------------------------------


def test_files_go_to_the_targets_in_turns(places: Places) -> None:
    ds = places.write(target_bases=["b1", "b2"])
    assert owners(ds) == [1, 2, 1, 2, 1]
    assert files(places.root) == ["b1"] * 3 + ["b2/data"] * 2
    assert {number: (one.path, one.name, one.is_dataset_root) for number, one in ds.base_paths().items()} == {
        1: (places.b1, "b1", False),
        2: (places.b2, "b2", True),
    }
    assert values(pilum.dataset(places.table)) == list(range(10))
    # The turns begin anew with every write; without targets files go to the table.
    ds.insert(ROWS, target_bases=["b2", "b1"], max_rows_per_file=5)
    ds.insert(ROWS)
    assert owners(ds)[5:] == [2, 1, None]
    assert values(ds) == [*range(10)] * 3
    ds.validate()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target_bases": ["b2"]}, [2, 2, 2, 2, 2]),
        ({"target_bases": ["b1", "b1", "b2"]}, [1, 1, 2, 1, 1]),
        ({"target_bases": ["PATH/b1", "b2"]}, [1, 2, 1, 2, 1]),
        ({"target_bases": ["PATH/b2/", "PATH/table"]}, [2, None, 2, None, 2]),
        ({"target_bases": []}, [None] * 5),
        ({"target_all_bases": True}, [None, 1, 2, None, 1]),
        ({"target_all_bases": False}, [1, 2, 1, 2, 1]),
        ({"target_all_bases": True, "target_bases": []}, [None, 1, 2, None, 1]),
        ({}, [None] * 5),
    ],
)
@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_targets(places: Places, mode: str, options: Mapping[str, Any], expected: list[int | None]) -> None:
    names = [name.replace("PATH", str(places.root)) for name in options.get("target_bases", [])]
    options = {**options, **({"target_bases": names} if "target_bases" in options else {})}
    if mode != "create":
        places.write()
    ds = places.write(mode=mode, **options)
    assert owners(ds)[-5:] == expected
    assert values(ds)[-10:] == list(range(10))


def test_ids_of_new_bases(places: Places) -> None:
    bases = [
        DatasetBasePath(str(places.root / name), name, id=number)
        for name, number in (("x", 7), ("y", None), ("z", 1), ("u", 0))
    ]
    ds = places.write(initial_bases=bases, target_all_bases=False)
    assert {number: one.name for number, one in ds.base_paths().items()} == {7: "x", 2: "y", 1: "z", 3: "u"}
    assert owners(ds) == [1, 2, 3, 7, 1]
    ds.add_bases([DatasetBasePath(places.b1, "more")])
    ds.insert(ROWS, target_bases=["more"])
    assert owners(ds)[-1] == 8
    assert files(places.root)[0] == "b1"


def test_a_name_comes_before_an_address(places: Places) -> None:
    bases = [DatasetBasePath(places.b2, "b1"), DatasetBasePath(places.b1, places.b2)]
    ds = places.write(initial_bases=bases, target_bases=[places.b2])
    assert owners(ds) == [2] * 5
    assert files(places.root) == ["b1"] * 5


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_modes_that_create_take_new_bases(places: Places, mode: str) -> None:
    ds = places.write(mode=mode, initial_bases=places.bases, target_bases=["b1"])
    assert owners(ds) == [1] * 5


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("append", {"target_bases": ["b3"]}, r"no base path 'b3' \(known: 'b1', 'b2'\)"),
        ("overwrite", {"target_bases": ["b1", "b3"]}, "no base path 'b3'"),
        ("append", {"initial_bases": [DatasetBasePath("/x", "x")]}, "use add_bases"),
        ("overwrite", {"initial_bases": [DatasetBasePath("/x", "x")]}, "use add_bases"),
        ("append", {"target_bases": ["b1"], "target_all_bases": True}, "either target_bases or"),
        ("append", {"target_bases": ["b1"], "target_all_bases": False}, "either target_bases or"),
        ("append", {"initial_bases": [DatasetBasePath("/x", id=2), DatasetBasePath("/y", id=2)]}, "same id"),
    ],
)
def test_what_does_not_fit_is_refused(
    places: Places, mode: str, options: Mapping[str, Any], message: str
) -> None:
    places.write(target_bases=["b1"])
    before = sorted(places.root.rglob("*"))
    with pytest.raises(InvalidInputError, match=message):
        places.write(mode=mode, **options)
    assert sorted(places.root.rglob("*")) == before


def test_a_new_dataset_has_only_the_bases_it_is_given(places: Places) -> None:
    with pytest.raises(InvalidInputError, match=r"no base path 'b3' \(known: none\)"):
        pilum.write_dataset(ROWS, places.table, target_bases=["b3"])
    with pytest.raises(InvalidInputError, match="no base paths to write into"):
        pilum.write_dataset(ROWS, places.table, target_all_bases=False)
    assert list(places.root.iterdir()) == []
    assert owners(pilum.write_dataset(ROWS, places.table, target_all_bases=True)) == [None]


def test_wrong_types(places: Places) -> None:
    with pytest.raises(TypeError, match="DatasetBasePath"):
        pilum.write_dataset(ROWS, places.table, initial_bases=[places.b1])
    with pytest.raises(TypeError, match="list of texts"):
        places.write(target_bases="b1")
    with pytest.raises(TypeError, match="must be texts"):
        places.write(target_bases=[1])
    assert list(places.root.iterdir()) == []


def test_what_a_clone_was_made_of_is_not_written_into(places: Places) -> None:
    source = pilum.write_dataset(ROWS, places.b1)
    clone = source.shallow_clone(places.table, source.version)
    assert list(clone.base_paths()) == [0]
    with pytest.raises(InvalidInputError, match="cloned from"):
        clone.insert(ROWS, target_bases=[places.b1])
    clone.add_bases([DatasetBasePath(places.b2, "b2")])
    clone.insert(ROWS, target_all_bases=True, max_rows_per_file=5)
    assert owners(clone) == [0, None, 1]
    assert values(clone) == [*range(10)] * 2


# -- other ways to write -------------------------------------------------------------------------------


@pytest.mark.parametrize("create", [True, False])
def test_fragments_that_are_committed_later(places: Places, create: bool) -> None:
    if not create:
        places.write()
    options = {"initial_bases": places.bases} if create else {}
    made: Any = pilum.write_fragments(
        ROWS, places.table, mode="create" if create else "append", max_rows_per_file=4,
        target_bases=["b2", "b1"], return_transaction=True, **options,
    )  # fmt: skip
    assert [one.files[0].base_id for one in made.operation.fragments] == [2, 1, 2]
    if create:
        assert [(one.id, one.name) for one in made.operation.initial_bases] == [(1, "b1"), (2, "b2")]
    ds = pilum.LanceDataset.commit(places.table, made)
    assert owners(ds)[-3:] == [2, 1, 2]
    assert values(ds)[-10:] == list(range(10))


def test_a_commit_does_not_name_bases_that_are_not_there(places: Places) -> None:
    made = pilum.write_fragments(
        ROWS, places.table, mode="create", initial_bases=places.bases, target_bases=["b2"]
    )
    assert isinstance(made, list)
    with pytest.raises(InvalidInputError, match="base path 2, which the table does not have"):
        pilum.LanceDataset.commit(places.table, LanceOperation.Overwrite(ROWS.schema, made))
    ds = pilum.write_dataset(ROWS, places.table)
    with pytest.raises(InvalidInputError, match="base path 2, which the table does not have"):
        pilum.LanceDataset.commit(ds, LanceOperation.Append(made), read_version=1)
    overwrite = LanceOperation.Overwrite(ROWS.schema, made, initial_bases=places.bases)
    with pytest.raises(InvalidInputError, match="when it is created"):
        pilum.LanceDataset.commit(ds, overwrite, read_version=1)
    with pytest.raises(InvalidInputError, match="two base paths have the same id"):
        pilum.LanceDataset.commit(str(places.root / "new"), overwrite)
    assert values(pilum.dataset(places.table)) == list(range(10))


def test_awaitable_and_in_memory(places: Places) -> None:
    async def main() -> None:
        bases = [DatasetBasePath("memory://bases-other", "m"), DatasetBasePath(places.b1, "b1")]
        ds = await pilum.aio.write_dataset(
            ROWS, "memory://bases-table", initial_bases=bases, target_bases=["m", "b1"], max_rows_per_file=5
        )
        await ds.insert(ROWS, target_all_bases=True, max_rows_per_file=4)
        assert [one.stored.files[0].base_id for one in ds.get_fragments()] == [1, 2, None, 1, 2]
        assert values_of(await ds.to_table()) == [*range(10)] * 2
        made = await pilum.aio.write_fragments(ROWS, ds, target_bases=["m"])
        assert isinstance(made, list)
        assert made[0].files[0].base_id == 1

    def values_of(table: pa.Table) -> list[int]:
        found: list[int] = table["a"].to_pylist()
        return found

    asyncio.run(main())
    assert files(places.root) == ["b1"] * 2
    assert values(pilum.dataset("memory://bases-table")) == [*range(10)] * 2


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_formats(places: Places, version: str) -> None:
    ds = places.write(target_bases=["b1", "b2"], data_storage_version=version)
    assert values(pilum.dataset(places.table)) == list(range(10))
    assert ds.take([7, 2])["a"].to_pylist() == [7, 2]


# -- what else happens to such a table -----------------------------------------------------------------


def test_changes_stay_in_the_folder_of_the_table(places: Places) -> None:
    ds = places.write(target_bases=["b1", "b2"])
    elsewhere = files(places.root)
    ds.delete("a % 3 = 0")
    ds.update({"a": "a + 100"}, "a = 4")
    ds.add_columns({"b": "a * 2"})
    ds.alter_columns({"path": "b", "data_type": pa.int32()})
    assert [path for path in files(places.root) if path.startswith("b")] == elsewhere
    assert len(list((places.root / "table" / "_deletions").iterdir())) >= 4
    # Row 4 had been alone with row 5, which stays.
    assert owners(ds) == [1, 2, 1, 2, 1, None]
    assert sorted(values(ds)) == [1, 2, 5, 7, 8, 104]
    again = pilum.dataset(places.table)
    assert sorted(values(again)) == [1, 2, 5, 7, 8, 104]
    again.validate()
    (places.root / elsewhere[0]).rename(places.root / "gone")
    with pytest.raises(OSError, match=r"b1/\d.*missing|missing.*b1"):
        pilum.dataset(places.table).validate()


def test_clones_and_branches(places: Places) -> None:
    ds = places.write(target_bases=["b1", "b2"])
    ds.insert(ROWS)
    clone = ds.shallow_clone(places.root / "clone", ds.version)
    assert values(clone) == [*range(10)] * 2
    clone.insert(ROWS, target_bases=["b1"])
    deep = ds.deep_clone(places.root / "deep", ds.version)
    assert (owners(deep), deep.base_paths()) == ([None] * 6, {})
    branch = ds.create_branch("br")
    branch.insert(ROWS, target_bases=["b2"])
    branch.insert(ROWS, target_bases=[str(places.root / "table" / "tree" / "br")])
    assert owners(branch)[-2:] == [2, None]
    for one, rows in ((clone, 30), (deep, 20), (branch, 40), (ds, 20)):
        one.validate()
        assert one.count_rows() == rows
    # What others have put to the bases is nobody's to remove.
    ds.insert(ROWS, mode="overwrite")
    ds.cleanup_old_versions(timedelta(0), delete_unverified=True)
    for one, rows in ((clone, 30), (deep, 20), (branch, 40), (ds, 10)):
        one.validate()
        assert one.count_rows() == rows


def test_cleanup_and_lists(places: Places) -> None:
    ds = places.write(target_bases=["b1", "b2"])
    ds.insert(ROWS, mode="overwrite", target_bases=["b1"])
    elsewhere = files(places.root)
    removed = ds.cleanup_old_versions(timedelta(0), delete_unverified=True)
    assert (removed.old_versions, removed.data_files_removed) == (1, 0)
    assert files(places.root) == elsewhere  # bases are not looked through
    assert values(pilum.dataset(places.table)) == list(range(10))
    tracked = [(one["base_uri"], one["type"]) for one in ds.tracked_files().read_all().to_pylist()]
    assert (places.b1, "data file") in tracked
    assert {one["base_uri"] for one in ds.all_files().read_all().to_pylist()} == {places.table}


@pytest.mark.skipif(os.name == "nt", reason="makes links")
def test_cleanup_knows_bases_inside_the_table(places: Places) -> None:
    """Whatever address a base has: files that lie in the table's own folder are in use."""
    data = places.root / "table" / "data"
    data.mkdir(parents=True)
    (places.root / "link").symlink_to(data)
    (places.root / "table link").symlink_to(places.table)
    bases = [
        DatasetBasePath(str(data), "inside"),
        DatasetBasePath(str(data / "deep"), "deeper"),
        DatasetBasePath(places.table, "itself", is_dataset_root=True),
        DatasetBasePath(f"file://{places.table}", "scheme", is_dataset_root=True),
        DatasetBasePath(str(places.root / "link"), "link"),
        DatasetBasePath(str(places.root / "table link"), "table link", is_dataset_root=True),
    ]
    ds = places.write(rows=1, initial_bases=bases, target_all_bases=False)
    assert set(owners(ds)) == {1, 2, 3, 4, 5, 6}
    ds.update_config({"k": "v"})
    ds.cleanup_old_versions(timedelta(0), delete_unverified=True)
    assert values(pilum.dataset(places.table)) == list(range(10))
    ds.insert(ROWS, mode="overwrite")
    ds.cleanup_old_versions(timedelta(0), delete_unverified=True)
    assert values(pilum.dataset(places.table)) == list(range(10))
    assert files(data) == ["."]


# -- durability and failures ---------------------------------------------------------------------------


@pytest.mark.fault
@pytest.mark.skipif(os.name == "nt", reason="counts inodes")
@pytest.mark.parametrize("speed", [1e9, -1.0], ids=["fast disk", "slow disk"])
def test_files_in_bases_are_on_disk_before_the_version(
    places: Places, monkeypatch: pytest.MonkeyPatch, speed: float
) -> None:
    from pilum.io import durable

    monkeypatch.setattr(durable, "_SLOW_SYNC_SECONDS", speed)
    # All folders count, not only those of a table.
    disk = Disk(places.root, monkeypatch)
    checked = []

    def link(source: str, target: str) -> None:
        if target.endswith(".manifest"):
            for path in places.root.rglob("*.lance"):
                assert disk.has_content(path)
                assert disk.has_name(path)
                checked.append(path)
        disk.link(source, target)

    monkeypatch.setattr(os, "link", link)
    ds = places.write(rows=1, target_bases=["b1", "b2"])
    ds.insert(ROWS, target_all_bases=True, max_rows_per_file=1)
    ds.insert(ROWS, mode="overwrite", target_bases=["b2"])
    assert len(checked) == 10 + 20 + 21


@pytest.mark.fault
@pytest.mark.parametrize("where", ["b1", "b2/data", "table/data", "table/_versions"])
def test_a_failure_leaves_nothing(places: Places, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Wherever it happens, no version refers to new files, and none are left."""
    ds = places.write(target_all_bases=True)
    before = sorted(path for path in places.root.rglob("*") if path.is_file())
    folder = os.path.join(places.root, *where.split("/"))
    seen = []
    real_open, real_link = os.open, os.link

    def check(path: str) -> None:
        if os.path.dirname(path) == folder:
            seen.append(path)
            if where == "table/_versions" or len(seen) == 2:
                raise OSError(28, "No space left on device")

    def opened(path: str, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT and not where.endswith("_versions"):
            check(path)
        return real_open(path, flags, *args, **options)

    def linked(source: str, target: str) -> None:
        check(target)
        real_link(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opened)
        patched.setattr(os, "link", linked)
        with pytest.raises(StoreError, match="No space left"):
            ds.insert(ROWS, target_all_bases=True, max_rows_per_file=1)
    assert seen
    left = sorted(path for path in places.root.rglob("*") if path.is_file())
    if where == "table/_versions":
        # The error may hide a success: files that a version might name are kept.
        assert [path for path in left if "_versions" in path.parts or "_transactions" in path.parts] == [
            path for path in before if "_versions" in path.parts or "_transactions" in path.parts
        ]
    else:
        assert left == before
    assert values(pilum.dataset(places.table)) == list(range(10))


@pytest.mark.fault
def test_a_refused_commit_removes_its_files(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = places.write(target_bases=["b1"])
    before = files(places.root)

    async def refused(*args: Any, **options: Any) -> Any:
        raise CommitConflictError("no")

    with monkeypatch.context() as patched:
        patched.setattr(writing, "commit", refused)
        with pytest.raises(CommitConflictError):
            ds.insert(ROWS, target_bases=["b1", "b2", places.table], max_rows_per_file=1)
    assert files(places.root) == before
    # So does one that loses the race to create.
    with monkeypatch.context() as patched:

        async def nothing(*args: Any) -> None:
            return None

        patched.setattr(writing, "_current", nothing)
        with pytest.raises(AlreadyExistsError):
            places.write(target_bases=["b2"])
    assert files(places.root) == before


def test_a_child_store_that_is_inside(places: Places) -> None:
    """A base in the folder of the table shares its store."""
    inner = DatasetBasePath(os.path.join(places.table, "cold"), "cold", is_dataset_root=True)
    ds = places.write(initial_bases=[inner], target_bases=["cold"])
    assert files(places.root) == ["table/cold/data"] * 5
    assert values(pilum.dataset(places.table)) == list(range(10))
    assert LocalStore(places.table).folder_at(inner.path) == "cold"
    ds.cleanup_old_versions(timedelta(0), delete_unverified=True)
    ds.validate()


# -- with the reference --------------------------------------------------------------------------------


def reference() -> Any:
    return pytest.importorskip("lance")


def reference_bases(ds: Any) -> dict[int, tuple[str, str | None, bool]]:
    return {number: (one.path, one.name, one.is_dataset_root) for number, one in ds._ds.base_paths().items()}


@pytest.mark.interop
@pytest.mark.parametrize("stable", [False, True])
def test_the_reference_reads_and_continues(places: Places, stable: bool) -> None:
    lance = reference()
    ds = places.write(target_bases=["b1", "b2"], enable_stable_row_ids=stable)
    ds.insert(ROWS, target_all_bases=True, max_rows_per_file=3)
    ds.delete("a = 7")
    theirs = lance.dataset(places.table)
    assert theirs.to_table().equals(ds.to_table())
    assert owners(theirs) == owners(ds) == [1, 2, 1, 2, 1, None, 1, 2, None]
    assert reference_bases(theirs) == {
        number: (one.path, one.name, one.is_dataset_root) for number, one in ds.base_paths().items()
    }
    theirs.validate()
    lance.write_dataset(ROWS, theirs, mode="append", target_bases=["b2", "b1"], max_rows_per_file=5)
    theirs.add_bases([lance.DatasetBasePath(str(places.root / "b3"), "b3")])
    again = pilum.dataset(places.table)
    again.insert(ROWS, target_bases=["b3"])
    assert owners(again)[-3:] == [2, 1, 3]
    theirs = lance.dataset(places.table)
    assert theirs.to_table().equals(again.to_table())
    assert theirs.count_rows() == 38
    theirs.optimize.compact_files()
    assert sorted(values(pilum.dataset(places.table))) == sorted(values(again))


@pytest.mark.interop
def test_the_reference_begins(places: Places) -> None:
    lance = reference()
    bases = [
        lance.DatasetBasePath(places.b1, "b1"),
        lance.DatasetBasePath(places.b2, "b2", is_dataset_root=True),
    ]
    lance.write_dataset(
        ROWS, places.table, initial_bases=bases, target_bases=["b1", "b2"], max_rows_per_file=2
    )
    ds = pilum.dataset(places.table)
    assert (values(ds), owners(ds)) == (list(range(10)), [1, 2, 1, 2, 1])
    ds.insert(ROWS, target_bases=["b2"])
    ds.insert(ROWS, mode="overwrite", target_bases=["b1", places.table], max_rows_per_file=5)
    theirs = lance.dataset(places.table)
    assert (values(theirs), owners(theirs)) == (list(range(10)), [1, None])
    assert values(lance.dataset(places.table, version=2)) == [*range(10)] * 2
    ds.cleanup_old_versions(timedelta(0), delete_unverified=True)
    assert values(lance.dataset(places.table)) == list(range(10))


@pytest.mark.interop
@pytest.mark.parametrize("numbers", [[1, 2], [2], [5], [1, 3]])
def test_clones_number_their_source_as_the_reference_does(places: Places, numbers: list[int]) -> None:
    """With the first id that is free, from 0."""
    lance = reference()
    bases = [DatasetBasePath(str(places.root / str(number)), id=number) for number in numbers]
    ds = places.write(initial_bases=bases, target_all_bases=False)
    ours = [ds.shallow_clone(places.root / "c", 1)]
    ours.append(ours[0].shallow_clone(places.root / "cc", 1))
    theirs = [lance.dataset(places.table).shallow_clone(str(places.root / "t"), 1)]
    theirs.append(theirs[0].shallow_clone(str(places.root / "tt"), 1))
    for one, other in zip(ours, theirs, strict=True):
        assert set(one.base_paths()) == set(reference_bases(other))
        assert owners(one) == owners(other)
        assert values(one) == values(other) == values(lance.dataset(one.uri))


@pytest.mark.interop
def test_transactions_cross(places: Places) -> None:
    """Who writes the fragments and who commits them may be different."""
    lance = reference()
    from lance.fragment import write_fragments

    bases = [lance.DatasetBasePath(places.b1, "b1"), lance.DatasetBasePath(places.b2, "b2", True)]
    theirs = write_fragments(
        ROWS, places.table, mode="create", initial_bases=bases, target_bases=["b2", "b1"], max_rows_per_file=4
    )
    fragments = [pilum.FragmentMetadata.from_json(str_of(one.to_json())) for one in theirs]
    numbered = [DatasetBasePath(places.b1, "b1", id=1), DatasetBasePath(places.b2, "b2", True, id=2)]
    ds = pilum.LanceDataset.commit(
        places.table, LanceOperation.Overwrite(ROWS.schema, fragments, initial_bases=numbered)
    )
    assert (values(ds), owners(ds)) == (list(range(10)), [2, 1, 2])
    ours = pilum.write_fragments(ROWS, ds, target_bases=["b1"])
    assert isinstance(ours, list)
    append = lance.LanceOperation.Append(
        [lance.FragmentMetadata.from_json(str_of(one.to_json())) for one in ours]
    )
    both = lance.LanceDataset.commit(places.table, append, read_version=1)
    assert (values(both), owners(both)) == ([*range(10)] * 2, [2, 1, 2, 1])
    assert values(pilum.dataset(places.table)) == [*range(10)] * 2


def str_of(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)
