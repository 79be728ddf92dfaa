"""Changes of how a whole table is stored: names of manifests, stable row ids (spec/table.md, 4.1 and 12.2)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from pilum.errors import AlreadyExistsError
from pilum.io import Store
from pilum.table.committing import commit
from pilum.table.model import Manifest
from pilum.table.naming import VERSIONS, NamingScheme, manifest_path, parse_manifest_name
from pilum.table.operations import Merge
from pilum.table.row_ids import RowIdSequence, encode_row_ids
from pilum.table.versions import latest_version, load_manifest

__all__ = ["migrate_names_to_v2", "migrate_to_stable_row_ids"]


async def migrate_names_to_v2(store: Store) -> int:
    """Give all manifests V2 names; nothing else changes.

    Not safe beside other writers, who may commit under a V1 name meanwhile.  After an interruption the table
    is refused until it is run again.

    Returns:
        How many were renamed.
    """
    old = []
    for one in await store.list(VERSIONS):
        name = parse_manifest_name(one.path.rpartition("/")[2])
        if name is not None and name.scheme is NamingScheme.V1:
            old.append((name.version, one.path))
    # Newest last: it is the one that a reader without the others could take for the whole history.
    for version, path in sorted(old):
        data = await store.get_all(path, who="manifest")
        with suppress(AlreadyExistsError):  # an earlier run was interrupted in between
            await store.put(manifest_path(version, NamingScheme.V2), data, if_absent=True)
        await store.delete(path)
    return len(old)


async def migrate_to_stable_row_ids(store: Store) -> Manifest:
    """Give every row of a table a stable id: 0, 1, 2, ... in the order of the fragments, deleted rows included.

    Returns:
        The new version; the newest one when the table has stable row ids already.

    Raises:
        InvalidInputError: the table has indices, which know rows by their address; drop them first.
        CommitConflictError: another writer changed rows meanwhile.
    """
    manifest = await load_manifest(store, await latest_version(store))
    if manifest.uses_stable_row_ids:
        return manifest
    fragments = []
    next_row_id = 0
    for fragment in manifest.fragments:
        end = next_row_id + fragment.physical_rows
        fragments.append(replace(fragment, row_ids=encode_row_ids(RowIdSequence.of_range(next_row_id, end))))
        next_row_id = end
    operation = Merge(tuple(fragments), manifest.schema, preserves_nullability=True)
    return await commit(store, operation, read_version=manifest.version, max_retries=1, stable_row_ids=True)
