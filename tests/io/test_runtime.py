"""`map_ordered` and `offload` of both runtimes: order, bounds, errors, endings."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from pilum.io import InlineRuntime, LoopRuntime, current_runtime, iterate, run


def block(seconds: float) -> None:
    """Hold this thread, as a computation would."""
    time.sleep(seconds)


# How work is driven: (name, map_ordered options, runner)
MODES = ["serial", "threads", "tasks", "executor"]


class Mode:
    """Runs a coroutine the way a mode says, and makes streams in it."""

    def __init__(self, name: str, cores: int = 4) -> None:
        self.name = name
        self.cores = cores

    def run(self, main: Callable[[], Any]) -> Any:
        if self.name in ("serial", "threads"):
            return run(main(), suspends=False)
        return asyncio.run(main())

    def map(self, fn: Any, items: Any, **options: Any) -> AsyncGenerator[Any, None]:
        options.setdefault("window", 8)
        if self.name == "serial":
            return InlineRuntime(1).map_ordered(fn, items, **options)
        if self.name == "threads":
            return InlineRuntime(self.cores).map_ordered(fn, items, **options)
        return LoopRuntime().map_ordered(fn, items, suspends=self.name == "tasks", **options)

    async def pause(self, seconds: float) -> None:
        if self.name == "tasks":
            await asyncio.sleep(seconds)
        else:
            block(seconds)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mode]:
    monkeypatch.setenv("LANCE_CPU_THREADS", "4")
    before = threading.active_count()
    yield Mode(request.param)
    if threading.active_count() > before:
        gc.collect()
    assert threading.active_count() <= before


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("window", [1, 2, 7, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
@pytest.mark.parametrize("kind", ["range", "iterator"])
def test_results_come_in_order(mode: Mode, count: int, window: int, chunk: int, kind: str) -> None:
    rng = random.Random(count * window)

    async def fn(item: int) -> int:
        if rng.random() < 0.2:
            await mode.pause(0.0003)
        return item * item

    async def main() -> list[int]:
        items = range(count) if kind == "range" else (item for item in range(count))
        async with aclosing(mode.map(fn, items, window=window, chunk=chunk)) as stream:
            return [result async for result in stream]

    assert mode.run(main) == [item * item for item in range(count)]


@pytest.mark.parametrize("chunk", [1, 4])
def test_the_window_bounds_what_is_started(mode: Mode, chunk: int) -> None:
    started = 0
    consumed = 0
    most = 0

    async def fn(item: int) -> int:
        nonlocal started, most
        started += 1
        most = max(most, started - consumed)
        await mode.pause(0)
        return item

    async def main() -> None:
        nonlocal consumed
        async with aclosing(mode.map(fn, range(400), window=16, chunk=chunk)) as stream:
            async for _ in stream:
                consumed += 1
                if consumed % 50 == 0:
                    await mode.pause(0.003)  # a slow consumer

    mode.run(main)
    assert started == 400
    # Results of the chunk being consumed are no longer counted by the window.
    assert most <= 16 + 2 * chunk


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("position", [0, 1, 17, 49])
def test_the_first_failure_comes_in_its_place(mode: Mode, position: int, chunk: int) -> None:
    started: list[int] = []
    running = 0

    async def fn(item: int) -> int:
        nonlocal running
        started.append(item)
        running += 1
        try:
            if item > position and item % 3 == 0:
                raise KeyError(item)  # later ones fail earlier
            await mode.pause(0.001)
            if item == position:
                raise ValueError(f"item {item}")
            return item
        finally:
            running -= 1

    got = []

    async def main() -> None:
        async with aclosing(mode.map(fn, range(50), window=20, chunk=chunk)) as stream:
            async for result in stream:
                got.append(result)

    with pytest.raises(ValueError, match=f"item {position}"):
        mode.run(main)
    assert got == list(range(position))
    assert running == 0
    before = len(started)
    block(0.01)
    assert len(started) == before


def test_a_failing_iterable(mode: Mode) -> None:
    def items() -> Iterator[int]:
        yield from range(10)
        raise OSError("no more")

    async def fn(item: int) -> int:
        return item

    got = []

    async def main() -> None:
        async for result in mode.map(fn, items(), chunk=2):
            got.append(result)

    with pytest.raises(OSError, match="no more"):
        mode.run(main)
    assert got == list(range(len(got)))


@pytest.mark.parametrize("how", ["close", "error", "collect"])
def test_ending_early_leaves_nothing_behind(mode: Mode, how: str) -> None:
    running = 0
    finished = 0

    async def fn(item: int) -> int:
        nonlocal running, finished
        running += 1
        try:
            await mode.pause(0.001)
            finished += 1
            return item
        finally:
            running -= 1

    async def main() -> None:
        stream = mode.map(fn, range(10_000), window=64, chunk=2)
        got = [await anext(stream) for _ in range(5)]
        assert got == list(range(5))
        if how == "close":
            await stream.aclose()
        elif how == "error":
            with pytest.raises(LookupError):
                await stream.athrow(LookupError())
        else:
            del stream
            gc.collect()
            if mode.name in ("tasks", "executor"):
                await asyncio.sleep(0.05)  # the loop closes it
        assert running == 0

    mode.run(main)
    assert finished < 500


def test_threads_that_work_are_named_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()
    idents: set[int] = set()

    async def fn(item: int) -> int:
        names.add(threading.current_thread().name)
        idents.add(threading.get_ident())
        block(0.001)
        return item

    async def main() -> None:
        async for _ in InlineRuntime(3).map_ordered(fn, range(60), window=20):
            pass

    before = set(threading.enumerate())
    run(main(), suspends=False)
    assert set(threading.enumerate()) == before
    assert names == {"MainThread", "pilum-worker"}
    assert len(idents) == 3


def test_one_chunk_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a thread was made")

    async def fn(item: int) -> int:
        return item

    async def main() -> list[int]:
        return [item async for item in InlineRuntime(4).map_ordered(fn, range(8), window=64, chunk=8)]

    monkeypatch.setattr(threading, "Thread", refuse)
    assert run(main(), suspends=False) == list(range(8))
    assert [run(fn(1), suspends=False)] == [1]


def test_nested_calls_run_on_the_worker(mode: Mode) -> None:
    if mode.name == "tasks":
        pytest.skip("tasks nest as tasks")
    outside: list[bool] = []

    async def inner(item: int) -> int:
        return threading.get_ident()

    async def fn(item: int) -> bool:
        if mode.name != "serial":
            outside.append(repr(current_runtime()) != "InlineRuntime(1)")
        stream = current_runtime().map_ordered(inner, range(20), window=8, chunk=2)
        if mode.name == "serial":
            stream = InlineRuntime(1).map_ordered(inner, range(20), window=8)
        return {ident async for ident in stream} == {threading.get_ident()}

    async def main() -> list[bool]:
        return [same async for same in mode.map(fn, range(30))]

    assert mode.run(main) == [True] * 30
    assert not any(outside)


def test_workers_see_the_context_of_the_query(mode: Mode) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    async def fn(_: int) -> str:
        block(0.0005)
        return variable.get()

    async def main() -> set[str]:
        variable.set("set")
        return {value async for value in mode.map(fn, range(20))}

    assert mode.run(main) == {"set"}


def test_a_function_that_suspends_without_a_loop_is_an_error() -> None:
    async def fn(_: int) -> None:
        await asyncio.sleep(0)

    async def main(cores: int) -> None:
        async for _ in InlineRuntime(cores).map_ordered(fn, range(10), window=4):
            pass

    for cores in (1, 3):
        with pytest.raises(RuntimeError, match="waited for an event loop"):
            run(main(cores), suspends=False)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("where", ["computing", "waiting", "consuming"])
def test_an_interrupt_stops_the_workers(where: str) -> None:
    main_thread = threading.get_ident()
    running = 0
    lock = threading.Lock()
    started = 0

    async def fn(item: int) -> int:
        nonlocal running, started
        with lock:
            running += 1
            started += 1
        try:
            if threading.get_ident() == main_thread:
                block(0.5 if where == "computing" else 0.0)
            else:
                block(0.3 if where == "waiting" else 0.01)
            return item
        finally:
            with lock:
                running -= 1

    async def main() -> None:
        async with aclosing(InlineRuntime(3).map_ordered(fn, range(10_000), window=4)) as stream:
            async for _ in stream:
                if where == "consuming":
                    block(0.5)

    before = set(threading.enumerate())
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(main(), suspends=False)
    timer.join()
    assert time.monotonic() - begun < 2
    assert running == 0
    assert set(threading.enumerate()) <= before
    assert started < 100


def test_tasks_overlap() -> None:
    async def fn(_: int) -> None:
        await asyncio.sleep(0.02)

    async def main() -> float:
        begun = time.monotonic()
        async for _ in LoopRuntime().map_ordered(fn, range(40), window=20):
            pass
        return time.monotonic() - begun

    assert asyncio.run(main()) < 0.4  # one after the other: 0.8


def test_the_loop_is_not_held_by_local_work() -> None:
    async def fn(_: int) -> None:
        block(0.02)

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticker = asyncio.create_task(tick())
        async for _ in LoopRuntime().map_ordered(fn, range(20), window=8, suspends=False):
            pass
        ticker.cancel()
        return ticks

    assert asyncio.run(main()) >= 10


def test_cancellation_ends_what_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANCE_CPU_THREADS", "2")
    for suspends in (True, False):
        running = 0

        async def fn(_: int, suspends: bool = suspends) -> None:
            nonlocal running
            running += 1
            try:
                if suspends:
                    await asyncio.sleep(10)
                else:
                    block(0.02)
            finally:
                running -= 1

        async def consume(fn: Any = fn, suspends: bool = suspends) -> None:
            async with aclosing(
                LoopRuntime().map_ordered(fn, range(1000), window=8, suspends=suspends)
            ) as stream:
                async for _ in stream:
                    pass

        async def main(consume: Any = consume) -> None:
            task = asyncio.create_task(consume())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
        assert running == 0


def test_failed_tasks_are_not_reported_as_forgotten() -> None:
    reported: list[Any] = []

    async def fn(item: int) -> None:
        raise ValueError(item)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        with pytest.raises(ValueError, match="0"):
            async for _ in LoopRuntime().map_ordered(fn, range(10), window=10):
                pass
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert reported == []


def test_offload(mode: Mode) -> None:
    def where(first: int, second: int) -> tuple[int, int, str]:
        return first + second, threading.get_ident(), repr(current_runtime())

    async def main() -> tuple[int, int, str]:
        result: tuple[int, int, str] = await current_runtime().offload(where, 1, 2)
        return result

    total, ident, runtime = mode.run(main)
    assert total == 3
    here = mode.name in ("serial", "threads")
    assert (ident == threading.get_ident()) == here
    if not here:
        assert runtime == "InlineRuntime(1)"


def test_which_runtime_is_current() -> None:
    assert isinstance(current_runtime(), InlineRuntime)

    async def main() -> Any:
        return current_runtime()

    assert isinstance(run(main(), suspends=False), InlineRuntime)
    assert isinstance(run(main(), suspends=True), LoopRuntime)
    assert isinstance(asyncio.run(main()), LoopRuntime)

    async def nested() -> Any:
        return run(main(), suspends=False)

    assert isinstance(asyncio.run(nested()), InlineRuntime)


def test_results_are_not_kept_alive() -> None:
    class Big:
        alive = 0

        def __init__(self) -> None:
            Big.alive += 1

        def __del__(self) -> None:
            Big.alive -= 1

    async def fn(_: int) -> Big:
        return Big()

    async def main() -> int:
        most = 0
        async with aclosing(InlineRuntime(2).map_ordered(fn, range(400), window=8, chunk=2)) as stream:
            async for big in stream:
                most = max(most, Big.alive)
                del big
        return most

    assert run(main(), suspends=False) <= 8 + 2 * 2 + 2
    assert Big.alive == 0


def test_an_unfinished_synchronous_iterator_ends_when_it_is_dropped() -> None:
    async def fn(item: int) -> int:
        return item

    before = set(threading.enumerate())
    iterator = iterate(InlineRuntime(3).map_ordered(fn, range(1000), window=16), suspends=False)
    assert [next(iterator) for _ in range(3)] == [0, 1, 2]
    assert set(threading.enumerate()) > before
    del iterator
    assert set(threading.enumerate()) == before
