"""Deeply nested, packed, dictionary and blob columns in both directions: up to four levels of lists, maps and structs."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pilum.file import FileReader
from pilum.io import LocalStore
from tests.file.files import assert_same, drive, open_local, write_memory
from tests.strategies import batches, special_columns, whole

# PILUM_EXAMPLES=2000 for a long run.
EXAMPLES = int(os.environ.get("PILUM_EXAMPLES", "40"))
RELAXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
VERSIONS = st.sampled_from([(2, 1), (2, 2), (2, 2)])


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table with nested columns and, often, a special one."""
    data = draw(
        batches(depth=draw(st.integers(1, 4)), lists=True, max_columns=2, max_rows=400, max_batches=1)
    )
    table = whole(pa.Table.from_batches(data))
    if draw(st.booleans()):
        field, array = draw(special_columns(table.num_rows))
        table = table.append_column(field, array)
    return table


def since(kind: pa.DataType, packed: bool = False) -> tuple[int, int]:
    """The first version that holds a type."""
    types = pa.types
    if types.is_map(kind):
        return 2, 2
    if packed and types.is_struct(kind):
        return max(((2, 1) if _fixed(field.type) else (2, 2) for field in kind), default=(2, 1))
    fields = [kind.field(i) for i in range(kind.num_fields)] if types.is_nested(kind) else []
    return max((since(field.type, bool(field.metadata)) for field in fields), default=(2, 1))


def _fixed(kind: pa.DataType) -> bool:
    try:
        return bool(kind.bit_width) and not pa.types.is_nested(kind)
    except ValueError:
        return False


def version_of(table: pa.Table, wish: tuple[int, int]) -> tuple[int, int]:
    needed = [since(field.type, b"lance-encoding:packed" in (field.metadata or {})) for field in table.schema]
    return max(wish, *needed)


def check(found: Any, expected: pa.Table) -> None:
    for name in expected.column_names:
        assert_same(found.column(name), expected[name], name)


def check_reader(reader: FileReader, expected: pa.Table, seed: int) -> None:
    rng = random.Random(seed)
    check(drive(reader.read_batch()), expected)
    rows = expected.num_rows
    for _ in range(3 if rows else 0):
        low = rng.randrange(rows)
        high = rng.randrange(low, rows) + 1
        check(drive(reader.read_batch(range(low, high))), whole(expected.slice(low, high - low)))
        picked = sorted(rng.sample(range(rows), min(rows, rng.choice([1, 5, 40]))))
        check(drive(reader.read_batch(picked)), expected.take(picked))


@pytest.mark.property
@RELAXED
@given(tables(), VERSIONS, st.sampled_from([1 << 10, 8 << 20]), st.integers(0, 1000))
def test_pilum_reads_what_pilum_writes(
    table: pa.Table, version: tuple[int, int], page_bytes: int, seed: int
) -> None:
    data = table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    store, path = write_memory(data, version=version_of(table, version), page_bytes=page_bytes)
    check_reader(drive(FileReader.open(store, path)), table, seed)


@pytest.mark.property
@pytest.mark.interop
@RELAXED
@given(tables(), VERSIONS, st.sampled_from([1 << 12, 8 << 20]))
def test_the_reference_reads_what_pilum_writes(
    table: pa.Table, version: tuple[int, int], page_bytes: int
) -> None:
    lance_file = pytest.importorskip("lance.file")
    assume(table.num_rows > 0)
    with tempfile.TemporaryDirectory() as folder:
        write_memory(
            table.to_batches(), version=version_of(table, version), page_bytes=page_bytes, store=LocalStore(folder), path="f.lance"
        )  # fmt: skip
        reader = lance_file.LanceFileReader(str(Path(folder) / "f.lance"))
        check(reader.read_all().to_table(), table)


@pytest.mark.property
@pytest.mark.interop
@RELAXED
@given(tables(), VERSIONS, st.integers(0, 1000))
def test_pilum_reads_what_the_reference_writes(table: pa.Table, version: tuple[int, int], seed: int) -> None:
    lance_file = pytest.importorskip("lance.file")
    assume(table.num_rows > 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.lance"
        text = ".".join(map(str, version_of(table, version)))
        with lance_file.LanceFileWriter(str(path), table.schema, version=text) as writer:
            writer.write_batch(table)
        check_reader(open_local(path), table, seed)
