"""Delete by predicate: find the rows, write deletion files, commit.

The scan yields row addresses of live rows; per touched fragment the new offsets join the old deletion
vector.  A fragment that loses its last row leaves the table instead of getting a full vector, and a
constant predicate needs no scan at all (spec/table.md, sections 11 and 15.2).
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from pilum import arrays, distinct
from pilum.dataset.retrying import starting_over
from pilum.errors import InvalidInputError
from pilum.io import Store
from pilum.io.postponed import PostponingStore
from pilum.query.projection import ROW_ADDRESS
from pilum.query.request import ScanRequest
from pilum.query.scan import Scan, open_scan, plan_scan
from pilum.query.snapshot import Snapshot
from pilum.table import CommitLock, Delete, Fragment, Manifest, commit, known, write_deletions

__all__ = ["delete_offsets", "delete_rows", "matching_offsets", "without_rows"]

# A delete that lost a race on the same rows starts over on the newest version this many times.
_CONFLICT_RETRIES = 10


async def delete_rows(
    snapshot: Snapshot,
    predicate: Any,
    *,
    conflict_retries: int = _CONFLICT_RETRIES,
    retry_timeout: timedelta | None = None,
    commit_lock: CommitLock | None = None,
) -> tuple[Manifest, int]:
    """Delete the matching rows of a snapshot; returns the new manifest and the number of rows deleted.

    Args:
        snapshot: the version to start from.
        predicate: SQL text or an Arrow expression.
        conflict_retries: how often to start over when others changed the same fragments.
        retry_timeout: time after which it is not started over any more.
        commit_lock: held while the version is published.

    Raises:
        InvalidInputError: the predicate is empty, unparsable or not boolean.
        CommitConflictError: others kept changing the same fragments.
    """
    if predicate is None or (isinstance(predicate, str) and not predicate.strip()):
        raise InvalidInputError("delete needs a predicate; use 'true' to delete every row")
    return await starting_over(
        snapshot,
        lambda version: _delete_once(version, predicate, commit_lock),
        what="delete",
        conflict_retries=conflict_retries,
        retry_timeout=retry_timeout,
    )


async def _delete_once(
    snapshot: Snapshot, predicate: Any, commit_lock: CommitLock | None
) -> tuple[Manifest, int]:
    scan = plan_scan(snapshot, ScanRequest(columns=[ROW_ADDRESS], filter=predicate))
    manifest = snapshot.manifest
    text = predicate if isinstance(predicate, str) else str(predicate)
    if scan.filter.constant is True:
        gone = tuple(fragment.id for fragment in manifest.fragments)
        count = sum(fragment.num_rows for fragment in manifest.fragments)
        operation = Delete((), gone, text)
        return await _commit(snapshot, operation, commit_lock), count
    addresses = await _addresses(scan)
    into = PostponingStore(snapshot.store)
    try:
        updated, removed = await without_rows(snapshot, addresses, into)
        operation = Delete(tuple(updated), tuple(removed), text)
        return await _commit(snapshot, operation, commit_lock, into), len(addresses)
    finally:
        await into.stop()


async def _commit(
    snapshot: Snapshot, operation: Delete, commit_lock: CommitLock | None, into: PostponingStore | None = None
) -> Manifest:
    return await commit(
        snapshot.store,
        operation,
        read_version=snapshot.manifest.version,
        commit_lock=commit_lock,
        base=known(snapshot.store, snapshot.manifest),
        before=None if into is None else into.settle,
        into=into,
    )


async def _addresses(scan: Scan) -> Any:
    """Row addresses of the live rows that a scan finds."""
    found = [np.empty(0, dtype=np.uint64)]
    async with aclosing(await open_scan(scan)) as stream:
        async for batch in stream:
            found.append(arrays.to_numpy(batch.column(0)))
    return np.concatenate(found)


async def without_rows(snapshot: Snapshot, addresses: Any, into: Store) -> tuple[list[Fragment], list[int]]:
    """The fragments of some rows without these, their deletion files written, and those that lose their last row.

    Args:
        snapshot: the version.
        addresses: row addresses, uint64.
        into: where the deletion files are written.
    """
    owners = (addresses >> np.uint64(32)).astype(np.int64)
    offsets = (addresses & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    updated: list[Fragment] = []
    removed: list[int] = []
    for owner in distinct.unique(owners).tolist():
        fragment = await delete_offsets(snapshot, snapshot.fragment(owner), offsets[owners == owner], into)
        if fragment is None:
            removed.append(owner)
        else:
            updated.append(fragment)
    return updated, removed


async def matching_offsets(snapshot: Snapshot, fragment: Fragment, predicate: Any) -> Any:
    """Physical offsets of the live rows of a fragment that match a predicate."""
    scan = plan_scan(
        snapshot, ScanRequest(columns=[ROW_ADDRESS], filter=predicate, fragment_ids=(fragment.id,))
    )
    return ((await _addresses(scan)) & np.uint64(0xFFFFFFFF)).astype(np.uint32)


async def delete_offsets(
    snapshot: Snapshot, fragment: Fragment, offsets: Any, into: Store | None = None
) -> Fragment | None:
    """The fragment with further rows deleted, their file written; None when no row is left.

    Args:
        snapshot: the version.
        fragment: a fragment of it.
        offsets: physical offsets of the rows; deleted ones do no harm.
        into: where the file is written; by default to the table itself, durably.
    """
    old = await snapshot.deletions(fragment)
    merged = distinct.union(old, offsets).astype(np.uint32)
    if len(merged) == len(old):
        return fragment
    if len(merged) == fragment.physical_rows:
        return None
    store, version = into or snapshot.store, snapshot.manifest.version
    deletion_file = await write_deletions(store, fragment, merged, version)
    return replace(fragment, deletion_file=deletion_file)
