"""The version hint: believed when it was the last change in its folder, ignored otherwise."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pilum.io import LocalStore, MemoryStore, Store
from pilum.table import Append, Overwrite, cleanup, commit, latest_version, list_versions
from pilum.table.hint import read_hint
from pilum.table.naming import NamingScheme, manifest_path
from pilum.table.versions import find_newest
from tests.table.tables import SCHEMA, drive, fragment

HINT = "_versions/latest_version_hint.json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = LocalStore(tmp_path / "t")
    drive(commit(store, Overwrite((), SCHEMA), read_version=None))
    for version in range(1, 5):
        drive(commit(store, Append((fragment(),)), read_version=version))
    return store


def test_it_is_believed_after_a_commit(store: Store) -> None:
    assert read_hint(store) == (5, NamingScheme.V2)
    assert drive(find_newest(store, 2)) == (5, NamingScheme.V2, 3)
    drive(commit(store, Append((fragment(),)), read_version=3))
    assert read_hint(store) == (6, NamingScheme.V2)


def test_no_listing_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, *args: object) -> None:
        raise AssertionError("listed")

    monkeypatch.setattr(LocalStore, "list_names", refuse)
    assert drive(latest_version(store)) == 5
    drive(commit(store, Append((fragment(),)), read_version=5))
    assert drive(latest_version(store)) == 6


def newer_without_hint(store: Store) -> None:
    source, target = (os.path.join(store.uri, manifest_path(one)) for one in (5, 6))
    time.sleep(0.05)
    shutil.copy(source, target)


def removed(store: Store) -> None:
    time.sleep(0.05)
    os.unlink(os.path.join(store.uri, manifest_path(2)))


def written_by_hand(store: Store) -> None:
    time.sleep(0.05)
    Path(store.uri, HINT).write_text('{"version":3}')


def garbage(store: Store) -> None:
    Path(store.uri, HINT).write_bytes(b"\xff" * 1000)


def of_no_version(store: Store) -> None:
    Path(store.uri, HINT).write_text('{"version":77}')


def missing(store: Store) -> None:
    Path(store.uri, HINT).unlink()


@pytest.mark.parametrize(
    "change", [newer_without_hint, removed, written_by_hand, garbage, of_no_version, missing]
)
def test_it_is_ignored_after_anything_else(store: Store, change: object) -> None:
    change(store)  # type: ignore[operator]
    assert read_hint(store) is None
    assert drive(latest_version(store)) == max(drive(list_versions(store)))


def test_a_stale_hint_beside_a_gap(store: Store) -> None:
    """Versions behind a stale hint were removed: it must not pass for the newest."""
    hint = Path(store.uri, HINT)
    for version in range(6, 9):
        drive(commit(store, Append((fragment(),)), read_version=version - 1))
    hint.write_text('{"version":4}')
    time.sleep(0.05)
    for version in (5, 6):
        os.unlink(os.path.join(store.uri, manifest_path(version)))
    assert drive(latest_version(store)) == 8


def test_after_a_cleanup_versions_are_listed(store: Store) -> None:
    time.sleep(0.05)
    drive(cleanup(store, retain_versions=1))
    assert drive(latest_version(store)) == 5
    assert drive(list_versions(store)) == [5]


def test_it_can_be_switched_off_and_needs_a_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_hint(MemoryStore()) is None
    monkeypatch.setenv("LANCE_USE_VERSION_HINT", "false")
    assert read_hint(store) is None
    assert drive(latest_version(store)) == 5


def test_it_is_written_over(store: Store) -> None:
    hint = Path(store.uri, HINT)
    before = hint.stat().st_ino
    drive(commit(store, Append((fragment(),)), read_version=5))
    assert hint.read_bytes() == b'{"version":6}'
    assert hint.stat().st_ino == before
    assert read_hint(store) == (6, NamingScheme.V2)


def test_one_that_a_copy_shares_is_not_written_over(store: Store, tmp_path: Path) -> None:
    hint, shared = Path(store.uri, HINT), tmp_path / "shared"
    os.link(hint, shared)
    drive(commit(store, Append((fragment(),)), read_version=5))
    assert hint.read_bytes() == b'{"version":6}'
    assert shared.read_bytes() == b'{"version":5}'


def test_a_longer_one_leaves_nothing_behind(store: Store) -> None:
    hint = Path(store.uri, HINT)
    hint.write_bytes(b'{"version": 123456789}')
    drive(commit(store, Append((fragment(),)), read_version=5))
    assert hint.read_bytes() == b'{"version":6}'


def test_it_is_believed_where_syncs_take_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit changes the folder long before the hint is written."""
    real = os.fsync

    def slow(descriptor: int) -> None:
        real(descriptor)
        time.sleep(0.02)

    monkeypatch.setattr(os, "fsync", slow)
    drive(commit(store, Append((fragment(),)), read_version=5))
    assert read_hint(store) == (6, NamingScheme.V2)


@pytest.mark.interop
def test_hints_of_the_reference(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    import pyarrow as pa

    uri = str(tmp_path / "t")
    for number in range(5):
        lance.write_dataset(pa.table({"a": [number]}), uri, mode="append" if number else "create")
        assert drive(latest_version(LocalStore(uri))) == number + 1
        assert read_hint(LocalStore(uri)) in (None, (number + 1, NamingScheme.V2))
    drive(commit(LocalStore(uri), Append(()), read_version=5))
    assert lance.dataset(uri).version == 6


def test_of_very_many_versions_the_newest_is_found_without_reading_all_names(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer_without_hint(store)
    folder = Path(store.uri, "_versions")
    body = Path(store.uri, manifest_path(5)).read_bytes()
    for version in range(7, 1100):
        (folder / Path(manifest_path(version)).name).write_bytes(body)
    monkeypatch.setattr("pilum.table.versions.read_listing", None)
    assert drive(find_newest(store)) == (1099, NamingScheme.V2, 0)
    assert drive(find_newest(store, 1000)) == (1099, NamingScheme.V2, 99)
