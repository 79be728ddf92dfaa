"""Reading, synchronously: scans, takes, counts, samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from pilum.dataset.door import fragments
from pilum.dataset.door.base import Door
from pilum.dataset.door.scanner import LanceScanner, check_blob_mode

if TYPE_CHECKING:
    from pilum.dataset.bitmap import Bitmap
    from pilum.dataset.door.fragments import LanceFragment

__all__ = ["Columns", "ReadingDoor"]

# Names (dotted for nested fields), or output name -> SQL expression.
Columns: TypeAlias = Sequence[str] | Mapping[str, str] | None


class ReadingDoor(Door):
    """The reading calls of `LanceDataset`."""

    def scanner(
        self,
        columns: Columns = None,
        filter: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        nearest: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        batch_size_bytes: int | None = None,
        batch_readahead: int | None = None,
        fragment_readahead: int | None = None,
        scan_in_order: bool | None = None,
        fragments: Iterable[LanceFragment | int] | None = None,
        index_segments: Iterable[Any] | None = None,
        full_text_query: Any = None,
        *,
        prefilter: bool | None = None,
        with_row_id: bool | None = None,
        with_row_address: bool | None = None,
        use_stats: bool | None = None,
        fast_search: bool | None = None,
        io_buffer_size: int | None = None,
        late_materialization: bool | list[str] | None = None,
        blob_handling: str | None = None,
        use_scalar_index: bool | None = None,
        include_deleted_rows: bool | None = None,
        scan_stats_callback: Callable[[Any], Any] | None = None,
        strict_batch_size: bool | None = None,
        order_by: Sequence[Any] | None = None,
        disable_scoring_autoprojection: bool | None = None,
        row_addr_allowlist: bytes | None = None,
        row_addr_blocklist: bytes | None = None,
    ) -> LanceScanner:
        """Plan a scan.

        Args:
            columns: names (dotted for nested fields), or ``{"name": "sql expression"}``; all by default.
            filter: SQL text or a ``pyarrow.compute.Expression``.
            limit, offset: rows to return and to skip.
            nearest: vector search: ``column``, ``q``, ``k`` (10), ``metric`` (``l2``, ``cosine``, ``dot``),
                ``distance_range`` (lower, upper).  The result gets a ``_distance`` column, nearest first.
            batch_size: most rows per batch.
            batch_size_bytes: instead, about as many bytes per batch.
            batch_readahead, fragment_readahead: batches and fragments that are read ahead.
            fragments: fragments (or ids) to read; all by default.
            prefilter: with ``nearest``, filter before the search instead of after it.
            with_row_id, with_row_address: append ``_rowid`` / ``_rowaddr``.
            io_buffer_size: bytes that may be in flight.
            late_materialization, use_stats, scan_in_order, use_scalar_index, fast_search: steer how the read is
                done and do not change its result.
            strict_batch_size: all batches but the last have ``batch_size`` rows.
            blob_handling: ``blobs_descriptions``, ``all_binary`` or ``all_descriptions``.
            full_text_query, index_segments, include_deleted_rows, order_by, scan_stats_callback,
                row_addr_allowlist, row_addr_blocklist: not supported yet.

        Raises:
            InvalidInputError: unknown column, bad filter (a `ValueError`).
            UnsupportedError: an option that is not built.

        Example:
            >>> import pilum, pyarrow as pa
            >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-scan")
            >>> ds.scanner(columns=["a"], filter="a > 1", limit=1).to_table().to_pydict()
            {'a': [2]}
        """
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        return LanceScanner(self.aio.scanner(**options))

    def to_table(self, columns: Columns = None, filter: Any = None, **options: Any) -> pa.Table:
        """All rows of a scan as one table; options as in `scanner`."""
        return self.scanner(columns, filter, **options).to_table()

    def to_batches(
        self, columns: Columns = None, filter: Any = None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a scan batch by batch, in bounded memory; options as in `scanner`."""
        return self.scanner(columns, filter, **options).to_batches()

    def to_pandas(
        self, columns: Columns = None, filter: Any = None, *, blob_mode: str = "lazy", **options: Any
    ) -> Any:
        """All rows of a scan as a pandas data frame; options as in `scanner`."""
        check_blob_mode(blob_mode)
        return self.to_table(columns, filter, **options).to_pandas(use_threads=False)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.scanner().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self.aio.schema.__arrow_c_schema__()

    def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        return self._run(self.aio.head(num_rows, **options))

    def slice(self, start: int, end: int, columns: Columns = None) -> pa.Table:
        """Rows ``[start, end)`` by position, cut at the end of the table.

        Raises:
            InvalidInputError: ``start`` is negative or after ``end``.
        """
        return self._run(self.aio.slice(start, end, columns))

    def count_rows(self, filter: Any = None) -> int:
        """Number of rows, or of rows that match; without a filter nothing is read."""
        return self._run(self.aio.count_rows(filter))

    def __len__(self) -> int:
        return self.count_rows()

    def __bool__(self) -> bool:
        # An open dataset is something, also without rows.
        return True

    def take(self, indices: Sequence[int] | pa.Array, columns: Columns = None) -> pa.Table:
        """Rows by position among the live rows, order and duplicates kept.

        Raises:
            InvalidInputError: a position is past the end (an `OSError`).
            OverflowError: a position is negative.
        """
        return self._run(self.aio.take(indices, columns))

    def _take_rows(self, row_ids: Sequence[int] | Any, columns: Columns = None) -> pa.Table:
        return self._run(self.aio._take_rows(row_ids, columns))

    def sample(self, num_rows: int, columns: Columns = None, randomize_order: bool = True) -> pa.Table:
        """Random rows without replacement, in random order or in that of the table.

        Raises:
            InvalidInputError: there are not so many rows (a `ValueError`).
        """
        return self._run(self.aio.sample(num_rows, columns, randomize_order))

    def get_fragments(self, filter: Any = None) -> list[LanceFragment]:
        """The fragments of this version, in order; a filter is not supported."""
        return [fragments.LanceFragment.of(self, one) for one in self.aio.get_fragments(filter)]

    def get_fragment(self, fragment_id: int) -> LanceFragment | None:
        """The fragment with this id, or None."""
        found = self.aio.get_fragment(fragment_id)
        return None if found is None else fragments.LanceFragment.of(self, found)

    def fragment_ids(self) -> Bitmap:
        """Ids of the fragments of this version."""
        return self.aio.fragment_ids()
