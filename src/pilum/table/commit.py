"""Committing: publish version N+1 if nobody else has (spec/table.md, section 7).

    look at the newest version and at what others did since ours  ->  conflict?  rebase
    write the transaction file  ->  publish the manifest, only if absent
    somebody was faster  ->  wait a random moment and look again

Data and deletion files are complete before the transaction file, which is complete before the manifest; the
manifest appears atomically.  A writer that dies anywhere leaves the previous version as it was, plus files
that nobody refers to.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractContextManager, aclosing
from functools import wraps
from typing import Any, Concatenate, ParamSpec

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
from pilum.io import QuerySpan, Store, current_runtime
from pilum.io.runtime import cancel_and_wait
from pilum.table.build import build_manifest
from pilum.table.conflicts import conflict_between
from pilum.table.external import publish, settle
from pilum.table.flags import TRANSACTION_FILES_DISABLED, check_writable
from pilum.table.hint import write_hint
from pilum.table.manifest_file import serialize_manifest_file
from pilum.table.model import Manifest
from pilum.table.naming import DETACHED_BIT, TRANSACTIONS, NamingScheme, manifest_path
from pilum.table.operations import Clone, Operation, Overwrite
from pilum.table.rebase import rebase
from pilum.table.transaction import Transaction, encode_transaction, new_uuid
from pilum.table.versions import VersionFile, find_newest, find_versions, load_version, read_transaction
from pilum.table.waiting import Backoff

__all__ = ["CommitLock", "commit", "known"]

# Called with a version number; the context manager it returns holds the lock while that version is published.
CommitLock = Callable[[int], AbstractContextManager[Any]]

_DETACHED_ATTEMPTS = 20
# How many manifests of other writers are read at once.
_READ_WINDOW = 64


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

    Raises:
        AlreadyExistsError: the table is to be created and exists.
        NotFoundError: ``read_version`` does not exist.
        CommitConflictError: another writer's commit excludes this one, or others were faster every time.
        RetryTimeoutError: it was not done within half an hour.
        UnsupportedError: the table needs features that pilum cannot write.
        InvalidInputError: the operation does not fit the table.
        StoreError: the store failed; when the message says that the status of the commit is unknown, the
            version may or may not have been published.
    """
    if transaction is None:
        transaction = Transaction(read_version or 0, new_uuid(), operation, dict(properties or {}))
    if not transaction.read_version or isinstance(transaction.operation, Clone):
        if detached:
            raise InvalidInputError("the first version of a table cannot be detached")
        return await _create(store, transaction, commit_lock, stable_row_ids, naming, before)
    if detached:
        if before is not None:
            await before()
        return await _commit_detached(store, transaction)
    backoff = Backoff()
    history = _History(transaction.read_version, base)
    file = _TransactionFile(store, transaction)
    try:
        await _prepare(store, commit_lock, before, history.catch_up(store, transaction), file)
        return await _commit_after(
            store, transaction, history, file, backoff,
            max_retries=max_retries, lock=commit_lock, stable_row_ids=stable_row_ids, auto_cleanup=auto_cleanup,
        )  # fmt: skip
    except _StatusUnknown as unknown:
        raise unknown.cause from unknown.cause.__cause__
    except PilumError:
        await file.discard()
        raise


async def _commit_after(
    store: Store,
    transaction: Transaction,
    history: _History,
    file: _TransactionFile,
    backoff: Backoff,
    *,
    max_retries: int,
    lock: CommitLock | None,
    stable_row_ids: bool,
    auto_cleanup: bool,
) -> Manifest:
    """Commit to a table whose history was looked at just now."""
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
            backoff.check(store.uri)
            manifest = build_manifest(
                latest, rebased.transaction, time.time_ns(), stable_row_ids=stable_row_ids
            )
            published = await _publish(store, file, rebased.transaction, manifest, history.scheme, lock)
        except _CertainlyNotPublished as failure:
            await _discard(store, rebased.written)
            await file.discard()
            raise failure.cause from None
        except (InvalidInputError, RetryTimeoutError, UnsupportedError):
            await _discard(store, rebased.written)
            raise
        if published:
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


def known(store: Store, manifest: Manifest) -> Awaitable[Manifest] | None:
    """The manifest that a handle holds, as the ``base`` of a `commit`.

    None on a local disk, where reading it again costs nothing and notices that the table was replaced.
    """
    return _Known(manifest) if store.suspends else None


class _Known:
    """An awaitable that is there already."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __await__(self) -> Generator[Any, None, Manifest]:
        yield from ()
        return self._manifest


async def _create(
    store: Store,
    transaction: Transaction,
    lock: CommitLock | None,
    stable_row_ids: bool,
    naming: NamingScheme,
    before: Callable[[], Awaitable[None]] | None,
) -> Manifest:
    exists = f"dataset already exists: {store.uri}"
    file = _TransactionFile(store, transaction)

    async def look() -> None:
        if (await find_newest(store)).version:
            raise AlreadyExistsError(exists)

    try:
        await _prepare(store, lock, before, look(), file)
        manifest = build_manifest(None, transaction, time.time_ns(), stable_row_ids=stable_row_ids)
        if not await _publish(store, file, transaction, manifest, naming, lock):
            raise AlreadyExistsError(exists)
    except _CertainlyNotPublished as failure:
        await file.discard()
        raise failure.cause from None
    except _StatusUnknown as unknown:
        raise unknown.cause from unknown.cause.__cause__
    except PilumError:
        await file.discard()
        raise
    write_hint(store, manifest.version)
    return manifest


async def _commit_detached(store: Store, transaction: Transaction) -> Manifest:
    """Publish a version outside of the history (section 4.4), built on the version that was read."""
    scheme = (await find_versions(store)).scheme
    if scheme is not NamingScheme.V2:
        raise InvalidInputError(f"{store.uri}: detached versions need V2 names; migrate the manifests first")
    base = (await load_version(store, transaction.read_version)).manifest
    check_writable(base.writer_flags, store.uri)
    rebased = await rebase(store, transaction, base)
    file = _TransactionFile(store, transaction)
    for _ in range(_DETACHED_ATTEMPTS):
        version = secrets.randbits(63) | DETACHED_BIT
        manifest = build_manifest(base, rebased.transaction, time.time_ns(), version=version)
        try:
            if await _publish(store, file, rebased.transaction, manifest, scheme, None):
                return manifest
        except _CertainlyNotPublished as failure:
            await file.discard()
            raise failure.cause from None
        except _StatusUnknown as unknown:
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
        """Have the file hold ``encoded``."""
        if self._written != encoded:
            await self._store.put(self.path, encoded)
            self._written = encoded

    async def discard(self) -> None:
        """Remove the file, if it was written; best effort."""
        if self._written is not None:
            self._written = None
            await _discard(self._store, [self.path])


class _History:
    """What happened to a table since a version was read.

    Attributes:
        latest: the newest version; known after `catch_up`.
        scheme: how its manifests are named.
        others: operations committed since, oldest first.
    """

    latest: Manifest
    scheme: NamingScheme

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
                        self.latest = (await load_version(store, newest, self.scheme)).manifest
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
                return await load_version(store, version, scheme)
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


class _CertainlyNotPublished(Exception):
    """The store failed and the version does not exist."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


class _StatusUnknown(Exception):
    """The store failed, and the version may exist: nothing that it may refer to must be removed."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


async def _publish(
    store: Store,
    file: _TransactionFile,
    transaction: Transaction,
    manifest: Manifest,
    scheme: NamingScheme,
    lock: CommitLock | None,
) -> bool:
    """Write transaction and manifest; False when another writer owns the version."""
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
        # The lock may be all that keeps two writers apart where a store cannot put only if absent.
        with contextlib.nullcontext() if lock is None else lock(manifest.version):
            if lock is not None and await _exists(store, path):
                raise AlreadyExistsError(f"{store.uri}/{path} exists already")
            if store.external is None or manifest.version & DETACHED_BIT:
                await _put_if_absent(store, path, data, locked=lock is not None)
            else:
                await publish(store, manifest.version, path, data)
        return True
    except Exception as error:
        # A lost response looks like a failure, or like somebody else's success on the second try.
        failure = error
    if await _is_ours(store, manifest, data, scheme, failure):
        return True
    if isinstance(failure, AlreadyExistsError):
        return False
    raise _CertainlyNotPublished(failure)


async def _put_if_absent(store: Store, path: str, data: bytes, *, locked: bool) -> None:
    try:
        await store.put(path, data, if_absent=True)
    except UnsupportedError:
        if not locked:
            raise
        await store.put(path, data)  # nobody else does so now


async def _exists(store: Store, path: str) -> bool:
    try:
        await store.head(path)
    except NotFoundError:
        return False
    return True


async def _is_ours(
    store: Store, manifest: Manifest, data: bytes, scheme: NamingScheme, failure: Exception
) -> bool:
    """Whether the version exists and is the one we wrote.

    Raises:
        _StatusUnknown: it cannot be found out.
    """
    path = manifest_path(manifest.version, scheme)
    try:
        await settle(store, manifest.version)
        return bytes(await store.get_all(path, who="manifest")) == data
    except NotFoundError:
        if not isinstance(failure, AlreadyExistsError):
            return False
        unclear: Exception = failure
    except (PilumError, OSError) as error:
        unclear = error
    unknown = StoreError(
        f"{store.uri}: the status of the commit of version {manifest.version} is unknown ({unclear}); "
        f"look whether transaction {manifest.transaction_file} is in the history"
    )
    unknown.__cause__ = failure
    raise _StatusUnknown(unknown)


async def _discard(store: Store, paths: list[str]) -> None:
    """Remove files nobody refers to; best effort."""
    for path in paths:
        with contextlib.suppress(PilumError, OSError):
            await store.delete(path)


async def _clean_up(store: Store, manifest: Manifest) -> None:
    """The cleanup that the config asks for; the commit stands whatever becomes of it."""
    if "lance.auto_cleanup.interval" in manifest.config:
        from pilum.table.maintenance import auto_cleanup  # which looks at branches, whose module commits

        with contextlib.suppress(PilumError, OSError):
            await auto_cleanup(store, manifest)
