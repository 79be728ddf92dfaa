"""Committing: publish version N+1 if nobody else has (spec/table.md, section 7).

    look at the newest version and at what others did since ours  ->  conflict?  rebase
    write the transaction file  ->  publish the manifest, only if absent
    somebody was faster  ->  wait a random moment and look again

Data and deletion files are complete before the transaction file, which is complete before the manifest; the
manifest appears atomically, and after what it needs is on disk.  A writer that dies anywhere leaves the previous version as it was, plus files
that nobody refers to.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec

from pilum.errors import (
    AlreadyExistsError,
    CommitConflictError,
    InvalidInputError,
    NotFoundError,
    PilumError,
    RetryTimeoutError,
    StoreError,
    UnsupportedError,
)
from pilum.io import QuerySpan, Store
from pilum.io.postponed import PostponingStore
from pilum.io.runtime import cancel_and_wait
from pilum.table import maintenance, ownership
from pilum.table.build import build_manifest
from pilum.table.catch_up import History
from pilum.table.external import publish
from pilum.table.flags import TRANSACTION_FILES_DISABLED, check_writable
from pilum.table.hint import write_hint
from pilum.table.manifest_file import MAX_INLINE_TRANSACTION, serialize_manifest_file
from pilum.table.model import Manifest
from pilum.table.naming import DETACHED_BIT, TRANSACTIONS, NamingScheme, manifest_path
from pilum.table.operations import Clone, Operation, Overwrite
from pilum.table.rebase import rebase
from pilum.table.transaction import Transaction, encode_transaction, new_uuid
from pilum.table.versions import find_newest, find_versions, load_manifest
from pilum.table.waiting import Backoff

__all__ = ["CommitLock", "commit"]

# Called with a version number; the context manager it returns holds the lock while that version is published.
CommitLock = Callable[[int], AbstractContextManager[Any]]

_DETACHED_ATTEMPTS = 20


P = ParamSpec("P")
Commit = Callable[Concatenate[Store, P], Coroutine[Any, Any, Manifest]]


def _in_span(fn: Commit[P]) -> Commit[P]:
    """A commit that tells what it did (`pilum.io.spans`)."""

    @wraps(fn)
    async def in_span(store: Store, /, *args: P.args, **options: P.kwargs) -> Manifest:
        with QuerySpan("commit", store) as span:
            manifest = await fn(store, *args, **options)
            span.version = manifest.version
        return manifest

    return in_span


@_in_span
async def commit(
    store: Store,
    operation: Operation,
    *,
    read_version: int | None,
    properties: Mapping[str, str] | None = None,
    max_retries: int = 20,
    commit_lock: CommitLock | None = None,
    detached: bool = False,
    stable_row_ids: bool = False,
    naming: NamingScheme = NamingScheme.V2,
    transaction: Transaction | None = None,
    auto_cleanup: bool = True,
    base: Awaitable[Manifest] | None = None,
    before: Callable[[], Awaitable[None]] | None = None,
    into: PostponingStore | None = None,
    time_limit: float | None = None,
) -> Manifest:
    """Commit an operation and return the manifest of the new version.

    Args:
        store: the table's store.
        operation: what to do.
        read_version: version the operation was computed on; None or 0 creates the table.
        properties: entries stored with the transaction.
        max_retries: attempts when other writers are faster; with 0 an overwrite is not moved to a newer
            version at all.
        commit_lock: called with the version about to be published; the context manager it returns is held
            while the manifest is written.
        detached: make a version outside of the history, found only by its number.
        stable_row_ids: rows of a new table get stable ids (see `build_manifest` for an existing one).
        naming: how a new table names its manifests.
        transaction: the complete transaction, when its id is known already; ``read_version``, ``operation``
            and ``properties`` are those of it.
        auto_cleanup: do the cleanup that the config of the table asks for; it fails silently.
        base: brings the manifest of ``read_version`` where it need not be read again.
        before: awaited before anything is published: the files of the operation are complete when it returns.
        into: where files of the operation were written that may not be durable yet; the manifest is put after them.
        time_limit: seconds after which nothing is published any more, looked at before every attempt; None for half an
            hour.

    Raises:
        AlreadyExistsError: the table is to be created and exists.
        NotFoundError: ``read_version`` does not exist.
        CommitConflictError: another writer's commit excludes this one, or others were faster every time.
        RetryTimeoutError: it was not done in its time; nothing was published.
        UnsupportedError: the table needs features that pilum cannot write.
        InvalidInputError: the operation does not fit the table.
        StoreError: the store failed; when the message says that the status of the commit is unknown, the
            version may or may not have been published.
    """
    if transaction is None:
        transaction = Transaction(read_version or 0, new_uuid(), operation, dict(properties or {}))
    target = _Target(store, commit_lock, into, Backoff(time_limit))
    if not transaction.read_version or isinstance(transaction.operation, Clone):
        if detached:
            raise InvalidInputError("the first version of a table cannot be detached")
        return await _create(target, transaction, stable_row_ids, naming, before)
    if detached:
        if before is not None:
            await before()
        return await _commit_detached(target, transaction)
    history = History(transaction.read_version, base)
    file = _TransactionFile(store, transaction)
    try:
        await _prepare(store, commit_lock, before, history.catch_up(store, transaction), file)
        return await _commit_after(
            target, transaction, history, file,
            max_retries=max_retries, stable_row_ids=stable_row_ids, auto_cleanup=auto_cleanup,
        )  # fmt: skip
    except ownership.StatusUnknown as unknown:
        raise unknown.cause from unknown.cause.__cause__
    except PilumError:
        await file.discard()
        raise


async def _commit_after(
    target: _Target,
    transaction: Transaction,
    history: History,
    file: _TransactionFile,
    *,
    max_retries: int,
    stable_row_ids: bool,
    auto_cleanup: bool,
) -> Manifest:
    """Commit to a table whose history was looked at just now."""
    store, backoff = target.store, target.backoff
    strict = max_retries == 0 and isinstance(transaction.operation, Overwrite)
    for attempt in range(max(max_retries, 1)):
        if attempt:
            await history.catch_up(store, transaction)
        latest = history.latest
        if strict and latest.version != transaction.read_version:
            raise CommitConflictError(
                f"{store.uri}: version {latest.version} was committed meanwhile, and this overwrite of version "
                f"{transaction.read_version} is to replace no other",
                retryable=False,
            )
        rebased = await rebase(store, transaction, latest, history.others)
        try:
            manifest = build_manifest(
                latest, rebased.transaction, time.time_ns(), stable_row_ids=stable_row_ids
            )
            published = await _publish(target, file, rebased.transaction, manifest, history.scheme, latest)
        except _CertainlyNotPublished as failure:
            await _discard(store, rebased.written)
            await file.discard()
            raise failure.cause from None
        except (InvalidInputError, RetryTimeoutError, UnsupportedError):
            await _discard(store, rebased.written)
            raise
        if published:
            if await ownership.overtaken(store, manifest, history.scheme, latest, history.looked):
                await _discard(store, rebased.written)
                raise CommitConflictError(
                    f"{store.uri}: version {manifest.version} was committed by another writer and cleaned up while "
                    "this commit was on its way, and files of this commit perhaps with it; run the operation again",
                    retryable=True,
                )
            write_hint(store, manifest.version)
            if auto_cleanup:
                await _clean_up(store, manifest)
            return manifest
        await _discard(store, rebased.written)
        if not await backoff.wait():
            break
    raise CommitConflictError(
        f"{store.uri}: other writers were faster {backoff.attempts} times in a row; the newest version is "
        f"{history.latest.version}",
        retryable=True,
    )


async def _create(
    target: _Target,
    transaction: Transaction,
    stable_row_ids: bool,
    naming: NamingScheme,
    before: Callable[[], Awaitable[None]] | None,
) -> Manifest:
    store = target.store
    exists = f"dataset already exists: {store.uri}"
    file = _TransactionFile(store, transaction)

    async def look() -> None:
        if (await find_newest(store)).version:
            raise AlreadyExistsError(exists)

    try:
        await _prepare(store, target.lock, before, look(), file)
        manifest = build_manifest(None, transaction, time.time_ns(), stable_row_ids=stable_row_ids)
        if not await _publish(target, file, transaction, manifest, naming, None):
            raise AlreadyExistsError(exists)
    except _CertainlyNotPublished as failure:
        await file.discard()
        raise failure.cause from None
    except ownership.StatusUnknown as unknown:
        raise unknown.cause from unknown.cause.__cause__
    except PilumError:
        await file.discard()
        raise
    write_hint(store, manifest.version)
    return manifest


async def _commit_detached(target: _Target, transaction: Transaction) -> Manifest:
    """Publish a version outside of the history (section 4.4), built on the version that was read."""
    store = target.store
    scheme = (await find_versions(store)).scheme
    if scheme is not NamingScheme.V2:
        raise InvalidInputError(f"{store.uri}: detached versions need V2 names; migrate the manifests first")
    base = await load_manifest(store, transaction.read_version, lazy=True)
    check_writable(base.writer_flags, store.uri)
    rebased = await rebase(store, transaction, base)
    file = _TransactionFile(store, transaction)
    for _ in range(_DETACHED_ATTEMPTS):
        version = secrets.randbits(63) | DETACHED_BIT
        manifest = build_manifest(base, rebased.transaction, time.time_ns(), version=version)
        try:
            if await _publish(target._replace(lock=None), file, rebased.transaction, manifest, scheme, base):
                return manifest
        except _CertainlyNotPublished as failure:
            await file.discard()
            raise failure.cause from None
        except ownership.StatusUnknown as unknown:
            raise unknown.cause from unknown.cause.__cause__
    await file.discard()
    raise CommitConflictError(f"{store.uri}: no free number for a detached version", retryable=True)


async def _prepare(
    store: Store,
    lock: CommitLock | None,
    before: Callable[[], Awaitable[None]] | None,
    look: Coroutine[Any, Any, None],
    file: _TransactionFile,
) -> None:
    """Everything that can be done before it is known what the new version looks like.

    Over a network all of it is under way at once, the transaction file included: it is likely to be right, and
    nobody reads it before the manifest refers to it.

    Raises:
        Exception: the first failure, in the order: files of the operation, history, store.
    """
    if not store.suspends:
        try:
            if before is not None:
                await before()
        except BaseException:
            look.close()
            raise
        await look
        return
    import asyncio

    steps: list[Coroutine[Any, Any, None]] = [look, file.write_early()]
    if before is not None:
        steps.insert(0, _awaited(before))
    if lock is None:
        steps.append(store.check_put_if_absent())
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.wait(tasks)
    finally:
        await cancel_and_wait(tasks)
    for task in tasks:
        task.result()


async def _awaited(before: Callable[[], Awaitable[None]]) -> None:
    await before()


class _TransactionFile:
    """The file of a transaction, which is written once as long as its content stays the same."""

    def __init__(self, store: Store, transaction: Transaction) -> None:
        self._store = store
        self._transaction = transaction
        self._written: bytes | None = None
        self.path = f"{TRANSACTIONS}/{transaction.file_name}"

    async def write_early(self) -> None:
        """Write the transaction as it is before it was moved to the newest version; failing is no harm."""
        with contextlib.suppress(StoreError):
            await self.write(encode_transaction(self._transaction))

    async def write(self, encoded: bytes) -> None:
        """Have the file hold ``encoded``.

        The manifest holds a copy, which is what the history is read from, so the file need not outlive a power cut;
        syncing it would be a third of the time of a commit.
        """
        if self._written != encoded:
            if len(encoded) <= MAX_INLINE_TRANSACTION:
                await self._store.put_unsynced(self.path, encoded)
            else:
                await self._store.put(self.path, encoded)
            self._written = encoded

    async def discard(self) -> None:
        """Remove the file, if it was written; best effort."""
        if self._written is not None:
            self._written = None
            await _discard(self._store, [self.path])


class _CertainlyNotPublished(Exception):
    """The store failed and the version does not exist."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


class _Target(NamedTuple):
    """Where manifests are published, and under what conditions.

    Attributes:
        store: the table's store.
        lock: held meanwhile.
        into: what must be complete first.
        backoff: how long all of it may take.
    """

    store: Store
    lock: CommitLock | None
    into: PostponingStore | None
    backoff: Backoff

    async def put(self, version: int, path: str, data: bytes) -> None:
        """Put the manifest of a version if it is absent.

        Raises:
            AlreadyExistsError: it exists.
        """
        # The lock may be all that keeps two writers apart where a store cannot put only if absent.
        if self.lock is not None and await _exists(self.store, path):
            raise AlreadyExistsError(f"{self.store.uri}/{path} exists already", certain=True)
        if self.store.external is not None and not version & DETACHED_BIT:
            await publish(self.store, version, path, data)
            return
        try:
            if self.into is None:
                await self.store.put(path, data, if_absent=True)
            else:
                await self.into.put_last(path, data)
        except UnsupportedError:
            if self.lock is None:
                raise
            await self.store.put(path, data)  # nobody else does so now


async def _publish(
    target: _Target,
    file: _TransactionFile,
    transaction: Transaction,
    manifest: Manifest,
    scheme: NamingScheme,
    before: Manifest | None,
) -> bool:
    """Write transaction and the manifest that comes after ``before``; False when another writer owns the version."""
    store, lock = target.store, target.lock
    target.backoff.check(store.uri)
    encoded = encode_transaction(transaction)
    if manifest.writer_flags & TRANSACTION_FILES_DISABLED:
        await file.discard()
    else:
        try:
            await file.write(encoded)
        except Exception as error:
            raise _CertainlyNotPublished(error) from error
    path = manifest_path(manifest.version, scheme)
    data = serialize_manifest_file(manifest, encoded)
    failure: Exception
    try:
        with contextlib.nullcontext() if lock is None else lock(manifest.version):
            await target.put(manifest.version, path, data)
        manifest.note_bytes(data)
        return True
    except AlreadyExistsError as error:
        if error.certain:
            return False
        failure = error
    except Exception as error:
        failure = error
    # A lost response looks like a failure, or like somebody else's success on the second try.
    if await ownership.is_ours(store, manifest, data, scheme, before, failure):
        return True
    if isinstance(failure, AlreadyExistsError):
        return False
    raise _CertainlyNotPublished(failure)


async def _exists(store: Store, path: str) -> bool:
    try:
        await store.head(path)
    except NotFoundError:
        return False
    return True


async def _discard(store: Store, paths: list[str]) -> None:
    """Remove files nobody refers to; best effort."""
    for path in paths:
        with contextlib.suppress(PilumError, OSError):
            await store.delete(path)


async def _clean_up(store: Store, manifest: Manifest) -> None:
    """The cleanup that the config asks for; the commit stands whatever becomes of it."""
    if "lance.auto_cleanup.interval" in manifest.config:
        with contextlib.suppress(PilumError, OSError):
            await maintenance.auto_cleanup(store, manifest)
