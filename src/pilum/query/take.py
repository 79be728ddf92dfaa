"""Take: rows by position or by row address, in the order asked for, duplicates included.

Positions count live rows.  Addresses are grouped by fragment, each fragment reads its distinct offsets in
storage order, fragments overlap, and one final gather restores the requested order.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.errors import CorruptFileError, InvalidInputError
from pilum.io import current_runtime
from pilum.query.fragment_reader import FragmentReader
from pilum.query.projection import Projection
from pilum.query.rows import live_to_physical, locate, row_addresses
from pilum.query.snapshot import Snapshot
from pilum.schema import Schema
from pilum.table import Fragment

__all__ = ["addresses_of", "take_addresses", "take_positions"]


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
    addresses = await addresses_of(snapshot, fragments, positions)
    stored = await take_addresses(snapshot, addresses, projection.read)
    ids = await snapshot.row_ids(addresses) if projection.needs_row_id else None
    return pa.Table.from_batches([projection.build(stored, addresses, row_ids=ids)], schema=projection.schema)


async def addresses_of(
    snapshot: Snapshot, fragments: Sequence[Fragment], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Row addresses of live positions."""
    if len(positions) == 0:
        return np.empty(0, dtype=np.uint64)
    counts = np.array([fragment.num_rows for fragment in fragments], dtype=np.int64)
    if int(positions.min()) < 0:
        raise OverflowError(f"row position {int(positions.min())} is negative")
    total = int(counts.sum())
    if int(positions.max()) >= total:
        raise InvalidInputError(
            f"row position {int(positions.max())} is out of range: the table has {total} rows"
        )
    which, local = locate(counts, positions)
    addresses = np.empty(len(positions), dtype=np.uint64)
    for index in np.unique(which):
        here = which == index
        fragment = fragments[int(index)]
        deleted = await snapshot.deletions(fragment)
        addresses[here] = row_addresses(fragment.id, live_to_physical(deleted, local[here]))
    return addresses


async def take_addresses(
    snapshot: Snapshot, addresses: npt.NDArray[np.uint64], schema: Schema
) -> pa.RecordBatch:
    """Stored columns of the rows at ``addresses``, in that order; duplicates are re-expanded.

    Raises:
        InvalidInputError: an address names a fragment or an offset that does not exist.
    """
    arrow_schema = schema.to_arrow()
    if len(addresses) == 0:
        return pa.RecordBatch.from_pylist([], schema=arrow_schema)
    distinct, back = np.unique(addresses, return_inverse=True)
    groups = _group(snapshot, distinct)

    async def read(group: _Group) -> pa.RecordBatch:
        reader = await FragmentReader.open(snapshot, group.fragment, schema, len(group.offsets))
        return await reader.take(group.offsets)

    stream: AsyncGenerator[pa.RecordBatch, None] = current_runtime().map_ordered(
        read, groups, window=4 * snapshot.store.io_parallelism, suspends=snapshot.suspends, chunk=8
    )
    async with aclosing(stream):
        batches = [batch async for batch in stream]
    stored = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    if len(addresses) == len(distinct) and np.array_equal(back, np.arange(len(back))):
        return stored
    if not schema.fields:
        return pa.RecordBatch.from_arrays([pa.nulls(len(addresses))], names=["_"]).select([])
    return stored.take(pa.array(back))


def _group(snapshot: Snapshot, addresses: npt.NDArray[np.uint64]) -> list[_Group]:
    fragment_ids = (addresses >> np.uint64(32)).astype(np.int64)
    offsets = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
    by_id = {fragment.id: fragment for fragment in snapshot.manifest.fragments}
    if len(by_id) != len(snapshot.manifest.fragments):
        raise CorruptFileError(
            f"two fragments of {snapshot.store.uri} have the same id (a fault of release 0.16): its rows can be "
            "scanned, but an address does not say which row it means"
        )
    groups = []
    edges = [0, *(np.flatnonzero(np.diff(fragment_ids)) + 1).tolist(), len(addresses)]
    for low, high in itertools.pairwise(edges):
        fragment = by_id.get(int(fragment_ids[low]))
        if fragment is None:
            raise InvalidInputError(
                f"row address {int(addresses[low])}: fragment {int(fragment_ids[low])} is missing"
            )
        if int(offsets[high - 1]) >= fragment.physical_rows:
            raise InvalidInputError(
                f"row address {int(addresses[high - 1])} is past the {fragment.physical_rows} rows of "
                f"fragment {fragment.id}"
            )
        groups.append(_Group(fragment, offsets[low:high]))
    return groups
