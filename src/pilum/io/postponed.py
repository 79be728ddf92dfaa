"""Objects that need not be complete before work goes on.

A writer of several files, or of one whose commit has more to prepare, would wait a round trip for each file to be
complete, or for the disk.  Over a network `PostponingStore` begins to complete a file and goes on; `settle` waits for
all of them, and must be awaited before anything refers to them.  On a local disk the files are there at once, and
synced together with what refers to them, by `put_last`.  Objects of one commit may lie in several stores: the others
are `beside` the one that gets the last object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pilum.io import durable
from pilum.io.local import LocalStore
from pilum.io.runtime import cancel_and_wait
from pilum.io.store import ObjectWriter, Store

if TYPE_CHECKING:
    import asyncio

__all__ = ["PostponingStore"]

# Files being completed at once; each holds a part or two in memory.
_AT_ONCE = 4


class PostponingStore(Store):
    """A store to write into whose objects are complete after `settle`, and durable after `put_last`.

    Args:
        store: where they go; in memory nothing is postponed.
        syncs: what a local store leaves its files to; its own by default.
    """

    def __init__(self, store: Store, syncs: durable.Syncs | None = None) -> None:
        # Not `Store.__init__`, which makes what is needed for requests.
        self.uri = store.uri
        self.take_after(store)
        self._store = store
        self._tasks: list[asyncio.Future[None]] = []
        self._syncs = (syncs or durable.Syncs()) if isinstance(store, LocalStore) else None
        self._beside: list[PostponingStore] = []

    def beside(self, store: Store) -> Store:
        """Another store, whose objects are complete after `settle` of this one, and durable after its `put_last`."""
        if isinstance(store, LocalStore):
            # Without a file that they could be synced with, they are synced one by one.
            return store if self._syncs is None else PostponingStore(store, self._syncs)
        if not store.suspends:
            return store
        other = PostponingStore(store)
        self._beside.append(other)
        return other

    async def create(self, path: str) -> ObjectWriter:
        if self._syncs is not None:
            assert isinstance(self._store, LocalStore)
            return await self._store.create(path, self._syncs)
        writer = await self._store.create(path)
        return _Postponed(self, writer) if self.suspends else writer

    async def put_new(self, path: str, data: Any) -> None:
        writer = await self.create(path)
        try:
            await writer.write([data])
            await writer.finish()
        except BaseException:
            await writer.abort()
            raise

    async def put_last(self, path: str, data: Any) -> None:
        """Put what refers to the objects, only if it is absent, once they are complete.

        Raises:
            AlreadyExistsError: it exists.
            StoreError: it, or one of them, could not be written.
        """
        await self.settle()
        if self._syncs is not None:
            assert isinstance(self._store, LocalStore)
            await self._store.put_after(path, data, self._syncs)
        else:
            await self._store.put(path, data, if_absent=True)

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
        """Wait until all objects are complete; on a local disk they are.

        Raises:
            StoreError: one of them could not be written.
        """
        try:
            for task in self._tasks:
                await task
            for other in self._beside:
                await other.settle()
        finally:
            await self._end_tasks()

    async def stop(self) -> None:
        """End what has not ended yet."""
        if self._syncs is not None:
            self._syncs.close()
        await self._end_tasks()
        for other in self._beside:
            await other.stop()

    async def _end_tasks(self) -> None:
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
