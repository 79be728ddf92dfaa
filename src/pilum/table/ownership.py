"""Whose version is it, when the answer to the put of a manifest does not tell (spec/table.md, section 7)?

```
manifest there      its bytes are ours: ours            else: somebody else's
manifest gone       no newer version: it never was      newer ones: a cleanup may have removed it, theirs or ours
                    a newer one names our files: ours   the next one keeps all files and names none of ours: theirs
```

Only what none of these answers is unknown, and then nothing must be removed that the version may refer to.
"""

from __future__ import annotations

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

__all__ = ["StatusUnknown", "is_ours"]

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
    unknown = StoreError(
        f"{store.uri}: the status of the commit of version {manifest.version} is unknown ({unclear}); "
        f"look whether transaction {manifest.transaction_file} is in the history"
    )
    unknown.__cause__ = failure
    raise StatusUnknown(unknown)


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
        return None if existed else False
    brought = _files(store, manifest)
    if before is not None:
        brought -= _files(store, before)
    if not brought:
        return None
    for version in newer:
        try:
            file = await load_version(store, version, found.scheme)
        except NotFoundError:
            continue  # cleaned up, too
        if not brought.isdisjoint(_files(store, file.manifest)):
            return True
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
