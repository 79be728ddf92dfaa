"""Random combinations of scan options and of searches: the rows of the reference, the distances of NumPy.

Where the two engines differ on purpose: equal rows of an order come as they are stored (the reference leaves it open);
``CASE`` works in projections; deleted rows can be asked for together with a filter that the reference runs as a take.
"""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum

ROWS = 1500


def _table() -> pa.Table:
    values = np.random.default_rng(1).standard_normal(ROWS * 5)
    begin = datetime.datetime(2020, 1, 1)
    return pa.table(
        {
            "id": np.arange(ROWS),
            "g": pa.array([None if i % 11 == 0 else i % 5 for i in range(ROWS)], pa.int32()),
            "f": pa.array([None if i % 13 == 0 else float(values[i]) for i in range(ROWS)]),
            "name": [None if i % 17 == 0 else f"n{i * 7919 % 1000:04}" for i in range(ROWS)],
            "st": [
                None if i % 19 == 0 else {"x": i, "y": f"y{i % 3}", "z": {"w": i % 4}} for i in range(ROWS)
            ],
            "l": [None if i % 7 == 0 else list(range(i % 4)) for i in range(ROWS)],
            "ts": pa.array([begin + datetime.timedelta(hours=i) for i in range(ROWS)], pa.timestamp("us")),
            "d": pa.array([f"cat{i % 6}" for i in range(ROWS)]).dictionary_encode(),
            "b": [None if i % 5 == 0 else i % 2 == 0 for i in range(ROWS)],
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(values[: ROWS * 4].astype(np.float32)), 4),
        }
    )


@pytest.fixture(scope="module", params=[False, True], ids=["addresses", "stable ids"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Both engines on one table: deletions, one fragment gone, two data files in all but one fragment."""
    import lance

    path = str(tmp_path_factory.mktemp("random") / "t.lance")
    ds = lance.write_dataset(_table(), path, max_rows_per_file=190, enable_stable_row_ids=request.param)
    ds.delete("id % 7 = 3 or (id >= 380 and id < 570)")
    ds.add_columns({"extra": "id * 3"})
    ds.insert(_table().slice(0, 60).append_column("extra", pa.array(range(60))))
    return pilum.dataset(path), lance.dataset(path)


COLUMNS = ["id", "g", "f", "name", "st", "st.x", "st.z.w", "st.y", "l", "ts", "d", "b", "vec", "extra"]
SYSTEM = ["_rowid", "_rowaddr", "_rowoffset", "_row_created_at_version", "_row_last_updated_at_version"]
COMPUTED = ["id + 1", "g * 2", "st.x", "upper(name)", "f", "_rowid"]
FILTERS = [
    "g = 2",
    "g is null",
    "name > 'n05'",
    "id < 40",
    "id % 10 = 1",
    "st.x > 700",
    "st.z.w = 2 and g = 1",
    "f > 0.5 or b",
    "not b",
    "name like 'n0%'",
    "id in (1, 5, 1400, 380)",
    "ts > timestamp '2020-02-01 00:00:00'",
    "d = 'cat3'",
    "array_length(l) = 2",
    "extra > 300 and name is not null",
    "false",
    "true",
    "id between 370 and 600",
    "array_has(l, 1)",
    "l is null",
    "st is null",
]
TAKES = ["_rowid < 100", "_rowaddr >= 4294967296", "_rowoffset in (3, 9, 600)"]


def _options(choose: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}

    def maybe(chance: float, name: str, *values: Any) -> None:
        if choose.random() < chance:
            options[name] = choose.choice(values)

    kind = choose.random()
    if kind < 0.6:
        columns = choose.sample(COLUMNS, choose.randint(1, 5)) + choose.sample(
            SYSTEM, choose.choice([0, 0, 1, 2])
        )
        if "st" in columns:
            columns = [one for one in columns if "." not in one]
        choose.shuffle(columns)
        options["columns"] = columns
    elif kind < 0.75:
        options["columns"] = {"a": choose.choice(COMPUTED), "id": "id"}
    elif kind < 0.8:
        options |= {"columns": [], "with_row_id": True}
    if choose.random() < 0.6:
        parts = choose.sample([*FILTERS, *TAKES], choose.choice([1, 1, 2]))
        options["filter"] = " and ".join(f"({part})" for part in parts)
    maybe(0.35, "limit", 0, 1, 5, 100, 3000)
    maybe(0.25, "offset", 0, 1, 7, 400, 5000)
    maybe(0.3, "with_row_id", True)
    maybe(0.2, "with_row_address", True)
    maybe(0.3, "batch_size", 1, 17, 300, 10_000)
    maybe(0.2, "batch_readahead", 1, 3)
    maybe(0.2, "fragment_readahead", 0, 1, 4)
    maybe(0.2, "io_buffer_size", 1, 1000, 1 << 30)
    maybe(0.2, "scan_in_order", True, False)
    maybe(0.2, "use_stats", True, False)
    maybe(0.3, "late_materialization", True, False, ["name"], ["id", "st"])
    if options.get("with_row_id") and not any(one in options.get("filter", "") for one in TAKES):
        maybe(0.2, "include_deleted_rows", True)
    if isinstance(options.get("columns"), list) and options.get("limit") != 0:
        sortable = [one for one in options["columns"] if one in ("id", "g", "f", "name", "ts", "extra")]
        if sortable and choose.random() < 0.2:
            options["order_by"] = sortable[:2]
    return options


@pytest.mark.interop
def test_random_options(engines: tuple[Any, Any]) -> None:
    ours, reference = engines
    choose = random.Random(20)
    compared = 0
    for _ in range(100):
        options = _options(choose)
        try:
            expected = reference.to_table(**options)
        except ValueError:
            continue  # a filter that it turns into a take of rows does not go with deleted rows
        got = ours.to_table(**options)
        assert got.schema.names == expected.schema.names, options
        assert got.schema.types == expected.schema.types, options
        ordered = options.get("order_by")
        for name in dict.fromkeys(ordered or got.schema.names):
            assert repr(got[name].to_pylist()) == repr(expected[name].to_pylist()), (name, options)
        assert got.num_rows == expected.num_rows
        compared += 1
    assert compared > 80


# -- search ------------------------------------------------------------------------------------------------

VECTORS, DIMENSION = 600, 12


def _vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


@pytest.fixture(scope="module")
def values() -> dict[str, np.ndarray]:
    random_ = np.random.default_rng(3)
    base = random_.standard_normal((VECTORS, DIMENSION))
    broken = base.astype(np.float32)
    broken[::9, 3] = np.nan
    broken[::13, 5] = np.inf
    bits = base.astype(np.float32).view(np.uint32) & 0xFFFF0000
    return {
        "f16": base.astype(np.float16),
        "f32": base.astype(np.float32),
        "f64": base,
        "bf16": bits.view(np.float32),
        "u8": random_.integers(0, 255, (VECTORS, DIMENSION)).astype(np.uint8),
        "i8": random_.integers(-100, 100, (VECTORS, DIMENSION)).astype(np.int8),
        "tied": random_.integers(-1, 2, (VECTORS, DIMENSION)).astype(np.float32),
        "broken": broken,
        "null": base.astype(np.float32),
    }


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, values: dict[str, np.ndarray]) -> Any:
    from lance.arrow import BFloat16Type

    columns: dict[str, Any] = {"id": np.arange(VECTORS), "g": np.arange(VECTORS) % 7}
    columns |= {name: _vectors(one) for name, one in values.items()}
    halves = (values["bf16"].view(np.uint32) >> 16).astype(np.uint16)
    storage = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2), halves.size, [None, pa.py_buffer(halves.tobytes())]
    )
    columns["bf16"] = pa.FixedSizeListArray.from_arrays(
        pa.ExtensionArray.from_storage(BFloat16Type(), storage), DIMENSION
    )
    columns["null"] = pa.array(
        [None if i % 5 == 0 else row.tolist() for i, row in enumerate(values["null"])],
        pa.list_(pa.float32(), DIMENSION),
    )
    path = tmp_path_factory.mktemp("vectors") / "t.lance"
    ds = pilum.write_dataset(pa.table(columns), path, max_rows_per_file=110)
    ds.delete("id % 10 = 1 or (id >= 220 and id < 300)")
    return ds


def _distances(x: np.ndarray, q: np.ndarray, metric: str) -> np.ndarray:
    if metric == "hamming":
        return np.unpackbits(x ^ q, axis=1).sum(axis=1).astype(np.float64)
    x, q = x.astype(np.float64), q.astype(np.float64)
    with np.errstate(all="ignore"):
        if metric == "l2":
            return ((x - q) ** 2).sum(axis=1)
        if metric == "dot":
            return 1 - x @ q
        return 1 - x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("column", ["f16", "f32", "f64", "bf16", "u8", "i8", "tied", "broken", "null"])
def test_random_searches(searched: Any, values: dict[str, np.ndarray], column: str) -> None:
    choose = random.Random(column)
    x = values[column]
    ids = np.arange(VECTORS)
    live = (ids % 10 != 1) & ~((ids >= 220) & (ids < 300))
    if column == "null":
        live &= ids % 5 != 0
    for _ in range(12):
        metric = "hamming" if column == "u8" else choose.choice(["l2", "cosine", "dot"])
        k = choose.choice([1, 3, 10, 100, 2000])
        several = choose.random() < 0.3
        rows = choose.sample([i for i in range(VECTORS) if np.isfinite(x[i]).all() and x[i].any()], 3)
        queries = x[rows] if several else x[rows[:1]]
        nearest: dict[str, Any] = {
            "column": column,
            "q": queries if several else queries[0],
            "k": k,
            "metric": metric,
        }
        low, high = choose.choice([(None, None), (None, None), (0.7, 20.0), (None, 9.0), (2.0, None)])
        if (low, high) != (None, None):
            nearest["distance_range"] = (low, high)
        options: dict[str, Any] = {}
        passes = np.ones(VECTORS, bool)
        if choose.random() < 0.5:
            options = {"filter": "g = 3", "prefilter": choose.random() < 0.6}
            passes = ids % 7 == 3
        got = searched.to_table(columns=["id", "_distance"], nearest=nearest, **options)
        wanted_ids: list[int] = []
        wanted: list[float] = []
        for query in queries:
            found = _distances(x, query, metric)
            keep = live & ~np.isnan(found)
            keep &= passes if options.get("prefilter") else True
            # Bounds are compared as float32, as distances are.
            near = found.astype(np.float32)
            keep &= near >= np.float32(low) if low is not None else True
            keep &= near < np.float32(high) if high is not None else True
            order = np.lexsort((ids[keep], near[keep]))[:k]
            best = ids[keep][order]
            best = best[passes[best]]
            wanted_ids += best.tolist()
            wanted += found[best].tolist()
        assert got.num_rows == len(wanted), (nearest, options)
        scale = 1e-3 if column == "f16" else 1e-4
        np.testing.assert_allclose(got["_distance"], wanted, rtol=scale, atol=scale)
        if column in ("tied", "u8", "i8") and metric in ("l2", "hamming"):
            assert got["id"].to_pylist() == wanted_ids


@pytest.mark.filterwarnings("ignore")
def test_lists_of_vectors_over_many_fragments(tmp_path: Path) -> None:
    """The distance to a list of vectors: over all queries the sum of the best, null lists and empty ones never match."""
    random_ = np.random.default_rng(8)
    lists = [
        None if i % 7 == 0 else [random_.standard_normal(4).astype(np.float32) for _ in range(i % 4)]
        for i in range(300)
    ]
    table = pa.table({"id": np.arange(300), "m": pa.array(lists, pa.list_(pa.list_(pa.float32(), 4)))})
    ds = pilum.write_dataset(table, tmp_path / "t.lance", max_rows_per_file=20)
    q = random_.standard_normal((2, 4)).astype(np.float32)
    got = ds.to_table(columns=["id"], nearest={"column": "m", "q": q, "k": 1000, "metric": "l2"})
    best = {
        i: sum(min(float(((np.stack(one) - query) ** 2).sum(axis=1).min()) for query in [each]) for each in q)
        for i, one in enumerate(lists)
        if one
    }
    wanted = sorted(best, key=lambda i: (np.float32(best[i]), i))
    assert sorted(got["id"].to_pylist()) == sorted(wanted)
    assert np.all(np.diff(got["_distance"].to_numpy()) >= 0)
    near = dict(zip(got["id"].to_pylist(), got["_distance"].to_pylist(), strict=True))
    np.testing.assert_allclose([near[i] for i in wanted], [best[i] for i in wanted], rtol=1e-4)
