"""Rows by position or by row id: order and duplicates as asked, reads grouped by fragment.

```
live positions / row ids ─► row addresses ─► sorted, distinct, grouped by fragment ─► one take a fragment ─► request order
```

Positions count live rows over all fragments in manifest order (spec/read-path.md, section 10).  Each fragment is
read once for all its rows, in storage order, fragments overlap, and one final gather restores the requested order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays, distinct
from pilum.errors import InvalidInputError
from pilum.io import QuerySpan, current_runtime
from pilum.query.fragment_reader import FragmentReader
from pilum.query.projection import Projection
from pilum.query.rows import by_fragment, live_to_physical
from pilum.query.snapshot import Snapshot
from pilum.query.system import system_columns
from pilum.schema import Schema
from pilum.table import Fragment

__all__ = [
    "addresses_of_ids",
    "addresses_of_positions",
    "take_addresses",
    "take_positions",
    "take_row_ids",
    "take_rows",
]

# Fragments whose rows one thread reads in one go, unless they are more bytes than this.
_CHUNK = 32
_CHUNK_BYTES = 1 << 20

U64 = npt.NDArray[np.uint64]


class _Group(NamedTuple):
    fragment: Fragment
    offsets: npt.NDArray[np.int64]  # sorted, distinct


async def take_positions(
    snapshot: Snapshot,
    fragments: Sequence[Fragment],
    positions: npt.NDArray[np.int64],
    projection: Projection,
) -> pa.Table:
    """Rows by live position, in request order.

    Raises:
        InvalidInputError: a position is at or past the number of rows.
        OverflowError: a position is negative.
    """
    with _span(snapshot) as span:
        addresses = await addresses_of_positions(snapshot, fragments, positions)
        table = await take_rows(snapshot, addresses, projection)
        span.rows = table.num_rows
    return table


async def take_row_ids(snapshot: Snapshot, row_ids: U64, projection: Projection) -> pa.Table:
    """Rows by row id, in request order; rows that do not exist (any more) are left out.

    Raises:
        InvalidInputError: without stable row ids: an ascending list names a fragment that does not exist.
    """
    with _span(snapshot) as span:
        table = await take_rows(snapshot, await addresses_of_ids(snapshot, row_ids), projection)
        span.rows = table.num_rows
    return table


def _span(snapshot: Snapshot) -> QuerySpan:
    return QuerySpan("take", snapshot.store, snapshot.manifest.version)


async def take_rows(snapshot: Snapshot, addresses: U64, projection: Projection) -> pa.Table:
    """Rows by address, in request order."""
    stored = await take_addresses(snapshot, addresses, projection.read)
    names = projection.system
    made = await system_columns(snapshot, addresses, names) if names else {}
    return pa.Table.from_batches([projection.build(stored, made)], schema=projection.schema)


async def addresses_of_positions(
    snapshot: Snapshot, fragments: Sequence[Fragment], positions: npt.NDArray[np.int64]
) -> U64:
    """Row addresses of live positions."""
    if len(positions) == 0:
        return np.empty(0, dtype=np.uint64)
    low = high = int(positions[0])
    if len(positions) > 1:
        low, high = int(positions.min()), int(positions.max())
    if low < 0:
        raise OverflowError(f"row position {low} is negative")
    rows = _live_rows(snapshot, fragments)
    total = int(rows.starts[-1])
    if high >= total:
        raise InvalidInputError(f"row position {high} is out of range: the table has {total} rows")
    which = rows.starts.searchsorted(positions, "right") - 1
    local = positions - rows.starts[which]
    if rows.deletions:
        for index in distinct.unique(which).tolist():
            fragment = fragments[index]
            if fragment.deletion_file is not None:
                here = which == index
                local[here] = live_to_physical(await snapshot.deletions(fragment), local[here])
    addresses: U64 = rows.addresses[which] + local.view(np.uint64)
    return addresses


class _LiveRows(NamedTuple):
    """Live rows of some fragments.

    Attributes:
        starts: position of the first row of each, and of the end.
        addresses: address of the first physical row of each.
        deletions: whether rows of any are deleted.
    """

    starts: npt.NDArray[np.int64]
    addresses: U64
    deletions: bool


def _live_rows(snapshot: Snapshot, fragments: Sequence[Fragment]) -> _LiveRows:
    whole = fragments is snapshot.manifest.fragments
    found: _LiveRows | None = snapshot.plans.get("live_rows") if whole else None
    if found is None:
        starts = np.zeros(len(fragments) + 1, np.int64)
        np.cumsum([fragment.num_rows for fragment in fragments], out=starts[1:])
        ids = np.array([fragment.id for fragment in fragments], dtype=np.uint64)
        deletions = any(fragment.deletion_file is not None for fragment in fragments)
        found = _LiveRows(starts, ids << np.uint64(32), deletions)
        if whole:
            snapshot.plans["live_rows"] = found
    return found


async def addresses_of_ids(snapshot: Snapshot, row_ids: U64) -> U64:
    """Row addresses of row ids, in their order; ids of rows that do not exist are left out."""
    if snapshot.manifest.uses_stable_row_ids:
        addresses, found = (await snapshot.row_id_index()).lookup(row_ids)
        return addresses if found.all() else addresses[found]
    ascending = bool(np.all(row_ids[1:] >= row_ids[:-1]))
    keep = np.ones(len(row_ids), dtype=np.bool_)
    for owner, where, offsets in by_fragment(row_ids):
        if not snapshot.has_fragment(owner):
            if ascending:
                raise InvalidInputError(f"row id {int(row_ids[where][0])}: fragment {owner} does not exist")
            keep[where] = False
            continue
        deleted = await snapshot.deletions(snapshot.fragment(owner))
        if len(deleted):
            place = np.minimum(np.searchsorted(deleted, offsets), len(deleted) - 1)
            keep[where] = deleted[place] != offsets
    return row_ids if keep.all() else row_ids[keep]


async def take_addresses(snapshot: Snapshot, addresses: U64, schema: Schema) -> pa.RecordBatch:
    """Stored columns of the rows at ``addresses``, in that order; duplicates are re-expanded.

    Raises:
        InvalidInputError: an address names a fragment or an offset that does not exist.
    """
    arrow_schema = schema.to_arrow()
    if not schema.fields:
        return pa.RecordBatch.from_arrays([pa.nulls(len(addresses))], names=["_"]).select([])
    if len(addresses) == 0:
        return arrays.empty_batch(arrow_schema)
    ordered = len(addresses) == 1 or bool((addresses[1:] > addresses[:-1]).all())
    wanted, back = (addresses, None) if ordered else distinct.unique_inverse(addresses)
    groups = _group(snapshot, wanted)

    async def read(group: _Group) -> pa.RecordBatch:
        offsets = group.offsets
        reader = FragmentReader.known(snapshot, group.fragment, schema)
        if reader is None:
            reader = await FragmentReader.open(snapshot, group.fragment, schema, len(offsets))
        elif (batch := reader.take_now(offsets)) is not None:
            return batch
        first, last = int(offsets[0]), int(offsets[-1])
        if last - first + 1 == len(offsets):
            return await reader.read(first, last + 1)
        return await reader.take(offsets)

    # Waking a second thread costs as much as reading a few rows of twenty fragments.
    most = _CHUNK_BYTES * len(groups) / (schema.row_bytes * len(wanted))
    chunk = max(1, min(_CHUNK, int(most)))
    if len(groups) == 1 or (len(groups) <= chunk and not snapshot.suspends):
        batches = [await read(group) for group in groups]
    else:
        stream: AsyncGenerator[pa.RecordBatch, None] = current_runtime().map_ordered(
            read,
            groups,
            window=4 * max(snapshot.store.io_parallelism, chunk),
            suspends=snapshot.suspends,
            chunk=chunk,
        )
        async with aclosing(stream):
            batches = [batch async for batch in stream]
    stored = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    return stored if back is None else arrays.take(stored, back)


def _group(snapshot: Snapshot, addresses: U64) -> list[_Group]:
    groups = []
    for owner, _, offsets in by_fragment(addresses):
        fragment = snapshot.find_fragment(owner)
        if fragment is None:
            raise InvalidInputError(
                f"row address {(owner << 32) + int(offsets[0])}: fragment {owner} is missing"
            )
        if int(offsets[-1]) >= fragment.physical_rows:
            raise InvalidInputError(
                f"row address {(owner << 32) + int(offsets[-1])} is past the {fragment.physical_rows} rows of "
                f"fragment {fragment.id}"
            )
        groups.append(_Group(fragment, offsets))
    return groups
