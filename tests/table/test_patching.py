"""Commits on long lists of fragments, which are not decoded: the same versions as on decoded ones."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from pilum.errors import CorruptFileError, InvalidInputError
from pilum.table import Append, Delete, Manifest, Transaction, codec
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


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith("restore")])
@pytest.mark.parametrize("deleted", [False, True])
def test_the_same_version_comes_of_an_encoded_list(name: str, deleted: bool) -> None:
    store, table = memory_table()
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
def test_a_long_list_stays_encoded(name: str) -> None:
    store, table = memory_table()
    operation = OPERATIONS[name](store, table)
    table = deferred(table)
    built = build_manifest(table, Transaction(1, UUID, operation), 2)
    assert table.pending is not None
    assert built.pending is not None


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


def test_deleting_in_one_of_very_many_is_fast() -> None:
    store, table = memory_table(fragments=20_000)
    change = Delete((deleting(store, table.fragments[11_111], 0),), ())
    table = deferred(table)
    started = time.process_time()
    built = build_manifest(table, Transaction(1, UUID, change), 2)
    assert time.process_time() - started < 0.05
    assert built.pending is not None
