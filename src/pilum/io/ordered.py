"""The state that a consumer and its worker threads share while they compute results in order.

```
chunks    0   1   2   3   4   5   6   7 ...
          └ consumed ┘│   │       │   └ not yet claimed
               results ready or being computed; at most `window` items
```

Workers claim the next chunk from one shared iterator, so that a slow chunk holds up nobody.  One lock
guards everything here; it is taken once for each chunk, and a thread is woken only when it waits for just
what has happened: the consumer for its chunk, a worker for half of the window to be free.  Threads that
share an interpreter lock pay for each wake-up more than most chunks cost.

Nothing here knows event loops: `pilum.io.runtime` decides which threads work and how the consumer waits.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from pilum import turns
from pilum.io.forking import generation

__all__ = ["Job", "OrderedWork", "Outcome", "drive"]

T = TypeVar("T")
R = TypeVar("R")

_NEVER = 1 << 62
_NOBODY = -1


def drive(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never suspends to its end.

    Raises:
        RuntimeError: it suspended: it waits for something that only an event loop can bring.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: R = stop.value
        return result
    coroutine.close()
    raise RuntimeError(
        f"{getattr(coroutine, '__qualname__', coroutine)} waited for an event loop, but it is run without "
        "one because its store says that it never suspends"
    )


class Job(NamedTuple):
    """A claimed chunk: its position in the order and its items."""

    number: int
    items: list[Any]


class Outcome(NamedTuple):
    """Results of a chunk, up to its first failure."""

    values: list[Any]
    error: BaseException | None


class OrderedWork(Generic[T, R]):
    """Chunks of work: claimed by anyone, consumed in order by one."""

    def __init__(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], *, window: int, chunk: int
    ) -> None:
        self._fn = fn
        self._source = iter(items)
        self._chunk = chunk
        self._window = max(1, window // chunk)  # in chunks
        self._generation = generation()
        self._lock = threading.Lock()
        self._claimed = 0
        self._consumed = 0
        self._exhausted = False
        self._last = _NEVER  # chunks after this one are not wanted: one before them failed, or all is over
        self._done: dict[int, Outcome] = {}
        self._awaited = _NOBODY  # the chunk the consumer waits for
        self._wake: Callable[[], None] = _nothing
        self._sleepers: list[Any] = []  # locks of workers that wait for space
        self._active = 0  # executor jobs asked for
        self._running = 0  # executor jobs that have begun
        self._idle: Callable[[], None] = _nothing

    # -- the consumer ----------------------------------------------------------------------------------

    def take_or_claim(self, position: int) -> tuple[Outcome | None, Job | None]:
        """The results of a chunk when they are there, else something to compute meanwhile, if any."""
        self._same_process()
        with self._lock:
            done = self._take(position)
            return done, (self._claim() if done is None else None)

    def take(self, position: int) -> Outcome | None:
        """The results of a chunk when they are there."""
        self._same_process()
        with self._lock:
            return self._take(position)

    def consumed(self, job: Job, outcome: Outcome) -> Outcome:
        """The consumer computed the very chunk that it needs."""
        with self._lock:
            self._note_failure(job.number, outcome)
            self._make_space()
        return outcome

    def wait_for(self, position: int) -> Outcome:
        """Block until a worker has finished a chunk that one has claimed."""
        ready = threading.Lock()
        ready.acquire()
        done = self.take_or_notify(position, ready.release)
        if done is None:
            ready.acquire()
            done = self.take(position)
            assert done is not None
        return done

    def take_or_notify(self, position: int, wake: Callable[[], None]) -> Outcome | None:
        """The results of a chunk, or None; then ``wake`` is called (once) when they, or the end, are there."""
        with self._lock:
            done = self._take(position)
            if done is None:
                if self._exhausted and position >= self._claimed:
                    wake()
                else:
                    self._awaited, self._wake = position, wake
            return done

    def ended(self, position: int) -> bool:
        """Whether there is no chunk at ``position``."""
        with self._lock:
            return self._exhausted and position >= self._claimed

    def start_jobs(self, most: int, *, urgent: bool) -> int:
        """How many executor jobs to start now, at most ``most`` at once; they count as started.

        Args:
            most: jobs at the same time.
            urgent: the consumer waits; else jobs are started when half of the window is free.
        """
        with self._lock:
            free = self._window - (self._claimed - self._consumed)
            if self._exhausted or free <= 0 or (not urgent and 2 * free < self._window):
                return 0
            count = max(0, min(most, free) - self._active)
            self._active += count
            return count

    def stop(self) -> None:
        """Want nothing more: workers end after their current item.  In a child of a fork there are none."""
        if self._generation != generation():
            return
        with self._lock:
            self._exhausted = True
            self._last = _NOBODY
            self._awaited = _NOBODY
            self._wake_sleepers()
            self._done.clear()

    def stop_jobs(self, idle: Callable[[], None]) -> None:
        """`stop`, then call ``idle`` once no executor job runs; those still queued will do nothing."""
        if self._generation != generation():
            idle()
            return
        self.stop()
        with self._lock:
            if self._running:
                self._idle = idle
            else:
                idle()

    def _same_process(self) -> None:
        if self._generation != generation():
            raise RuntimeError(
                "a stream of results cannot be continued in a child process: open it again there"
            )

    # -- workers ---------------------------------------------------------------------------------------

    def work_until_ended(self) -> None:
        """Compute chunks until there are none; sleep while the window is full."""
        nap = threading.Lock()
        nap.acquire()
        job: Job | None = None
        outcome: Outcome | None = None
        while True:
            with self._lock:
                if job is not None and outcome is not None:
                    self._finish(job, outcome)
                job = self._claim()
                if job is None:
                    if self._exhausted:
                        return
                    self._sleepers.append(nap)
            outcome = None
            if job is None:
                nap.acquire()
            else:
                outcome = self._compute_anything(job)

    def work_until_full(self) -> None:
        """Compute chunks until there are none or the window is full."""
        job: Job | None = None
        outcome: Outcome | None = None
        with self._lock:
            self._running += 1
        while True:
            with self._lock:
                if job is not None and outcome is not None:
                    self._finish(job, outcome)
                job = self._claim()
                if job is None:
                    self._active -= 1
                    self._running -= 1
                    if self._running == 0:
                        self._idle()
                    return
            outcome = None  # the results just handed in are not kept alive by this thread
            outcome = self._compute_anything(job)

    async def compute(self, job: Job) -> Outcome:
        """Results of a chunk, up to its first failure.  Interrupts are not failures: they propagate."""
        values: list[Any] = []
        fn, number = self._fn, job.number
        try:
            turns.start()
            for item in job.items:
                if number > self._last:
                    break
                values.append(await fn(item))
        except Exception as error:
            return Outcome(values, error)
        finally:
            turns.stop()
        return Outcome(values, None)

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Hand in the results of a chunk."""
        with self._lock:
            self._finish(job, outcome)

    def _compute_anything(self, job: Job) -> Outcome:
        try:
            return drive(self.compute(job))
        except BaseException as error:  # raised again where the consumer is
            return Outcome([], error)

    # -- under the lock --------------------------------------------------------------------------------

    def _claim(self) -> Job | None:
        if self._exhausted or self._claimed - self._consumed >= self._window:
            return None
        number = self._claimed
        try:
            items = list(islice(self._source, self._chunk))
        except Exception as error:
            # The iterable failed: its error takes the place of the chunk.
            self._claimed += 1
            self._finish(Job(number, []), Outcome([], error))
            return None
        if not items:
            self._end()
            return None
        self._claimed += 1
        return Job(number, items)

    def _take(self, position: int) -> Outcome | None:
        done = self._done.pop(position, None)
        if done is not None:
            self._make_space()
        return done

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self._note_failure(job.number, outcome)
        if job.number <= self._last:
            self._done[job.number] = outcome
        if job.number == self._awaited:
            self._awaited = _NOBODY
            self._wake()

    def _note_failure(self, number: int, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._last = min(self._last, number)
            self._end()

    def _end(self) -> None:
        """No chunk will be claimed any more."""
        self._exhausted = True
        self._wake_sleepers()
        if self._awaited >= self._claimed:
            self._awaited = _NOBODY
            self._wake()

    def _make_space(self) -> None:
        self._consumed += 1
        if self._sleepers and 2 * (self._claimed - self._consumed) <= self._window:
            self._wake_sleepers()

    def _wake_sleepers(self) -> None:
        for nap in self._sleepers:
            nap.release()
        self._sleepers.clear()


def _nothing() -> None:
    pass
