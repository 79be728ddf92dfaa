"""When a failed request is made again, and when to give up.

A request that was throttled, refused, cut off or never answered is repeated after a pause that doubles each time
and is drawn at random from its upper half, so that clients that failed together do not come back together.  Pauses
begin short where failures are rare (`Health`), since then the store is well and one request had bad luck.  Two
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

__all__ = ["Failure", "Health", "Kind", "RetryPolicy", "retrying"]

T = TypeVar("T")

# The client library looks for renewed credentials ten times a second at most.
_RENEWALS = 3
# Of a store that is well the first so many pauses of a request are shorter by this factor; after that it is no accident.
_ACCIDENTS = 3
_SHORT = 0.1
# Answers over which the share of failures is taken, and the share up to which they are rare.
_MEMORY = 64
_RARE = 1 / 6
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

    def pause(self, attempt: int, well: bool = False) -> float:
        """Seconds to wait after a failed attempt, counted from 1.

        Args:
            attempt: how many have failed.
            well: whether failures are rare: then the first pauses are a tenth of that.
        """
        longest = min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0) * (_SHORT if well and attempt <= _ACCIDENTS else 1.0)


class Health:
    """Whether failures are accidents: a running share of the requests that failed.

    Short pauses are for accidents.  They must not feed a store that refuses because it has too much to do: a few
    failures in a row, or one in six for a while, and pauses are what they are in the policy.  At that share the
    attempts that are made again at once are a sixth of all.
    """

    __slots__ = ("_failing",)

    def __init__(self) -> None:
        self._failing = 0.0

    def answered(self, *, failed: bool) -> None:
        """An answer came, or none did."""
        self._failing += (failed - self._failing) / _MEMORY

    @property
    def well(self) -> bool:
        """Whether failures are rare."""
        return self._failing < _RARE


async def retrying(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    explain: Callable[[Exception], Failure],
    note: Callable[[Failure], bool],
    progress: Callable[[], int] | None = None,
    health: Health | None = None,
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
        health: that of the store, told of what happens.
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
                result = await attempt()
            if health is not None:
                health.answered(failed=False)
            return result
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
        if health is not None:
            health.answered(failed=failure.kind in RETRYABLE)
        may_retry = failure.kind in RETRYABLE and attempts <= policy.max_retries
        pause = policy.pause(max(1, attempts), health is not None and health.well)
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
