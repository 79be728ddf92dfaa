"""One version of a table, ready to be read: store, manifest and the caches of its session.

A snapshot is immutable and shared by all queries of a dataset handle.  It knows how to open the reader of a
fragment and to load a deletion vector, both through the session's cache, so that the second query over a
table asks the store for data only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.errors import CorruptFileError, InvalidInputError
from pilum.file import Session
from pilum.io import Store
from pilum.table import Fragment, Manifest, read_deletions
from pilum.table.lineage import VersionSequence, created_versions, updated_versions
from pilum.table.row_id_index import RowIdIndex, load_row_id_index, read_row_ids
from pilum.table.row_ids import RowIdSequence

__all__ = ["Snapshot"]

_NONE_DELETED: npt.NDArray[Any] = np.empty(0, dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Store, manifest and session of one table version."""

    store: Store
    manifest: Manifest
    session: Session
    # What queries derived from the fragment list alone, by a key of their own; lives as long as the snapshot.
    plans: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def suspends(self) -> bool:
        """Whether reads may wait for the network (False: local disk and memory)."""
        return self.store.suspends

    async def deletions(self, fragment: Fragment) -> npt.NDArray[Any]:
        """Sorted physical offsets of the deleted rows of a fragment; loaded once per session."""
        deletion = fragment.deletion_file
        if deletion is None:
            return _NONE_DELETED
        key = (self.store.uri, "deletions", fragment.id, deletion)
        found: npt.NDArray[Any] | None = self.session.cache.get(key)
        if found is None:
            found = await read_deletions(self.store, fragment)
            self.session.cache.put(key, found, found.nbytes)
        return found

    def fragment(self, fragment_id: int) -> Fragment:
        """The fragment with this id.

        Raises:
            InvalidInputError: there is none.
            CorruptFileError: several fragments have the same id.
        """
        found = self._by_id().get(fragment_id)
        if found is None:
            raise InvalidInputError(
                f"fragment {fragment_id} is not in version {self.manifest.version} of {self.store.uri}"
            )
        return self.manifest.fragments[found]

    def has_fragment(self, fragment_id: int) -> bool:
        """Whether there is a fragment with this id."""
        return fragment_id in self._by_id()

    def live_start(self, fragment_id: int) -> int:
        """Live rows in the fragments before this one."""
        starts: npt.NDArray[np.int64] | None = self.plans.get("live_starts")
        if starts is None:
            counts = [fragment.num_rows for fragment in self.manifest.fragments]
            starts = self.plans["live_starts"] = np.cumsum([0, *counts], dtype=np.int64)
        return int(starts[self._by_id()[fragment_id]])

    def _by_id(self) -> dict[int, int]:
        """Position of each fragment by its id."""
        found: dict[int, int] | None = self.plans.get("by_id")
        if found is None:
            fragments = self.manifest.fragments
            found = {fragment.id: position for position, fragment in enumerate(fragments)}
            if len(found) != len(fragments):
                raise CorruptFileError(
                    f"two fragments of {self.store.uri} have the same id (a fault of release 0.16): its rows can be "
                    "scanned, but an address does not say which row it means"
                )
            self.plans["by_id"] = found
        return found

    async def row_ids(self, fragment: Fragment) -> RowIdSequence:
        """The stable row ids of a fragment; decoded once per session."""
        key = (self.store.uri, "row ids", fragment.id, hash(fragment.row_ids), fragment.physical_rows)
        found: RowIdSequence | None = self.session.cache.get(key)
        if found is None:
            found = await read_row_ids(self.store, fragment)
            self.session.cache.put(key, found, 24 * len(found.starts) + 200)
        return found

    async def created_at(self, fragment: Fragment) -> VersionSequence:
        """The version that created each row of a fragment."""
        return created_versions(fragment, self.store.uri)

    async def updated_at(self, fragment: Fragment) -> VersionSequence:
        """The version that last changed each row of a fragment."""
        return updated_versions(fragment, self.store.uri)

    async def row_id_index(self) -> RowIdIndex:
        """From stable row ids to addresses; built once per version and session."""
        key = (self.store.uri, "row id index", self.manifest.version)
        found: RowIdIndex | None = self.session.cache.get(key)
        if found is None:
            found = await load_row_id_index(self.store, self.manifest, self.deletions)
            self.session.cache.put(key, found, 24 * len(found.first_ids) + 200)
        return found

    def select(self, fragment_ids: tuple[int, ...] | None) -> tuple[Fragment, ...]:
        """The fragments to read, in manifest order.

        Raises:
            InvalidInputError: an id is not in this version.
        """
        fragments = self.manifest.fragments
        if fragment_ids is None:
            return fragments
        wanted = set(fragment_ids)
        chosen = tuple(fragment for fragment in fragments if fragment.id in wanted)
        missing = wanted - {fragment.id for fragment in chosen}
        if missing:
            raise InvalidInputError(
                f"fragment {min(missing)} is not in version {self.manifest.version} of {self.store.uri}"
            )
        return chosen
