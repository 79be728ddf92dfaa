"""Rows of one fragment by range: `read_range`, `read_all`, `read_ranges`, `take_range` (spec/read-path.md, section 7).

```
read_range(a, b)     live rows: the range is widened over deletions, b - a rows come as long as there are some
take_range(a, b)     physical rows, deleted ones left out
read_ranges, read_all  as take_range
```

Columns of all data files, absent and system columns come as in a scan: each range is cut into the units of a scan.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np
import pyarrow as pa

from pilum.errors import InvalidInputError
from pilum.query.request import ScanRequest
from pilum.query.rows import live_to_physical
from pilum.query.scan import open_units, plan_scan
from pilum.query.scan_plan import Scan
from pilum.query.snapshot import Snapshot
from pilum.query.units import Unit, rows_for
from pilum.table import Fragment

__all__ = ["FragmentRows"]


class FragmentRows:
    """A fragment and the columns to read of it.

    Args:
        snapshot: the table.
        fragment: the fragment.
        request: columns and batch size; no filter, order or limit.
    """

    def __init__(self, snapshot: Snapshot, fragment: Fragment, request: ScanRequest) -> None:
        self.snapshot = snapshot
        self.fragment = fragment
        self._scan: Scan = plan_scan(snapshot, request.updated(fragment_ids=(fragment.id,)))

    @property
    def schema(self) -> pa.Schema:
        """Schema of what is read."""
        return self._scan.schema

    async def read_all(self) -> AsyncGenerator[pa.RecordBatch, None]:
        """All live rows, as a primed stream of batches."""
        return await self.read_ranges([range(self.fragment.physical_rows)])

    async def read_range(self, start: int, stop: int) -> AsyncGenerator[pa.RecordBatch, None]:
        """Live rows ``[start, stop)``, fewer where the fragment ends, as a primed stream of batches.

        Raises:
            InvalidInputError: the range is reversed or begins before 0.
        """
        _checked(start, stop)
        stop = min(stop, self.fragment.num_rows)
        if start >= stop:
            return await self.read_ranges([])
        deleted = await self.snapshot.deletions(self.fragment)
        first, last = live_to_physical(deleted, np.array([start, stop - 1], np.int64)).tolist()
        return await self.read_ranges([range(first, last + 1)])

    async def read_ranges(self, ranges: Sequence[range]) -> AsyncGenerator[pa.RecordBatch, None]:
        """Physical rows of ascending, disjoint ranges without the deleted ones, as a primed stream of batches.

        Raises:
            InvalidInputError: a range ends after the last physical row, or before another one.
        """
        rows = rows_for(self._scan.row_bytes, self._scan.batch_size)
        units: list[Unit] = []
        end = 0
        for one in ranges:
            _checked(one.start, one.stop)
            if one.step != 1:
                raise InvalidInputError(f"{one} has a step; rows are read by plain ranges")
            if one.stop > self.fragment.physical_rows:
                raise InvalidInputError(
                    f"rows {one.start} to {one.stop} are out of range: fragment {self.fragment.id} of "
                    f"{self.snapshot.store.uri} has {self.fragment.physical_rows} rows"
                )
            if one.start < end:
                raise InvalidInputError(f"{one} does not lie behind the ranges before it")
            end = max(end, one.stop)
            units += [
                Unit(self.fragment, at, min(at + rows, one.stop)) for at in range(one.start, one.stop, rows)
            ]
        return await open_units(self._scan, units)

    async def take_range(self, start: int, stop: int) -> pa.Table:
        """Physical rows ``[start, stop)`` without the deleted ones: there may be fewer than asked for.

        Raises:
            InvalidInputError: the range ends after the last physical row.
        """
        async with aclosing(await self.read_ranges([range(start, stop)])) as stream:
            batches = [batch async for batch in stream]
        return pa.Table.from_batches(batches, schema=self.schema)


def _checked(start: int, stop: int) -> None:
    if not 0 <= start <= stop:
        raise InvalidInputError(f"rows {start} to {stop} are not a range")
