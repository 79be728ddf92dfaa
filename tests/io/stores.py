"""Stores that suspend, around a store that does not: to hold requests back, and to let them fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from pilum.errors import StoreError
from pilum.io import ObjectInfo, ObjectWriter, Store
from pilum.io.tracing import TRACE

__all__ = ["FailingStore", "GatedStore", "RoundsStore", "SuspendingStore"]


class SuspendingStore(Store):
    """Another store's objects, each request after at least one turn of the event loop.

    Args:
        inner: holds the objects.
        delay: seconds that each request takes.

    Attributes:
        in_flight: reads now.
        most_in_flight: reads at the same time, at most.
    """

    suspends = True
    io_parallelism = 64
    block_size = 4096

    def __init__(self, inner: Store, *, delay: float = 0.0) -> None:
        super().__init__(inner.uri)
        self.inner = inner
        self.delay = delay
        self.in_flight = 0
        self.most_in_flight = 0

    async def _arrive(self, path: str) -> None:
        """What happens before a read of ``path`` is answered."""
        await asyncio.sleep(self.delay)

    async def _fetch(self, path: str, start: int, end: int | None) -> Any:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._arrive(path)
            untraced = TRACE.set(None)  # this store logs the request already
            try:
                if end is None:
                    return await self.inner.get_all(path)
                return await self.inner.get(path, start, end)
            finally:
                TRACE.reset(untraced)
        finally:
            self.in_flight -= 1

    async def head(self, path: str) -> ObjectInfo:
        await self._arrive(path)
        return await self.inner.head(path)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        await asyncio.sleep(self.delay)
        return await self.inner.list(prefix)

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        await asyncio.sleep(self.delay)
        await self.inner.put(path, data, if_absent=if_absent)

    async def delete(self, path: str) -> None:
        await asyncio.sleep(self.delay)
        await self.inner.delete(path)

    async def create(self, path: str) -> ObjectWriter:
        await asyncio.sleep(self.delay)
        return await self.inner.create(path)


class GatedStore(SuspendingStore):
    """Answers no read below ``prefix`` until ``distinct`` objects there have been asked for.

    Args:
        inner: holds the objects.
        prefix: keys that begin with it are held back.
        distinct: how many different keys open the gate, for good.
    """

    def __init__(self, inner: Store, *, prefix: str, distinct: int) -> None:
        super().__init__(inner)
        self._prefix = prefix
        self._distinct = distinct
        self._seen: set[str] = set()
        self._open = asyncio.Event()

    @property
    def distinct_seen(self) -> int:
        """Different keys below the prefix that were asked for so far."""
        return len(self._seen)

    async def _arrive(self, path: str) -> None:
        await super()._arrive(path)
        if path.startswith(self._prefix):
            self._seen.add(path)
            if len(self._seen) >= self._distinct:
                self._open.set()
            await self._open.wait()


class FailingStore(SuspendingStore):
    """Fails to read objects whose key contains ``pattern``; the error names the key.

    Args:
        inner: holds the objects.
        pattern: part of a key.
    """

    def __init__(self, inner: Store, *, pattern: str) -> None:
        super().__init__(inner)
        self._pattern = pattern

    async def _arrive(self, path: str) -> None:
        await super()._arrive(path)
        if self._pattern in path:
            raise StoreError(f"{self.uri}/{path}: connection reset (made up by a test)")


class RoundsStore(SuspendingStore):
    """Answers requests in rounds: all that were asked for since the last one, once nobody asks for more.

    A query that asks for everything it can at once takes few rounds, however long they are; one that asks for one
    object after another takes as many as there are objects.

    Attributes:
        rounds: so far.
        requests: so far, by kind.
    """

    # Turns of the event loop without a new request, after which all tasks wait.
    _QUIET = 60

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.rounds = 0
        self.requests: Counter[str] = Counter()
        self._parked: list[asyncio.Future[None]] = []
        self._quiet = 0

    def reset(self) -> None:
        """Count from nothing."""
        self.rounds = 0
        self.requests.clear()

    async def _wait(self, kind: str) -> None:
        loop = asyncio.get_running_loop()
        self.requests[kind] += 1
        self._quiet = 0
        if not self._parked:
            loop.call_soon(self._tick, loop)
        turn: asyncio.Future[None] = loop.create_future()
        self._parked.append(turn)
        await turn

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._quiet += 1
        if self._quiet < self._QUIET:
            loop.call_soon(self._tick, loop)
            return
        self.rounds += 1
        parked, self._parked = self._parked, []
        for turn in parked:
            if not turn.done():
                turn.set_result(None)

    async def _arrive(self, path: str) -> None:
        await self._wait("get")

    async def head(self, path: str) -> ObjectInfo:
        await self._wait("head")
        return await self.inner.head(path)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        await self._wait("list")
        return await self.inner.list(prefix)

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        await self._wait("put")
        await self.inner.put(path, data, if_absent=if_absent)

    async def delete(self, path: str) -> None:
        await self._wait("delete")
        await self.inner.delete(path)

    async def create(self, path: str) -> ObjectWriter:
        await self._wait("put")
        return await self.inner.create(path)
