"""Manifests of the earliest releases: row counts that are missing or wrong (`spec/file-2.0-and-0.1.md`, B.8).

Releases up to 0.7 stored neither the rows of a fragment nor the number of its deleted rows, and the next ones copied
live counts into the place of physical ones.  Such manifests name no writer.  Their counts are taken from the data and
deletion files when the manifest is loaded; a commit then stores them, as the reference does.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

from pilum.errors import NotFoundError
from pilum.file.open import open_file
from pilum.io import Store, current_runtime
from pilum.table import deletions
from pilum.table.model import Fragment, Manifest

__all__ = ["has_trusted_counts", "with_counts"]

_OLDEST = (0, 1)


def has_trusted_counts(manifest: Manifest) -> bool:
    """Whether the row counts of the fragments are what their files hold."""
    return manifest.writer_version is not None or manifest.data_version != _OLDEST


async def with_counts(store: Store, manifest: Manifest) -> Manifest:
    """The manifest with the row counts of its files; fragments whose files are gone stay as they are.

    Raises:
        CorruptFileError: a file contradicts the format.
    """
    stream = current_runtime().map_ordered(
        lambda fragment: _counted(store, fragment), manifest.fragments, window=16, suspends=store.suspends
    )
    async with aclosing(stream):
        fragments = tuple([fragment async for fragment in stream])
    return replace(manifest, fragments=fragments)


async def _counted(store: Store, fragment: Fragment) -> Fragment:
    data_file = next((one for one in fragment.files if one.base_id is None), None)
    if data_file is None:
        return fragment
    try:
        reader = await open_file(
            store,
            f"data/{data_file.path}",
            size=data_file.size or None,
            fields=data_file.fields,
            column_indices=data_file.column_indices or None,
            version=data_file.version,
        )
        counted = replace(fragment, physical_rows=reader.num_rows)
        deletion = fragment.deletion_file
        if deletion is None or deletion.num_deleted_rows:
            return counted
        deleted = len(await deletions.read_deletions(store, counted))
    except NotFoundError:
        return fragment
    return replace(counted, deletion_file=replace(deletion, num_deleted_rows=deleted))
