"""How the work of a query is overlapped: on threads, or as tasks of an event loop.

Code above the file layer awaits `map_ordered` and `offload` of the current runtime and does not ask who
drives it (docs/architecture.md, "Runtimes"):

* `InlineRuntime`: nothing ever suspends.  The calling thread computes, with helper threads beside it.
* `LoopRuntime`: an event loop runs.  What suspends becomes tasks; what does not (local files) is computed
  on the loop's executor, so that the loop is never held.

In a worker thread, of either kind, the runtime is inline on that one thread: nested calls run serially.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Sized
from contextvars import ContextVar, copy_context
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pilum import config
from pilum.io.ordered import OrderedWork

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "LOOP",
    "PARALLEL",
    "RUNTIME",
    "SERIAL",
    "InlineRuntime",
    "LoopRuntime",
    "Runtime",
    "cancel_and_wait",
    "current_runtime",
]

T = TypeVar("T")
R = TypeVar("R")


class InlineRuntime:
    """The calling thread computes, and up to ``cores - 1`` helper threads with it.

    Args:
        cores: threads that compute, the caller included; by default `pilum.config.cpu_threads`.
    """

    __slots__ = ("_cores",)

    def __init__(self, cores: int | None = None) -> None:
        self._cores = cores

    @property
    def cores(self) -> int:
        """Threads that compute, the caller included."""
        return self._cores or config.cpu_threads()

    def map_ordered(
        self,
        fn: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T],
        *,
        window: int,
        suspends: bool = True,
        chunk: int = 1,
    ) -> AsyncGenerator[R, None]:
        """``await fn(item)`` for every item, results in order; close the generator (``aclosing``).

        Threads are started when there are two chunks of work or more, and have ended when the generator
        has: when it is exhausted, closed, collected, or raised an error.

        Args:
            fn: a coroutine function; it must not suspend.
            items: a sequence, or an iterable (advanced by one thread at a time).
            window: about the most items started and not yet consumed.
            suspends: for the other runtime; nothing suspends in this one.
            chunk: neighbouring items handed to a thread at once.

        Raises:
            Exception: the first failure of ``fn``, in the place of its item.
            RuntimeError: ``fn`` suspended.
        """
        window = max(window, 1)
        chunk = max(1, min(chunk, window))
        known, items = _count(items, chunk + 1)
        helpers = window // chunk - 1
        if isinstance(items, Sized):
            helpers = min(helpers, -(-known // chunk) - 1)
        if helpers > 0:
            helpers = min(helpers, self.cores - 1)
        if helpers <= 0:
            return _serially(fn, items)
        return _with_threads(OrderedWork(fn, items, window=window, chunk=chunk), helpers)

    async def offload(self, fn: Callable[..., R], /, *args: Any) -> R:
        """Run ``fn`` right here."""
        return fn(*args)

    def __repr__(self) -> str:
        return f"InlineRuntime({self.cores})"


class LoopRuntime:
    """The running event loop overlaps what waits; its default executor computes."""

    __slots__ = ()

    def map_ordered(
        self,
        fn: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T],
        *,
        window: int,
        suspends: bool = True,
        chunk: int = 1,
    ) -> AsyncGenerator[R, None]:
        """``await fn(item)`` for every item, results in order; close the generator (``aclosing``).

        Args:
            fn: a coroutine function.
            items: the items.
            window: about the most items started and not yet consumed.
            suspends: True: items become tasks of the loop, as many as the window holds.  False: ``fn`` never
                suspends; items are computed in the executor's threads, in chunks.
            chunk: neighbouring items handed to a thread at once.

        Raises:
            Exception: the first failure of ``fn``, in the place of its item.  Everything that was started
                has then ended.
        """
        window = max(window, 1)
        if suspends:
            return _as_tasks(fn, items, window)
        chunk = max(1, min(chunk, window))
        work = OrderedWork(fn, items, window=window, chunk=chunk)
        return _in_executor(work, min(config.cpu_threads(), window // chunk))

    async def offload(self, fn: Callable[..., R], /, *args: Any) -> R:
        """Run ``fn`` in the executor; the loop goes on meanwhile."""
        import asyncio

        context = copy_context()
        context.run(RUNTIME.set, SERIAL)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, context.run, fn, *args)

    def __repr__(self) -> str:
        return "LoopRuntime()"


Runtime: TypeAlias = InlineRuntime | LoopRuntime

RUNTIME: ContextVar[Runtime | None] = ContextVar("pilum_runtime", default=None)

PARALLEL = InlineRuntime()
SERIAL = InlineRuntime(1)
LOOP = LoopRuntime()


def current_runtime() -> Runtime:
    """The runtime of the caller: that of its driver, else of the running event loop, else inline."""
    found = RUNTIME.get()
    if found is not None:
        return found
    # Who has not imported asyncio has no loop; importing it would cost a synchronous program 50 ms.
    running = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
    if running is None:
        return PARALLEL
    try:
        running()
    except RuntimeError:
        return PARALLEL
    return LOOP


# -- on the calling thread -----------------------------------------------------------------------------


async def _serially(fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T]) -> AsyncGenerator[R, None]:
    for item in items:
        yield await fn(item)


async def _with_threads(work: OrderedWork[T, R], helpers: int) -> AsyncGenerator[R, None]:
    """The consumer computes too: it waits only when the chunk it needs is being computed by a helper."""
    threads = []
    position = 0
    try:
        for _ in range(helpers):
            # Daemons: an interpreter that exits does not wait for a consumer that never came back.
            thread = threading.Thread(
                target=copy_context().run, args=(_help, work), name="pilum-worker", daemon=True
            )
            threads.append(thread)
            thread.start()
        while True:
            done, job = work.take_or_claim(position)
            if done is None:
                if job is not None:
                    token = RUNTIME.set(SERIAL)
                    try:
                        outcome = await work.compute(job)
                    finally:
                        RUNTIME.reset(token)
                    if job.number != position:
                        work.finish(job, outcome)
                        continue
                    done = work.consumed(job, outcome)
                elif work.ended(position):
                    return
                else:
                    done = work.wait_for(position)
            values = done.values
            values.reverse()
            while values:  # popped, so that a consumed result is not kept alive
                yield values.pop()
            if done.error is not None:
                raise done.error
            position += 1
    finally:
        work.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _help(work: OrderedWork[Any, Any]) -> None:
    RUNTIME.set(SERIAL)
    work.work_until_ended()


# -- on an event loop ----------------------------------------------------------------------------------


async def _as_tasks(
    fn: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], window: int
) -> AsyncGenerator[R, None]:
    import asyncio

    known, items = _count(items, 2)
    if known < 2 or window == 1:
        for item in items:
            yield await fn(item)
        return
    loop = asyncio.get_running_loop()
    source = iter(items)
    tasks: deque[asyncio.Task[R]] = deque()
    try:
        for item in islice(source, window):
            tasks.append(loop.create_task(fn(item)))
        while tasks:
            value = await tasks[0]
            tasks.popleft()
            for item in islice(source, 1):
                tasks.append(loop.create_task(fn(item)))
            yield value
            del value
    finally:
        await cancel_and_wait(tasks)


async def _in_executor(work: OrderedWork[T, R], workers: int) -> AsyncGenerator[R, None]:
    """Jobs in the executor take chunk after chunk until the window is full, and are started again when half
    of it is free: a hop between threads costs more than most chunks."""
    import asyncio

    loop = asyncio.get_running_loop()
    jobs: set[asyncio.Future[None]] = set()
    position = 0
    try:
        while True:
            waiter: asyncio.Future[None] | None = None
            done = work.take(position)
            if done is None:
                if work.ended(position):
                    return
                waiter = loop.create_future()
                done = work.take_or_notify(position, _waker(loop, waiter))
            for _ in range(work.start_jobs(workers, urgent=done is None)):
                context = copy_context()
                context.run(RUNTIME.set, SERIAL)
                job = loop.run_in_executor(None, context.run, work.work_until_full)
                jobs.add(job)
                job.add_done_callback(jobs.discard)
            if done is None:
                assert waiter is not None
                await waiter
                continue
            values = done.values
            values.reverse()
            while values:
                yield values.pop()
            if done.error is not None:
                raise done.error
            position += 1
    finally:
        # Cancelling what `run_in_executor` returned says nothing about a thread that has begun.
        idle: asyncio.Future[None] = loop.create_future()
        work.stop_jobs(_waker(loop, idle))
        for job in list(jobs):
            job.cancel()
        await _wait([idle])


def _waker(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> Callable[[], None]:
    def resolve() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(resolve)
        except RuntimeError:
            pass  # the loop was closed: nobody waits any more

    return wake


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until all have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await _wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: asyncio does not report it as never retrieved


async def _wait(futures: Collection[asyncio.Future[Any]]) -> None:
    """Wait until all are done, even when the waiting task is cancelled meanwhile."""
    import asyncio

    interrupted: asyncio.CancelledError | None = None
    while pending := [future for future in futures if not future.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _count(items: Iterable[T], enough: int) -> tuple[int, Iterable[T]]:
    """The number of items, counted only up to ``enough`` where it is not known, and the items."""
    if isinstance(items, Sized):
        return len(items), items
    source = iter(items)
    first = list(islice(source, enough))
    return len(first), (first if len(first) < enough else chain(first, source))
