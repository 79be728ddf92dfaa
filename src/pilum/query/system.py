"""System columns: what a table knows about a row without reading its data (spec/read-path.md, section 7).

| column | value |
|---|---|
| `_rowid` | the stable row id, or the row address in tables without such ids |
| `_rowaddr` | fragment id << 32 \\| physical offset |
| `_rowoffset` | live rows before this one in the table |
| `_row_created_at_version`, `_row_last_updated_at_version` | from the fragment's version runs; 1 where there are none |

All of them follow from row addresses, the manifest and the deletion vectors; they are computed for whole arrays of
addresses, in any order, fragment by fragment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query.rows import by_fragment

if TYPE_CHECKING:
    from pilum.query.snapshot import Snapshot

__all__ = [
    "CREATED_AT",
    "DISTANCE",
    "QUERY_INDEX",
    "ROW_ADDRESS",
    "ROW_ID",
    "ROW_OFFSET",
    "SYSTEM_TYPES",
    "UPDATED_AT",
    "system_columns",
]

ROW_ID = "_rowid"
ROW_ADDRESS = "_rowaddr"
ROW_OFFSET = "_rowoffset"
CREATED_AT = "_row_created_at_version"
UPDATED_AT = "_row_last_updated_at_version"
# Made by a search, not known of a row.
DISTANCE = "_distance"
QUERY_INDEX = "query_index"

SYSTEM_TYPES: Mapping[str, pa.DataType] = dict.fromkeys(
    (ROW_ID, ROW_ADDRESS, ROW_OFFSET, CREATED_AT, UPDATED_AT), pa.uint64()
)

U64 = npt.NDArray[np.uint64]


async def system_columns(
    snapshot: Snapshot, addresses: U64, names: Iterable[str], *, deleted: npt.NDArray[np.bool_] | None = None
) -> dict[str, pa.Array]:
    """System columns of rows.

    Args:
        snapshot: the table.
        addresses: of existing rows, any order.
        names: of `SYSTEM_TYPES`; others are left out.
        deleted: rows that are shown although they are deleted: their ids and addresses are null.
    """
    columns: dict[str, pa.Array] = {}
    for name in names:
        if name == ROW_ADDRESS:
            columns[name] = arrays.from_numpy(addresses, pa.uint64(), deleted)
        elif name == ROW_ID:
            columns[name] = arrays.from_numpy(await snapshot.row_ids(addresses), pa.uint64(), deleted)
        elif name in SYSTEM_TYPES:
            columns[name] = arrays.from_numpy(await _per_fragment(snapshot, addresses, name))
    return columns


async def _per_fragment(snapshot: Snapshot, addresses: U64, name: str) -> U64:
    values = np.empty(len(addresses), np.uint64)
    for owner, where, offsets in by_fragment(addresses):
        fragment = snapshot.fragment(owner)
        if name == ROW_OFFSET:
            gone = await snapshot.deletions(fragment)
            before = np.searchsorted(gone, offsets) if len(gone) else 0
            values[where] = snapshot.live_start(owner) + offsets - before
        elif name == CREATED_AT:
            values[where] = (await snapshot.created_at(fragment)).take(offsets)
        elif name == UPDATED_AT:
            values[where] = (await snapshot.updated_at(fragment)).take(offsets)
        else:
            raise InvalidInputError(f"no system column named {name!r}")
    return values
