"""Search: element types, hamming, lists of vectors, batches of queries, ties, stable row ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum

ROWS, DIMENSION = 300, 8


def vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "f": rng.standard_normal((ROWS, DIMENSION)).astype(np.float32),
        "u": rng.integers(0, 255, (ROWS, DIMENSION)).astype(np.uint8),
        "i": rng.integers(-100, 100, (ROWS, DIMENSION)).astype(np.int8),
    }


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, data: dict[str, np.ndarray]) -> str:
    rng = np.random.default_rng(6)
    lists = [
        None if i % 7 == 0 else [rng.standard_normal(DIMENSION).astype(np.float32) for _ in range(i % 4)]
        for i in range(ROWS)
    ]
    nulls = [None if i % 5 == 0 else list(map(float, row)) for i, row in enumerate(data["f"])]
    table = pa.table(
        {
            "id": np.arange(ROWS),
            **{name: vectors(values) for name, values in data.items()},
            "n": pa.array(nulls, pa.list_(pa.float32(), DIMENSION)),
            "m": pa.array(lists, pa.list_(pa.list_(pa.float32(), DIMENSION))),
        }
    )
    path = str(tmp_path_factory.mktemp("search") / "t.lance")
    pilum.write_dataset(table, path, max_rows_per_file=70).delete("id % 10 = 1")
    return path


SAME: list[dict[str, Any]] = [
    {"column": "u", "k": 7},
    {"column": "u", "k": 400, "metric": "hamming"},
    {"column": "n", "k": 12},
    {"column": "n", "k": 400, "metric": "cosine"},
    {"column": "m", "k": 30},
    {"column": "m", "k": 30, "metric": "cosine"},
    {"column": "m", "k": 30, "metric": "dot", "q": 3},
    {"column": "m", "k": 400, "q": 3},
    {"column": "f", "k": 5, "q": 3},
    {"column": "f", "k": 50, "q": 2, "distance_range": (4.0, 12.0)},
    {"column": "f", "k": 5, "distance_range": (None, 9.0)},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"filter": "id % 3 = 0"},
    {"filter": "id % 3 = 0", "prefilter": True},
    {"filter": "id < 20", "prefilter": True, "with_row_id": True},
    {"limit": 3, "offset": 2},
]


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nearest", SAME, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_same_as_the_reference(
    ds: pilum.LanceDataset, reference: Any, data: Any, nearest: dict[str, Any], options: dict[str, Any]
) -> None:
    source = data["u" if nearest["column"] == "u" else "f"]
    count = nearest.get("q")
    query = source[11] if count is None else source[:count]
    wanted = {"columns": ["id", "_distance"], **options, "nearest": {**nearest, "q": query}}
    expected, got = reference.to_table(**wanted), ds.to_table(**wanted)
    assert got.schema.names == expected.schema.names
    assert [f.type for f in got.schema] == [f.type for f in expected.schema]
    assert got["id"].to_pylist() == expected["id"].to_pylist()
    np.testing.assert_allclose(got["_distance"], expected["_distance"], rtol=1e-4, atol=1e-5)
    for name in set(got.schema.names) - {"_distance"}:
        assert got[name].to_pylist() == expected[name].to_pylist()


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_int8_and_bfloat16_are_widened(
    tmp_path: Path, ds: pilum.LanceDataset, data: Any, metric: str
) -> None:
    def truth(values: np.ndarray, query: np.ndarray) -> np.ndarray:
        x, q = values.astype(np.float64), query.astype(np.float64)
        if metric == "l2":
            return ((x - q) ** 2).sum(axis=1)
        dots = x @ q
        return 1 - dots if metric == "dot" else 1 - dots / np.linalg.norm(x, axis=1) / np.linalg.norm(q)

    live = np.array([i for i in range(ROWS) if i % 10 != 1])
    nearest = {"column": "i", "q": data["i"][4], "k": 9, "metric": metric}
    got = ds.to_table(columns=["id"], nearest=nearest)
    expected = truth(data["i"], data["i"][4])[live]
    np.testing.assert_allclose(got["_distance"], np.sort(expected)[:9], rtol=1e-4, atol=1e-5)

    from lance.arrow import bfloat16_array

    short = bfloat16_array([float(value) for value in data["f"].ravel()])
    table = pa.table({"id": np.arange(ROWS), "b": pa.FixedSizeListArray.from_arrays(short, DIMENSION)})
    halves = pilum.write_dataset(table, tmp_path / "b.lance", max_rows_per_file=100)
    rounded = (data["f"].view(np.uint32) & 0xFFFF0000).view(np.float32)
    stored = halves.to_table(columns=["b"])["b"].combine_chunks().values
    storage = stored.storage if isinstance(stored, pa.ExtensionArray) else stored
    bits = np.frombuffer(storage.buffers()[1], np.uint16)[: ROWS * DIMENSION].astype(np.uint32) << 16
    rounded = bits.view(np.float32).reshape(ROWS, DIMENSION)
    got = halves.to_table(
        columns=["id"], nearest={"column": "b", "q": data["f"][4], "k": 9, "metric": metric}
    )
    np.testing.assert_allclose(
        got["_distance"], np.sort(truth(rounded, data["f"][4]))[:9], rtol=1e-4, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore")
def test_metrics_must_fit_the_elements(ds: pilum.LanceDataset, data: Any) -> None:
    for column, metric in (("u", "l2"), ("u", "cosine"), ("f", "hamming"), ("i", "hamming")):
        with pytest.raises(ValueError, match=metric):
            ds.to_table(nearest={"column": column, "q": data["f"][0], "metric": metric})
    with pytest.raises(ValueError):
        ds.to_table(columns=["query_index"], nearest={"column": "f", "q": data["f"][0]})
    with pytest.raises(ValueError):
        ds.to_table(filter="_distance < 1", prefilter=True, nearest={"column": "f", "q": data["f"][0]})


def test_filters_on_the_distance_and_other_orders(ds: pilum.LanceDataset, data: Any) -> None:
    nearest = {"column": "f", "q": data["f"][2], "k": 20}
    every = ds.to_table(columns=["id"], nearest=nearest)
    near = ds.to_table(columns=["id"], nearest=nearest, filter="_distance < 5.0 and id > 3")
    rows = zip(every["id"].to_pylist(), every["_distance"].to_pylist(), strict=True)
    assert near["id"].to_pylist() == [i for i, d in rows if d < 5 and i > 3]
    ordered = ds.to_table(columns=["id"], nearest=nearest, order_by=["id"], limit=5)
    assert ordered["id"].to_pylist() == sorted(every["id"].to_pylist())[:5]
    bare = ds.to_table(columns=["id"], nearest=nearest, disable_scoring_autoprojection=True)
    assert bare.schema.names == ["id"]
    assert ds.to_table(columns=["id"], nearest=nearest, fast_search=True).num_rows == 0
    assert ds.scanner(nearest=nearest).count_rows() == 20


def test_ties_go_to_the_lower_stable_row_id(tmp_path: Path) -> None:
    ones = np.ones((60, 4), np.float32)
    table = pa.table({"id": np.arange(60), "v": vectors(ones)})
    ds = pilum.write_dataset(table, tmp_path / "t.lance", max_rows_per_file=16, enable_stable_row_ids=True)
    import lance

    # The reference moves rows: they keep their ids and get addresses behind all others.
    lance.dataset(tmp_path / "t.lance").update({"id": "id + 1000"}, "id < 5")
    ds = pilum.dataset(tmp_path / "t.lance")
    for k in (1, 3, 7):
        got = ds.to_table(columns=["id", "_rowid"], nearest={"column": "v", "q": ones[0], "k": k})
        assert got["_rowid"].to_pylist() == list(range(k))
