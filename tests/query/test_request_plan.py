"""The request plan against the log of the store: exact where it says so, close where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import pilum
from pilum.io import LocalStore, MemoryStore, Store, run, trace
from pilum.io.tracing import Request
from pilum.query.request_plan import RequestPlan
from tests.io.stores import SuspendingStore
from tests.query.tables import filled, mixed, over

_NEAREST = {"column": "vec", "q": np.zeros(16, np.float32), "k": 5}

QUERIES: dict[str, dict[str, Any]] = {
    "all": {},
    "one column": {"columns": ["id"]},
    "text and lists": {"columns": ["s", "l"]},
    "part of a struct": {"columns": ["st.x"]},
    "computed": {"columns": {"a": "id + 1"}},
    "filter": {"columns": ["id"], "filter": "small = 3"},
    "filter that few pass": {"columns": ["id", "s"], "filter": "id < 100"},
    "filter on text": {"filter": "s like 'row-0000%'"},
    "filter, no columns": {"columns": [], "filter": "f > 0", "with_row_id": True},
    "limit": {"limit": 10},
    "limit and offset": {"limit": 10, "offset": 495, "columns": ["f"]},
    "filter and limit": {"columns": ["id"], "filter": "small = 3", "limit": 5},
    "order": {"columns": ["id"], "order_by": ["f"]},
    "order and limit": {"order_by": ["f"], "limit": 5},
    "search": {"columns": ["id"], "nearest": _NEAREST},
    "search after a filter": {
        "columns": ["id", "s"],
        "nearest": _NEAREST,
        "filter": "small = 3",
        "prefilter": True,
    },
    "nothing": {"filter": "false"},
}
TABLES: dict[str, dict[str, Any]] = {
    "small fragments": {"rows": 1000, "rows_per_file": 100},
    "large fragments": {"rows": 60_000, "rows_per_file": 30_000},
    "small fragments, deletions": {"rows": 1000, "rows_per_file": 100, "delete": "id % 3 = 0"},
    "large fragments, deletions": {"rows": 60_000, "rows_per_file": 30_000, "delete": "id % 7 = 0"},
}


@cache
def _table(name: str) -> MemoryStore:
    return filled(f"plans-{name}", **TABLES[name])


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Store]:
    """The same tables on disk, where a store never suspends."""
    folder = tmp_path_factory.mktemp("plans")

    @cache
    def copied(name: str) -> Store:
        store = LocalStore(str(folder / name))

        async def copy() -> None:
            memory = _table(name)
            for one in await memory.list(""):
                await store.put(one.path, await memory.get_all(one.path))

        run(copy(), suspends=False)
        return store

    return copied


def _reads(log: Any) -> list[Request]:
    return [request for request in log.requests if request.kind == "get"]


@pytest.mark.parametrize("suspends", [True, False], ids=["network", "disk"])
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("name", TABLES)
def test_the_plan_agrees_with_the_log(
    disk: Callable[[str], Store], name: str, query: str, suspends: bool
) -> None:
    async def main() -> None:
        ds = await over(SuspendingStore(_table(name)) if suspends else disk(name))
        scanner = ds.scanner(**QUERIES[query])
        for turn in ("cold", "warm"):
            with trace() as planning:
                plan: RequestPlan = await scanner.request_plan()
            assert not planning.requests
            with trace() as log:
                await scanner.to_table()
            reads = _reads(log)
            nbytes = sum(request.end - request.start for request in reads)
            if plan.exact:
                assert (plan.requests, plan.nbytes) == (len(reads), nbytes)
                assert {one.path for one in plan.files} == {request.path for request in reads}
            elif turn == "warm":
                # Only a filter, or which rows are the best, is unknown: the plan is the most.
                assert all(one.conditional for one in plan.files if not one.exact)
                far = sum(one.requests for one in plan.files if one.fragment_id < 0) > 0
                assert len(reads) <= plan.requests or far
            elif not any(one.conditional for one in plan.files):
                assert 0.7 * plan.requests <= len(reads) <= 1.5 * plan.requests
            assert str(plan).count("\n") >= min(50, len(plan.files)) + 1

    asyncio.run(main())


def test_most_warm_plans_are_exact() -> None:
    async def main() -> None:
        exact = 0
        for name in TABLES:
            ds = await over(SuspendingStore(_table(name)))
            for options in QUERIES.values():
                scanner = ds.scanner(**options)
                await scanner.to_table()
                exact += (await scanner.request_plan()).exact
        assert exact >= 0.5 * len(TABLES) * len(QUERIES)

    asyncio.run(main())


def test_files_columns_and_rounds_are_named() -> None:
    async def main() -> None:
        ds = await over(SuspendingStore(_table("large fragments, deletions")))
        scanner = ds.scanner(columns=["id", "s"], filter="small = 3")
        plan = await scanner.request_plan()
        steps = {one.step for one in plan.files}
        assert steps == {"stage 1", "late"}
        assert {one.fragment_id for one in plan.files} == {0, 1}
        assert {one.path for one in plan.files if not one.columns} == {
            fragment.deletion_file() for fragment in ds.get_fragments()
        }
        assert {column.name for one in plan.files for column in one.columns} == {"id", "s", "small"}
        assert plan.rounds == 5  # end, page metadata, data of the filter; page metadata, data of the others
        await scanner.to_table()
        warm = await scanner.request_plan()
        assert warm.rounds == 2
        assert [one.conditional for one in warm.files] == [one.step == "late" for one in warm.files]
        assert all(column.ranges for one in warm.files for column in one.columns)

    asyncio.run(main())


def test_on_disk_and_from_synchronous_code(tmp_path: Any) -> None:
    ds = pilum.write_dataset(mixed(1000), tmp_path / "t.lance", max_rows_per_file=100)
    for _ in range(2):
        for options in ({}, {"columns": ["id"]}, {"columns": ["s"], "limit": 250}):
            scanner = ds.scanner(**options)
            plan = scanner.request_plan()
            with trace() as log:
                scanner.to_table()
            reads = _reads(log)
            if plan.exact:
                assert plan.requests == len(reads)
                assert plan.nbytes == sum(one.end - one.start for one in reads)
    assert plan.exact
