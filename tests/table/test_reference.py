"""pilum and the reference on one table: our commits read by it, and concurrent pairs with both as writers."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.io import LocalStore
from pilum.table import (
    Append,
    Delete,
    Fragment,
    Restore,
    Transaction,
    UpdateConfig,
    UpdateMap,
    commit,
    data_file_name,
    find_problems,
    fragment_from_json,
    fragment_to_json,
    latest_version,
    list_versions,
    load_manifest,
    merge_appends,
    migrate_to_stable_row_ids,
    read_deletions,
    read_transactions,
    write_deletions,
)
from tests.support import GOLDEN, expected_table
from tests.table.samples import OPERATIONS
from tests.table.tables import copy_golden, drive
from tests.table.test_conflicts import measured, outcome

pytestmark = [pytest.mark.interop, pytest.mark.golden]

lance = pytest.importorskip("lance")

TABLES = GOLDEN / "table"


def cases() -> list[str]:
    """Golden tables with known content that lie in one folder."""
    elsewhere = {"clone_shallow", "multi_base"}
    return [path.stem for path in sorted(TABLES.glob("*.lance")) if (TABLES / f"{path.stem}.arrow").exists()
            and path.stem not in elsewhere]  # fmt: skip


def twin(folder: Path, fragment: Fragment) -> Fragment:
    """A new fragment with copies of another one's files."""
    files = []
    for file in fragment.files:
        name = data_file_name()
        shutil.copy(folder / "data" / file.path, folder / "data" / name)
        files.append(replace(file, path=name))
    return Fragment(0, tuple(files), fragment.physical_rows)


@pytest.mark.parametrize("case", cases())
def test_the_reference_reads_what_we_commit(case: str, tmp_path: Path) -> None:
    folder = copy_golden(f"{case}.lance", tmp_path)
    store = LocalStore(folder)
    start = drive(latest_version(store))
    try:
        table = drive(load_manifest(store, start))
    except UnsupportedError:
        return  # refused, as the golden README says
    expected = expected_table(TABLES / f"{case}.arrow")
    rows = len(expected)
    added = 0
    if table.fragments:
        first = table.fragments[0]
        table = drive(commit(store, Append((twin(folder, first),)), read_version=table.version))
        added = first.physical_rows
        gone = drive(read_deletions(store, first)).tolist()
        offset = next(one for one in range(first.physical_rows) if one not in gone)
        if first.num_rows == 1:
            delete = Delete((), (first.id,), "first row")
        else:
            file = drive(write_deletions(store, first, [*gone, offset], table.version))
            delete = Delete((replace(first, deletion_file=file),), (), "first row")
        table = drive(commit(store, delete, read_version=table.version))
        expected = expected.slice(1)
    table = drive(commit(store, UpdateConfig(UpdateMap({"pilum": "1"})), read_version=table.version))
    theirs = lance.dataset(folder)
    assert theirs.version == table.version
    assert theirs.config()["pilum"] == "1"
    theirs.validate()
    found = theirs.to_table()
    assert len(found) == rows + added - bool(added)
    assert found.slice(0, len(expected)).equals(expected)
    if table.uses_stable_row_ids:
        ids = theirs.to_table(columns=[], with_row_id=True)["_rowid"].to_pylist()
        assert len(set(ids)) == len(ids)
        assert max(ids) < table.next_row_id
    assert [one["version"] for one in theirs.versions()] == drive(list_versions(store))
    assert drive(find_problems(store, table)) == []
    # And on top of ours the reference commits again.
    theirs.update_config({"reference": "1"})
    theirs.delete("true")
    newest = drive(load_manifest(store, drive(latest_version(store))))
    assert (newest.num_rows, newest.config["reference"]) == (0, "1")
    restored = drive(commit(store, Restore(start), read_version=newest.version))
    again = lance.dataset(folder)
    assert again.version == restored.version
    assert again.to_table().equals(expected_table(TABLES / f"{case}.arrow"))


# -- concurrent pairs ----------------------------------------------------------------------------------

Theirs = Callable[[Any, Path], Any]
Operation = lance.LanceOperation


def _column_file(folder: Path, column: str) -> Any:
    """A data file with new values for a column of three rows."""
    other = folder.with_suffix(".column")
    fragment = lance.LanceFragment.create(other, pa.table({column: pa.array([7, 8, 9], pa.int32())}))
    (file,) = fragment.files
    shutil.copy(other / "data" / file.path, folder / "data" / file.path)
    return file


def _replacement(which: int) -> Theirs:
    def make(table: Any, folder: Path) -> Any:
        file = _column_file(folder, "b")
        file.fields = [2]
        return Operation.DataReplacement([Operation.DataReplacementGroup(which, file)])

    return make


def _rewrite(*which: int) -> Theirs:
    def make(table: Any, folder: Path) -> Any:
        fragments = [table.get_fragment(one).metadata for one in which]
        data = pa.concat_tables([table.get_fragment(one).to_table() for one in which])
        new = lance.LanceFragment.create(folder, data)
        group = Operation.RewriteGroup(old_fragments=fragments, new_fragments=[new])
        return Operation.Rewrite(groups=[group], rewritten_indices=[])

    return make


# Operations of the golden file that the public API of the reference can make without committing.
THEIRS: dict[str, Theirs] = {
    "append": lambda table, folder: Operation.Append(
        [lance.LanceFragment.create(folder, table.get_fragment(0).to_table())]
    ),
    "delete f0 no affected rows": lambda table, folder: Operation.Delete(
        [table.get_fragment(0).delete("id = 1")], [], "x"
    ),
    "delete whole f0": lambda table, folder: Operation.Delete([], [0], "x"),
    "overwrite": lambda table, folder: Operation.Overwrite(
        table.schema, [lance.LanceFragment.create(folder, table.get_fragment(0).to_table())]
    ),
    "rewrite f0..f2": _rewrite(0, 1, 2),
    "rewrite f2": _rewrite(2),
    "restore v1": lambda table, folder: Operation.Restore(1),
    "config k": lambda table, folder: Operation.UpdateConfig(
        config_updates=Operation.UpdateMap(updates={"k": "1"}, replace=False)
    ),
    "config k2": lambda table, folder: Operation.UpdateConfig(
        config_updates=Operation.UpdateMap(updates={"k2": "1"}, replace=False)
    ),
    "schema metadata": lambda table, folder: Operation.UpdateConfig(
        schema_metadata_updates=Operation.UpdateMap(updates={"m": "1"}, replace=False)
    ),
    "table metadata m": lambda table, folder: Operation.UpdateConfig(
        table_metadata_updates=Operation.UpdateMap(updates={"m": "1"}, replace=False)
    ),
    "field metadata a": lambda table, folder: Operation.UpdateConfig(
        field_metadata_updates={1: Operation.UpdateMap(updates={"m": "1"}, replace=False)}
    ),
    "replace b f0": _replacement(0),
    "replace b f2": _replacement(2),
}


def new_table(folder: Path) -> Any:
    if folder.exists():
        shutil.rmtree(folder)
    numbers = pa.array(range(9), pa.int32())
    data = pa.table({"id": numbers, "a": numbers, "b": numbers})
    return lance.write_dataset(data, folder, max_rows_per_file=3)


def their_outcome(folder: Path, operation: Any) -> str:
    try:
        lance.LanceDataset.commit(folder, operation, read_version=1)
    except Exception as error:
        text = str(error).lower()
        return "retryable" if "retryable" in text or "please retry" in text else "incompatible"
    return "ok"


@functools.cache
def known() -> dict[str, dict[str, str]]:
    return measured()


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_pairs_with_the_reference_as_one_writer(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "t.lance"
    store = LocalStore(folder)
    wrong = []
    for ours in OPERATIONS:
        # The reference commits first, then we do.
        table = new_table(folder)
        theirs = THEIRS[name](table, folder)
        mine = OPERATIONS[ours](store, drive(load_manifest(store, 1)))
        assert their_outcome(folder, theirs) == "ok"
        found = outcome(store, mine)
        if found != known()[ours][name]:
            wrong.append(("ours second", ours, found, known()[ours][name]))
        if found == "ok":
            assert lance.dataset(folder).version == 3
        # We commit first.
        table = new_table(folder)
        theirs = THEIRS[name](table, folder)
        mine = OPERATIONS[ours](store, drive(load_manifest(store, 1)))
        assert outcome(store, mine) == "ok"
        found = their_outcome(folder, theirs)
        if found != known()[name][ours]:
            wrong.append(("ours first", ours, found, known()[name][ours]))
        versions = drive(list_versions(store))
        assert all(drive(read_transactions(store, versions)))
        drive(load_manifest(store, versions[-1]))
    assert wrong == []


def test_fragments_as_json(tmp_path: Path) -> None:
    for case in ("stable_update", "del_bitmap", "old_cols_6_0_1", "clone_shallow"):
        folder = copy_golden(f"{case}.lance", tmp_path)
        store = LocalStore(folder)
        manifest = drive(load_manifest(store, drive(latest_version(store))))
        for one, theirs in zip(manifest.fragments, lance.dataset(folder).get_fragments(), strict=True):
            assert fragment_to_json(one) == theirs.metadata.to_json()
            assert fragment_from_json(json.dumps(fragment_to_json(one))) == one
            again = lance.fragment.FragmentMetadata.from_json(json.dumps(fragment_to_json(one)))
            assert again.to_json() == theirs.metadata.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": -1, "files": []}', '{"id": 1, "files": [{}]}',
                                  '{"id": 1, "files": [], "row_id_meta": {"External": []}}',
                                  '{"id": 1, "files": [], "overlays": [1]}'])  # fmt: skip
def test_json_that_is_no_fragment(text: str) -> None:
    with pytest.raises(InvalidInputError):
        fragment_from_json(text)


def test_rows_of_an_existing_table_get_stable_ids(tmp_path: Path) -> None:
    folder = tmp_path / "t.lance"
    table = new_table(folder)
    table.delete("id = 4")
    store = LocalStore(folder)
    made = drive(migrate_to_stable_row_ids(store))
    assert (made.version, made.next_row_id, made.uses_stable_row_ids) == (3, 9, True)
    assert drive(migrate_to_stable_row_ids(store)).version == 3
    table = lance.dataset(folder)
    assert table.has_stable_row_ids
    rows = table.to_table(columns=["id"], with_row_id=True)
    assert rows["_rowid"].to_pylist() == rows["id"].to_pylist() == [0, 1, 2, 3, 5, 6, 7, 8]
    table.update({"a": "7"}, where="id = 3")
    rows = lance.dataset(folder).to_table(columns=["id"], with_row_id=True)
    assert rows["_rowid"].to_pylist() == rows["id"].to_pylist()
    newest = drive(load_manifest(store, 4))
    assert drive(find_problems(store, newest)) == []
    other = new_table(tmp_path / "indexed.lance")
    other.create_scalar_index("id", "BTREE")
    with pytest.raises(InvalidInputError, match="drop the indices"):
        drive(migrate_to_stable_row_ids(LocalStore(tmp_path / "indexed.lance")))


def test_appends_are_committed_together(tmp_path: Path) -> None:
    folder = tmp_path / "t.lance"
    new_table(folder)
    store = LocalStore(folder)
    first = drive(load_manifest(store, 1)).fragments[0]
    appends = [Transaction(1, str(n), Append((twin(folder, first),)), {str(n): "x"}) for n in range(3)]
    merged = merge_appends(appends)
    made = drive(commit(store, merged.operation, read_version=1, transaction=merged))
    assert (made.version, len(made.fragments)) == (2, 6)
    assert lance.dataset(folder).count_rows() == 18
    assert set(merged.properties) == {"0", "1", "2"}
    for wrong in ([], [replace(appends[0], operation=Restore(1))]):
        with pytest.raises(InvalidInputError):
            merge_appends(wrong)
