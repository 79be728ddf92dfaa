"""Scans of small fragments whose files have the same metadata: it is parsed once, and every value is still its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import pilum
from pilum.errors import CorruptFileError
from pilum.file.metadata import Container
from pilum.file.plan import ReadPlan
from pilum.io import Bytes
from pilum.query import fragment_batch

ROWS, FRAGMENTS = 50, 30


def rows(number: int) -> pa.Table:
    """Rows of which every third fragment is wider, and every fifth has nulls."""
    rng = np.random.default_rng(number)
    high = 1 << (30 if number % 3 == 0 else 6)
    values = rng.integers(high // 2, high, ROWS)
    mask = np.arange(ROWS) % 7 == 0 if number % 5 == 0 else None
    return pa.table(
        {
            "id": pa.array(values, pa.int64(), mask=mask),
            "x": rng.random(ROWS),
            "s": [f"{number:04}-{row:04}" for row in range(ROWS)],
            "l": pa.array([[row, number] for row in range(ROWS)], pa.list_(pa.int16())),
        }
    )


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, pa.Table]:
    uri = tmp_path / "t.lance"
    parts = [rows(number) for number in range(FRAGMENTS)]
    for part in parts:
        pilum.write_dataset(part, uri, mode="append")
    return uri, pa.concat_tables(parts)


def test_metadata_that_files_share_is_parsed_once(
    table: tuple[Path, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, expected = table
    parsed: Counter[int] = Counter()
    real = Container.parse_column

    def counting(self: Container, column: int, data: bytes, scale: int = 1) -> object:
        parsed[column] += 1
        return real(self, column, data, scale)

    monkeypatch.setattr(Container, "parse_column", counting)
    ds = pilum.dataset(uri)
    assert ds.to_table().equals(expected)
    assert parsed.total() <= 4 * 4, "four kinds of files"
    parsed.clear()
    assert ds.to_table().equals(expected)
    assert ds.to_table(columns=["x", "id"], filter="id % 2 = 0").num_rows > 0
    assert ds.take([1, 700, 1499]).to_pylist() == [
        expected.slice(at, 1).to_pylist()[0] for at in (1, 700, 1499)
    ]
    assert not parsed


def test_a_damaged_file_among_its_like_is_named(table: tuple[Path, pa.Table]) -> None:
    uri, _ = table
    fragment = pilum.dataset(uri).get_fragments()[17]
    path = Path(uri, "data", fragment.data_files()[0].path)
    body = bytearray(path.read_bytes())
    body[:64] = b"\xff" * 64  # where the first page says how long its chunks are
    path.write_bytes(body)
    with pytest.raises(CorruptFileError, match=path.name):
        pilum.dataset(uri).to_table()


def numbers(count: int, number: int) -> pa.Table:
    """Columns whose chunks are decoded together with those of other files."""
    rng = np.random.default_rng(number)
    values = rng.integers(1 << 20, 1 << 21, count)
    every_third = np.arange(count) % 3 == number % 3
    members = pa.array(rng.integers(0, 100, count), pa.int16(), mask=every_third)
    return pa.table(
        {
            "id": pa.array(values),
            "nulls": pa.array(values.astype(np.int32), mask=every_third),
            "flag": rng.random(count) < 0.5,
            "no_flag": pa.array(rng.random(count) < 0.5, mask=every_third),
            "f": rng.random(count),
            "word": pa.array([f"word {one % 5}" for one in range(count)]),
            "pair": pa.StructArray.from_arrays(
                [members, pa.array(values)], ["a", "b"], mask=pa.array(~every_third & (values % 2 == 0))
            ),
            "fsl": pa.FixedSizeListArray.from_arrays(pa.array(rng.random(2 * count, np.float32)), 2),
        }
    )


@pytest.mark.parametrize("count", [1, 50, 1024, 2100])
def test_files_with_the_same_plan_are_decoded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    parts = [numbers(count, number) for number in range(8)]
    expected = pa.concat_tables(parts)
    together: Counter[str] = Counter()
    real = fragment_batch.decode_alike

    def counting(plan: ReadPlan, buffers: list[list[Bytes]]) -> object:
        found = real(plan, buffers)
        together[plan.projection.schema.fields[0].name] += found is not None
        return found

    monkeypatch.setattr(fragment_batch, "decode_alike", counting)
    for names in [[name] for name in expected.schema.names] + [["id", "nulls", "f"]]:
        uri = tmp_path / "-".join(names)
        for part in parts:
            pilum.write_dataset(part.select(names), uri, mode="append", data_storage_version="2.1")
        assert pilum.dataset(uri).to_table().equals(expected.select(names)), names
    found = pilum.dataset(uri).to_table(filter="nulls > 0")
    assert found.equals(expected.filter(pc.greater(expected["nulls"], 0)).select(names))
    if count > 1:
        names = ["id", "flag"] if count > 2000 else ["id", "nulls", "flag", "no_flag"]
        assert all(together[name] for name in names), together


def test_a_damaged_page_among_those_decoded_together_is_named(tmp_path: Path) -> None:
    uri = tmp_path / "t.lance"
    for number in range(6):
        pilum.write_dataset(numbers(50, number), uri, mode="append")
    path = uri / "data" / pilum.dataset(uri).get_fragments()[3].data_files()[0].path
    body = bytearray(path.read_bytes())
    body[:64] = b"\xff" * 64
    path.write_bytes(body)
    with pytest.raises(CorruptFileError, match=path.name):
        pilum.dataset(uri).to_table(columns=["id"])
