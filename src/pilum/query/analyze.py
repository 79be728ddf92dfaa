"""Running a plan: plainly, measured, or traced.

`run_plan` and `open_plan` run a scan or a search.  A measured run (`analyze`, ``scan_stats_callback``) carries a
`ScanMetrics`; a traced one (`waterfall_of`) keeps the log of its requests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum.io import QuerySpan, trace
from pilum.io.spans import spanned
from pilum.io.tracing import TRACE, TraceLog
from pilum.query import explain, search, waterfall
from pilum.query.scan import Scan, open_scan, scan_table

if TYPE_CHECKING:
    from pilum.query.metrics import ScanStatistics
    from pilum.query.search import Search
    from pilum.query.waterfall import Waterfall

__all__ = ["analyze", "open_plan", "run_measured", "run_plan", "waterfall_of"]

_LOG = logging.getLogger("pilum")


def _span(plan: Scan | Search) -> QuerySpan:
    operation = "scan" if isinstance(plan, Scan) else "search"
    return QuerySpan(operation, plan.snapshot.store, plan.snapshot.manifest.version)


async def run_plan(plan: Scan | Search) -> pa.Table:
    """All rows of a plan as one table."""
    with _span(plan) as span:
        table = await scan_table(plan) if isinstance(plan, Scan) else await search.search(plan)
        span.rows = table.num_rows
    return table


async def open_plan(
    plan: Scan | Search, callback: Callable[[ScanStatistics], Any] | None = None
) -> AsyncGenerator[pa.RecordBatch, None]:
    """A primed stream of batches; ``callback`` gets the statistics when it has been read to its end."""
    span = _span(plan)
    if not span.begin():
        return await _open(plan, callback)
    try:
        with span.current():
            stream = await _open(plan, callback)
    except BaseException as error:
        span.end(error)
        raise
    return spanned(stream, span)


async def _open(
    plan: Scan | Search, callback: Callable[[ScanStatistics], Any] | None
) -> AsyncGenerator[pa.RecordBatch, None]:
    if callback is None:
        return await _stream(plan)
    measured = plan.measured()
    log = TraceLog(TRACE.get())
    token = TRACE.set(log)
    try:
        stream = await _stream(measured)
    finally:
        TRACE.reset(token)
    return _observed(measured, stream, log, callback)


async def _stream(plan: Scan | Search) -> AsyncGenerator[pa.RecordBatch, None]:
    return await open_scan(plan) if isinstance(plan, Scan) else _batches_of(await search.search(plan))


async def _batches_of(table: pa.Table) -> AsyncGenerator[pa.RecordBatch, None]:
    for batch in table.to_batches():
        yield batch


async def _observed(
    plan: Scan | Search,
    stream: AsyncGenerator[pa.RecordBatch, None],
    log: TraceLog,
    callback: Callable[[ScanStatistics], Any],
) -> AsyncGenerator[pa.RecordBatch, None]:
    metrics = plan.metrics
    assert metrics is not None
    async with aclosing(stream):
        while True:
            # The trace is set while the stream runs, and not while its consumer does.
            token = TRACE.set(log)
            try:
                batch = await anext(stream, None)
            finally:
                TRACE.reset(token)
            if batch is None:
                break
            metrics.output_rows += batch.num_rows
            yield batch
    metrics.elapsed = time.perf_counter() - metrics.started
    _report(callback, metrics.statistics(log))


def _report(callback: Callable[[ScanStatistics], Any], statistics: ScanStatistics) -> None:
    """The rows are there already: what the callback raises is only logged."""
    try:
        callback(statistics)
    except Exception:
        _LOG.exception("scan_stats_callback failed")


async def run_measured(plan: Scan | Search, callback: Callable[[ScanStatistics], Any]) -> pa.Table:
    """As `run_plan`; ``callback`` gets the statistics."""
    _, table, log, measured = await _measure(plan)
    assert measured.metrics is not None
    _report(callback, measured.metrics.statistics(log))
    return table


async def _measure(plan: Scan | Search) -> tuple[float, pa.Table, TraceLog, Scan | Search]:
    measured = plan.measured()
    assert measured.metrics is not None
    started = time.perf_counter()
    with trace() as log:
        table = await run_plan(measured)
    measured.metrics.elapsed = time.perf_counter() - started
    measured.metrics.output_rows = table.num_rows
    return started, table, log, measured


async def analyze(plan: Scan | Search, *, verbose: bool = True) -> str:
    """Run once and return the plan with the totals on top and what each step cost, also for each fragment.

    Over a network the totals say how often a request was repeated, how many requests followed each other
    (``rounds``, of each step, too), and when the first byte came, counted from the begin of the query.
    """
    _, table, log, measured = await _measure(plan)
    metrics = measured.metrics
    assert metrics is not None
    statistics = metrics.statistics(log)
    files = len({request.path for request in log.requests})
    counts, times = statistics.all_counts, statistics.all_times
    network = ""
    if plan.snapshot.suspends:
        rounds = waterfall.dependent_rounds(
            [(one.started, one.finished) for one in log.requests if one.kind != "cache"]
        )
        network = f"retries={counts['retries']}, rounds={rounds}, "
        if "first_byte" in times:
            network += f"first_byte={times['first_byte'] / 1e6:.3f} ms, "
        if counts["cache_hits"]:
            network += f"cache_hits={counts['cache_hits']}, cache_bytes={counts['cache_bytes']}, "
    totals = (
        f"Execution: output_rows={table.num_rows}, requests={statistics.requests}, files={files}, "
        f"bytes_read={statistics.bytes_read}, fragments_scanned={len(metrics.fragments_scanned)}, "
        f"rows_scanned={metrics.rows_scanned}, {network}io_time={times['io_wait'] / 1e6:.3f} ms, "
        f"elapsed={metrics.elapsed * 1e3:.3f} ms"
    )
    lines = explain.plan_tree(measured, verbose=True).lines(metrics, verbose=verbose)
    return totals + "\n" + "".join(f"  {line}\n" for line in lines)


async def waterfall_of(plan: Scan | Search) -> Waterfall:
    """Run once under a trace and draw its requests."""
    started, _, log, measured = await _measure(plan)
    assert measured.metrics is not None
    fragments = {
        file.path: fragment.id for fragment in plan.snapshot.manifest.fragments for file in fragment.files
    }
    return waterfall.Waterfall.of(log.requests, started, measured.metrics.elapsed, fragments)
