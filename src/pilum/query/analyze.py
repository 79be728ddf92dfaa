"""Run a plan and say what it cost: rows, requests, bytes and time beside the plan tree."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pyarrow as pa

from pilum.io import trace
from pilum.query.explain import explain
from pilum.query.scan import Scan
from pilum.query.search import Search

__all__ = ["analyze"]


async def analyze(plan: Scan | Search, execute: Callable[[], Awaitable[pa.Table]]) -> str:
    """Execute once under a trace and return the plan with the measured totals on top."""
    started = time.perf_counter()
    with trace() as log:
        table = await execute()
    elapsed = time.perf_counter() - started
    requests = log.requests
    files = len({request.path for request in requests})
    read = sum(request.end - request.start for request in requests)
    waited = sum(request.finished - request.started for request in requests)
    totals = (
        f"Execution: output_rows={table.num_rows}, requests={len(requests)}, files={files}, "
        f"bytes_read={read}, io_time={waited * 1e3:.3f} ms, elapsed={elapsed * 1e3:.3f} ms"
    )
    tree = explain(plan, verbose=True)
    return totals + "\n" + "".join(f"  {line}\n" for line in tree.splitlines())
