"""Reading a dataset: scans, takes, counts and samples."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pilum import arrays, imports
from pilum.dataset import bitmap, fragments
from pilum.dataset.handle import Handle
from pilum.dataset.scanning import KNOWN_OPTIONS, AsyncLanceScanner, scan_request
from pilum.errors import InvalidInputError
from pilum.query.projection import resolve
from pilum.query.take import take_positions, take_row_ids

if TYPE_CHECKING:
    from pilum.dataset.bitmap import Bitmap
    from pilum.dataset.fragments import AsyncLanceFragment

__all__ = ["Reading", "row_positions"]

# Options of a scan that shape the schema of its result.
_SYSTEM_COLUMNS = {"with_row_id": "_rowid", "with_row_address": "_rowaddr"}


class Reading(Handle):
    """The reading calls of `AsyncLanceDataset`."""

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the dataset, with the system columns that its default scan options add."""
        schema = self.snapshot.manifest.schema.to_arrow()
        for option, name in _SYSTEM_COLUMNS.items():
            if self.settings.scan_options.get(option):
                schema = schema.append(pa.field(name, pa.uint64()))
        return schema

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> AsyncLanceScanner:
        """Plan a scan; see `pilum.LanceDataset.scanner` for the options."""
        given = {"columns": columns, "filter": filter, **options}
        unknown = self.settings.scan_options.keys() - KNOWN_OPTIONS
        if unknown:
            raise InvalidInputError(f"default_scan_options: unknown option {min(unknown)!r}")
        for name, value in self.settings.scan_options.items():
            if given.get(name) is None:
                given[name] = value
        return AsyncLanceScanner(self.snapshot, scan_request(self.snapshot.manifest.schema, **given))

    async def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:
        """All rows of a scan as one table."""
        return await self.scanner(columns, filter, **options).to_table()

    async def to_batches(
        self, columns: Any = None, filter: Any = None, **options: Any
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches: the await initialises the first fragments."""
        return await self.scanner(columns, filter, **options).to_batches()

    async def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        return await self.to_table(**{**options, "limit": num_rows})

    async def slice(self, start: int, end: int, columns: Any = None) -> pa.Table:
        """Rows ``[start, end)`` by position, cut at the end of the table."""
        if start < 0 or end < start:
            raise InvalidInputError(f"slice needs 0 <= start <= end, got {start} and {end}")
        return await self.to_table(columns=columns, offset=start, limit=end - start)

    async def count_rows(self, filter: Any = None) -> int:
        """Number of rows, or of rows that match a filter; without a filter nothing is read."""
        if filter is None:
            return self.snapshot.manifest.num_rows
        request = scan_request(self.snapshot.manifest.schema, columns=[], filter=filter)
        return await AsyncLanceScanner(self.snapshot, request).count_rows()

    async def take(self, indices: Sequence[int] | Any, columns: Any = None) -> pa.Table:
        """Rows by position, order and duplicates kept."""
        projection = resolve(self.snapshot.manifest.schema, columns)
        return await take_positions(
            self.snapshot, self.snapshot.manifest.fragments, row_positions(indices), projection
        )

    async def _take_rows(self, row_ids: Sequence[int] | Any, columns: Any = None) -> pa.Table:
        """Rows by row id, order and duplicates kept."""
        projection = resolve(self.snapshot.manifest.schema, columns)
        return await take_row_ids(self.snapshot, np.asarray(row_ids, dtype=np.uint64), projection)

    async def sample(self, num_rows: int, columns: Any = None, randomize_order: bool = True) -> pa.Table:
        """Random rows without replacement.

        Raises:
            InvalidInputError: there are not so many rows.
        """
        total = await self.count_rows()
        if not 0 <= num_rows <= total:
            raise InvalidInputError(f"a sample of {num_rows} rows from a dataset of {total} rows")
        chosen = imports.load("random").sample(range(total), num_rows)
        return await self.take(chosen if randomize_order else sorted(chosen), columns)

    def get_fragments(self, filter: Any = None) -> list[AsyncLanceFragment]:
        """The fragments of this version, in order.

        An Arrow expression is taken as the hint it is for Arrow datasets, and drops no fragment.

        Raises:
            InvalidInputError: another kind of filter.
        """
        if filter is not None and type(filter).__module__.partition(".")[0] != "pyarrow":
            raise InvalidInputError("get_fragments() does not support a filter")
        return [fragments.AsyncLanceFragment(self, fragment) for fragment in self.snapshot.manifest.fragments]

    def get_fragment(self, fragment_id: int) -> AsyncLanceFragment | None:
        """The fragment with this id, or None."""
        found = self.snapshot.find(fragment_id)
        return None if found is None else fragments.AsyncLanceFragment(self, found)

    def fragment_ids(self) -> Bitmap:
        """Ids of the fragments of this version."""
        return bitmap.Bitmap(fragment.id for fragment in self.snapshot.manifest.fragments)


def row_positions(indices: Any) -> Any:
    """Row positions as an array of 64-bit integers.

    Raises:
        TypeError: they are not integers.
        OverflowError: one does not fit.
    """
    if isinstance(indices, (pa.Array, pa.ChunkedArray)):
        indices = arrays.to_numpy(indices)
    array = np.asarray(indices if len(indices) else [], dtype=None if len(indices) else np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"row positions must be integers, got {array.dtype}")
    return array.astype(np.int64)
