"""Other programs take a dataset for an Arrow dataset: DuckDB, Polars, DataFusion, pandas, Arrow streams; pickling."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import pilum
from tests.support import REPOSITORY

ROWS = 1000


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pa.table(
        {
            "id": range(ROWS),
            "x": [None if i % 7 == 0 else i / 3 for i in range(ROWS)],
            "s": [f"n{i % 10}" for i in range(ROWS)],
            "st": [{"p": i % 5} for i in range(ROWS)],
            "d": pa.array([i % 100 for i in range(ROWS)], pa.date32()),
            "b": [None if i % 11 == 0 else i % 3 == 0 for i in range(ROWS)],
        }
    )


@pytest.fixture(scope="module")
def ds(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> pilum.LanceDataset:
    uri = tmp_path_factory.mktemp("integration") / "t.lance"
    made = pilum.write_dataset(table, uri, max_rows_per_file=300)
    made.delete("id % 10 = 3")
    return made


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of every scan that is made."""
    seen: list[dict[str, Any]] = []
    original = pilum.LanceDataset.scanner

    def scanner(self: Any, *args: Any, **options: Any) -> Any:
        seen.append({**dict(zip(("columns", "filter"), args, strict=False)), **options})
        return original(self, *args, **options)

    monkeypatch.setattr(pilum.LanceDataset, "scanner", scanner)
    return seen


def live(table: pa.Table) -> pa.Table:
    return table.filter(
        pc.not_equal(pc.subtract(table["id"], pc.multiply(pc.divide(table["id"], 10), 10)), 3)
    )


QUERIES = [
    "select count(*) from ds",
    "select id, x from ds where id > 990 order by id",
    "select s, count(*), sum(id) from ds where s in ('n1', 'n2') or x is null group by s order by s",
    "select id from ds where st.p = 2 and id < 30 order by id",
    "select id from ds where d > DATE '1970-03-01' and id between 5 and 80 order by id",
    "select count(*) from ds where s like 'n1%' and x > 3.5",
    "select max(id), min(x) from ds where x is not null and s = 'n4'",
    "select id from ds where not (s = 'n1' or s = 'n2') and b order by id limit 7 offset 3",
    "select a.id from ds a join ds b on a.id = b.id + 900 where b.s <> 'n5' order by a.id",
    "select count(*) from ds where b is null",
    "select id from ds where id in (1, 5, 900, 12345) order by 1",
    "select count(*) from ds where x <> 2.0 and (id < 100 or id >= 950)",
]


@pytest.mark.parametrize("query", QUERIES)
def test_duckdb(ds: Any, table: pa.Table, query: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    found = connection.execute(query).fetchall()  # it finds `ds` in this frame
    connection.register("ds", live(table))
    assert found == connection.execute(query).fetchall()


def test_duckdb_pushes_columns_and_filters_down(ds: Any, scans: list[dict[str, Any]]) -> None:
    duckdb = pytest.importorskip("duckdb")
    ds = pilum.dataset(ds.uri)  # opened while DuckDB is there
    duckdb.connect().execute("select s from ds where id > 990 and x is not null").fetchall()
    assert set(scans[-1]["columns"]) <= {"s", "id", "x"}
    assert scans[-1]["filter"] is not None


def test_polars(ds: Any, table: pa.Table, scans: list[dict[str, Any]]) -> None:
    pl = pytest.importorskip("polars")
    lazy, expected = pl.scan_pyarrow_dataset(ds), pl.from_arrow(live(table))
    for predicate in (
        pl.col("id") > 990,
        (pl.col("s") == "n1") & pl.col("x").is_not_null(),
        pl.col("id").is_in([1, 2, 3]) | (pl.col("x") < 5),
        pl.col("s").str.to_uppercase() == "N4",
        ~pl.col("b"),
    ):
        found = lazy.filter(predicate).select("id", "s").collect()
        assert found.equals(expected.filter(predicate).select("id", "s"))
    assert any(one.get("filter") is not None for one in scans)
    assert pl.DataFrame(ds).shape == (900, 6)


def test_datafusion(ds: Any, table: pa.Table) -> None:
    datafusion = pytest.importorskip("datafusion")
    context = datafusion.SessionContext()
    context.register_dataset("ds", ds)
    query = "select count(*) as c, sum(id) as s from ds where id > 900 and s = 'n1'"
    assert context.sql(query).to_pydict() == {"c": [10], "s": [9460]}
    assert context.sql("select count(*) as c from ds").to_pydict() == {"c": [900]}
    assert context.from_arrow(ds).count() == 900


def test_arrow_streams_and_pandas(ds: Any, table: pa.Table) -> None:
    expected = live(table)
    assert pa.table(ds).equals(expected)
    assert pa.RecordBatchReader.from_stream(ds).read_all().equals(expected)
    assert pa.schema(ds) == ds.schema
    scanner = ds.scanner(columns=["id"], filter="id < 5")
    assert pa.table(scanner)["id"].to_pylist() == [0, 1, 2, 4]
    assert pa.schema(scanner) == scanner.projected_schema
    assert ds.to_pandas(columns=["id"], filter="id < 5")["id"].tolist() == [0, 1, 2, 4]
    copy = pilum.write_dataset(ds, "memory://integration-copy")
    assert copy.to_table().equals(expected)


def test_it_poses_only_when_pyarrow_dataset_is_there(ds: Any) -> None:
    code = (
        "import sys, pilum, pyarrow as pa, pickle\n"
        "ds = pilum.write_dataset(pa.table({'a': [1, 2]}), 'memory://poses')\n"
        "assert 'pyarrow.dataset' not in sys.modules and isinstance(ds, pilum.LanceDataset)\n"
        "import pyarrow.dataset as arrow\n"
        "fragment, scanner = ds.get_fragments()[0], ds.scanner()\n"
        "assert isinstance(ds, arrow.Dataset) and isinstance(ds, pilum.LanceDataset)\n"
        "assert isinstance(fragment, arrow.Fragment) and isinstance(scanner, arrow.Scanner)\n"
        "assert not isinstance(ds, arrow.Scanner) and type(ds) is pilum.LanceDataset\n"
        "later = pickle.loads(pickle.dumps(ds))\n"
        "assert isinstance(later, pilum.LanceDataset) and issubclass(type(later), arrow.Dataset)\n"
        "assert later.to_table().equals(ds.to_table()) and type(later).__name__ == 'LanceDataset'\n"
        "assert isinstance(pickle.loads(pickle.dumps(later)), arrow.Dataset)\n"
        "own = [name for name in dir(arrow.Dataset) if not name.startswith('_')]\n"
        "assert all(getattr(type(later), name) is not getattr(arrow.Dataset, name) for name in own), own\n"
        "own = [name for name in dir(arrow.Scanner) if not name.startswith('_')]\n"
        "assert all(getattr(type(later.scanner()), name) is not getattr(arrow.Scanner, name) for name in own), own\n"
        "own = [name for name in dir(arrow.Fragment) if not name.startswith('_')]\n"
        "kind = type(later.get_fragments()[0])\n"
        "assert all(getattr(kind, name) is not getattr(arrow.Fragment, name) for name in own), own\n"
        "for broken in (lambda: later.join(ds, 'a'), lambda: ds.sort_by('a'), lambda: later.filter(None)):\n"
        "    try:\n        broken()\n    except NotImplementedError:\n        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_pickles(ds: Any) -> None:
    again = pickle.loads(pickle.dumps(ds))
    assert (again.uri, again.version) == (ds.uri, ds.version)
    assert again.to_table().equals(ds.to_table())
    fragment = pickle.loads(pickle.dumps(ds.get_fragments()[1]))
    assert fragment.fragment_id == 1
    assert pickle.loads(pickle.dumps(fragment.metadata)) == fragment.metadata
    assert pickle.loads(pickle.dumps(ds.lance_schema)) == ds.lance_schema
    assert pickle.loads(pickle.dumps(ds.read_transaction(1))).uuid == ds.read_transaction(1).uuid
    assert ds != again
    assert len({ds, again}) == 2


def test_a_branch_and_its_defaults_pickle(tmp_path: Path) -> None:
    pilum.write_dataset(pa.table({"a": [1]}), tmp_path / "t.lance")
    opened = pilum.dataset(tmp_path / "t.lance", default_scan_options={"with_row_id": True})
    branch = opened.create_branch("side/one")
    branch.insert(pa.table({"a": [2]}))
    again = pickle.loads(pickle.dumps(branch))
    assert again.uri == opened.uri
    assert again.to_table().to_pydict() == {"a": [1, 2], "_rowid": [0, 1 << 32]}


def test_it_shows_itself_without_reading(ds: Any) -> None:
    before = ds.io_stats_snapshot()
    text, html = repr(ds), ds._repr_html_()
    assert ds.io_stats_snapshot() == before
    assert text == f"LanceDataset(uri={ds.uri!r}, version=2, fragments=4, rows=900)"
    for part in ("LanceDataset", ds.uri, "900", "100 deleted", "struct&lt;p: int64&gt;"):
        assert part in html
    assert "id=0" in repr(ds.get_fragments()[0])
    assert "AsyncLanceDataset" in repr(ds.aio)
