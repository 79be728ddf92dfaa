"""Tags and branches of a dataset (spec/table.md, section 13; spec/api.md, section 4).

`AsyncTags` and `AsyncBranches` belong to a handle: a bare version number means one of the branch the handle is
on, and no reference means the version it shows.  Nothing here is remembered; every call asks the store.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from pilum.dataset.handle import Handle
from pilum.errors import InvalidInputError
from pilum.table import (
    Branch,
    Reference,
    Resolved,
    Tag,
    create_tag,
    delete_branch,
    delete_tag,
    get_branch,
    get_tag,
    list_branches,
    list_tags,
    resolve,
    update_tag,
)
from pilum.table.refs import branch_path, encode_branch

__all__ = ["AsyncBranches", "AsyncTags", "VersionReference", "check_reference", "resolve_reference"]

# Names with what they name, in an order.
Ordered: TypeAlias = list[tuple[str, dict[str, Any]]]

# What names a version: a number on the branch of the handle, a tag, or (branch or None for main, number or None
# for the newest).
VersionReference: TypeAlias = int | str | tuple[str | None, int | None]


def check_reference(reference: Any) -> Reference:
    """A reference with its types checked.

    Raises:
        InvalidInputError: it is none (a `ValueError`).
    """
    if isinstance(reference, (int, np.integer)) and not isinstance(reference, bool):
        return int(reference)
    if isinstance(reference, str):
        return reference
    if isinstance(reference, tuple) and len(reference) == 2:
        branch, version = reference
        number = isinstance(version, (int, np.integer)) and not isinstance(version, bool)
        if (branch is None or isinstance(branch, str)) and (version is None or number):
            return (branch, None if version is None else int(version))
    raise InvalidInputError(
        f"a version is an int, a tag (str) or a tuple (branch or None, version or None), got {reference!r}"
    )


async def resolve_reference(handle: Handle, reference: Any) -> Resolved:
    """What a reference names, seen from a handle; None is the version it shows.

    Raises:
        NotFoundError: no such tag or branch.
    """
    branch = handle.manifest.branch
    if reference is None:
        return Resolved(handle.store, branch, handle.version)
    return await resolve(handle.main, check_reference(reference), current=branch)


class AsyncTags:
    """Names of versions; a tagged version is never cleaned up."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def list(self) -> dict[str, dict[str, Any]]:
        """All tags by name: ``branch``, ``version``, ``created_at``, ``updated_at``, ``manifest_size``, ``metadata``."""
        return {name: _shown_tag(tag) for name, tag in (await list_tags(self._handle.main)).items()}

    async def list_ordered(self, order: str | None = None) -> Ordered:
        """Tags by the version they name, newest first (``desc``) or oldest first (``asc``)."""
        tags = list((await self.list()).items())
        tags.sort(key=lambda item: (item[1]["version"], item[0]), reverse=descending(order))
        return tags

    async def get_version(self, tag: str) -> int:
        """Version that a tag names."""
        return (await get_tag(self._handle.main, tag)).version

    async def create(self, tag: str, reference: VersionReference | None = None) -> None:
        """Give a version a name; the version of the handle by default."""
        found = await resolve_reference(self._handle, reference)
        await create_tag(self._handle.main, tag, found.branch, found.version)

    async def update(self, tag: str, reference: VersionReference | None = None) -> None:
        """Move a tag to another version; to that of the handle by default."""
        found = await resolve_reference(self._handle, reference)
        await update_tag(self._handle.main, tag, found.branch, found.version)

    async def replace_metadata(self, tag: str, metadata: Mapping[str, str]) -> None:
        """Replace the free entries of a tag."""
        main = self._handle.main
        known = await get_tag(main, tag)
        await update_tag(main, tag, known.branch, known.version, metadata=metadata)

    async def delete(self, tag: str) -> None:
        """Remove a tag; the version stays until it is cleaned up."""
        await delete_tag(self._handle.main, tag)


class AsyncBranches:
    """Branches of a dataset."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def list(self) -> dict[str, dict[str, Any]]:
        """All branches but main by name: where each began and its metadata."""
        return {name: _shown_branch(one) for name, one in (await list_branches(self._handle.main)).items()}

    async def list_ordered(self, order: str | None = None) -> Ordered:
        """Branches by the time they were made, newest first (``desc``) or oldest first (``asc``)."""
        branches = list((await self.list()).items())
        branches.sort(key=lambda item: (item[1]["create_at"], item[0]), reverse=descending(order))
        return branches

    async def replace_metadata(self, branch: str, metadata: Mapping[str, Any]) -> None:
        """Replace the free entries of a branch."""
        main = self._handle.main
        known = replace(await get_branch(main, branch), metadata=dict(metadata))
        await main.put(branch_path(branch), encode_branch(known))

    async def delete(self, branch: str) -> None:
        """Remove a branch and its versions."""
        main = self._handle.main
        await get_branch(main, branch)
        await delete_branch(main, branch)


def descending(order: str | None) -> bool:
    """Whether an order is ``desc``, the default, rather than ``asc``.

    Raises:
        InvalidInputError: it is neither.
    """
    if order not in (None, "asc", "desc"):
        raise InvalidInputError(f"invalid sort order {order!r}; valid are asc, desc")
    return order != "asc"


def _moment(nanoseconds: int | None) -> datetime.datetime | None:
    if nanoseconds is None:
        return None
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.replace(microsecond=rest // 1000)


def _shown_tag(tag: Tag) -> dict[str, Any]:
    return {
        "branch": tag.branch,
        "version": tag.version,
        "created_at": _moment(tag.created_at_ns),
        "updated_at": _moment(tag.updated_at_ns),
        "manifest_size": tag.manifest_size,
        "metadata": dict(tag.metadata),
    }


def _shown_branch(branch: Branch) -> dict[str, Any]:
    return {
        "parent_branch": branch.parent_branch,
        "parent_version": branch.parent_version,
        "branch_identifier": [tuple(one) for one in branch.lineage],
        "create_at": branch.created_at,
        "manifest_size": branch.manifest_size,
        "metadata": dict(branch.metadata),
    }
