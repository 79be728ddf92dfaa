"""Bounds on requests and bytes in flight: they hold, and nothing ever waits forever."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pilum.io import MemoryStore, RequestScheduler, run
from pilum.io.scheduler import ByteBudget
from tests.io.stores import SuspendingStore


class VirtualClock(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        elif not self._ready and not self._stopping:  # type: ignore[attr-defined]
            raise AssertionError("deadlock: everybody waits and no timer runs")
        super()._run_once()  # type: ignore[misc]


REQUEST = st.tuples(
    st.integers(0, 150),  # bytes; the budget is 100
    st.integers(0, 10),  # when it is asked for
    st.integers(0, 10),  # how long it takes
    st.integers(0, 2),  # priority
    st.sampled_from(["ok", "ok", "ok", "fails", "cancelled"]),
    st.integers(0, 1),  # which store
)


@pytest.mark.property
@settings(deadline=None, max_examples=200)
@given(st.lists(REQUEST, max_size=25), st.integers(1, 4))
def test_bounds_hold_and_everything_ends(plans: list[Any], parallelism: int) -> None:
    budget = ByteBudget(100)
    schedulers = [RequestScheduler(parallelism, budget) for _ in range(2)]
    flying: list[tuple[int, int]] = []

    async def one(plan: Any) -> str:
        size, begin, duration, priority, fate, which = plan
        await asyncio.sleep(begin)

        async def request() -> str:
            flying.append((size, which))
            assert sum(one == which for _, one in flying) <= parallelism
            assert sum(flown for flown, _ in flying) <= 100 or len(flying) == 1
            # A request whose turn has come but that has not begun is counted, too.
            assert budget.used >= sum(flown for flown, _ in flying)
            try:
                await asyncio.sleep(duration)
            finally:
                flying.remove((size, which))
            if fate == "fails":
                raise OSError
            return "ok"

        call = asyncio.create_task(schedulers[which].run(size, request, priority=priority))
        if fate == "cancelled":
            await asyncio.sleep(duration / 2)
            call.cancel()
        try:
            return await call
        except OSError:
            return "fails"
        except asyncio.CancelledError:
            return "cancelled"

    async def main() -> None:
        answers = await asyncio.gather(*(one(plan) for plan in plans))
        for plan, answer in zip(plans, answers, strict=True):
            assert answer == plan[4] or plan[4] == "cancelled"

    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        runner.run(main())
    assert budget.used == 0
    assert flying == []


def test_order_is_by_priority_then_by_arrival() -> None:
    order: list[str] = []

    async def main() -> None:
        scheduler = RequestScheduler(1, ByteBudget(100))

        async def request(name: str) -> None:
            order.append(name)
            await asyncio.sleep(0)

        calls = [("a", 5), ("b", 5), ("c", 1), ("d", 5), ("e", 1)]
        await asyncio.gather(
            *(scheduler.run(1, lambda name=name: request(name), priority=level) for name, level in calls)  # type: ignore[misc]
        )

    asyncio.run(main())
    assert order == ["a", "c", "e", "b", "d"]  # the first one met nobody


def test_small_requests_do_not_overtake_a_large_one() -> None:
    order: list[int] = []

    async def main() -> None:
        budget = ByteBudget(100)
        first, second = RequestScheduler(10, budget), RequestScheduler(10, budget)

        async def request(size: int) -> None:
            order.append(size)
            await asyncio.sleep(0.001)

        await asyncio.gather(
            first.run(60, lambda: request(60)),
            first.run(90, lambda: request(90)),
            first.run(10, lambda: request(10)),
            second.run(11, lambda: request(11)),
        )

    asyncio.run(main())
    assert order[:2] == [60, 90]
    assert sorted(order[2:]) == [10, 11]


def test_loops_share_the_budget_and_do_not_block_each_other() -> None:
    budget = ByteBudget(100)
    scheduler = RequestScheduler(10, budget)
    gate, inside = threading.Event(), threading.Event()

    async def hold() -> None:
        async def request() -> None:
            inside.set()
            while not gate.is_set():  # noqa: ASYNC110 - an event of another thread
                await asyncio.sleep(0.001)

        await scheduler.run(100, request)

    holder = threading.Thread(target=lambda: asyncio.run(hold()))
    holder.start()
    inside.wait()
    together = 0
    most = 0

    async def main() -> None:
        async def request() -> None:
            nonlocal together, most
            together += 1
            most = max(most, together)
            await asyncio.sleep(0.001)
            together -= 1

        async with asyncio.timeout(10):
            await asyncio.gather(*(scheduler.run(50, request) for _ in range(5)))

    asyncio.run(main())
    assert most == 1  # the other loop holds the budget: one at a time, but never none
    gate.set()
    holder.join()
    assert budget.used == 0


def test_a_store_keeps_its_parallelism(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANCE_IO_THREADS", "5")
    inner = MemoryStore()
    run(inner.put("x", bytes(1_000_000)), suspends=False)
    store = SuspendingStore(inner, delay=0.001)
    assert store.io_parallelism == 5
    ranges = [(at, at + 10) for at in range(0, 1_000_000, 20_000)]

    async def main() -> None:
        await asyncio.gather(*(store.get_ranges("x", ranges) for _ in range(3)))

    asyncio.run(main())
    assert store.most_in_flight == 5
    assert store.stats.read_iops == 150
