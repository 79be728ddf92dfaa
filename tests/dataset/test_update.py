"""Updates of rows: what they change, what they refuse, beside other writers, and with the reference."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import pilum
import pilum.aio
from pilum.errors import CommitConflictError, InvalidInputError, UnsupportedError

ENGINES = ["pilum", "lance"]


def engine(name: str) -> Any:
    return pilum if name == "pilum" else pytest.importorskip("lance")


def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(6), pa.int64()),
            "s": list("abcdef"),
            "v": pa.array([1.0, 2, 3, 4, 5, 6.5], pa.float32()),
            "n": pa.array([1, 2, None, 4, 5, 6], pa.int8()),
            "st": pa.array([{"a": 1, "b": "x"}] * 6),
        }
    )


def written(tmp_path: Path, **options: Any) -> pilum.LanceDataset:
    return pilum.write_dataset(table(), tmp_path / "t.lance", max_rows_per_file=3, **options)


@pytest.fixture(params=["2.0", "2.1", "2.2"])
def ds(request: pytest.FixtureRequest, tmp_path: Path) -> pilum.LanceDataset:
    return written(tmp_path, data_storage_version=request.param)


def test_matching_rows_move_with_new_values(ds: pilum.LanceDataset) -> None:
    assert ds.update({"v": "v + 10", "s": "s || id"}, where="id >= 2 AND id < 5") == {"num_rows_updated": 3}
    found = ds.to_table().to_pydict()
    assert found["id"] == [0, 1, 5, 2, 3, 4]
    assert found["s"] == ["a", "b", "f", "c2", "d3", "e4"]
    assert found["v"] == [1, 2, 6.5, 13, 14, 15]
    assert found["n"] == [1, 2, 6, None, 4, 5]
    assert [(one.fragment_id, one.num_deletions) for one in ds.get_fragments()] == [(0, 1), (1, 2), (2, 0)]
    operation = ds.read_transaction(ds.version).operation
    assert isinstance(operation, pilum.LanceOperation.Update)
    assert operation.fields_for_preserving_frag_bitmap == [1, 2]
    assert operation.update_mode == "rewrite_rows"
    ds.validate()


def test_all_rows_and_no_rows(ds: pilum.LanceDataset) -> None:
    version = ds.version
    assert ds.update({"s": "'z'"}, where="id > 100") == {"num_rows_updated": 0}
    assert ds.version == version + 1
    assert ds.to_table().equals(pa.table(table()))
    assert ds.update({"s": "'z'", "id": "7", "v": "0", "n": "NULL"}) == {"num_rows_updated": 6}
    assert [one.fragment_id for one in ds.get_fragments()] == [2]
    rows = ds.to_table(columns=["id", "s", "v", "n"]).to_pylist()
    assert rows == [{"id": 7, "s": "z", "v": 0.0, "n": None}] * 6
    if ds.data_storage_version != "2.0":  # which has no null structs
        ds.update({"st": "NULL"})
        assert ds.to_table()["st"].null_count == 6


def test_rows_that_were_deleted_stay_deleted(ds: pilum.LanceDataset) -> None:
    ds.delete("id = 1")
    ds.update({"n": "9"}, where=pc.field("id") < 3)
    assert ds.to_table(columns=["id", "n"]).to_pydict() == {"id": [3, 4, 5, 0, 2], "n": [4, 5, 6, 9, 9]}


def test_values_are_cast_as_the_reference_does(ds: pilum.LanceDataset) -> None:
    ds.update({"id": "1.7", "s": "5", "v": "id"})
    row = ds.to_table().to_pylist()[3]
    assert (row["id"], row["s"], row["v"]) == (1, "5", 3.0)
    ds.update({"id": "'12'", "s": "id"})
    assert ds.to_table().to_pylist()[0]["id"] == 12
    assert ds.to_table().to_pylist()[0]["s"] == "1"


@pytest.mark.parametrize(
    ("updates", "where", "message"),
    [
        ({}, None, "no column is given"),
        ({"nope": "1"}, None, "nope"),
        ({"_rowid": "1"}, None, "_rowid"),
        ({"st.a": "1"}, None, "st.a"),
        ({"v": "blah blah"}, None, "blah"),
        ({"v": "'abc'"}, None, "'v'"),
        ({"n": "300"}, "id > 100", "'n'"),
        ({"n": "id * 100"}, None, "'n'"),
        ({"v": "1"}, "nope = 1", "nope"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    tmp_path: Path, updates: dict[str, str], where: str | None, message: str
) -> None:
    ds = written(tmp_path)
    with pytest.raises((InvalidInputError, ValueError), match=message):
        ds.update(updates, where)
    assert pilum.dataset(ds.uri).version == 1
    assert len(list((tmp_path / "t.lance" / "data").iterdir())) == 2


def test_types_of_arguments(tmp_path: Path) -> None:
    ds = written(tmp_path)
    with pytest.raises(TypeError):
        ds.update({"v": 5})  # type: ignore[dict-item]
    with pytest.raises(UnsupportedError, match="data_storage_version"):
        ds.update({"v": "5"}, data_storage_version="2.0")


def test_required_columns_take_no_nulls(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("a", pa.int32(), nullable=False)])
    ds = pilum.write_dataset(pa.table({"a": [1, 2]}, schema=schema), tmp_path / "t.lance")
    with pytest.raises(InvalidInputError, match="not nullable"):
        ds.update({"a": "NULL"})
    assert ds.update({"a": "a + 1"}) == {"num_rows_updated": 2}


def test_rows_keep_their_stable_ids_and_their_history(tmp_path: Path) -> None:
    ds = written(tmp_path, enable_stable_row_ids=True)
    ds.update({"s": "'z'"}, where="id IN (1, 4)")
    ds.update({"s": "'y'"}, where="id IN (1, 5)")
    found = ds.to_table(columns=["id", "_rowid", "_row_created_at_version", "_row_last_updated_at_version"])
    rows = {row["id"]: row for row in found.to_pylist()}
    assert all(row["_rowid"] == number for number, row in rows.items())
    assert {row["_row_created_at_version"] for row in rows.values()} == {1}
    assert [rows[one]["_row_last_updated_at_version"] for one in range(6)] == [1, 3, 1, 1, 2, 3]
    ds.validate()
    lance = pytest.importorskip("lance")
    theirs = lance.dataset(ds.uri)
    assert theirs.to_table(with_row_id=True).to_pydict() == ds.to_table(with_row_id=True).to_pydict()
    assert theirs._take_rows([1, 4, 5]).to_pydict() == ds._take_rows([1, 4, 5]).to_pydict()


@pytest.mark.interop
@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("name", ENGINES)
def test_both_engines_do_the_same(tmp_path: Path, name: str, stable: bool) -> None:
    """One engine updates, deletes and appends in turns; the other reads, and goes on."""
    first, second = engine(name), engine("lance" if name == "pilum" else "pilum")
    results = []
    for one, other in ((first, second), (second, first)):
        uri = str(tmp_path / f"{one.__name__}.lance")
        one.write_dataset(table(), uri, max_rows_per_file=3, enable_stable_row_ids=stable)
        one.dataset(uri).update({"v": "v * 2", "s": "upper(s)"}, where="id % 2 = 0")
        other.dataset(uri).update({"n": "id"}, where="n IS NULL OR id = 5")
        one.dataset(uri).delete("id = 3")
        other.write_dataset(table(), uri, mode="append")
        one.dataset(uri).update({"id": "id + 100"}, where="s = 'A' OR s = 'a'")
        assert (
            one.dataset(uri).to_table(with_row_id=True).to_pydict()
            == other.dataset(uri).to_table(with_row_id=True).to_pydict()
        )
        results.append(other.dataset(uri).to_table(with_row_id=True).to_pydict())
    assert results[0] == results[1]


@pytest.mark.interop
@pytest.mark.parametrize("mine", ENGINES)
@pytest.mark.parametrize("theirs", ENGINES)
def test_concurrent_updates_of_other_rows_both_stand(tmp_path: Path, mine: str, theirs: str) -> None:
    uri = str(written(tmp_path).uri)
    stale = engine(mine).dataset(uri)
    engine(theirs).dataset(uri).update({"s": "'theirs'"}, where="id = 0")
    engine(theirs).dataset(uri).delete("id = 4")
    stale.update({"s": "'mine'"}, where="id IN (1, 5)")
    found = dict(zip(*pilum.dataset(uri).to_table(columns=["id", "s"]).to_pydict().values(), strict=True))
    assert found == {0: "theirs", 1: "mine", 2: "c", 3: "d", 5: "mine"}


@pytest.mark.parametrize("retries", [0, 10])
def test_concurrent_updates_of_the_same_row_start_over(tmp_path: Path, retries: int) -> None:
    ds = written(tmp_path)
    stale = pilum.dataset(ds.uri)
    ds.update({"v": "v + 1"}, where="id = 0")
    if not retries:
        with pytest.raises(CommitConflictError) as caught:
            stale.update({"v": "v + 1"}, where="id = 0", conflict_retries=0)
        assert caught.value.retryable
        assert len(list((tmp_path / "t.lance" / "data").iterdir())) == 3  # the loser's file is gone
        return
    assert stale.update({"v": "v + 1"}, where="id = 0") == {"num_rows_updated": 1}
    assert pilum.dataset(ds.uri).to_table(filter="id = 0")["v"].to_pylist() == [3.0]


def test_an_update_loses_against_an_overwrite(tmp_path: Path) -> None:
    ds = written(tmp_path)
    stale = pilum.dataset(ds.uri)
    pilum.write_dataset(table(), ds.uri, mode="overwrite")
    with pytest.raises(CommitConflictError) as caught:
        stale.update({"v": "0"}, where="id = 0")
    assert not caught.value.retryable


def test_the_asynchronous_twin(tmp_path: Path) -> None:
    async def main() -> None:
        ds = await pilum.aio.dataset(tmp_path / "t.lance")
        assert await ds.update({"s": "'z'"}, where="id = 1") == {"num_rows_updated": 1}
        assert (await ds.to_table(filter="s = 'z'"))["id"].to_pylist() == [1]

    written(tmp_path)
    asyncio.run(main())
