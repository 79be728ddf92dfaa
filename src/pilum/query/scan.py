"""The filtered read: a stream of batches over fragments, filter, deletions, limit and offset.

```
fragments ─► units (pure) ─► map_ordered(read one unit, window) ─► limit / offset ─► batches
```

Reading one unit: deletion vector, filter columns first; when few rows survive only those rows of the other
columns are taken, when none survive they are not read at all.  `open_scan` awaits the metadata of the first
window of fragments before it hands out the stream: the metadata I/O of many fragments is in flight at once
and its errors surface at that await (docs/architecture.md, "The one idea").
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import config
from pilum.io import current_runtime
from pilum.query.fragment_reader import FragmentReader
from pilum.query.late import parse_filter
from pilum.query.projection import ROW_ADDRESS, ROW_ID, Projection, resolve, stored_columns
from pilum.query.request import ScanRequest
from pilum.query.rows import live_to_physical, row_addresses, surviving
from pilum.query.snapshot import Snapshot
from pilum.query.units import Unit, plan_units, unit_rows
from pilum.schema import Schema, split_path
from pilum.table import Fragment

__all__ = ["Scan", "open_scan", "plan_scan", "readahead"]

# A second read by row offsets pays off when it skips at least three quarters of the rows.
_TAKE_FRACTION = 0.25


@dataclass(frozen=True, slots=True)
class Scan:
    """A planned scan: what is read, filtered and returned.  Planning did no I/O."""

    snapshot: Snapshot
    request: ScanRequest
    fragments: tuple[Fragment, ...]
    projection: Projection
    filter: Any
    early: Schema  # filter columns
    late: Schema  # columns needed only for the output
    batch_size: int

    @property
    def window(self) -> int:
        return readahead(self.snapshot, self.request)


def readahead(snapshot: Snapshot, request: ScanRequest) -> int:
    """Fragments (units) in flight: the argument, the environment, or twice the store's parallelism."""
    chosen = request.fragment_readahead
    if chosen is None:
        chosen = config.default_fragment_readahead() or 2 * snapshot.store.io_parallelism
    return max(1, chosen)


def plan_scan(snapshot: Snapshot, request: ScanRequest) -> Scan:
    """Resolve columns and filter against the schema.  Pure; raises InvalidInputError for bad names."""
    schema = snapshot.manifest.schema
    projection = resolve(
        schema, request.columns, with_row_id=request.with_row_id, with_row_address=request.with_row_address
    )
    bound = None
    early = schema.project([])
    if request.filter is not None:
        bound = parse_filter(request.filter, schema)
        # A struct that is filtered by one field and returned with others is read once, whole.
        returned = {field.name for field in projection.read.fields}
        tops = {path: split_path(path)[0] for path in bound.columns}
        early = stored_columns(schema, [tops[path] if tops[path] in returned else path for path in tops])
    names = {field.name for field in early.fields}
    late = projection.read if not names else _without(projection.read, names)
    batch_size = (
        request.batch_size or config.default_batch_size() or max(snapshot.store.block_size // 4, 8192)
    )
    return Scan(
        snapshot, request, snapshot.select(request.fragment_ids), projection, bound, early, late, batch_size
    )


def _without(schema: Schema, names: set[str]) -> Schema:
    return schema.project([field.name for field in schema.fields if field.name not in names])


async def open_scan(scan: Scan) -> AsyncGenerator[pa.RecordBatch, None]:
    """Initialise the first window of fragments and return the primed stream of output batches."""
    units = await _plan(scan)
    first: list[Fragment] = []
    for unit in units:
        if not first or first[-1] is not unit.fragment:
            if len(first) == scan.window:
                break
            first.append(unit.fragment)
    schema = _union(scan)

    async def prime(fragment: Fragment) -> FragmentReader:
        reader = await FragmentReader.open(scan.snapshot, fragment, schema)
        await reader.initialise()
        return reader

    primed: dict[int, FragmentReader] = {}
    if schema.fields and len(first) > 0:
        runtime = current_runtime()
        stream = runtime.map_ordered(
            prime, first, window=scan.window, suspends=scan.snapshot.suspends, chunk=4
        )
        async with aclosing(stream):
            async for reader in stream:
                # A file that was fetched whole is kept until its rows are read.
                if reader.bodies():
                    primed[reader.fragment.id] = reader
    return _batches(scan, units, primed)


async def scan_table(scan: Scan) -> pa.Table:
    """All output batches of a scan as one table."""
    batches = []
    async with aclosing(_batches(scan, await _plan(scan))) as stream:
        async for batch in stream:
            batches.append(batch)
    return pa.Table.from_batches(batches, schema=scan.projection.schema)


async def count(scan: Scan) -> int:
    """Number of rows a scan returns, reading only the filter's columns."""
    if scan.filter is None or scan.filter.constant is True:
        return sum(fragment.num_rows for fragment in scan.fragments)
    if scan.filter.constant is not None:
        return 0
    total = 0
    async with aclosing(_batches(scan, await _plan(scan))) as stream:
        async for batch in stream:
            total += batch.num_rows
    return total


def _union(scan: Scan) -> Schema:
    """Every stored column a unit of the scan may read."""
    if not scan.early.fields:
        return scan.late
    if not scan.late.fields:
        return scan.early
    names = {field.name for field in scan.early.fields} | {field.name for field in scan.late.fields}
    schema = scan.snapshot.manifest.schema
    return schema.project([field.name for field in schema.fields if field.name in names])


async def _plan(scan: Scan) -> list[Unit]:
    """Units of the scan; limit and offset without a filter trim them to the rows needed."""
    if scan.filter is not None and scan.filter.constant in (False, None) and scan.filter.constant is not None:
        return []
    rows = unit_rows(_union(scan).to_arrow(), scan.batch_size)
    request = scan.request
    if scan.filter is not None or (request.limit is None and not request.offset):
        return plan_units(scan.fragments, rows)
    return await _plan_limited(scan, rows)


async def _plan_limited(scan: Scan, rows: int) -> list[Unit]:
    """Only the fragments that hold live rows [offset, offset + limit), and of those only the rows needed."""
    start = scan.request.offset or 0
    stop = start + scan.request.limit if scan.request.limit is not None else None
    units: list[Unit] = []
    seen = 0
    for fragment in scan.fragments:
        live = fragment.num_rows
        low, high = max(start - seen, 0), live if stop is None else min(stop - seen, live)
        seen += live
        if low >= high:
            if stop is not None and seen >= stop:
                break
            continue
        if low == 0 and high == live:
            units.extend(plan_units([fragment], rows))
            continue
        deleted = await scan.snapshot.deletions(fragment)
        edges = live_to_physical(deleted, np.array([low, high - 1], dtype=np.int64))
        begin, end = int(edges[0]), int(edges[1]) + 1
        for at in range(begin, end, rows):
            units.append(Unit(fragment, at, min(at + rows, end)))
    return units


async def _batches(
    scan: Scan, units: Sequence[Unit], primed: dict[int, FragmentReader] | None = None
) -> AsyncGenerator[pa.RecordBatch, None]:
    """Output batches in order, at most ``batch_size`` rows each; limit and offset applied after a filter."""
    request = scan.request
    filtered = scan.filter is not None
    skip = (request.offset or 0) if filtered else 0
    left = request.limit if filtered else None
    if request.limit == 0:
        return

    async def read(unit: Unit) -> pa.RecordBatch | None:
        return await read_unit(scan, unit, primed.pop(unit.fragment.id, None) if primed else None)

    # With a limit after a filter every unit read ahead may be wasted: stay close to the consumer.
    window = scan.window if left is None else min(scan.window, 4)
    chunk = 1 if left is not None else max(1, min(8, len(units) // 16))
    stream = current_runtime().map_ordered(
        read, units, window=max(window, chunk), suspends=scan.snapshot.suspends, chunk=chunk
    )
    async with aclosing(stream):
        async for batch in stream:
            if batch is None or batch.num_rows == 0:
                continue
            if skip:
                dropped = min(skip, batch.num_rows)
                skip -= dropped
                batch = batch.slice(dropped)
                if batch.num_rows == 0:
                    continue
            if left is not None:
                batch = batch.slice(0, left)
                left -= batch.num_rows
            if batch.num_rows <= scan.batch_size:
                yield batch
            else:
                for at in range(0, batch.num_rows, scan.batch_size):
                    yield batch.slice(at, scan.batch_size)
            if left == 0:
                return


async def read_unit(scan: Scan, unit: Unit, primed: FragmentReader | None = None) -> pa.RecordBatch | None:
    """Read, filter and project one unit; None when no row survives."""
    snapshot, fragment = scan.snapshot, unit.fragment
    deleted = await snapshot.deletions(fragment)
    alive = surviving(deleted, unit.start, unit.stop)
    if scan.filter is None:
        reader = await FragmentReader.open(snapshot, fragment, scan.late, beside=primed)
        batch = await reader.read(unit.start, unit.stop)
        return await _project(scan, unit, batch, None if alive is None else np.flatnonzero(alive))
    reader = await FragmentReader.open(snapshot, fragment, scan.early, beside=primed)
    batch = await reader.read(unit.start, unit.stop)
    keep = await filter_mask(snapshot, scan.filter, batch, fragment.id, unit.start)
    if alive is not None:
        keep &= alive
    chosen = np.flatnonzero(keep)
    if len(chosen) == 0:
        return None
    whole = len(chosen) == unit.stop - unit.start
    if not scan.late.fields:
        return await _project(scan, unit, batch, None if whole else chosen)
    late_reader = await FragmentReader.open(snapshot, fragment, scan.late, len(chosen), beside=reader)
    if len(chosen) <= _TAKE_FRACTION * (unit.stop - unit.start):
        late = await late_reader.take(chosen + unit.start)
        batch = _side_by_side(scan, batch.take(pa.array(chosen)), late)
        return await _project(scan, unit, batch, chosen, taken=True)
    late = await late_reader.read(unit.start, unit.stop)
    return await _project(scan, unit, _side_by_side(scan, batch, late), None if whole else chosen)


async def filter_mask(
    snapshot: Snapshot, bound: Any, batch: pa.RecordBatch, fragment_id: int, start: int
) -> npt.NDArray[np.bool_]:
    """Evaluate a bound filter on a batch that begins at physical row ``start``: null counts as false."""
    rows = batch.num_rows
    if ROW_ID in bound.columns or ROW_ADDRESS in bound.columns:
        addresses = row_addresses(fragment_id, range(start, start + rows))
        batch = await with_system_columns(snapshot, bound, batch, addresses)
    return true_mask(bound.evaluate(batch))


async def with_system_columns(
    snapshot: Snapshot, bound: Any, batch: pa.RecordBatch, addresses: npt.NDArray[np.uint64]
) -> pa.RecordBatch:
    """A batch with the row ids and row addresses that an expression needs."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    if ROW_ADDRESS in bound.columns:
        columns[ROW_ADDRESS] = pa.array(addresses)
    if ROW_ID in bound.columns:
        columns[ROW_ID] = pa.array(await snapshot.row_ids(addresses))
    return pa.RecordBatch.from_pydict(columns) if columns else batch


def true_mask(result: pa.BooleanArray) -> npt.NDArray[np.bool_]:
    """A boolean array as a NumPy mask; null becomes False."""
    if result.null_count:
        result = result.fill_null(False)
    mask: npt.NDArray[np.bool_] = result.to_numpy(zero_copy_only=False).astype(np.bool_, copy=True)
    return mask


def _side_by_side(scan: Scan, left: pa.RecordBatch, right: pa.RecordBatch) -> pa.RecordBatch:
    names = left.schema.names + right.schema.names
    return (
        pa.RecordBatch.from_arrays(
            [*left.columns, *right.columns], schema=pa.schema([*left.schema, *right.schema])
        )
        if names
        else left
    )


async def _project(
    scan: Scan,
    unit: Unit,
    batch: pa.RecordBatch,
    chosen: npt.NDArray[np.int64] | None,
    *,
    taken: bool = False,
) -> pa.RecordBatch:
    addresses = None
    if scan.projection.needs_address:
        rows: range | npt.NDArray[np.int64] = (
            range(unit.start, unit.stop) if chosen is None else chosen + unit.start
        )
        addresses = row_addresses(unit.fragment.id, rows)
    if chosen is not None and not taken:
        batch = batch.take(pa.array(chosen))
    ids = None
    if scan.projection.needs_row_id and addresses is not None:
        ids = await scan.snapshot.row_ids(addresses)
    return scan.projection.build(batch, addresses, row_ids=ids)
