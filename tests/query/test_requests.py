"""What operations ask of a store that answers slowly: requests, and rounds of requests that wait for each other.

Every operation runs over ten small fragments (a file of each is fetched whole) and over three large ones, first with an
empty session and then again.  What an operation costs is written ``rounds/requests``; opening the table is not part of
it.  A number that goes down is good news: write it here.  One that goes up needs a reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from pilum.io import MemoryStore
from pilum.io.runtime import LoopRuntime
from tests.io.stores import RoundsStore
from tests.query.tables import filled, mixed, over

_NEAREST = {"column": "vec", "q": np.zeros(16, np.float32), "k": 5}
_FEW = [7, 8, 30]


class Case(NamedTuple):
    """An operation, and what it costs: small fragments cold and warm, large fragments cold and warm."""

    run: Callable[[Any], Awaitable[Any]]
    small: str
    large: str


async def _plan(ds: Any) -> None:
    await ds.scanner(filter="small = 3").request_plan()


async def _explain(ds: Any) -> None:
    ds.scanner(filter="small = 3", nearest=_NEAREST).explain_plan(verbose=True)


async def _latest(ds: Any) -> Any:
    return await ds.latest_version()


READS: dict[str, Case] = {
    "scan, all columns": Case(lambda ds: ds.to_table(), "1/10 1/10", "3/33 1/3"),
    "scan, one column": Case(lambda ds: ds.to_table(columns=["id"]), "1/10 1/10", "3/9 1/3"),
    "scan, part of a struct": Case(lambda ds: ds.to_table(columns=["st.x"]), "1/10 1/10", "3/9 1/3"),
    "scan, no columns": Case(lambda ds: ds.to_table(columns=[], with_row_id=True), "0/0 0/0", "0/0 0/0"),
    "count": Case(lambda ds: ds.count_rows(), "0/0 0/0", "0/0 0/0"),
    "count, filtered": Case(lambda ds: ds.count_rows("small = 3"), "1/10 1/10", "3/9 1/3"),
    "filter": Case(lambda ds: ds.to_table(columns=["id"], filter="small = 3"), "1/10 1/10", "3/12 1/3"),
    "filter, late columns": Case(
        lambda ds: ds.to_table(columns=["id", "s", "vec"], filter="small = 3"), "1/10 2/30", "5/24 2/9"
    ),
    "filter that nothing passes": Case(lambda ds: ds.to_table(filter="id < 0"), "1/10 1/10", "3/21 1/6"),
    "filter that is false": Case(lambda ds: ds.to_table(filter="false"), "0/0 0/0", "0/0 0/0"),
    "limit": Case(lambda ds: ds.to_table(limit=10), "1/1 1/1", "3/18 1/8"),
    "head": Case(lambda ds: ds.head(3), "1/1 1/1", "3/18 1/8"),
    "limit and offset": Case(lambda ds: ds.to_table(limit=10, offset=250), "1/1 1/1", "3/18 1/8"),
    "filter and limit": Case(lambda ds: ds.to_table(filter="small = 3", limit=2), "1/10 2/30", "5/19 2/8"),
    "order and limit": Case(lambda ds: ds.to_table(order_by=["f"], limit=3), "3/21 2/15", "5/44 2/22"),
    "take one": Case(lambda ds: ds.take([7]), "1/1 1/1", "3/18 1/8"),
    "take a few of one fragment": Case(lambda ds: ds.take(_FEW), "1/1 1/1", "3/18 1/8"),
    "take from all fragments": Case(
        lambda ds: ds.take(np.arange(10) * (ds.manifest.num_rows // 10), columns=["id"]),
        "1/10 1/10",
        "3/16 1/10",
    ),
    "take by row id": Case(lambda ds: ds._take_rows([0, 1, (2 << 32) + 5]), "1/2 1/2", "3/36 1/16"),
    "search": Case(lambda ds: ds.to_table(columns=["id"], nearest=_NEAREST), "3/18 2/14", "5/14 2/6"),
    "search, no columns": Case(
        lambda ds: ds.to_table(columns=["_distance", "_rowid"], nearest=_NEAREST), "1/10 1/10", "3/9 1/3"
    ),
    "search, prefiltered": Case(
        lambda ds: ds.to_table(columns=["id"], nearest=_NEAREST, filter="small = 3", prefilter=True),
        "3/20 3/25",
        "7/21 3/10",
    ),
    "one fragment": Case(lambda ds: ds.get_fragments()[2].to_table(), "1/1 1/1", "3/11 1/1"),
    "rows of a fragment": Case(
        lambda ds: ds.get_fragments()[2].open_session(["id"]).take_range(5, 9), "1/1 1/1", "3/3 1/1"
    ),
    "request plan": Case(_plan, "0/0 0/0", "0/0 0/0"),
    "explain": Case(_explain, "0/0 0/0", "0/0 0/0"),
    "versions": Case(lambda ds: ds.versions(), "2/2 2/2", "2/2 2/2"),
    "checkout": Case(lambda ds: ds.checkout_version(1), "1/1 1/1", "1/1 1/1"),
}
# At most.
WRITES: dict[str, Case] = {
    "append": Case(lambda ds: ds.insert(mixed(50)), "7/7 7/7", "7/7 7/7"),
    "delete": Case(lambda ds: ds.delete("id = 5"), "6/15 6/15", "8/14 6/8"),
    "delete nothing": Case(lambda ds: ds.delete("id < 0"), "5/14 5/14", "7/13 5/7"),
    "tag": Case(lambda ds: ds.tags.create(f"t{np.random.randint(1 << 30)}", 1), "3/3 3/3", "3/3 3/3"),
}
TABLES = {"small": (1000, 100), "large": (60_000, 20_000)}


@cache
def _filled(size: str, name: str) -> MemoryStore:
    return filled(f"requests-{size}-{name}", *TABLES[size])


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding happens on the loop: while a thread does it, the store would think that nobody asks for more."""

    async def offload(self: LoopRuntime, fn: Callable[..., Any], /, *args: Any) -> Any:
        return fn(*args)

    monkeypatch.setattr(LoopRuntime, "offload", offload)


async def _costs(size: str, name: str, case: Case) -> list[tuple[int, int]]:
    inner = _filled(size, name if name in WRITES else "")
    store = RoundsStore(inner)
    ds = await over(store)
    assert (store.rounds, store.requests.total()) == (2, 2)  # to open: a listing, then the manifest
    costs = []
    for _ in ("cold", "warm"):
        store.reset()
        await case.run(ds)
        costs.append((store.rounds, store.requests.total()))
    return costs


def _numbers(text: str) -> list[tuple[int, int]]:
    return [(int(one.split("/")[0]), int(one.split("/")[1])) for one in text.split()]


@pytest.mark.parametrize("size", TABLES)
@pytest.mark.parametrize("name", READS)
def test_reads(name: str, size: str) -> None:
    case = READS[name]
    assert asyncio.run(_costs(size, name, case)) == _numbers(case.small if size == "small" else case.large)


@pytest.mark.parametrize("size", TABLES)
@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str, size: str) -> None:
    case = WRITES[name]
    found = asyncio.run(_costs(size, name, case))
    for cost, most in zip(found, _numbers(case.small if size == "small" else case.large), strict=True):
        assert cost[0] <= most[0]
        assert cost[1] <= most[1]


@cache
def _many(fragments: int) -> MemoryStore:
    return filled(f"rounds-{fragments}", 5 * fragments, 5)


@pytest.mark.parametrize("fragments", [1, 7, 63, 100])
@pytest.mark.parametrize("what", ["scan", "filter", "search", "count"])
def test_rounds_do_not_grow_with_fragments(what: str, fragments: int) -> None:
    async def main() -> int:
        store = RoundsStore(_many(fragments))
        # As many as there are may be in flight, so that only dependent requests make rounds.
        ds = await over(store)
        store.reset()
        options = {"fragment_readahead": 1000}
        if what == "scan":
            await ds.to_table(**options)
        elif what == "filter":
            await ds.to_table(columns=["id"], filter="small = 3", **options)
        elif what == "search":
            await ds.to_table(columns=["id"], nearest=_NEAREST, **options)
        else:
            await ds.count_rows("small = 3")
        return store.rounds

    # 64 requests at a time: 100 fragments are two of them.
    waves = -(-fragments // 64)
    assert asyncio.run(main()) <= waves + (2 if what == "search" else 0)
