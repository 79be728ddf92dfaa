"""Scans of small fragments whose files have the same metadata: it is parsed once, and every value is still its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.errors import CorruptFileError
from pilum.file.metadata import Container

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
