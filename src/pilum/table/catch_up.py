"""What happened to a table since a version was read: the newest version, and what others did (spec/table.md, section 9).

base  ──►  versions after it, each with its transaction  ──►  conflict?  else the newest manifest
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Generator
from contextlib import aclosing
from typing import Any

from pilum.errors import CommitConflictError, InvalidInputError, NotFoundError
from pilum.io import Store, current_runtime
from pilum.table.conflicts import conflict_between
from pilum.table.flags import check_writable
from pilum.table.model import Manifest
from pilum.table.naming import DETACHED_BIT, NamingScheme
from pilum.table.operations import Operation
from pilum.table.transaction import Transaction
from pilum.table.versions import (
    VersionFile,
    find_newest,
    find_versions,
    load_again,
    load_version,
    read_transaction,
)

__all__ = ["History", "known"]

# How many manifests of other writers are read at once.
_READ_WINDOW = 64


def known(store: Store, manifest: Manifest) -> Awaitable[Manifest]:
    """The manifest that a handle holds, as the ``base`` of a `commit`.

    Where that does not take a network, its file is read again, though not decoded again: it may have been replaced,
    with the table.
    """
    return _Known(store, manifest)


class _Known:
    """An awaitable of a manifest; it can be awaited again."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._store = store
        self._manifest = manifest

    def __await__(self) -> Generator[Any, None, Manifest]:
        if self._store.suspends:
            return self._manifest
        return (yield from load_again(self._store, self._manifest).__await__())


class History:
    """What happened to a table since a version was read.

    Attributes:
        latest: the newest version; known after `catch_up`.
        scheme: how its manifests are named.
        others: operations committed since, oldest first.
        looked: when the newest version was last looked for, seconds since the epoch.
    """

    latest: Manifest
    scheme: NamingScheme
    looked: float

    def __init__(self, read_version: int, base: Awaitable[Manifest] | None = None) -> None:
        self._seen = read_version
        self._base = base
        self.others: list[Operation] = []

    async def catch_up(self, store: Store, transaction: Transaction) -> None:
        """Look for newer versions; check that the transaction stands beside each.

        Raises:
            CommitConflictError: it does not, or what others did cannot be found out.
            NotFoundError: the table or the version that was read does not exist.
            UnsupportedError: the newest version cannot be written to.
        """
        seen = self._seen
        self.looked = time.time()
        newest, self.scheme, between = await find_newest(store, seen)
        if seen & DETACHED_BIT:
            raise InvalidInputError(f"{store.uri}: a detached version is no base for the history")
        if not newest:
            raise NotFoundError(f"no dataset at {store.uri}: it has no versions")
        if seen > newest:
            raise NotFoundError(f"{store.uri} has no version {seen}; the newest is {newest}")
        if newest == seen:
            if not hasattr(self, "latest"):
                try:
                    if self._base is not None:
                        self.latest = await self._base
                    else:
                        self.latest = (await load_version(store, newest, self.scheme, lazy=True)).manifest
                except NotFoundError:
                    if (await find_versions(store)).versions[-1:] == [newest]:
                        raise
                    # Since the listing others have committed, and removed this version.
                    return await self.catch_up(store, transaction)
                check_writable(self.latest.writer_flags, store.uri)
            return None
        if newest - seen != between:
            raise CommitConflictError(
                f"{store.uri}: versions after {seen} are gone, so the changes since then cannot be checked; "
                "run the operation again on the newest version",
                retryable=True,
            )

        scheme = self.scheme

        async def load(version: int) -> VersionFile:
            try:
                return await load_version(store, version, scheme, lazy=True)
            except NotFoundError:
                raise CommitConflictError(
                    f"{store.uri}: version {version} was just removed, so what it changed cannot be checked; "
                    "run the operation again on the newest version",
                    retryable=True,
                ) from None

        stream = current_runtime().map_ordered(
            load, range(seen + 1, newest + 1), window=_READ_WINDOW, suspends=store.suspends
        )
        async with aclosing(stream):
            async for file in stream:
                self.others.append(await _check_against(store, transaction, file))
                self.latest = file.manifest
        self._seen = newest
        check_writable(self.latest.writer_flags, store.uri)
        return None


async def _check_against(store: Store, transaction: Transaction, file: VersionFile) -> Operation:
    """The operation of a version, which the transaction can follow."""
    version = file.manifest.version
    other = await read_transaction(store, file)
    if other is None:
        raise CommitConflictError(
            f"{store.uri}: version {version} does not say what it changed, so nothing computed before can "
            "follow it; run the operation again on the newest version",
            retryable=True,
        )
    conflict = conflict_between(transaction.operation, other.operation)
    if conflict is not None:
        advice = (
            "run the operation again on the newest version"
            if conflict.retryable
            else "a retry cannot succeed"
        )
        raise CommitConflictError(
            f"{store.uri}: {conflict.reason}, which was committed as version {version} "
            f"(this operation was computed on version {transaction.read_version}); {advice}",
            retryable=conflict.retryable,
        )
    return other.operation
