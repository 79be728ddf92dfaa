"""The filtered read: a stream of batches over fragments, filter, deletions, order, limit and offset.

```
fragments ─► units, groups (pure) ─► map_ordered(read one group, window) ─► limit / offset ─► batches
```

`open_scan` awaits the metadata of the first window of groups before it hands out the stream: the metadata I/O of
many fragments is in flight at once and its errors surface at that await (docs/architecture.md, "The one idea").

A limit behind a filter grows what is read: a small group first, then groups of twice the size, then several at
once, so that the last step reads about as much as all before it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pilum import arrays, config
from pilum.io import current_runtime
from pilum.io.ordered import drive
from pilum.query.fragment_reader import gather
from pilum.query.memory import Share, scan_share, share_alone
from pilum.query.opened_ahead import OpenedAhead
from pilum.query.ordering import TopRows
from pilum.query.projection import resolve
from pilum.query.rows import live_to_physical
from pilum.query.scan_plan import Scan, plan_scan, readahead
from pilum.query.scan_read import Bodies, Piece, count_group, live_mask, open_group, read_group
from pilum.query.system import ROW_ADDRESS
from pilum.query.take import take_rows
from pilum.query.units import Unit, UnitGroup, group_units, plan_units, rows_for

__all__ = [
    "Scan",
    "Work",
    "count",
    "open_scan",
    "open_units",
    "ordered_keys",
    "plan_groups",
    "plan_scan",
    "plan_work",
    "readahead",
    "scan_table",
]

# Small fragments that are read together: enough that what is done once a group does not count.
_GROUP_BYTES = 2 << 20
_GROUP_UNITS = 32
# Pages are stored in chunks of some KiB: units of less than this would decode the same chunk again and again.
_LEAST_BYTES = 128 << 10
# With an order and a limit of at most this many rows, only what is sorted by is read for all rows.
_FEW_ROWS = 10_000


class Work(NamedTuple):
    """The pieces of a scan and how many are in flight.

    Attributes:
        groups: what is read, in order.
        window: groups that are started and not yet consumed.
        share: bytes for which this was planned.
    """

    groups: Sequence[UnitGroup]
    window: int
    share: int


async def open_scan(scan: Scan) -> AsyncGenerator[pa.RecordBatch, None]:
    """Initialise the first window of fragments and return the primed stream of output batches."""
    if scan.orderings:
        return _cut(scan, _stream_of(await _ordered(scan)))
    with scan_share(scan.request.io_buffer_size, suspends=scan.snapshot.suspends) as share:
        work = await plan_work(scan, share.nbytes)
    return await _primed(scan, work)


async def open_units(scan: Scan, units: Sequence[Unit]) -> AsyncGenerator[pa.RecordBatch, None]:
    """As `open_scan`, for some units instead of all rows of the scan's fragments; the scan has no limit."""
    with scan_share(scan.request.io_buffer_size, suspends=scan.snapshot.suspends) as share:
        groups = group_units(units, 1, 1)
        return await _primed(scan, Work(groups, _window(scan, groups, share.nbytes), share.nbytes))


async def _primed(scan: Scan, work: Work) -> AsyncGenerator[pa.RecordBatch, None]:
    bodies: dict[int, Bodies] = {}
    first = work.groups[: _phase_of(scan, 0, work.window)[1]]

    async def prime(group: UnitGroup) -> tuple[UnitGroup, Bodies]:
        found: Bodies = {}
        schema = scan.stages[0].schema if scan.stages else scan.late
        await gather(
            [live_mask(scan.snapshot, group), open_group(scan.snapshot, group, schema, found)],
            suspends=scan.snapshot.suspends,
        )
        return group, found

    stream = current_runtime().map_ordered(
        prime, first, window=max(1, len(first)), suspends=scan.snapshot.suspends
    )
    async with aclosing(stream):
        async for group, found in stream:
            # A file that was fetched whole is kept until its rows are read.
            if found:
                bodies[id(group)] = found
    return _cut(scan, _pieces(scan, work, bodies))


async def scan_table(scan: Scan) -> pa.Table:
    """All output batches of a scan as one table."""
    if scan.orderings:
        return await _ordered(scan)
    batches = []
    async with aclosing(_pieces(scan)) as stream:
        async for piece in stream:
            batches.append(piece.batch)
    return pa.Table.from_batches(batches, schema=scan.schema)


async def count(scan: Scan) -> int:
    """Number of rows a scan returns, reading only the filter's columns."""
    if scan.nothing:
        return 0
    if not scan.stages:
        return sum(fragment.num_rows for fragment in scan.fragments)
    with scan_share(scan.request.io_buffer_size, suspends=scan.snapshot.suspends) as share:
        work = await plan_work(scan, share.nbytes)

        async def one(group: UnitGroup) -> int:
            return await count_group(scan, group)

        stream = current_runtime().map_ordered(
            one, work.groups, window=work.window, suspends=scan.snapshot.suspends
        )
        total = 0
        async with aclosing(stream):
            async for found in stream:
                total += found
    return total


# -- what is read ----------------------------------------------------------------------------------------


async def plan_work(scan: Scan, share: int, *, reads: bool = True) -> Work:
    """Cut the scan into groups and choose how many are in flight; only a limit without filter may read (deletions).

    Args:
        scan: the plan.
        share: bytes that may be held.
        reads: False: deletions that are not known move the ends of a limit by as many rows as there are.
    """
    if scan.nothing:
        return Work([], 1, share)
    request = scan.request
    row_bytes = scan.row_bytes
    rows = _unit_rows(scan, share)
    ahead = readahead(scan.snapshot, request)
    if request.batch_readahead is not None:
        most = request.batch_readahead * scan.batch_size
        rows = min(rows, max(most // 2, int(_LEAST_BYTES / row_bytes)))
        rows = max(1, rows // scan.batch_size) * scan.batch_size
        ahead = max(1, min(ahead, most // rows))
    together = max(1, min(_GROUP_UNITS, ahead))
    most_rows = max(1, int(min(_GROUP_BYTES, share // 4) / row_bytes))
    limited = request.limit is not None or bool(request.offset)
    groups: Sequence[UnitGroup]
    if limited and not scan.stages:
        units = await _plan_limited(scan, rows, reads=reads)
        groups = group_units(units, most_rows, together)
    elif request.limit is not None:
        groups = _ramped(scan, rows, most_rows, together)
    else:
        groups = _all_groups(scan, rows, most_rows, together)
    return Work(groups, _window(scan, groups, share, ahead), share)


def _unit_rows(scan: Scan, share: int) -> int:
    """Rows of a unit: while one is consumed another one is decoded, and the bytes of a third are there."""
    return rows_for(scan.row_bytes, scan.batch_size, max(_LEAST_BYTES, min(scan.unit_bytes, share // 4)))


def _window(scan: Scan, groups: Sequence[UnitGroup], share: int, ahead: int | None = None) -> int:
    """How many groups may be in flight: by the bytes and the units that may be held."""
    request = scan.request
    if ahead is None:
        ahead = readahead(scan.snapshot, request)
    rows = [group.num_rows for group in groups[:1000]]
    # One more is held by the consumer, and one as bytes.
    by_memory = max(1, _neighbours(rows, share / scan.row_bytes - 2 * max(rows, default=1)))
    units_each = max((len(group.units) for group in groups[:1000]), default=1)
    window = min(by_memory, max(1, ahead // units_each))
    if not scan.snapshot.suspends and request.fragment_readahead is None and request.batch_readahead is None:
        # More than keeps the cores busy only holds memory.
        window = min(window, max(4, 2 * config.cpu_threads()))
    return max(1, window)


def _neighbours(sizes: Sequence[int], most: float) -> int:
    """How many neighbours fit into ``most``, wherever they are.

    Where all do: as many as would if the largest were repeated.
    """
    if sum(sizes) <= most:
        return max(len(sizes), int(most / max(sizes, default=1)))
    fewest, low, held = len(sizes), 0, 0
    for high, size in enumerate(sizes):
        held += size
        while held > most and low <= high:  # those from `low` to `high` do not fit
            fewest = min(fewest, high - low)
            held -= sizes[low]
            low += 1
    return fewest


def _all_groups(scan: Scan, rows: int, most_rows: int, together: int) -> Sequence[UnitGroup]:
    """Groups of whole fragments; kept with the snapshot, since scans of the same width have the same."""
    if scan.request.fragment_ids is not None:
        return group_units(plan_units(scan.fragments, rows), most_rows, together)
    key = ("scan", rows, most_rows, together)
    plans = scan.snapshot.plans
    found: Sequence[UnitGroup] | None = plans.get(key)
    if found is None:
        found = group_units(plan_units(scan.fragments, rows), most_rows, together)
        if len(plans) < 64:
            plans[key] = found
    return found


def _ramped(scan: Scan, rows: int, most_rows: int, together: int) -> Sequence[UnitGroup]:
    """Groups that begin with about the rows that the limit may need and double."""
    wanted = (scan.request.limit or 0) + (scan.request.offset or 0)
    size = min(rows, max(scan.batch_size, wanted))
    groups: list[UnitGroup] = []
    pending: list[Unit] = []
    held = 0

    def flush() -> None:
        nonlocal held, size
        if pending:
            groups.append(UnitGroup.of(pending))
            pending.clear()
            held = 0
            size = min(rows, 2 * size)

    for fragment in scan.fragments:
        start, end = 0, fragment.physical_rows
        while start < end:
            if pending and (held + min(end - start, rows) > min(size, most_rows) or len(pending) >= together):
                flush()
            stop = min(end, start + size)
            pending.append(Unit(fragment, start, stop))
            held += stop - start
            if stop < end:
                flush()
            start = stop
    flush()
    return groups


def plan_groups(scan: Scan) -> Sequence[UnitGroup]:
    """The groups of a scan as far as they follow from the manifest: deleted rows may move the ends of a limit."""
    share = share_alone(scan.request.io_buffer_size, suspends=scan.snapshot.suspends)
    return drive(plan_work(scan, share, reads=False)).groups


async def _plan_limited(scan: Scan, rows: int, *, reads: bool = True) -> list[Unit]:
    """Only the fragments that hold rows [offset, offset + limit), and of those only the rows needed."""
    start = scan.request.offset or 0
    stop = start + scan.request.limit if scan.request.limit is not None else None
    hidden = scan.request.include_deleted_rows
    units: list[Unit] = []
    seen = 0
    for fragment in scan.fragments:
        live = fragment.physical_rows if hidden else fragment.num_rows
        low, high = max(start - seen, 0), live if stop is None else min(stop - seen, live)
        seen += live
        if low >= high:
            if stop is not None and seen >= stop:
                break
            continue
        if low == 0 and high == live:
            units.extend(plan_units([fragment], rows))
            continue
        if not hidden and fragment.deletion_file is not None:
            deleted = scan.snapshot.known_deletions(fragment)
            if deleted is None and reads:
                deleted = await scan.snapshot.deletions(fragment)
            if deleted is not None:
                edges = live_to_physical(deleted, np.array([low, high - 1], dtype=np.int64))
                low, high = int(edges[0]), int(edges[1]) + 1
            else:
                high = min(fragment.physical_rows, high + fragment.physical_rows - live)
        for at in range(low, high, rows):
            units.append(Unit(fragment, at, min(at + rows, high)))
    return units


# -- streams ---------------------------------------------------------------------------------------------


def _phase_of(scan: Scan, start: int, window: int) -> tuple[int, int]:
    """How many groups the phase that begins at group ``start`` has, and how many are in flight."""
    if scan.request.limit is None or not scan.stages:
        return 1 << 62, window
    # 1, 1, 2, 4, ... groups: what is read ahead in vain is at most about what was needed.
    size = max(1, start // 2)
    return size, min(window, size)


async def _pieces(
    scan: Scan, work: Work | None = None, bodies: dict[int, Bodies] | None = None
) -> AsyncGenerator[Piece, None]:
    """Output rows group by group, offset and limit behind a filter applied."""
    request = scan.request
    filtered = bool(scan.stages)
    skip = (request.offset or 0) if filtered else 0
    left = request.limit if filtered else None
    async with AsyncExitStack() as stack:
        share = stack.enter_context(scan_share(request.io_buffer_size, suspends=scan.snapshot.suspends))
        if work is None:
            work = await plan_work(scan, share.nbytes)
        planned = work.share

        groups = work.groups
        ahead = None
        if scan.snapshot.suspends and request.limit is None and len(groups) > work.window:
            ahead = await stack.enter_async_context(OpenedAhead(scan, groups, work.window))

        async def read(group: UnitGroup) -> Piece | None:
            if ahead is not None:
                ahead.advance()
            return await read_group(scan, group, bodies.pop(id(group), None) if bodies else None)

        at = 0
        while at < len(groups):
            size, window = _phase_of(scan, at, work.window)
            if planned != share.nbytes:
                planned = share.nbytes
                groups = [*groups[:at], *_recut(groups[at:], _unit_rows(scan, planned))]
                window = min(window, _window(scan, groups[at:], planned))
            part = groups if at == 0 and size >= len(groups) else groups[at : at + size]

            phase = _Phase(part, share, planned)
            stream = current_runtime().map_ordered(
                read, part if len(part) == 1 else iter(phase), window=window, suspends=scan.snapshot.suspends
            )
            async with aclosing(stream):
                async for piece in stream:
                    if piece is None:
                        continue
                    if skip or left is not None:
                        piece = _trimmed(piece, skip, left)
                        skip -= piece.dropped
                        if left is not None:
                            left -= piece.piece.batch.num_rows
                        piece = piece.piece
                        if piece.batch.num_rows == 0:
                            if left == 0:
                                return
                            continue
                    yield piece
                    if left == 0:
                        return
            at += len(part) if len(part) == 1 else phase.begun


class _Phase:
    """Groups of a scan until other scans leave it much less memory than planned, or more.

    Attributes:
        begun: groups that were handed out.
    """

    def __init__(self, groups: Sequence[UnitGroup], share: Share, planned: int) -> None:
        self._groups = groups
        self._share = share
        self._planned = planned
        self.begun = 0

    def __iter__(self) -> Iterator[UnitGroup]:
        for group in self._groups:
            if self.begun and not self._planned <= 2 * self._share.nbytes <= 8 * self._planned:
                return
            self.begun += 1
            yield group


def _recut(groups: Sequence[UnitGroup], rows: int) -> Sequence[UnitGroup]:
    """The same rows in groups of at most so many rows each."""
    if all(group.num_rows <= rows for group in groups[:100]):
        return groups
    return [
        cut for group in groups for cut in ([group] if group.num_rows <= rows else _cut_group(group, rows))
    ]


def _cut_group(group: UnitGroup, rows: int) -> Sequence[UnitGroup]:
    units = [
        Unit(unit.fragment, at, min(at + rows, unit.stop))
        for unit in group.units
        for at in range(unit.start, unit.stop, rows)
    ]
    return group_units(units, rows, _GROUP_UNITS)


class _Trimmed(NamedTuple):
    piece: Piece
    dropped: int


def _trimmed(piece: Piece, skip: int, left: int | None) -> Any:
    """A piece without its first ``skip`` rows and of at most ``left`` rows."""
    rows = piece.batch.num_rows
    low = min(skip, rows)
    high = rows if left is None else min(rows, low + left)
    if low == 0 and high == rows:
        return _Trimmed(piece, 0)
    edges = np.clip(np.cumsum([0, *piece.counts]), low, high)
    return _Trimmed(Piece(piece.batch.slice(low, high - low), np.diff(edges).tolist()), low)


async def _cut(scan: Scan, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[pa.RecordBatch, None]:
    """Batches of at most ``batch_size`` rows (and ``batch_size_bytes`` bytes), none over a border of fragments;
    exactly that many rows each if they are strict."""
    most = scan.batch_size
    strict: list[pa.RecordBatch] = []
    gathered = 0
    async with aclosing(pieces):
        async for piece in pieces:
            rows = most
            if scan.request.batch_size_bytes is not None and piece.batch.num_rows:
                each = max(1, piece.batch.nbytes // piece.batch.num_rows)
                rows = max(1, min(most, scan.request.batch_size_bytes // each))
            if scan.request.strict_batch_size:
                strict.append(piece.batch)
                gathered += piece.batch.num_rows
                while gathered >= most:
                    batch, strict = _exactly(strict, most)
                    gathered -= most
                    yield batch
                continue
            if len(piece.counts) == 1 and piece.batch.num_rows <= rows:
                yield piece.batch
                continue
            at = 0
            for count_ in piece.counts:
                for low in range(at, at + count_, rows):
                    yield piece.batch.slice(low, min(rows, at + count_ - low))
                at += count_
    if gathered:
        yield _exactly(strict, gathered)[0]


def _exactly(batches: list[pa.RecordBatch], rows: int) -> tuple[pa.RecordBatch, list[pa.RecordBatch]]:
    """One batch of the first ``rows`` rows, and the rest."""
    taken: list[pa.RecordBatch] = []
    left = rows
    while left:
        batch = batches.pop(0)
        if batch.num_rows > left:
            batches.insert(0, batch.slice(left))
            batch = batch.slice(0, left)
        left -= batch.num_rows
        taken.append(batch)
    return (taken[0] if len(taken) == 1 else pa.concat_batches(taken)), batches


async def _stream_of(table: pa.Table) -> AsyncGenerator[Piece, None]:
    for batch in table.to_batches():
        yield Piece(batch, [batch.num_rows])


# -- order -----------------------------------------------------------------------------------------------


def ordered_keys(scan: Scan) -> Scan:
    """The scan that is sorted: of what is sorted by alone when few rows are wanted, else of everything."""
    request = scan.request
    unlimited = replace(scan, request=request.updated(limit=None, offset=None, order_by=()), orderings=())
    stop = None if request.limit is None else (request.offset or 0) + request.limit
    if stop is None or stop > _FEW_ROWS or request.include_deleted_rows:
        return unlimited
    outputs = {output.field.name: output for output in scan.projection.outputs}
    computed = any(
        (output := outputs.get(one.column_name)) is not None and output.expression is not None
        for one in scan.orderings
    )
    if computed or isinstance(request.columns, dict):
        return unlimited  # sorted by what is computed: there is nothing cheaper to read first
    narrow = unlimited.request.updated(
        columns=list(dict.fromkeys(one.column_name for one in scan.orderings)),
        with_row_address=True,
        with_row_id=False,
        late_materialization=None,
    )
    return replace(plan_scan(scan.snapshot, narrow), metrics=scan.metrics)


async def _ordered(scan: Scan) -> pa.Table:
    """All rows in the order asked for; limit and offset count in that order."""
    request = scan.request
    start = request.offset or 0
    stop = None if request.limit is None else start + request.limit
    if request.limit == 0:
        return pa.Table.from_batches([], schema=scan.schema)
    keys = ordered_keys(scan)
    whole = keys.projection is scan.projection
    names = scan.order_names if whole else [one.column_name for one in scan.orderings]
    top = TopRows(scan.orderings, names, stop)
    async with aclosing(_pieces(keys)) as stream:
        async for piece in stream:
            top.add(piece.batch)
    if whole:
        return top.sorted(scan.projection.schema).slice(start).select(scan.schema.names)
    found = top.sorted(keys.schema).slice(start)
    addresses = arrays.to_numpy(found.column(ROW_ADDRESS))
    projection = resolve(
        scan.snapshot.manifest.schema,
        request.columns,
        with_row_id=request.with_row_id,
        with_row_address=request.with_row_address,
    )
    if scan.metrics is None or not len(addresses):
        return await take_rows(scan.snapshot, addresses, projection)
    with scan.metrics.step("take", [int(addresses[0]) >> 32]) as measured:
        table = await take_rows(scan.snapshot, addresses, projection)
        measured.rows = table.num_rows
    return table
