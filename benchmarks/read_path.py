"""The read path: pilum against the reference, case by case.

A table of ids, floats, small integers, dictionary-like strings, unique strings, lists and nullable integers (5 M rows),
one of vectors in fragments of several sizes, and many fragments of few rows; local disk, warm page cache.  Each
engine runs in a process of its own; the two take turns, case by case, and must return the same.  Figures are
medians, ratios are reference / pilum (above 1: pilum is faster, or needs less memory).  Memory is the peak of the whole
process, which is what a machine must have; "growth" is that without what the import and the first row took.

    python benchmarks/read_path.py [--rows 5000000] [--rounds 7] [--cases scan,filter] [--cpu] [--linear 1000,10000]

``--cpu`` compares processor time instead of wall time: for machines that others use too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from engines import Engine

DIMENSION = 128
VECTORS = 400_000
COLUMNS = ["id", "f", "small", "cat", "name", "list", "nullable"]


# -- data ----------------------------------------------------------------------------------------------------


def rows_table(start: int, rows: int) -> Any:
    """Rows ``[start, start + rows)`` of the table that is scanned."""
    import pyarrow as pa

    random = np.random.default_rng(start)
    ids = np.arange(start, start + rows)
    lengths = random.integers(0, 5, rows)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    names = pa.array([f"user-{value:012x}" for value in random.integers(0, 1 << 48, rows).tolist()])
    return pa.table(
        {
            "id": pa.array(ids),
            "f": pa.array(random.standard_normal(rows)),
            "small": pa.array(random.integers(0, 100, rows).astype(np.int32)),
            "cat": pa.array([f"category-{value:02}" for value in random.integers(0, 40, rows).tolist()]),
            "name": names,
            "list": pa.ListArray.from_arrays(offsets, pa.array(random.integers(0, 1000, int(offsets[-1])))),
            "nullable": pa.array(random.integers(0, 1 << 40, rows), mask=random.random(rows) < 0.2),
        }
    )


def vectors_table(rows: int) -> Any:
    """Ids and vectors."""
    import pyarrow as pa

    values = np.random.default_rng(0).standard_normal((rows, DIMENSION), dtype=np.float32)
    return pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), DIMENSION),
        }
    )


def write_all(folder: Path, rows: int, cases: list[str]) -> None:
    """Write what the chosen cases read, with the reference: both engines read the very same files."""
    import lance

    if any(
        case.split(" ")[0] in ("scan", "filter", "count", "take", "batches", "fresh", "memory")
        for case in cases
    ):
        for start in range(0, rows, 1_000_000):
            part = rows_table(start, min(1_000_000, rows - start))
            lance.write_dataset(part, folder / "rows.lance", mode="append" if start else "create")
    if any(case.startswith("memory of fragments") for case in cases):
        lance.write_dataset(rows_table(0, 500_000), folder / "pieces.lance", max_rows_per_file=250)
    if any(case.startswith(("nearest", "take 100 vectors")) for case in cases):
        table = vectors_table(VECTORS)
        for size in (500, 2000, 8000, 50_000):
            lance.write_dataset(table, folder / f"vectors_{size}.lance", max_rows_per_file=size)


# -- cases ---------------------------------------------------------------------------------------------------


class Case:
    """One measured call.

    Args:
        goal: the ratio to reach.
        run: called with the dataset, the module and what is given; returns what must be equal.
        data: the table, by the name of its folder.
        given: what the call is given, made of the dataset and the number of the turn; not timed.
        often: a call takes less than a millisecond: five times as many turns are needed for a median that stays.
    """

    def __init__(
        self,
        goal: float,
        run: Callable[[Any, Any, Any], Any],
        data: str = "rows",
        given: Callable[[Any, int], Any] = lambda ds, turn: turn,
        *,
        often: bool = False,
    ) -> None:
        self.goal, self.run, self.data, self.given, self.often = goal, run, data, given, often


def _digest(table: Any) -> list[Any]:
    """Enough to see whether two results are the same, cheap beside the query."""
    rows = table.num_rows
    first = table.slice(0, 3).to_pylist() + table.slice(max(0, rows - 3)).to_pylist()
    return [rows, repr(first), [str(kind) for kind in table.schema.types]]


def _scan(columns: list[str] | None) -> Callable[[Any, Any, int], Any]:
    return lambda ds, _, turn: ds.to_table(columns=columns)


def _filter(text: str, columns: list[str] | None) -> Callable[[Any, Any, int], Any]:
    return lambda ds, _, turn: ds.to_table(filter=text, columns=columns)


def _take(columns: list[str] | None) -> Callable[[Any, Any, list[int]], Any]:
    return lambda ds, _, rows: ds.take(rows, columns=columns)


def _positions(count: int) -> Callable[[Any, int], list[int]]:
    def given(ds: Any, turn: int) -> list[int]:
        return np.random.default_rng(turn + 10).integers(0, ds.count_rows(), count).tolist()

    return given


def _query(ds: Any, turn: int) -> Any:
    return np.random.default_rng(turn + 100).standard_normal(DIMENSION).astype(np.float32)


def _nearest(ds: Any, module: Any, query: Any) -> Any:
    nearest: dict[str, Any] = {"column": "vec", "q": query, "k": 10}
    return ds.to_table(columns=["id", "_distance"], nearest=nearest).column("id").to_pylist()


def _opened(run: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    return lambda ds, module, given: run(module.dataset(ds.uri), module, given)


def _batches(ds: Any, module: Any, turn: int) -> Any:
    rows = batches = 0
    for batch in ds.to_batches(batch_size=8192):
        rows += batch.num_rows
        batches += 1
    return [rows, batches]


def _write(ds: Any, module: Any, turn: int) -> Any:
    with tempfile.TemporaryDirectory(prefix="pilum-bench-") as folder:
        return module.write_dataset(ds, Path(folder) / "w.lance").count_rows()


CASES: dict[str, Case] = {
    **{
        f"nearest, {size:,} rows a fragment{', cold' if cold else ''}": Case(
            4.0 if size == 500 else 2.5, _opened(_nearest) if cold else _nearest, f"vectors_{size}", _query
        )
        for size in (500, 2000, 8000, 50_000)
        for cold in (False, True)
    },
    "scan all columns": Case(1.0, _scan(None)),
    **{f"scan {name}": Case(1.0, _scan([name])) for name in COLUMNS},
    "filter small = 7": Case(1.0, _filter("small = 7", ["id", "f"])),
    "filter id = n": Case(1.0, _filter("id = 777777", None)),
    "filter range of two": Case(1.0, _filter("f > 1.5 and id < 700000", ["id", "name"])),
    "filter LIKE prefix": Case(1.0, _filter("name like 'user-00f%'", ["id", "name"])),
    "take 1": Case(3.0, _take(None), given=_positions(1), often=True),
    "take 100": Case(2.0, _take(None), given=_positions(100)),
    "take 1000": Case(2.0, _take(None), given=_positions(1000)),
    "take 100 vectors": Case(2.0, _take(["vec"]), "vectors_50000", _positions(100), often=True),
    "batches of 8192": Case(1.2, _batches),
    "count filtered": Case(1.5, lambda ds, _, turn: ds.count_rows("small < 10")),
    "write 1 M rows": Case(1.0, _write, "table"),
}
FRESH = "fresh process"
MEMORY = {
    "memory of a streaming scan": ("stream", 1),
    "memory of a streaming scan, growth": ("stream", 2),
    "memory of fragments half read": ("pieces", 1),
    "memory of fragments half read, growth": ("pieces", 2),
}  # which script, and which of the numbers that it prints
# What a process needs counts, and that is the whole of it; its growth is told beside it.
GOALS = {FRESH: 1.0, **{name: 0.0 if name.endswith("growth") else 1 / 0.7 for name in MEMORY}}


# -- engines -------------------------------------------------------------------------------------------------


def _module(engine: str) -> Any:
    if engine == "pilum":
        import pilum

        return pilum
    import lance

    return lance


def worker(engine: str, folder: Path, cpu: bool) -> None:
    """Answer cases read from standard input: one JSON line in, one out."""
    module = _module(engine)
    clock = time.process_time if cpu else time.perf_counter
    opened: dict[str, Any] = {}
    for line in sys.stdin:
        job = json.loads(line)
        case = CASES[job["case"]]
        if case.data not in opened:
            opened.clear()
            opened[case.data] = (
                rows_table(0, 1_000_000)
                if case.data == "table"
                else module.dataset(folder / f"{case.data}.lance")
            )
        given = case.given(opened[case.data], job["turn"])
        started = clock()
        result = case.run(opened[case.data], module, given)
        elapsed = clock() - started
        if hasattr(result, "schema"):
            result = _digest(result)
        print(json.dumps({"seconds": elapsed, "result": result}), flush=True)


_FRESH = """
import {module} as module
print(module.dataset({uri!r}).head(10).column("id").to_pylist())
"""
_PEAK = """
import re, {module} as module

def mib(name):
    return int(re.search(name + r":\\s*(\\d+)", open("/proc/self/status").read())[1]) >> 10

ds = module.dataset({uri!r})
ds.head(1)
base = mib("VmRSS")
"""
_STREAM = (
    _PEAK
    + """
rows = 0
for batch in ds.to_batches():
    rows += batch.num_rows
print(rows, mib("VmHWM"), mib("VmHWM") - base)
"""
)
_PIECES = (
    _PEAK
    + """
kept, rows = [], 0
for fragment in ds.get_fragments():
    batches = iter(fragment.to_batches(batch_size=100))
    rows += next(batches).num_rows
    kept.append(batches)
print(rows, mib("VmHWM"), mib("VmHWM") - base)
"""
)
MODULES = {"pilum": "pilum", "reference": "lance"}


def script(engine: str, text: str, uri: str) -> tuple[float, str]:
    """Run a program in a fresh process: seconds, and what it printed."""
    code = text.format(module=MODULES[engine], uri=uri)
    started = time.perf_counter()
    # As installed packages are: compiled once, not in every process.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return time.perf_counter() - started, done.stdout.strip()


def measure(engines: dict[str, Engine], case: str, rounds: int) -> dict[str, float]:
    """Median seconds of each engine, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(-2, 5 * rounds if CASES[case].often else rounds):
        order = list(engines) if turn % 2 else list(engines)[::-1]
        answers = {name: engines[name].ask({"case": case, "turn": turn}) for name in order}
        if answers["pilum"]["result"] != answers["reference"]["result"]:
            raise SystemExit(f"{case}: different results: {answers}")
        if turn >= 0:
            for name, answer in answers.items():
                seconds[name].append(answer["seconds"])
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure_scripts(text: str, uri: str, rounds: int, number: int = 0) -> dict[str, float]:
    """Median seconds of fresh processes of each engine, or one of the numbers that they print, taking turns."""
    found: dict[str, list[float]] = {name: [] for name in MODULES}
    for turn in range(rounds):
        answers = {name: script(name, text, uri) for name in (MODULES if turn % 2 else [*MODULES][::-1])}
        results = {
            name: printed.split(" ")[0] if number else printed for name, (_, printed) in answers.items()
        }
        if results["pilum"] != results["reference"]:
            raise SystemExit(f"different results: {answers}")
        for name, (seconds, printed) in answers.items():
            found[name].append(float(printed.split(" ")[number]) if number else seconds)
    return {name: statistics.median(values) for name, values in found.items()}


# -- linear cost ---------------------------------------------------------------------------------------------


def linear(sizes: list[int]) -> None:
    """A scan of so many fragments of four rows: microseconds of processor time each."""
    import pyarrow as pa

    import pilum

    print("\nscan of one column of many fragments of 4 rows, processor time of the process")
    print("| fragments | open ms | cold ms | µs per fragment | warm ms | µs per fragment |")
    print("|---|---|---|---|---|---|")
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="pilum-bench-") as folder:
            uri = Path(folder) / "t.lance"
            table = pa.table({"id": np.arange(4 * size), "x": np.arange(4 * size) * 0.5})
            pilum.write_dataset(table, uri, max_rows_per_file=4)
            started = time.process_time()
            ds = pilum.dataset(uri)
            opened = time.process_time() - started
            spent = []
            for _ in range(4):
                started = time.process_time()
                rows = ds.to_table(columns=["id"]).num_rows
                spent.append(time.process_time() - started)
                if rows != 4 * size:
                    raise SystemExit(f"{rows} rows of {4 * size}")
            cold, warm = spent[0], statistics.median(spent[1:])
            print(
                f"| {size:,} | {opened * 1e3:.1f} | {cold * 1e3:.1f} | {cold / size * 1e6:.1f} "
                f"| {warm * 1e3:.1f} | {warm / size * 1e6:.1f} |",
                flush=True,
            )


def main() -> None:
    """Write the data, measure, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", default="", help="only cases that begin with one of these")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--linear", default="1000,10000,100000", help="fragments; empty: not measured")
    parser.add_argument("--worker")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.folder, arguments.cpu)
        return
    chosen = tuple(arguments.cases.split(",")) if arguments.cases else ("",)
    names = [name for name in [*CASES, FRESH, *MEMORY] if name.startswith(chosen)]
    unit = "processor time" if arguments.cpu else "wall time"
    print(f"{arguments.rows:,} rows, median of {arguments.rounds}, {unit}; milliseconds, or MiB of memory")
    print("| case | pilum | reference | ratio | goal |")
    print("|---|---|---|---|---|")
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="pilum-bench-") as temporary:
        folder = Path(temporary)
        write_all(folder, arguments.rows, names)
        options = ["--folder", str(folder), *(["--cpu"] if arguments.cpu else [])]
        engines = {name: Engine(__file__, "--worker", name, *options) for name in MODULES}
        try:
            for name in names:
                scale = 1e3
                if name in CASES:
                    found = measure(engines, name, arguments.rounds)
                    goal = CASES[name].goal
                else:
                    goal = GOALS[name]
                    kind, number = MEMORY.get(name, ("fresh", 0))
                    scale = 1.0 if number else 1e3
                    text = {"fresh": _FRESH, "stream": _STREAM, "pieces": _PIECES}[kind]
                    uri = str(folder / ("pieces.lance" if text is _PIECES else "rows.lance"))
                    found = measure_scripts(text, uri, 3 if number else arguments.rounds, number)
                ratio = ratios[name] = found["reference"] / max(found["pilum"], 1e-9)
                missed = "" if ratio >= goal else " missed"
                wanted = f"{goal:.2f}" if goal else "-"
                print(
                    f"| {name} | {found['pilum'] * scale:.2f} | {found['reference'] * scale:.2f} "
                    f"| {ratio:.2f} | {wanted}{missed} |",
                    flush=True,
                )
        finally:
            for engine in engines.values():
                engine.close()
    for kind in ("scan", "filter"):
        own = [ratio for name, ratio in ratios.items() if name.startswith(kind)]
        if own:
            mean = math.exp(statistics.fmean(math.log(ratio) for ratio in own))
            print(f"{kind}: {mean:.2f} in the geometric mean (goal 1.5), worst {min(own):.2f} (goal 1)")
    if arguments.linear:
        linear([int(size) for size in arguments.linear.split(",")])


if __name__ == "__main__":
    main()
