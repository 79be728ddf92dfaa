"""Brute-force nearest-neighbour search over the fragments of a table.

```
units ─► read the vector column ─► distances (kernel, no GIL) ─► best k of a group of units
                                                                     │
      remaining columns of the k best rows  ◄── best k of all  ◄─────┘
```

Small fragments are handled in groups: one hand-off between threads and one top-k per group, so that the
Python per fragment stays at open, schedule, read (spec/read-path.md, section 11, gives the semantics: null
vectors and NaN distances never match, ties go to the lower row id).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding import Decoded
from pilum.encoding.blocks import FixedBlock, FslBlock, NullBlock
from pilum.encoding.kernels.distance import Distance, top_k
from pilum.errors import CorruptFileError, InvalidInputError
from pilum.io import current_runtime
from pilum.query.fragment_batch import open_fragments, read_decoded
from pilum.query.fragment_reader import FragmentReader
from pilum.query.late import parse_filter
from pilum.query.projection import Projection, resolve, stored_columns
from pilum.query.request import Nearest, ScanRequest
from pilum.query.rows import address_base, surviving
from pilum.query.scan import filter_mask, readahead, true_mask, with_system_columns
from pilum.query.snapshot import Snapshot
from pilum.query.take import take_addresses
from pilum.query.units import Unit, plan_units, unit_rows
from pilum.schema import Schema

__all__ = ["Search", "plan_search", "search"]

# Units searched in one go: enough that what is done once a group does not count, few enough that their bytes
# are still in the processor's cache when the distances are computed.
_GROUP_BYTES = 4 << 20
_GROUP_UNITS = 32


class _Best(NamedTuple):
    """The best rows of a group: distances ascending, with their row addresses."""

    distances: npt.NDArray[np.float32]
    addresses: npt.NDArray[np.uint64]


class Search(NamedTuple):
    """A planned search."""

    snapshot: Snapshot
    request: ScanRequest
    nearest: Nearest
    distance: Distance
    dimension: int
    vector: Schema
    projection: Projection
    filter: Any
    filter_schema: Schema

    @property
    def prefilter(self) -> bool:
        """Whether rows are filtered before the search."""
        return self.filter is not None and self.request.prefilter


def plan_search(snapshot: Snapshot, request: ScanRequest) -> Search:
    """Check the query against the schema.  Pure.

    Raises:
        InvalidInputError: unknown column, wrong dimension or filter.
        TypeError: the column does not hold vectors.
    """
    assert request.nearest is not None
    nearest, schema = request.nearest, snapshot.manifest.schema
    projection = resolve(
        schema,
        request.columns,
        with_distance=True,
        with_row_id=request.with_row_id,
        with_row_address=request.with_row_address,
    )
    names = [field.name for field in schema.fields]
    if nearest.column not in names:
        raise InvalidInputError(
            f"nearest: no column named {nearest.column!r} (columns: {', '.join(names[:20])})"
        )
    field = schema.fields[names.index(nearest.column)]
    arrow_type = field.arrow_type
    if not pa.types.is_fixed_size_list(arrow_type) or not pa.types.is_floating(arrow_type.value_type):
        raise TypeError(
            f"nearest: column {nearest.column!r} is {arrow_type}, not a fixed-size list of floats"
        )
    if len(nearest.query) != arrow_type.list_size:
        raise InvalidInputError(
            f"nearest: the query has {len(nearest.query)} dimensions, column {nearest.column!r} "
            f"has {arrow_type.list_size}"
        )
    distance = Distance(nearest.query, nearest.metric, arrow_type.value_type.to_pandas_dtype())
    bound = None
    if request.filter is not None:
        bound = parse_filter(request.filter, schema)
    return Search(
        snapshot,
        request,
        nearest,
        distance,
        arrow_type.list_size,
        schema.project([field.name]),
        projection,
        bound,
        schema.project([]) if bound is None else stored_columns(schema, bound.columns),
    )


async def search(plan: Search) -> pa.Table:
    """Run a search; rows come by ascending distance, ties by row id."""
    request, limit = plan.request, plan.nearest.k
    best = await _best_rows(plan, limit)
    stored_schema = plan.projection.read
    keep: npt.NDArray[np.int64] | None = None
    if plan.filter is not None and not request.prefilter and len(best.addresses):
        rows = await take_addresses(plan.snapshot, best.addresses, plan.filter_schema)
        keep = np.flatnonzero(
            true_mask(
                plan.filter.evaluate(
                    await with_system_columns(plan.snapshot, plan.filter, rows, best.addresses)
                )
            )
        )
        best = _Best(best.distances[keep], best.addresses[keep])
    if request.offset or request.limit is not None:
        start = request.offset or 0
        stop = None if request.limit is None else start + request.limit
        best = _Best(best.distances[start:stop], best.addresses[start:stop])
    stored = await take_addresses(plan.snapshot, best.addresses, stored_schema)
    ids = await plan.snapshot.row_ids(best.addresses)
    batch = plan.projection.build(stored, best.addresses, pa.array(best.distances, pa.float32()), ids)
    return pa.Table.from_batches([batch], schema=plan.projection.schema)


async def _best_rows(plan: Search, k: int) -> _Best:
    groups = _groups(plan)

    async def best_of(group: _Group) -> _Best:
        return await _best_of_group(plan, group, k)

    stream = current_runtime().map_ordered(
        best_of, groups, window=readahead(plan.snapshot, plan.request), suspends=plan.snapshot.suspends
    )
    async with aclosing(stream):
        parts = [part async for part in stream]
    if not parts:
        return _Best(np.empty(0, np.float32), np.empty(0, np.uint64))
    found = np.concatenate([part.distances for part in parts])
    addresses = np.concatenate([part.addresses for part in parts])
    order = np.lexsort((addresses, found))[:k]
    return _Best(found[order], addresses[order])


class _Group(NamedTuple):
    """Neighbouring units that are searched together.

    Attributes:
        units: the units.
        starts: position of each unit's first row within the group, then the number of rows.
        bases: row address of each unit's first row.
    """

    units: tuple[Unit, ...]
    starts: npt.NDArray[np.int64]
    bases: npt.NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        return int(self.starts[-1])

    def addresses(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Row addresses of positions within the group."""
        which = np.searchsorted(self.starts, rows, side="right") - 1
        found: npt.NDArray[np.uint64] = (self.bases[which] + rows - self.starts[which]).astype(np.uint64)
        return found


def _groups(plan: Search) -> Sequence[_Group]:
    """The units of all fragments in groups; kept with the snapshot, since every query over it has the same."""
    snapshot, ids = plan.snapshot, plan.request.fragment_ids
    rows = unit_rows(plan.vector.to_arrow(), 8192)
    key = ("search", rows)
    found: Sequence[_Group] | None = snapshot.plans.get(key) if ids is None else None
    if found is None:
        units = plan_units(snapshot.select(ids), rows)
        found = _grouped(units, int(_GROUP_BYTES / plan.vector.row_bytes))
        if ids is None:
            snapshot.plans[key] = found
    return found


def _grouped(units: Sequence[Unit], most_rows: int) -> list[_Group]:
    """Neighbouring small units in groups of up to `_GROUP_UNITS` units and ``most_rows`` rows."""
    groups: list[list[Unit]] = []
    rows = most_rows
    for unit in units:
        size = unit.stop - unit.start
        if not groups or rows + size > most_rows or len(groups[-1]) == _GROUP_UNITS:
            groups.append([])
            rows = 0
        groups[-1].append(unit)
        rows += size
    return [
        _Group(
            tuple(group),
            np.cumsum([0, *(unit.stop - unit.start for unit in group)], dtype=np.int64),
            np.array([address_base(unit.fragment.id) + unit.start for unit in group], dtype=np.int64),
        )
        for group in groups
    ]


async def _best_of_group(plan: Search, group: _Group, k: int) -> _Best:
    snapshot = plan.snapshot
    found = np.empty(group.num_rows, dtype=np.float32)
    readers = await open_fragments(snapshot, [unit.fragment for unit in group.units], plan.vector)
    decoded = await read_decoded(readers, [(unit.start, unit.stop) for unit in group.units])
    if snapshot.suspends:
        await current_runtime().offload(_fill_group, plan, group, decoded, found)
    else:
        _fill_group(plan, group, decoded, found)
    for unit, reader, start, stop in zip(group.units, readers, group.starts, group.starts[1:], strict=False):
        if unit.fragment.deletion_file is not None or plan.prefilter:
            await _exclude(plan, unit, reader, found[start:stop])
    best = top_k(found, k, plan.nearest.lower, plan.nearest.upper)
    return _Best(found[best], group.addresses(best))


def _fill_group(
    plan: Search, group: _Group, decoded: list[list[Decoded] | pa.Array], found: npt.NDArray[np.float32]
) -> None:
    at = 0
    for unit, pages in zip(group.units, decoded, strict=True):
        rows = unit.stop - unit.start
        _fill(plan, pages, found[at : at + rows])
        at += rows


async def _exclude(plan: Search, unit: Unit, reader: FragmentReader, out: npt.NDArray[np.float32]) -> None:
    """NaN for the rows that are deleted or that the prefilter drops."""
    alive = surviving(await plan.snapshot.deletions(unit.fragment), unit.start, unit.stop)
    if alive is not None:
        out[~alive] = np.nan
    if plan.prefilter:
        filter_reader = await FragmentReader.open(
            plan.snapshot, unit.fragment, plan.filter_schema, beside=reader
        )
        values = await filter_reader.read(unit.start, unit.stop)
        keep = await filter_mask(plan.snapshot, plan.filter, values, unit.fragment.id, unit.start)
        out[~keep] = np.nan


def _fill(plan: Search, pages: list[Decoded] | pa.Array, out: npt.NDArray[np.float32]) -> None:
    if isinstance(pages, list):
        at = 0
        for page in pages:
            rows = page.num_rows
            matrix = vectors_of(page, plan.dimension, plan.distance.dtype)
            if rows > len(out) - at:
                raise CorruptFileError("a page holds more rows than were asked for")
            plan.distance(matrix, out[at : at + rows])
            if page.definition is not None:
                out[at : at + rows][page.definition != 0] = np.nan
            at += rows
        if at != len(out):
            raise CorruptFileError(f"{at} rows decoded, {len(out)} expected")
        return
    plan.distance(_matrix(pages, plan.dimension, plan.distance.dtype), out)
    if pages.null_count:
        out[pages.is_null().to_numpy(zero_copy_only=False)] = np.nan


def vectors_of(page: Decoded, dimension: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The vectors of a decoded page as a (rows, dimension) view; null elements count as their stored value."""
    block = page.block
    if isinstance(block, NullBlock):
        return np.full((block.count, dimension), np.nan, dtype)
    child = block.child if isinstance(block, FslBlock) else None
    if isinstance(child, NullBlock):
        return np.zeros((page.num_rows, dimension), dtype)
    if (
        not isinstance(child, FixedBlock)
        or child.bits != 8 * dtype.itemsize
        or child.count != page.num_rows * dimension
    ):
        raise CorruptFileError("a page of vectors does not have the type of its column")
    matrix: npt.NDArray[Any] = child.data[: child.count * dtype.itemsize].view(dtype)
    return matrix.reshape(page.num_rows, dimension)


def _matrix(column: pa.Array, dimension: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The vectors of an Arrow column as a (rows, dimension) view."""
    values = column.values
    start = (values.offset + column.offset * dimension) * dtype.itemsize
    flat = np.frombuffer(values.buffers()[1], dtype=np.uint8)
    size = len(column) * dimension * dtype.itemsize
    matrix: npt.NDArray[Any] = flat[start : start + size].view(dtype).reshape(len(column), dimension)
    return matrix
