"""One version of a table, ready to be read: store, manifest and the caches of its session.

A snapshot is immutable and shared by all queries of a dataset handle.  It knows how to open the reader of a
fragment and to load a deletion vector, both through the session's cache, so that the second query over a
table asks the store for data only.
"""

from __future__ import annotations

import bisect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pilum import table
from pilum.errors import CorruptFileError, InvalidInputError
from pilum.file import Session
from pilum.io import Store
from pilum.query.rows import by_fragment
from pilum.table import DataFile, Fragment, Manifest

if TYPE_CHECKING:
    from pilum.table import RowIdIndex, RowIdSequence
    from pilum.table.lineage import VersionSequence

__all__ = ["Snapshot"]

# One search costs as much as looking at so many fragments.
_BISECT = 64
_id_of = attrgetter("id")

_NONE_DELETED: npt.NDArray[Any] = np.empty(0, dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Store, manifest and session of one table version."""

    store: Store
    manifest: Manifest
    session: Session
    # What queries derived from the fragment list alone, by a key of their own; lives as long as the snapshot.
    plans: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        bases = self.manifest.base_paths
        if bases:
            table.note_bases(self.store, bases)
            if table.bases_suspend(bases):
                # Who reads the table of a local store may then wait for a network all the same.
                self.store.suspends = True

    @property
    def suspends(self) -> bool:
        """Whether reads may wait for the network (False: local disk and memory)."""
        return self.store.suspends

    def place_of(self, file: DataFile) -> tuple[Store, str]:
        """The store and key of a data file, which may lie in a base path.

        Raises:
            CorruptFileError: it names a base path that the version does not have.
        """
        if file.base_id is None:
            return self.store, "data/" + file.path
        location = table.data_file_location(self.store.uri, self.manifest, file)
        key = ("store", location.uri)
        store: Store | None = self.plans.get(key)
        if store is None:
            # One object for each base: reads of many files are joined by their store.
            store = self.plans.setdefault(key, table.open_location(self.store, location.uri))
        return store, location.key

    async def deletions(self, fragment: Fragment) -> npt.NDArray[Any]:
        """Sorted physical offsets of the deleted rows of a fragment; loaded once per session."""
        deletion = fragment.deletion_file
        if deletion is None:
            return _NONE_DELETED
        key = (self.store.uri, "deletions", fragment.id, deletion)
        found: npt.NDArray[Any] | None = self.session.cache.get(key)
        if found is None:
            found = await self._once(key, lambda: self._load_deletions(fragment, key))
        return found

    def known_deletions(self, fragment: Fragment) -> npt.NDArray[Any] | None:
        """What `deletions` returns, if that is known without reading."""
        deletion = fragment.deletion_file
        if deletion is None:
            return _NONE_DELETED
        found: npt.NDArray[Any] | None = self.session.cache.get(
            (self.store.uri, "deletions", fragment.id, deletion)
        )
        return found

    async def _load_deletions(self, fragment: Fragment, key: Any) -> npt.NDArray[Any]:
        found = await table.read_deletions(self.store, fragment, bases=self.manifest.base_paths)
        self.session.cache.put(key, found, found.nbytes)
        return found

    async def _once(self, key: Any, load: Callable[[], Awaitable[Any]]) -> Any:
        """Load something for the session; over a network only one of the tasks that want it does."""
        return await (self.session.cache.in_flight.once(key, load) if self.suspends else load())

    async def row_ids(self, addresses: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """Row ids of rows at some addresses; without stable row ids the address is the id."""
        if not self.manifest.uses_stable_row_ids:
            return addresses
        ids = np.empty(len(addresses), dtype=np.uint64)
        for owner, where, offsets in by_fragment(addresses):
            ids[where] = (await self._sequence(self.fragment(owner))).take(offsets)
        return ids

    async def _sequence(self, fragment: Fragment) -> RowIdSequence:
        key = (self.store.uri, "row ids", fragment.id, fragment.row_ids)
        found: RowIdSequence | None = self.session.cache.get(key)
        if found is None:

            async def load() -> RowIdSequence:
                loaded = await table.read_row_ids(self.store, fragment)
                self.session.cache.put(key, loaded, 200 + loaded.starts.nbytes + loaded.lengths.nbytes)
                return loaded

            found = await self._once(key, load)
        return found

    async def row_id_index(self) -> RowIdIndex:
        """From stable row ids to addresses; built once for a snapshot."""
        index: RowIdIndex | None = self.plans.get("row id index")
        if index is None:
            index = await table.load_row_id_index(self.store, self.manifest, self.deletions)
            self.plans["row id index"] = index
        return index

    async def created_at(self, fragment: Fragment) -> VersionSequence:
        """The version that created each row of a fragment."""
        return table.created_versions(fragment, self.store.uri)

    async def updated_at(self, fragment: Fragment) -> VersionSequence:
        """The version that last changed each row of a fragment."""
        return table.updated_versions(fragment, self.store.uri)

    def fragment(self, fragment_id: int) -> Fragment:
        """The fragment with this id.

        Raises:
            InvalidInputError: there is none.
            CorruptFileError: several fragments have the same id.
        """
        found = self.find_fragment(fragment_id)
        if found is None:
            raise InvalidInputError(
                f"fragment {fragment_id} is not in version {self.manifest.version} of {self.store.uri}"
            )
        return found

    def find_fragment(self, fragment_id: int) -> Fragment | None:
        """The fragment with this id, if there is one; errors as `fragment`."""
        position = self._by_id().get(fragment_id)
        return None if position is None else self.manifest.fragments[position]

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

    def _positions(self, fragment_id: int) -> range:
        fragments = self.manifest.fragments
        return range(
            bisect.bisect_left(fragments, fragment_id, key=_id_of),
            bisect.bisect_right(fragments, fragment_id, key=_id_of),
        )

    def find(self, fragment_id: int) -> Fragment | None:
        """The fragment with this id, None without."""
        found = self._positions(fragment_id)
        return self.manifest.fragments[found[0]] if found else None

    def select(self, fragment_ids: tuple[int, ...] | None) -> tuple[Fragment, ...]:
        """The fragments to read, in manifest order.

        Raises:
            InvalidInputError: an id is not in this version.
        """
        fragments = self.manifest.fragments
        if fragment_ids is None:
            return fragments
        wanted = set(fragment_ids)
        if len(wanted) * _BISECT < len(fragments):
            # A few of very many; they are in order of their ids.  Release 0.16 could give an id twice.
            chosen = tuple([fragments[at] for one in sorted(wanted) for at in self._positions(one)])
        else:
            chosen = tuple([fragment for fragment in fragments if fragment.id in wanted])
        missing = wanted - {fragment.id for fragment in chosen}
        if missing:
            raise InvalidInputError(
                f"fragment {min(missing)} is not in version {self.manifest.version} of {self.store.uri}"
            )
        return chosen
