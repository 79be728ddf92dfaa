"""`ScannerBuilder`: the options of a scan one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from pilum.dataset.door.reading import Columns, ReadingDoor
from pilum.dataset.door.scanner import LanceScanner

__all__ = ["ScannerBuilder"]


class ScannerBuilder:
    """Collects the options of `LanceDataset.scanner`; every method returns the builder.

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-builder")
        >>> pilum.ScannerBuilder(ds).columns(["a"]).filter("a > 1").limit(1).to_scanner().to_table().to_pydict()
        {'a': [2]}
    """

    def __init__(self, ds: ReadingDoor) -> None:
        self._dataset = ds
        self._options: dict[str, Any] = {}

    def _set(self, name: str, value: Any) -> Self:
        self._options[name] = value
        return self

    def apply_defaults(self, default_opts: Mapping[str, Any]) -> Self:
        """Set options that are not set yet, by their names in `LanceDataset.scanner`."""
        for name, value in default_opts.items():
            self._options.setdefault(name, value)
        return self

    def columns(self, cols: Columns = None) -> Self:
        """Columns to return."""
        return self._set("columns", cols)

    def filter(self, filter: Any) -> Self:
        """Which rows."""
        return self._set("filter", filter)

    def limit(self, n: int | None = None) -> Self:
        """Rows to return."""
        return self._set("limit", n)

    def offset(self, n: int | None = None) -> Self:
        """Rows to skip."""
        return self._set("offset", n)

    def nearest(self, column: str, q: Any, k: int | None = None, **options: Any) -> Self:
        """Vector search; options as in `LanceDataset.scanner`."""
        given = {name: value for name, value in options.items() if value is not None}
        return self._set("nearest", {"column": column, "q": q, **({} if k is None else {"k": k}), **given})

    def batch_size(self, batch_size: int) -> Self:
        """Most rows per batch."""
        return self._set("batch_size", batch_size)

    def batch_size_bytes(self, batch_size_bytes: int) -> Self:
        """About as many bytes per batch."""
        return self._set("batch_size_bytes", batch_size_bytes)

    def batch_readahead(self, nbatches: int | None = None) -> Self:
        """Batches read ahead."""
        return self._set("batch_readahead", nbatches)

    def fragment_readahead(self, nfragments: int | None = None) -> Self:
        """Fragments read ahead."""
        return self._set("fragment_readahead", nfragments)

    def scan_in_order(self, scan_in_order: bool = True) -> Self:
        """Rows in the order of the table; pilum always does."""
        return self._set("scan_in_order", scan_in_order)

    def with_fragments(self, fragments: Iterable[Any] | None) -> Self:
        """Fragments to read."""
        return self._set("fragments", fragments)

    def with_index_segments(self, index_segments: Iterable[Any] | None) -> Self:
        """Segments of an index to search."""
        return self._set("index_segments", index_segments)

    def full_text_search(self, query: Any, columns: Sequence[str] | None = None) -> Self:
        """Full text search."""
        return self._set(
            "full_text_query", query if columns is None else {"query": query, "columns": columns}
        )

    def minhash_search(self, query: Any) -> Self:
        """Search for similar texts."""
        return self._set("full_text_query", query)

    def prefilter(self, prefilter: bool) -> Self:
        """Filter before a vector search."""
        return self._set("prefilter", prefilter)

    def with_row_id(self, with_row_id: bool = True) -> Self:
        """Append ``_rowid``."""
        return self._set("with_row_id", with_row_id)

    def with_row_address(self, with_row_address: bool = True) -> Self:
        """Append ``_rowaddr``."""
        return self._set("with_row_address", with_row_address)

    def use_stats(self, use_stats: bool = True) -> Self:
        """Use statistics of the files."""
        return self._set("use_stats", use_stats)

    def use_scalar_index(self, use_scalar_index: bool = True) -> Self:
        """Use scalar indices."""
        return self._set("use_scalar_index", use_scalar_index)

    def fast_search(self, flag: bool) -> Self:
        """Search indexed data only."""
        return self._set("fast_search", flag)

    def io_buffer_size(self, io_buffer_size: int) -> Self:
        """Bytes that may be in flight."""
        return self._set("io_buffer_size", io_buffer_size)

    def late_materialization(self, late_materialization: bool | list[str]) -> Self:
        """Which columns are read after filtering."""
        return self._set("late_materialization", late_materialization)

    def blob_handling(self, blob_handling: str | None) -> Self:
        """How blobs are returned."""
        return self._set("blob_handling", blob_handling)

    def include_deleted_rows(self, flag: bool) -> Self:
        """Return deleted rows, too."""
        return self._set("include_deleted_rows", flag)

    def scan_stats_callback(self, callback: Callable[[Any], Any]) -> Self:
        """Called with statistics of the scan."""
        return self._set("scan_stats_callback", callback)

    def strict_batch_size(self, strict_batch_size: bool = False) -> Self:
        """All batches but the last are full."""
        return self._set("strict_batch_size", strict_batch_size)

    def order_by(self, orderings: Sequence[Any] | None) -> Self:
        """Sort the rows."""
        return self._set("order_by", orderings)

    def disable_scoring_autoprojection(self, disable: bool = True) -> Self:
        """Return scores only when asked for."""
        return self._set("disable_scoring_autoprojection", disable)

    def row_addr_prefilter(self, allowlist: bytes | None = None, blocklist: bytes | None = None) -> Self:
        """Rows to look at, or not to look at."""
        self._set("row_addr_allowlist", allowlist)
        return self._set("row_addr_blocklist", blocklist)

    def substrait_aggregate(self, aggregate: bytes) -> Self:
        """An aggregate to compute."""
        return self._set("substrait_aggregate", aggregate)

    def to_scanner(self) -> LanceScanner:
        """The scanner with these options."""
        return LanceScanner(self._dataset.aio.scanner(**self._options))
