"""Brute-force search over many small fragments: pilum against the reference.

400,000 rows of 128 float32, cut into fragments of 500, 2,000, 8,000 and 50,000 rows; ``nearest`` with k=10,
warm (the dataset stays open) and cold (opened anew for each query).  Each engine runs in a process of its
own; the two take turns, query by query, and must return the same ids.  Figures are medians, ratios are
reference / pilum (above 1: pilum is faster).

    python benchmarks/many_fragments.py [--rounds 15] [--sizes 500,2000,8000,50000]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from engines import Engine

ROWS, DIMENSION, K = 400_000, 128, 10


def write(folder: Path, sizes: list[int]) -> None:
    """Write one dataset a fragment size."""
    import pyarrow as pa

    import pilum

    vectors = np.random.default_rng(0).standard_normal((ROWS, DIMENSION), dtype=np.float32)
    table = pa.table(
        {
            "id": pa.array(np.arange(ROWS)),
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSION),
        }
    )
    for size in sizes:
        pilum.write_dataset(table, folder / f"rows_{size}.lance", max_rows_per_file=size)


def worker(engine: str) -> None:
    """Answer queries read from standard input: one JSON line in, one out."""
    if engine == "pilum":
        import pilum as module
    else:
        import lance as module  # type: ignore[no-redef]
    opened: dict[str, Any] = {}
    for line in sys.stdin:
        job = json.loads(line)
        query = np.random.default_rng(job["seed"]).standard_normal(DIMENSION).astype(np.float32)
        nearest: dict[str, Any] = {"column": "vec", "q": query, "k": K}
        if engine == "reference":
            nearest["use_index"] = False
        started = time.perf_counter()
        if job["cold"] or job["uri"] not in opened:
            opened[job["uri"]] = module.dataset(job["uri"])
        result = opened[job["uri"]].to_table(columns=["id", "_distance"], nearest=nearest)
        elapsed = time.perf_counter() - started
        print(json.dumps({"seconds": elapsed, "ids": result["id"].to_pylist()}), flush=True)


def measure(uri: str, cold: bool, rounds: int) -> tuple[float, float]:
    """Median seconds of pilum and of the reference, taking turns."""
    engines = {name: Engine(__file__, "--worker", name) for name in ("pilum", "reference")}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    try:
        for turn in range(-3, rounds):
            order = list(engines) if turn % 2 else list(engines)[::-1]
            answers = {
                name: engines[name].ask({"uri": uri, "cold": cold, "seed": turn + 100}) for name in order
            }
            if answers["pilum"]["ids"] != answers["reference"]["ids"]:
                raise SystemExit(f"different ids: {answers}")
            if turn >= 0:
                for name, answer in answers.items():
                    seconds[name].append(answer["seconds"])
    finally:
        for engine in engines.values():
            engine.close()
    return statistics.median(seconds["pilum"]), statistics.median(seconds["reference"])


def main() -> None:
    """Write the data, measure, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", default="500,2000,8000,50000")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return
    sizes = [int(size) for size in arguments.sizes.split(",")]
    print(f"{ROWS:,} rows x {DIMENSION} float32, nearest k={K}, median of {arguments.rounds}, milliseconds")
    print("| rows per fragment | fragments | mode | pilum | reference | ratio |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="pilum-bench-") as temporary:
        folder = Path(temporary)
        write(folder, sizes)
        for size in sizes:
            for cold in (False, True):
                ours, theirs = measure(str(folder / f"rows_{size}.lance"), cold, arguments.rounds)
                mode = "cold" if cold else "warm"
                print(
                    f"| {size:,} | {-(-ROWS // size):,} | {mode} | {ours * 1e3:.1f} | {theirs * 1e3:.1f} "
                    f"| {theirs / ours:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
