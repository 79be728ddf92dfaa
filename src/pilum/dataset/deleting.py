"""Delete by predicate: find the rows, write deletion files, commit.

The scan yields row addresses of live rows; per touched fragment the new offsets join the old deletion
vector.  A fragment that loses its last row leaves the table instead of getting a full vector, and a
constant predicate needs no scan at all (spec/table.md, sections 11 and 15.2).
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np

from pilum.errors import CommitConflictError, InvalidInputError
from pilum.query.projection import ROW_ADDRESS
from pilum.query.request import ScanRequest
from pilum.query.scan import open_scan, plan_scan
from pilum.query.snapshot import Snapshot
from pilum.table import Delete, Fragment, Manifest, commit, latest_version, load_manifest, write_deletions

__all__ = ["delete_rows"]

# A delete that lost a race on the same rows starts over on the newest version this many times.
_CONFLICT_RETRIES = 10


async def delete_rows(snapshot: Snapshot, predicate: Any) -> tuple[Manifest, int]:
    """Delete the matching rows of a snapshot; returns the new manifest and the number of rows deleted.

    Raises:
        InvalidInputError: the predicate is empty, unparsable or not boolean.
        CommitConflictError: others kept changing the same fragments.
    """
    if predicate is None or (isinstance(predicate, str) and not predicate.strip()):
        raise InvalidInputError("delete needs a predicate; use 'true' to delete every row")
    for attempt in range(_CONFLICT_RETRIES + 1):
        try:
            return await _delete_once(snapshot, predicate)
        except CommitConflictError as conflict:
            if not conflict.retryable or attempt == _CONFLICT_RETRIES:
                raise
        newest = await latest_version(snapshot.store)
        snapshot = Snapshot(snapshot.store, await load_manifest(snapshot.store, newest), snapshot.session)
    raise AssertionError("unreachable")


async def _delete_once(snapshot: Snapshot, predicate: Any) -> tuple[Manifest, int]:
    scan = plan_scan(snapshot, ScanRequest(columns=[ROW_ADDRESS], filter=predicate))
    manifest = snapshot.manifest
    text = predicate if isinstance(predicate, str) else str(predicate)
    if scan.filter.constant is True:
        gone = tuple(fragment.id for fragment in manifest.fragments)
        count = sum(fragment.num_rows for fragment in manifest.fragments)
        operation = Delete((), gone, text)
    else:
        found = []
        async with aclosing(await open_scan(scan)) as stream:
            async for batch in stream:
                found.append(batch.column(0).to_numpy())
        addresses = np.concatenate(found) if found else np.empty(0, dtype=np.uint64)
        count = len(addresses)
        operation = await _deletion(snapshot, addresses, text)
    return await commit(snapshot.store, operation, read_version=manifest.version), count


async def _deletion(snapshot: Snapshot, addresses: Any, text: str) -> Delete:
    owners = (addresses >> np.uint64(32)).astype(np.int64)
    offsets = (addresses & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    by_id = {fragment.id: fragment for fragment in snapshot.manifest.fragments}
    updated: list[Fragment] = []
    removed: list[int] = []
    for owner in np.unique(owners).tolist():
        fragment = by_id[owner]
        old = await snapshot.deletions(fragment)
        merged = np.union1d(old, offsets[owners == owner]).astype(np.uint32)
        if len(merged) == fragment.physical_rows:
            removed.append(owner)
            continue
        deletion_file = await write_deletions(snapshot.store, fragment, merged, snapshot.manifest.version)
        updated.append(replace(fragment, deletion_file=deletion_file))
    return Delete(tuple(updated), tuple(removed), text)
