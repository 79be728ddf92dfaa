"""Bounds on what is in flight: requests for each store, bytes for the process.

A request starts when its store has a free slot and either its bytes fit into the budget or its event loop has
nothing in flight.  The second rule is why nothing can deadlock: a loop that waits for bytes always has a
request whose end will start the next one, whatever other loops, or requests larger than the budget, do
(spec/read-path.md, section 3.3, rule 5).  The price is that each loop may exceed the budget by one request.

Order is by priority, then first come, first served; the head of the queue is never overtaken, so a large
request is not starved by small ones.  State is kept for each loop; only the sum of bytes is shared, behind a
lock, and no loop ever waits for another to wake it.
"""

from __future__ import annotations

import heapq
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from pilum import config
from pilum.io.forking import on_fork
from pilum.io.limits import AdaptiveLimit, FixedLimit

if TYPE_CHECKING:
    import asyncio

__all__ = ["ByteBudget", "Queue", "RequestScheduler", "Turn"]

R = TypeVar("R")
Limit: TypeAlias = AdaptiveLimit | FixedLimit


def _running_loop() -> asyncio.AbstractEventLoop:
    import asyncio  # not needed by programs that only read local files

    return asyncio.get_running_loop()


class ByteBudget:
    """Bytes in flight in this process.

    Args:
        limit: most bytes; by default `pilum.config.io_buffer_size`, read whenever nothing is in flight.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._most = 0
        self._lock = threading.Lock()
        self._used = 0
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopBytes] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def used(self) -> int:
        """Bytes in flight now."""
        return self._used

    def of_loop(self) -> _LoopBytes:
        """The share of the running event loop."""
        loop = _running_loop()
        with self._lock:
            found = self._loops.get(loop)
            if found is None:
                found = self._loops[loop] = _LoopBytes(self)
            return found

    def start(self, size: int, *, always: bool) -> bool:
        """Take ``size`` bytes if they fit, or in any case."""
        if self._used == 0:
            self._most = config.io_buffer_size() if self._limit is None else self._limit
        with self._lock:
            if not always and self._used + size > self._most:
                return False
            self._used += size
            return True

    def end(self, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._used -= size

    def forget(self) -> None:
        """Start anew in a child process."""
        self._lock = threading.Lock()
        self._used = 0
        self._loops = weakref.WeakKeyDictionary()


class _LoopBytes:
    """What one loop has in flight, and which of its queues wait for bytes, first come first served."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self.in_flight = 0
        self.waiting: dict[Queue, None] = {}

    def start(self, size: int, queue: Queue) -> bool:
        first = next(iter(self.waiting), queue)
        if first is not queue or not self.budget.start(size, always=self.in_flight == 0):
            self.waiting.setdefault(queue)
            return False
        self.waiting.pop(queue, None)
        self.in_flight += 1
        return True

    def end(self, size: int) -> None:
        self.in_flight -= 1
        self.budget.end(size)

    def pump(self) -> None:
        """Start what the queues that waited for bytes can start now, until one has to go on waiting."""
        while self.waiting:
            queue = next(iter(self.waiting))
            queue.pump()
            if next(iter(self.waiting), None) is queue:
                return


class Turn(Protocol):
    """What stands in a queue: a future, or whatever begins a request when its turn has come."""

    def done(self) -> bool:
        """Whether nobody wants the turn any more."""
        ...

    def set_result(self, result: None, /) -> None:
        """The turn has come: a slot and bytes are taken until `Queue.end`."""
        ...


class Queue:
    """Requests of one store on one loop."""

    def __init__(self, limit: Limit, share: _LoopBytes) -> None:
        self.limit = limit
        self.running = 0
        self.share = share
        self.heap: list[tuple[int, int, int, Turn]] = []
        self.counter = 0

    def line_up(self, turns: Sequence[tuple[int, Turn]], priority: int = 0) -> None:
        """Queue requests, each with the bytes that it will bring, and begin those whose turn has come."""
        for size, turn in turns:
            self.counter += 1
            heapq.heappush(self.heap, (priority, self.counter, size, turn))
        self.pump()

    def pump(self) -> None:
        while self.heap:
            _, _, size, turn = self.heap[0]
            if turn.done():  # cancelled while it waited
                heapq.heappop(self.heap)
                continue
            if self.running >= self.limit.value:
                # Its own requests will end; meanwhile others need not stand behind it for bytes.
                break
            if not self.share.start(size, self):
                return
            heapq.heappop(self.heap)
            self.running += 1
            turn.set_result(None)
        self.share.waiting.pop(self, None)

    def end(self, size: int) -> None:
        """A request has ended: others may begin."""
        self.running -= 1
        self.share.end(size)
        self.pump_all()

    def pump_all(self) -> None:
        """Begin what can begin, also in other queues that wait for bytes."""
        self.pump()
        self.share.pump()


_PROCESS = ByteBudget()


class RequestScheduler:
    """Runs requests of a store, at most ``parallelism`` at once.

    Args:
        parallelism: requests in flight on one event loop; a number, or an object whose ``value`` may change.
        budget: bytes in flight; by default the one of the process.
    """

    def __init__(self, parallelism: int | Limit, budget: ByteBudget | None = None) -> None:
        self._limit = FixedLimit(parallelism) if isinstance(parallelism, int) else parallelism
        self._budget = budget or _PROCESS
        self._queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Queue] = (
            weakref.WeakKeyDictionary()
        )

    async def run(self, size: int, request: Callable[[], Awaitable[R]], *, priority: int = 0) -> R:
        """Wait for a turn, make the request and return its answer.

        Args:
            size: bytes that it will bring.
            request: makes it.
            priority: lower goes first.
        """
        queue = self.queue()
        turn: asyncio.Future[None] = _running_loop().create_future()
        queue.line_up([(size, turn)], priority)
        if not turn.done():
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    queue.end(size)  # it was our turn just as we were cancelled
                else:
                    turn.cancel()
                    queue.pump_all()
                raise
        try:
            return await request()
        finally:
            queue.end(size)

    def queue(self) -> Queue:
        """The queue on the running event loop."""
        loop = _running_loop()
        found = self._queues.get(loop)
        if found is None:
            found = self._queues[loop] = Queue(self._limit, self._budget.of_loop())
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return RequestScheduler, (self._limit.value,)


on_fork(_PROCESS.forget)
