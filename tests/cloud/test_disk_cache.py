"""Datasets on an object store with a cache on disk: the second epoch asks for no data."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
import pilum.aio
from pilum.io import store_for
from pilum.io.cached import CachedStore
from tests.cloud.server import BUCKET, Server, spoiled

DIMENSION = 16


def rows(count: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    values = pa.array(rng.standard_normal(count * DIMENSION).astype(np.float32))
    return pa.table(
        {
            "id": np.arange(count) + 10_000 * seed,
            "text": [f"row {i} of {seed}" for i in range(count)],
            "vec": pa.FixedSizeListArray.from_arrays(values, DIMENSION),
        }
    )


def cached(server: Server, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {**server.options, "cache_dir": str(tmp_path / "cache"), **more}


def data_requests(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Reads of anything but manifests and hints."""
    return [one for one in found["log"] if one["kind"] == "get" and "_versions" not in one["key"]]


EPOCH = """
import json, sys
import pilum
uri, options = sys.argv[1], json.loads(sys.argv[2])
ds = pilum.dataset(uri, storage_options=options)
table = ds.to_table()
some = ds.to_table(columns=["id"], filter="id % 7 = 3")
taken = ds.take([5, 1700, 77])
near = ds.to_table(nearest={"column": "vec", "q": table["vec"][100].as_py(), "k": 3}, columns=["id"])
print(json.dumps([table.num_rows, sum(table["id"].to_pylist()), some.num_rows, taken["id"].to_pylist(),
                  near["id"][0].as_py(), ds.aio.store.stats.read_iops]))
"""


def epoch(uri: str, options: dict[str, Any]) -> list[Any]:
    command = [sys.executable, "-c", EPOCH, uri, json.dumps(options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("size", ["small files", "large files"])
def test_the_second_epoch_of_a_new_process_asks_for_no_data(
    server: Server, uri: str, tmp_path: Path, size: str
) -> None:
    options = cached(server, tmp_path)
    table = rows(2000 if size == "small files" else 60_000)
    ds = pilum.write_dataset(table, uri, max_rows_per_file=len(table) // 2, storage_options=options)
    ds.delete("id % 10 = 0")
    with server.counted() as first:
        expected = epoch(uri, options)
    assert data_requests(first)
    with server.counted() as second:
        again = epoch(uri, options)
    assert data_requests(second) == []
    assert again[:-1] == expected[:-1]
    assert expected[0] == len(table) * 9 // 10
    with server.counted() as without:
        assert epoch(uri, server.options)[:-1] == expected[:-1]
    # The first time already, what the queries have in common is asked for once.
    assert len(data_requests(first)) <= len(data_requests(without))


def test_a_new_handle_asks_for_no_data(server: Server, uri: str, tmp_path: Path) -> None:
    options = cached(server, tmp_path)
    table = rows(2000)
    pilum.write_dataset(table, uri, max_rows_per_file=100, storage_options=options)
    assert pilum.dataset(uri, storage_options=options).to_table().equals(table)
    ds = pilum.dataset(uri, storage_options=options)
    with server.counted() as found:
        text = ds.scanner().analyze_plan()
        assert ds.take([3, 1999]).equals(table.take([3, 1999]))
    assert found["requests"] == 0
    assert "requests=0" in text
    assert "cache_hits=20" in text
    fresh = pilum.dataset(uri, storage_options=options)
    assert "20 reads of" in str(fresh.scanner().waterfall())

    async def main() -> pa.Table:
        opened = await pilum.aio.dataset(uri, storage_options=options)
        batches = [batch async for batch in await opened.to_batches()]
        return pa.Table.from_batches(batches)

    with server.counted() as found:
        assert asyncio.run(main()).equals(table)
    assert data_requests(found) == []


def test_a_table_that_is_dropped_and_made_anew(server: Server, uri: str, tmp_path: Path) -> None:
    options = cached(server, tmp_path)
    for seed in range(3):
        pilum.write_dataset(rows(300, seed), uri, max_rows_per_file=100, storage_options=options)
        assert pilum.dataset(uri, storage_options=options).to_table().equals(rows(300, seed))
        if seed == 0:
            pilum.LanceDataset.drop(uri, storage_options=options)
        else:
            pilum.LanceDataset.drop(uri, storage_options=server.options)  # by somebody without a cache


def test_writers_commit_meanwhile(server: Server, uri: str, tmp_path: Path) -> None:
    options = cached(server, tmp_path)
    pilum.write_dataset(rows(100), uri, max_rows_per_file=20, storage_options=server.options)
    failures: list[BaseException] = []
    done = threading.Event()

    def write() -> None:
        try:
            for seed in range(1, 9):
                ds = pilum.dataset(uri, storage_options=server.options if seed % 2 else options)
                ds.insert(rows(20, seed))
                ds.delete(f"id = {10_000 * seed + 3} or id = {seed}")
                ds.update({"text": "'changed'"}, where=f"id = {10_000 * seed + 5}")
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    versions = 0
    while not done.is_set() or versions < 3:
        with_cache = pilum.dataset(uri, storage_options=options)
        plain = pilum.dataset(uri, version=with_cache.version, storage_options=server.options)
        assert with_cache.to_table().equals(plain.to_table())
        versions += 1
    writer.join()
    assert failures == []
    ds = pilum.dataset(uri, storage_options=options)
    assert ds.count_rows() == 100 + 8 * 20 - 16
    assert ds.to_table(filter="text = 'changed'").num_rows == 8
    for number in (1, 5, ds.version):
        old = pilum.dataset(uri, version=number, storage_options=options).to_table()
        assert old.equals(pilum.dataset(uri, version=number, storage_options=server.options).to_table())


def test_branches_and_clones_are_cached(server: Server, uri: str, tmp_path: Path) -> None:
    options = cached(server, tmp_path)
    ds = pilum.write_dataset(rows(100), uri, max_rows_per_file=20, storage_options=options)
    branch = ds.create_branch("side")
    branch.insert(rows(20, 1))
    clone = ds.shallow_clone(f"{uri} clone", 1, storage_options=options)
    for address in (f"{uri}/tree/side", f"{uri} clone"):
        expected = pilum.dataset(address, storage_options=options).to_table()
        with server.counted() as found:
            assert pilum.dataset(address, storage_options=options).to_table().equals(expected)
        assert data_requests(found) == []
    assert clone.count_rows() == 100


def test_a_spoiled_cache_gives_the_right_rows(server: Server, uri: str, tmp_path: Path) -> None:
    options = cached(server, tmp_path)
    table = rows(2000)
    pilum.write_dataset(table, uri, max_rows_per_file=200, storage_options=options)
    pilum.dataset(uri, storage_options=options).to_table()
    rng = np.random.default_rng(0)
    pieces = [one for one in (tmp_path / "cache").rglob("*-*") if one.is_file()]
    assert len(pieces) == 10
    for piece in pieces:
        data = bytearray(piece.read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        piece.write_bytes(data)
    with server.counted() as found:
        assert pilum.dataset(uri, storage_options=options).to_table().equals(table)
    assert len(data_requests(found)) == 10
    with server.counted() as found:
        assert pilum.dataset(uri, storage_options=options).to_table().equals(table)
    assert data_requests(found) == []


def test_a_small_cache_stays_small(server: Server, uri: str, tmp_path: Path) -> None:
    options = cached(server, tmp_path, cache_bytes="100KiB")
    table = rows(4000)
    pilum.write_dataset(table, uri, max_rows_per_file=100, storage_options=options)
    for _ in range(2):
        assert pilum.dataset(uri, storage_options=options).to_table().equals(table)
    store = store_for(uri, options)
    assert isinstance(store, CachedStore)
    assert 0 < store.disk.nbytes() <= 100 << 10


def test_options_from_a_function_and_stores_of_the_caller(server: Server, uri: str, tmp_path: Path) -> None:
    from obstore.store import S3Store

    config = {k: v for k, v in server.options.items() if k != "allow_http"}
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    made = S3Store(BUCKET, prefix=prefix, config=config, client_options={"allow_http": True})
    pilum.write_dataset(rows(100), uri, storage_options=server.options)
    cache_dir = {"cache_dir": str(tmp_path / "cache")}
    first: Any = lambda: cached(server, tmp_path)  # noqa: E731
    assert pilum.dataset(uri, storage_options=first).to_table().equals(rows(100))
    with server.counted() as found:
        assert pilum.dataset(made, storage_options=cache_dir).to_table().equals(rows(100))
    assert data_requests(found) == []
    assert not isinstance(store_for(uri, server.options), CachedStore)


@pytest.mark.fault
def test_an_origin_that_fails_still_says_so(uri: str, tmp_path: Path) -> None:
    down = [False]

    async def spoil(request: Any, handler: Any) -> Any:
        from aiohttp import web

        if down[0] and request.path.endswith(".lance"):
            return web.Response(status=404)
        return await handler(request)

    with spoiled(spoil) as server:
        options = cached(server, tmp_path)
        pilum.write_dataset(rows(100), uri, max_rows_per_file=50, storage_options=options)
        ds = pilum.dataset(uri, storage_options=options)
        first = ds.get_fragments()[0].to_table()
        down[0] = True
        fresh = pilum.dataset(uri, storage_options=options)
        assert fresh.get_fragments()[0].to_table().equals(first)  # on disk
        with pytest.raises(FileNotFoundError, match="there is no such object"):
            fresh.to_table()
