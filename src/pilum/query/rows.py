"""Row arithmetic of a table: live positions, physical offsets, row addresses.  Pure.

A fragment stores ``physical_rows`` rows; a deletion vector (sorted physical offsets) hides some of them.

```
physical  0 1 2 3 4 5 6        deleted = [1, 4]
live      0 . 1 2 . 3 4        live_to_physical(deleted, [1, 3]) = [2, 5]
```

A row address is ``fragment_id << 32 | physical offset`` (spec/table.md, section 12.1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum import distinct

__all__ = ["address_base", "by_fragment", "live_to_physical", "locate", "row_addresses", "surviving"]

IndexArray = npt.NDArray[np.int64]


def live_to_physical(deleted: npt.NDArray[Any], live: IndexArray) -> IndexArray:
    """Map live row positions of a fragment to physical offsets.

    Args:
        deleted: sorted, distinct physical offsets of the deleted rows.
        live: live positions, any order, each below the number of live rows.
    """
    if len(deleted) == 0:
        return live
    # deleted[i] - i is how many live rows precede the i-th deleted one; it never decreases.
    live_before = deleted.astype(np.int64) - np.arange(len(deleted), dtype=np.int64)
    return live + np.searchsorted(live_before, live, side="right")


def surviving(deleted: npt.NDArray[Any], start: int, stop: int) -> npt.NDArray[np.bool_] | None:
    """Mask of the live rows in the physical range ``[start, stop)``; None when all are live."""
    low, high = np.searchsorted(deleted, (start, stop))
    if low == high:
        return None
    mask = np.ones(stop - start, dtype=np.bool_)
    mask[deleted[low:high].astype(np.int64) - start] = False
    return mask


def address_base(fragment_id: int) -> int:
    """Row address of the first physical row of a fragment."""
    return fragment_id << 32


def row_addresses(fragment_id: int, offsets: range | IndexArray) -> npt.NDArray[np.uint64]:
    """Row addresses of physical offsets of one fragment."""
    base = address_base(fragment_id)
    if isinstance(offsets, range):
        return np.arange(base + offsets.start, base + offsets.stop, dtype=np.uint64)
    return offsets.astype(np.uint64) + np.uint64(base)


def locate(live_counts: npt.NDArray[np.int64], positions: IndexArray) -> tuple[IndexArray, IndexArray]:
    """Find the fragment (by index) and the live position within it of table-wide row positions."""
    ends = np.cumsum(live_counts)
    which = np.searchsorted(ends, positions, side="right")
    return which, positions - (ends[which] - live_counts[which])


def by_fragment(addresses: npt.NDArray[np.uint64]) -> Iterator[tuple[int, Any, npt.NDArray[np.int64]]]:
    """(fragment id, where in ``addresses`` its rows are, their physical offsets) for each fragment."""
    if len(addresses) == 1:
        address = int(addresses[0])
        yield address >> 32, slice(0, 1), np.array([address & 0xFFFFFFFF])
        return
    owners = addresses >> np.uint64(32)
    offsets = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
    if len(owners) == 0:
        return
    if (owners[1:] >= owners[:-1]).all():
        edges = [0, *(np.flatnonzero(owners[1:] != owners[:-1]) + 1).tolist(), len(owners)]
        for low, high in itertools.pairwise(edges):
            yield int(owners[low]), slice(low, high), offsets[low:high]
        return
    for owner in distinct.unique(owners).tolist():
        where = np.flatnonzero(owners == owner)
        yield owner, where, offsets[where]
