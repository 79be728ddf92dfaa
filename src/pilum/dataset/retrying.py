"""Starting over: a change of rows that lost a race is computed again on the newest version (spec/table.md, 7.2).

A commit moves its operation onto a newer version by itself where that is possible.  Where it is not, because another
writer changed the same rows, the rows have to be looked for again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from pilum.errors import CommitConflictError, RetryTimeoutError
from pilum.query.snapshot import Snapshot
from pilum.table import latest_version, load_manifest

__all__ = ["starting_over"]

T = TypeVar("T")


async def starting_over(
    snapshot: Snapshot,
    attempt: Callable[[Snapshot], Awaitable[T]],
    *,
    what: str,
    conflict_retries: int,
    retry_timeout: timedelta | None,
) -> T:
    """Try until no other writer stands in the way.

    Args:
        snapshot: the version to start from.
        attempt: computes the change on a version and commits it.
        what: name of the operation, for messages.
        conflict_retries: how often to start over.
        retry_timeout: time after which it is not started over any more.

    Raises:
        CommitConflictError: others stood in the way every time, or a retry cannot help.
        RetryTimeoutError: the time is over.
    """
    started = time.monotonic()
    for number in range(conflict_retries + 1):
        try:
            return await attempt(snapshot)
        except CommitConflictError as conflict:
            if not conflict.retryable or number == conflict_retries:
                raise
            if retry_timeout is not None and time.monotonic() - started > retry_timeout.total_seconds():
                raise RetryTimeoutError(
                    f"{what}: others kept changing the same fragments for {retry_timeout}: {conflict}"
                ) from conflict
        newest = await latest_version(snapshot.store)
        snapshot = Snapshot(snapshot.store, await load_manifest(snapshot.store, newest), snapshot.session)
    raise AssertionError("unreachable")
