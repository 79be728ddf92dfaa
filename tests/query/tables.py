"""Tables of many types over stores that suspend, for tests of what queries ask of a store."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

import pilum
from pilum.dataset.core import AsyncLanceDataset
from pilum.file import Session
from pilum.io import MemoryStore, Store
from pilum.query.snapshot import Snapshot
from pilum.table import latest_version, load_manifest

__all__ = ["filled", "mixed", "over"]


def mixed(rows: int, *, dimension: int = 16) -> pa.Table:
    """Integers, floats, text, lists, vectors and structs."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal(rows * dimension).astype(np.float32)
    return pa.table(
        {
            "id": np.arange(rows),
            "small": pa.array((np.arange(rows) % 10).astype(np.int8)),
            "f": random.standard_normal(rows),
            "s": [f"row-{i * 7919 % rows:08}-abcdef" for i in range(rows)],
            "l": [list(range(i % 5)) for i in range(rows)],
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors), dimension),
            "st": [{"x": i, "y": f"y{i % 3}"} for i in range(rows)],
        }
    )


def filled(name: str, rows: int, rows_per_file: int, *, delete: str | None = None) -> MemoryStore:
    """The mixed table in memory."""
    ds = pilum.write_dataset(mixed(rows), f"memory://{name}", max_rows_per_file=rows_per_file)
    if delete is not None:
        ds.delete(delete)
    return MemoryStore(name)


async def over(store: Store) -> AsyncLanceDataset:
    """The latest version of the table in a store, with a session of its own."""
    return AsyncLanceDataset(
        Snapshot(store, await load_manifest(store, await latest_version(store)), Session())
    )
