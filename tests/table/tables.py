"""Helpers of the table tests: writable copies of golden tables, tiny tables in memory, driving coroutines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pilum.io import MemoryStore, Store, run
from pilum.schema import Schema
from pilum.table import DataFile, Fragment, Manifest, Overwrite, commit, data_file_name
from tests.support import GOLDEN

T = TypeVar("T")

SCHEMA = Schema.from_arrow(pa.schema([("id", pa.int32()), ("a", pa.int32()), ("b", pa.int32())]))


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over a store that never suspends."""
    return run(coroutine, suspends=False)


def copy_golden(case: str, to: Path) -> Path:
    """A writable copy of a golden table (the original is read-only)."""
    target = to / case
    shutil.copytree(GOLDEN / "table" / case, target)
    for folder, _, files in os.walk(target):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o644)
    return target


def data_file(fields: Sequence[int] = (0, 1, 2)) -> DataFile:
    """An entry for a data file that does not exist."""
    return DataFile(data_file_name(), tuple(fields), tuple(range(len(fields))), (2, 2), 100)


def fragment(rows: int = 3, fragment_id: int = 0) -> Fragment:
    """A fragment whose data file does not exist; commits do not look."""
    return Fragment(fragment_id, (data_file(),), rows)


def memory_table(fragments: int = 3, rows: int = 3, store: Store | None = None) -> tuple[Store, Manifest]:
    """A new table in memory at version 1."""
    store = store or MemoryStore()
    manifest = drive(
        commit(
            store,
            Overwrite(tuple(fragment(rows) for _ in range(fragments)), SCHEMA, (2, 2)),
            read_version=None,
        )
    )
    return store, manifest
