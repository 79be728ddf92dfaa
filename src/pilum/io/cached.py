"""A store whose immutable files are kept on a local disk (`pilum.io.disk_cache`).

```
CachedStore         reads of data, deletion and index files: what the disk has is not asked for
  DiskCache         byte ranges in files, checksummed, bounded
  inner             the store behind the network: everything else, and what is missing
```

Only files whose names say that they will never change are kept: those of data files, deletion files and indices hold
a random number of 64 bits or more, and writers never write one twice (spec/table.md, section 2).  So nothing has to be
asked of the store to know that a kept range is good, a table that was dropped and made anew has other files, and
writers that commit meanwhile do no harm.  Listings, manifests, version hints, transactions, tags, and files with
names that people gave them, go to the store each time.

What is kept is what was fetched, range for range: the first reading makes the same requests as without a cache.  The
disk is read and written on the threads of the runtime, never on the loop; a read returns when what it fetched is
kept, so no task outlives it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from pilum.io.base_options import BaseOptions
from pilum.io.buffers import EMPTY, Bytes
from pilum.io.disk_cache import DiskCache, Found, disk_cache
from pilum.io.ranges import Range, assemble, check_range
from pilum.io.runtime import current_runtime
from pilum.io.store import Infos, Leftovers, Names, ObjectInfo, ObjectWriter, Pieces, Store, Wanted, together
from pilum.io.tracing import TRACE, Request

__all__ = ["CacheSettings", "CachedStore", "is_immutable", "with_cache"]

R = TypeVar("R")

# Data files are named by 24 binary and 26 hexadecimal digits, by old releases by a UUID.
_IMMUTABLE = re.compile(
    r"(?:^|/)(?:"
    r"(?:[01]{24}[0-9a-f]{26}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})\.lance$"
    r"|_deletions/\d+-\d+-\d{10,20}\.(?:arrow|bin)$"
    r"|_indices/[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}/."
    r")"
).search


class CacheSettings(NamedTuple):
    """Where to keep what was read.

    Attributes:
        directory: folder of this machine.
        capacity: bytes to hold at most.
    """

    directory: str
    capacity: int


def is_immutable(path: str) -> bool:
    """Whether the name of a file says that its content never changes."""
    return _IMMUTABLE(path) is not None


def with_cache(store: Store, settings: CacheSettings | None) -> Store:
    """The store with a cache, if one is wanted and the store is behind a network and has none."""
    if settings is None or not store.suspends or isinstance(store, CachedStore):
        return store
    return CachedStore(store, settings)


class CachedStore(Store):
    """The objects of another store, its immutable ones through a cache on disk.

    Args:
        inner: the store.
        settings: of the cache.

    Attributes:
        disk: the cache.
        stats: the counters of the inner store: its requests, and what the cache spared.
    """

    def __init__(self, inner: Store, settings: CacheSettings) -> None:
        super().__init__(inner.uri)
        self.inner = inner
        self.disk: DiskCache = disk_cache(*settings)
        self._settings = settings
        self.take_after(inner)
        self.external = inner.external

    @property
    def base_options(self) -> BaseOptions | None:
        """Those of the inner store, which opens the other places."""
        return self.inner.base_options

    @base_options.setter
    def base_options(self, options: BaseOptions | None) -> None:
        self.inner.base_options = options

    def __reduce__(self) -> tuple[Any, ...]:
        return with_cache, (self.inner, self._settings)

    def address(self, folder: str = "") -> str:
        return self.inner.address(folder)

    def folder_at(self, address: str) -> str | None:
        return self.inner.folder_at(address)

    def _address(self, path: str) -> str:
        return f"{self.uri}/{path}"

    @staticmethod
    async def _blocking(fn: Callable[..., R], *args: Any) -> R:
        return await current_runtime().offload(fn, *args)

    # -- reading ---------------------------------------------------------------------------------------

    async def get(self, path: str, start: int, end: int, *, who: str = "") -> Bytes:
        check_range(path, start, end)
        if start == end:
            return EMPTY
        if not is_immutable(path):
            return await self.inner.get(path, start, end, who=who)
        return (await self._ranges(path, [(start, end)], who))[0]

    async def get_ranges(self, path: str, ranges: Sequence[Range], *, who: str = "") -> Pieces:
        if not is_immutable(path):
            return await self.inner.get_ranges(path, ranges, who=who)
        return await self._ranges(path, ranges, who)

    async def _ranges(self, path: str, ranges: Sequence[Range], who: str) -> Pieces:
        started = perf_counter()
        found = await self._blocking(self.disk.read, self._address(path), ranges)
        self._note(path, found, started, who)
        return await self._completed(path, ranges, found, who)

    async def get_many(self, requests: Sequence[Wanted], *, who: str = "") -> Pieces:
        if not any(is_immutable(path) for path, _, _ in requests):
            return await self.inner.get_many(requests, who=who)
        for request in requests:
            check_range(*request)
        started = perf_counter()
        asked = [
            (self._address(path), [(start, end)]) if is_immutable(path) else ("", ())
            for path, start, end in requests
        ]
        found = await self._blocking(self.disk.read_many, asked)
        for (path, _, _), one in zip(requests, found, strict=True):
            self._note(path, one, started, who)

        async def complete(request: Wanted, one: Found) -> Bytes:
            path, start, end = request
            if not is_immutable(path):
                return await self.inner.get(path, start, end, who=who)
            return (await self._completed(path, [(start, end)], one, who))[0]

        results: list[Any] = [None] * len(requests)
        waiting = []
        for position, (request, one) in enumerate(zip(requests, found, strict=True)):
            if one.missing or not is_immutable(request[0]):
                waiting.append((position, complete(request, one)))
            else:
                results[position] = await complete(request, one)
        fetched = await together([one for _, one in waiting])
        for (position, _), data in zip(waiting, fetched, strict=True):
            results[position] = data
        return results

    async def _completed(self, path: str, ranges: Sequence[Range], found: Found, who: str) -> Pieces:
        """The bytes of some ranges; what the disk does not have is fetched and kept."""
        if not found.missing:
            return assemble(ranges, found.pieces, found.buffers)
        requests = found.missing if len(found.missing) == 1 else self.inner.planned(found.missing)
        fetched = await together([self.inner.get(path, start, end, who=who) for start, end in requests])
        kept = [(start, data) for (start, _), data in zip(requests, fetched, strict=True)]
        await self._blocking(self.disk.write, self._address(path), kept)
        return assemble(ranges, *_joined(found, requests, fetched))

    async def get_all(self, path: str, *, who: str = "") -> Bytes:
        if not is_immutable(path):
            return await self.inner.get_all(path, who=who)
        held = await self._held_tail(path, None, who)
        if held is not None:
            return held[0]
        data = await self.inner.get_all(path, who=who)
        await self._blocking(self.disk.write, self._address(path), [(0, data)], len(data))
        return data

    async def get_tail(
        self, path: str, nbytes: int, *, size: int | None = None, who: str = ""
    ) -> tuple[Bytes, int]:
        if not is_immutable(path):
            return await self.inner.get_tail(path, nbytes, size=size, who=who)
        if size is not None:
            return await super().get_tail(path, nbytes, size=size, who=who)
        held = await self._held_tail(path, nbytes, who)
        if held is not None:
            return held
        data, size = await self.inner.get_tail(path, nbytes, who=who)
        await self._blocking(self.disk.write, self._address(path), [(size - len(data), data)], size)
        return data, size

    async def _held_tail(self, path: str, nbytes: int | None, who: str) -> tuple[Bytes, int] | None:
        started = perf_counter()
        held = await self._blocking(self.disk.read_tail, self._address(path), nbytes)
        if held is not None:
            data, size = held
            self._note(path, Found([(size - len(data), size)], [data], []), started, who)
        return held

    def _note(self, path: str, found: Found, started: float, who: str) -> None:
        """Count and trace what the cache had."""
        log = TRACE.get()
        now = perf_counter()
        for start, end in found.pieces:
            self.stats.note_cached(end - start)
            if log is not None:
                log.record(Request(path, start, end, started, now, who, "cache"))

    def planned(self, ranges: Sequence[Range]) -> list[Range]:
        return self.inner.planned(ranges)

    async def head(self, path: str) -> ObjectInfo:
        return await self.inner.head(path)

    async def modified(self, path: str) -> float | None:
        return await self.inner.modified(path)

    async def list(self, prefix: str) -> Infos:
        return await self.inner.list(prefix)

    async def list_names(self, folder: str) -> Names:
        return await self.inner.list_names(folder)

    async def first_names(self, folder: str) -> Names:
        return await self.inner.first_names(folder)

    def elsewhere(self, uri: str) -> Store:
        return with_cache(self.inner.elsewhere(uri), self._settings)

    async def leftovers(self, folder: str) -> Leftovers:
        return await self.inner.leftovers(folder)

    # -- writing ---------------------------------------------------------------------------------------
    # Nobody writes an immutable file twice; should somebody do, this process does not go on with the old one.

    async def _forget(self, paths: Sequence[str]) -> None:
        addresses = [self._address(path) for path in paths if is_immutable(path)]
        if addresses:
            await self._blocking(self.disk.forget, addresses)

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        await self._forget([path])
        await self.inner.put(path, data, if_absent=if_absent)

    async def delete(self, path: str) -> None:
        await self._forget([path])
        await self.inner.delete(path)

    async def delete_many(self, paths: Sequence[str]) -> None:
        await self._forget(paths)
        await self.inner.delete_many(paths)

    async def check_put_if_absent(self) -> None:
        await self.inner.check_put_if_absent()

    async def create(self, path: str) -> ObjectWriter:
        await self._forget([path])
        return await self.inner.create(path)


def _joined(
    found: Found, requests: Sequence[Range], fetched: Sequence[Bytes]
) -> tuple[list[Range], list[Bytes]]:
    """Pieces of the disk and of the network, disjoint and ascending.  Pure.

    A request that joined two gaps brought what lay between them, too.
    """
    starts = [start for start, _ in requests]
    pieces: list[tuple[Range, Bytes]] = list(zip(requests, fetched, strict=True))
    for piece, data in zip(found.pieces, found.buffers, strict=True):
        before = bisect_right(starts, piece[0]) - 1
        if before < 0 or requests[before][1] <= piece[0]:
            pieces.append((piece, data))
    pieces.sort(key=lambda one: one[0])
    return [one for one, _ in pieces], [data for _, data in pieces]
