"""Rare features of the format: hidden lineage, columns carried in indices, files of several versions, leftovers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum
from pilum.errors import CorruptFileError, InvalidInputError, RetryTimeoutError, UnsupportedError
from pilum.file import FileWriter
from pilum.io import LocalStore, MemoryStore, Store
from pilum.proto import table_pb2 as pb
from pilum.schema import Field, Schema
from pilum.table import (
    Append,
    CreateIndex,
    DataFile,
    DataReplacement,
    Delete,
    Manifest,
    Overwrite,
    Project,
    Transaction,
    cleanup,
    codec,
    commit,
    covered_fragments,
    created_versions,
    data_file_name,
    fragment_row_ids,
    list_versions,
    load_manifest,
    new_index,
    updated_versions,
    waiting,
)
from pilum.table.build import build_manifest
from pilum.table.indices import edit_index
from pilum.table.manifest_file import parse_manifest_file, serialize_manifest_file
from pilum.table.naming import manifest_path
from pilum.table.transaction import encode_transaction, new_uuid
from tests.table.tables import SCHEMA, data_file, drive, fragment, memory_table

# -- hidden lineage ------------------------------------------------------------------------------------


def with_hidden_lineage(column: str) -> Manifest:
    """A table whose first fragment keeps part of its lineage in a column."""
    store = MemoryStore()
    create = Overwrite((fragment(), fragment()), SCHEMA)
    table = drive(commit(store, create, read_version=None, stable_row_ids=True))
    extra = pb.DataFragment(**{column: pb.RowLineageColumn()}).SerializeToString()  # type: ignore[arg-type]
    gone = {
        "row_id_column": {"row_ids": None},
        "created_at_version_column": {"created_at": None},
        "last_updated_at_version_column": {"last_updated_at": None},
    }[column]
    first = replace(table.fragments[0], extra=extra, **gone)  # type: ignore[arg-type]
    return replace(table, fragments=(first, table.fragments[1]))


@pytest.mark.parametrize("eager", [0, 100])
@pytest.mark.parametrize(
    "column", ["row_id_column", "created_at_version_column", "last_updated_at_version_column"]
)
def test_hidden_lineage_is_read_around_and_not_written(
    column: str, eager: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_EAGER_FRAGMENTS", eager)
    table = parse_manifest_file(serialize_manifest_file(with_hidden_lineage(column), None), "m").manifest
    assert [one.id for one in table.fragments] == [0, 1]  # it opens
    if column == "row_id_column":
        with pytest.raises(UnsupportedError, match="row ids outside"):
            fragment_row_ids(table.fragments[0])
    for operation in (Append((fragment(),)), Delete((), (1,))):
        fresh = parse_manifest_file(serialize_manifest_file(table, None), "m").manifest
        with pytest.raises(UnsupportedError, match="hidden columns"):
            build_manifest(fresh, Transaction(1, new_uuid(), operation), 1)


def load_raw(uri: Path, version: int) -> Manifest:
    """A version as its manifest says, without what is in columns."""
    return parse_manifest_file((uri / manifest_path(version)).read_bytes(), "m").manifest


LINEAGE = ["_rowid", "_row_created_at_version", "_row_last_updated_at_version"]


def hidden_table(uri: Path, version: str, damage: str = "") -> pa.Table:
    """A table with a history whose newest version keeps all lineage in columns; returns its rows with lineage.

    No writer makes such a table by default, so the version is put there by hand.
    """
    rows = pa.table({"id": range(9), "s": [str(number) for number in range(9)]})
    ds = pilum.write_dataset(
        rows, uri, max_rows_per_file=4, enable_stable_row_ids=True, data_storage_version=version
    )
    ds.delete("id = 2")
    ds.update({"s": "'new'"}, "id = 1 OR id = 6")
    expected = ds.to_table(columns=["id", "s", *LINEAGE])
    store, manifest = LocalStore(uri), ds.manifest
    ids = {"row_id_column": -3, "created_at_version_column": -4, "last_updated_at_version_column": -5}
    fragments = []
    for one in manifest.fragments:
        values = [
            fragment_row_ids(one).to_array(),
            created_versions(one).to_array(),
            updated_versions(one).to_array(),
        ]
        batch = pa.RecordBatch.from_arrays([pa.array(each, pa.uint64()) for each in values], names=list(ids))
        if damage == "rows":
            batch = batch.slice(1)
        fields = tuple(Field(key, name, "uint64", False, {}, (), -1) for name, key in ids.items())
        name = data_file_name()
        numbers = tuple(int(part) for part in version.split("."))
        assert len(numbers) == 2

        async def write() -> int:
            writer = await FileWriter.create(store, f"data/{name}", Schema(fields, {}), version=numbers)  # noqa: B023
            await writer.write(batch)  # noqa: B023
            return (await writer.finish()).size

        size = drive(write())
        listed = (-3, -4, 77) if damage == "column" else (-3, -4, -5)
        columns = (0, 1, 2)
        file = DataFile(name, listed, columns, numbers, size)
        extra = pb.DataFragment(
            **{key: pb.RowLineageColumn() for key in ids},  # type: ignore[arg-type]
            metadata={"kept": b"1"},
        ).SerializeToString()
        fragments.append(
            replace(
                one,
                files=(*one.files, file),
                extra=extra,
                row_ids=None,
                created_at=None,
                last_updated_at=None,
            )
        )
    version_number = manifest.version + 1
    hidden = replace(manifest, version=version_number, fragments=tuple(fragments), transaction_file="")
    (uri / manifest_path(version_number)).write_bytes(serialize_manifest_file(hidden, None))
    return expected


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_hidden_lineage_is_read(tmp_path: Path, version: str) -> None:
    expected = hidden_table(tmp_path / "t", version)
    ds = pilum.dataset(tmp_path / "t")
    assert ds.version == 4
    assert ds.to_table(columns=["id", "s", *LINEAGE]).equals(expected)
    ids = expected["_rowid"].to_pylist()
    assert ds.aio.snapshot.manifest.next_row_id == 9
    assert ds._take_rows(ids[::-1]).to_pydict()["id"] == expected["id"].to_pylist()[::-1]
    ds.validate()
    assert all(one.row_ids is None for one in load_raw(tmp_path / "t", 4).fragments)


@pytest.mark.interop
def test_the_reference_reads_hidden_lineage_as_well(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    expected = hidden_table(tmp_path / "t", "2.2")
    theirs = lance.dataset(str(tmp_path / "t"))
    assert theirs.to_table(columns=["id", "s", *LINEAGE]).equals(expected)


WRITES: dict[str, Callable[[pilum.LanceDataset], Any]] = {
    "append": lambda ds: ds.insert(pa.table({"id": [50], "s": ["x"]})),
    "delete": lambda ds: ds.delete("id = 3"),
    "delete a fragment": lambda ds: ds.delete("id < 4"),
    "update": lambda ds: ds.update({"s": "'again'"}, "id >= 5"),
    "config": lambda ds: ds.update_config({"k": "v"}),
    "add": lambda ds: ds.add_columns({"twice": "id * 2"}),
    "cast": lambda ds: ds.alter_columns({"path": "id", "data_type": pa.int32()}),
}


@pytest.mark.interop
@pytest.mark.parametrize("eager", [0, 100])
@pytest.mark.parametrize("name", WRITES)
def test_a_commit_stores_hidden_lineage_in_the_manifest(
    tmp_path: Path, name: str, eager: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows keep their ids and versions, but for those that the change is about."""
    lance = pytest.importorskip("lance")
    monkeypatch.setattr(codec, "_EAGER_FRAGMENTS", eager)
    hidden_table(tmp_path / "t", "2.2")
    ds = pilum.dataset(tmp_path / "t")
    before = ds.to_table(columns=["id", *LINEAGE])
    WRITES[name](ds)
    ds = pilum.dataset(tmp_path / "t")
    ds.validate()
    after = ds.to_table(columns=["id", *LINEAGE])
    kept = {row["id"]: row for row in before.to_pylist()}
    for row in after.to_pylist():
        old = kept.get(row["id"])
        if old is None:
            assert row["id"] == 50
            assert (row["_rowid"], row["_row_created_at_version"]) == (9, 5)
        else:
            assert row["_rowid"] == old["_rowid"]
            assert row["_row_created_at_version"] == old["_row_created_at_version"]
            changed = name in ("add", "cast") or (name == "update" and row["id"] >= 5)
            expected = 5 if changed else old["_row_last_updated_at_version"]
            assert row["_row_last_updated_at_version"] == expected
    parsed = load_raw(tmp_path / "t", 5)
    assert all(one.row_ids is not None for one in parsed.fragments)
    assert not any(
        -5 <= field <= -3 for one in parsed.fragments for file in one.files for field in file.fields
    )
    theirs = lance.dataset(str(tmp_path / "t"))
    assert theirs.to_table(columns=["id", *LINEAGE]).equals(after)


@pytest.mark.parametrize(
    ("damage", "message"),
    [("rows", "rows, row_ids in data/"), ("column", "last_updated_at in a column, which 0")],
)
def test_hidden_lineage_that_does_not_fit(tmp_path: Path, damage: str, message: str) -> None:
    hidden_table(tmp_path / "t", "2.2", damage)
    with pytest.raises(CorruptFileError, match=message):
        pilum.dataset(tmp_path / "t")


def test_hidden_lineage_whose_file_is_gone(tmp_path: Path) -> None:
    """The table opens; its ids are not known, and it is not written to."""
    hidden_table(tmp_path / "t", "2.2")
    for one in load_raw(tmp_path / "t", 4).fragments:
        (tmp_path / "t" / "data" / one.files[-1].path).unlink()
    ds = pilum.dataset(tmp_path / "t")
    assert ds.to_table(columns=["id"]).num_rows == 8
    with pytest.raises(UnsupportedError, match="row ids outside"):
        ds.to_table(columns=["_rowid"])
    with pytest.raises(UnsupportedError, match="hidden columns"):
        ds.update_config({"k": "v"})


# -- columns that an index carries along ---------------------------------------------------------------


def covering() -> tuple[Store, Manifest]:
    """A table with an index on field 0 that carries field 2."""
    store, _ = memory_table()
    index = new_index("i", (0, 2), 1, (0, 1, 2), details=("/lance.table.BTreeIndexDetails", b""))
    index = edit_index(index, lambda message: message.covering_fields.append(2))
    return store, drive(commit(store, CreateIndex((index,)), read_version=1))


def test_the_flag_follows_the_indices() -> None:
    store, table = covering()
    assert (table.reader_flags, table.writer_flags) == (128, 128)
    table = drive(commit(store, Append((fragment(),)), read_version=2))
    assert (table.reader_flags, table.writer_flags) == (128, 128)
    assert pb.IndexMetadata.FromString(table.indices[0].message).covering_fields == [2]
    table = drive(commit(store, CreateIndex((), table.indices), read_version=3))
    assert (table.reader_flags, table.writer_flags) == (0, 0)


def test_new_values_of_a_carried_column_end_the_coverage() -> None:
    for field, left in ((1, {0, 1, 2}), (2, {0, 2}), (0, {0, 2})):
        store, _ = covering()
        operation = DataReplacement(((1, data_file([field])),))
        table = drive(commit(store, operation, read_version=2))
        assert covered_fragments(table.indices[0]) == left


@pytest.mark.interop
def test_the_reference_reads_a_table_with_carried_columns(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    rows = pa.table({"id": pa.array(range(20), pa.int64()), "x": pa.array(range(20), pa.int64())})
    theirs = lance.write_dataset(rows, str(tmp_path / "t"), max_rows_per_file=10)
    theirs.create_scalar_index("id", "BTREE")
    store = LocalStore(tmp_path / "t")
    manifest = drive(load_manifest(store, theirs.version))

    def carry(message: pb.IndexMetadata) -> None:
        message.fields.append(1)  # carried columns are among the fields
        message.covering_fields.append(1)

    index = edit_index(manifest.indices[0], carry)
    manifest = drive(commit(store, CreateIndex((index,), manifest.indices), read_version=manifest.version))
    assert manifest.reader_flags == 128
    ds = pilum.dataset(tmp_path / "t")
    ds.insert(rows.slice(0, 3))
    ds.delete("id = 4")
    theirs = lance.dataset(str(tmp_path / "t"))
    assert theirs.to_table().to_pydict() == ds.to_table().to_pydict()
    theirs.delete("id = 5")
    ds.checkout_latest()
    assert ds.manifest.reader_flags & 128
    assert ds.count_rows() == 21


# -- files of several versions -------------------------------------------------------------------------


@pytest.mark.interop
def test_a_table_of_mixed_files_grows(tmp_path: Path) -> None:
    """Both engines read, append to and delete from a table whose files differ in version."""
    lance = pytest.importorskip("lance")
    uri = tmp_path / "t"
    ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), uri, data_storage_version="2.2")
    other = pilum.write_dataset(pa.table({"a": [4, 5]}), tmp_path / "o", data_storage_version="2.1")
    (old,) = other.manifest.fragments
    os.rename(tmp_path / "o" / "data" / old.files[0].path, uri / "data" / old.files[0].path)
    with pytest.raises(InvalidInputError, match=r"2\.1"):
        drive(commit(LocalStore(uri), Append((replace(old, id=0),)), read_version=1))
    # No writer makes such a table yet, so this version is put there by hand.
    marked = replace(ds.manifest, reader_flags=256, writer_flags=256)
    append = Transaction(1, new_uuid(), Append((replace(old, id=0),)))
    mixed = build_manifest(marked, append, time.time_ns())
    assert (mixed.reader_flags, mixed.writer_flags) == (256, 256)
    data = serialize_manifest_file(mixed, encode_transaction(append))
    (uri / manifest_path(2)).write_bytes(data)
    ds = pilum.dataset(uri)
    assert ds.to_table()["a"].to_pylist() == [1, 2, 3, 4, 5]
    ds.insert(pa.table({"a": [6]}))
    ds.delete("a = 4")
    theirs = lance.dataset(str(uri))
    assert theirs.to_table()["a"].to_pylist() == [1, 2, 3, 5, 6]
    lance.write_dataset(pa.table({"a": [7]}), str(uri), mode="append")
    ds.checkout_latest()
    assert ds.to_table()["a"].to_pylist() == [1, 2, 3, 5, 6, 7]
    assert ds.manifest.reader_flags & ds.manifest.writer_flags & 256


# -- leftovers of killed writers -----------------------------------------------------------------------


def test_temporary_files_are_removed_when_they_are_old(tmp_path: Path) -> None:
    ds = pilum.write_dataset(pa.table({"a": [1]}), tmp_path / "t")
    ds.insert(pa.table({"a": [2]}))
    folder = tmp_path / "t"
    old, young = [], []
    for place in ("data", "_versions", "_transactions", "_deletions", "data/stem"):
        (folder / place).mkdir(exist_ok=True)
        for files, name, age in ((old, "old", 8), (young, "young", 6)):
            path = folder / place / f".pilum-{name}.tmp"
            path.write_bytes(b"123")
            then = time.time() - age * 86400
            os.utime(path, (then, then))
            files.append(path)
    foreign = folder / "data" / ".pilum-lock"
    foreign.touch()
    explained = ds.explain_cleanup_old_versions(retain_versions=5, include_files=True)
    assert {folder / one.path for one in explained.candidate_files} == set(old)
    stats = ds.cleanup_old_versions(retain_versions=5)
    assert (stats.bytes_removed, stats.data_files_removed) == (15, 2)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in young)
    ds.cleanup_old_versions(timedelta(0), delete_unverified=True)
    assert not any(path.exists() for path in young)
    assert foreign.exists()
    assert pilum.dataset(ds.uri).count_rows() == 2


# -- commits that take too long ------------------------------------------------------------------------


def test_a_commit_takes_half_an_hour_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = memory_table()
    monkeypatch.setattr(waiting, "_COMMIT_LIMIT_SECONDS", -1.0)
    with pytest.raises(RetryTimeoutError, match="nothing was published"):
        drive(commit(store, Append((fragment(),)), read_version=1))
    assert drive(list_versions(store)) == [1]


@pytest.mark.parametrize("how", ["commit", "detached", "create", "batch"])
def test_a_commit_on_a_local_disk_ends_in_its_time(tmp_path: Path, how: str) -> None:
    rows = pa.table({"a": [1]})
    ds = pilum.write_dataset(rows, tmp_path / "t.lance")
    append = pilum.LanceOperation.Append([pilum.LanceFragment.create(ds.uri, rows)])
    commit_it: Callable[..., Any] = {
        "commit": partial(pilum.LanceDataset.commit, ds, append, 1),
        "detached": partial(pilum.LanceDataset.commit, ds, append, 1, detached=True),
        "create": partial(
            pilum.LanceDataset.commit,
            tmp_path / "new.lance",
            pilum.LanceOperation.Overwrite(ds.schema, append.fragments),
        ),
        "batch": partial(pilum.LanceDataset.commit_batch, ds, [pilum.Transaction(1, append)]),
    }[how]
    with pytest.raises(TimeoutError, match="not committed within 0 s; nothing was published"):
        commit_it(commit_timeout=timedelta(0))
    assert not list((tmp_path / "new.lance").glob("_versions/*"))
    assert len(list(Path(ds.uri).glob("_transactions/*"))) == 1
    assert pilum.dataset(ds.uri).version == 1
    with pytest.raises(InvalidInputError, match="negative"):
        pilum.LanceDataset.commit(ds, append, 1, commit_timeout=-timedelta(1))
    assert pilum.LanceDataset.commit(ds, append, 1, commit_timeout=timedelta(seconds=60)).count_rows() == 2


def test_pauses_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(waiting, "pause", pause)
    monkeypatch.setattr(waiting.random, "randrange", lambda slots: slots - 1)
    moments = iter([0.0, 2.0, 3.0, 5.5])
    monkeypatch.setattr(waiting.time, "monotonic", lambda: next(moments))
    backoff = waiting.Backoff(5.0)
    assert drive(backoff.wait())
    assert drive(backoff.wait())
    assert pauses == [3.0, 2.0]
    with pytest.raises(RetryTimeoutError, match="within 5 s"):
        backoff.check("t")


def test_cleanup_of_a_store_without_leftovers() -> None:
    store, table = memory_table()
    drive(commit(store, Project(table.schema, True), read_version=1))
    assert drive(cleanup(store, retain_versions=1)).old_versions == 1
