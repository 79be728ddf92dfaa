"""What a store of objects is: keys to bytes, read by ranges.

`Store` is the contract and, for stores that suspend, the machinery: planning, scheduling, counting and
tracing around one method, `_fetch`, that asks the network.  `LocalStore` and `MemoryStore` never suspend and
answer everything themselves.  Keys are ``/``-separated paths relative to the root of the store, which is the
folder of a dataset.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pilum import config
from pilum.errors import NotFoundError, StoreError
from pilum.io.buffers import EMPTY, Bytes, Stack
from pilum.io.ranges import Range, assemble, check_range, plan_requests
from pilum.io.runtime import cancel_and_wait
from pilum.io.scheduler import RequestScheduler
from pilum.io.stats import IoStats
from pilum.io.tracing import TRACE, Request, exchange

if TYPE_CHECKING:
    from pilum.io.base_options import BaseOptions
    from pilum.io.dynamodb import VersionItems

__all__ = ["Infos", "Names", "ObjectInfo", "ObjectWriter", "Pieces", "Store", "Wanted", "together"]

T = TypeVar("T")


class ObjectInfo(NamedTuple):
    """An object in a store.

    Attributes:
        path: its key.
        size: bytes.
        modified: when it was written, seconds since the epoch, where that comes with the answer.
    """

    path: str
    size: int
    modified: float | None = None


# Inside a store `list` is its method.
Infos: TypeAlias = list[ObjectInfo]
Leftovers = list[tuple[ObjectInfo, float]]
Names: TypeAlias = list[str]
Pieces: TypeAlias = list[Bytes]
Wanted: TypeAlias = tuple[str, int, int]


class ObjectWriter:
    """Writes one object front to back.  Nothing is visible under its key before `finish`."""

    path: str

    @property
    def position(self) -> int:
        """Bytes written so far."""
        raise NotImplementedError

    async def write(self, buffers: Sequence[Any]) -> None:
        """Append buffers: anything with the buffer protocol, contiguous."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Make the object durable, then visible."""
        raise NotImplementedError

    async def abort(self) -> None:
        """Leave no trace; does nothing after `finish`."""
        raise NotImplementedError


class Store:
    """Keys to bytes.

    A subclass that suspends implements `_fetch`, `head`, `list`, `put`, `delete` and `create`; it counts its
    writes with `stats.note_write`.

    Attributes:
        uri: address; equal addresses name the same objects.
        suspends: whether a call may wait for the network; if not, coroutines may be driven without a loop.
        io_parallelism: requests worth having in flight.
        block_size: bytes up to which reading along is cheaper than another request.
        lists: whether listings can be relied on; web servers may have none.
        stats: counters of this store object.
        external: where the owners of versions are written down, if that is not the store itself.
        base_options: how other places are opened, if it was said.
    """

    suspends: bool = True
    lists: bool = True
    external: VersionItems | None = None
    base_options: BaseOptions | None = None
    io_parallelism: int = 64
    block_size: int = 65_536

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.stats = IoStats()
        self.io_parallelism = config.io_parallelism(type(self).io_parallelism)
        self._scheduler = RequestScheduler(self.io_parallelism)

    def take_after(self, other: Store) -> None:
        """Be like the store that makes the requests of this one."""
        self.suspends, self.lists, self.stats = other.suspends, other.lists, other.stats
        self.io_parallelism, self.block_size = other.io_parallelism, other.block_size

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    def address(self, folder: str = "") -> str:
        """Address at which this store, or a folder of it, can be opened again."""
        return f"{self.uri}/{folder}" if folder else self.uri

    def folder_at(self, address: str) -> str | None:
        """The folder of this store that an address names, ``""`` for the store itself; None for what is elsewhere."""
        if address == self.uri:
            return ""
        return address[len(self.uri) + 1 :] if address.startswith(self.uri + "/") else None

    # -- reading ---------------------------------------------------------------------------------------

    async def get(self, path: str, start: int, end: int, *, who: str = "") -> Bytes:
        """Bytes ``[start, end)`` of an object.

        Args:
            path: key.
            start, end: byte range; an empty one makes no request.
            who: what the bytes are for; appears in traces.

        Raises:
            NotFoundError: there is no such object.
            StoreError: the object ends before the range does, or the store failed.
        """
        check_range(path, start, end)
        if start == end:
            return EMPTY
        return await self._request(path, start, end, who)

    async def get_ranges(self, path: str, ranges: Sequence[Range], *, who: str = "") -> Pieces:
        """Several ranges of an object, in the order given.

        Ranges that lie close together are fetched in one request, long ones in several; an answer that lies
        in one piece of memory is a view.  Arguments and errors as for `get`.
        """
        if len(ranges) == 1:
            start, end = ranges[0]
            return [await self.get(path, start, end, who=who)]
        requests = self.planned(ranges)
        buffers = await self._fetch_many([(path, start, end) for start, end in requests], who)
        return assemble(ranges, requests, buffers)

    async def get_joined(self, path: str, spans: npt.NDArray[np.int64], *, who: str = "") -> Bytes:
        """Several ranges of an object back to back.

        Args:
            path: the object's key.
            spans: begin and end of each range, a row each, at least one: ascending, none empty, more than `block_size`
                bytes apart.
            who: what the bytes are for.
        """
        found = self.joined_now(path, spans, int((spans[:, 1] - spans[:, 0]).sum()))
        if found is not None:
            return found
        pieces = await self.get_ranges(path, [(start, end) for start, end in spans.tolist()], who=who)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def joined_now(self, path: str, spans: npt.NDArray[np.int64], total: int) -> Bytes | None:
        """`get_joined` of ``total`` bytes where it is quick and waits for nothing; None if it is to be awaited.

        Raises:
            StoreError: there is no such object, or it cannot be read.
        """
        return None

    def planned(self, ranges: Sequence[Range]) -> list[Range]:
        """The requests that `get_ranges` makes.  Pure."""
        return plan_requests(ranges, gap=self.block_size, max_size=config.max_request_size())

    async def get_many(self, requests: Sequence[Wanted], *, who: str = "") -> Pieces:
        """One range of each of several objects, in the order given; errors as for `get`.

        Args:
            requests: (path, start, end) of each.
            who: what the bytes are for.
        """
        if not self.suspends:
            return [await self.get(path, start, end, who=who) for path, start, end in requests]
        for request in requests:
            check_range(*request)
        wanted = [request for request in requests if request[1] < request[2]]
        fetched = await self._fetch_many(wanted, who)
        if len(wanted) == len(requests):
            return fetched
        found = iter(fetched)
        return [next(found) if start < end else EMPTY for _, start, end in requests]

    async def get_stack(self, paths: Sequence[str], start: int, end: int, *, who: str = "") -> Stack:
        """The same bytes ``[start, end)`` of each of several objects, in one piece of memory; errors as for `get`.

        Args:
            paths: keys, at least one.
            start, end: byte range, not empty.
            who: what the bytes are for.
        """
        return Stack.of(await self.get_many([(path, start, end) for path in paths], who=who))

    async def get_all(self, path: str, *, who: str = "") -> Bytes:
        """A whole object."""
        return await self._request(path, 0, None, who)

    async def get_tail(
        self, path: str, nbytes: int, *, size: int | None = None, who: str = ""
    ) -> tuple[Bytes, int]:
        """The last ``nbytes`` bytes of an object (all of it when it is shorter) and its size.

        Args:
            path: key.
            nbytes: bytes wanted.
            size: size of the object when it is known.
            who: what the bytes are for.

        Raises:
            StoreError: the object is shorter than ``size``.
        """
        if size is None:
            size = (await self.head(path)).size
        return await self.get(path, max(0, size - nbytes), size, who=who), size

    async def head(self, path: str) -> ObjectInfo:
        """Size of an object."""
        raise NotImplementedError

    async def modified(self, path: str) -> float | None:
        """When an object was written, seconds since the epoch; None where the store does not know.

        Raises:
            NotFoundError: there is no such object.
        """
        return None

    async def list(self, prefix: str) -> Infos:
        """All objects below a folder (``""``: all), at any depth, sorted by path; none when it is missing."""
        raise NotImplementedError

    async def list_names(self, folder: str) -> Names:
        """Names of the objects directly in a folder, in any order; none when it is missing.

        Where a listing has no sizes (a local folder) this is ten times faster than `list`.
        """
        below = folder.rstrip("/") + "/"
        rests = [info.path[len(below) :] for info in await self.list(folder)]
        return [rest for rest in rests if "/" not in rest]

    async def first_names(self, folder: str) -> Names:
        """The first names of a folder in the order of their bytes, or all of them.

        Stores that list a folder in that order and in pages ask for one page.  Whoever calls must know from the
        names whether what was looked for is among them.
        """
        return await self.list_names(folder)

    def elsewhere(self, uri: str) -> Store:
        """The store at another address, opened with the options that were given for it, or with those of this one
        where they are of one kind.
        """
        from pilum.io.locate import store_for

        if self.base_options is None:
            return store_for(uri)
        return store_for(uri, self.base_options.own(uri) or self.base_options.inherited())

    def learn_base_options(self, by_address: Mapping[str, Mapping[str, Any]] | None) -> None:
        """Options of other places, by their address, that `elsewhere` is to use from now on."""
        if by_address:
            from pilum.io.base_options import BaseOptions

            if self.base_options is None:
                self.base_options = BaseOptions(None, None)
            self.base_options.learn(by_address)

    def _reduced(self, *how: Any) -> tuple[Any, ...]:
        """How to make this store again: a function, its arguments, and what was set later."""
        # The second of the two states is set by attribute: a cache around a store hands it on.
        return (*how, None if self.base_options is None else (None, {"base_options": self.base_options}))

    async def leftovers(self, folder: str) -> Leftovers:
        """Files below a folder that were never finished and that listings hide; with the time of their last
        change, seconds since the epoch.  A store on which objects appear whole has none.
        """
        return []

    async def _fetch(self, path: str, start: int, end: int | None) -> Any:
        """Make one request: bytes ``[start, end)``, or up to the end when ``end`` is None."""
        raise NotImplementedError

    async def _fetch_many(self, requests: Sequence[Wanted], who: str) -> Pieces:
        """Make several requests at once, none of them empty."""
        return await together([self._request(path, start, end, who) for path, start, end in requests])

    async def _request(self, path: str, start: int, end: int | None, who: str) -> Bytes:
        """One request: scheduled, checked, counted and traced."""
        asked = 0 if end is None else end - start
        log = TRACE.get()
        started = perf_counter()
        with exchange(self.stats) as found:
            answer = await self._scheduler.run(asked, lambda: self._fetch(path, start, end))
        data: Bytes = np.frombuffer(answer, dtype=np.uint8)
        if end is not None and len(data) != asked:
            raise StoreError(
                f"{self.uri}/{path}: asked for bytes {start}..{end}, got {len(data)} of {asked} bytes"
            )
        self.stats.note_read(len(data))
        if log is not None:
            end, now = start + len(data), perf_counter()
            log.record(Request(path, start, end, started, now, who, "get", found.first_byte, found.retries))
        return data

    # -- writing ---------------------------------------------------------------------------------------

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        """Write a whole object, atomically and durably: readers see all of it or nothing.

        Args:
            path: key.
            data: bytes-like.
            if_absent: only when there is no such object; of several writers exactly one succeeds.

        Raises:
            AlreadyExistsError: ``if_absent`` and the object exists.
            StoreError: the store failed.
        """
        raise NotImplementedError

    async def put_new(self, path: str, data: Any) -> None:
        """`put` under a name that nobody knows yet; should the writer be killed, part of it may remain."""
        await self.put(path, data)

    async def put_unsynced(self, path: str, data: Any) -> None:
        """`put_new` of what may be lost, or be cut short, when the machine loses power."""
        await self.put(path, data)

    async def delete(self, path: str) -> None:
        """Remove an object.

        Raises:
            NotFoundError: there is none (object stores in the cloud may not notice).
        """
        raise NotImplementedError

    async def delete_many(self, paths: Sequence[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        for path in paths:
            try:
                await self.delete(path)
            except NotFoundError:
                continue

    async def check_put_if_absent(self) -> None:
        """Find out whether `put` with ``if_absent`` can be trusted; stores of this process and machine can.

        Raises:
            UnsupportedError: it has no conditional puts, or does not do what it says.
        """

    async def create(self, path: str) -> ObjectWriter:
        """Begin to write an object front to back."""
        raise NotImplementedError


async def together(requests: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all at once; at the first failure the others are cancelled and have ended when it is raised."""
    if len(requests) == 1:
        return [await requests[0]]
    import asyncio

    tasks = [asyncio.ensure_future(request) for request in requests]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return [task.result() for task in tasks]
    finally:
        await cancel_and_wait(tasks)
