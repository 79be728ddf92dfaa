"""Scans and takes of tables in formats 2.0 and 0.1: pilum against the reference, which wrote them.

200,000 rows of integers, floats, strings, dictionary-like strings, lists and vectors in four fragments, warm page
cache.  Both engines run in this process and take turns; figures are medians in milliseconds, ratios are
reference / pilum (above 1: pilum is faster).  Results are compared.

    python benchmarks/old_formats.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

ROWS = 200_000


def table() -> pa.Table:
    """The data."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 6, ROWS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.table(
        {
            "id": pa.array(np.arange(ROWS)),
            "small": pa.array(rng.integers(0, 100, ROWS).astype(np.int32)),
            "score": pa.array(rng.random(ROWS), mask=rng.random(ROWS) < 0.1),
            "name": pa.array([f"name of {i}" for i in range(ROWS)]),
            "city": pa.array([f"city {i}" for i in rng.integers(0, 50, ROWS)]),
            "tags": pa.ListArray.from_arrays(
                pa.array(offsets, pa.int32()), pa.array(rng.integers(0, 1000, int(offsets[-1])))
            ),
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(ROWS * 32, dtype=np.float32)), 32),
        }
    )


def measure(calls: dict[str, Callable[[], Any]], rounds: int) -> tuple[float, float]:
    """Median seconds of both engines, taking turns; their answers must agree."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-2, rounds):
        answers = {}
        for name in list(calls) if turn % 2 else list(calls)[::-1]:
            started = time.perf_counter()
            answers[name] = calls[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
        if turn == -2 and answers["pilum"].to_pydict() != answers["reference"].to_pydict():
            raise SystemExit("different answers")
    return statistics.median(seconds["pilum"]), statistics.median(seconds["reference"])


def main() -> None:
    """Write, measure, print one table."""
    import lance

    import pilum

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    data = table()
    picked = np.random.default_rng(1).integers(0, ROWS, 1000).tolist()
    print("| format | what | pilum | reference | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="pilum-bench-") as folder:
        for version in ("2.0", "legacy"):
            uri = str(Path(folder) / f"{version}.lance")
            lance.write_dataset(data, uri, data_storage_version=version, max_rows_per_file=50_000)
            ours, theirs = pilum.dataset(uri), lance.dataset(uri)
            cases: dict[str, Callable[[Any], Any]] = {"scan, all columns": lambda ds: ds.to_table()}
            for name in data.column_names:
                cases[f"scan, {name}"] = lambda ds, name=name: ds.to_table(columns=[name])
            for count in (1, 100, 1000):
                cases[f"take of {count}"] = lambda ds, count=count: ds.take(picked[:count])
            for what, call in cases.items():
                a, b = measure({"pilum": partial(call, ours), "reference": partial(call, theirs)}, rounds)
                print(f"| {version} | {what} | {a * 1e3:.2f} | {b * 1e3:.2f} | {b / a:.2f} |", flush=True)


if __name__ == "__main__":
    main()
