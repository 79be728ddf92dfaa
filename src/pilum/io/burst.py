"""Many small reads at once, without a task for each.

A read that succeeds needs no coroutine: it waits for its turn in the queue of its store, is begun, and its answer
is put in its place by a callback.  Only one that fails becomes a task, which goes on with the attempts, pauses and
bounds of any other request (`pilum.io.retry`) and keeps its turn meanwhile.  Answers that never come are noticed by
one timer for all.  A request costs half of what a task with a timer of its own does.

```
lined up ──turn──► begun ──answer──► in its place
                     └─────failed, late──► task: retrying ──► in its place, or the error of the burst
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pilum.errors import StoreError
from pilum.io.buffers import Bytes
from pilum.io.runtime import cancel_and_wait
from pilum.io.tracing import exchange

if TYPE_CHECKING:
    from pilum.io.remote import Bucket
    from pilum.io.stats import IoStats

__all__ = ["Part", "fetch_parts"]


class Part(NamedTuple):
    """Bytes ``[start, end)`` of an object.

    Attributes:
        what: the object as errors name it.
        key: its key in the bucket.
        start, end: the range, not empty.
    """

    what: str
    key: str
    start: int
    end: int


async def fetch_parts(bucket: Bucket, stats: IoStats, parts: Sequence[Part]) -> list[Bytes]:
    """Read parts of objects, all at once as far as the limits of the bucket allow.

    Args:
        bucket: who makes the requests.
        stats: counts them.
        parts: what is read.

    Returns:
        The bytes of each part.

    Raises:
        PilumError: the first failure; the other requests have then been cancelled and have ended.
    """
    burst = _Burst(bucket, stats, parts)
    try:
        burst.line_up()
        await burst.finished
        return burst.answers
    finally:
        await burst.end()


class _Turn:
    """The place of one part in the queue of the store (`pilum.io.scheduler.Turn`)."""

    __slots__ = ("_burst", "_position")

    def __init__(self, burst: _Burst, position: int) -> None:
        self._burst = burst
        self._position = position

    def done(self) -> bool:
        return self._burst.ended

    def set_result(self, result: None) -> None:
        self._burst.begin(self._position)


class _Burst:
    """The state of some reads."""

    def __init__(self, bucket: Bucket, stats: IoStats, parts: Sequence[Part]) -> None:
        self.loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self.answers: list[Any] = [None] * len(parts)
        self.ended = False
        self._bucket = bucket
        self._stats = stats
        self._parts = parts
        self._left = len(parts)
        self._context = copy_context()
        self._queue = bucket.scheduler.queue()
        # What is on its way, the oldest first: its answer and when it was asked for.
        self._flying: dict[int, tuple[asyncio.Future[Any], float]] = {}
        self._retries: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def line_up(self) -> None:
        """Queue all parts; those whose turn has come are begun."""
        self._queue.line_up([(part.end - part.start, _Turn(self, at)) for at, part in enumerate(self._parts)])

    def begin(self, position: int) -> None:
        """The turn of a part has come."""
        bucket = self._bucket
        _, key, start, end = self._parts[position]
        begun = monotonic()
        try:
            answer = bucket.client.begin(key, start, end)
        except Exception as error:
            self._retry(position, begun, error)
            return
        bucket.in_flight += 1
        self._flying[position] = (answer, begun)
        answer.add_done_callback(partial(self._landed, position))
        if self._timer is None:
            self._timer = self.loop.call_later(bucket.policy.deadline, self._late)

    def _landed(self, position: int, answer: asyncio.Future[Any]) -> None:
        flown = self._flying.pop(position, None)
        if flown is None:
            return  # given up before
        bucket = self._bucket
        # Cancelled by somebody else: the loop is being closed.
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        if error is None:
            bucket.limit.answered(bucket.in_flight, throttled=False)
            bucket.health.answered(failed=False)
            bucket.in_flight -= 1
            self._place(position, answer.result())
            return
        bucket.in_flight -= 1
        if isinstance(error, Exception):
            self._retry(position, flown[1], error)
        else:
            self._fail(position, error)

    def _place(self, position: int, answer: Any) -> None:
        """The answer to a part is here."""
        what, _, start, end = self._parts[position]
        size = end - start
        try:
            data: Bytes = np.frombuffer(answer, dtype=np.uint8)
        except Exception as error:
            self._fail(position, error)
            return
        if len(data) != size:
            message = f"{what}: asked for bytes {start}..{end}, got {len(data)} of {size} bytes"
            self._fail(position, StoreError(message))
            return
        self._stats.note_read(size)
        self.answers[position] = data
        self._left -= 1
        if not self._left and not self.finished.done():
            self.finished.set_result(None)
        self._queue.end(size)

    def _fail(self, position: int, error: BaseException) -> None:
        if not self.finished.done():
            self.finished.set_exception(error)
        part = self._parts[position]
        self._queue.end(part.end - part.start)

    def _late(self) -> None:
        """Give up what has had its time."""
        self._timer = None
        deadline = self._bucket.policy.deadline
        late = monotonic() - deadline
        while self._flying:
            position, (answer, begun) = next(iter(self._flying.items()))
            if begun > late:
                self._timer = self.loop.call_later(begun - late, self._late)
                return
            del self._flying[position]
            self._bucket.in_flight -= 1
            answer.cancel()
            self._retry(position, begun, TimeoutError())

    def _retry(self, position: int, begun: float, error: Exception) -> None:
        """Make a request again whose first attempt failed."""
        task = self.loop.create_task(self._again(position, begun, error), context=self._context)
        self._retries.add(task)
        task.add_done_callback(partial(self._retried, position))

    async def _again(self, position: int, begun: float, error: Exception) -> Any:
        what, key, start, end = self._parts[position]
        client, failed = self._bucket.client, [error]

        async def attempt() -> Any:
            if failed:
                raise failed.pop()
            return await client.get(key, start, end)

        with exchange(self._stats):
            return await self._bucket.request(f"{what}: bytes {start}..{end}", attempt, begun=begun)

    def _retried(self, position: int, task: asyncio.Task[Any]) -> None:
        self._retries.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._place(position, task.result())
        else:
            self._fail(position, error)

    async def end(self) -> None:
        """Cancel what has not been answered and wait until it has ended."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._left:
            return
        if self.finished.done() and not self.finished.cancelled():
            self.finished.exception()  # seen, also where the caller was cancelled just then
        flying = dict(self._flying)
        self._flying.clear()
        try:
            await cancel_and_wait([*[answer for answer, _ in flying.values()], *self._retries])
        finally:
            for position in flying:
                part = self._parts[position]
                self._bucket.in_flight -= 1
                self._queue.end(part.end - part.start)
            self._queue.pump_all()
