"""Handles of one version share its manifest, as long as the file is the same and somebody uses it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum
from pilum.table import alive, codec

ROWS = pa.table({"a": [1, 2, 3]})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Versions that are decoded."""
    found: list[int] = []
    decode = codec._decode

    def noted(message: Any, *args: Any) -> Any:
        found.append(message.version)
        return decode(message, *args)

    monkeypatch.setattr(codec, "_decode", noted)
    return found


def test_handles_share_a_manifest(tmp_path: Path, decoded: list[int]) -> None:
    pilum.write_dataset(ROWS, tmp_path / "t")
    decoded.clear()
    first = pilum.dataset(tmp_path / "t")
    second = pilum.dataset(tmp_path / "t", version=1)
    assert first.aio.manifest is second.aio.manifest
    assert len(decoded) == 1
    assert first.read_transaction(1) is not None


def test_nothing_is_kept_alive(tmp_path: Path, decoded: list[int]) -> None:
    pilum.write_dataset(ROWS, tmp_path / "t")
    gc.collect()
    before = len(alive._known)
    opened = pilum.dataset(tmp_path / "t")
    assert len(alive._known) == before + 1
    del opened
    gc.collect()
    assert len(alive._known) == before


def test_a_table_made_anew_is_another(tmp_path: Path) -> None:
    pilum.write_dataset(ROWS, tmp_path / "t")
    old = pilum.dataset(tmp_path / "t")
    pilum.LanceDataset.drop(tmp_path / "t")
    pilum.write_dataset(pa.table({"b": ["x"]}), tmp_path / "t")
    new = pilum.dataset(tmp_path / "t")
    assert (old.version, new.version) == (1, 1)
    assert old.schema.names == ["a"]
    assert new.to_table().to_pydict() == {"b": ["x"]}
    del old
    gc.collect()
    assert pilum.dataset(tmp_path / "t").aio.manifest is new.aio.manifest
