"""Brute-force nearest-neighbour search against a plain NumPy computation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import pilum

ROWS, DIMENSION = 700, 24


def vectors(dtype: type) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).astype(dtype)


def expected(matrix: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    x, q = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return ((x - q) ** 2).sum(axis=1)
    if metric == "dot":
        return 1 - x @ q
    return 1 - x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q)


def written(
    matrix: np.ndarray, uri: str, nulls: list[int] | None = None, **options: int
) -> pilum.LanceDataset:
    arrow_type = pa.list_(pa.from_numpy_dtype(matrix.dtype), matrix.shape[1])
    values = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    if nulls:
        mask = np.zeros(len(matrix), dtype=bool)
        mask[nulls] = True
        values = pa.array(
            [None if hidden else row for hidden, row in zip(mask, list(matrix), strict=True)], arrow_type
        )
    table = pa.table({"id": np.arange(len(matrix)), "vec": values})
    return pilum.write_dataset(table, uri, **options)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows_per_file", [64, 1000])
def test_equals_numpy(tmp_path, metric: str, dtype: type, rows_per_file: int) -> None:
    matrix = vectors(dtype)
    ds = written(matrix, tmp_path / "t.lance", max_rows_per_file=rows_per_file)
    query = vectors(dtype)[5] + np.array(0.1, dtype)
    got = ds.to_table(columns=["id"], nearest={"column": "vec", "q": query, "k": 12, "metric": metric})
    truth = expected(matrix, query, metric)
    order = np.argsort(truth, kind="stable")[:12]
    assert got.column_names == ["id", "_distance"]
    assert got["id"].to_pylist() == order.tolist()
    assert got["_distance"].type == pa.float32()
    np.testing.assert_allclose(
        got["_distance"].to_numpy(), truth[order], rtol=2e-3 if dtype == np.float16 else 1e-5, atol=1e-5
    )


def test_ties_go_to_the_lower_row_and_k_may_exceed_the_table(tmp_path) -> None:
    matrix = np.ones((40, 4), dtype=np.float32)
    ds = written(matrix, tmp_path / "t.lance", max_rows_per_file=7)
    got = ds.to_table(columns=["id"], nearest={"column": "vec", "q": [1.0] * 4, "k": 5})
    assert got["id"].to_pylist() == [0, 1, 2, 3, 4]
    assert ds.to_table(nearest={"column": "vec", "q": [1.0] * 4, "k": 500}).num_rows == 40


def test_nulls_nan_and_deleted_rows_never_match(tmp_path) -> None:
    matrix = vectors(np.float32)[:90]
    matrix[4] = np.nan
    ds = written(matrix, tmp_path / "t.lance", nulls=[1, 2, 70], max_rows_per_file=32)
    ds.delete("id IN (0, 33, 34)")
    got = ds.to_table(columns=["id"], nearest={"column": "vec", "q": matrix[0], "k": 90})
    assert sorted(got["id"].to_pylist()) == [i for i in range(90) if i not in (0, 1, 2, 4, 33, 34, 70)]


def test_filter_before_and_after(tmp_path) -> None:
    matrix = vectors(np.float32)
    ds = written(matrix, tmp_path / "t.lance", max_rows_per_file=100)
    truth = np.argsort(expected(matrix, matrix[9], "l2"), kind="stable")
    nearest = {"column": "vec", "q": matrix[9], "k": 10}
    after = ds.to_table(columns=["id"], filter="id % 2 = 0", nearest=nearest)
    assert after["id"].to_pylist() == [i for i in truth[:10] if i % 2 == 0]
    before = ds.to_table(columns=["id"], filter="id % 2 = 0", prefilter=True, nearest=nearest)
    assert before["id"].to_pylist() == [i for i in truth if i % 2 == 0][:10]
    limited = ds.to_table(columns=["id"], nearest=nearest, limit=3, offset=2)
    assert limited["id"].to_pylist() == truth[2:5].tolist()


def test_distance_range(tmp_path) -> None:
    matrix = vectors(np.float32)
    ds = written(matrix, tmp_path / "t.lance", max_rows_per_file=100)
    truth = expected(matrix, matrix[0], "l2")
    low, high = 20.0, 40.0
    got = ds.to_table(
        columns=["id"], nearest={"column": "vec", "q": matrix[0], "k": 700, "distance_range": (low, high)}
    )
    assert sorted(got["id"].to_pylist()) == np.flatnonzero((truth >= low) & (truth < high)).tolist()


def test_all_columns_and_row_ids(tmp_path) -> None:
    matrix = vectors(np.float32)[:20]
    ds = written(matrix, tmp_path / "t.lance", max_rows_per_file=10)
    got = ds.to_table(nearest={"column": "vec", "q": matrix[13], "k": 1}, with_row_id=True)
    assert got.column_names == ["id", "vec", "_distance", "_rowid"]
    assert got["_rowid"].to_pylist() == [(1 << 32) + 3]
    np.testing.assert_array_equal(got["vec"][0].as_py(), matrix[13])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"column": "nope"}, ValueError),
        ({"q": [1.0, 2.0]}, ValueError),
        ({"k": 0}, ValueError),
        ({"metric": "manhattan"}, ValueError),
        ({"column": "id"}, TypeError),
        ({"unknown": 1}, ValueError),
        ({"q": "text"}, ValueError),
    ],
)
def test_errors(tmp_path, change: dict, error: type[Exception]) -> None:
    ds = written(vectors(np.float32)[:5], tmp_path / "t.lance")
    with pytest.raises(error):
        ds.to_table(nearest={"column": "vec", "q": [0.0] * DIMENSION, **change})
