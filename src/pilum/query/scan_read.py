"""Reading one group of a scan: stages of the filter, then the columns of the rows that are left.

Rows that are left are a mask over the whole group while they are many, and a list of positions once they are few:
from then on only those rows are read.  One batch comes out, with the number of rows of each unit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding.kernels import flags
from pilum.io import Bytes
from pilum.query import fragment_batch, pruning
from pilum.query.fragment_reader import FragmentReader, gather
from pilum.query.rows import surviving
from pilum.query.scan_plan import Scan, Stage
from pilum.query.snapshot import Snapshot
from pilum.query.system import system_columns
from pilum.query.units import Unit, UnitGroup
from pilum.schema import Schema

__all__ = [
    "Bodies",
    "Piece",
    "Selection",
    "count_group",
    "live_mask",
    "open_group",
    "pruned_group",
    "read_columns",
    "read_group",
    "select_rows",
    "true_mask",
]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
Bodies = dict[str, Bytes]

# Reading rows one by one pays off when it skips at least three quarters of them.
_FEW = 0.25


class Piece(NamedTuple):
    """Output rows of a group.

    Attributes:
        batch: the rows.
        counts: how many of them each unit has.
    """

    batch: pa.RecordBatch
    counts: list[int]


async def read_group(scan: Scan, group: UnitGroup, bodies: Bodies | None = None) -> Piece | None:
    """Read, filter and project a group; None when no row survives.

    Args:
        scan: the plan.
        group: rows to read.
        bodies: data files that were fetched whole, by path.
    """
    bodies = {} if bodies is None else bodies
    pruned = await pruned_group(scan, group, bodies)
    if pruned is None:
        return None
    group = pruned
    if scan.metrics is not None:
        scan.metrics.scanned([unit.fragment.id for unit in group.units], group.num_rows)
    found = await select_rows(scan, group, bodies)
    rows = found.rows
    if rows is not None and len(rows) == 0:
        return None
    batch = found.held
    if scan.late.fields or batch is None:
        late = await _columns(scan, group, scan.late, rows if found.sparse else None, bodies, "late")
        batch = late if batch is None else _side_by_side(batch, late)
    if rows is not None and not found.sparse:
        batch = arrays.take(batch, rows)
    hidden = None
    if scan.request.include_deleted_rows and found.alive is not None:
        hidden = ~found.alive if rows is None else ~found.alive[rows]
    made = await _made(scan.snapshot, group, rows, scan.projection.system, hidden)
    return Piece(scan.projection.build(batch, made), _counts(group, rows))


async def pruned_group(scan: Scan, group: UnitGroup, bodies: Bodies) -> UnitGroup | None:
    """The group without rows that statistics rule out; None when none are left."""
    if scan.bounded is None:
        return group
    return await pruning.prune(scan.snapshot, group, scan.filter.node, scan.bounded, bodies)


async def count_group(scan: Scan, group: UnitGroup) -> int:
    """How many rows of a group pass the filter."""
    pruned = await pruned_group(scan, group, {})
    if pruned is None:
        return 0
    group = pruned
    if scan.metrics is not None:
        scan.metrics.scanned([unit.fragment.id for unit in group.units], group.num_rows)
    rows = (await select_rows(scan, group, {})).rows
    return group.num_rows if rows is None else len(rows)


class Selection(NamedTuple):
    """What the filter left of a group.

    Attributes:
        rows: positions of the rows that pass; None: all.
        held: the columns read so far, of the rows that pass if ``sparse``, else of all rows of the group.
        sparse: whether the rows are so few that only they are read from now on.
        alive: the live rows; None: all.
    """

    rows: I64 | None
    held: pa.RecordBatch | None
    sparse: bool
    alive: Bools | None


def _counts(group: UnitGroup, rows: I64 | None) -> list[int]:
    if len(group.units) == 1:
        return [group.num_rows if rows is None else len(rows)]
    edges = group.starts if rows is None else np.searchsorted(rows, group.starts)
    counts: list[int] = np.diff(edges).tolist()
    return counts


async def select_rows(scan: Scan, group: UnitGroup, bodies: Bodies) -> Selection:
    """The live rows of a group that pass the filter of a scan."""
    snapshot = scan.snapshot
    alive: Bools | None
    if not scan.stages:
        if snapshot.suspends and any(unit.fragment.deletion_file is not None for unit in group.units):
            # The deletions and the metadata of the files are asked for together.
            both = [live_mask(snapshot, group), open_group(snapshot, group, scan.late, bodies)]
            alive = (await gather(both, suspends=True))[0]
        else:
            alive = await live_mask(snapshot, group)
        if alive is None or scan.request.include_deleted_rows:
            return Selection(None, None, False, alive)
        rows = flags.positions(alive, int(np.count_nonzero(alive)))
        return Selection(rows, None, len(rows) <= _FEW * group.num_rows, alive)
    alive = None
    mask: Bools | None = None
    positions: I64 | None = None
    held: pa.RecordBatch | None = None
    for number, stage in enumerate(scan.stages):
        name = f"stage {number + 1}"
        if number == 0:
            alive, batch = await gather(
                [live_mask(scan.snapshot, group), _columns(scan, group, stage.schema, None, bodies, name)],
                suspends=scan.snapshot.suspends and bool(stage.schema.fields),
            )
        else:
            batch = await _columns(scan, group, stage.schema, positions, bodies, name)
        if held is not None:
            batch = _side_by_side(held, batch)
        hidden = None
        if scan.request.include_deleted_rows and alive is not None and stage.system:
            hidden = ~alive if positions is None else ~alive[positions]
        passed = await _test(scan, stage, group, positions, batch, hidden)
        names = set(stage.keep) | (set() if held is None else set(held.schema.names))
        held = batch.select([name for name in batch.schema.names if name in names])
        if positions is None:
            if number == 0 and alive is not None and not scan.request.include_deleted_rows:
                passed &= alive
            mask = passed if mask is None else mask & passed
            left = int(np.count_nonzero(mask))
            if left == 0:
                return Selection(np.empty(0, np.int64), None, True, alive)
            if left <= _FEW * group.num_rows:
                positions = flags.positions(mask, left)
                held = arrays.take(held, positions)
        elif (left := int(np.count_nonzero(passed))) < len(passed):
            kept = flags.positions(passed, left)
            positions = positions[kept]
            if len(kept) == 0:
                return Selection(positions, None, True, alive)
            held = arrays.take(held, kept)
    if positions is not None:
        return Selection(positions, held, True, alive)
    assert mask is not None
    left = int(np.count_nonzero(mask))
    return Selection(None if left == len(mask) else flags.positions(mask, left), held, False, alive)


async def _test(
    scan: Scan, stage: Stage, group: UnitGroup, rows: I64 | None, batch: pa.RecordBatch, hidden: Bools | None
) -> Bools:
    """Which rows of a batch pass the conditions of a stage."""
    if stage.system:
        made = await _made(scan.snapshot, group, rows, stage.system, hidden)
        columns = {name: batch.column(name) for name in batch.schema.names}
        batch = pa.RecordBatch.from_pydict({**columns, **made})
    passed: Bools | None = None
    for one in stage.filters:
        result = true_mask(one.evaluate(batch))
        passed = result if passed is None else passed & result
        if not passed.any():
            break
    assert passed is not None
    return passed


async def _made(
    snapshot: Snapshot, group: UnitGroup, rows: I64 | None, names: tuple[str, ...], hidden: Bools | None
) -> dict[str, pa.Array]:
    if not names:
        return {}
    return await system_columns(snapshot, group.addresses(rows), names, deleted=hidden)


async def live_mask(snapshot: Snapshot, group: UnitGroup) -> Bools | None:
    """The live rows of a group; None when all are."""
    with_deletions = [
        (unit, int(start))
        for unit, start in zip(group.units, group.starts, strict=False)
        if unit.fragment.deletion_file is not None
    ]
    if not with_deletions:
        return None
    loaded = await gather(
        [snapshot.deletions(unit.fragment) for unit, _ in with_deletions], suspends=snapshot.suspends
    )
    alive: Bools | None = None
    for (unit, start), deleted in zip(with_deletions, loaded, strict=True):
        own = surviving(deleted, unit.start, unit.stop)
        if own is not None:
            if alive is None:
                alive = np.ones(group.num_rows, dtype=np.bool_)
            alive[start : start + len(own)] = own
    return alive


async def _columns(
    scan: Scan, group: UnitGroup, schema: Schema, rows: I64 | None, bodies: Bodies, step: str
) -> pa.RecordBatch:
    """Stored columns of the rows at some positions of a group (all by default), in that order."""
    count = group.num_rows if rows is None else len(rows)
    if not schema.fields:
        return _empty(count)
    if scan.metrics is None:
        return await read_columns(scan.snapshot, group, schema, rows, bodies)
    with scan.metrics.step(step, [unit.fragment.id for unit in group.units]) as measured:
        batch = await read_columns(scan.snapshot, group, schema, rows, bodies)
        measured.rows = batch.num_rows
    return batch


async def read_columns(
    snapshot: Snapshot, group: UnitGroup, schema: Schema, rows: I64 | None, bodies: Bodies
) -> pa.RecordBatch:
    """Stored columns of the rows at some ascending positions of a group (all by default).

    Args:
        bodies: data files that were fetched whole, by path; those that are fetched now are added.
    """
    if len(group.units) == 1:
        unit = group.units[0]
        reader = await FragmentReader.open(
            snapshot, unit.fragment, schema, unit.stop - unit.start if rows is None else len(rows), bodies
        )
        bodies.update(reader.bodies())
        if rows is None:
            return await reader.read(unit.start, unit.stop)
        first, last = int(rows[0]), int(rows[-1])
        if last - first + 1 == len(rows):
            return await reader.read(unit.start + first, unit.start + last + 1)
        return await reader.take(rows + unit.start)
    units: list[Unit] | tuple[Unit, ...] = group.units
    if rows is not None:
        edges = np.searchsorted(rows, group.starts)
        used = np.flatnonzero(np.diff(edges))
        units = [group.units[position] for position in used.tolist()]
        # Positions within the units that are read.
        sizes = np.diff(group.starts)[used]
        moved = group.starts[used] - (np.cumsum(sizes) - sizes)
        rows = rows - np.repeat(moved, np.diff(edges)[used])
    readers = await fragment_batch.open_fragments(snapshot, [unit.fragment for unit in units], schema, bodies)
    for reader in readers:
        bodies.update(reader.bodies())
    batch = await fragment_batch.read_together(
        readers, [(unit.start, unit.stop) for unit in units], schema, suspends=snapshot.suspends
    )
    if rows is None or len(rows) == batch.num_rows:
        return batch
    return arrays.take(batch, rows)


async def open_group(snapshot: Snapshot, group: UnitGroup, schema: Schema, bodies: Bodies) -> None:
    """Open the files of a group and load the metadata of the columns, so that later reads ask for data only."""
    if not schema.fields:
        return
    if len(group.units) == 1:
        unit = group.units[0]
        rows = unit.stop - unit.start
        readers = [await FragmentReader.open(snapshot, unit.fragment, schema, rows, bodies)]
    else:
        readers = await fragment_batch.open_fragments(
            snapshot, [unit.fragment for unit in group.units], schema, bodies
        )
    waiting = [reader for reader in readers if not reader.is_here]
    await gather([reader.initialise() for reader in waiting], suspends=snapshot.suspends)
    for reader in readers:
        bodies.update(reader.bodies())


def true_mask(result: pa.BooleanArray) -> Bools:
    """A boolean array as a NumPy mask; null becomes False."""
    if result.null_count:
        return arrays.filled(result) & arrays.valid(result)
    return arrays.to_numpy(result)


def _empty(count: int) -> pa.RecordBatch:
    """A batch without columns that still has rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(count)], names=["_"]).select([])


def _side_by_side(left: pa.RecordBatch, right: pa.RecordBatch) -> pa.RecordBatch:
    if not right.schema.names:
        return left
    if not left.schema.names:
        return right
    return pa.RecordBatch.from_arrays(
        [*left.columns, *right.columns], schema=pa.schema([*left.schema, *right.schema])
    )
