"""Committing: publish version N+1 if nobody else has (spec/table.md, section 7).

    look at the newest version and at what others did since ours  ->  conflict?  rebase
    write the transaction file  ->  publish the manifest, only if absent
    somebody was faster  ->  wait a random moment and look again

Data and deletion files are complete before the transaction file, which is complete before the manifest; the
manifest appears atomically.  A writer that dies anywhere leaves the previous version as it was, plus files
that nobody refers to.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import os
import random
import time
from collections.abc import Mapping
from contextlib import aclosing

from pilum.errors import (
    AlreadyExistsError,
    CommitConflictError,
    NotFoundError,
    PilumError,
    StoreError,
)
from pilum.io import InlineRuntime, LocalStore, Store, current_runtime
from pilum.table.build import build_manifest
from pilum.table.conflicts import conflict_between
from pilum.table.flags import TRANSACTION_FILES_DISABLED, check_writable
from pilum.table.manifest_file import serialize_manifest_file
from pilum.table.model import Manifest
from pilum.table.naming import TRANSACTIONS, VERSION_HINT, NamingScheme, manifest_path
from pilum.table.operations import Operation
from pilum.table.rebase import rebase
from pilum.table.transaction import Transaction, encode_transaction, new_uuid
from pilum.table.versions import VersionFile, find_versions, load_version, read_transaction

__all__ = ["commit"]

# Retries of one commit share this much time; the first attempt is never cut short.
_RETRY_BUDGET_SECONDS = 30.0
_FIRST_SLOT_SECONDS = 0.05
_MAX_SLOTS = 128
# How many manifests of other writers are read at once.
_READ_WINDOW = 64


async def commit(
    store: Store,
    operation: Operation,
    *,
    read_version: int | None,
    properties: Mapping[str, str] | None = None,
    max_retries: int = 20,
) -> Manifest:
    """Commit an operation and return the manifest of the new version.

    Args:
        store: the table's store.
        operation: what to do.
        read_version: version the operation was computed on; None or 0 creates the table.
        properties: entries stored with the transaction.
        max_retries: attempts when other writers are faster.

    Raises:
        AlreadyExistsError: the table is to be created and exists.
        NotFoundError: ``read_version`` does not exist.
        CommitConflictError: another writer's commit excludes this one, or others were faster every time.
        UnsupportedError: the table needs features that pilum cannot write.
        StoreError: the store failed; when the message says that the status of the commit is unknown, the
            version may or may not have been published.
    """
    transaction = Transaction(read_version or 0, new_uuid(), operation, dict(properties or {}))
    if not read_version:
        return await _create(store, transaction)
    backoff = _Backoff()
    seen = read_version
    for _ in range(max(max_retries, 1)):
        latest, scheme = await _catch_up(store, transaction, seen)
        seen = latest.version
        rebased = await rebase(store, transaction, latest)
        manifest = build_manifest(latest, rebased.transaction, time.time_ns())
        try:
            published = await _publish(store, rebased.transaction, manifest, scheme)
        except _CertainlyNotPublished as failure:
            await _discard(store, rebased.written)
            raise failure.cause from None
        if published:
            await _write_hint(store, manifest.version)
            return manifest
        await _discard(store, rebased.written)
        if not await backoff.wait():
            break
    raise CommitConflictError(
        f"{store.uri}: other writers were faster {backoff.attempts} times in a row; the newest version is {seen}",
        retryable=True,
    )


async def _create(store: Store, transaction: Transaction) -> Manifest:
    exists = f"dataset already exists: {store.uri}"
    listing = await find_versions(store)
    if listing.versions:
        raise AlreadyExistsError(exists)
    manifest = build_manifest(None, transaction, time.time_ns())
    try:
        published = await _publish(store, transaction, manifest, NamingScheme.V2)
    except _CertainlyNotPublished as failure:
        raise failure.cause from None
    if not published:
        raise AlreadyExistsError(exists)
    await _write_hint(store, manifest.version)
    return manifest


async def _catch_up(store: Store, transaction: Transaction, seen: int) -> tuple[Manifest, NamingScheme]:
    """The newest version, after checking that the transaction stands beside all newer than ``seen``."""
    versions, scheme, _ = await find_versions(store)
    if not versions:
        raise NotFoundError(f"no dataset at {store.uri}: it has no versions")
    newest = versions[-1]
    if seen > newest:
        raise NotFoundError(f"{store.uri} has no version {seen}; the newest is {newest}")
    if newest == seen:
        latest = (await load_version(store, newest, scheme)).manifest
        check_writable(latest.writer_flags, store.uri)
        return latest, scheme
    if newest - seen != len(versions) - bisect.bisect_right(versions, seen):
        raise CommitConflictError(
            f"{store.uri}: versions after {seen} are gone, so the changes since then cannot be checked; "
            "run the operation again on the newest version",
            retryable=True,
        )

    async def load(version: int) -> VersionFile:
        return await load_version(store, version, scheme)

    stream = current_runtime().map_ordered(
        load, range(seen + 1, newest + 1), window=_READ_WINDOW, suspends=store.suspends
    )
    manifest: Manifest | None = None
    async with aclosing(stream):
        async for file in stream:
            await _check_against(store, transaction, file)
            manifest = file.manifest
    assert manifest is not None
    check_writable(manifest.writer_flags, store.uri)
    return manifest, scheme


async def _check_against(store: Store, transaction: Transaction, file: VersionFile) -> None:
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


class _CertainlyNotPublished(Exception):
    """The store failed and the version does not exist."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


async def _publish(store: Store, transaction: Transaction, manifest: Manifest, scheme: NamingScheme) -> bool:
    """Write transaction and manifest; False when another writer owns the version."""
    encoded = encode_transaction(transaction)
    transaction_path = f"{TRANSACTIONS}/{transaction.file_name}"
    with_file = not manifest.writer_flags & TRANSACTION_FILES_DISABLED
    if with_file:
        try:
            await store.put(transaction_path, encoded)
        except Exception as error:
            raise _CertainlyNotPublished(error) from error
    path = manifest_path(manifest.version, scheme)
    data = serialize_manifest_file(manifest, encoded)
    failure: Exception | None = None
    try:
        await store.put(path, data, if_absent=True)
        return True
    except Exception as error:
        # A lost response looks like a failure, or like somebody else's success on the second try.
        failure = error
    owned = await _is_ours(store, manifest, data, scheme, failure)
    if owned:
        return True
    if with_file:
        await _discard(store, [transaction_path])
    if isinstance(failure, AlreadyExistsError):
        return False
    raise _CertainlyNotPublished(failure)


async def _is_ours(
    store: Store, manifest: Manifest, data: bytes, scheme: NamingScheme, failure: Exception
) -> bool:
    """Whether the version exists and is the one we wrote.

    Raises:
        StoreError: it cannot be found out.
    """
    path = manifest_path(manifest.version, scheme)
    try:
        return bytes(await store.get_all(path, who="manifest")) == data
    except NotFoundError:
        if not isinstance(failure, AlreadyExistsError):
            return False
        unclear: Exception = failure
    except (PilumError, OSError) as error:
        unclear = error
    raise StoreError(
        f"{store.uri}: the status of the commit of version {manifest.version} is unknown ({unclear}); "
        f"look whether transaction {manifest.transaction_file} is in the history"
    ) from failure


async def _discard(store: Store, paths: list[str]) -> None:
    """Remove files nobody refers to; best effort."""
    for path in paths:
        with contextlib.suppress(PilumError, OSError):
            await store.delete(path)


async def _write_hint(store: Store, version: int) -> None:
    """Leave the newest version number where stores without an ordered listing look for it; best effort."""
    if isinstance(store, LocalStore) and _hint_enabled():
        with contextlib.suppress(PilumError, OSError):
            await store.put(VERSION_HINT, b'{"version":%d}' % version)


def _hint_enabled() -> bool:
    return os.environ.get("LANCE_USE_VERSION_HINT", "").lower() not in ("0", "false", "off")


class _Backoff:
    """Random pauses between attempts, growing with their number (section 7.2).

    A slot is a little longer than the first attempt took; attempt k waits for one of min(4 * 2^k, 128) slots.
    """

    def __init__(self) -> None:
        self.attempts = 0
        self._started = time.monotonic()
        self._slot = _FIRST_SLOT_SECONDS

    async def wait(self) -> bool:
        """Pause before the next attempt; False when the time for retries is used up."""
        elapsed = time.monotonic() - self._started
        if self.attempts == 0:
            self._slot = 1.1 * elapsed
        slots = min(4 << self.attempts, _MAX_SLOTS)
        self.attempts += 1
        pause = self._slot * random.randrange(slots)
        if elapsed + pause > _RETRY_BUDGET_SECONDS:
            return False
        if isinstance(current_runtime(), InlineRuntime):
            # Nothing else runs on this thread, and awaiting would need a loop.
            time.sleep(pause)  # noqa: ASYNC251
        else:
            await asyncio.sleep(pause)
        return True
