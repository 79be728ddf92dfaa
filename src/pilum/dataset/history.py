"""The history of a dataset: versions, checkouts, tags, branches, clones and transactions."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pilum import table
from pilum.dataset import delta, references, transactions
from pilum.dataset.handle import Handle, Settings
from pilum.errors import InvalidInputError
from pilum.io import store_for
from pilum.query.snapshot import Snapshot
from pilum.table import Manifest, latest_version, list_versions, load_manifest

if TYPE_CHECKING:
    from pilum.dataset.delta import AsyncDatasetDelta
    from pilum.dataset.references import AsyncBranches, AsyncTags, VersionReference
    from pilum.dataset.transactions import Transaction
    from pilum.io import Store
    from pilum.table import VersionInfo

__all__ = ["History"]


class History(Handle):
    """The calls of `AsyncLanceDataset` on versions."""

    async def versions(self) -> list[dict[str, Any]]:
        """All versions, oldest first: ``version``, ``timestamp`` (local, naive) and ``metadata`` counts."""
        result: list[dict[str, Any]] = []
        previous: dict[str, int] = {}
        texts: dict[str, str] = {}
        for one in await table.describe_versions(self.store):
            # Many versions in a row may have the same totals.
            if one.summary != previous:
                previous, texts = one.summary, _texts(one.summary)
            result.append(_described(one, texts.copy()))
        return result

    def get_version(self) -> dict[str, Any]:
        """The version of this handle, as `versions` describes it."""
        manifest = self.manifest
        info = table.VersionInfo(manifest.version, manifest.timestamp_ns, table.summarize(manifest))
        return _described(info, _texts(info.summary))

    async def version_refs(self) -> list[dict[str, int]]:
        """Numbers of all versions, oldest first; reads no manifest."""
        return [{"version": one} for one in sorted(await list_versions(self.store))]

    async def latest_version(self) -> int:
        """Newest version number in the store; reads no manifest."""
        return await latest_version(self.store)

    async def checkout_version(self, version: VersionReference) -> Self:
        """The dataset at another version; this handle does not move.

        Args:
            version: number on the branch of this handle, tag, or (branch, version), where None means main and
                the newest.

        Raises:
            NotFoundError: there is no such version, tag or branch.
        """
        found = await references.resolve_reference(self, references.check_reference(version))
        return await self._at(found.store, found.version)

    async def _at(self, store: Store, version: int) -> Self:
        manifest = await load_manifest(store, version)
        return self._with(store, manifest)

    def _with(self, store: Store, manifest: Manifest, settings: Settings | None = None) -> Self:
        return type(self)(Snapshot(store, manifest, self.session), settings or self.settings)

    async def checkout_latest(self) -> None:
        """Move this handle to the newest version of its branch."""
        newest = await latest_version(self.store)
        if newest != self.version:
            self._move(await load_manifest(self.store, newest))

    async def restore(self) -> None:
        """Commit the content of this version as the newest one, and move there."""
        # It replaces whatever is the newest, so it is computed on that.
        newest = await latest_version(self.store)
        manifest = await table.commit(
            self.store,
            table.Restore(self.version),
            read_version=newest,
            commit_lock=self.settings.commit_lock,
        )
        self._move(manifest)

    # -- tags, branches, clones ------------------------------------------------------------------------

    @property
    def tags(self) -> AsyncTags:
        """Names of versions."""
        return references.AsyncTags(self)

    @property
    def branches(self) -> AsyncBranches:
        """Branches."""
        return references.AsyncBranches(self)

    async def create_branch(self, branch: str, reference: VersionReference | None = None) -> Self:
        """Make a branch from a version (by default that of this handle); returns the dataset on it.

        Raises:
            AlreadyExistsError: there is such a branch.
            NotFoundError: there is no such version.
        """
        found = await references.resolve_reference(self, reference)
        main = self.main
        manifest = await table.create_branch(main, branch, found.branch, found.version)
        return self._with(table.branch_store(main, branch), manifest)

    async def shallow_clone(
        self,
        target_path: str | os.PathLike[str],
        reference: VersionReference,
        storage_options: Mapping[str, str] | None = None,
    ) -> Self:
        """Make a dataset that refers to the files of a version of this one.

        Raises:
            AlreadyExistsError: there is a dataset at the target.
            NotFoundError: there is no such version.
        """
        found = await references.resolve_reference(self, reference)
        target = store_for(target_path, storage_options)
        manifest = await table.shallow_clone(
            found.store, found.version, target, ref_name=found.branch, commit_lock=self.settings.commit_lock
        )
        return self._with(target, manifest, Settings(storage_options))

    async def deep_clone(
        self,
        target_path: str | os.PathLike[str],
        reference: VersionReference,
        storage_options: Mapping[str, str] | None = None,
    ) -> Self:
        """Make a dataset with copies of the files of a version of this one.

        Raises:
            AlreadyExistsError: there is a dataset at the target.
            NotFoundError: there is no such version.
        """
        found = await references.resolve_reference(self, reference)
        target = store_for(target_path, storage_options)
        manifest = await table.deep_clone(found.store, found.version, target, ref_name=found.branch)
        return self._with(target, manifest, Settings(storage_options))

    # -- transactions ----------------------------------------------------------------------------------

    async def read_transaction(self, version: int) -> Transaction | None:
        """What made a version; None when that was not recorded.

        Raises:
            NotFoundError: there is no such version (any more).
        """
        (stored,) = await table.read_transactions(self.store, [version])
        return None if stored is None else transactions.transaction_of(stored)

    async def get_transactions(self, recent_transactions: int = 10) -> list[Transaction | None]:
        """What made the newest versions up to this one, newest first."""
        versions = [one for one in await list_versions(self.store) if one <= self.version]
        versions.sort(reverse=True)
        stored = await table.read_transactions(self.store, versions[:recent_transactions])
        return [None if one is None else transactions.transaction_of(one) for one in stored]

    def delta(
        self,
        compared_against: int | None = None,
        *,
        begin_version: int | None = None,
        end_version: int | None = None,
    ) -> AsyncDatasetDelta:
        """What changed between two versions; see `pilum.LanceDataset.delta`."""
        explicit = begin_version is not None and end_version is not None
        if (compared_against is None) != explicit:
            raise InvalidInputError(
                "delta needs either compared_against, or both begin_version and end_version"
            )
        if compared_against is not None:
            begin_version, end_version = sorted((compared_against, self.version))
        assert begin_version is not None
        assert end_version is not None
        if begin_version > end_version:
            raise InvalidInputError(f"delta: version {begin_version} is after {end_version}")
        return delta.AsyncDatasetDelta(self, begin_version, end_version)


def _described(info: VersionInfo, metadata: dict[str, str]) -> dict[str, Any]:
    # Whole microseconds from integers: a float has too few digits for them.
    seconds, rest = divmod(info.timestamp_ns, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds).replace(microsecond=rest // 1000)
    return {"version": info.version, "timestamp": moment, "metadata": metadata}


def _texts(summary: Mapping[str, int]) -> dict[str, str]:
    return {name: str(value) for name, value in summary.items()}
