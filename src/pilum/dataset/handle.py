"""What every part of the asynchronous dataset shares: the snapshot, and how a change moves it.

A handle shows one version.  Reading never changes it; a change commits an operation computed on that version
and moves the handle to the version that came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pilum import table
from pilum.file import Session
from pilum.io import Store
from pilum.query.snapshot import Snapshot
from pilum.table import Manifest

if TYPE_CHECKING:
    from pilum.table import CommitLock, Operation

__all__ = ["Handle", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a dataset was opened with, beside its version.

    Attributes:
        storage_options: options of the store.
        commit_lock: called with a version number; the context manager it returns is held while that version
            is published.
        scan_options: defaults for every scan.
        base_store_params: storage options of base paths, by their address.
    """

    storage_options: Mapping[str, str] | None = None
    commit_lock: CommitLock | None = None
    scan_options: Mapping[str, Any] = field(default_factory=dict)
    base_store_params: Mapping[str, Mapping[str, str]] | None = None


class Handle:
    """One version of a dataset, and the settings it was opened with."""

    def __init__(self, snapshot: Snapshot, settings: Settings | None = None) -> None:
        self.snapshot = snapshot
        self.settings = settings or Settings()

    @property
    def store(self) -> Store:
        """Store of the table, or of the branch."""
        return self.snapshot.store

    @property
    def main(self) -> Store:
        """Store of the main branch, where tags and branches are recorded."""
        return table.main_store(self.snapshot.store, self.snapshot.manifest.branch)

    @property
    def manifest(self) -> Manifest:
        """The decoded manifest of this version."""
        return self.snapshot.manifest

    @property
    def version(self) -> int:
        """Version number of this handle."""
        return self.snapshot.manifest.version

    @property
    def session(self) -> Session:
        """The caches this handle uses."""
        return self.snapshot.session

    def _move(self, manifest: Manifest) -> None:
        self.snapshot = Snapshot(self.snapshot.store, manifest, self.snapshot.session)

    async def _commit(self, operation: Operation, properties: Mapping[str, str] | None = None) -> None:
        """Commit an operation computed on this version, and move there."""
        self._move(
            await table.commit(
                self.store,
                operation,
                read_version=self.version,
                properties=properties,
                commit_lock=self.settings.commit_lock,
                base=table.known(self.store, self.manifest),
            )
        )

    def _picklable_settings(self) -> Settings:
        """Settings for another process: everything the user gave, as far as it can go there."""
        return replace(self.settings)
