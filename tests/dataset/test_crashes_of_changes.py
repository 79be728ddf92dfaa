"""Changes of real rows over a store that fails, loses an answer or stops, at every single call in turn.

After each the table opens at the old or at the new version, with the rows of that version, and trying again on
whatever is newest succeeds.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Any

import pyarrow as pa
import pytest

import pilum.aio
from pilum.errors import PilumError
from pilum.file import Session
from pilum.io import MemoryStore, ObjectWriter, Store
from pilum.query.snapshot import Snapshot
from pilum.table import find_problems, latest_version, load_manifest
from tests.table.faulty import MODES, FaultyStore
from tests.table.tables import drive

pytestmark = pytest.mark.fault

Change = Callable[[pilum.aio.LanceDataset], Awaitable[Any]]


class _Writer(ObjectWriter):
    """A file whose every step may fail."""

    def __init__(self, store: Faulty, inner: ObjectWriter) -> None:
        self._store, self._inner = store, inner

    @property
    def position(self) -> int:
        return self._inner.position

    async def write(self, buffers: Any) -> None:
        await self._store._pass(lambda: self._inner.write(buffers))

    async def finish(self) -> None:
        await self._store._pass(self._inner.finish)

    async def abort(self) -> None:
        await self._inner.abort()


class Faulty(FaultyStore):
    """Also writing data files, piece by piece, may fail."""

    async def create(self, path: str) -> ObjectWriter:
        return _Writer(self, await super().create(path))


def opened(store: Store) -> pilum.aio.LanceDataset:
    manifest = drive(load_manifest(store, drive(latest_version(store))))
    return pilum.aio.LanceDataset(Snapshot(store, manifest, Session()))


def rows(store: Store) -> tuple[Any, ...]:
    """What a reader sees, once the version is known to be whole."""
    ds = opened(store)
    assert drive(find_problems(store, ds.manifest)) == []
    table = drive(ds.to_table())
    return (
        ds.manifest.version,
        table.schema.names,
        table.schema.types,
        table.to_pylist(),
        dict(ds.manifest.config),
    )


def table() -> Store:
    """Version 3: two fragments, one row deleted in the first."""
    store = MemoryStore()
    data = pa.table({"id": pa.array(range(6), pa.int32()), "s": list("abcdef")})

    async def make() -> None:
        from pilum.dataset.core import AsyncLanceDataset
        from pilum.dataset.inputs import read_input
        from pilum.dataset.writing import WriteOptions, write

        options = WriteOptions(max_rows_per_file=3, stable_row_ids=True)
        manifest = await write(store, read_input(data), options)
        ds = AsyncLanceDataset(Snapshot(store, manifest, Session()))
        await ds.delete("id = 1")
        await ds.update_config({"a": "b"})

    drive(make())
    return store


CHANGES: dict[str, Change] = {
    "append": lambda ds: ds.insert(pa.table({"id": pa.array([9], pa.int32()), "s": ["z"]})),
    "overwrite": lambda ds: ds.insert(pa.table({"x": [1, 2]}), mode="overwrite"),
    "delete": lambda ds: ds.delete("id >= 2"),
    "update": lambda ds: ds.update({"s": "upper(s)"}, "id <> 3"),
    "config": lambda ds: ds.update_config({"k": "v"}),
    "restore": lambda ds: ds.restore(),
    "add": lambda ds: ds.add_columns({"twice": "id * 2"}),
    "null": lambda ds: ds.add_columns(pa.field("n", pa.int8())),
    "merge": lambda ds: ds.merge(pa.table({"id": pa.array([0], pa.int32()), "m": ["x"]}), "id"),
    "cast": lambda ds: ds.alter_columns({"path": "id", "data_type": pa.int64()}),
    "rename": lambda ds: ds.alter_columns({"path": "s", "name": "t"}),
    "drop": lambda ds: ds.drop_columns(["s"]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_happens_or_does_not(name: str, mode: str) -> None:
    change = CHANGES[name]
    reference = table()
    before = rows(reference)
    drive(change(opened(reference)))
    done = rows(reference)
    number = 0
    while True:
        store = table()
        faulty = Faulty(store, number, mode)
        error: Exception | None = None
        try:
            # Opened anew, so that nothing is in a cache.
            drive(change(opened(faulty)))
        except PilumError as raised:
            error = raised
        after = rows(store)
        assert after[0] in (3, 4)
        if after[0] == 3:
            assert after == before
            assert error is not None, "reported as done, but is not"
            drive(change(opened(store)))
            assert rows(store) == done
        else:
            assert after == done
        if not faulty.failed:
            assert error is None
            break
        number += 1
    assert number > 5


@pytest.mark.parametrize("mode", MODES)
def test_cleanup_keeps_what_is_needed(mode: str) -> None:
    change = CHANGES["update"]
    number = 0
    while True:
        store = table()
        drive(change(opened(store)))
        wanted = rows(store)
        faulty = Faulty(store, number, mode)
        try:
            drive(opened(faulty).cleanup_old_versions(datetime.timedelta(0), delete_unverified=True))
        except PilumError:
            pass
        assert rows(store) == wanted
        drive(opened(store).cleanup_old_versions(datetime.timedelta(0), delete_unverified=True))
        assert rows(store) == wanted
        if not faulty.failed:
            break
        number += 1
