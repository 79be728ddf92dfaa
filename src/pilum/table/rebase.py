"""Moving an operation onto a newer version (spec/table.md, section 9.3).

Most operations need nothing: the manifest is simply built from the newest version.  A delete carries whole
deletion vectors; when another writer deleted rows of the same fragment meanwhile, both vectors are merged
into a new file, provided that the two did not delete the same row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pilum.errors import CommitConflictError, NotFoundError
from pilum.io import Store
from pilum.table.deletions import Offsets, deletion_path, read_deletions, write_deletions
from pilum.table.model import BITMAP, Fragment, Manifest
from pilum.table.operations import Delete, Restore
from pilum.table.transaction import Transaction
from pilum.table.versions import load_manifest

__all__ = ["Rebased", "rebase"]


class Rebased:
    """A transaction that fits the newest version.

    Attributes:
        transaction: ready to be built and published.
        written: keys of files made for it, superfluous when it is not published.
    """

    __slots__ = ("transaction", "written")

    def __init__(self, transaction: Transaction, written: list[str] | None = None) -> None:
        self.transaction = transaction
        self.written = written or []


async def rebase(store: Store, transaction: Transaction, latest: Manifest) -> Rebased:
    """Adapt a transaction to the newest version, which its operation does not conflict with.

    Raises:
        CommitConflictError: a retryable conflict that only the data shows.
        NotFoundError: a version to be restored is gone.
    """
    operation = transaction.operation
    if isinstance(operation, Restore):
        content = await load_manifest(store, operation.version)
        return Rebased(replace(transaction, operation=replace(operation, content=content)))
    if isinstance(operation, Delete) and transaction.read_version != latest.version:
        return await _rebase_delete(store, transaction, operation, latest)
    return Rebased(transaction)


async def _rebase_delete(store: Store, transaction: Transaction, delete: Delete, latest: Manifest) -> Rebased:
    current = latest.fragment_by_id()
    missing = delete.touched - current.keys()
    if missing:
        raise _conflict(f"fragment {min(missing)} is gone in version {latest.version}")
    updated: list[Fragment] = []
    removed = list(delete.deleted_fragment_ids)
    written: list[str] = []
    before: dict[int, Fragment] | None = None
    for mine in delete.updated_fragments:
        now = current[mine.id]
        if before is None:
            before = await _fragments_at(store, transaction.read_version)
        old = before.get(mine.id)
        if old is None or now.files != old.files:
            raise _conflict(f"the data of fragment {mine.id} changed")
        if now.deletion_file == old.deletion_file:
            updated.append(replace(now, deletion_file=mine.deletion_file))
            continue
        merged = await _merge(store, mine, old, now)
        if len(merged) == now.physical_rows:
            removed.append(mine.id)
            continue
        file = await write_deletions(store, now, merged, latest.version, file_type=BITMAP)
        written.append(deletion_path(mine.id, file))
        updated.append(replace(now, deletion_file=file))
    rebased = replace(delete, updated_fragments=tuple(updated), deleted_fragment_ids=tuple(removed))
    return Rebased(replace(transaction, read_version=latest.version, operation=rebased), written)


async def _fragments_at(store: Store, version: int) -> dict[int, Fragment]:
    try:
        return (await load_manifest(store, version)).fragment_by_id()
    except NotFoundError:
        raise _conflict(f"version {version}, which it was computed on, is gone") from None


async def _merge(store: Store, mine: Fragment, old: Fragment, now: Fragment) -> Offsets:
    before = await read_deletions(store, old)
    affected = np.setdiff1d(await read_deletions(store, mine), before, assume_unique=True)
    existing = await read_deletions(store, now)
    if np.intersect1d(affected, existing, assume_unique=True).size:
        raise _conflict(f"another writer deleted or moved the same rows of fragment {mine.id}")
    return np.union1d(existing, affected)


def _conflict(reason: str) -> CommitConflictError:
    return CommitConflictError(
        f"delete cannot be moved to the newest version: {reason}; run it again on the newest version",
        retryable=True,
    )
