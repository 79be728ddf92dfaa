"""Stores that throttle, break off, fall silent, lose answers or lie."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.errors import NotFoundError, StoreError
from pilum.io import address_suspends, run, store_for
from tests.cloud.server import BUCKET, Server, spoiled
from tests.support import REPOSITORY

pytestmark = pytest.mark.fault

Handler = Callable[[Any], Awaitable[Any]]


def table(count: int, seed: int = 0) -> pa.Table:
    return pa.table({"id": np.arange(count) + 10_000 * seed, "text": [f"row {i}" for i in range(count)]})


def quick(server: Server, **more: str) -> dict[str, str]:
    """Options that give up soon."""
    return {**server.options, "client_retry_timeout": "2s", **more}


def test_throttled_and_broken_answers_do_not_show(server: Server, uri: str) -> None:
    expected = table(3000)
    pilum.write_dataset(expected, uri, max_rows_per_file=20, storage_options=server.options)
    wide = pa.table({f"c{i}": np.random.default_rng(i).standard_normal(200_000) for i in range(4)})
    pilum.write_dataset(wide, f"{uri} wide", max_rows_per_file=100_000, storage_options=server.options)
    with server.conditions(fail_rate=0.05, reset_rate=0.02), server.counted() as found:
        for _ in range(2):
            ds = pilum.dataset(uri, storage_options=server.options)
            assert ds.to_table().equals(expected)
            assert pilum.dataset(f"{uri} wide", storage_options=server.options).to_table().equals(wide)
        ds.insert(table(10, 1))
        assert ds.delete("id < 10")["num_deleted_rows"] == 10
        assert ds.count_rows() == 3000
    assert found["failed"] > 0


def test_a_body_is_resumed_where_it_broke(server: Server) -> None:
    data = np.random.default_rng(0).integers(0, 256, 6 << 20, dtype=np.uint8)
    store = store_for(f"s3://{BUCKET}", server.options)
    run(store.put("large", data), suspends=True)
    with server.conditions(reset_rate=0.7), server.counted() as found:
        assert np.array_equal(run(store.get("large", 100, 5 << 20), suspends=True), data[100 : 5 << 20])
    ranges = [entry["range"] for entry in found["log"]]
    starts = [int(one.removeprefix("bytes=").split("-")[0]) for one in ranges]
    assert starts == sorted(starts)
    assert len(ranges) == 1 or starts[-1] > 100


def test_the_error_names_key_range_and_attempts(server: Server, uri: str) -> None:
    store = store_for(uri, quick(server, client_max_retries="2"))
    run(store.put("a", b"0123456789"), suspends=True)
    with (
        server.conditions(fail_rate=1),
        server.counted() as found,
        pytest.raises(StoreError, match=r"a: bytes 2\.\.5.*503.*3 attempts in"),
    ):
        run(store.get("a", 2, 5), suspends=True)
    assert found["requests"] == 3
    with server.counted() as found, pytest.raises(NotFoundError, match="there is no such object"):
        run(store.get("none", 2, 5), suspends=True)
    assert found["requests"] == 1
    with pytest.raises(StoreError, match=r"bytes 5\.\.20, got 5 of 15"):
        run(store.get("a", 5, 20), suspends=True)
    with pytest.raises(StoreError, match="ends before the range"):
        run(store.get("a", 15, 20), suspends=True)
    with pytest.raises(StoreError, match=r"bytes 0\.\.1000000, got 10"):
        run(store.get("a", 0, 1_000_000), suspends=True)


def test_a_get_that_is_never_answered_ends_at_the_deadline(server: Server, uri: str) -> None:
    store = store_for(uri, quick(server))
    run(store.put("a", b"0123456789"), suspends=True)
    started = time.monotonic()
    with server.conditions(latency_ms=60_000), pytest.raises(StoreError, match=r"bytes 0\.\.5: no answer"):
        run(store.get("a", 0, 5), suspends=True)
    assert 1.5 < time.monotonic() - started < 10


def test_a_server_that_is_not_there(uri: str) -> None:
    options = {"aws_endpoint": "http://127.0.0.1:1", "allow_http": "true", "aws_skip_signature": "true",
               "aws_region": "us-east-1", "client_max_retries": "1"}  # fmt: skip
    with pytest.raises(StoreError, match="2 attempts"):
        pilum.dataset(uri, storage_options=options)


def test_the_answer_to_a_commit_is_lost(uri: str) -> None:
    lost: list[str] = []

    async def spoil(request: Any, handler: Handler) -> Any:
        answer = await handler(request)
        if request.method == "PUT" and request.path.endswith(".manifest") and request.path not in lost:
            lost.append(request.path)
            request.transport.abort()
        return answer

    with spoiled(spoil) as server:
        ds = pilum.write_dataset(table(10), uri, storage_options=server.options)
        ds.insert(table(10, 1))
        ds = pilum.write_dataset(table(10, 2), uri, mode="append", storage_options=server.options)
        assert len(lost) == 3
        assert ds.version == 3
        assert pilum.dataset(uri, storage_options=server.options).to_table().num_rows == 30


@pytest.mark.parametrize("lie", ["ignores", "refuses"])
def test_a_store_without_conditional_puts(uri: str, lie: str) -> None:
    async def spoil(request: Any, handler: Handler) -> Any:
        if request.headers.get("If-None-Match") == "*":
            if lie == "refuses":
                from aiohttp import web

                return web.Response(status=501, text="NotImplemented")
            headers = {k: v for k, v in request.headers.items() if k != "If-None-Match"}
            request = request.clone(headers=headers)
        return await handler(request)

    import threading
    from contextlib import contextmanager

    lock = threading.Lock()

    @contextmanager
    def commit_lock(version: int) -> Any:
        with lock:
            yield

    with spoiled(spoil) as server:
        options = quick(server)
        with pytest.raises(
            (OSError, NotImplementedError), match="commit_lock" if lie == "ignores" else "501"
        ):
            pilum.write_dataset(table(10), uri, storage_options=options)
        with pytest.raises(ValueError, match="no dataset"):
            pilum.dataset(uri, storage_options=options)
        if lie == "ignores":
            ds = pilum.write_dataset(table(10), uri, storage_options=options, commit_lock=commit_lock)
            ds.insert(table(10))
            assert pilum.dataset(uri, storage_options=options).version == 2


def test_credentials_expire_in_the_middle_of_a_scan(uri: str) -> None:
    """From time to time the key is replaced, without notice: who uses the old one is refused."""
    keys = ["key0"]
    served = 0

    async def spoil(request: Any, handler: Handler) -> Any:
        nonlocal served
        from aiohttp import web

        if f"Credential={keys[-1]}/" not in request.headers.get("Authorization", ""):
            body = (
                "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
            )
            return web.Response(status=400, text=body, content_type="application/xml")
        served += 1
        if served in (30, 120, 180):
            keys.append(f"key{len(keys)}")
        return await handler(request)

    asked = 0

    with spoiled(spoil) as server:

        def provider() -> dict[str, str]:
            nonlocal asked
            asked += 1
            own = {"aws_access_key_id": keys[-1], "aws_secret_access_key": "s", "aws_session_token": "t"}
            return {**server.options, **own, "expires_at_millis": str(int((time.time() + 3600) * 1000))}

        expected = table(1000)
        pilum.write_dataset(expected, uri, max_rows_per_file=10, storage_options=provider)
        ds = pilum.dataset(uri, storage_options=provider)
        assert ds.to_table().equals(expected)
        assert len(keys) == 4
        assert asked >= len(keys) - 1


def test_credentials_are_renewed_before_they_expire(server: Server, uri: str) -> None:
    asked = 0

    def provider() -> dict[str, str]:
        nonlocal asked
        asked += 1
        expires = str(int((time.time() + 0.3) * 1000))
        return {**server.options, "expires_at_millis": expires, "refresh_offset_millis": "100"}

    store = store_for(uri, provider)
    run(store.put("a", b"x"), suspends=True)
    for _ in range(4):
        run(store.get("a", 0, 1), suspends=True)
        time.sleep(0.3)
    assert 3 <= asked <= 8


def test_a_late_answer_is_asked_for_twice(uri: str) -> None:
    late = 0

    async def spoil(request: Any, handler: Handler) -> Any:
        nonlocal late
        if request.method == "GET" and late == 0:
            late += 1
            await asyncio.sleep(5)
        return await handler(request)

    with spoiled(spoil) as server:
        store = store_for(uri, {**server.options, "hedge_after": "100ms"})
        run(store.put("a", b"0123"), suspends=True)
        started = time.monotonic()
        assert bytes(run(store.get("a", 1, 3), suspends=True)) == b"12"
        assert time.monotonic() - started < 4


# -- uploads ---------------------------------------------------------------------------------------------


def test_uploads_in_parts(server: Server, uri: str) -> None:
    from pilum.io.upload import PART_SIZE

    data = np.random.default_rng(0).integers(0, 256, 2 * PART_SIZE + 12345, dtype=np.uint8)
    store = store_for(uri, server.options)

    async def write(give_up: bool) -> None:
        writer = await store.create("large")
        for at in range(0, len(data), 700_000):
            await writer.write([data[at : at + 700_000]])
        assert writer.position == len(data)
        await (writer.abort() if give_up else writer.finish())

    with server.counted() as found:
        run(write(give_up=True), suspends=True)
    assert found["by_kind"]["abort_upload"] == found["by_kind"]["create_upload"] == 1
    with pytest.raises(NotFoundError):
        run(store.head("large"), suspends=True)
    with server.counted() as found:
        run(write(give_up=False), suspends=True)
    assert found["by_kind"]["part"] >= 3
    assert found["by_kind"]["complete_upload"] == 1
    assert np.array_equal(run(store.get_all("large"), suspends=True), data)
    with server.conditions(fail_rate=0.1):
        run(write(give_up=False), suspends=True)
    assert np.array_equal(run(store.get_all("large"), suspends=True), data)


def test_an_upload_that_fails_for_good(server: Server, uri: str) -> None:
    from pilum.io.upload import PART_SIZE

    store = store_for(uri, quick(server, client_max_retries="1"))

    async def write() -> None:
        writer = await store.create("large")
        try:
            for _ in range(40):
                await writer.write([bytes(PART_SIZE // 8)])
            await writer.finish()
        finally:
            await writer.abort()

    with server.conditions(fail_rate=1), pytest.raises(StoreError, match="large"):
        run(write(), suspends=True)
    with pytest.raises(NotFoundError):
        run(store.head("large"), suspends=True)


# -- other processes -------------------------------------------------------------------------------------

WRITER = """
import sys, time, json
import pyarrow as pa
engine = __import__(sys.argv[1])
uri, number, options, appends = sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]), int(sys.argv[5])
outcomes = {}
print("ready", flush=True)
sys.stdin.readline()
for k in range(appends):
    row = 1000 * number + k
    rows = pa.table({"id": pa.array([row], pa.int64()), "text": [f"{number}/{k}"]})
    for attempt in range(50):
        try:
            engine.write_dataset(rows, uri, mode="append", storage_options=options)
            outcomes[row] = "committed"
            break
        except OSError as error:
            outcomes[row] = f"{type(error).__name__}: {error}"
            if "onflict" not in str(error) and "faster" not in str(error):
                break
            time.sleep(0.05)
print(json.dumps(outcomes))
"""


@pytest.mark.slow
@pytest.mark.interop
def test_writers_of_both_engines_at_once(server: Server, uri: str) -> None:
    """No commit is lost or doubled.  What the reference says has failed may have happened; what pilum does, may not
    fail here.
    """
    pytest.importorskip("lance")
    import json

    writers, appends = 8, 6
    pilum.write_dataset(table(1), uri, storage_options=server.options)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, engine, uri, str(number), json.dumps(server.options), str(appends)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number, engine in enumerate(["pilum", "lance"] * (writers // 2), 1)
    ]  # fmt: skip
    try:
        for one in running:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n", one.communicate()[1][-2000:]
        with server.conditions(fail_rate=0.05, reset_rate=0.02, latency_ms=2), server.counted() as found:
            for one in running:
                assert one.stdin is not None
                one.stdin.write("\n")
                one.stdin.flush()
            said = [one.communicate(timeout=200) for one in running]
    finally:
        for one in running:
            one.kill()
            one.wait()
    assert [one.returncode for one in running] == [0] * writers, "\n".join(
        errors[-2000:] for _, errors in said
    )
    assert found["failed"] > 0
    assert any(entry.get("status") == 412 for entry in found["log"]), "nobody was in anybody's way"
    outcomes: dict[int, str] = {}
    for number, (answer, _) in enumerate(said, 1):
        own = {int(row): outcome for row, outcome in json.loads(answer).items()}
        if number % 2:
            assert set(own.values()) == {"committed"}, own
        outcomes |= own
    assert len(outcomes) == writers * appends
    rows = pilum.dataset(uri, storage_options=server.options).to_table()["id"].to_pylist()
    assert len(set(rows)) == len(rows)
    assert set(rows) >= {0, *(row for row, outcome in outcomes.items() if outcome == "committed")}
    assert set(rows) <= {0, *outcomes}


def _read(uri: str, options: dict[str, str]) -> None:
    try:
        pilum.dataset(uri, storage_options=options).to_table()
    except StoreError as error:
        sys.exit(7 if "spawn" in str(error) else 1)


def test_a_fork_is_refused_and_does_not_hang(server: Server, uri: str) -> None:
    pilum.write_dataset(table(10), uri, storage_options=server.options)
    child = multiprocessing.get_context("fork").Process(target=_read, args=(uri, server.options))
    child.start()
    child.join(60)
    assert child.exitcode == 7


MEMORY = """
import sys, json, resource
import pilum
uri, options = sys.argv[1], json.loads(sys.argv[2])
ds = pilum.dataset(uri, storage_options=options)
next(iter(ds.to_batches(columns=["id"], limit=10)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(batch.num_rows for batch in ds.to_batches(batch_size=4096))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("each", [2_000, 60_000])
def test_memory_of_a_scan_is_bounded(server: Server, uri: str, each: int) -> None:
    import json
    import os

    rng = np.random.default_rng(0)
    count = 160_000  # 160 MB, ten times the buffer
    values = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(count * 125)), 125)
    data = pa.table({"id": np.arange(count), "vec": values})
    pilum.write_dataset(data, uri, max_rows_per_file=each, storage_options=server.options)
    del data, values
    environment = {**os.environ, "LANCE_DEFAULT_IO_BUFFER_SIZE": str(16 << 20)}
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, uri, json.dumps(server.options)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    rows, grown = map(int, found.stdout.split())
    assert rows == count
    assert grown * 1024 < 110e6


def test_addresses_that_wait() -> None:
    assert address_suspends("s3://bucket/x")
    assert not address_suspends("/tmp/x")
    assert not address_suspends("memory://x")
