"""What changed between two versions of a dataset with stable row ids (spec/api.md, section 4).

Every row knows the version that created it and the one that changed it last.  A row of the later version is
inserted when it was created after the earlier one, updated when it existed and was changed since; a row id of
the earlier version that is not in the later one was deleted.  All of it is computed on arrays from the two
manifests; only the rows that are wanted are read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays, distinct
from pilum.dataset.handle import Handle
from pilum.dataset.transactions import Transaction, transaction_of
from pilum.errors import InvalidInputError
from pilum.query.rows import row_addresses
from pilum.query.snapshot import Snapshot
from pilum.query.take import take_addresses
from pilum.table import (
    Manifest,
    created_versions,
    list_versions,
    load_manifest,
    read_row_ids,
    read_transactions,
    updated_versions,
)

__all__ = ["AsyncDatasetDelta"]

# Rows that are read at once.
_ROWS = 1 << 16

_SYSTEM = (
    pa.field("_rowid", pa.uint64()),
    pa.field("_row_created_at_version", pa.uint64()),
    pa.field("_row_last_updated_at_version", pa.uint64()),
)


class AsyncDatasetDelta:
    """The changes after one version, up to and including another.

    Attributes:
        begin_version: the earlier version.
        end_version: the later one.
    """

    def __init__(self, handle: Handle, begin_version: int, end_version: int) -> None:
        self._handle = handle
        self.begin_version = begin_version
        self.end_version = end_version

    async def list_transactions(self) -> list[Transaction]:
        """The transactions of the versions in between, oldest first."""
        store = self._handle.store
        numbers = sorted(
            one for one in await list_versions(store) if self.begin_version < one <= self.end_version
        )
        found = await read_transactions(store, numbers)
        return [transaction_of(one) for one in found if one is not None]

    @property
    def schema(self) -> pa.Schema:
        """Schema of inserted and updated rows: the columns, row id and row versions."""
        schema = self._handle.manifest.schema.to_arrow()
        for one in _SYSTEM:
            schema = schema.append(one)
        return schema

    async def get_inserted_rows(self) -> tuple[pa.Schema, AsyncGenerator[pa.RecordBatch, None]]:
        """Rows that were created in between, with their row id and row versions: schema and batches."""
        return await self._rows(inserted=True)

    async def get_updated_rows(self) -> tuple[pa.Schema, AsyncGenerator[pa.RecordBatch, None]]:
        """Rows that existed before and were changed in between: schema and batches."""
        return await self._rows(inserted=False)

    async def get_deleted_row_ids(self) -> tuple[pa.Schema, AsyncGenerator[pa.RecordBatch, None]]:
        """Ids of rows that are gone: schema (``_rowid``) and batches."""
        before, after = await self._load(self.begin_version), await self._load(self.end_version)
        gone = distinct.difference(await _live_ids(before), await _live_ids(after))
        schema = pa.schema([_SYSTEM[0]])

        async def batches() -> AsyncGenerator[pa.RecordBatch, None]:
            if len(gone):
                yield pa.record_batch([arrays.from_numpy(gone, pa.uint64())], schema=schema)

        return schema, batches()

    async def _load(self, version: int) -> Snapshot:
        handle = self._handle
        manifest: Manifest = (
            handle.manifest if version == handle.version else await load_manifest(handle.store, version)
        )
        if not manifest.uses_stable_row_ids:
            raise InvalidInputError(
                f"{handle.store.uri}: what happened to rows is only known with stable row ids "
                "(write_dataset(..., enable_stable_row_ids=True))"
            )
        return Snapshot(handle.store, manifest, handle.session)

    async def _rows(self, *, inserted: bool) -> tuple[pa.Schema, AsyncGenerator[pa.RecordBatch, None]]:
        snapshot = await self._load(self.end_version)
        begin, end = np.uint64(self.begin_version), np.uint64(self.end_version)
        parts = []
        for fragment in snapshot.manifest.fragments:
            created = created_versions(fragment).to_array()
            updated = updated_versions(fragment).to_array()
            moment = created if inserted else updated
            wanted = (moment > begin) & (moment <= end)
            if not inserted:
                wanted &= created <= begin
            wanted[await snapshot.deletions(fragment)] = False
            offsets = np.flatnonzero(wanted)
            if len(offsets):
                ids = (await read_row_ids(snapshot.store, fragment)).to_array()[offsets]
                addresses = row_addresses(fragment.id, offsets)
                parts.append((addresses, ids, created[offsets], updated[offsets]))
        schema = snapshot.manifest.schema.to_arrow()
        for one in _SYSTEM:
            schema = schema.append(one)

        async def batches() -> AsyncGenerator[pa.RecordBatch, None]:
            for columns in parts:
                for at in range(0, len(columns[0]), _ROWS):
                    yield await _batch(snapshot, schema, [one[at : at + _ROWS] for one in columns])

        return schema, batches()


async def _batch(snapshot: Snapshot, schema: pa.Schema, columns: list[Any]) -> pa.RecordBatch:
    stored = await take_addresses(snapshot, columns[0], snapshot.manifest.schema)
    system = [arrays.from_numpy(one, pa.uint64()) for one in columns[1:]]
    return pa.RecordBatch.from_arrays([*stored.columns, *system], schema=schema)


async def _live_ids(snapshot: Snapshot) -> npt.NDArray[np.uint64]:
    parts = [np.empty(0, np.uint64)]
    for fragment in snapshot.manifest.fragments:
        ids = (await read_row_ids(snapshot.store, fragment)).to_array()
        parts.append(np.delete(ids, await snapshot.deletions(fragment)))
    return np.concatenate(parts)
