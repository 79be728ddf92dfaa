"""Statistics of format 0.1: filters read only the batches that may match, and never lose a row."""

from __future__ import annotations

import datetime
import decimal
import os
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

import pilum
from pilum.io import trace
from pilum.query.binding import parse_filter
from pilum.query.pruning import Bounds, bounded_columns, rows_that_may_match
from pilum.schema import Schema
from tests.dataset.test_old_tables import check, writable
from tests.support import GOLDEN, expected_table

EXAMPLES = int(os.environ.get("PILUM_EXAMPLES", "40"))

# --------------------------------------------------------------------------- what bounds say

SCHEMA = Schema.from_arrow(
    pa.schema(
        {"i": pa.int32(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_(), "t": pa.timestamp("us")}
    )
)
BOUNDS = {
    "i": Bounds(pa.array([0, 5, 10], pa.int32()), pa.array([4, 9, 14], pa.int32()), np.array([False] * 3)),
    "f": Bounds(pa.array([0.0, 5.0, -0.0]), pa.array([4.0, 9.0, 0.0]), np.array([False, False, True])),
    "s": Bounds(pa.array([None, "b", "n"]), pa.array(["a", "m", None]), np.array([False] * 3)),
    "b": Bounds(pa.array([False, True, False]), pa.array([True, True, False]), np.array([False] * 3)),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i = 7", "010"),
        ("i < 5", "100"),
        ("i <= 5", "110"),
        ("i > 9", "001"),
        ("i >= 9", "011"),
        ("7 = i", "010"),
        ("i in (1, 12)", "101"),
        ("i in (1, null)", "100"),
        ("i between 3 and 6", "110"),
        ("i > 100", "000"),
        ("i = 3 or i = 13", "101"),
        ("i = 3 and s = 'c'", "000"),
        ("i = 3 or t is null", None),
        ("i = 3 and t is null", "100"),
        ("i != 3", None),
        ("i + 1 = 3", None),
        ("f < 1", "101"),
        ("f > 100", "111"),  # NaN is greater than all numbers
        ("f = 7", "011"),  # the last batch has nulls, which are read as something
        ("s = 'c'", "010"),
        ("s > 'z'", "001"),
        ("s < 'a'", "100"),
        ("b", "110"),
        ("not b", "101"),
        ("b and i > 7", "010"),
        ("t > timestamp '2020-01-01'", None),
    ],
)
def test_rows_that_may_match(text: str, expected: str | None) -> None:
    node = parse_filter(text, SCHEMA).node
    mask = rows_that_may_match(node, BOUNDS)
    assert (mask if mask is None else "".join("01"[int(one)] for one in mask)) == expected
    if expected is not None:
        assert bounded_columns(node)


def test_filters_without_bounds_name_no_columns() -> None:
    for text in ("i != 3", "i = 1 or length(s) = 2", "s like 'a%'", "i + 1 > 2"):
        assert bounded_columns(parse_filter(text, SCHEMA).node) == ()
    assert bounded_columns(parse_filter("i = 1 and (f < 2 or s > 'x')", SCHEMA).node) == ("i", "f", "s")


# --------------------------------------------------------------------------- what is read


def written(folder: Path, rows: int = 20_000, **options: Any) -> tuple[str, pa.Table]:
    lance = pytest.importorskip("lance")
    table = pa.table(
        {
            "i": pa.array(range(rows), pa.int64()),
            "s": [f"key {n:08d}" for n in range(rows)],
            "v": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(8.0 * rows), pa.float32()), 8),
        }
    )
    uri = str(folder / "t.lance")
    lance.write_dataset(
        table, uri, data_storage_version="legacy", max_rows_per_file=5000, max_rows_per_group=500, **options
    )
    return uri, table


def data_read(dataset: Any, **options: Any) -> tuple[pa.Table, int, int]:
    """The rows, the number of requests for data, and their bytes."""
    with trace() as log:
        found = dataset.to_table(**options)
    reads = [one for one in log.requests if one.kind == "get" and one.who == "data"]
    return found, len(reads), sum(one.end - one.start for one in reads)


@pytest.mark.interop
def test_only_batches_that_may_match_are_read(tmp_path: Path) -> None:
    uri, table = written(tmp_path)
    dataset = pilum.dataset(uri)
    every, _, all_bytes = data_read(dataset, filter="i = 7321", use_stats=False)
    found, requests, size = data_read(dataset, filter="i = 7321")
    check(found, every)
    check(found, table.slice(7321, 1))
    # Three columns of one batch of 500 rows, instead of one column of 20,000 rows.
    assert requests <= 5
    assert size < all_bytes / 10
    for text, rows in (
        ("s >= 'key 00019990'", table.slice(19_990)),
        ("i in (0, 19999)", table.take([0, 19_999])),
    ):
        found, requests, size = data_read(dataset, filter=text)
        check(found, rows)
        assert size < all_bytes / 5
    found, requests, _ = data_read(dataset, filter="i > 1000000")
    assert (found.num_rows, requests) == (0, 0)
    assert dataset.count_rows(filter="i < 100") == 100
    with trace() as log:
        assert dataset.count_rows(filter="i > 1000000") == 0
    assert not [one for one in log.requests if one.who == "data"]


@pytest.mark.interop
def test_statistics_are_read_once_and_in_one_request(tmp_path: Path) -> None:
    uri, _ = written(tmp_path)
    dataset = pilum.dataset(uri)

    def statistics_read() -> int:
        with trace() as log:
            dataset.to_table(filter="i = 3")
        return sum(one.who == "statistics" for one in log.requests)

    assert statistics_read() == 4
    assert statistics_read() == 0


@pytest.mark.interop
def test_searches_limits_and_deletions(tmp_path: Path) -> None:
    uri, table = written(tmp_path)
    dataset = pilum.dataset(uri)
    dataset.delete("i % 2 = 0")
    left = table.take(list(range(1, table.num_rows, 2)))
    check(dataset.to_table(filter="i >= 7000 and i < 7100"), left.slice(3500, 50))
    check(dataset.to_table(filter="i >= 7000", limit=5, offset=10), left.slice(3510, 5))
    query = {"column": "v", "q": np.zeros(8, np.float32), "k": 3}
    found = dataset.to_table(nearest=query, prefilter=True, filter="i > 12000")
    assert found["i"].to_pylist() == [12_001, 12_003, 12_005]
    assert dataset.to_table(nearest=query, prefilter=True, filter="i > 1000000").num_rows == 0
    check(dataset.scanner(filter="i >= 7000 and i < 7100", with_row_id=True).to_table().select(table.column_names),
          left.slice(3500, 50))  # fmt: skip


@pytest.mark.interop
def test_nulls_are_read_as_values_that_bounds_do_not_know(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    table = pa.table(
        {
            "i": pa.array([5, None, 6, 7, 8, 9], pa.int32()),
            "f": pa.array([1.0, float("nan"), 2.0, None, 4.0, 5.0]),
            "s": pa.array(["", "a", None, "b", "c", "d"]),
        }
    )
    uri = str(tmp_path / "n")
    lance.write_dataset(table, uri, data_storage_version="legacy", max_rows_per_group=3)
    dataset = pilum.dataset(uri)
    plain = dataset.to_table()
    assert plain["i"].to_pylist()[1] == 0
    for text, rows in (
        ("i = 0", [1]),
        ("f > 100", [1]),
        ("f = 0", [3]),
        ("s = ''", []),
        ("s is null", [0, 2]),
    ):
        check(dataset.to_table(filter=text), plain.take(pa.array(rows, pa.int64())), text)


@pytest.mark.golden
def test_damaged_statistics_are_ignored(tmp_path: Path) -> None:
    path = GOLDEN / "legacy" / "v01_stats.lance"
    uri = writable(path, tmp_path)
    expected = expected_table(path.with_suffix(".arrow"))
    (file,) = Path(uri).glob("data/*.lance")
    name = next(field.name for field in expected.schema if pa.types.is_int32(field.type))
    reader_rows = pilum.dataset(uri).to_table(filter=f"`{name}` > -1000000")
    data = bytearray(file.read_bytes())
    from pilum.file.v0_1 import FileReader01
    from tests.file.files import drive
    from tests.file.test_faults import put

    at = drive(FileReader01.open(put(bytes(data)), "f")).metadata.statistics.page_table_position
    data[at : at + 64] = b"\xff" * 64
    file.write_bytes(bytes(data))
    check(pilum.dataset(uri).to_table(filter=f"`{name}` > -1000000"), reader_rows)


# --------------------------------------------------------------------------- random predicates

VALUES: dict[str, Any] = {
    "i": st.integers(-50, 50),
    "u": st.integers(0, 200),
    "f": st.one_of(st.sampled_from([0.0, -0.0, float("nan"), float("inf")]), st.integers(-20, 20).map(float)),
    "s": st.one_of(st.sampled_from(["", "a", "b" * 70, "b" * 64, "é" * 40, "\U0010ffff" * 20]), st.text("abc", max_size=3)),
    "n": st.one_of(st.sampled_from([b"", b"\xff" * 70, b"a" * 64]), st.binary(max_size=3)),
    "b": st.booleans(),
    "d": st.dates(datetime.date(1960, 1, 1), datetime.date(1990, 1, 1)),
    "m": st.integers(-999, 999).map(lambda n: decimal.Decimal(n) / 100),
}  # fmt: skip
KINDS: dict[str, Any] = {
    "i": pa.int16(), "u": pa.uint8(), "f": pa.float32(), "s": pa.string(), "n": pa.binary(), "b": pa.bool_(),
    "d": pa.date32(), "m": pa.decimal128(7, 2),
}  # fmt: skip


def literal(name: str, value: Any) -> str:
    if value is None:
        return "null"
    if name == "s":
        return "'" + value + "'"
    if name == "n":
        return "X'" + value.hex() + "'"
    if name == "d":
        return f"date '{value}'"
    if name == "m":
        return f"cast('{value}' as decimal(7, 2))"
    if name == "f":
        return f"cast('{value}' as float)"
    return str(value).lower()


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    if depth and draw(st.booleans()):
        word = draw(st.sampled_from(["and", "or"]))
        return f"({draw(conditions(depth - 1))} {word} {draw(conditions(depth - 1))})"
    name = draw(st.sampled_from(sorted(VALUES)))
    if name == "b":
        return draw(st.sampled_from(["b", "not b", "b = true", "b = false"]))
    values = [literal(name, one) for one in draw(st.lists(VALUES[name], min_size=1, max_size=3))]
    what = draw(st.sampled_from(["=", "<", "<=", ">", ">=", "!=", "in", "between", "is null", "is not null"]))
    if what == "in":
        return f"{name} in ({', '.join(values)})"
    if what == "between":
        return f"{name} between {values[0]} and {values[-1]}"
    if what.startswith("is"):
        return f"{name} {what}"
    return f"{name} {what} {values[0]}"


@pytest.mark.property
@pytest.mark.interop
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_row_is_lost(data: Any) -> None:
    lance = pytest.importorskip("lance")
    rows = data.draw(st.integers(1, 40))
    nulls = data.draw(st.booleans())
    columns = {}
    for name, values in VALUES.items():
        one = st.one_of(st.none(), values) if nulls else values
        found = data.draw(st.lists(one, min_size=rows, max_size=rows))
        if data.draw(st.booleans()):
            found = sorted(found, key=lambda value: (value is not None, str(value) if name == "f" else value))
        columns[name] = pa.array(found, KINDS[name])
    required = data.draw(st.booleans()) and not nulls
    schema = pa.schema([pa.field(name, kind, not required) for name, kind in KINDS.items()])
    table = pa.table(columns, schema=schema)
    with tempfile.TemporaryDirectory() as folder:
        lance.write_dataset(
            table, folder, data_storage_version="legacy", max_rows_per_group=data.draw(st.integers(1, 9)),
            max_rows_per_file=data.draw(st.sampled_from([5, 100])),
        )  # fmt: skip
        dataset = pilum.dataset(folder)
        for _ in range(6):
            text = data.draw(conditions())
            found = dataset.to_table(filter=text)
            expected = dataset.to_table(filter=text, use_stats=False)
            check(found, expected, text)
            assert dataset.count_rows(filter=text) == expected.num_rows, text
