"""Scattered rows of all columns at once: the same rows as page by page, of whole files and of damaged ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilum.encoding.fullzip import FixedDecoder
from pilum.encoding.kernels import pick_columns
from pilum.encoding.miniblock import MiniBlockDecoder
from pilum.encoding.scattered import ScatteredRows
from pilum.errors import PilumError
from pilum.file import FileReader, reader
from pilum.file.scattered import read_scattered
from pilum.io import LocalStore, MemoryStore
from pilum.schema import Schema
from tests import strategies
from tests.file.files import assert_same, drive, expectation, golden_case_files, write_memory
from tests.file.test_faults import mutate, put
from tests.file.test_golden import NOT_YET

ROWS = 6000
PATHS = [path for path in golden_case_files() if path.stem not in NOT_YET]


def column(name: str, rng: Any) -> Any:
    numbers = rng.integers(0, 1 << 40, ROWS)
    absent = rng.random(ROWS) < 0.2
    sizes = rng.integers(0, 4, ROWS)
    edges = np.concatenate([[0], np.cumsum(sizes)])
    items = int(edges[-1])
    match name:
        case "integers":
            return pa.array(numbers)
        case "nulls":
            return pa.array(numbers, mask=absent)
        case "nulls in one place":
            return pa.array(numbers, mask=np.arange(ROWS) // 500 == 3)
        case "small":
            return pa.array((numbers % 100).astype(np.int8), mask=absent)
        case "runs":
            return pa.array(np.repeat(numbers[: ROWS // 50] % 9, 50).astype(np.int32))
        case "floats":
            return pa.array(rng.standard_normal(ROWS).astype(np.float32), mask=absent)
        case "halves":
            return pa.array(rng.standard_normal(ROWS).astype(np.float16))
        case "booleans":
            return pa.array(rng.random(ROWS) < 0.4, mask=absent)
        case "times":
            return pa.array(numbers, pa.timestamp("us", "Europe/Berlin"), mask=absent)
        case "dictionary":
            return pa.array(rng.choice(rng.integers(0, 1 << 60, 60), ROWS), mask=absent)
        case "words":
            return pa.array([f"word {k}" for k in numbers.tolist()])
        case "texts":
            return pa.array(
                [None if gone else f"Grüße an {k}" for k, gone in zip(numbers.tolist(), absent, strict=True)]
            )
        case "large texts":
            return pa.array([f"text {k}" for k in numbers.tolist()], pa.large_string())
        case "bytes":
            return pa.array([bytes([k % 256, 255]) * (k % 3) for k in numbers.tolist()])
        case "few words":
            words = [f"one of a few words {k % 9}" for k in numbers.tolist()]
            return pa.array([None if gone else word for word, gone in zip(words, absent, strict=True)])
        case "lists":
            return pa.ListArray.from_arrays(
                pa.array(edges, pa.int32(), mask=np.append(absent, False)), rng.integers(0, 1000, items)
            )
        case "large lists":
            return pa.LargeListArray.from_arrays(
                edges, pa.array(rng.integers(0, 99, items), mask=rng.random(items) < 0.3)
            )
        case "lists of words":
            return pa.ListArray.from_arrays(
                pa.array(edges, pa.int32()),
                pa.array([f"item {k}" for k in rng.integers(0, 1 << 30, items).tolist()]),
            )
        case "lists of few words":
            return pa.ListArray.from_arrays(
                pa.array(edges, pa.int32()),
                pa.array([f"a list item {k}" for k in rng.integers(0, 9, items).tolist()]),
            )
        case "vectors":
            return pa.FixedSizeListArray.from_arrays(
                pa.array(rng.standard_normal(ROWS * 64).astype(np.float32)), 64
            )
        case "vectors with nulls":
            values = pa.array(rng.standard_normal(ROWS * 64).astype(np.float32))
            return pa.FixedSizeListArray.from_arrays(values, 64, mask=pa.array(absent))
    raise AssertionError(name)


TOGETHER = [
    "integers", "nulls", "nulls in one place", "small", "runs", "floats", "halves", "booleans", "times", "dictionary",
    "words", "texts", "large texts", "bytes", "few words", "lists", "large lists", "lists of words",
    "lists of few words", "vectors", "vectors with nulls",
]  # fmt: skip


@pytest.fixture
def taken(compiled: None, monkeypatch: pytest.MonkeyPatch) -> list[list[pa.Array] | None]:
    """What was read in one go, in the order of the reads."""
    found: list[list[pa.Array] | None] = []

    def noted(self: ScatteredRows, *args: Any) -> Any:
        found.append(arrays := decode(self, *args))
        return arrays

    decode = ScatteredRows.decode
    monkeypatch.setattr(ScatteredRows, "decode", noted)
    return found


def written(table: pa.Table, version: tuple[int, int] = (2, 2)) -> tuple[Any, str]:
    """A table as a file with several pages a column."""
    largest = max(column.nbytes for column in table.columns)
    return write_memory(table.to_batches(500), version=version, page_bytes=max(1024, largest // 6))


def some(count: int, rows: int = ROWS) -> Any:
    chosen = np.random.default_rng(count).choice(rows, min(count, rows), replace=False)
    return np.sort(chosen)


def assert_rows(batch: pa.RecordBatch, table: pa.Table, rows: Any) -> None:
    """The batch holds these rows of the table."""
    batch.validate(full=True)
    assert batch.schema.names == table.schema.names
    expected = strategies.whole(table).take(pa.array(rows))
    for name in table.schema.names:
        assert_same(batch.column(name), expected.column(name), name)


def read(opened: FileReader, rows: Any) -> pa.RecordBatch:
    """Rows of an opened file whose pages are all initialised."""
    drive(opened.initialise())
    return drive(opened.read_batch(rows))


@pytest.mark.parametrize("version", [(2, 1), (2, 2)])
@pytest.mark.parametrize("name", TOGETHER)
def test_rows(name: str, version: tuple[int, int], taken: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is asked on its own."""
    table = pa.table({"a": column(name, np.random.default_rng(len(name)))})
    store, path = written(table, version)
    opened = drive(FileReader.open(store, path))
    drive(opened.initialise())
    monkeypatch.setattr(MiniBlockDecoder, "schedule", None)
    monkeypatch.setattr(FixedDecoder, "schedule", None)
    for count in (1, 2, 9, 100):
        rows = some(count)
        assert_rows(read(opened, rows), table, rows)
    assert len(taken) == 4
    assert all(arrays is not None and len(arrays) == 1 for arrays in taken)


def test_all_columns_in_one_pass(taken: list[Any]) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({name: column(name, rng) for name in TOGETHER})
    store, path = written(table)
    opened = drive(FileReader.open(store, path))
    rows = some(50)
    assert_rows(read(opened, rows), table, rows)
    assert len(taken) == 1
    assert len(taken[0]) == len(TOGETHER)


def test_columns_that_are_read_page_by_page_come_along(taken: list[Any]) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 99, ROWS)
    table = pa.table(
        {
            "members": pa.StructArray.from_arrays([numbers, numbers + 1], ["x", "y"]),
            "words": column("words", rng),
            "constant": pa.array([7] * ROWS),
            "nested": pa.array([[[k], []] for k in numbers.tolist()]),
            "integers": column("integers", rng),
        }
    )
    store, path = written(table)
    opened = drive(FileReader.open(store, path))
    for rows in (some(7), range(900, 903), some(60)):
        batch = read(opened, rows)
        assert_rows(batch, table, rows)
    assert [len(arrays) for arrays in taken] == [2, 2, 2]


def test_few_neighbours_and_many(taken: list[Any]) -> None:
    """A range of a few rows is read like scattered ones; many rows a chunk are had faster by unpacking it."""
    table = pa.table({"a": column("integers", np.random.default_rng(0))})
    store, path = written(table)
    opened = drive(FileReader.open(store, path))
    assert_rows(read(opened, range(700, 705)), table, range(700, 705))
    assert len(taken) == 1
    every = np.arange(0, ROWS, 2)
    assert_rows(read(opened, every), table, every)
    assert_rows(read(opened, range(4000)), table, range(4000))
    assert len(taken) == 1


@pytest.mark.parametrize("start", [0, 64])
def test_results_that_need_more_room(start: int, taken: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Long strings and long lists among short ones."""
    words = ["x" * (k % 7) if k % 50 else "long " * 400 for k in range(ROWS)]
    lists = [[k] * (k % 4) if k % 50 else [k] * 3000 for k in range(ROWS)]
    table = pa.table({"words": words, "lists": lists})
    store, path = written(table)
    opened = drive(FileReader.open(store, path))
    rows = np.arange(start, ROWS, 50 if start == 0 else 64)
    batch = read(opened, rows)
    assert_rows(batch, table, rows)
    assert len(taken) == 1
    assert taken[0] is not None


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.uint8(), pa.int64()])
def test_vectors_in_one_page(kind: Any, tmp_path: Path, taken: list[Any]) -> None:
    """Rows that are apart are where multiplying says; neighbours are joined."""
    values = np.random.default_rng(0).integers(0, 100, ROWS * 512).astype(kind.to_pandas_dtype())
    table = pa.table({"a": pa.FixedSizeListArray.from_arrays(pa.array(values, kind), 512)})
    for store in (LocalStore(tmp_path), MemoryStore()):
        _, path = write_memory(table.to_batches(), store=store, page_bytes=1 << 30)
        opened = drive(FileReader.open(store, path))
        resolved = drive(opened.initialise())
        assert len(resolved.columns[0].pages) == 1
        for rows in ([5], list(range(0, ROWS, 400)), [0, 1, 2, 3, 4, 5, 6, 7, 5000, 5999]):
            assert_rows(read(opened, np.array(rows)), table, np.array(rows))
    assert sum(arrays is not None for arrays in taken) == len(taken) == 4


def test_too_much_for_one_pass(taken: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from pilum.encoding import scattered

    table = pa.table({"a": column("words", np.random.default_rng(0))})
    store, path = written(table)
    opened = drive(FileReader.open(store, path))
    monkeypatch.setattr(scattered, "_MOST_BYTES", 5000)
    assert_rows(read(opened, some(9)), table, some(9))
    assert taken == []


def test_local_files_are_read_without_detours(tmp_path: Path, taken: list[Any]) -> None:
    table = pa.table(
        {name: column(name, np.random.default_rng(1)) for name in ("integers", "words", "vectors")}
    )
    store = LocalStore(tmp_path)
    _, path = write_memory(table.to_batches(500), store=store, page_bytes=8192)
    opened = drive(FileReader.open(store, path))
    drive(opened.initialise())
    for count in (1, 30, 100):
        rows = some(count)
        assert_rows(read(opened, rows), table, rows)
    assert len(taken) == 3
    data = bytearray((tmp_path / path).read_bytes())
    (tmp_path / path).write_bytes(data[: len(data) // 2])
    with pytest.raises(PilumError, match=path):
        read(opened, some(100))


@pytest.mark.golden
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_golden_files(path: Path, taken: list[Any]) -> None:
    table = expectation(path)
    opened = drive(FileReader.open(LocalStore(path.parent), path.name))
    for count in (1, 3, 40):
        if table.num_rows > count:
            rows = some(count, table.num_rows)
            assert_rows(read(opened, rows), table, rows)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_table(compiled: None, data: st.DataObject) -> None:
    rows = data.draw(st.sampled_from([1, 40, 700, 3000]))
    kinds = data.draw(st.lists(strategies.types(2, lists=True), min_size=1, max_size=4))
    names = [f"c{k}" for k in range(len(kinds))]
    table = pa.table(
        {name: data.draw(strategies.arrays(kind, rows)) for name, kind in zip(names, kinds, strict=True)}
    )
    maps = any("map" in str(kind) for kind in kinds)  # since 2.2
    version = (2, 2) if maps else data.draw(st.sampled_from([(2, 1), (2, 2)]))
    size = data.draw(st.sampled_from([1024, 1 << 14, 1 << 20]))
    store, path = write_memory(table.to_batches(256), version=version, page_bytes=size)
    opened = drive(FileReader.open(store, path))
    wanted = some(data.draw(st.sampled_from([1, 5, 60])), rows)
    assert_rows(read(opened, wanted), table, wanted)


def outcomes(data: bytes, rows: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[pa.RecordBatch | None]:
    """What is read in one go, and page by page; None for an error."""
    for one in (read_scattered, None):
        with monkeypatch.context() as patch:
            if one is None:
                patch.setattr(reader, "read_scattered", _nothing)
            try:
                opened = drive(FileReader.open(put(data), "f"))
                yield read(opened, rows)
            except (PilumError, NotImplementedError):
                yield None


async def _nothing(*args: Any) -> None:
    return None


@pytest.mark.fault
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_damaged_golden_files(path: Path, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be read page by page is the same here, and what cannot is refused."""
    data, rows = path.read_bytes(), expectation(path).num_rows
    rng = random.Random(path.stem)
    for _ in range(60):
        damaged = mutate(data, rng)
        fast, plain = outcomes(damaged, some(12, rows), monkeypatch)
        if fast is not None:
            fast.validate(full=False)
        if plain is not None:
            assert fast is not None
            assert fast.num_rows == plain.num_rows


@pytest.mark.fault
@pytest.mark.parametrize("name", TOGETHER)
def test_damaged_pages(name: str, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"a": column(name, np.random.default_rng(len(name)))})
    store, path = written(table)
    body = bytes(drive(store.get_all(path)))
    rng = random.Random(name)
    differ = 0
    for _ in range(60):
        damaged = bytearray(body)
        at = rng.randrange(len(body) * 9 // 10)
        size = rng.choice([1, 2, 8, 40])
        damaged[at : at + size] = rng.randbytes(len(damaged[at : at + size]))
        fast, plain = outcomes(bytes(damaged), some(60), monkeypatch)
        if plain is not None and fast is not None:
            fast.validate(full=True)
            differ += not fast.equals(plain)
        assert (fast is None) <= (plain is None)
    assert differ == 0


def test_without_kernels_nothing_is_read_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in (pick_columns.LOCATE_COLUMNS, pick_columns.PICK_COLUMNS, pick_columns.LAY_OUT):
        monkeypatch.setattr(kernel, "compiled", None)
        monkeypatch.setattr(kernel, "_failed", True)
    table = pa.table({"a": column("integers", np.random.default_rng(0))})
    store, path = written(table)
    opened = drive(FileReader.open(store, path))
    resolved = drive(opened.initialise())
    assert drive(read_scattered(opened, resolved, some(9))) is None
    assert_rows(read(opened, some(9)), table, some(9))


def test_a_projection_without_columns(compiled: None) -> None:
    store, path = written(pa.table({"a": column("integers", np.random.default_rng(0))}))
    opened = drive(FileReader.open(store, path))
    assert drive(opened.read_batch(some(4), Schema(()))).num_columns == 0
    assert isinstance(store, MemoryStore)
