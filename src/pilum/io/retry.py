"""When a failed request is made again, and when to give up.

A request that was throttled, refused, cut off or never answered is repeated after a pause that doubles each time
and is drawn at random from its upper half, so that clients that failed together do not come back together.  Two
bounds hold: a number of attempts, and a deadline for all of them.  The deadline also ends an attempt that is
waiting, so no request outlives it, whatever the server does (spec/read-path.md, section 2.3, has one layer here
instead of four nested ones).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import NamedTuple, TypeVar

from pilum.errors import AlreadyExistsError, NotFoundError, PilumError, StoreError, UnsupportedError

__all__ = ["Failure", "Kind", "RetryPolicy", "retrying"]

T = TypeVar("T")

# The client library looks for renewed credentials ten times a second at most.
_RENEWALS = 3
_RENEWAL_PAUSE = 0.15


class Kind(Enum):
    """What became of a request."""

    MISSING = "missing"  # there is no such object
    EXISTS = "exists"  # put only if absent, and it is present
    BEYOND = "beyond"  # the range begins after the end of the object
    UNSUPPORTED = "unsupported"  # this store cannot do that
    DENIED = "denied"  # credentials are missing, wrong or expired
    THROTTLED = "throttled"  # too many requests
    BROKEN = "broken"  # may well succeed if made again
    FINAL = "final"  # will fail again


RETRYABLE = frozenset({Kind.THROTTLED, Kind.BROKEN})


class Failure(NamedTuple):
    """Why a request failed.

    Attributes:
        kind: what to do about it.
        message: what the client library said, in one line.
    """

    kind: Kind
    message: str

    def error(self, what: str, attempts: int, seconds: float) -> PilumError:
        """The error to raise.

        Args:
            what: the request: store, key, range.
            attempts: how often it was made.
            seconds: how long all that took.
        """
        tried = "" if attempts == 1 else f" ({attempts} attempts in {seconds:.1f} s)"
        if self.kind is Kind.MISSING:
            return NotFoundError(f"{what}: there is no such object")
        if self.kind is Kind.EXISTS:
            return AlreadyExistsError(f"{what}: exists already")
        if self.kind is Kind.BEYOND:
            return StoreError(f"{what}: the object ends before the range does{tried}")
        if self.kind is Kind.UNSUPPORTED:
            return UnsupportedError(f"{what}: not supported by this store: {self.message}")
        if self.kind is Kind.DENIED:
            return StoreError(f"{what}: access denied: {self.message}{tried}")
        return StoreError(f"{what}: {self.message}{tried}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of retrying.

    Attributes:
        max_retries: attempts after the first.
        deadline: seconds for all attempts together; a download that moves on starts the clock again.
        first_pause: seconds before the second attempt, at most.
        longest_pause: seconds between two attempts at most.
        hedge_after: seconds after which a read that has not been answered is asked for a second time, and the
            first answer counts; None: never.
    """

    max_retries: int = 10
    deadline: float = 180.0
    first_pause: float = 0.05
    longest_pause: float = 15.0
    hedge_after: float | None = None

    def pause(self, attempt: int) -> float:
        """Seconds to wait after a failed attempt, counted from 1."""
        longest = min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0)


async def retrying(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    explain: Callable[[Exception], Failure],
    note: Callable[[Failure], bool],
    progress: Callable[[], int] | None = None,
    begun: float | None = None,
) -> T:
    """Make a request until it succeeds, fails for good or has had its time.

    Args:
        what: the request, for the error.
        attempt: makes it once.
        policy: bounds.
        explain: says what an exception means.
        note: told about every failure; True: something was done about it (credentials renewed), so that one
            that is not retryable is tried again, a few times.
        progress: a number that grows while attempts that fail still bring something; attempts and deadline
            count from its last change.
        begun: when the deadline began to count, in seconds of `time.monotonic`; now by default.

    Raises:
        PilumError: the last failure, with the number of attempts; see `Failure.error`.
    """
    import asyncio

    begun = started = monotonic() if begun is None else begun
    attempts = total = 0
    renewed = 0
    reached = progress() if progress is not None else 0
    while True:
        attempts += 1
        total += 1
        ends = started + policy.deadline
        try:
            async with asyncio.timeout(max(0.0, ends - monotonic())):
                return await attempt()
        except PilumError:
            raise
        except TimeoutError:
            failure = Failure(Kind.BROKEN, "no answer")
        except Exception as error:
            failure = explain(error)
        remedied = note(failure)
        if progress is not None and (now := progress()) > reached:
            reached, attempts, started = now, 0, monotonic()
            ends = started + policy.deadline
        may_retry = failure.kind in RETRYABLE and attempts <= policy.max_retries
        pause = policy.pause(max(1, attempts))
        if not may_retry and remedied and renewed < _RENEWALS:
            renewed += 1
            may_retry = True
            pause = max(pause, _RENEWAL_PAUSE)
        if not may_retry or monotonic() + pause >= ends:
            seconds = monotonic() - begun
            if failure.kind in RETRYABLE and may_retry:
                failure = failure._replace(message=f"{failure.message}; given up after {policy.deadline:g} s")
            raise failure.error(what, total, seconds) from None
        await asyncio.sleep(pause)
