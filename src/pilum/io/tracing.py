"""The log of requests of one query.

A trace is a context variable: tasks and worker threads of the query inherit it, other queries do not see
it.  When it is off, a store pays one look-up of the variable for each request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import NamedTuple

from pilum.io.stats import IoStats

__all__ = [
    "EXCHANGE",
    "TRACE",
    "Exchange",
    "Moved",
    "Request",
    "TraceLog",
    "exchange",
    "note_first_byte",
    "trace",
]


class Request(NamedTuple):
    """One request to a store.

    Attributes:
        path: key of the object, or the prefix of a listing.
        start: first byte; 0 where there is no range.
        end: end of the range, so that ``end - start`` is the number of bytes moved.
        started: when it was asked for, in seconds of `time.perf_counter`.
        finished: when the answer was there.
        who: what the reader said it needs the bytes for.
        kind: ``get``, ``put``, ``head``, ``list`` or ``delete``; ``cache``: a read that a disk cache answered,
            so that no request was made (`pilum.io.cached`).
        first_byte: when the first byte of the answer came; None where the client does not tell.
        retries: attempts that failed before the one that succeeded.
    """

    path: str
    start: int
    end: int
    started: float
    finished: float
    who: str
    kind: str
    first_byte: float | None = None
    retries: int = 0


class Moved(NamedTuple):
    """Totals of some requests.

    Attributes:
        reads: requests that read.
        bytes: what they brought.
        seconds: how long they took, all together.
        retries: attempts of any request that failed and were repeated.
        cache_hits, cache_bytes: reads that a disk cache answered.
        first_byte: when the first byte of any read came, in seconds of `time.perf_counter`; where clients do not
            tell, when the first answer was complete; None if there was none.
    """

    reads: int
    bytes: int
    seconds: float
    retries: int
    cache_hits: int
    cache_bytes: int
    first_byte: float | None

    @classmethod
    def by(cls, requests: Sequence[Request]) -> Moved:
        """The totals of ``requests``."""
        reads = [one for one in requests if one.kind == "get"]
        cached = [one for one in requests if one.kind == "cache"]
        begins = [one.finished if one.first_byte is None else one.first_byte for one in (*reads, *cached)]
        return cls(
            len(reads),
            sum([one.end - one.start for one in reads]),
            sum([one.finished - one.started for one in reads]),
            sum([one.retries for one in requests]),
            len(cached),
            sum([one.end - one.start for one in cached]),
            min(begins, default=None),
        )


class TraceLog:
    """Requests in the order in which they finished."""

    __slots__ = ("_outer", "requests")

    def __init__(self, outer: TraceLog | None = None) -> None:
        self.requests: list[Request] = []
        self._outer = outer

    def record(self, request: Request) -> None:
        """Add a request; also to the trace around this one.  Appending is atomic: any thread may."""
        self.requests.append(request)
        if self._outer is not None:
            self._outer.record(request)


TRACE: ContextVar[TraceLog | None] = ContextVar("pilum_trace", default=None)


class Exchange:
    """What happens to one request over a network, told by the layers below the store that makes it.

    Attributes:
        timed: whether somebody wants to know `first_byte`, which may cost a little.
        first_byte: when the first byte of an answer came, in seconds of `time.perf_counter`.
        retries: attempts that failed so far and may be repeated.
    """

    __slots__ = ("first_byte", "retries", "timed")

    def __init__(self, timed: bool) -> None:
        self.timed = timed
        self.first_byte: float | None = None
        self.retries = 0


EXCHANGE: ContextVar[Exchange | None] = ContextVar("pilum_exchange", default=None)


@contextmanager
def exchange(stats: IoStats) -> Iterator[Exchange]:
    """The exchange of a request made in the ``with`` block; its retries are counted in ``stats``, also on failure."""
    current = Exchange(TRACE.get() is not None)
    token = EXCHANGE.set(current)
    try:
        yield current
    finally:
        EXCHANGE.reset(token)
        if current.retries:
            stats.note_retries(current.retries)


def note_first_byte() -> None:
    """Called by clients when an answer begins."""
    current = EXCHANGE.get()
    if current is not None and current.first_byte is None:
        current.first_byte = perf_counter()


@contextmanager
def trace() -> Iterator[TraceLog]:
    """Record the requests made inside the ``with`` block, by the threads and tasks of its queries.

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-trace")
        >>> with pilum.trace() as log:
        ...     _ = ds.to_table()
        >>> len(log.requests) > 0
        True
    """
    log = TraceLog(TRACE.get())
    token = TRACE.set(log)
    try:
        yield log
    finally:
        TRACE.reset(token)
