"""What a read asks for: requests and bytes of scans, ranges and takes (file-container-and-structure.md, section 6.2)."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum.file import FileReader
from pilum.io import trace
from tests.file.files import drive, write_memory

ROWS = 100_000
RNG = np.random.default_rng(0)
PICKED = np.sort(RNG.choice(ROWS, 20, replace=False))
COLUMNS: dict[str, Any] = {
    "numbers": pa.array(RNG.integers(-(2**62), 2**62, ROWS)),
    "packed numbers": pa.array(RNG.integers(0, 1000, ROWS)),
    "text": pa.array([f"value {i}" for i in range(ROWS)]),
    "dictionary": pa.array([f"value {i % 50}" for i in range(ROWS)]),
    "lists": pa.ListArray.from_arrays(
        pa.array(np.minimum(np.arange(ROWS + 1) * 3, 300_000).astype(np.int32)), pa.array(np.arange(300_000))
    ),
    "vectors": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(ROWS * 64, dtype=np.float32)), 64),
    "long text": pa.array([f"{i:0300}" for i in range(ROWS)]),
}


def requests(array: Any, rows: Any) -> tuple[int, int]:
    """Requests and bytes of reading rows, metadata apart."""
    # pages of all rows, so that the numbers are those of one page
    store, path = write_memory([pa.record_batch({"a": array})], page_bytes=1 << 30)

    async def main() -> tuple[int, int]:
        reader = await FileReader.open(store, path)
        await reader.initialise()
        with trace() as log:
            batch = await reader.read_batch(rows)
        wanted = pa.array(list(rows)) if rows is not None else pa.array(range(len(array)))
        assert batch.column(0).equals(array.take(wanted))
        assert {request.who for request in log.requests} == {"data"}
        return len(log.requests), sum(request.end - request.start for request in log.requests)

    return drive(main())


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("numbers", 20 * (4096 + 64)),  # a chunk of 512 numbers per row
        ("packed numbers", 20 * (128 * 10 + 64)),
        ("text", 20 * (4096 + 64)),
        ("dictionary", 20 * (128 * 6 + 64)),
        ("lists", 40 * (128 * 19 + 1500)),  # a row may lie in two chunks, which have levels, too
        ("vectors", 20 * 256),  # exactly the rows
        ("long text", 20 * 304),
    ],
)
def test_a_take_reads_one_chunk_or_one_value_per_row(name: str, most: int) -> None:
    number, size = requests(COLUMNS[name], PICKED)
    assert number <= 20
    assert size <= most


@pytest.mark.parametrize("name", COLUMNS)
def test_a_range_is_one_request_of_its_chunks(name: str) -> None:
    number, size = requests(COLUMNS[name], range(50_000, 51_000))
    whole = requests(COLUMNS[name], None)
    assert number == 1
    assert size < whole[1] / 30
    assert whole[0] <= 1 + whole[1] // (4 << 20)


def test_neighbouring_rows_share_their_chunk() -> None:
    number, size = requests(COLUMNS["numbers"], np.array([10, 20, 30]))
    assert number == 1
    assert size < 4096 + 64


def test_a_take_across_columns_is_one_round() -> None:
    """The ranges of all columns are known before the first byte is asked for."""
    columns = {name: array for name, array in COLUMNS.items() if name != "lists"}
    store, path = write_memory([pa.record_batch(columns)], page_bytes=1 << 30)

    async def main() -> int:
        reader = await FileReader.open(store, path)
        resolved = await reader.initialise()
        plan = reader.schedule(resolved, PICKED)
        assert len(plan.ranges) <= len(columns) * len(PICKED)
        with trace() as log:
            await reader.execute(plan)
        return len(log.requests)

    assert drive(main()) <= len(columns) * len(PICKED)


def test_a_small_column_does_not_keep_the_file() -> None:
    """Arrays may be views of bytes that were read, but not few of many."""
    numbers, text = pa.array(RNG.standard_normal(300)), COLUMNS["text"].slice(0, 300)
    store, path = write_memory([pa.record_batch({"flat": numbers, "text": text})])

    async def main() -> tuple[pa.RecordBatch, weakref.ref[Any]]:
        size = (await store.head(path)).size
        body = (await store.get(path, 0, size)).copy()
        reader = (await FileReader.open(store, path)).with_body(body)
        return await reader.read_batch(projection=["flat"]), weakref.ref(body)

    batch, body = drive(main())
    gc.collect()
    assert body() is None
    assert batch.column("flat").equals(numbers)
