"""Scans as users ask for them: the options checked, and the scanner that runs them.

`scan_request` turns keyword options into a `ScanRequest` of the query room, refusing what does not exist or is
not built; `AsyncLanceScanner` is a planned scan.  Planning did no I/O; each call runs it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.io import QuerySpan
from pilum.query import explain, request_plan, search
from pilum.query.analyze import analyze, open_plan, run_measured, run_plan, waterfall_of
from pilum.query.ordering import ColumnOrdering
from pilum.query.request import Nearest, ScanRequest
from pilum.query.scan import count, plan_scan
from pilum.query.snapshot import Snapshot
from pilum.schema import Schema, with_stored_blobs

if TYPE_CHECKING:
    from pilum.query.request_plan import RequestPlan
    from pilum.query.waterfall import Waterfall

__all__ = ["KNOWN_OPTIONS", "AsyncLanceScanner", "ColumnOrdering", "scan_request"]

_USED = frozenset(
    {
        "columns",
        "filter",
        "limit",
        "offset",
        "prefilter",
        "with_row_id",
        "with_row_address",
        "batch_size",
        "batch_readahead",
        "fragment_readahead",
        "io_buffer_size",
        "strict_batch_size",
        "batch_size_bytes",
        "order_by",
        "include_deleted_rows",
        "late_materialization",
        "fast_search",
        "disable_scoring_autoprojection",
        "scan_stats_callback",
        "use_stats",
    }
)
# Accepted because they only steer how a read is done, which a scan without indices decides itself.
_STEERING = frozenset({"scan_in_order", "use_scalar_index"})
# Known, but what they ask for is not built: refused unless they ask for nothing.
_UNBUILT: Mapping[str, str] = {
    "full_text_query": "full text search",
    "index_segments": "searching chosen segments of an index",
    "row_addr_allowlist": "lists of row addresses",
    "row_addr_blocklist": "lists of row addresses",
    "substrait_aggregate": "aggregates",
}
_BLOB_HANDLING = ("all_binary", "blobs_descriptions", "all_descriptions")
KNOWN_OPTIONS = _USED | _STEERING | _UNBUILT.keys() | {"nearest", "fragments", "blob_handling"}


def scan_request(
    schema: Schema,
    *,
    nearest: Mapping[str, Any] | None = None,
    fragments: Iterable[Any] | None = None,
    **options: Any,
) -> ScanRequest:
    """Check the keyword options of a scan and freeze them.

    Args:
        schema: of the dataset; the width of its rows turns ``batch_size_bytes`` into rows.
        nearest: a vector search, see `Nearest.parse`.
        fragments: fragments or ids to read.
        options: the others, by name; None is the default of each.

    Raises:
        TypeError: an option does not exist, or has a wrong type.
        InvalidInputError: an option has a value that makes no sense.
        UnsupportedError: what an option asks for is not built.
    """
    unknown = options.keys() - KNOWN_OPTIONS
    if unknown:
        raise TypeError(
            f"scan got an unexpected keyword argument {min(unknown)!r}; known: {', '.join(sorted(KNOWN_OPTIONS))}"
        )
    for name, feature in _UNBUILT.items():
        value = options.get(name)
        if value is not None and value is not False and not (isinstance(value, list) and not value):
            raise UnsupportedError(f"{name}: {feature}: not supported yet")
    blobs = options.get("blob_handling")
    if blobs is not None and blobs not in _BLOB_HANDLING:
        raise InvalidInputError(f"blob_handling must be one of {', '.join(_BLOB_HANDLING)}, got {blobs!r}")
    if blobs == "all_binary" and with_stored_blobs(schema) is not schema:
        raise UnsupportedError("blob_handling='all_binary': reading blobs: not supported yet")
    late = options.get("late_materialization")
    if late is not None and not isinstance(late, (bool, list)):
        raise InvalidInputError("late_materialization must be a bool or a list of column names")
    chosen = {name: value for name, value in options.items() if value is not None and name in _USED}
    if "fragment_readahead" in chosen:
        chosen["fragment_readahead"] = max(1, chosen["fragment_readahead"])
    if fragments is not None:
        chosen["fragment_ids"] = tuple([getattr(one, "fragment_id", one) for one in fragments])
    if nearest is not None:
        chosen["nearest"] = Nearest.parse(nearest)
    return ScanRequest(**chosen)


class AsyncLanceScanner:
    """A planned scan.  Planning did no I/O; each call runs it."""

    def __init__(self, snapshot: Snapshot, request: ScanRequest) -> None:
        self.snapshot = snapshot
        self.request = request
        self._plan: Any = (
            search.plan_search(snapshot, request)
            if request.nearest is not None
            else plan_scan(snapshot, request)
        )

    @property
    def projected_schema(self) -> pa.Schema:
        """Schema of the result."""
        schema: pa.Schema = self._plan.schema
        return schema

    @property
    def dataset_schema(self) -> pa.Schema:
        """Schema of the dataset."""
        return self.snapshot.manifest.schema.to_arrow()

    async def to_table(self) -> pa.Table:
        """All rows as one table."""
        if self.request.scan_stats_callback is not None:
            return await run_measured(self._plan, self.request.scan_stats_callback)
        return await run_plan(self._plan)

    async def to_batches(self) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches.  Close it (``aclosing``) when it is not read to the end."""
        return await open_plan(self._plan, self.request.scan_stats_callback)

    async def head(self, num_rows: int) -> pa.Table:
        """The first rows of the result."""
        return await AsyncLanceScanner(self.snapshot, self.request.updated(limit=num_rows)).to_table()

    async def count_rows(self) -> int:
        """Number of rows of the result; only the filter's columns are read."""
        if self.request.limit is not None or self.request.offset is not None:
            raise InvalidInputError("count_rows does not combine with limit or offset")
        if self.request.nearest is not None:
            return int((await self.to_table()).num_rows)
        with QuerySpan("count", self.snapshot.store, self.snapshot.manifest.version) as span:
            span.rows = await count(self._plan)
        return span.rows

    def explain_plan(self, verbose: bool = False) -> str:
        """The plan as an indented tree."""
        return explain.explain(self._plan, verbose=verbose)

    async def analyze_plan(self) -> str:
        """Run the scan and return the plan with measured rows, requests, bytes and time of each step."""
        return await analyze(self._plan)

    async def request_plan(self) -> RequestPlan:
        """The requests that running this will make, before anything is read."""
        return request_plan.plan_requests_of(self._plan)

    async def waterfall(self) -> Waterfall:
        """Run the scan under a trace: which request waited for what, when."""
        return await waterfall_of(self._plan)

    def __repr__(self) -> str:
        names = ", ".join(self.projected_schema.names)
        return f"<{type(self).__name__} of {self.snapshot.store.uri} version {self.snapshot.manifest.version}: {names}>"
