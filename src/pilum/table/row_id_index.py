"""From stable row ids to row addresses (spec/table.md, section 12.2).

After an update the old position of a row still lists its id, but it is deleted there: an id is live in at
most one place.  The index holds the live rows as intervals, sorted by id:

    ids   [0, 4)  ->  fragment 0, offsets 0..       found by binary search over the first ids;
    ids   [5, 9)  ->  fragment 0, offsets 5..       built and searched in whole arrays, never row by row
    ids   [4, 5)  ->  fragment 3, offset 0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.errors import CorruptFileError, InvalidInputError
from pilum.io import Store, current_runtime
from pilum.proto.lazy import table_pb2 as pb
from pilum.table.deletions import read_deletions
from pilum.table.lineage import fragment_row_ids
from pilum.table.model import Fragment, Manifest
from pilum.table.row_ids import RowIdSequence, decode_row_ids

__all__ = ["RowIdIndex", "build_row_id_index", "load_row_id_index", "read_row_ids"]

U64 = npt.NDArray[np.uint64]

_READ_WINDOW = 64


@dataclass(frozen=True, eq=False, slots=True)
class RowIdIndex:
    """Live row ids as intervals.

    Attributes:
        first_ids: uint64, ascending.
        lengths: uint64, ids in each interval.
        addresses: uint64, row address (fragment << 32 | offset) of each first id.
    """

    first_ids: U64
    lengths: U64
    addresses: U64

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def lookup(self, row_ids: Any) -> tuple[U64, npt.NDArray[np.bool_]]:
        """Addresses of rows.

        Args:
            row_ids: integers, any order, repeats allowed.

        Returns:
            uint64 addresses, in the order asked, and a mask of the ids that exist; the address of an id that
            does not is 0.
        """
        wanted = np.asarray(row_ids, dtype=np.uint64)
        if not len(self.first_ids):
            return np.zeros(len(wanted), np.uint64), np.zeros(len(wanted), bool)
        place = np.searchsorted(self.first_ids, wanted, side="right") - 1
        # An id before the first interval gets place -1, the last interval, whose length it exceeds (wraps).
        within = wanted - self.first_ids[place]
        found = within < self.lengths[place]
        return np.where(found, self.addresses[place] + within, np.uint64(0)), found


def build_row_id_index(entries: Iterable[tuple[int, RowIdSequence, Any]]) -> RowIdIndex:
    """The index over some fragments.

    Args:
        entries: fragment id, row ids of all its physical rows, ascending offsets of the deleted ones.

    Raises:
        CorruptFileError: a row id is live in two places.
    """
    ids, lengths, addresses = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for fragment_id, sequence, deleted in entries:
        starts, counts, offsets = sequence.live_runs(deleted)
        ids.append(starts)
        lengths.append(counts)
        addresses.append(np.uint64(fragment_id << 32) + offsets.astype(np.uint64))
    first, address = np.concatenate(ids), np.concatenate(addresses)
    order = np.argsort(first, kind="stable")
    first, address = first[order], address[order]
    count: U64 = np.concatenate(lengths)[order].astype(np.uint64)
    twice = np.flatnonzero(first[1:] - first[:-1] < count[:-1])
    if len(twice):
        at = twice[0]
        raise CorruptFileError(
            f"row id {int(first[at + 1])} is live in fragment {int(address[at]) >> 32} and in fragment "
            f"{int(address[at + 1]) >> 32}"
        )
    return RowIdIndex(first, count, address)


async def read_row_ids(store: Store, fragment: Fragment) -> RowIdSequence:
    """The row ids of a fragment, read from their own file when they are not in the manifest.

    Raises:
        CorruptFileError: they contradict the format, or the fragment has none.
        UnsupportedError: they are a hidden column of a data file.
    """
    if fragment.row_ids is None and fragment.extra:
        rest = pb.DataFragment.FromString(fragment.extra)
        if rest.HasField("external_row_ids"):
            file = rest.external_row_ids
            data = await store.get(file.path, file.offset, file.offset + file.size, who="row ids")
            where = f"{store.uri}/{file.path}: fragment {fragment.id}"
            return decode_row_ids(bytes(data), where, rows=fragment.physical_rows)
    return fragment_row_ids(fragment, store.uri)


async def load_row_id_index(
    store: Store, manifest: Manifest, deletions: Callable[[Fragment], Any] | None = None
) -> RowIdIndex:
    """Read what it takes and build the index of a version.

    Args:
        store: the table's store.
        manifest: a version with stable row ids.
        deletions: coroutine function giving the deleted offsets of a fragment (a cache); by default they are
            read.

    Raises:
        InvalidInputError: the table has no stable row ids.
        CorruptFileError: see `build_row_id_index`.
    """
    if not manifest.uses_stable_row_ids:
        raise InvalidInputError(f"{store.uri}: the table has no stable row ids; a row id is the row address")

    async def entry(fragment: Fragment) -> tuple[int, RowIdSequence, Any]:
        if fragment.deletion_file is None:
            gone: Any = ()
        elif deletions is not None:
            gone = await deletions(fragment)
        else:
            gone = await read_deletions(store, fragment, bases=manifest.base_paths)
        return fragment.id, await read_row_ids(store, fragment), gone

    entries = []
    stream = current_runtime().map_ordered(
        entry, manifest.fragments, window=_READ_WINDOW, suspends=store.suspends, chunk=16
    )
    async with aclosing(stream):
        async for one in stream:
            entries.append(one)
    return build_row_id_index(entries)
