"""Versions, synchronously: checkouts, tags, branches, clones, transactions, deltas."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from pilum.dataset.door.base import Door

if TYPE_CHECKING:
    from pilum.dataset.delta import AsyncDatasetDelta
    from pilum.dataset.references import VersionReference
    from pilum.dataset.transactions import Transaction

__all__ = ["Branches", "DatasetDelta", "HistoryDoor", "Tags"]


class HistoryDoor(Door):
    """The calls of `LanceDataset` on versions."""

    @property
    def version(self) -> int:
        """Version number of this handle."""
        return self.aio.version

    @property
    def latest_version(self) -> int:
        """Newest version number in the store; reads no manifest."""
        return self._run(self.aio.latest_version())

    def versions(self) -> list[dict[str, Any]]:
        """All versions, oldest first: ``version``, ``timestamp`` (local, naive) and ``metadata`` counts."""
        return self._run(self.aio.versions())

    def get_version(self) -> dict[str, Any]:
        """The version of this handle, as `versions` describes it."""
        return self.aio.get_version()

    def version_refs(self) -> list[dict[str, int]]:
        """Numbers of all versions, oldest first, as ``{"version": n}``; reads no manifest."""
        return self._run(self.aio.version_refs())

    def checkout_version(self, version: VersionReference) -> Self:
        """The dataset at another version; this handle does not move.

        Args:
            version: number on the branch of this handle, name of a tag, or (branch, version) where None means
                main and the newest.

        Raises:
            NotFoundError: no such version, tag or branch (a `ValueError` and an `OSError`).

        Example:
            >>> import pilum, pyarrow as pa
            >>> ds = pilum.write_dataset(pa.table({"a": [1]}), "memory://doc-checkout")
            >>> ds.tags.create("first", 1)
            >>> ds.insert(pa.table({"a": [2]}))
            >>> ds.version, ds.checkout_version("first").version
            (2, 1)
        """
        return self.of(self._run(self.aio.checkout_version(version)))

    def checkout_latest(self) -> None:
        """Move this handle to the newest version of its branch."""
        self._run(self.aio.checkout_latest())

    def restore(self) -> None:
        """Commit the content of this version as the newest one, and move there."""
        self._run(self.aio.restore())

    @property
    def tags(self) -> Tags:
        """Names of versions."""
        return Tags(self)

    @property
    def branches(self) -> Branches:
        """Branches of the dataset."""
        return Branches(self)

    def create_branch(
        self,
        branch: str,
        reference: VersionReference | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> Self:
        """Make a branch from a version, by default that of this handle.

        Args:
            branch: its name.
            reference: version to start from, as in `checkout_version`.
            storage_options: accepted; the branch lies in the dataset's own store.

        Returns:
            The dataset on the branch.

        Raises:
            AlreadyExistsError: there is such a branch.
            NotFoundError: there is no such version.
        """
        del storage_options
        return self.of(self._run(self.aio.create_branch(branch, reference)))

    def shallow_clone(
        self,
        target_path: str | os.PathLike[str],
        reference: VersionReference,
        storage_options: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Self:
        """Make a dataset that refers to the files of a version of this one.

        Raises:
            AlreadyExistsError: there is a dataset at the target (an `OSError`).
            NotFoundError: there is no such version.
        """
        _none(options)
        return self.of(self._run(self.aio.shallow_clone(target_path, reference, storage_options)))

    def deep_clone(
        self,
        target_path: str | os.PathLike[str],
        reference: VersionReference,
        storage_options: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Self:
        """Make a dataset with copies of the files of a version of this one.

        Raises:
            AlreadyExistsError: there is a dataset at the target (an `OSError`).
            NotFoundError: there is no such version.
        """
        _none(options)
        return self.of(self._run(self.aio.deep_clone(target_path, reference, storage_options)))

    def read_transaction(self, version: int) -> Transaction | None:
        """What made a version; None when that was not recorded.

        Raises:
            NotFoundError: there is no such version (any more).
        """
        return self._run(self.aio.read_transaction(version))

    def get_transactions(self, recent_transactions: int = 10) -> list[Transaction | None]:
        """What made the newest versions up to this one, newest first."""
        return self._run(self.aio.get_transactions(recent_transactions))

    def delta(
        self,
        compared_against: int | None = None,
        *,
        begin_version: int | None = None,
        end_version: int | None = None,
    ) -> DatasetDelta:
        """What changed between two versions.

        Args:
            compared_against: an earlier version, to be compared with this one; or
            begin_version, end_version: both.

        Raises:
            InvalidInputError: neither or both forms are given.
        """
        made = self.aio.delta(compared_against, begin_version=begin_version, end_version=end_version)
        return DatasetDelta(self, made)


def _none(options: Mapping[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise TypeError(f"unexpected keyword argument {given[0]!r}")


class Tags:
    """Names of versions; a tagged version is never cleaned up.

    References are as in `LanceDataset.checkout_version`; without one it is the version of the handle.
    """

    def __init__(self, dataset: Door) -> None:
        self._dataset = dataset

    def list(self) -> dict[str, dict[str, Any]]:
        """All tags by name: ``branch``, ``version``, ``created_at``, ``updated_at``, ``manifest_size``, ``metadata``."""
        return self._dataset._run(self._dataset.aio.tags.list())

    def list_ordered(self, order: str | None = None) -> Any:
        """(name, tag) by the version they name, newest first (``desc``) or oldest first (``asc``)."""
        return self._dataset._run(self._dataset.aio.tags.list_ordered(order))

    def get_version(self, tag: str) -> int:
        """Version that a tag names.

        Raises:
            NotFoundError: there is no such tag (a `ValueError`).
        """
        return self._dataset._run(self._dataset.aio.tags.get_version(tag))

    def create(self, tag: str, reference: VersionReference | None = None) -> None:
        """Give a version a name.

        Raises:
            AlreadyExistsError: the tag exists (a `ValueError`).
            NotFoundError: the version does not.
            InvalidInputError: the name has other characters than letters, digits, ``.``, ``-`` and ``_``.
        """
        self._dataset._run(self._dataset.aio.tags.create(tag, reference))

    def update(self, tag: str, reference: VersionReference | None = None) -> None:
        """Move a tag to another version."""
        self._dataset._run(self._dataset.aio.tags.update(tag, reference))

    def replace_metadata(self, tag: str, metadata: Mapping[str, str]) -> None:
        """Replace the free entries of a tag."""
        self._dataset._run(self._dataset.aio.tags.replace_metadata(tag, metadata))

    def delete(self, tag: str) -> None:
        """Remove a tag; the version stays until it is cleaned up."""
        self._dataset._run(self._dataset.aio.tags.delete(tag))


class Branches:
    """Branches of a dataset."""

    def __init__(self, dataset: Door) -> None:
        self._dataset = dataset

    def list(self) -> dict[str, dict[str, Any]]:
        """All branches but main by name: where each began and its metadata."""
        return self._dataset._run(self._dataset.aio.branches.list())

    def list_ordered(self, order: str | None = None) -> Any:
        """(name, branch) by the time they were made, newest first (``desc``) or oldest first (``asc``)."""
        return self._dataset._run(self._dataset.aio.branches.list_ordered(order))

    def replace_metadata(self, branch: str, metadata: Mapping[str, Any]) -> None:
        """Replace the free entries of a branch."""
        self._dataset._run(self._dataset.aio.branches.replace_metadata(branch, metadata))

    def delete(self, branch: str) -> None:
        """Remove a branch and its versions.

        Raises:
            NotFoundError: there is no such branch.
            InvalidInputError: a tag names a version of it, or another branch was made from it.
        """
        self._dataset._run(self._dataset.aio.branches.delete(branch))


class DatasetDelta:
    """The changes after one version, up to and including another; needs stable row ids.

    Rows come as lazy Arrow readers with the columns of the dataset, ``_rowid``, ``_row_created_at_version`` and
    ``_row_last_updated_at_version``.
    """

    def __init__(self, dataset: Door, aio: AsyncDatasetDelta) -> None:
        self._dataset = dataset
        self.aio = aio

    def list_transactions(self) -> list[Transaction]:
        """The transactions of the versions in between, oldest first."""
        return self._dataset._run(self.aio.list_transactions())

    def get_inserted_rows(self) -> pa.RecordBatchReader:
        """Rows that were created in between."""
        return self._dataset._reader(*self._dataset._run(self.aio.get_inserted_rows()))

    def get_updated_rows(self) -> pa.RecordBatchReader:
        """Rows that existed before and were changed in between."""
        return self._dataset._reader(*self._dataset._run(self.aio.get_updated_rows()))

    def get_deleted_row_ids(self) -> pa.RecordBatchReader:
        """Ids (``_rowid``) of rows that are gone."""
        return self._dataset._reader(*self._dataset._run(self.aio.get_deleted_row_ids()))
