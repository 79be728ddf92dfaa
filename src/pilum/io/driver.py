"""From synchronous code into coroutines: `run` and `iterate`.

Over a store that never suspends a coroutine is driven to its end by one ``send``, without an event loop: in
any thread, inside a running loop (notebooks), in a child of a fork.  Over a store that does, it runs as a
task on one background loop, whose thread starts with the first such call; callers wait on a future.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from pilum.io.forking import on_fork
from pilum.io.ordered import drive
from pilum.io.runtime import LOOP, PARALLEL, RUNTIME, InlineRuntime

if TYPE_CHECKING:
    import asyncio

__all__ = ["iterate", "run", "stop_at_exit"]

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], *, suspends: bool) -> T:
    """Run a coroutine to its end and return its result.

    Args:
        coroutine: what to run.
        suspends: whether its store may suspend (`Store.suspends`).

    Raises:
        RuntimeError: it suspended although ``suspends`` is False; or it would have to wait for the background
            loop on that loop's own thread.
        Exception: what the coroutine raises.
    """
    if suspends:
        return _run_in_background(coroutine)
    # Asynchronous generators made meanwhile must not be adopted by a loop that runs on this thread.
    hooks = sys.get_asyncgen_hooks()
    if hooks.firstiter is not None:
        sys.set_asyncgen_hooks(None, None)
    # Called by a worker or by a callback of an inline query: keep what it says about threads.
    token = None if isinstance(RUNTIME.get(), InlineRuntime) else RUNTIME.set(PARALLEL)
    try:
        return drive(coroutine)
    finally:
        if token is not None:
            RUNTIME.reset(token)
        if hooks.firstiter is not None:
            sys.set_asyncgen_hooks(*hooks)


def iterate(source: AsyncIterable[T], *, suspends: bool) -> Iterator[T]:
    """A synchronous iterator over an asynchronous one.

    The source is closed when the iterator is exhausted, closed or collected.

    Args:
        source: an asynchronous iterator; one with ``aclose`` (a generator) is closed.
        suspends: whether its store may suspend.
    """
    iterator = aiter(source)
    try:
        while True:
            value = run(_next(iterator), suspends=suspends)
            if value is _END:
                return
            yield value
            del value
    finally:
        aclose = getattr(iterator, "aclose", None)
        if aclose is not None:
            _close(aclose, suspends)


_END: Any = object()


async def _next(iterator: AsyncIterator[Any]) -> Any:
    try:
        return await anext(iterator)
    except StopAsyncIteration:
        return _END


async def _await(aclose: Any) -> None:
    await aclose()


def _close(aclose: Any, suspends: bool) -> None:
    if not suspends:
        run(_await(aclose), suspends=False)
        return
    if _at_exit or sys.is_finalizing():
        return  # the loop is gone, and what ran on it with it
    if _background is not None and _background.is_own_thread():
        # Collected while the loop ran something else: it closes the source when it comes to it.
        _background.loop.create_task(_await(aclose))
        return
    _run_in_background(_await(aclose))


# -- the background loop -------------------------------------------------------------------------------


class _BackgroundLoop:
    """An event loop that runs forever on a daemon thread."""

    def __init__(self) -> None:
        import asyncio

        self.loop = asyncio.new_event_loop()
        self.stopping = False
        self.thread = threading.Thread(target=self._main, name="pilum-loop", daemon=True)
        self.thread.start()

    def _main(self) -> None:
        import asyncio

        asyncio.set_event_loop(self.loop)
        while not self.stopping:
            try:
                self.loop.run_forever()
            except BaseException:
                # A task raised SystemExit or KeyboardInterrupt: its caller gets it, the others carry on.
                continue

    def is_own_thread(self) -> bool:
        return threading.get_ident() == self.thread.ident

    def stop(self) -> None:
        """End what runs on the loop, and the loop; nobody is told."""
        if not self.stopping:
            self.stopping = True
            self.loop.call_soon_threadsafe(self._end)
            self.thread.join(timeout=1.0)

    def _end(self) -> None:
        import asyncio

        tasks = asyncio.all_tasks(self.loop)
        if not tasks:
            self.loop.stop()
            return
        for task in tasks:
            task.cancel()
        ended = self.loop.create_task(asyncio.wait(tasks, timeout=0.5))
        ended.add_done_callback(lambda _: self.loop.stop())


_background: _BackgroundLoop | None = None
_starting = threading.Lock()
_at_exit = False
# Loops of the parent process: never run or closed here, and not collected (asyncio would complain).
_inherited: list[_BackgroundLoop] = []


@on_fork
def _forget() -> None:
    global _background, _starting, _at_exit
    if _background is not None:
        _inherited.append(_background)
    _background = None
    _starting = threading.Lock()
    _at_exit = False


@atexit.register
def stop_at_exit() -> None:
    """End the background loop for good: the interpreter is about to."""
    global _at_exit
    _at_exit = True
    if _background is not None:
        _background.stop()


def _ensure_background() -> _BackgroundLoop:
    global _background
    found = _background
    if found is None:
        with _starting:
            if _at_exit:
                raise RuntimeError("the interpreter is shutting down: nothing can be read any more")
            if _background is None:
                _background = _BackgroundLoop()
            found = _background
    return found


def _run_in_background(coroutine: Coroutine[Any, Any, T]) -> T:
    import concurrent.futures

    try:
        background = _ensure_background()
        if background.is_own_thread():
            raise RuntimeError(
                "a synchronous call was made on pilum's own event loop thread, where it would wait for itself; "
                "use the asynchronous API there"
            )
    except BaseException:
        coroutine.close()
        raise
    loop = background.loop
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
    started: list[asyncio.Task[T]] = []

    def start() -> None:
        task = loop.create_task(coroutine)
        started.append(task)
        task.add_done_callback(finish)

    def finish(task: asyncio.Task[T]) -> None:
        if background.stopping:
            return  # whoever still waits is a daemon thread, and ends with the interpreter
        if task.cancelled():
            outcome.set_exception(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    def cancel() -> None:
        for task in started:
            task.cancel()

    context = copy_context()
    context.run(RUNTIME.set, LOOP)
    loop.call_soon_threadsafe(start, context=context)
    try:
        return outcome.result()
    except BaseException:
        if not outcome.done():
            # Interrupted while waiting: stop the work, and return only when it has ended.
            loop.call_soon_threadsafe(cancel)
            concurrent.futures.wait([outcome])
        raise
