"""Objects that need not be complete before work goes on.

A writer of several files, or of one whose commit has more to prepare, would wait a round trip for each file to be
complete.  Where that takes a network, `PostponingStore` begins to complete a file and goes on; `settle` waits for
all of them, and must be awaited before anything refers to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pilum.io.runtime import cancel_and_wait
from pilum.io.store import ObjectWriter, Store

if TYPE_CHECKING:
    import asyncio

__all__ = ["PostponingStore"]

# Files being completed at once; each holds a part or two in memory.
_AT_ONCE = 4


class PostponingStore(Store):
    """A store to write into whose objects are complete after `settle`.

    Args:
        store: where they go; where it never suspends, nothing is postponed.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.uri)
        self._store = store
        self.suspends = store.suspends
        self.stats = store.stats
        self._tasks: list[asyncio.Future[None]] = []

    async def create(self, path: str) -> ObjectWriter:
        writer = await self._store.create(path)
        return _Postponed(self, writer) if self.suspends else writer

    async def delete(self, path: str) -> None:
        await self._store.delete(path)

    async def finish(self, writer: ObjectWriter) -> None:
        """Begin to complete an object; waits while enough others are being completed."""
        import asyncio

        running = [task for task in self._tasks if not task.done()]
        if len(running) >= _AT_ONCE:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                task.result()
        self._tasks.append(asyncio.ensure_future(writer.finish()))

    async def settle(self) -> None:
        """Wait until all objects are complete.

        Raises:
            StoreError: one of them could not be written.
        """
        try:
            for task in self._tasks:
                await task
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End what has not ended yet."""
        tasks, self._tasks = self._tasks, []
        if tasks:
            await cancel_and_wait(tasks)


class _Postponed(ObjectWriter):
    def __init__(self, store: PostponingStore, writer: ObjectWriter) -> None:
        self.path = writer.path
        self._store = store
        self._writer = writer

    @property
    def position(self) -> int:
        return self._writer.position

    async def write(self, buffers: Sequence[Any]) -> None:
        await self._writer.write(buffers)

    async def finish(self) -> None:
        await self._store.finish(self._writer)

    async def abort(self) -> None:
        await self._writer.abort()
