"""What a query did, measured while it ran: rows, requests, bytes and time of each step, for each fragment.

A scan that is not measured carries no `ScanMetrics` and pays one comparison for each step.  One that is wraps every
step in `ScanMetrics.step`: a trace of its own around the step counts the requests it made, also when many steps of
many fragments overlap.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pilum.io.tracing import Moved, Request, TraceLog, trace

__all__ = ["FragmentMetrics", "ScanMetrics", "ScanStatistics", "Step", "StepMetrics"]


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """Totals of a finished scan, handed to ``scan_stats_callback``.

    Attributes:
        iops, requests: read requests made.
        bytes_read: bytes they brought.
        indices_loaded, parts_loaded, index_comparisons, index_cache_hits, index_cache_misses: of indices.
        all_counts: ``rows_scanned``, ``ranges_scanned``, ``fragments_scanned``, ``output_rows``; ``retries`` of
            requests; ``cache_hits`` and ``cache_bytes``, what a disk cache answered.
        all_times: nanoseconds by name: ``elapsed``; ``io_wait``, the sum over requests; ``first_byte``, from the
            begin of the scan to the first byte of an answer.
    """

    iops: int = 0
    requests: int = 0
    bytes_read: int = 0
    indices_loaded: int = 0
    parts_loaded: int = 0
    index_comparisons: int = 0
    index_cache_hits: int = 0
    index_cache_misses: int = 0
    all_counts: Mapping[str, int] = field(default_factory=dict)
    all_times: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class FragmentMetrics:
    """One step of one fragment (or of one group of small ones, under its first)."""

    rows: int = 0
    requests: int = 0
    bytes: int = 0
    retries: int = 0
    cached: int = 0
    seconds: float = 0.0
    fragments: int = 1


@dataclass(slots=True)
class StepMetrics:
    """One step of a plan over all fragments.

    Attributes:
        rows: rows that came out.
        requests, bytes: made for it.
        retries: attempts of these requests that failed and were repeated.
        cached: bytes that a disk cache had.
        waits: begin and end of each request.
        seconds: sum over fragments; steps of several fragments overlap.
        fragments: by id of the (first) fragment.
    """

    rows: int = 0
    requests: int = 0
    bytes: int = 0
    retries: int = 0
    cached: int = 0
    waits: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    fragments: dict[int, FragmentMetrics] = field(default_factory=dict)


@dataclass(slots=True)
class Step:
    """A step being measured; whoever runs it sets ``rows``."""

    rows: int = 0


class ScanMetrics:
    """Measurements of one run of a plan; steps may be recorded from any thread.

    Args:
        network: whether requests wait for a network, so that it matters which ones followed each other.
    """

    def __init__(self, network: bool = False) -> None:
        self.network = network
        self.steps: dict[str, StepMetrics] = {}
        self.started = time.perf_counter()
        self.elapsed = 0.0
        self.output_rows = 0
        self.rows_scanned = 0
        self.ranges_scanned = 0
        self.fragments_scanned: set[int] = set()
        self._lock = threading.Lock()

    @contextmanager
    def step(self, name: str, fragment_ids: Sequence[int]) -> Iterator[Step]:
        """Measure one step over some fragments."""
        current = Step()
        started = time.perf_counter()
        with trace() as log:
            yield current
        self._add(name, fragment_ids, current.rows, log.requests, time.perf_counter() - started)

    def scanned(self, fragment_ids: Sequence[int], rows: int) -> None:
        """Rows that were looked at."""
        with self._lock:
            self.rows_scanned += rows
            self.ranges_scanned += len(fragment_ids)
            self.fragments_scanned.update(fragment_ids)

    def _add(
        self, name: str, fragment_ids: Sequence[int], rows: int, requests: Sequence[Request], seconds: float
    ) -> None:
        moved = Moved.by(requests)
        with self._lock:
            step = self.steps.setdefault(name, StepMetrics())
            if self.network:
                step.waits += [(one.started, one.finished) for one in requests if one.kind != "cache"]
            one = step.fragments.setdefault(fragment_ids[0], FragmentMetrics(fragments=len(fragment_ids)))
            for target in (step, one):
                target.rows += rows
                target.requests += moved.reads
                target.bytes += moved.bytes
                target.retries += moved.retries
                target.cached += moved.cache_bytes
                target.seconds += seconds

    def statistics(self, log: TraceLog) -> ScanStatistics:
        """The totals of the run."""
        moved = Moved.by(log.requests)
        counts = {
            "rows_scanned": self.rows_scanned,
            "ranges_scanned": self.ranges_scanned,
            "fragments_scanned": len(self.fragments_scanned),
            "output_rows": self.output_rows,
            "retries": moved.retries,
            "cache_hits": moved.cache_hits,
            "cache_bytes": moved.cache_bytes,
        }
        times = {"elapsed": round(self.elapsed * 1e9), "io_wait": round(moved.seconds * 1e9)}
        if moved.first_byte is not None:
            times["first_byte"] = round((moved.first_byte - self.started) * 1e9)
        return ScanStatistics(
            iops=moved.reads, requests=moved.reads, bytes_read=moved.bytes, all_counts=counts, all_times=times
        )
