"""The asyncio API: overlap of metadata I/O, errors at the await, many queries on one loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import aclosing
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pilum
import pilum.aio
from pilum.dataset.core import AsyncLanceDataset
from pilum.errors import PilumError
from pilum.file import Session
from pilum.io import MemoryStore
from pilum.query.snapshot import Snapshot
from pilum.table import latest_version, load_manifest
from tests.io.stores import FailingStore, GatedStore


def table(rows: int) -> pa.Table:
    matrix = np.random.default_rng(0).standard_normal(rows * 8).astype(np.float32)
    return pa.table({"id": np.arange(rows), "vec": pa.FixedSizeListArray.from_arrays(pa.array(matrix), 8)})


async def over(store: object) -> AsyncLanceDataset:
    """A dataset handle on a wrapped store."""
    manifest = await load_manifest(store, await latest_version(store))  # type: ignore[arg-type]
    return AsyncLanceDataset(Snapshot(store, manifest, Session()))  # type: ignore[arg-type]


def filled(name: str, fragments: int) -> MemoryStore:
    pilum.write_dataset(table(fragments * 5), f"memory://{name}", max_rows_per_file=5)
    return MemoryStore(name)


@pytest.mark.parametrize("what", ["to_table", "to_batches", "nearest", "filter", "count"])
def test_initialisation_overlaps_across_a_full_window_of_fragments(what: str) -> None:
    """A store that answers no data file until a window of them has been asked for: serial code hangs."""
    window = 16
    inner = filled(f"gated-{what}", 40)

    async def main() -> int:
        store = GatedStore(inner, prefix="data/", distinct=window)
        ds = await over(store)
        options = {"fragment_readahead": window}
        if what == "to_table":
            return (await ds.to_table(**options)).num_rows
        if what == "to_batches":
            stream = await ds.to_batches(**options)
            assert store.distinct_seen >= window  # primed: asked before the stream was handed out
            async with aclosing(stream):
                return sum([batch.num_rows async for batch in stream])
        if what == "nearest":
            nearest = {"column": "vec", "q": [0.0] * 8, "k": 200}
            return (await ds.to_table(nearest=nearest, **options)).num_rows
        if what == "filter":
            return (await ds.to_table(filter="id >= 0", **options)).num_rows
        return await ds.count_rows("id >= 0")

    async def bounded() -> int:
        async with asyncio.timeout(20):
            return await main()

    assert asyncio.run(bounded()) == 200


def test_large_fragments_are_opened_before_their_turn() -> None:
    """While one group is in flight, the metadata of the fragments behind it is asked for: else the gate stays shut."""
    values = np.random.default_rng(0).standard_normal(4 * 300_000)
    pilum.write_dataset(pa.table({"x": values}), "memory://gated-ahead", max_rows_per_file=300_000)

    async def main() -> int:
        store = GatedStore(MemoryStore("gated-ahead"), prefix="data/", distinct=4)
        ds = await over(store)
        async with asyncio.timeout(20):
            table = await ds.to_table(io_buffer_size=3 << 20, fragment_readahead=1)
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        return table.num_rows

    assert asyncio.run(main()) == len(values)


@pytest.mark.parametrize("what", ["to_table", "to_batches", "nearest", "take"])
def test_a_failing_fragment_surfaces_at_the_await_and_leaks_nothing(what: str) -> None:
    inner = filled(f"failing-{what}", 30)
    threads = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    async def main() -> None:
        ds = await over(inner)
        victim = ds.manifest.fragments[4].files[0].path
        broken = await over(FailingStore(inner, pattern=victim))
        nearest = {"column": "vec", "q": [0.0] * 8}
        calls = {
            "to_table": broken.to_table,
            "to_batches": broken.to_batches,
            "nearest": partial(broken.to_table, nearest=nearest),
            "take": partial(broken.take, list(range(150))),
        }
        with pytest.raises(PilumError, match=victim):
            await calls[what]()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # The handle stays usable: rows of the other fragments can be read.
        assert (await broken.take([0, 149], columns=["id"]))["id"].to_pylist() == [0, 149]

    asyncio.run(main())
    gc.collect()
    assert threading.active_count() <= threads
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.parametrize("where", ["disk", "gated-memory"])
def test_one_hundred_concurrent_queries_on_one_loop(tmp_path: Path, where: str) -> None:
    rows = table(1000)
    path = tmp_path / "t.lance"
    pilum.write_dataset(rows, path, max_rows_per_file=50)
    inner = filled(f"hundred-{where}", 200)

    async def main() -> int:
        if where == "disk":
            ds = await pilum.aio.dataset(path)
        else:
            ds = await over(GatedStore(inner, prefix="data/", distinct=1))
        before = threading.active_count()
        most = before

        async def one(number: int) -> bool:
            nonlocal most
            if number % 3 == 0:
                found = await ds.to_table(columns=["id"], filter=f"id = {number}")
            elif number % 3 == 1:
                found = await ds.take([number], columns=["id"])
            else:
                query = rows["vec"][number].as_py()
                found = await ds.to_table(columns=["id"], nearest={"column": "vec", "q": query, "k": 1})
            most = max(most, threading.active_count())
            return bool(found["id"].to_pylist() == [number])

        answers = await asyncio.gather(*(one(number) for number in range(100)))
        assert all(answers)
        return most - before

    # The loop's own executor may grow to a handful of threads; a thread per query would be a hundred.
    assert asyncio.run(main()) <= 12


def test_cancelling_a_query_leaves_no_task() -> None:
    inner = filled("cancelled", 30)

    async def main() -> None:
        ds = await over(GatedStore(inner, prefix="data/", distinct=10_000))
        task = asyncio.create_task(ds.to_table())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_the_synchronous_api_inside_a_running_loop(tmp_path: Path) -> None:
    path = tmp_path / "t.lance"

    async def main() -> int:
        return pilum.write_dataset(table(20), path).count_rows("id < 7")

    assert asyncio.run(main()) == 7


def test_aio_write_delete_and_versions(tmp_path: Path) -> None:
    async def main() -> None:
        ds = await pilum.aio.write_dataset(table(20), tmp_path / "t.lance")
        await ds.insert(table(5))
        assert (await ds.delete("id >= 10"))["num_deleted_rows"] == 10
        assert [one["version"] for one in await ds.versions()] == [1, 2, 3]
        assert (await ds.checkout_version(1)).version == 1
        stream = await ds.to_batches(columns=["id"])
        assert sum([batch.num_rows async for batch in stream]) == 15

    asyncio.run(main())
