"""Random schemas and data: pilum writes, pilum and the reference read; the reference writes, pilum reads."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilum.file import FileReader
from pilum.io import LocalStore
from tests.file.files import assert_same, drive, open_local, read_memory, write_memory
from tests.strategies import batches, whole

# PILUM_EXAMPLES=2000 for a long run.
EXAMPLES = int(os.environ.get("PILUM_EXAMPLES", "40"))
RELAXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
VERSIONS = st.sampled_from([(2, 1), (2, 2)])


def check(found: pa.RecordBatch, expected: pa.Table) -> None:
    for name in expected.column_names:
        assert_same(found.column(name), expected[name], name)


def check_selections(reader: FileReader, expected: pa.Table, seed: int) -> None:
    rng = random.Random(seed)
    check(drive(reader.read_batch()), expected)
    rows = expected.num_rows
    for _ in range(4 if rows else 0):
        low = rng.randrange(rows)
        high = rng.randrange(low, rows) + 1
        check(drive(reader.read_batch(range(low, high))), expected.slice(low, high - low))
        picked = sorted(rng.sample(range(rows), min(rows, rng.choice([1, 5, 40]))))
        check(drive(reader.read_batch(picked)), expected.take(picked))


@pytest.mark.property
@RELAXED
@given(batches(), VERSIONS, st.sampled_from([1 << 10, 8 << 20]), st.integers(0, 1000))
def test_pilum_reads_what_pilum_writes(
    data: list[Any], version: tuple[int, int], page_bytes: int, seed: int
) -> None:
    store, path = write_memory(data, version=version, page_bytes=page_bytes)
    check_selections(drive(FileReader.open(store, path)), whole(pa.Table.from_batches(data)), seed)


@pytest.mark.property
@pytest.mark.interop
@RELAXED
@given(batches(), VERSIONS, st.sampled_from([1 << 12, 8 << 20]))
def test_the_reference_reads_what_pilum_writes(
    data: list[Any], version: tuple[int, int], page_bytes: int
) -> None:
    lance_file = pytest.importorskip("lance.file")
    expected = whole(pa.Table.from_batches(data))
    with tempfile.TemporaryDirectory() as folder:
        write_memory(data, version=version, page_bytes=page_bytes, store=LocalStore(folder), path="f.lance")
        reader = lance_file.LanceFileReader(str(Path(folder) / "f.lance"))
        assert reader.num_rows() == expected.num_rows
        found = reader.read_all().to_table()
        for name in expected.column_names:
            assert_same(found[name], expected[name], name)
        if expected.num_rows > 1:
            picked = sorted(random.Random(0).sample(range(expected.num_rows), min(expected.num_rows, 9)))
            taken = reader.take_rows(picked).to_table()
            for name in expected.column_names:
                assert_same(taken[name], expected[name].take(picked), name)


@pytest.mark.property
@pytest.mark.interop
@RELAXED
@given(batches(), VERSIONS, st.integers(0, 1000))
def test_pilum_reads_what_the_reference_writes(data: list[Any], version: tuple[int, int], seed: int) -> None:
    lance_file = pytest.importorskip("lance.file")
    expected = whole(pa.Table.from_batches(data))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.lance"
        with lance_file.LanceFileWriter(
            str(path), expected.schema, version=".".join(map(str, version))
        ) as writer:
            for batch in data:
                # The reference panics on some slices; it is given whole arrays.
                for part in whole(pa.Table.from_batches([batch])).to_batches():
                    writer.write_batch(part)
        check_selections(open_local(path), expected, seed)


def test_many_small_batches_become_one_page() -> None:
    parts = [pa.record_batch({"a": [i, None], "b": [str(i), "x"]}) for i in range(100)]
    store, path = write_memory(parts)
    reader = drive(FileReader.open(store, path))
    drive(reader.initialise())
    (projection,) = reader.metadata.projections.values()
    assert [len(column.pages) for column in projection.columns] == [1, 1]
    check(read_memory(store, path), pa.Table.from_batches(parts))


def test_a_large_batch_is_cut_into_pages() -> None:
    batch = pa.record_batch({"a": np.arange(100_000), "b": np.arange(100_000, dtype=np.int8)})
    store, path = write_memory([batch], page_bytes=100_000)
    reader = drive(FileReader.open(store, path))
    drive(reader.initialise())
    (projection,) = reader.metadata.projections.values()
    first, second = projection.columns
    assert len(first.pages) == 8
    assert len(second.pages) == 1
    check_selections(reader, pa.Table.from_batches([batch]), 3)


def test_columns_without_rows() -> None:
    batch = pa.record_batch(
        {"a": pa.array([], pa.int64()), "s": pa.array([], pa.struct([("x", pa.string())]))}
    )
    store, path = write_memory([batch])
    found = read_memory(store, path)
    assert found.num_rows == 0
    assert found.schema == batch.schema
