"""Concurrent operations: every measured pair of the reference, the matrix of the specification, every letter."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace

import pytest

from pilum.errors import CommitConflictError, PilumError
from pilum.io import Store
from pilum.table import (
    Append,
    BasePath,
    Clone,
    CreateIndex,
    DataOverlay,
    DataReplacement,
    Delete,
    KeyFilter,
    Manifest,
    Merge,
    Opaque,
    Operation,
    Overwrite,
    Project,
    ReserveFragments,
    Restore,
    Rewrite,
    RewriteGroup,
    Transaction,
    Update,
    UpdateBases,
    UpdateConfig,
    UpdateMap,
    UpdateMemWalState,
    commit,
    covered_fragments,
    new_index,
    read_deletions,
)
from pilum.table.conflicts import MATRIX, conflict_between
from pilum.table.indices import FRAGMENT_REUSE, MEM_WAL
from pilum.table.operations import REWRITE_COLUMNS
from pilum.table.transaction import decode_transaction, encode_transaction
from tests.support import GOLDEN, SHARED
from tests.table.samples import OPERATIONS, added_column, deleting
from tests.table.tables import SCHEMA, data_file, drive, fragment, memory_table


def outcome(store: Store, mine: Operation, version: int = 1) -> str:
    """What becomes of an operation computed on a version, in the words of the golden file."""
    try:
        drive(commit(store, mine, read_version=version))
    except CommitConflictError as error:
        return "retryable" if error.retryable else "incompatible"
    return "ok"


@functools.cache
def measured() -> dict[str, dict[str, str]]:
    path = GOLDEN / "table" / "conflicts.json"
    return json.loads(path.read_text())["outcome"] if path.exists() else {}


@pytest.mark.golden
@pytest.mark.parametrize("mine", sorted(OPERATIONS))
def test_pairs_measured_with_the_reference(mine: str) -> None:
    expected = measured()[mine]
    found = {}
    for other in expected:
        store, table = memory_table()
        first, second = OPERATIONS[other](store, table), OPERATIONS[mine](store, table)
        drive(commit(store, first, read_version=1))
        found[other] = outcome(store, second)
    assert found == expected


@pytest.mark.golden
def test_every_pair_survives_being_stored() -> None:
    """The verdict is the same about a transaction of another process, read back from its message."""
    store, table = memory_table()
    values = {name: make(store, table) for name, make in OPERATIONS.items()}
    stored = {
        name: decode_transaction(encode_transaction(Transaction(1, "u", value)), "t").operation
        for name, value in values.items()
    }
    assert not any(isinstance(one, Opaque) for one in stored.values())
    for mine in values.values():
        for name, other in values.items():
            assert conflict_between(mine, stored[name]) == conflict_between(mine, other)


_COLUMNS = {
    "Append": "append",
    "Delete": "delete",
    "Update": "update",
    "Overwrite": "overwrite",
    "Restore": "restore",
    "CreateIndex": "create_index",
    "Rewrite": "rewrite",
    "Merge": "merge",
    "Project": "project",
    "DataRepl.": "data_replacement",
    "DataReplacement": "data_replacement",
    "UpdateConfig": "update_config",
    "ReserveFr.": "reserve_fragments",
    "ReserveFragments": "reserve_fragments",
    "UpdateBases": "update_bases",
    "MemWalState": "update_mem_wal_state",
    "DataOverlay": "data_overlay",
}


def specified() -> dict[tuple[str, str], str]:
    """The matrix of the specification, read from its text."""
    text = (SHARED / "spec" / "table.md").read_text()
    lines = text[text.index("| mine \\ theirs") :].splitlines()
    columns = [_COLUMNS[one.strip()] for one in lines[0].strip("|").split("|")[1:]]
    cells = {}
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        name, *row = [one.strip() for one in line.strip("|").split("|")]
        cells.update({(_COLUMNS[name], column): cell for column, cell in zip(columns, row, strict=True)})
    return cells


@pytest.mark.golden
def test_the_matrix_is_that_of_the_specification() -> None:
    cells = specified()
    assert len(cells) == 15 * 14
    for pair, cell in cells.items():
        ours = MATRIX[pair]
        # One condition decides letters of a cell together: R/X d, X d / n, R f k.
        verdict, _, letters = cell.replace("R/X", "X").partition(" ")
        wanted = re.sub("[^a-z]", "", letters) or ("c" if verdict == "c" else "")
        if pair in (("data_replacement", "project"), ("update", "update"), ("rewrite", "rewrite")):
            assert ours[1] in wanted
        elif wanted == "p":
            assert ours == "."  # nothing for the verdict, all for the rebase
        elif wanted == "g":
            assert ours == ".g"  # the condition gives R
        else:
            assert ours[1:] == wanted
            assert verdict in (ours[0], "c")


# -- every letter, in both orders ----------------------------------------------------------------------


def covering(name: str, *fragments: int, fields: tuple[int, ...] = (0,)) -> CreateIndex:
    return CreateIndex((new_index(name, fields, 1, fragments, details=("/x.BTreeIndexDetails", b"")),))


def bloom(bits: int, field: int = 0, items: int = 8192) -> Update:
    return Update(inserted_rows=KeyFilter((field,), None, bits.to_bytes(32, "little"), 256, items, 0.1))


def exact(*hashes: int) -> Update:
    return Update(inserted_rows=KeyFilter((0,), hashes))


def wal(generation: int, shard: bytes = b"s" * 16) -> UpdateMemWalState:
    return UpdateMemWalState(((shard, generation),))


def compacted(generation: int) -> Update:
    return Update(compacted_sstables=((b"s" * 16, generation),))


def group(*old: int) -> RewriteGroup:
    return RewriteGroup(tuple(replace(fragment(), id=one) for one in old), (fragment(),))


def deferred(*groups: RewriteGroup) -> Rewrite:
    entry = new_index(FRAGMENT_REUSE, (), 1, (), details=("/x.FragmentReuseIndexDetails", b""))
    return Rewrite(groups, frag_reuse_index=entry)


def overlay(*fragments: int) -> DataOverlay:
    return DataOverlay(frozenset(fragments), b"")


def config(**values: str | None) -> UpdateConfig:
    return UpdateConfig(UpdateMap(values))


def replaces(field: int, fragment_id: int = 0) -> DataReplacement:
    return DataReplacement(((fragment_id, data_file([field])),))


MOVES = Update(updated_fragments=(replace(fragment(), id=0),), new_fragments=(fragment(),))
COLUMNS = Update(
    updated_fragments=(replace(fragment(), id=0),), fields_modified=(1,), update_mode=REWRITE_COLUMNS
)
NULLABLE, REQUIRED = Merge((), added_column(), True), Merge((), added_column(False))
DROP_B = Project(SCHEMA.project(["id", "a"]), True)
SCHEMA_METADATA = UpdateConfig(schema_metadata=UpdateMap({"m": "1"}))
LOG_INDEX = CreateIndex((new_index(MEM_WAL, (), 1, (), details=("/x.MemWalIndexDetails", b"")),))


def overwrite(**config_: str) -> Overwrite:
    return Overwrite((), SCHEMA, None, config_)


def bases(base_id: int, path: str, name: str | None = None) -> UpdateBases:
    return UpdateBases((BasePath(base_id, path, name=name),))


# mine, theirs, verdict of mine after theirs, verdict of theirs after mine
PAIRS: dict[str, tuple[Operation, Operation, str, str]] = {
    "n: merge that adds a required column": (Append(()), REQUIRED, "R", "R"),
    "n: merge of nullable columns": (Append(()), NULLABLE, ".", "R"),
    "n: overlay": (overlay(0), Project(SCHEMA), "R", "R"),
    "k: keys and append": (exact(1), Append(()), "R", "."),
    "k: no keys and append": (Update(), Append(()), ".", "."),
    "k: same exact key": (exact(1, 2), exact(2), "R", "R"),
    "k: other exact key": (exact(1, 2), exact(3), ".", "."),
    "k: no filter": (exact(1), Update(), "R", "."),
    "k: shared bit": (bloom(6), bloom(4), "R", "R"),
    "k: no shared bit": (bloom(6), bloom(9), ".", "."),
    "k: other fields": (bloom(1), bloom(2, field=1), "R", "R"),
    "k: other parameters": (bloom(1), bloom(2, items=10), "R", "R"),
    "k: exact and bloom": (bloom(1), exact(2), "R", "R"),
    "o: two overwrites": (overwrite(), overwrite(), "R", "R"),
    "o: two overwrites with one key": (overwrite(k="1"), overwrite(k="2"), "X", "X"),
    "o: config": (overwrite(k="1"), config(k="2"), "X", "X"),
    "o: deleted config": (overwrite(k="1"), config(k=None), "X", "X"),
    "o: other config": (overwrite(k="1"), config(j="2"), ".", "."),
    "u: overwrite and schema metadata": (SCHEMA_METADATA, overwrite(), "X", "."),
    "u: set and deleted key": (config(k="1"), config(k=None), "X", "X"),
    "u: twice deleted key": (config(k=None), config(k=None), ".", "."),
    "u: replaced config": (UpdateConfig(UpdateMap({}, True)), config(k="1"), "X", "X"),
    "u: replaced table metadata": (
        UpdateConfig(table_metadata=UpdateMap({"a": "1"})),
        UpdateConfig(table_metadata=UpdateMap({}, True)),
        "X",
        "X",
    ),
    "u: field metadata": (
        UpdateConfig(field_metadata={1: UpdateMap({"a": "1"})}),
        UpdateConfig(field_metadata={1: UpdateMap({"b": "1"})}),
        "X",
        "X",
    ),
    "u: metadata of two fields": (
        UpdateConfig(field_metadata={1: UpdateMap({"a": "1"})}),
        UpdateConfig(field_metadata={2: UpdateMap({"a": "1"})}),
        ".",
        ".",
    ),
    "u: restore and config": (Restore(1), config(k="1"), ".", "."),
    "u: restore and schema metadata": (Restore(1), SCHEMA_METADATA, "X", "X"),
    "g: merge and schema metadata": (NULLABLE, SCHEMA_METADATA, "R", "R"),
    "g: merge and config": (NULLABLE, config(k="1"), ".", "."),
    "s: other name": (covering("i"), covering("j"), ".", "."),
    "s: same name": (covering("i"), covering("i"), "R", "R"),
    "b: covers none of the rewritten": (covering("i", 2), Rewrite((group(0, 1),)), ".", "."),
    "b: covers some": (covering("i", 1), Rewrite((group(0, 1),)), "R", "R"),
    "b: drops an index": (CreateIndex((), covering("i").new_indices), Rewrite((group(0),)), ".", "."),
    "b: deferred, inside": (deferred(group(0, 1)), covering("i", 0, 1, 2), ".", "."),
    "b: deferred, half inside": (deferred(group(0, 1)), covering("i", 1, 2), "R", "R"),
    "q: two fragment reuse indices": (deferred(group(0)), deferred(group(1)), "R", "R"),
    "f: two rewrites": (Rewrite((group(0),)), Rewrite((group(1),)), ".", "."),
    "m: merge and index": (NULLABLE, covering("i", 0), ".", "."),
    "m: merge and write-ahead log": (NULLABLE, LOG_INDEX, "R", "R"),
    "i: index of the replaced column": (covering("i", 0, fields=(2,)), replaces(2), "R", "R"),
    "i: index of another column": (covering("i", 0, fields=(1,)), replaces(2), ".", "."),
    "d: removed fragment": (replaces(2), Delete((), (0,)), "X", "R"),
    "d: removed by an update": (replaces(2), Update((0,)), "X", "R"),
    "d: moved rows": (replaces(2), MOVES, "R", "R"),
    "d: same column": (replaces(1), COLUMNS, "R", "R"),
    "d: other column": (replaces(2), COLUMNS, ".", "R"),
    "d: other fragment": (replaces(1, 1), MOVES, ".", "."),
    "d: dropped column": (replaces(2), DROP_B, "X", "."),
    "v: same column": (replaces(2), replaces(2), "R", "R"),
    "v: other column": (replaces(2), replaces(1), ".", "."),
    "a: same name": (bases(0, "/a", "n"), bases(0, "/b", "n"), "X", "X"),
    "a: same path": (bases(0, "/a"), bases(2, "/a"), "X", "X"),
    "a: same id": (bases(3, "/a"), bases(3, "/b"), "X", "X"),
    "a: assigned ids": (bases(0, "/a"), bases(0, "/b"), ".", "."),
    "c: later generation": (wal(5), wal(4), "R", "X"),
    "c: same generation": (wal(5), wal(5), "X", "X"),
    "c: other shard": (wal(5), wal(5, b"t" * 16), ".", "."),
    "c: update": (wal(5), compacted(4), "R", "X"),
    "c: the index of the log": (wal(5), LOG_INDEX, "R", "."),
    "w: another index": (covering("i"), wal(5), "X", "."),
    "e: overlaid rows moved": (overlay(0), MOVES, "R", "R"),
    "e: overlaid rows removed": (overlay(0), Delete((), (0,)), "R", "."),
    "e: columns": (overlay(0), COLUMNS, ".", "."),
    "reserve": (ReserveFragments(3), overwrite(), "X", "."),
    "reserve and append": (ReserveFragments(3), Append(()), ".", "."),
    "clone": (Clone(True, None, 1, "/x"), overwrite(), ".", "."),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_letters_in_both_orders(case: str) -> None:
    mine, theirs, forward, backward = PAIRS[case]

    def verdict(one: Operation, other: Operation) -> str:
        conflict = conflict_between(one, other)
        return "." if conflict is None else "R" if conflict.retryable else "X"

    assert (verdict(mine, theirs), verdict(theirs, mine)) == (forward, backward)


def test_operations_of_later_releases_conflict_with_everything() -> None:
    store, table = memory_table()
    for make in OPERATIONS.values():
        conflict = conflict_between(make(store, table), Opaque("unknown", b""))
        assert conflict is not None
        assert not conflict.retryable


def test_the_message_says_who_won() -> None:
    store, _ = memory_table()
    drive(commit(store, overwrite(), read_version=1))
    with pytest.raises(CommitConflictError, match=r"append cannot follow a concurrent overwrite.*version 2"):
        drive(commit(store, Append((fragment(),)), read_version=1))


# -- rebase --------------------------------------------------------------------------------------------


def after(*names: str) -> tuple[Store, Manifest]:
    """A table after some operations, all computed on version 1."""
    store, table = memory_table()
    made = [OPERATIONS[name](store, table) for name in names]
    for one in made:
        table = drive(commit(store, one, read_version=1))
    return store, table


def test_deletion_vectors_are_merged() -> None:
    store, table = after("delete id0 (f0)", "update rows id1 (f0)")
    assert drive(read_deletions(store, table.fragments[0])).tolist() == [0, 1]
    assert table.fragments[0].deletion_file.file_type == 1  # type: ignore[union-attr]
    assert table.num_rows == 8


def test_a_fragment_emptied_by_two_writers_goes() -> None:
    store, table = memory_table(1, rows=2)
    made = [Delete((deleting(store, table.fragments[0], offset),), ()) for offset in (0, 1)]
    for one in made:
        table = drive(commit(store, one, read_version=1))
    assert table.fragments == ()


def test_a_projection_keeps_concurrent_field_metadata() -> None:
    _, table = after("field metadata a", "project rename")
    assert table.schema.field("renamed").metadata == {"m": "1"}
    _, table = after("schema metadata", "project rename")
    assert table.schema.metadata == {"m": "1"}


def test_a_column_update_keeps_files_that_others_put_there() -> None:
    _, table = after("project drop b", "update columns f0")
    assert [file.fields for file in table.fragments[0].files] == [(0, -2, 2), (1,)]
    _, table = after("update columns f0", "replace b f0")
    assert [file.fields for file in table.fragments[0].files] == [(0, -2, -2), (1,), (2,)]


def test_a_new_index_does_not_cover_rewritten_columns() -> None:
    store, table = memory_table()
    index = covering("i", 0, 1, 2, fields=(1,))
    drive(commit(store, OPERATIONS["update columns f0"](store, table), read_version=1))
    table = drive(commit(store, index, read_version=1))
    assert covered_fragments(table.indices[0]) == {1, 2}


def test_conflicts_are_errors_of_pilum_and_of_the_system() -> None:
    assert issubclass(CommitConflictError, PilumError)
    assert issubclass(CommitConflictError, OSError)
