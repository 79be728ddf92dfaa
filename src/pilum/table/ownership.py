"""Whose version is it, when the answer to the put of a manifest does not tell (spec/table.md, section 7)?

```
manifest there      its bytes are ours: ours            else: somebody else's
manifest gone       no newer version: it never was      newer ones: a cleanup may have removed it, theirs or ours
                    a newer one names our files: ours
                    the next one keeps all files and names none of ours, or our fragment ids mean others: theirs
```

Only what none of these answers is unknown, and then nothing must be removed that the version may refer to.

A put that succeeds says less than it seems to, too: others may have committed this version and the next since we
looked, and a cleanup may have removed this one, so that ours is put into the past (`overtaken`).  The next cleanup takes
it for an old version and removes its files, so they must not be committed again.  Cleanups go from the oldest version
to the newest and keep the newest.  So where the version before ours is still there, nothing has happened.
"""

from __future__ import annotations

import contextlib
import time

from pilum.errors import AlreadyExistsError, NotFoundError, PilumError, StoreError
from pilum.io import Store
from pilum.table.external import settle
from pilum.table.files import DATA_FILE, DELETION_FILE, files_of
from pilum.table.model import Manifest
from pilum.table.naming import DETACHED_BIT, NamingScheme, manifest_path
from pilum.table.operations import (
    Append,
    CreateIndex,
    ReserveFragments,
    UpdateBases,
    UpdateConfig,
)
from pilum.table.versions import find_versions, load_version, read_transaction

__all__ = ["StatusUnknown", "is_ours", "overtaken"]

# Over a network the version before is asked for when so many seconds have passed: cleanups of versions that are
# younger are not for tables that others write to.
_LONG = 1.0

# What removes no data and no deletion file from a table.
_KEEPING = (Append, CreateIndex, ReserveFragments, UpdateBases, UpdateConfig)


class StatusUnknown(Exception):
    """The store failed, and the version may exist: nothing that it may refer to must be removed."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


async def is_ours(
    store: Store,
    manifest: Manifest,
    data: bytes,
    scheme: NamingScheme,
    before: Manifest | None,
    failure: Exception,
) -> bool:
    """Whether the version exists, or existed, and is the one we wrote.

    Args:
        store: the table's store.
        manifest: what was put.
        data: its file.
        scheme: how it is named.
        before: the version it was built on; None if it created the table.
        failure: what became of the put.

    Raises:
        StatusUnknown: it cannot be found out.
    """
    unclear: Exception = failure
    try:
        await settle(store, manifest.version)
        try:
            path = manifest_path(manifest.version, scheme)
            return bytes(await store.get_all(path, who="manifest")) == data
        except NotFoundError:
            known = await _remembered(store, manifest, before, isinstance(failure, AlreadyExistsError))
        if known is not None:
            return known
    except (PilumError, OSError) as error:
        unclear = error
    raise _unknown(store, manifest, unclear, failure)


async def overtaken(
    store: Store, manifest: Manifest, scheme: NamingScheme, before: Manifest, looked: float
) -> bool:
    """Whether a version that was put just now is none: it had been there, and was gone; ours is removed then.

    Args:
        store: the table's store.
        manifest: what was put.
        scheme: how it is named.
        before: the version it was built on.
        looked: when that was the newest one, seconds since the epoch.

    Raises:
        StatusUnknown: it cannot be found out.
    """
    # Where a database knows the owners of versions, those of removed ones are known, too.
    if store.external is not None or (store.suspends and time.time() - looked < _LONG):
        return False
    try:
        await store.head(manifest_path(before.version, scheme))
        return False
    except NotFoundError:
        pass
    except (PilumError, OSError):
        return False  # it was published; that nobody can say more is no reason to doubt it
    try:
        known = await _remembered(store, manifest, before, existed=True)
    except (PilumError, OSError) as error:
        raise _unknown(store, manifest, error, error) from None
    if known is None:
        raise _unknown(store, manifest, "versions around it were removed meanwhile")
    if not known:
        with contextlib.suppress(PilumError, OSError):
            await store.delete(manifest_path(manifest.version, scheme))
    return not known


def _unknown(store: Store, manifest: Manifest, why: object, cause: Exception | None = None) -> StatusUnknown:
    error = StoreError(
        f"{store.uri}: the status of the commit of version {manifest.version} is unknown ({why}); "
        f"look whether transaction {manifest.transaction_file} is in the history"
    )
    error.__cause__ = cause
    return StatusUnknown(error)


async def _remembered(
    store: Store, manifest: Manifest, before: Manifest | None, existed: bool
) -> bool | None:
    """What newer versions tell of one that is gone; None: nothing.

    Args:
        store: the table's store.
        manifest: what may have been the version.
        before: what it was built on.
        existed: whether the version is known to have existed.
    """
    if manifest.version & DETACHED_BIT:
        return None if existed else False
    found = await find_versions(store)
    newer = [version for version in found.versions if version > manifest.version]
    if not newer:
        if manifest.version in found.versions:
            return True
        return None if existed else False
    brought = _files(store, manifest)
    if before is not None:
        brought -= _files(store, before)
    if not brought:
        return None
    old = {fragment.id for fragment in before.fragments} if before is not None else set()
    ids = {fragment.id for fragment in manifest.fragments} - old
    for version in newer:
        try:
            file = await load_version(store, version, found.scheme)
        except NotFoundError:
            continue  # cleaned up, too
        if not brought.isdisjoint(_files(store, file.manifest)):
            return True
        if any(fragment.id in ids for fragment in file.manifest.fragments):
            return False  # an id is given once: they were somebody else's to give
        if version == manifest.version + 1:
            transaction = await read_transaction(store, file)
            if transaction is not None and isinstance(transaction.operation, _KEEPING):
                return False
    return None


def _files(store: Store, manifest: Manifest) -> set[tuple[str, str]]:
    """The data and deletion files of a version; their names are unique."""
    return {
        (file.uri, file.path)
        for file in files_of(store.uri, manifest, "")
        if file.kind in (DATA_FILE, DELETION_FILE)
    }
