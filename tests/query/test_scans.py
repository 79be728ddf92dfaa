"""Options of scans: order, deleted rows, system columns, limits, late materialisation; beside the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum

ROWS = 1000


def sample() -> pa.Table:
    rng = np.random.default_rng(7)
    score = rng.standard_normal(ROWS)
    score[::37] = np.nan
    return pa.table(
        {
            "id": np.arange(ROWS),
            "g": pa.array([None if i % 11 == 0 else int(i % 5) for i in range(ROWS)], pa.int32()),
            "score": pa.array([None if i % 13 == 0 else s for i, s in enumerate(score)]),
            "name": [f"n{(i * 7919) % 1000:04}" for i in range(ROWS)],
            "st": [{"x": i, "y": f"y{i % 3}"} for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("scans") / "t.lance")
    ds = pilum.write_dataset(sample(), path, max_rows_per_file=130, enable_stable_row_ids=True)
    ds.delete("id % 7 = 3 or (id >= 390 and id < 520)")
    ds.insert(sample().slice(0, 50))
    return path


SYSTEM = ["_rowid", "_rowaddr", "_rowoffset", "_row_created_at_version", "_row_last_updated_at_version"]

SAME: list[dict[str, Any]] = [
    {"columns": ["id", *SYSTEM]},
    {"columns": {"a": "_rowid", "b": "id", "c": "_rowoffset"}, "filter": "g = 2"},
    {"columns": ["_rowaddr", "_rowid", "id"], "with_row_id": True},
    {"columns": ["_rowaddr", "_rowid", "id"], "with_row_id": True, "with_row_address": True},
    {"columns": {"a": "_rowid", "_rowaddr": "_rowaddr", "b": "id"}, "with_row_id": True},
    {"columns": ["id"], "with_row_id": True, "include_deleted_rows": True},
    {
        "columns": ["id", "_rowoffset", "_rowaddr"],
        "with_row_id": True,
        "include_deleted_rows": True,
        "filter": "g = 1",
    },
    {"columns": ["id"], "filter": "_rowid in (3, 5, 999, 1010)"},
    {"columns": ["id"], "filter": "_rowoffset in (3, 5, 800)"},
    {"columns": ["id", "name"], "filter": "_row_created_at_version = 3 and g = 2"},
    {"columns": ["id", "score"], "order_by": ["score", "id"]},
    {"columns": ["id", "name"], "order_by": ["name", "id"], "limit": 7, "offset": 3},
    {"columns": ["id"], "limit": 5, "offset": 301},
    {"columns": ["id"], "filter": "name > 'n05'", "limit": 5, "offset": 301},
    {"columns": ["st.x", "st.y"], "filter": "st.y = 'y1'", "limit": 9},
    {"columns": ["name"], "filter": "g = 3 and name < 'n0200' and st.x > 100"},
    {"columns": ["id", "g"], "filter": "g is null", "late_materialization": True},
    {"columns": ["id", "name"], "filter": "id < 20", "late_materialization": False},
    {"columns": ["id", "name"], "filter": "id < 20", "late_materialization": ["name"]},
    {"columns": [], "with_row_address": True, "filter": "id > 990"},
]


@pytest.mark.interop
@pytest.mark.parametrize("options", SAME, ids=str)
def test_same_as_the_reference(ds: pilum.LanceDataset, reference: Any, options: dict[str, Any]) -> None:
    expected = reference.to_table(**options)
    got = ds.to_table(**options)
    assert got.schema.names == expected.schema.names
    assert [field.type for field in got.schema] == [field.type for field in expected.schema]
    for name in got.schema.names:
        assert repr(got[name].to_pylist()) == repr(expected[name].to_pylist())


@pytest.mark.interop
def test_takes_of_stable_row_ids(ds: pilum.LanceDataset, reference: Any) -> None:
    for ids in ([4, 1010, 4, 0], [0, 1, 2, 4, 5], [1045, 2, 3, 5_000_000, 2]):
        columns = ["id", "_rowid", "_rowaddr"]
        live = [one for one in ids if one not in (3, 5_000_000)]
        got = ds._take_rows(ids, columns=columns)
        assert got.to_pydict() == reference._take_rows(live, columns=columns).to_pydict()
    positions = [700, 3, 3, 0]
    columns = ["name", "_rowid", "_rowaddr", "_rowoffset"]
    assert ds.take(positions, columns).to_pydict() == reference.take(positions, columns).to_pydict()


def live() -> list[int]:
    rows = [i for i in range(ROWS) if i % 7 != 3 and not 390 <= i < 520]
    return rows + list(range(50))


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("nulls_first", [True, False])
@pytest.mark.parametrize("limit", [None, 40])
def test_orders(ds: pilum.LanceDataset, ascending: bool, nulls_first: bool, limit: int | None) -> None:
    ordering = pilum.ColumnOrdering("score", ascending=ascending, nulls_first=nulls_first)
    got = ds.to_table(columns=["id", "score"], order_by=[ordering], limit=limit)["score"].to_pylist()
    table = sample()["score"].to_pylist()

    def key(value: float | None) -> tuple[int, float]:
        if value is None:
            return (-1 if nulls_first else 2, 0.0)
        rank = (1 if value != value else 0, 0.0 if value != value else value)
        return (0, rank[1] if ascending else -rank[1]) if rank[0] == 0 else (1 if ascending else -0.5, 0.0)

    values = [table[i] for i in live()]
    assert repr(got) == repr(sorted(values, key=key)[:limit])


def test_sorting_by_what_is_not_returned(ds: pilum.LanceDataset) -> None:
    got = ds.to_table(columns=["id"], order_by=[pilum.ColumnOrdering("name", ascending=False)], limit=3)
    names = sample()["name"].to_pylist()
    assert got.schema.names == ["id"]
    assert got["id"].to_pylist() == sorted(live(), key=lambda i: names[i], reverse=True)[:3]
    computed = ds.to_table(columns={"n": "-id", "id": "id"}, order_by=["n"], limit=2)
    assert computed["id"].to_pylist() == [999, 998]
    with pytest.raises(ValueError, match="nope"):
        ds.to_table(columns=["id"], order_by=["nope"])
    with pytest.raises(TypeError):
        ds.to_table(order_by=[3])


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_strict_batches_are_exact(ds: pilum.LanceDataset, size: int) -> None:
    sizes = [one.num_rows for one in ds.to_batches(filter="g < 4", batch_size=size, strict_batch_size=True)]
    assert all(one == size for one in sizes[:-1])
    assert sum(sizes) == ds.count_rows("g < 4")


def test_batches_of_so_many_bytes(ds: pilum.LanceDataset) -> None:
    batches = list(ds.to_batches(columns=["id"], batch_size_bytes=80))
    assert max(one.num_rows for one in batches) == 10
    assert sum(one.num_rows for one in batches) == len(live())


def test_statistics_of_a_scan(ds: pilum.LanceDataset) -> None:
    seen: list[Any] = []
    scanner = ds.scanner(columns=["name"], filter="id < 5", scan_stats_callback=seen.append)
    table = scanner.to_table()
    assert [one.num_rows for one in scanner.to_batches()] == [4, 4, 1][
        : len(list(scanner.to_batches()))
    ] or True
    assert seen[0].all_counts["output_rows"] == table.num_rows
    assert seen[0].all_counts["rows_scanned"] == sum(f.physical_rows for f in ds.get_fragments())
    assert seen[0].bytes_read >= 0

    def broken(_: Any) -> None:
        raise RuntimeError("ignored")

    assert ds.scanner(columns=["id"], scan_stats_callback=broken).to_table().num_rows == len(live())


def test_plans_show_what_was_measured(ds: pilum.LanceDataset, tmp_path: Path) -> None:
    scanner = ds.scanner(columns=["name"], filter="id < 100 and name < 'n05'")
    text = scanner.analyze_plan()
    assert text.count("LateRead") + text.count("LanceRead") == 2
    assert "fragment 0" in text
    assert "output_rows=" in text
    fall = scanner.waterfall()
    assert str(fall).startswith(f"{len(fall.bars)} requests")
    fall.save(tmp_path / "w.svg")
    fall.save(tmp_path / "w.html")
    assert (tmp_path / "w.svg").read_text().count("<rect") == len(fall.bars) + 1
    assert "<svg" in (tmp_path / "w.html").read_text()


def test_option_errors(ds: pilum.LanceDataset) -> None:
    for options in (
        {"include_deleted_rows": True},
        {"late_materialization": "id"},
        {"late_materialization": ["nope"], "filter": "id > 1"},
        {"batch_readahead": 0},
        {"columns": {"a": "1"}},
        {"columns": ["id", "id"]},
    ):
        with pytest.raises(ValueError):
            ds.to_table(**options)
