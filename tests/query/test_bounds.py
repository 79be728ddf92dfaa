"""Scans under pressure: many at once, slow consumers, small budgets, iterators that are left, queries that are cancelled."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.io import MemoryStore, trace
from pilum.io.scheduler import ByteBudget, RequestScheduler
from pilum.query.request import ScanRequest
from pilum.query.scan import plan_scan, plan_work
from tests.io.stores import SuspendingStore
from tests.query.tables import filled, over
from tests.support import REPOSITORY

EXAMPLES = int(os.environ.get("PILUM_EXAMPLES", "1000"))

_MANY = """
import asyncio, sys, threading, time
import pilum.aio

path, count = sys.argv[1], int(sys.argv[2])

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

async def main():
    ds = await pilum.aio.dataset(path)
    async for batch in await ds.to_batches():
        pass
    base, most, over = resident(), 0, threading.Event()

    def watch():
        nonlocal most
        while not over.wait(0.005):
            most = max(most, resident() - base)

    watcher = threading.Thread(target=watch)
    watcher.start()

    async def scan():
        rows = 0
        async for batch in await ds.to_batches():
            rows += batch.num_rows
            await asyncio.sleep(0)
        return rows

    found = await asyncio.gather(*(scan() for _ in range(count)))
    over.set()
    watcher.join()
    assert len(set(found)) == 1, found
    print(found[0], most)

asyncio.run(main())
"""


@cache
def many() -> MemoryStore:
    """4000 rows in 100 fragments."""
    return filled("bounds", 4000, 40)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 MB decoded, in four fragments."""
    rows = 300_000
    path = str(tmp_path_factory.mktemp("bounds") / "t.lance")
    random_ = np.random.default_rng(0)
    table = pa.table(
        {
            "a": random_.integers(0, 1 << 62, rows),
            "v": pa.FixedSizeListArray.from_arrays(pa.array(random_.standard_normal(rows * 9)), 9),
        }
    )
    pilum.write_dataset(table, path, max_rows_per_file=75_000)
    return path


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_64_scans_of_one_loop_in_bounded_memory(on_disk: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "src"),
        "LANCE_DEFAULT_IO_BUFFER_SIZE": str(32 << 20),
    }
    done = subprocess.run(
        [sys.executable, "-c", _MANY, on_disk, "64"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows, most = map(int, done.stdout.split())
    assert rows == 300_000
    # All of them decoded are 1.5 GB.  One batch (650 kB) of each is with its consumer.
    assert most < 400 << 20


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_a_slow_consumer_does_not_make_memory_grow(on_disk: str) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    stream = pilum.dataset(on_disk).to_batches(io_buffer_size=8 << 20)
    next(stream)
    time.sleep(0.3)
    base = resident()
    most = 0
    for position, _ in enumerate(stream):
        if position % 10 == 0:
            time.sleep(0.02)
        most = max(most, resident() - base)
    assert most < 40 << 20


def test_what_is_read_ahead_of_a_consumer_that_pauses() -> None:
    """Nothing is asked for while nobody takes anything, however long that lasts."""

    async def main() -> None:
        store = SuspendingStore(many())
        ds = await over(store)
        stream = await ds.to_batches(fragment_readahead=8, columns=["id"])
        async with aclosing(stream):
            await anext(stream)
            await asyncio.sleep(0.1)
            with trace() as log:
                await asyncio.sleep(0.1)
            assert not log.requests
            assert store.stats.read_iops < 64 + 3

    asyncio.run(main())


@pytest.mark.parametrize("how", ["network", "memory"])
def test_closing_early_stops_the_reading(how: str) -> None:
    async def main() -> None:
        inner = many()
        store: Any = SuspendingStore(inner, delay=0.001) if how == "network" else inner
        ds = await over(store)
        stream = await ds.to_batches(fragment_readahead=4)
        await anext(stream)
        await stream.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        before = store.stats.read_iops
        await asyncio.sleep(0.05)
        assert store.stats.read_iops == before < 150

    asyncio.run(main())


def test_a_synchronous_iterator_that_is_left(tmp_path: Path) -> None:
    ds = pilum.write_dataset(pa.table({"a": range(4000)}), tmp_path / "t.lance", max_rows_per_file=20)
    threads = threading.active_count()
    for _ in range(3):
        stream = ds.to_batches()
        next(stream)
        del stream
    gc.collect()
    assert threading.active_count() <= threads
    before = ds.io_stats_snapshot().read_iops
    time.sleep(0.05)
    assert ds.io_stats_snapshot().read_iops == before


@pytest.mark.parametrize("what", ["scan", "filter", "search", "take", "count"])
def test_a_cancelled_query_starts_nothing_after_50_ms(what: str) -> None:
    nearest = {"column": "vec", "q": np.zeros(16, np.float32), "k": 3}

    async def main() -> None:
        store = SuspendingStore(many(), delay=0.008)  # in its second round when it is cancelled
        ds = await over(store)
        run = {
            "scan": lambda: ds.to_table(fragment_readahead=2),
            "filter": lambda: ds.to_table(filter="id >= 0", fragment_readahead=2),
            "search": lambda: ds.to_table(nearest=nearest, fragment_readahead=1),
            "take": lambda: ds.take(list(range(0, 4000, 7))),
            "count": lambda: ds.count_rows("f > 0 or id < 3"),
        }[what]
        task = asyncio.create_task(run())
        await asyncio.sleep(0.012)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        before = store.stats.read_iops
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert store.in_flight == 0
        await asyncio.sleep(0.05)
        assert store.stats.read_iops == before < 200
        # The table is still usable, also what was being loaded when the query ended.
        assert (await run()) is not None

    asyncio.run(main())


def test_who_waits_for_a_load_that_is_cancelled_loads_itself() -> None:
    async def main() -> None:
        store = SuspendingStore(many(), delay=0.01)
        ds = await over(store)
        first = asyncio.create_task(ds.take([5]))
        second = asyncio.create_task(ds.take([6]))
        await asyncio.sleep(0.004)
        first.cancel()
        assert (await second)["id"].to_pylist() == [6]
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())


# -- budgets -------------------------------------------------------------------------------------------------


def test_random_plans_within_random_budgets() -> None:
    """Every row is in one group, and groups and windows are as small as the budget says, but never nothing."""
    choose = random.Random(6)
    stores = [filled(f"budget-{rows}-{per}", rows, per) for rows, per in ((1, 1), (500, 7), (3000, 1000))]

    async def main() -> None:
        tables = [await over(store) for store in stores] + [
            await over(SuspendingStore(store)) for store in stores
        ]
        for _ in range(EXAMPLES):
            snapshot = choose.choice(tables).snapshot
            budget = int(2 ** choose.uniform(0, 30))
            names = choose.sample(snapshot.manifest.schema.names, choose.randint(0, 4))
            request = ScanRequest(
                columns=names,
                with_row_id=True,
                batch_size=choose.choice([None, 1, 10, 1000, 1 << 20]),
                batch_readahead=choose.choice([None, None, 1, 4]),
                fragment_readahead=choose.choice([None, None, 1, 100]),
                io_buffer_size=budget,
                filter=choose.choice([None, "id > 3", "small = 1 and f > 0"]),
                limit=choose.choice([None, None, 1, 100]),
            )
            scan = plan_scan(snapshot, request)
            work = await plan_work(scan, budget)
            assert work.window >= 1
            units = [unit for group in work.groups for unit in group.units]
            assert all(0 <= unit.start < unit.stop <= unit.fragment.physical_rows for unit in units)
            if request.limit is None or request.filter is not None:
                total = sum(unit.stop - unit.start for unit in units)
                assert total == snapshot.manifest.num_rows
            ends: dict[int, int] = {}
            for unit in units:
                assert unit.start >= ends.get(unit.fragment.id, 0)
                ends[unit.fragment.id] = unit.stop
            if work.window > 1:
                largest = max(group.num_rows for group in work.groups)
                assert work.window * largest * scan.row_bytes <= budget

    asyncio.run(main())


def test_random_requests_within_random_budgets_all_finish() -> None:
    """No reader waits for itself: requests larger than the budget, nested ones, several loops' worth of them."""

    async def one(choose: random.Random) -> int:
        budget = ByteBudget(int(2 ** choose.uniform(0, 30)))
        schedulers = [RequestScheduler(choose.randint(1, 8), budget) for _ in range(2)]
        finished = 0

        async def request() -> None:
            for _ in range(choose.randint(0, 2)):
                await asyncio.sleep(0)

        async def reader(depth: int) -> None:
            nonlocal finished
            for _ in range(choose.randint(1, 3)):
                size = int(2 ** choose.uniform(0, 30))
                await choose.choice(schedulers).run(size, request, priority=choose.randint(0, 3))
                if depth < 2 and choose.random() < 0.3:
                    await asyncio.gather(*(reader(depth + 1) for _ in range(2)))
            finished += 1

        readers = choose.randint(1, 6)
        async with asyncio.timeout(20):
            await asyncio.gather(*(reader(0) for _ in range(readers)))
        assert budget.used == 0
        return finished

    async def main() -> None:
        choose = random.Random(7)
        for _ in range(EXAMPLES):
            assert await one(choose) >= 1

    asyncio.run(main())


@pytest.mark.parametrize("budget", [1, 100, 10_000, 1 << 20, 1 << 30])
@pytest.mark.parametrize("suspends", [True, False])
def test_whole_scans_within_any_budget(budget: int, suspends: bool) -> None:
    async def main() -> None:
        ds = await over(SuspendingStore(many()) if suspends else many())
        async with asyncio.timeout(60):
            table = await ds.to_table(columns=["id", "s"], io_buffer_size=budget)
            assert table["id"].to_pylist() == list(range(4000))
            found = await ds.to_table(columns=["id"], filter="id % 2 = 0", io_buffer_size=budget, limit=700)
            assert found["id"].to_pylist() == list(range(0, 1400, 2))

    asyncio.run(main())
