"""Reading and writing on an object store, beside the reference: requests, bytes, round trips, seconds.

A server on this machine imitates a distant store (``slow_s3.py`` of the shared folder: a latency before every
answer).  Each engine runs in a process of its own; the two take turns, case by case, on the same server, so that
whatever else the machine does meets both.  Rounds are the longest chain of requests that did not overlap.  Figures
are medians; a ratio is pilum / reference, below 1 pilum is better.

    python benchmarks/object_store.py [--latency 30] [--repeat 5] [--only scan]
    python benchmarks/object_store.py --latency 0,10,30,100
    python benchmarks/object_store.py --mbps 50 --bare --only everything

``--bare`` sends the requests of each of pilum's runs once more, as many at a time, from a client that drops the bytes:
how near a scan is to what the connections can deliver.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from engines import Engine

SHARED = Path(os.environ.get("PILUM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
DIMENSION = 128
BUCKET = "bench"
LARGE_READ = 1 << 20


class Server:
    """The imitated store, in a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        script = str(SHARED / "tools" / "slow_s3.py")
        self._process = subprocess.Popen([sys.executable, script, "--port", str(port), "--bucket", BUCKET])
        for _ in range(300):
            try:
                self.stats()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{script} does not answer")

    def post(self, what: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/_{what}", method="POST")).read()

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(urllib.request.urlopen(f"{self.url}/_stats").read())
        return found

    def log(self) -> list[dict[str, Any]]:
        """Every request since the last reset."""
        return [json.loads(line) for line in urllib.request.urlopen(f"{self.url}/_log").read().splitlines()]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def options(self) -> dict[str, str]:
        return {
            "aws_endpoint": self.url,
            "aws_region": "us-east-1",
            "allow_http": "true",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "aws_virtual_hosted_style_request": "false",
        }


# -- the tables ------------------------------------------------------------------------------------------


def vectors(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    values = pa.array(rng.standard_normal(rows * DIMENSION, dtype=np.float32))
    return pa.table(
        {
            "id": np.arange(rows) + seed * rows,
            "category": rng.integers(0, 1000, rows),
            "vec": pa.FixedSizeListArray.from_arrays(values, DIMENSION),
        }
    )


def make_tables(folder: Path) -> None:
    """Written by the reference, so that both engines read the same bytes."""
    import lance

    small = pa.concat_tables([vectors(500, seed) for seed in range(800)])
    lance.write_dataset(small, str(folder / "small"), max_rows_per_file=500, data_storage_version="2.2")
    large = pa.concat_tables([vectors(50_000, seed) for seed in range(8)])
    lance.write_dataset(large, str(folder / "large"), max_rows_per_file=50_000, data_storage_version="2.2")
    for version in range(100):
        mode = "append" if version else "create"
        lance.write_dataset(
            vectors(10, version), str(folder / "versions"), mode=mode, data_storage_version="2.2"
        )
    for engine in ("pilum", "lance"):
        lance.write_dataset(vectors(10, 0), str(folder / f"grow-{engine}"), data_storage_version="2.2")


# -- the cases -------------------------------------------------------------------------------------------
# Each gets the engine (a module), its options and a dictionary that lives as long as the process; what it does
# before `yield` is not measured; what it yields is compared between the engines.

QUERY = np.random.default_rng(5).standard_normal(DIMENSION, dtype=np.float32)
SMALL, LARGE, VERSIONS = (f"s3://{BUCKET}/{name}" for name in ("small", "large", "versions"))


def opened(engine: Any, options: Any, uri: str) -> Any:
    return engine.dataset(uri, storage_options=options)


def case_open(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    yield None
    yield opened(engine, options, SMALL).version


def nearest(ds: Any) -> Any:
    query = {"column": "vec", "q": QUERY, "k": 10}
    return sorted(ds.to_table(columns=["id"], nearest=query)["id"].to_pylist())


def case_nearest_cold(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, SMALL)
    yield None
    yield nearest(ds)


def case_nearest_warm(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    if "nearest" not in kept:
        kept["nearest"] = opened(engine, options, SMALL)
        nearest(kept["nearest"])
    yield None
    yield nearest(kept["nearest"])


def case_scan_small(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, SMALL)
    yield None
    yield int(np.sum(ds.to_table(columns=["id"])["id"].to_numpy()))


def case_scan_large(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, LARGE)
    yield None
    yield int(np.sum(ds.to_table(columns=["id"])["id"].to_numpy()))


def case_filter_small(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, SMALL)
    yield None
    yield sorted(ds.to_table(columns=["id"], filter="category = 7")["id"].to_pylist())


def case_filter_large(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, LARGE)
    yield None
    yield sorted(ds.to_table(columns=["id"], filter="category = 7")["id"].to_pylist())


def case_scan_all(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, LARGE)
    yield None
    yield sum(batch.num_rows for batch in ds.to_batches())


def second_epoch(engine: Any, options: Any, kept: dict[str, Any], uri: str) -> Any:
    """A handle that knows nothing of a table whose files are on disk; the reference has no such cache."""
    if "cache" not in kept:
        kept["cache"] = tempfile.TemporaryDirectory()
    with_cache = {**options, "cache_dir": kept["cache"].name}
    if uri not in kept:
        kept[uri] = True
        engine.dataset(uri, storage_options=with_cache).to_table()
    return engine.dataset(uri, storage_options=with_cache)


def case_nearest_epoch(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = second_epoch(engine, options, kept, SMALL)
    yield None
    yield nearest(ds)


def case_scan_epoch(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = second_epoch(engine, options, kept, LARGE)
    yield None
    yield sum(batch.num_rows for batch in ds.to_batches())


def case_take_epoch(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = second_epoch(engine, options, kept, LARGE)
    yield None
    yield ds.take(ROWS, columns=["id", "vec"])["id"].to_pylist()


def case_versions(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, VERSIONS)
    yield None
    yield [version["version"] for version in ds.versions()]


ROWS = sorted(np.random.default_rng(3).choice(400_000, 100, replace=False).tolist())


def case_take_cold(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, LARGE)
    yield None
    yield ds.take(ROWS, columns=["id"])["id"].to_pylist()


def case_take_warm(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    if "take" not in kept:
        kept["take"] = opened(engine, options, LARGE)
        kept["take"].take(ROWS, columns=["id", "vec"])
    yield None
    yield kept["take"].take(ROWS, columns=["id", "vec"])["id"].to_pylist()


def case_take_small(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    ds = opened(engine, options, SMALL)
    yield None
    yield ds.take(ROWS, columns=["id"])["id"].to_pylist()


def case_append(engine: Any, options: Any, kept: dict[str, Any]) -> Iterator[Any]:
    rows = vectors(10, 0)
    yield None
    engine.write_dataset(
        rows, f"s3://{BUCKET}/grow-{engine.__name__}", mode="append", storage_options=options
    )
    yield None


CASES = {
    "open": case_open,
    "nearest, 800 small fragments, cold": case_nearest_cold,
    "nearest, 800 small fragments, warm": case_nearest_warm,
    "scan of one column, 800 small fragments": case_scan_small,
    "scan of one column, 8 large fragments": case_scan_large,
    "filter, 800 small fragments": case_filter_small,
    "filter, 8 large fragments": case_filter_large,
    "scan of everything, 8 large fragments": case_scan_all,
    "nearest, 800 small fragments, second epoch": case_nearest_epoch,
    "scan of everything, 8 large, second epoch": case_scan_epoch,
    "take of 100 rows, 8 large, second epoch": case_take_epoch,
    "versions() of 100 versions": case_versions,
    "take of 100 rows, 8 large fragments, cold": case_take_cold,
    "take of 100 rows, 8 large fragments, warm": case_take_warm,
    "take of 100 rows, 800 small fragments, cold": case_take_small,
    "append of one small batch": case_append,
}


# -- engines in processes --------------------------------------------------------------------------------


def serve(name: str) -> None:
    """The process of an engine: runs cases that it is told on its standard input."""
    engine = __import__(name)
    options = json.loads(sys.argv[sys.argv.index("--options") + 1])
    server = options["aws_endpoint"]
    kept: dict[str, Any] = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        steps = CASES[json.loads(line)](engine, options, kept)
        next(steps)
        urllib.request.urlopen(urllib.request.Request(f"{server}/_reset", method="POST")).read()
        started, busy = time.perf_counter(), time.process_time()
        result = next(steps)
        measured = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - busy}
        found = json.loads(urllib.request.urlopen(f"{server}/_stats").read())
        measured.update(
            requests=found["requests"], bytes=found["bytes_out"], rounds=found["rounds"], result=result
        )
        print(json.dumps(measured), flush=True)


@contextmanager
def running() -> Iterator[tuple[Server, Engine, Engine]]:
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            make_tables(Path(folder))
            server.post(f"load?bucket={BUCKET}&path={folder}")
        options = json.dumps(server.options)
        engines = [Engine(__file__, "--serve", name, "--options", options) for name in ("pilum", "lance")]
        try:
            for engine in engines:
                engine.answer()  # it is ready
            yield server, engines[0], engines[1]
        finally:
            for engine in engines:
                engine.close()
    finally:
        server.stop()


COLUMNS = {"requests": "{:.0f}", "rounds": "{:.0f}", "bytes": "{:.1f}", "seconds": "{:.3f}", "cpu": "{:.3f}"}


def measure(case: str, ours: Engine, theirs: Engine, repeat: int) -> None:
    runs: dict[str, list[dict[str, Any]]] = {"pilum": [], "lance": []}
    for turn in range(repeat + 1):
        order = [("pilum", ours), ("lance", theirs)]
        for name, engine in order if turn % 2 else order[::-1]:
            found = engine.ask(case)
            if turn or repeat == 1:  # the first turn imports and compiles
                runs[name].append(found)
    results = [run["result"] for name in runs for run in runs[name]]
    if any(result != results[0] for result in results):
        raise AssertionError(f"{case}: the engines disagree")

    def median(name: str, what: str) -> float:
        return statistics.median(run[what] for run in runs[name])

    columns = []
    for what, form in COLUMNS.items():
        scale = 1e-6 if what == "bytes" else 1.0
        a, b = median("pilum", what) * scale, median("lance", what) * scale
        ratio = f"{a / b:.2f}" if b else "-"
        columns.append(f"{form.format(a):>7} {form.format(b):>7} {ratio:>5}")
    print(f"{case:44}" + " |".join(columns), flush=True)


def measure_bare(case: str, server: Server, ours: Engine, repeat: int) -> None:
    """Seconds of pilum, and of a client that sends the same requests and drops the answers."""
    from obstore.store import S3Store

    store = S3Store(BUCKET, config=cast("Any", server.options), client_options={"allow_http": True})
    seconds: dict[str, list[float]] = {"pilum": [], "bare": []}
    ours.ask(case)
    most = 0
    for _ in range(repeat):
        seconds["pilum"].append(ours.ask(case)["seconds"])
        wanted = [entry for entry in server.log() if entry["kind"] == "get" and entry["range"]]
        jobs = []
        edges = []
        for entry in sorted(wanted, key=lambda entry: entry["t0"]):
            first, last = map(int, entry["range"].removeprefix("bytes=").split("-"))
            jobs.append((entry["key"], first, last + 1))
            if last - first >= LARGE_READ:
                edges += [(entry["t0"], 1), (entry["t1"], -1)]
        # Connections that carry data; what reads metadata is over in a moment.
        most = max(itertools.accumulate([step for _, step in sorted(edges)]), default=1)
        started = time.perf_counter()
        asyncio.run(_fetch(store, jobs, most))
        seconds["bare"].append(time.perf_counter() - started)
    own, bare = (statistics.median(values) for values in seconds.values())
    print(
        f"{case:44}pilum {own:.3f} s, bare client {bare:.3f} s with {most} requests at a time: {own / bare:.2f}"
    )


async def _fetch(store: Any, jobs: list[tuple[str, int, int]], most: int) -> None:
    import obstore

    gate = asyncio.Semaphore(most)

    async def one(key: str, start: int, end: int) -> None:
        async with gate:
            await obstore.get_range_async(store, key, start=start, end=end)

    await asyncio.gather(*[one(*job) for job in jobs])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--latency", default="30", help="milliseconds before every answer, separated by commas"
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--mbps", type=float, default=0, help="megabytes per second of each connection; 0: no limit"
    )
    parser.add_argument("--fail-rate", type=float, default=0, help="share of requests answered 503")
    parser.add_argument(
        "--reset-rate", type=float, default=0, help="share of answers that break off half-way"
    )
    parser.add_argument("--bare", action="store_true", help="beside a client that drops what it reads")
    arguments = parser.parse_args()
    with running() as (server, ours, theirs):
        for latency in arguments.latency.split(","):
            server.post(
                f"config?latency_ms={latency}&mbps={arguments.mbps}&fail_rate={arguments.fail_rate}"
                f"&reset_rate={arguments.reset_rate}"
            )
            if arguments.bare:
                print(f"\n{latency} ms, {arguments.mbps:g} MB/s a connection")
                for case in CASES:
                    if arguments.only in case:
                        measure_bare(case, server, ours, arguments.repeat)
                continue
            heads = " |".join(
                f"{what:>13}{'':>8}" for what in ("requests", "rounds", "MB", "seconds", "CPU seconds")
            )
            print(f"\n{latency + ' ms':44}{heads}\n{'':44}" + " |".join(["  pilum    ref ratio"] * 5))
            for case in CASES:
                if arguments.only in case:
                    measure(case, ours, theirs, arguments.repeat)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(sys.argv[sys.argv.index("--serve") + 1])
    else:
        main()
