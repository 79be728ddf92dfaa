"""Reading what the system does not have in memory: pilum against the reference.

Before each measurement the system is told to drop the pages of the table (Linux).  A take of scattered rows is then a
hundred waits for the disk, or one, depending on whether they are asked for together.  Engines alternate, each in a
process of its own; figures are medians in milliseconds, ratios are reference / pilum (above 1: pilum is faster).

    python benchmarks/cold_disk.py [--rows 2000000] [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engines import Engine
from read_path import DIMENSION, MODULES, rows_table, vectors_table

VECTORS = 100_000
CASES: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "take 1": ("rows", lambda ds, turn: ds.take(positions(ds, turn, 1))),
    "take 100": ("rows", lambda ds, turn: ds.take(positions(ds, turn, 100))),
    "take 100 vectors": ("large", lambda ds, turn: ds.take(positions(ds, turn, 100), columns=["vec"])),
    "scan": ("rows", lambda ds, turn: ds.to_table()),
    "search, 500 rows a fragment": ("small", lambda ds, turn: search(ds)),
    "search, 50,000 rows a fragment": ("large", lambda ds, turn: search(ds)),
}


def positions(ds: Any, turn: int, count: int) -> list[int]:
    """Random rows."""
    chosen: list[int] = np.random.default_rng(turn).integers(0, ds.count_rows(), count).tolist()
    return chosen


def search(ds: Any) -> Any:
    """The ids of the nearest ten rows of a vector."""
    nearest = {"column": "vec", "q": np.ones(DIMENSION, np.float32), "k": 10}
    return ds.to_table(columns=["id", "_distance"], nearest=nearest).select(["id"])


def forget(folder: Path) -> None:
    """Have the system drop the pages of all files in a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def worker(engine: str, folder: Path) -> None:
    """Answer cases read from standard input: one JSON line in, one out."""
    if engine == "pilum":
        import pilum as module
    else:
        import lance as module  # type: ignore[no-redef]
    opened = {name: module.dataset(folder / name) for name, _ in CASES.values()}
    for line in sys.stdin:
        job = json.loads(line)
        name, run = CASES[job["case"]]
        forget(folder / name)
        started = time.perf_counter()
        result = run(opened[name], job["turn"])
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "result": repr(result.slice(0, 5).to_pydict())}), flush=True)


def main() -> None:
    """Write the tables, let the engines take turns, print a line for each case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", nargs=2)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker[0], Path(arguments.worker[1]))
        return
    import lance

    with tempfile.TemporaryDirectory(prefix="pilum-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        lance.write_dataset(rows_table(0, arguments.rows), folder / "rows")
        lance.write_dataset(vectors_table(VECTORS), folder / "small", max_rows_per_file=500)
        lance.write_dataset(vectors_table(VECTORS), folder / "large", max_rows_per_file=50_000)
        engines = {one: Engine(__file__, "--worker", one, name) for one in MODULES}
        print("| case | pilum ms | reference ms | ratio |\n|---|---|---|---|")
        for case in CASES:
            found: dict[str, list[float]] = {one: [] for one in engines}
            for turn in range(-2, arguments.rounds):
                order = list(engines) if turn % 2 else list(engines)[::-1]
                answers = {one: engines[one].ask({"case": case, "turn": turn + 2}) for one in order}
                if answers["pilum"]["result"] != answers["reference"]["result"]:
                    raise SystemExit(f"{case}: different results: {answers}")
                if turn >= 0:
                    for one, answer in answers.items():
                        found[one].append(answer["seconds"] * 1e3)
            ours, theirs = (statistics.median(found[one]) for one in ("pilum", "reference"))
            print(f"| {case} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
