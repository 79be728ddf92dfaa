"""Writing an object to a remote store front to back, in memory of a few parts.

```
write ─► part buffer ─┬─► finish before it is full:  one PUT
                      └─► full: multipart upload in a task ─► parts sent side by side ─► finish completes it
```

The object becomes visible when it is complete, and never otherwise; an upload that is given up is aborted, so
that no hidden parts remain to be paid for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pilum import config
from pilum.errors import StoreError
from pilum.io.runtime import cancel_and_wait
from pilum.io.store import ObjectWriter

if TYPE_CHECKING:
    import asyncio

    from pilum.io.remote import RemoteStore

__all__ = ["RemoteWriter"]

# 10,000 parts at most, so this is for objects up to 100 GB, above the default size limit of a data file.
PART_SIZE = 10 << 20


class _GivenUp(Exception):
    """Thrown into an upload to end it."""


class RemoteWriter(ObjectWriter):
    """Collects what is written; from the first full part on an upload runs beside the writer."""

    def __init__(self, store: RemoteStore, path: str) -> None:
        self.path = path
        self._store = store
        self._part = bytearray()
        self._position = 0
        self._open = True
        self._upload: asyncio.Task[None] | None = None
        self._parts: asyncio.Queue[bytes | None] | None = None
        self._given_up = False

    @property
    def position(self) -> int:
        return self._position

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self._store.uri}/{self.path} is no longer being written")

    async def write(self, buffers: Sequence[Any]) -> None:
        self._check_open()
        limit = PART_SIZE if self._upload is not None else config.initial_upload_size()
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            self._position += len(view)
            at = 0
            while at < len(view):
                taken = min(len(view) - at, max(limit, PART_SIZE) - len(self._part))
                self._part += view[at : at + taken]
                at += taken
                if len(self._part) >= PART_SIZE or (at < len(view) and len(self._part) >= limit):
                    await self._send()
                    limit = PART_SIZE

    async def _send(self) -> None:
        """Hand the collected part to the upload; waits while it has enough."""
        import asyncio

        if self._upload is None:
            self._parts = asyncio.Queue(maxsize=1)
            self._upload = asyncio.ensure_future(self._store.upload(self.path, self._source()))
        part, self._part = bytes(self._part), bytearray()
        await self._hand_over(part)

    async def _hand_over(self, part: bytes | None) -> None:
        import asyncio

        assert self._parts is not None
        assert self._upload is not None
        putting = asyncio.ensure_future(self._parts.put(part))
        try:
            await asyncio.wait([putting, self._upload], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not putting.done():
                await cancel_and_wait([putting])
        if self._upload.done():
            self._open = False
            self._upload.result()  # raises why it ended early

    async def _source(self) -> AsyncIterator[bytes]:
        assert self._parts is not None
        while True:
            part = await self._parts.get()
            if self._given_up:
                raise _GivenUp
            if part is None:
                return
            yield part

    async def finish(self) -> None:
        self._check_open()
        started = perf_counter()
        if self._upload is None:
            self._open = False
            await self._store.put(self.path, self._part)
        else:
            if self._part:
                await self._send()
            self._open = False
            assert self._parts is not None
            await self._parts.put(None)
            await self._upload
            self._store.note("put", self.path, 0, self._position, started)
        self._part = bytearray()

    async def abort(self) -> None:
        self._part = bytearray()
        if not self._open and (self._upload is None or self._upload.done()):
            return
        self._open = False
        if self._upload is None or self._parts is None:
            return
        self._given_up = True
        while not self._parts.empty():
            self._parts.get_nowait()
        self._parts.put_nowait(None)
        try:
            await self._upload
        except (_GivenUp, StoreError):
            pass
