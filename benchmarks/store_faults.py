"""Reading from an object store that fails now and then, beside reading from the same store when it is well.

The imitated store of `object_store` answers 5 % of the requests with "slow down" and breaks off 2 % of the bodies.  Runs
with and without that take turns; each opens the table anew.  Results must be equal; a ratio is with / without.

    python benchmarks/store_faults.py [--latency 30] [--repeat 7] [--only scan] [--engine lance]
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from object_store import BUCKET, DIMENSION, Server, make_tables


def cases(engine: Any, options: dict[str, str]) -> dict[str, Callable[[], pa.Table]]:
    query = np.random.default_rng(5).standard_normal(DIMENSION).astype(np.float32)
    rows = np.sort(np.random.default_rng(6).choice(400_000, 300, replace=False)).tolist()

    def opened(name: str) -> Any:
        return engine.dataset(f"s3://{BUCKET}/{name}", storage_options=options)

    found: dict[str, Callable[[], pa.Table]] = {}
    for name in ("small", "large"):
        nearest = {"column": "vec", "q": query, "k": 10}
        found[f"scan {name}"] = lambda name=name: opened(name).to_table(columns=["id", "category"])
        found[f"scan {name}, vectors"] = lambda name=name: opened(name).to_table()
        found[f"take {name}"] = lambda name=name: opened(name).take(rows)
        found[f"search {name}"] = lambda name=name, nearest=nearest: opened(name).to_table(nearest=nearest)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency", type=float, default=30, help="milliseconds before every answer")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--engine", default="pilum", choices=["pilum", "lance"])
    parser.add_argument("--fail-rate", type=float, default=0.05, help="share of requests answered 503")
    parser.add_argument("--reset-rate", type=float, default=0.02, help="share of bodies that break off")
    arguments = parser.parse_args()
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            make_tables(Path(folder))
            server.post(f"load?bucket={BUCKET}&path={folder}")
        print(f"{'':24}{'without':>9}{'with':>9}{'ratio':>7}{'failed':>9}")
        for name, run in cases(importlib.import_module(arguments.engine), server.options).items():
            if arguments.only in name:
                measure(server, name, run, arguments)
    finally:
        server.stop()


def measure(server: Server, name: str, run: Callable[[], pa.Table], arguments: argparse.Namespace) -> None:
    faults = ((0.0, 0.0), (arguments.fail_rate, arguments.reset_rate))
    seconds: tuple[list[float], list[float]] = ([], [])
    expected = None
    failed = requests = 0
    for turn in range(arguments.repeat + 1):
        for times, (fail, reset) in zip(seconds, faults, strict=True):
            server.post(f"config?latency_ms={arguments.latency}&fail_rate={fail}&reset_rate={reset}")
            server.post("reset")
            started = time.perf_counter()
            result = run()
            took = time.perf_counter() - started
            # The last bits of distances depend on whether the kernel is compiled yet.
            result = result.select([column for column in result.column_names if column != "_distance"])
            if expected is None:
                expected = result
            if not result.equals(expected):
                raise AssertionError(f"{name}: other rows")
            if turn:  # the first imports and compiles
                times.append(took)
            if fail or reset:
                found = server.stats()
                failed, requests = failed + found["failed"], requests + found["requests"]
    without, faulty = map(statistics.median, seconds)
    print(f"{name:24}{without:9.3f}{faulty:9.3f}{faulty / without:7.2f}{failed / requests:9.1%}", flush=True)


if __name__ == "__main__":
    main()
