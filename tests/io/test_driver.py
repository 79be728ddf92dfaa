"""`run` and `iterate`: inside loops, in threads, over forks, at exit, interrupted."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pilum.io import InlineRuntime, LocalStore, MemoryStore, current_runtime, iterate, run, trace
from tests.io.stores import SuspendingStore
from tests.support import REPOSITORY

both = pytest.mark.parametrize("suspends", [False, True])
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def block(seconds: float) -> None:
    """Hold this thread, as a computation would."""
    time.sleep(seconds)


async def answer(value: int, suspends: bool = False) -> int:
    if suspends:
        await asyncio.sleep(0)
    return value


async def fail(error: BaseException, suspends: bool = False) -> None:
    if suspends:
        await asyncio.sleep(0)
    raise error


@both
def test_results_and_errors(suspends: bool) -> None:
    assert run(answer(7, suspends), suspends=suspends) == 7
    with pytest.raises(KeyError, match="x"):
        run(fail(KeyError("x"), suspends), suspends=suspends)


@both
def test_inside_a_running_loop_and_in_threads(suspends: bool) -> None:
    async def main() -> list[int]:
        here = run(answer(1, suspends), suspends=suspends)
        there = await asyncio.gather(
            *(asyncio.to_thread(lambda n=n: run(answer(n, suspends), suspends=suspends)) for n in range(8))
        )
        return [here, *there]

    assert asyncio.run(main()) == [1, *range(8)]


def test_a_coroutine_that_suspends_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="answer waited for an event loop"):
        run(answer(1, True), suspends=False)
    assert run(answer(1), suspends=False) == 1


def test_a_call_on_the_background_loop_itself_is_refused() -> None:
    async def main() -> int:
        return run(answer(1, True), suspends=True)

    with pytest.raises(RuntimeError, match="own event loop thread"):
        run(main(), suspends=True)

    async def fine() -> int:
        return run(answer(1), suspends=False)

    assert run(fine(), suspends=True) == 1


def test_one_background_thread_serves_all() -> None:
    run(answer(1, True), suspends=True)
    before = threading.active_count()
    threads = [
        threading.Thread(target=lambda: [run(answer(n, True), suspends=True) for n in range(50)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threading.active_count() == before
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "pilum-loop"] == [True]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_inside_the_loop_reaches_the_caller_only(kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        run(fail(kind(), True), suspends=True)
    assert run(answer(3, True), suspends=True) == 3


def test_the_trace_of_the_caller_reaches_the_loop() -> None:
    inner = MemoryStore()
    run(inner.put("x", b"123"), suspends=False)
    store = SuspendingStore(inner)
    with trace() as log:
        run(store.get("x", 0, 3), suspends=True)
    run(store.get("x", 0, 3), suspends=True)
    assert [(one.path, one.end) for one in log.requests] == [("x", 3)]


@both
def test_iterating(suspends: bool) -> None:
    closed: list[bool] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(5):
                await answer(number, suspends)
                yield number
        finally:
            await answer(0, suspends)
            closed.append(True)

    assert list(iterate(source(), suspends=suspends)) == [0, 1, 2, 3, 4]
    assert closed == [True]
    for how in ("close", "collect", "raise"):
        closed.clear()
        iterator: Any = iterate(source(), suspends=suspends)
        assert [next(iterator), next(iterator)] == [0, 1]
        if how == "close":
            iterator.close()
        elif how == "raise":
            with pytest.raises(LookupError):
                iterator.throw(LookupError())
        else:
            del iterator
            gc.collect()
        assert closed == [True]


@both
def test_errors_while_iterating(suspends: bool) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        await fail(ValueError("broken"), suspends)

    iterator = iterate(source(), suspends=suspends)
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="broken"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_iterating_something_that_is_not_a_generator() -> None:
    class Source:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> int:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return self.left

    assert list(iterate(Source(), suspends=False)) == [2, 1, 0]
    assert list(iterate(Source(), suspends=True)) == [2, 1, 0]


def test_inline_generators_are_not_adopted_by_a_running_loop() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> int:
        adopted: list[Any] = []
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=adopted.append)
        iterator = iterate(source(), suspends=False)
        assert next(iterator) == 1
        assert sys.get_asyncgen_hooks().firstiter is not None
        sys.set_asyncgen_hooks(*hooks)
        assert list(iterator) == [2]
        return len(adopted)

    assert asyncio.run(main()) == 0


def test_a_query_in_a_callback_of_a_query_stays_on_its_thread() -> None:
    async def inner() -> str:
        return repr(current_runtime())

    async def one(_: int) -> str:
        return run(inner(), suspends=False)

    async def main() -> set[str]:
        return {text async for text in InlineRuntime(2).map_ordered(one, range(10), window=4)}

    assert run(main(), suspends=False) == {"InlineRuntime(1)"}


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_an_interrupt_cancels_the_task_and_waits_for_it() -> None:
    ended: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            ended.append("ended")

    run(answer(1, True), suspends=True)
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(main(), suspends=True)
    assert ended == ["ended"]
    timer.join()
    assert run(answer(2, True), suspends=True) == 2


def in_child(work: Callable[[], None], seconds: float = 20.0) -> str:
    """Fork, work in the child: ``ok``, ``failed`` or ``hung``."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "ok" if status == 0 else "failed"
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


@needs_fork
def test_forks_of_a_busy_parent(tmp_path: Path) -> None:
    # In a process of its own: a coverage tracer has locks that do not survive a fork beside other threads.
    code = "import sys; from tests.io.test_driver import fork_while_busy; fork_while_busy(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, check=True, timeout=900)


def fork_while_busy(folder: str) -> None:
    """Fork while six threads read; raises unless every child and every thread gave right answers."""
    local = LocalStore(folder)
    run(local.put("x", bytes(10_000)), suspends=False)
    slow = SuspendingStore(local, delay=0.0005)

    async def read(item: int) -> int:
        return len(await local.get("x", item, item + 100))

    async def mapped() -> int:
        return sum([one async for one in InlineRuntime(3).map_ordered(read, range(50), window=16)])

    def work() -> None:
        assert run(mapped(), suspends=False) == 5000
        assert len(run(slow.get_ranges("x", [(0, 10), (9000, 9010)]), suspends=True)) == 2
        local.stats.snapshot()

    stop = threading.Event()
    errors: list[BaseException] = []

    def busy() -> None:
        try:
            while not stop.is_set():
                work()
                slow.stats.incremental()
        except BaseException as error:
            errors.append(error)

    work()
    assert {in_child(work) for _ in range(10)} == {"ok"}
    threads = [threading.Thread(target=busy) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        outcomes = {in_child(work) for _ in range(25)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert outcomes == {"ok"}
    assert errors == []
    work()


@needs_fork
def test_a_stream_begun_before_a_fork() -> None:
    async def one(item: int) -> int:
        block(0.001)
        return item

    iterator = iterate(InlineRuntime(3).map_ordered(one, range(500), window=16), suspends=False)
    assert next(iterator) == 0

    def work() -> None:
        with pytest.raises(RuntimeError, match="child process"):
            for _ in iterator:
                pass

    def drop() -> None:
        iterator.close()  # type: ignore[attr-defined]

    assert [in_child(work) for _ in range(5)] == ["ok"] * 5
    assert [in_child(drop) for _ in range(5)] == ["ok"] * 5
    assert list(iterator) == list(range(1, 500))


AT_EXIT = """
import asyncio, sys, threading, time
from pilum.io import InlineRuntime, iterate, run

async def pause(seconds):
    await asyncio.sleep(seconds)
    return seconds

async def source():
    while True:
        await asyncio.sleep(0)
        yield 1

async def spin(item):
    time.sleep(0.001)
    return item

async def endless():
    while True:
        yield 1

run(pause(0), suspends=True)
if "task" in sys.argv:
    threading.Thread(target=lambda: run(pause(100), suspends=True), daemon=True).start()
    time.sleep(0.05)
if "stream" in sys.argv:
    stream = iterate(source(), suspends=True)
    next(stream)
    inline = iterate(InlineRuntime(3).map_ordered(spin, range(10**9), window=16), suspends=False)
    next(inline)
if "cycle" in sys.argv:
    stream = iterate(source(), suspends=True)
    next(stream)
    cycle = [stream]
    cycle.append(cycle)
    del stream, cycle
print("done", flush=True)
"""


@pytest.mark.parametrize("what", ["idle", "task", "stream", "cycle"])
def test_the_interpreter_exits_whatever_is_open(what: str) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, what], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert time.monotonic() - begun < 30
