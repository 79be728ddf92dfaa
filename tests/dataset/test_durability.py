"""A version has its name when all it refers to is on disk, and is on disk itself when the change returns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum
from pilum.errors import StoreError
from pilum.io import durable

pytestmark = [pytest.mark.fault, pytest.mark.skipif(os.name == "nt", reason="counts inodes")]


class Disk:
    """What ``fsync`` has put on disk: by inode the state of a file, and the names in a folder."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.files: dict[int, tuple[int, int]] = {}
        self.names: dict[int, set[str]] = {}
        self.published: list[Path] = []
        self._fsync, self._link = os.fsync, os.link
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "link", self.link)

    def fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        try:
            names = set(os.listdir(descriptor))
        except NotADirectoryError:
            self.files[status.st_ino] = (status.st_size, status.st_mtime_ns)
        else:
            self.names[status.st_ino] = names
        self._fsync(descriptor)

    def link(self, source: str, target: str) -> None:
        if target.endswith(".manifest"):
            self.published.append(Path(target))
            assert self.has_content(Path(source)), "the manifest"
            for folder in ("data", "_deletions", "_indices"):
                for path in (self.root / folder).rglob("*"):
                    if not durable.is_temporary(path.name):
                        assert self.has_name(path), path
                        assert path.is_dir() or self.has_content(path), path
        self._link(source, target)

    def has_content(self, path: Path) -> bool:
        status = path.stat()
        return self.files.get(status.st_ino) == (status.st_size, status.st_mtime_ns)

    def has_name(self, path: Path) -> bool:
        return path.name in self.names.get(path.parent.stat().st_ino, ())


ROWS = pa.table({"id": range(100), "s": [str(number) for number in range(100)]})

CHANGES: dict[str, Callable[[pilum.LanceDataset], Any]] = {
    "append": lambda ds: ds.insert(ROWS),
    "append many files": lambda ds: ds.insert(ROWS, max_rows_per_file=2),
    "overwrite": lambda ds: ds.insert(ROWS, mode="overwrite", max_rows_per_file=30),
    "delete": lambda ds: ds.delete("id % 7 = 1"),
    "update": lambda ds: ds.update({"s": "'x'"}, "id > 50"),
    "merge": lambda ds: ds.merge(pa.table({"id": [1], "m": ["x"]}), "id"),
    "add": lambda ds: ds.add_columns({"twice": "id * 2"}),
    "cast": lambda ds: ds.alter_columns({"path": "id", "data_type": pa.int32()}),
    "restore": lambda ds: ds.restore(),
    "config": lambda ds: ds.update_config({"k": "v"}),
}


@pytest.fixture(params=["fast disk", "slow disk"])
def speed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow disks are synced on threads."""
    monkeypatch.setattr(durable, "_SLOW_SYNC_SECONDS", 1e9 if request.param == "fast disk" else -1.0)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("speed")
def test_what_a_version_needs_is_on_disk_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    disk = Disk(tmp_path / "t.lance", monkeypatch)
    ds = pilum.write_dataset(ROWS, disk.root, max_rows_per_file=40)
    CHANGES[name](ds)
    assert len(disk.published) > 1
    for path in disk.published:
        assert disk.has_name(path)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.usefixtures("speed")
def test_an_append_that_cannot_be_synced_did_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    ds = pilum.write_dataset(ROWS, tmp_path / "t.lance")
    calls = iter(range(100))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == number:
            raise OSError(5, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        if number < 3:  # data file, its folder, manifest
            with pytest.raises(StoreError, match="Input/output error"):
                ds.insert(ROWS)
        else:
            # The folder of the manifest is last: then the version is there, and found to be ours.
            ds.insert(ROWS)
    assert pilum.dataset(ds.uri).count_rows() == (100 if number < 3 else 200)
    assert not [path for path in Path(ds.uri).rglob("*") if durable.is_temporary(path.name)]
    pilum.dataset(ds.uri).insert(ROWS)
    assert pilum.dataset(ds.uri).count_rows() == (200 if number < 3 else 300)


def test_what_a_fragment_loses_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion file is committed later, maybe elsewhere."""
    ds = pilum.write_dataset(ROWS, tmp_path / "t.lance")
    disk = Disk(tmp_path / "t.lance", monkeypatch)
    ds.get_fragments()[0].delete("id = 3")
    (path,) = (disk.root / "_deletions").iterdir()
    assert disk.has_name(path)
    assert disk.has_content(path)


@pytest.mark.parametrize(("name", "number"), [("append", 4), ("delete", 6), ("update", 8), ("config", 2)])
def test_files_of_a_change_are_synced_once_and_so_are_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """New files, their folders, the manifest, its folder: a deletion file for each of three fragments, too."""
    ds = pilum.write_dataset(ROWS, tmp_path / "t.lance", max_rows_per_file=40)
    ds.delete("id = 99")  # then all folders are there
    calls = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(real(descriptor)))
    {**CHANGES, "update": lambda ds: ds.update({"s": "'x'"}, "id % 7 = 1")}[name](ds)
    assert len(calls) == number


def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    """A file has it from the start; one that is there stays until the new one is complete."""
    path = tmp_path / "x"
    file = durable.TemporaryFile(str(path), True)
    file.write([memoryview(b"half")])
    assert [one.name for one in tmp_path.iterdir()] == ["x"]
    file.discard()
    assert not list(tmp_path.iterdir())
    for content in (b"first", b"second"):
        file = durable.TemporaryFile(str(path), True)
        file.write([memoryview(content)])
        if content == b"second":
            assert path.read_bytes() == b"first"
        file.name(None)
        assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_syncs_take_so_many_files(tmp_path: Path) -> None:
    syncs = durable.Syncs()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for number in range(20):
        file = durable.TemporaryFile(str(tmp_path / str(number)))
        file.write([memoryview(b"x")])
        file.name(syncs)
    assert not syncs.takes(1)
    syncs.close()
    assert syncs.takes(1)
    assert not syncs.takes(1 << 30)
    assert len(list(tmp_path.iterdir())) == 20
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
