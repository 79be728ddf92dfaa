"""Writing, scanning, taking, deleting and versions through the public API, in memory and on disk."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import pilum
from pilum.errors import NotFoundError


def sample(rows: int = 1000) -> pa.Table:
    rng = np.random.default_rng(7)
    return pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "x": pa.array(rng.standard_normal(rows)),
            "small": pa.array([None if i % 7 == 0 else i % 50 for i in range(rows)], pa.int32()),
            "name": pa.array([None if i % 11 == 0 else f"name {i}" for i in range(rows)]),
            "flag": pa.array([i % 3 == 0 for i in range(rows)]),
            "point": pa.array(
                [None if i % 13 == 0 else {"lat": i / 10, "tag": f"t{i % 5}"} for i in range(rows)],
                pa.struct([("lat", pa.float32()), ("tag", pa.string())]),
            ),
            "vec": pa.FixedSizeListArray.from_arrays(
                pa.array(rng.standard_normal(rows * 8).astype(np.float32)), 8
            ),
        }
    )


@pytest.fixture(params=["disk", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "table.lance")
    return f"memory://{tmp_path.name}-{request.node.name.replace('[', '-').replace(']', '')}"


def test_round_trip_over_fragments(uri: str) -> None:
    table = sample()
    written = pilum.write_dataset(table, uri, max_rows_per_file=300)
    assert [one.physical_rows for one in written.get_fragments()] == [300, 300, 300, 100]
    opened = pilum.dataset(uri)
    assert opened.version == 1
    assert opened.schema == table.schema
    assert opened.to_table().equals(table)
    assert opened.count_rows() == len(opened) == 1000


@pytest.mark.parametrize("version", ["2.1", "2.2", "stable"])
def test_both_file_versions(uri: str, version: str) -> None:
    table = sample(100)
    ds = pilum.write_dataset(table, uri, data_storage_version=version)
    assert ds.data_storage_version == ("2.2" if version == "stable" else version)
    assert pilum.dataset(uri).to_table().equals(table)


def test_projection_filter_limit(uri: str) -> None:
    table = sample()
    ds = pilum.write_dataset(table, uri, max_rows_per_file=128)
    got = ds.to_table(columns=["name", "id"], filter="id >= 500 AND flag", limit=10, offset=3)
    expected = table.filter((pc.field("id") >= 500) & pc.field("flag")).select(["name", "id"]).slice(3, 10)
    assert got.equals(expected)
    assert ds.to_table(columns=["point.tag"]).column_names == ["point.tag"]
    assert ds.to_table(columns={"twice": "id * 2"}, limit=3)["twice"].to_pylist() == [0, 2, 4]
    assert ds.to_table(filter=pc.field("small") == 7).equals(table.filter(pc.field("small") == 7))
    assert ds.head(5).equals(table.slice(0, 5))
    assert ds.slice(990, 2000).equals(table.slice(990))
    assert ds.to_table(limit=0).num_rows == 0
    assert ds.to_table(offset=5000).num_rows == 0
    assert ds.count_rows("small IS NULL") == sum(i % 7 == 0 for i in range(1000))


def test_batches_are_bounded_and_in_order(uri: str) -> None:
    table = sample()
    ds = pilum.write_dataset(table, uri, max_rows_per_file=400)
    batches = list(ds.to_batches(batch_size=150))
    assert [batch.num_rows for batch in batches] == [150, 150, 100, 150, 150, 100, 150, 50]
    assert pa.Table.from_batches(batches).equals(table)
    reader = ds.scanner(columns=["id"]).to_reader()
    assert reader.read_all()["id"].to_pylist() == list(range(1000))


def test_abandoned_stream_leaves_the_dataset_usable(uri: str) -> None:
    ds = pilum.write_dataset(sample(), uri, max_rows_per_file=10)
    stream = iter(ds.to_batches())
    next(stream)
    del stream
    assert ds.count_rows("id >= 0") == 1000


def test_row_ids_and_addresses(uri: str) -> None:
    ds = pilum.write_dataset(sample(25), uri, max_rows_per_file=10)
    got = ds.to_table(columns=["id"], with_row_id=True, with_row_address=True)
    expected = [(i // 10 << 32) + i % 10 for i in range(25)]
    assert got["_rowid"].to_pylist() == expected
    assert got["_rowaddr"].to_pylist() == expected
    assert ds.to_table(columns=["id"], filter=f"_rowid = {expected[13]}")["id"].to_pylist() == [13]
    assert ds.to_table(columns=[], with_row_id=True).column_names == ["_rowid"]
    assert ds._take_rows([expected[20], expected[3]], columns=["id"])["id"].to_pylist() == [20, 3]


def test_take_keeps_order_and_duplicates(uri: str) -> None:
    table = sample()
    ds = pilum.write_dataset(table, uri, max_rows_per_file=100)
    rows = [999, 0, 5, 5, 500, 501, 502, 3]
    assert ds.take(rows).equals(table.take(rows))
    assert ds.take([]).equals(table.slice(0, 0))
    assert ds.take(pa.array([1, 2]), columns=["name"]).equals(table.select(["name"]).take([1, 2]))
    with pytest.raises(OSError, match="out of range"):
        ds.take([1000])
    with pytest.raises(OverflowError):
        ds.take([-1])


def test_delete_then_read_everything_again(uri: str) -> None:
    table = sample()
    ds = pilum.write_dataset(table, uri, max_rows_per_file=100)
    assert ds.delete("id % 3 = 0 OR (id >= 200 AND id < 300)") == {"num_deleted_rows": 334 + 67}
    keep = [i for i in range(1000) if i % 3 and not 200 <= i < 300]
    left = table.take(keep)
    assert ds.version == 2
    for opened in (ds, pilum.dataset(uri)):
        assert opened.to_table().equals(left)
        assert opened.count_rows() == len(keep)
        assert len(opened.get_fragments()) == 9
        assert opened.take([0, 599 - 1, 10]).equals(left.take([0, 598, 10]))
        assert opened.to_table(offset=77, limit=200).equals(left.slice(77, 200))
        assert opened.count_rows("id < 500") == sum(i < 500 for i in keep)
    assert ds.delete("id < 5") == {"num_deleted_rows": 3}
    assert ds.delete("false") == {"num_deleted_rows": 0}
    assert ds.version == 4
    assert ds.delete("true")["num_deleted_rows"] == len(keep) - 3
    assert ds.count_rows() == 0
    assert ds.to_table().num_rows == 0
    assert pilum.dataset(uri, version=1).to_table().equals(table)


def test_modes_and_versions(uri: str) -> None:
    table = sample(50)
    ds = pilum.write_dataset(table, uri)
    with pytest.raises(OSError, match="already exists"):
        pilum.write_dataset(table, uri)
    ds = pilum.write_dataset(table.slice(0, 10), uri, mode="append")
    assert (ds.version, ds.count_rows()) == (2, 60)
    ds = pilum.write_dataset(pa.table({"other": [1]}), uri, mode="overwrite")
    assert ds.version == 3
    assert ds.schema.names == ["other"]
    assert ds.checkout_version(2).count_rows() == 60
    assert [one["version"] for one in ds.versions()] == [1, 2, 3]
    assert [one["metadata"]["total_rows"] for one in ds.versions()] == ["50", "60", "1"]
    with pytest.raises(ValueError):
        ds.checkout_version(9)
    old = pilum.dataset(uri, version=1)
    assert old.latest_version == 3
    old.checkout_latest()
    assert old.version == 3
    with pytest.raises(ValueError):
        pilum.write_dataset(table, uri, mode="upsert")


def test_append_matches_columns_by_name(uri: str) -> None:
    ds = pilum.write_dataset(pa.table({"a": [1, 2], "b": ["x", "y"]}), uri)
    ds.insert(pa.table({"b": ["z"], "a": [3]}))
    ds.insert(pa.table({"a": [4]}))
    assert ds.to_table().to_pydict() == {"a": [1, 2, 3, 4], "b": ["x", "y", "z", None]}
    assert ds.to_table(filter="b IS NULL")["a"].to_pylist() == [4]
    assert ds.take([3, 0]).to_pydict() == {"a": [4, 1], "b": [None, "x"]}
    with pytest.raises(OSError, match="no column 'c'"):
        ds.insert(pa.table({"a": [1], "c": [1]}))
    with pytest.raises(OSError, match="int32"):
        ds.insert(pa.table({"a": pa.array([1], pa.int32())}))


def test_inputs(uri: str) -> None:
    pandas = pytest.importorskip("pandas")
    schema = pa.schema([("a", pa.int64())])
    inputs: list[Any] = [
        pa.table({"a": [1]}),
        pa.record_batch({"a": [1]}),
        pa.RecordBatchReader.from_batches(schema, [pa.record_batch({"a": [1]})]),
        [{"a": 1}],
        {"a": [1]},
        pandas.DataFrame({"a": [1]}),
    ]
    ds = pilum.write_dataset([], uri, schema=schema)
    assert ds.count_rows() == 0
    for data in inputs:
        ds.insert(data)
    ds.insert(iter([pa.record_batch({"a": [1]})]), schema=schema)
    ds.insert(ds.scanner())
    assert ds.to_table().to_pydict() == {"a": [1] * 14}
    for bad in (None, 5):
        with pytest.raises(TypeError):
            ds.insert(bad)
    for unclear in ([], iter([pa.record_batch({"a": [1]})]), "text"):
        with pytest.raises(ValueError, match="schema"):
            ds.insert(unclear)


def test_empty_table(uri: str) -> None:
    table = sample(0)
    ds = pilum.write_dataset(table, uri)
    assert ds.to_table().equals(table)
    assert ds.count_rows("id > 0") == 0
    assert list(ds.to_batches()) == []
    found = ds.to_table(nearest={"column": "vec", "q": [0.0] * 8})
    assert found.num_rows == 0


def test_schema_errors(uri: str) -> None:
    for names, message in ((["a", "a"], "twice"), (["a.b"], "dot"), (["_rowid"], "reserved")):
        table = pa.Table.from_arrays([pa.array([1])] * len(names), names=names)
        with pytest.raises(OSError, match=message):
            pilum.write_dataset(table, uri)
    required = pa.table({"a": [1, None]}, schema=pa.schema([pa.field("a", pa.int64(), nullable=False)]))
    with pytest.raises(OSError, match="not nullable"):
        pilum.write_dataset(required, uri)
    with pytest.raises(ValueError):
        pilum.dataset(uri)


def test_query_errors_name_what_is_wrong(uri: str) -> None:
    ds = pilum.write_dataset(sample(10), uri)
    with pytest.raises(ValueError, match="did you mean 'name'"):
        ds.to_table(columns=["nam"])
    with pytest.raises(ValueError, match="twice"):
        ds.to_table(columns=["id", "id"])
    with pytest.raises(ValueError):
        ds.to_table(filter="nope > 3")
    with pytest.raises(TypeError, match="colums"):
        ds.to_table(colums=["id"])
    with pytest.raises(TypeError):
        ds.to_table(limit=1.5)
    with pytest.raises(ValueError):
        ds.to_table(limit=-1)
    with pytest.raises(ValueError):
        ds.to_table(batch_size=0)


def test_fragments(uri: str) -> None:
    table = sample(250)
    ds = pilum.write_dataset(table, uri, max_rows_per_file=100)
    middle = ds.get_fragments()[1]
    assert middle.fragment_id == 1
    assert middle.to_table().equals(table.slice(100, 100))
    assert middle.count_rows("id < 150") == 50
    assert middle.take([0, 99], columns=["id"])["id"].to_pylist() == [100, 199]
    with pytest.raises(OSError):
        middle.take([5, 5])
    assert ds.get_fragment(7) is None
    assert ds.to_table(columns=["id"], fragments=[middle])["id"].to_pylist() == list(range(100, 200))


def test_pickle_is_small_and_opens_the_same_version(tmp_path: Path) -> None:
    ds = pilum.write_dataset(sample(100), tmp_path / "t.lance", max_rows_per_file=1)
    pilum.write_dataset(sample(10), tmp_path / "t.lance", mode="append")
    data = pickle.dumps(ds)
    assert len(data) <= 2048
    again = pickle.loads(data)
    assert again.version == 1
    assert again.to_table().equals(ds.to_table())


def test_failed_input_leaves_the_old_version_and_no_files(tmp_path: Path) -> None:
    uri = tmp_path / "t.lance"
    ds = pilum.write_dataset(pa.table({"a": [1]}), uri)
    before = sorted(path.name for path in (uri / "data").iterdir())

    def batches() -> Any:
        yield pa.record_batch({"a": list(range(100))})
        raise ZeroDivisionError("input broke")

    with pytest.raises(ZeroDivisionError):
        ds.insert(batches(), schema=pa.schema([("a", pa.int64())]), max_rows_per_file=10)
    assert pilum.dataset(uri).to_table().to_pydict() == {"a": [1]}
    assert sorted(path.name for path in (uri / "data").iterdir()) == before


def test_explain_and_analyze(uri: str) -> None:
    ds = pilum.write_dataset(sample(), uri, max_rows_per_file=100)
    text = ds.scanner(columns=["name"], filter="id > 5", limit=3).explain_plan()
    for part in ("Project", "Limit", "LateRead", "Filter", "LanceRead", "num_fragments=10"):
        assert part in text
    measured = ds.scanner(columns=["id"]).analyze_plan()
    assert "output_rows=1000" in measured
    assert "requests=" in measured


def test_io_counters(uri: str) -> None:
    pilum.write_dataset(sample(), uri, max_rows_per_file=100)
    ds = pilum.dataset(uri)
    ds.io_stats_incremental()
    ds.to_table(columns=["id"])
    stats = ds.io_stats_incremental()
    assert stats.read_iops >= 10
    assert stats.read_bytes > 0
    assert ds.io_stats_snapshot().read_iops == 0


def test_many_rows_of_lists_and_nulls(tmp_path: Path) -> None:
    """Enough of them that compiled kernels decode the levels of many chunks."""
    rows = 400_000
    random = np.random.default_rng(0)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(random.integers(0, 5, rows), out=offsets[1:])
    items = pa.array(random.integers(0, 1000, int(offsets[-1])))
    table = pa.table(
        {
            "list": pa.ListArray.from_arrays(offsets, items),
            "text": pa.array([f"{value:012x}" for value in random.integers(0, 1 << 40, rows).tolist()]),
            "nullable": pa.array(random.integers(0, 1 << 40, rows), mask=random.random(rows) < 0.2),
        }
    )
    ds = pilum.write_dataset(table, tmp_path / "t.lance")
    for _ in range(2):
        assert ds.to_table().equals(table)
    some = random.integers(0, rows, 1000)
    assert ds.take(some).equals(table.take(pa.array(some)))


@pytest.mark.parametrize("read_version", [0, 1, 7])
def test_only_an_overwrite_creates_a_dataset(tmp_path: Path, read_version: int) -> None:
    with pytest.raises(NotFoundError, match="only an Overwrite operation creates one"):
        pilum.LanceDataset.commit(
            str(tmp_path / "t.lance"), pilum.LanceOperation.Append([]), read_version=read_version
        )
