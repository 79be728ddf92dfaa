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

from pilum.errors import InvalidInputError
from pilum.file import Session
from pilum.io import Store
from pilum.table import Fragment, Manifest, read_deletions

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
            found = await read_deletions(self.store, fragment, bases=self.manifest.base_paths)
            self.session.cache.put(key, found, found.nbytes)
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
