"""Pauses: between the attempts of a commit, and between deletions (spec/table.md, section 7.2)."""

from __future__ import annotations

import random
import time

from pilum.errors import RetryTimeoutError
from pilum.io import InlineRuntime, current_runtime

__all__ = ["Backoff", "Pace", "pause"]

# Retries of one commit share this much time; the first attempt is never cut short.
_RETRY_BUDGET_SECONDS = 30.0
# No commit takes longer, whatever it waits for.
_COMMIT_LIMIT_SECONDS = 1800.0
_FIRST_SLOT_SECONDS = 0.05
_MAX_SLOTS = 128


async def pause(seconds: float) -> None:
    """Wait, on whatever drives the caller."""
    if isinstance(current_runtime(), InlineRuntime):
        # Nothing else runs on this thread, and awaiting would need a loop.
        time.sleep(seconds)  # noqa: ASYNC251
    else:
        import asyncio

        await asyncio.sleep(seconds)


class Backoff:
    """Random pauses between attempts, growing with their number (section 7.2).

    A slot is a little longer than the first attempt took; attempt k waits for one of min(4 * 2^k, 128) slots.

    Args:
        limit: seconds after which the commit is given up; None for half an hour.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.attempts = 0
        self._limit = _COMMIT_LIMIT_SECONDS if limit is None else limit
        self._started = time.monotonic()
        self._slot = _FIRST_SLOT_SECONDS

    def check(self, what: str) -> None:
        """Refuse to go on when the commit has taken too long.

        Raises:
            RetryTimeoutError: it has.
        """
        if time.monotonic() - self._started > self._limit:
            raise RetryTimeoutError(f"{what}: not committed within {self._limit:g} s; nothing was published")

    async def wait(self) -> bool:
        """Pause before the next attempt, though not beyond the limit; False when the time for retries is used up."""
        elapsed = time.monotonic() - self._started
        if self.attempts == 0:
            self._slot = 1.1 * elapsed
        slots = min(4 << self.attempts, _MAX_SLOTS)
        self.attempts += 1
        seconds = self._slot * random.randrange(slots)
        if elapsed + seconds > _RETRY_BUDGET_SECONDS:
            return False
        await pause(min(seconds, max(0.0, self._limit - elapsed)))
        return True


class Pace:
    """At most so many steps in a second.

    Args:
        limit: steps in a second; None for as many as there are.
    """

    def __init__(self, limit: int | None) -> None:
        self._pause = 0.0 if limit is None else 1.0 / limit
        self._next = time.monotonic()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._pause > 0

    async def step(self) -> None:
        """Wait until the next step may be done."""
        if self._pause:
            now = time.monotonic()
            if now < self._next:
                await pause(self._next - now)
            self._next = max(self._next, now) + self._pause
