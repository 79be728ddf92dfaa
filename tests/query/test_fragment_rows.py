"""Rows of a fragment by range: several data files, absent columns, deletions, system columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.errors import InvalidInputError

ROWS = 500
DELETED = [0, 7, 8, 9, 250, 499]
LIVE = [row for row in range(ROWS) if row not in DELETED]


@pytest.fixture(scope="module")
def fragment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Columns in files of two format versions, one column that no file holds, some rows deleted."""
    import lance

    path = str(tmp_path_factory.mktemp("rows") / "t.lance")
    table = pa.table({"a": np.arange(ROWS), "s": [f"s{i}" for i in range(ROWS)]})
    pilum.write_dataset(table, path, data_storage_version="2.1")
    ds = lance.dataset(path)
    ds.add_columns({"b": "a * 2"})
    ds.add_columns(pa.field("absent", pa.float64()))
    pilum.dataset(path).delete(f"a in ({', '.join(map(str, DELETED))})")
    (found,) = pilum.dataset(path).get_fragments()
    assert len(found.data_files()) == 2
    return found


def rows(batches: Any) -> list[int]:
    return [value for batch in batches for value in batch.column("a").to_pylist()]


@pytest.mark.interop
def test_all_columns_of_all_files(fragment: Any) -> None:
    table = pa.Table.from_batches(fragment.open_session().read_all())
    assert table["a"].to_pylist() == LIVE
    assert table["b"].to_pylist() == [2 * row for row in LIVE]
    assert table["s"].to_pylist() == [f"s{row}" for row in LIVE]
    assert table["absent"].null_count == len(LIVE)


@pytest.mark.interop
def test_live_and_physical_rows(fragment: Any) -> None:
    session = fragment.open_session(["a"])
    for start, stop in ((0, 1), (5, 12), (0, ROWS), (240, 260), (490, 10_000), (494, 495), (900, 901)):
        assert rows(session.read_range(start, stop)) == LIVE[start:stop]
    for start, stop in ((0, 1), (5, 12), (0, ROWS), (7, 10), (499, 500), (3, 3)):
        wanted = [row for row in range(start, stop) if row not in DELETED]
        assert session.take_range(start, stop)["a"].to_pylist() == wanted
        assert rows(session.read_ranges([range(start, stop)])) == wanted
    several = [range(3), range(3, 4), range(6, 11), range(400, 500)]
    wanted = [row for one in several for row in one if row not in DELETED]
    assert rows(session.read_ranges(several)) == wanted
    assert rows(session.read_ranges([])) == []
    assert session.take([0, 5, 493])["a"].to_pylist() == [LIVE[0], LIVE[5], LIVE[493]]


@pytest.mark.interop
def test_system_columns_and_no_columns(fragment: Any) -> None:
    session = fragment.open_session(["a"], with_row_address=True)
    table = session.take_range(5, 12)
    assert table["_rowaddr"].to_pylist() == [5, 6, 10, 11]
    assert session.schema.names == ["a", "_rowaddr"]
    assert fragment.open_session([], with_row_address=True).take_range(8, 12).num_rows == 2


@pytest.mark.interop
def test_ranges_are_checked(fragment: Any) -> None:
    session = fragment.open_session(["a"])
    with pytest.raises(InvalidInputError, match="out of range"):
        session.take_range(0, ROWS + 1)
    for ranges in ([range(501)], [range(5, 9), range(8, 10)], [range(0, 9, 2)], [range(-1, 3)]):
        with pytest.raises(InvalidInputError):
            list(session.read_ranges(ranges))
    for start, stop in ((-1, 3), (5, 3)):
        with pytest.raises(InvalidInputError, match="not a range"):
            session.read_range(start, stop)


def test_large_fragments_in_bounded_pieces(tmp_path: Path) -> None:
    count = 300_000
    table = pa.table({"a": np.arange(count), "text": ["x" * 90] * count})
    ds = pilum.write_dataset(table, tmp_path / "t.lance")
    session = ds.get_fragments()[0].open_session()
    sizes = [batch.num_rows for batch in session.read_range(10, count - 10)]
    assert sum(sizes) == count - 20
    assert max(sizes) <= 8192
    assert rows(session.read_ranges([range(5, 90_000), range(100_000, count)])) == [
        *range(5, 90_000),
        *range(100_000, count),
    ]
