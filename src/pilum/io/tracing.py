"""The log of requests of one query.

A trace is a context variable: tasks and worker threads of the query inherit it, other queries do not see
it.  When it is off, a store pays one look-up of the variable for each request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

__all__ = ["TRACE", "Request", "TraceLog", "trace"]


class Request(NamedTuple):
    """One request to a store.

    Attributes:
        path: key of the object, or the prefix of a listing.
        start: first byte; 0 where there is no range.
        end: end of the range, so that ``end - start`` is the number of bytes moved.
        started: when it was asked for, in seconds of `time.perf_counter`.
        finished: when the answer was there.
        who: what the reader said it needs the bytes for.
        kind: ``get``, ``put``, ``head``, ``list`` or ``delete``.
    """

    path: str
    start: int
    end: int
    started: float
    finished: float
    who: str
    kind: str


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
