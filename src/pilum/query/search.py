"""Brute-force nearest-neighbour search over the fragments of a table.

```
groups ─► [filter] ─► read the vector column ─► distances (kernel, no GIL) ─► best k of the group
                                                                                │
      remaining columns of the k best rows  ◄── best k of all, for each query ◄─┘
```

Small fragments are handled in groups: one hand-off between threads and one top-k per group, so that the
Python per fragment stays at open, schedule, read (spec/index-vector.md, section 1, gives the semantics: null
vectors and NaN distances never match, ties go to the lower row id).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding import Decoded
from pilum.encoding.kernels.distance import top_k
from pilum.errors import InvalidInputError
from pilum.io import current_runtime
from pilum.query import binding
from pilum.query.alike import AlikeValues, Run, read_alike, remember, runs_of
from pilum.query.fragment_batch import open_fragments, read_decoded
from pilum.query.fragment_reader import gather
from pilum.query.metrics import ScanMetrics
from pilum.query.ordering import TopRows
from pilum.query.projection import DISTANCE, QUERY_INDEX, Projection, resolve, stored_columns
from pilum.query.request import Nearest, ScanRequest
from pilum.query.scan_plan import Scan, plan_scan, readahead
from pilum.query.scan_read import Bodies, live_mask, pruned_group, read_columns, select_rows, true_mask
from pilum.query.snapshot import Snapshot
from pilum.query.system import system_columns
from pilum.query.take import take_addresses
from pilum.query.units import UnitGroup, group_units, plan_units, rows_for
from pilum.query.vector_column import VectorColumn
from pilum.schema import Schema, with_stored_blobs

__all__ = ["Search", "SearchGroup", "plan_search", "search", "search_groups"]

# Units searched in one go: enough that what is done once a group does not count, few enough that their bytes
# are still in the processor's cache when the distances are computed.
_GROUP_BYTES = 4 << 20
_GROUP_UNITS = 32

# Vectors of a group, with the number of rows: those of a unit, or of a run of units.
_Vectors: TypeAlias = list[tuple[int, AlikeValues | list[Decoded] | pa.Array]]

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]


class _Best(NamedTuple):
    """The best rows for one query: distances ascending, with their row addresses and row ids."""

    distances: F32
    addresses: U64
    ids: U64


class SearchGroup(NamedTuple):
    """Units that are searched in one go, and the runs among them."""

    group: UnitGroup
    runs: tuple[Run, ...]


class Search(NamedTuple):
    """A planned search.

    Attributes:
        queries: the prepared queries: one, or one for each vector of a batch.
        vector: the schema of the vector column alone.
        before: a scan whose filter the rows must pass before the search, or None.
        after: the bound filter that is applied to the best rows, or None.
        after_schema: the stored columns it needs.
    """

    snapshot: Snapshot
    request: ScanRequest
    nearest: Nearest
    metric: str
    queries: tuple[VectorColumn, ...]
    batch: bool
    vector: Schema
    projection: Projection
    filter: Any
    before: Scan | None
    after: Any
    after_schema: Schema
    metrics: ScanMetrics | None = None

    @property
    def schema(self) -> pa.Schema:
        """Schema of the output."""
        return self.projection.schema

    def measured(self) -> Search:
        """The same search, with measurements of its own."""
        metrics = ScanMetrics(self.snapshot.suspends)
        return self._replace(metrics=metrics)


def plan_search(snapshot: Snapshot, request: ScanRequest) -> Search:
    """Check the query against the schema.  Pure.

    Raises:
        InvalidInputError: unknown column, wrong dimension, metric or filter.
        TypeError: the column does not hold vectors.
    """
    assert request.nearest is not None
    nearest, schema = request.nearest, with_stored_blobs(snapshot.manifest.schema)
    names = [field.name for field in schema.fields]
    if nearest.column not in names:
        raise InvalidInputError(
            f"nearest: no column named {nearest.column!r} (columns: {', '.join(names[:20])})"
        )
    field = schema.fields[names.index(nearest.column)]
    metric, queries, batch = VectorColumn.prepare(field, nearest.query, nearest.metric)
    if batch and QUERY_INDEX in names:
        raise InvalidInputError(
            f"nearest: a batch of queries makes a column {QUERY_INDEX!r}, the table has one"
        )
    projection = resolve(
        schema,
        request.columns,
        with_distance=not request.disable_scoring_autoprojection,
        with_row_id=request.with_row_id,
        with_row_address=request.with_row_address,
        with_query_index=batch,
    )
    if QUERY_INDEX in projection.system and not batch:
        raise InvalidInputError(f"nearest: column {QUERY_INDEX!r} exists for a batch of queries only")
    before, after, bound = None, None, None
    if request.filter is not None and request.prefilter:
        before = plan_scan(
            snapshot, ScanRequest(columns=[], filter=request.filter, fragment_ids=request.fragment_ids)
        )
        bound = before.filter
    elif request.filter is not None:
        after = bound = binding.parse_filter(request.filter, schema, distance=True)
    for ordering in request.order_by:
        if ordering.column_name not in projection.schema.names:
            raise InvalidInputError(f"order_by: the result has no column named {ordering.column_name!r}")
    return Search(
        snapshot,
        request,
        nearest,
        metric,
        queries,
        batch,
        schema.project([field.name]),
        projection,
        bound,
        before,
        after,
        schema.project([]) if after is None else stored_columns(schema, after.columns),
    )


async def search(plan: Search) -> pa.Table:
    """Run a search; rows come by query, then by ascending distance, ties by row id."""
    request, snapshot = plan.request, plan.snapshot
    best = await _best_rows(plan)
    index = np.repeat(np.arange(len(best), dtype=np.int32), [len(one.distances) for one in best])
    distances = np.concatenate([one.distances for one in best])
    addresses = np.concatenate([one.addresses for one in best])
    if plan.after is not None and len(addresses):
        rows = await _take(plan, addresses, plan.after_schema, "filter")
        made = await system_columns(snapshot, addresses, plan.after.columns)
        made[DISTANCE] = arrays.from_numpy(distances)
        columns = {name: rows.column(name) for name in rows.schema.names} | made
        keep = np.flatnonzero(true_mask(plan.after.evaluate(pa.RecordBatch.from_pydict(columns))))
        index, distances, addresses = index[keep], distances[keep], addresses[keep]
    start = request.offset or 0
    stop = None if request.limit is None else start + request.limit
    if not request.order_by and (start or stop is not None):
        index, distances, addresses = index[start:stop], distances[start:stop], addresses[start:stop]
    stored = await _take(plan, addresses, plan.projection.read, "take")
    made = await system_columns(snapshot, addresses, plan.projection.system)
    made[DISTANCE] = arrays.from_numpy(distances, pa.float32())
    made[QUERY_INDEX] = arrays.from_numpy(index, pa.int32())
    table = pa.Table.from_batches([plan.projection.build(stored, made)], schema=plan.projection.schema)
    if not request.order_by:
        return table
    top = TopRows(request.order_by, [one.column_name for one in request.order_by], stop)
    for batch in table.to_batches():
        top.add(batch)
    return top.sorted(table.schema).slice(start)


async def _take(plan: Search, addresses: U64, schema: Schema, step: str) -> pa.RecordBatch:
    if plan.metrics is None or not len(addresses):
        return await take_addresses(plan.snapshot, addresses, schema)
    with plan.metrics.step(step, [int(addresses[0]) >> 32]) as measured:
        batch = await take_addresses(plan.snapshot, addresses, schema)
        measured.rows = batch.num_rows
    return batch


_NOTHING = _Best(np.empty(0, np.float32), np.empty(0, np.uint64), np.empty(0, np.uint64))


async def _best_rows(plan: Search) -> list[_Best]:
    k = plan.nearest.k
    # Only indexed rows are wanted, and there is no index; or no row passes the filter.
    if plan.request.fast_search or (plan.before is not None and plan.before.nothing):
        return [_NOTHING] * len(plan.queries)

    async def best_of(item: SearchGroup) -> list[_Best]:
        if plan.metrics is None:
            return await _best_of_group(plan, item, k)
        group = item.group
        ids = [unit.fragment.id for unit in group.units]
        plan.metrics.scanned(ids, group.num_rows)
        with plan.metrics.step("vectors", ids) as measured:
            measured.rows = group.num_rows
            return await _best_of_group(plan, item, k)

    groups = search_groups(plan)
    stream = current_runtime().map_ordered(
        best_of, groups, window=readahead(plan.snapshot, plan.request), suspends=plan.snapshot.suspends
    )
    async with aclosing(stream):
        parts = [part async for part in stream]
    if not parts:
        return [_NOTHING] * len(plan.queries)
    best = [_merged([part[query] for part in parts], k) for query in range(len(plan.queries))]
    if plan.projection.read.fields or plan.after is not None:  # more of these rows will be read
        winners = set(np.concatenate([one.addresses >> np.uint64(32) for one in best]).tolist())
        for item in groups:
            for run in item.runs:
                if run.paths and not winners.isdisjoint([unit.fragment.id for unit in run.units]):
                    remember(plan.snapshot, run, plan.vector, winners)
    return best


def _merged(parts: Sequence[_Best], k: int) -> _Best:
    distances = np.concatenate([part.distances for part in parts])
    addresses = np.concatenate([part.addresses for part in parts])
    ids = np.concatenate([part.ids for part in parts])
    order = np.lexsort((ids, distances))[:k]
    return _Best(distances[order], addresses[order], ids[order])


def search_groups(plan: Search) -> Sequence[SearchGroup]:
    """The units of all fragments in groups; kept with the snapshot, since every query over it has the same."""
    snapshot, ids = plan.snapshot, plan.request.fragment_ids
    rows = rows_for(plan.vector.row_bytes, 8192)
    key = ("search", rows)
    found: Sequence[SearchGroup] | None = snapshot.plans.get(key) if ids is None else None
    if found is None:
        units = plan_units(snapshot.select(ids), rows)
        groups = group_units(units, int(_GROUP_BYTES / plan.vector.row_bytes), _GROUP_UNITS)
        found = [SearchGroup(group, runs_of(group.units)) for group in groups]
        if ids is None:
            snapshot.plans[key] = found
    return found


async def _best_of_group(plan: Search, item: SearchGroup, k: int) -> list[_Best]:
    snapshot, (group, runs) = plan.snapshot, item
    excluded: npt.NDArray[np.bool_] | None = None
    bodies: Bodies = {}
    if plan.before is not None:
        pruned = await pruned_group(plan.before, group, bodies)
        if pruned is None:
            return [_NOTHING] * len(plan.queries)
        if pruned is not group:
            group, runs = pruned, runs_of(pruned.units)
        selection = await select_rows(plan.before, group, bodies)
        rows = selection.rows
        if rows is not None and selection.sparse:
            return await _best_of_few(plan, group, rows, k, bodies)
        if rows is not None:
            excluded = np.ones(group.num_rows, dtype=np.bool_)
            excluded[rows] = False
    if plan.before is None:
        # Over a network the deletions and the vectors are asked for together.
        alive, vectors = await gather(
            [live_mask(snapshot, group), _read_vectors(plan, runs, bodies)],
            suspends=snapshot.suspends
            and any(unit.fragment.deletion_file is not None for unit in group.units),
        )
        excluded = None if alive is None else ~alive
    else:
        vectors = await _read_vectors(plan, runs, bodies)
    best = []
    for query in plan.queries:
        found = np.empty(group.num_rows, dtype=np.float32)
        if snapshot.suspends:
            await current_runtime().offload(_fill, query, vectors, found)
        else:
            _fill(query, vectors, found)
        if excluded is not None:
            found[excluded] = np.nan
        best.append(await _best_of(plan, group, found, None, k))
    return best


async def _read_vectors(plan: Search, runs: Sequence[Run], bodies: Bodies) -> _Vectors:
    """The vectors of some units: of each run together, or of each unit.  Runs overlap over a network."""
    parts = await gather([_read_run(plan, run, bodies) for run in runs], suspends=plan.snapshot.suspends)
    return [one for part in parts for one in part]


async def _read_run(plan: Search, run: Run, bodies: Bodies) -> _Vectors:
    snapshot, multi = plan.snapshot, plan.queries[0].multi
    # What a filter has fetched whole is not fetched again.
    here = any(path in bodies for path in run.paths)
    alike = {} if multi or here else await read_alike(snapshot, run, plan.vector)
    if isinstance(alike, AlikeValues):
        return [(run.num_rows, alike)]
    readers = await open_fragments(
        snapshot, [unit.fragment for unit in run.units], plan.vector, alike or bodies
    )
    spans = [(unit.start, unit.stop) for unit in run.units]
    parts: Sequence[list[Decoded] | pa.Array]
    if multi:
        batches = await gather(
            [reader.read(*span) for reader, span in zip(readers, spans, strict=True)],
            suspends=snapshot.suspends,
        )
        parts = [batch.column(0) for batch in batches]
    else:
        parts = await read_decoded(readers, spans)
    return [(stop - start, part) for (start, stop), part in zip(spans, parts, strict=True)]


async def _best_of_few(
    plan: Search, group: UnitGroup, rows: npt.NDArray[np.int64], k: int, bodies: Bodies
) -> list[_Best]:
    """As `_best_of_group`, where the filter left so few rows that only their vectors are read."""
    if len(rows) == 0:
        return [_NOTHING] * len(plan.queries)
    batch = await read_columns(plan.snapshot, group, plan.vector, rows, bodies)
    best = []
    for query in plan.queries:
        found = np.empty(len(rows), dtype=np.float32)
        query.fill(batch.column(0), found)
        best.append(await _best_of(plan, group, found, rows, k))
    return best


async def _best_of(
    plan: Search, group: UnitGroup, found: F32, rows: npt.NDArray[np.int64] | None, k: int
) -> _Best:
    """The best ``k`` of some distances, which belong to ``rows`` of the group (all by default)."""
    nearest = plan.nearest
    best = top_k(found, k, nearest.lower, nearest.upper)
    stable = plan.snapshot.manifest.uses_stable_row_ids
    if stable and len(best) == k:
        # Which of equal rows at the end belong to the best is decided by their ids, not by their place.
        worst = found[best[-1]]
        best = np.concatenate([best[found[best] < worst], np.flatnonzero(found == worst)])
    addresses = group.addresses(best if rows is None else rows[best])
    if not stable:
        return _Best(found[best], addresses, addresses)
    ids = await plan.snapshot.row_ids(addresses)
    order = np.lexsort((ids, found[best]))[:k]
    return _Best(found[best][order], addresses[order], ids[order])


def _fill(query: VectorColumn, vectors: _Vectors, found: F32) -> None:
    at = 0
    for rows, part in vectors:
        query.fill(part, found[at : at + rows])
        at += rows
