"""Files with machine code: what was written is read; what is damaged, foreign or out of reach is as if it were not there."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from pilum.native import cache
from pilum.native.code import Code
from tests.native.sources import SCALED, nothing, scaled, source

CODE = Code(b"\x90" * 100, 3, ["abort"], [(1, -1, 5)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    return tmp_path / "chosen"


def files(folder: Path) -> list[Path]:
    return [one for one in folder.rglob("*") if one.is_file()]


def test_what_was_written_is_read(folder: Path) -> None:
    one, other = source(scaled, SCALED), source(nothing, "void(u1)")
    assert cache.read(one) is None
    assert cache.write(one, CODE)
    assert cache.read(one) == CODE
    assert cache.read(other) is None
    assert cache.write(other, CODE._replace(entry="name", fixups=[]))
    assert cache.read(other) == CODE._replace(entry="name", fixups=[])
    assert cache.read(one) == CODE
    assert len(files(folder)) == 2


def test_a_changed_function_is_another_one(folder: Path) -> None:
    assert cache.write(source(scaled, SCALED), CODE)
    changed = source(scaled, SCALED, fastmath=True)
    assert cache.read(changed) is None
    assert cache.write(changed, CODE)
    assert cache.read(source(scaled, SCALED)) is None
    assert len(files(folder)) == 1  # replaced, not added


def test_another_environment_has_files_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = source(scaled, SCALED)
    assert cache.write(one, CODE)
    for name in ("_processor", "_folder"):
        with monkeypatch.context() as patch:
            patch.setattr(cache, name, lambda *_: "another")
            cache._environment.cache_clear()
            assert cache.read(one) is None
    with monkeypatch.context() as patch:
        patch.setenv("NUMBA_CPU_NAME", "generic")
        cache._environment.cache_clear()
        assert cache.read(one) is None
        assert cache.write(one, CODE)
    cache._environment.cache_clear()
    assert cache.read(one) == CODE
    assert len(files(folder)) == 2


@pytest.mark.fault
def test_a_damaged_file_is_ignored_and_replaced(folder: Path) -> None:
    one = source(scaled, SCALED)
    assert cache.write(one, CODE)
    (path,) = files(folder)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [b"", whole[:4], whole[:12], whole[:-1], whole + b"x", b"another" + whole, bytes(len(whole))]
    for place in random.integers(0, len(whole), 100).tolist():
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        assert cache.read(one) is None
    assert cache.write(one, CODE)
    assert path.read_bytes() == whole


@pytest.mark.fault
def test_another_layout_is_ignored(folder: Path) -> None:
    import marshal
    import zlib

    one = source(scaled, SCALED)
    assert cache.write(one, CODE)
    (path,) = files(folder)
    for value in (3, (), (one.key(), b"short"), "text"):
        content = marshal.dumps(value)
        path.write_bytes(cache._MAGIC + zlib.crc32(content).to_bytes(4, "little") + content)
        assert cache.read(one) is None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, beside a source folder that cannot be written to."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache, "_user_folder", lambda: str(tmp_path / "home"))
    real = os.path.join

    def join(*parts: str) -> str:
        return "/proc/nowhere" if parts[-1] == "__pycache__" else real(*parts)

    monkeypatch.setattr(cache.os.path, "join", join)
    return tmp_path / "home"


def test_the_users_folder_serves_where_the_source_cannot_be_written_beside(home: Path) -> None:
    one = source(scaled, SCALED)
    assert cache.write(one, CODE)
    assert cache.read(one) == CODE
    (path,) = files(home)
    assert path.name.startswith("sources.scaled_")
    if os.name == "posix":
        assert not stat.S_IMODE(path.parent.stat().st_mode) & 0o077


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no owners here")
def test_a_folder_that_others_may_write_to_is_not_used(home: Path) -> None:
    one = source(scaled, SCALED)
    assert cache.write(one, CODE)
    (path,) = files(home)
    for folder in (path.parent, path.parent.parent):
        folder.chmod(0o777)
        assert cache.read(one) is None
        assert not cache.write(one, CODE)
        folder.chmod(0o700)
    assert cache.read(one) == CODE


def test_no_folder_at_all_is_no_error(home: Path) -> None:
    home.write_bytes(b"a file")
    one = source(scaled, SCALED)
    assert not cache.write(one, CODE)
    assert cache.read(one) is None


def test_users_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setattr(cache.sys, "platform", "linux")
    assert cache._user_folder() == "/x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache._user_folder() == os.path.expanduser("~/.cache")
    monkeypatch.setattr(cache.sys, "platform", "darwin")
    assert cache._user_folder() == os.path.expanduser("~/Library/Caches")


def test_the_processor_is_known_without_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")
    known = cache._processor()
    assert known == cache._processor()
    if sys.platform == "linux":
        assert not any(b"MHz" in line for line in known if isinstance(line, bytes))

    def missing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(cache, "open", missing, raising=False)
    name, *features = cache._processor()
    assert name
    assert name not in known
    assert features
