"""OpenTelemetry spans of queries: what a query did, told to whoever collects traces.

```
pilum.scan                      one for each query: scan, search, take, count, open, commit
  pilum.get     ░░░██           one for each request over a network, with the event "first byte"
  pilum.get     ░░░░█
  pilum.cache     ██            … and for each read that a disk cache answered
```

The package ``opentelemetry-api`` is optional and never imported by pilum's own will.  A program that collects traces
has imported it to set its provider, so whether it is among the loaded modules says whether anybody listens; where
nobody does, a query pays one look-up in a dictionary.  Without a provider, and where the sampler drops a query, the
API's spans record nothing and no requests are logged.

The spans of requests are made from the log of the query (`pilum.io.tracing`) when it ends, at most `MOST_REQUESTS`.
A query that was cancelled, or a stream that was closed before its end, has the event "cancelled".
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from contextvars import Token
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pilum import imports
from pilum.io.store import Store
from pilum.io.tracing import TRACE, Moved, Request, TraceLog

__all__ = ["MOST_REQUESTS", "QuerySpan", "spanned"]

_API = "opentelemetry.trace"
MOST_REQUESTS = 1000


class _HasRows(Protocol):
    @property
    def num_rows(self) -> int: ...


B = TypeVar("B", bound=_HasRows)


class QuerySpan:
    """The span of one query, around a ``with`` block; nothing where nobody listens.

    Args:
        operation: ``scan``, ``search``, ``take``, ``count``, ``open`` or ``commit``.
        store: what is read or written.
        version: of the table; may be set later, like `rows`.

    Attributes:
        rows: rows that came out, or were counted.
    """

    __slots__ = ("_live", "_operation", "_store", "_tokens", "rows", "version")

    def __init__(self, operation: str, store: Store, version: int | None = None) -> None:
        self._operation = operation
        self._store = store
        self._live: _Live | None = None
        self.rows: int | None = None
        self.version = version

    def begin(self) -> bool:
        """Start the span; whether there is one."""
        if _API in sys.modules:
            self._live = _Live.of(self._operation, self._store)
        return self._live is not None

    @contextmanager
    def current(self) -> Iterator[None]:
        """What happens inside belongs to the span: requests, and spans of others."""
        assert self._live is not None
        tokens = self._live.attach()
        try:
            yield
        finally:
            self._live.detach(tokens)

    def end(self, error: BaseException | None = None) -> None:
        """End the span, once."""
        live, self._live = self._live, None
        if live is not None:
            live.end(self, error)

    def __enter__(self) -> Self:
        if self.begin():
            assert self._live is not None
            self._tokens = self._live.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.detach(self._tokens)
            self.end(error)


class _Live:
    """A span that records."""

    def __init__(self, api: Any, tracer: Any, span: Any, store: Store) -> None:
        self._api = api
        self._context = imports.load("opentelemetry.context")
        self._tracer = tracer
        self._span = span
        self._requests = store.suspends
        self._log = TraceLog(TRACE.get())
        # The clock of the log is not that of spans.
        self._epoch = time.time_ns() - time.perf_counter_ns()

    @classmethod
    def of(cls, operation: str, store: Store) -> _Live | None:
        api = imports.load(_API)
        tracer = api.get_tracer("pilum", getattr(sys.modules["pilum"], "__version__", None))
        attributes = {
            "db.system.name": "lance",
            "db.operation.name": operation,
            "db.collection.name": store.uri,
        }
        kind = api.SpanKind.CLIENT if store.suspends else api.SpanKind.INTERNAL
        span = tracer.start_span(f"pilum.{operation}", kind=kind, attributes=attributes)
        return cls(api, tracer, span, store) if span.is_recording() else None

    def attach(self) -> tuple[Any, Token[TraceLog | None]]:
        token = self._context.attach(self._api.set_span_in_context(self._span))
        return token, TRACE.set(self._log)

    def detach(self, tokens: tuple[Any, Token[TraceLog | None]]) -> None:
        TRACE.reset(tokens[1])
        self._context.detach(tokens[0])

    def _nanoseconds(self, seconds: float) -> int:
        return self._epoch + round(seconds * 1e9)

    def end(self, query: QuerySpan, error: BaseException | None) -> None:
        span, requests = self._span, self._log.requests
        moved = Moved.by(requests)
        made = [one for one in requests if one.kind != "cache"]
        found = {
            "pilum.version": query.version,
            "pilum.rows": query.rows,
            "pilum.requests": len(made),
            "pilum.bytes_read": moved.bytes,
            "pilum.bytes_written": sum([one.end - one.start for one in made if one.kind == "put"]),
            "pilum.retries": moved.retries,
            "pilum.cache.hits": moved.cache_hits,
            "pilum.cache.bytes": moved.cache_bytes,
        }
        span.set_attributes({name: value for name, value in found.items() if value is not None})
        if moved.first_byte is not None:
            span.add_event("first byte", timestamp=self._nanoseconds(moved.first_byte))
        if self._requests:
            self._add_requests(requests)
        if isinstance(error, Exception):
            span.record_exception(error)
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        elif error is not None:
            span.add_event("cancelled")
        span.end()

    def _add_requests(self, requests: list[Request]) -> None:
        parent = self._api.set_span_in_context(self._span)
        for one in requests[:MOST_REQUESTS]:
            kind = self._api.SpanKind.INTERNAL if one.kind == "cache" else self._api.SpanKind.CLIENT
            attributes: dict[str, Any] = {"pilum.path": one.path, "pilum.bytes": one.end - one.start}
            if one.kind in ("get", "cache"):
                attributes |= {"pilum.start": one.start, "pilum.end": one.end}
            if one.who:
                attributes["pilum.purpose"] = one.who
            if one.retries:
                attributes["pilum.retries"] = one.retries
            child = self._tracer.start_span(
                f"pilum.{one.kind}",
                context=parent,
                kind=kind,
                attributes=attributes,
                start_time=self._nanoseconds(one.started),
            )
            if one.first_byte is not None:
                child.add_event("first byte", timestamp=self._nanoseconds(one.first_byte))
            child.end(end_time=self._nanoseconds(one.finished))


async def spanned(stream: AsyncGenerator[B, None], span: QuerySpan) -> AsyncGenerator[B, None]:
    """The batches of a stream; each is made under the span, which ends with the stream.

    Args:
        stream: is closed at the end.
        span: was begun.
    """
    span.rows = 0
    try:
        async with aclosing(stream):
            while True:
                with span.current():
                    batch = await anext(stream, None)
                if batch is None:
                    break
                span.rows += batch.num_rows
                yield batch
    except BaseException as error:
        span.end(error)
        raise
    span.end()
