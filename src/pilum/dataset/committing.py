"""Commits that users put together themselves (spec/api.md, sections 4 and 7).

```
writers, anywhere:   write_fragments / LanceFragment.create / LanceFragment.delete   ->  FragmentMetadata
coordinator:         LanceOperation.Append([...])  ->  commit(uri, operation, read_version)  ->  new version
```

The fragments travel as JSON.  A commit rebases over what others committed since ``read_version``, or says why it
cannot.
"""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from pilum.dataset.operations import LanceOperation
from pilum.dataset.transactions import Transaction, operation_of, stored_transaction, transaction_of
from pilum.errors import InvalidInputError, NotFoundError, UnsupportedError
from pilum.io import Store
from pilum.table import CommitLock, Manifest, NamingScheme, commit, known, latest_version, merge_appends
from pilum.table import Transaction as StoredTransaction

__all__ = ["commit_message_properties", "commit_operation", "commit_transactions", "seconds_of", "within"]

T = TypeVar("T")

# Operations that say all of the next version, so that it does not matter which one they were computed on.
_WITHOUT_READ_VERSION = (LanceOperation.Overwrite, LanceOperation.Restore)


def commit_message_properties(message: str | None, properties: Mapping[str, str] | None) -> dict[str, str]:
    """Properties of a transaction with its message, which wins over a property of that name."""
    merged = dict(properties or {})
    if message is not None:
        merged["__lance_commit_message"] = message
    return merged


async def commit_operation(
    store: Store,
    operation: LanceOperation.BaseOperation | Transaction,
    read_version: int | None = None,
    *,
    commit_lock: CommitLock | None = None,
    enable_v2_manifest_paths: bool | None = None,
    detached: bool | None = False,
    max_retries: int = 20,
    commit_message: str | None = None,
    enable_stable_row_ids: bool | None = None,
    time_limit: float | None = None,
    seen: Manifest | None = None,
) -> Manifest:
    """Commit an operation or a transaction; see `pilum.LanceDataset.commit`.

    Args:
        store: the table's store.
        operation, read_version, commit_lock, enable_v2_manifest_paths, detached, max_retries, commit_message,
            enable_stable_row_ids: as there.
        time_limit: seconds.
        seen: a version that is at hand.
    """
    if isinstance(operation, Transaction):
        if commit_message is not None:
            raise InvalidInputError(
                "commit_message does not go with a Transaction; set it in its transaction_properties"
            )
        transaction = operation
    else:
        if read_version is None:
            operation_of(operation)  # which says what is wrong with it
            if not isinstance(operation, _WITHOUT_READ_VERSION):
                raise InvalidInputError(
                    "read_version is required for all operations except Overwrite and Restore"
                )
            read_version = await _newest(store) or 0
        properties = commit_message_properties(commit_message, None)
        transaction = Transaction(read_version, operation, transaction_properties=properties)
    stored = stored_transaction(transaction)
    creates = isinstance(transaction.operation, LanceOperation.Overwrite)

    async def check_exists() -> None:
        if not creates and await _newest(store) is None:
            raise NotFoundError(f"no dataset at {store.uri}: only an Overwrite operation creates one")

    if not stored.read_version:
        await check_exists()
    try:
        return await _commit(
            store,
            stored,
            commit_lock=commit_lock,
            detached=bool(detached),
            max_retries=max_retries,
            stable_row_ids=bool(enable_stable_row_ids),
            naming=NamingScheme.V1 if enable_v2_manifest_paths is False else NamingScheme.V2,
            time_limit=time_limit,
            base=None if seen is None or seen.version != stored.read_version else known(store, seen),
        )
    except NotFoundError:
        await check_exists()
        raise


async def commit_transactions(
    store: Store, transactions: Sequence[Transaction], **options: Any
) -> tuple[Manifest, Transaction]:
    """Commit several appends as one version; returns it and the merged transaction.

    Raises:
        InvalidInputError: there is none.
        UnsupportedError: one does something else than append.
    """
    for one in transactions:
        if not isinstance(one, Transaction):
            raise TypeError(f"expected a Transaction, got {type(one).__name__}")
        if not isinstance(one.operation, LanceOperation.Append):
            raise UnsupportedError(
                f"only appends can be committed together, not {type(one.operation).__name__}"
            )
    merged = merge_appends([stored_transaction(one) for one in transactions])
    return await _commit(store, merged, **options), transaction_of(merged)


async def _commit(store: Store, transaction: StoredTransaction, **options: Any) -> Manifest:
    return await commit(
        store,
        transaction.operation,
        read_version=transaction.read_version or None,
        transaction=transaction,
        **options,
    )


async def _newest(store: Store) -> int | None:
    try:
        return await latest_version(store)
    except NotFoundError:
        return None


def seconds_of(limit: datetime.timedelta | None) -> float | None:
    """A time limit as seconds.

    Raises:
        InvalidInputError: it is negative.
    """
    if limit is None:
        return None
    if limit < datetime.timedelta(0):
        raise InvalidInputError(f"commit_timeout must not be negative, got {limit}")
    return limit.total_seconds()


async def within(awaitable: Awaitable[T], limit: datetime.timedelta | None, *, suspends: bool) -> T:
    """Await with a time limit where waiting can be cut short; elsewhere `commit` looks at the time itself.

    Raises:
        TimeoutError: it took longer.
    """
    if limit is None or not suspends:
        return await awaitable
    import asyncio

    return await asyncio.wait_for(awaitable, limit.total_seconds())
