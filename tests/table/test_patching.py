"""Commits on long lists of fragments, which are not decoded: the same versions as on decoded ones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import pilum
from pilum.errors import CorruptFileError, InvalidInputError
from pilum.table import Append, Delete, Fragment, Manifest, Transaction, codec, new_index
from pilum.table.build import build_manifest
from pilum.table.fragment_codec import encode_fragment
from pilum.table.manifest_file import parse_manifest_file, serialize_manifest_file
from pilum.table.patching import EncodedList, any_deletions, file_shapes
from tests.table.samples import OPERATIONS, deleting
from tests.table.tables import fragment, memory_table

UUID = "00000000-0000-4000-8000-000000000000"


def deferred(manifest: Manifest) -> Manifest:
    """The manifest as it is read when its list of fragments is long."""
    return parse_manifest_file(serialize_manifest_file(manifest, None), "m").manifest


@pytest.fixture(autouse=True)
def long_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_EAGER_FRAGMENTS", 0)


def indexed(table: Manifest) -> Manifest:
    """The table with an index of a segment on the last column, and one of a segment for each fragment on the first."""
    kind = ("/lance.table.BTreeIndexDetails", b"")
    segments = [new_index("i", (0,), 1, (one.id,), details=kind) for one in table.fragments]
    last = new_index("j", (2,), 1, [one.id for one in table.fragments], details=kind)
    return replace(table, indices=(*segments, last))


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith("restore")])
@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("indices", [False, True])
def test_the_same_version_comes_of_an_encoded_list(name: str, deleted: bool, indices: bool) -> None:
    store, table = memory_table()
    if indices:
        table = indexed(table)
    if deleted:
        change = Delete((deleting(store, table.fragments[1], 0),), ())
        table = build_manifest(table, Transaction(1, UUID, change), 1)
    operation = OPERATIONS[name](store, table)
    transaction = Transaction(table.version, UUID, operation)
    expected = build_manifest(table, transaction, 2)
    built = build_manifest(deferred(table), transaction, 2)
    assert deferred(built) == deferred(expected)
    assert built.fragments == expected.fragments


@pytest.mark.parametrize("name", ["append", "delete id0 (f0)", "delete whole f0", "update rows id8 (f2)",
                                  "replace b f0", "project rename", "config k", "add base one"])  # fmt: skip
@pytest.mark.parametrize("indices", [False, True])
def test_a_long_list_stays_encoded(name: str, indices: bool) -> None:
    store, table = memory_table()
    operation = OPERATIONS[name](store, table)
    table = deferred(indexed(table) if indices else table)
    built = build_manifest(table, Transaction(1, UUID, operation), 2)
    assert table.pending is not None
    assert built.pending is not None
    assert built.unseen is None
    if indices:
        left = 2 if name == "delete whole f0" else 3
        assert [one.name for one in built.indices] == ["i"] * left + ["j"]


def test_the_last_deletion_file_takes_its_flag_along() -> None:
    store, table = memory_table()
    change = Delete((deleting(store, table.fragments[1], 0),), ())
    table = deferred(build_manifest(table, Transaction(1, UUID, change), 1))
    assert table.reader_flags == 1
    built = build_manifest(table, Transaction(1, UUID, Delete((), (0,))), 2)
    assert (built.reader_flags, built.writer_flags) == (1, 1)
    built = build_manifest(built, Transaction(1, UUID, Delete((), (1,))), 2)
    assert (built.reader_flags, built.writer_flags) == (0, 0)
    assert not any_deletions(built.encoded_fragments or [])


def test_what_is_not_there_is_refused_as_ever() -> None:
    _, table = memory_table()
    with pytest.raises(InvalidInputError, match="no fragment 7"):
        build_manifest(deferred(table), Transaction(1, UUID, Delete((), (7,))), 2)


def test_lists_out_of_order_and_damaged_ones() -> None:
    _, table = memory_table(fragments=5)
    encoded = [encode_fragment(one) for one in table.fragments]
    backwards = encoded[::-1]
    assert EncodedList.select(backwards, [0], "m") is None
    with pytest.raises(CorruptFileError):
        EncodedList.select([b"\xff", *encoded], [0], "m")
    for look in (any_deletions, file_shapes):
        with pytest.raises(CorruptFileError):
            look([b"\xff"])


def test_reserved_ids_are_put_in_their_place() -> None:
    _, table = memory_table()
    table = deferred(replace(table, max_fragment_id=9))
    built = build_manifest(table, Transaction(1, UUID, Append((fragment(fragment_id=7), fragment()))), 2)
    assert [one.id for one in built.fragments] == [0, 1, 2, 7, 10]
    built = build_manifest(deferred(built), Transaction(1, UUID, Append((fragment(fragment_id=5),))), 2)
    assert [one.id for one in built.fragments] == [0, 1, 2, 5, 7, 10]


def test_deleting_in_one_of_very_many_decodes_one() -> None:
    store, table = memory_table(fragments=20_000)
    change = Delete((deleting(store, table.fragments[11_111], 0),), ())
    table = deferred(table)
    built = build_manifest(table, Transaction(1, UUID, change), 2)
    assert built.pending is not None


def test_a_commit_decodes_no_fragment_that_its_handle_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is read again, since the table may have been replaced, but not decoded again."""
    rows = pa.table({"a": [1, 2, 3]})
    uri = tmp_path / "t.lance"
    monkeypatch.setattr(codec, "_EAGER_FRAGMENTS", 4096)
    ds = pilum.write_dataset(rows, uri, max_rows_per_file=1)
    counts: list[int] = []
    real = codec.decode_fragments

    def counting(encoded: Sequence[bytes], where: str) -> tuple[Fragment, ...]:
        counts.append(len(encoded))
        return real(encoded, where)

    monkeypatch.setattr(codec, "decode_fragments", counting)
    ds = pilum.dataset(uri)
    assert counts == [3]
    known = ds.aio.manifest.fragments
    ds.update_config({"k": "v"})
    ds.insert(rows)
    assert counts == [3]
    assert ds.count_rows() == 6
    assert sum(counts) == 3 + 4, "once more, since the handle moved twice without looking at its fragments"
    ds.update_config({"k": "w"})
    assert [one.id for one in ds.aio.manifest.fragments] == [0, 1, 2, 3]
    assert sum(counts) == 3 + 4
    assert known == ds.aio.manifest.fragments[:3]


def test_a_table_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    uri = tmp_path / "t.lance"
    ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), uri)
    shutil.rmtree(uri)
    pilum.write_dataset(pa.table({"a": [4]}), uri)
    assert ds.version == 1
    ds.update_config({"k": "v"})
    assert ds.to_table()["a"].to_pylist() == [4]
    shutil.rmtree(uri)
    pilum.write_dataset(pa.table({"a": [5]}), uri)
    pilum.write_dataset(pa.table({"a": [6]}), uri, mode="append")
    assert ds.version == 2
    ds.insert(pa.table({"a": [7]}))
    assert ds.to_table()["a"].to_pylist() == [5, 6, 7]
