"""Stores on the other side of a network.

A `RemoteStore` is a folder of a bucket.  Its requests are planned and scheduled like those of any store
(`pilum.io.store`), and made by a `Client`; here they are repeated when they fail (`pilum.io.retry`), resumed where
a body broke off, and bounded: all stores of one bucket share a `Bucket`, which knows how many requests are worth
having in flight and whether the bucket keeps its word about conditional puts.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from pilum import config
from pilum.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    PilumError,
    StoreError,
    UnsupportedError,
)
from pilum.io.buffers import Bytes, allocate
from pilum.io.burst import Part, fetch_parts
from pilum.io.cached import CacheSettings
from pilum.io.client import Client, Entries, Entry
from pilum.io.limits import AdaptiveLimit, FixedLimit
from pilum.io.retry import Failure, Health, Kind, RetryPolicy, retrying
from pilum.io.runtime import cancel_and_wait
from pilum.io.scheduler import RequestScheduler
from pilum.io.store import Infos, Names, ObjectInfo, ObjectWriter, Pieces, Store, Wanted
from pilum.io.tracing import EXCHANGE, TRACE, Exchange, Request, exchange, note_first_byte
from pilum.io.upload import PART_SIZE, RemoteWriter

if TYPE_CHECKING:
    import asyncio

    from pilum.io.dynamodb import VersionItems

__all__ = ["Bucket", "RemoteStore"]

T = TypeVar("T")

# A larger answer is read in pieces, so that what broke off can be resumed.
_PIECEWISE = 512 << 10
_DELETE_AT_ONCE = 1000


class Bucket:
    """What all stores of one bucket share.

    Args:
        client: makes requests.
        policy: how they are retried.
        parallelism: requests in flight at most; None: adaptive.
        cache: where the options want immutable files to be kept; for those who open stores (`pilum.io.cached`).

    Attributes:
        retries: requests that were made again.
    """

    def __init__(
        self,
        client: Client,
        policy: RetryPolicy | None = None,
        parallelism: int | None = None,
        cache: CacheSettings | None = None,
    ) -> None:
        self.client = client
        self.cache = cache
        self.policy = policy or RetryPolicy()
        fixed = config.io_parallelism(0) or parallelism
        self.limit: AdaptiveLimit | FixedLimit = FixedLimit(fixed) if fixed else AdaptiveLimit()
        self.scheduler = RequestScheduler(self.limit)
        self.health = Health()
        self.retries = 0
        self.in_flight = 0
        # Whether a put only if absent is refused when the object is there; None: not known yet.
        self.honours_absence: bool | None = None
        self.tidying: asyncio.Future[None] | None = None

    def note(self, failure: Failure) -> bool:
        """A request failed; whether that was remedied."""
        self.limit.answered(self.in_flight, throttled=failure.kind is Kind.THROTTLED)
        if failure.kind in (Kind.THROTTLED, Kind.BROKEN):
            self.retries += 1
            current = EXCHANGE.get()
            if current is not None:
                current.retries += 1
        return failure.kind is Kind.DENIED and self.client.renew()

    async def tidied(self) -> None:
        """Wait until nothing is left of the self-test."""
        import asyncio

        task, self.tidying = self.tidying, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await task

    async def request(
        self,
        what: str,
        attempt: Callable[[], Awaitable[T]],
        progress: Callable[[], int] | None = None,
        begun: float | None = None,
    ) -> T:
        """Make a request, as often as it takes; arguments as `retrying`."""

        async def once() -> T:
            self.in_flight += 1
            try:
                result = await attempt()
                self.limit.answered(self.in_flight, throttled=False)
                return result
            finally:
                self.in_flight -= 1

        return await retrying(
            what, once, self.policy, self.client.explain, self.note, progress, self.health, begun
        )


class RemoteStore(Store):
    """A folder of a bucket.

    Args:
        uri: address of the folder.
        bucket: the bucket.
        prefix: the folder's key, without slashes at either end; ``""`` is the whole bucket.
        reopen: a function and its arguments that make this store again, in another process too.
        elsewhere: opens another address with the options of this store.
        query: what follows the folder in its address, with the question mark.
        external: see `Store`.
    """

    suspends = True
    io_parallelism = 64
    block_size = 65_536

    def __init__(
        self,
        uri: str,
        bucket: Bucket,
        prefix: str,
        reopen: tuple[Any, ...],
        elsewhere: Callable[[str], Store] | None = None,
        query: str = "",
        external: VersionItems | None = None,
    ) -> None:
        super().__init__(uri.rstrip("/"))
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._reopen = reopen
        self._elsewhere = elsewhere
        self._scheduler = bucket.scheduler
        self._query = query
        self.external = external

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced(*self._reopen)

    def elsewhere(self, uri: str) -> Store:
        own = None if self.base_options is None else self.base_options.own(uri)
        if own is not None or self._elsewhere is None:
            return super().elsewhere(uri)
        return self._elsewhere(uri)

    def address(self, folder: str = "") -> str:
        return super().address(folder) + self._query

    def folder_at(self, address: str) -> str | None:
        return super().folder_at(address.removesuffix(self._query))

    def _key(self, path: str) -> str:
        """The key of a path.  Paths come from manifests: one that leads out of the folder is refused."""
        if ".." in path and ".." in path.split("/"):
            raise InvalidInputError(f"{path!r} leads out of the dataset {self.uri}")
        return self._prefix + path

    def _info(self, entry: Entry) -> ObjectInfo:
        return ObjectInfo(entry.key.removeprefix(self._prefix), entry.size, entry.modified)

    def note(
        self,
        kind: str,
        path: str,
        start: int,
        end: int,
        started: float,
        made: Exchange | None = None,
        who: str = "",
    ) -> None:
        """Record a request."""
        log = TRACE.get()
        if log is not None:
            first, retries = (None, 0) if made is None else (made.first_byte, made.retries)
            log.record(Request(path, start, end, started, perf_counter(), who, kind, first, retries))

    # -- reading ---------------------------------------------------------------------------------------

    async def _fetch(self, path: str, start: int, end: int | None) -> Any:
        key, client = self._key(path), self.bucket.client
        if end is None:
            return await self._hedged(f"{self.uri}/{path}", lambda: client.get_all(key))
        what = f"{self.uri}/{path}: bytes {start}..{end}"
        if end - start <= _PIECEWISE:
            return await self._hedged(what, lambda: client.get(key, start, end))
        download = _Download(client, key, start, end)
        return await self.bucket.request(what, download.attempt, lambda: download.done)

    async def _fetch_many(self, requests: Sequence[Wanted], who: str) -> Pieces:
        small = all(end - start <= _PIECEWISE for _, start, end in requests)
        if (
            len(requests) == 1
            or not small
            or self.bucket.policy.hedge_after is not None
            or TRACE.get() is not None
        ):
            return await super()._fetch_many(requests, who)
        parts = [Part(f"{self.uri}/{path}", self._key(path), start, end) for path, start, end in requests]
        return await fetch_parts(self.bucket, self.stats, parts)

    async def _hedged(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a request; if its answer is late and the policy says so, a second one, and take the first answer."""
        after = self.bucket.policy.hedge_after
        if after is None:
            return await self.bucket.request(what, attempt)
        import asyncio

        tasks = [asyncio.ensure_future(self.bucket.request(what, attempt))]
        try:
            done, _ = await asyncio.wait(tasks, timeout=after)
            if not done:
                tasks.append(asyncio.ensure_future(self.bucket.request(what, attempt)))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and task.exception() is None:
                    return task.result()
            await asyncio.wait(tasks)
            return await next((task for task in tasks if task.exception() is None), tasks[0])
        finally:
            await cancel_and_wait(tasks)

    async def get_tail(
        self, path: str, nbytes: int, *, size: int | None = None, who: str = ""
    ) -> tuple[Bytes, int]:
        if size is not None:
            return await super().get_tail(path, nbytes, size=size, who=who)
        key, started = self._key(path), perf_counter()
        try:
            with exchange(self.stats) as made:
                data, length = await self._scheduler.run(
                    nbytes,
                    lambda: self.bucket.request(
                        f"{self.uri}/{path}: the last {nbytes} bytes",
                        lambda: self.bucket.client.get_tail(key, nbytes),
                    ),
                )
        except UnsupportedError:
            return await super().get_tail(path, nbytes, size=None, who=who)
        found = self._as_bytes(data)
        if len(found) != min(nbytes, length):
            raise StoreError(
                f"{self.uri}/{path}: asked for the last {nbytes} of {length} bytes, got {len(found)}"
            )
        self.stats.note_read(len(found))
        self.note("get", path, length - len(found), length, started, made, who)
        return found, length

    async def head(self, path: str) -> ObjectInfo:
        key, started = self._key(path), perf_counter()
        what = f"{self.uri}/{path}"
        with exchange(self.stats) as made:
            found = await self._one(what, lambda: self.bucket.client.head(key))
        self.note("head", path, 0, 0, started, made)
        return self._info(found)._replace(path=path)

    async def modified(self, path: str) -> float | None:
        return (await self.head(path)).modified

    async def list(self, prefix: str) -> Infos:
        return sorted(await self._listed(prefix, self.bucket.client.list))

    async def list_names(self, folder: str) -> Names:
        below = len(folder.strip("/")) + 1 if folder.strip("/") else 0
        return [info.path[below:] for info in await self._listed(folder, self.bucket.client.list_folder)]

    async def first_names(self, folder: str) -> Names:
        if not self.bucket.client.ordered:
            return await self.list_names(folder)
        below = len(folder.strip("/")) + 1
        found = await self._listed(folder, self.bucket.client.first_page)
        return [info.path[below:] for info in found if "/" not in info.path[below:]]

    async def _listed(self, folder: str, ask: Callable[[str], Awaitable[Entries]]) -> Infos:
        folder, started = folder.strip("/"), perf_counter()
        prefix = self._key(f"{folder}/" if folder else "")
        with exchange(self.stats) as made:
            found = await self._one(f"{self.uri}/{folder}: listing", lambda: ask(prefix))
        self.note("list", folder, 0, 0, started, made)
        return [self._info(entry) for entry in found if entry.key.startswith(prefix)]

    async def _one(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        return await self._scheduler.run(0, lambda: self.bucket.request(what, attempt))

    @staticmethod
    def _as_bytes(data: Any) -> Bytes:
        import numpy as np

        found: Bytes = np.frombuffer(data, dtype=np.uint8)
        return found

    # -- writing ---------------------------------------------------------------------------------------

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        key, started = self._key(path), perf_counter()
        view = memoryview(data).cast("B")
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            await self.bucket.client.put(key, view, if_absent=if_absent)

        with exchange(self.stats) as made:
            try:
                await self._scheduler.run(
                    len(view), lambda: self.bucket.request(f"{self.uri}/{path}: put", attempt)
                )
            except AlreadyExistsError as error:
                if attempts == 1:
                    error.certain = not self.bucket.client.repeats
                    raise
                # The answer to an earlier attempt may have been lost after it had succeeded.
                held = await self._holds(path, view)
                if not held:
                    error.certain = held is not None
                    raise
        self.stats.note_write(len(view))
        self.note("put", path, 0, len(view), started, made)
        if if_absent:
            await self.bucket.tidied()

    async def _holds(self, path: str, data: memoryview) -> bool | None:
        """Whether an object has this content; None if it is gone."""
        try:
            return (await self.get_all(path, who="put")).tobytes() == bytes(data)
        except NotFoundError:
            return None

    async def delete(self, path: str) -> None:
        await self.delete_many([path])

    async def delete_many(self, paths: Sequence[str]) -> None:
        for at in range(0, len(paths), _DELETE_AT_ONCE):
            some, started = paths[at : at + _DELETE_AT_ONCE], perf_counter()
            keys = [self._key(path) for path in some]
            what = f"{self.uri}/{some[0]}: delete"
            with exchange(self.stats) as made:
                await self._one(what, lambda keys=keys: self.bucket.client.delete(keys))  # type: ignore[misc]
            for path in some:
                self.note("delete", path, 0, 0, started, made)

    async def create(self, path: str) -> ObjectWriter:
        self._key(path)
        return RemoteWriter(self, path)

    async def upload(self, path: str, parts: AsyncIterator[bytes]) -> None:
        """Write an object in parts."""
        key, started = self._key(path), monotonic()
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for part in parts:
                size += len(part)
                yield part

        try:
            await self.bucket.client.upload(key, counted(), PART_SIZE, config.upload_concurrency())
        except PilumError:
            raise
        except Exception as error:
            if type(error).__name__ == "_GivenUp":
                raise
            what = f"{self.uri}/{path}: upload"
            raise self.bucket.client.explain(error).error(what, 1, monotonic() - started) from error
        self.stats.note_write(size)

    async def check_put_if_absent(self) -> None:
        """Find out, once, whether this bucket refuses to put over an object that is there.

        Two conditional puts of one key are made at the same time; exactly one may succeed.

        Raises:
            UnsupportedError: both did, so that writers could overwrite each other's commits, or the store has
                no conditional puts at all.
        """
        if self.external is not None:
            return  # nothing depends on it
        bucket = self.bucket
        if bucket.honours_absence is None:
            bucket.honours_absence = await self._probe()
        if not bucket.honours_absence:
            raise UnsupportedError(
                f"{self.uri}: the store accepted two puts of one key that were each to succeed only if it was "
                "absent, so writers could overwrite each other's commits: pass a commit_lock that keeps them "
                "apart"
            )

    async def _probe(self) -> bool:
        import asyncio

        path = f"_transactions/.put-if-absent-{uuid.uuid4().hex}"
        key, client = self._key(path), self.bucket.client

        async def put(data: bytes) -> bool:
            try:
                await self._one(
                    f"{self.uri}/{path}: conditional put",
                    lambda: client.put(key, memoryview(data), if_absent=True),
                )
            except AlreadyExistsError:
                return False
            return True

        # Different contents: each can be told from the other's, also when an answer was lost.
        try:
            won = await asyncio.gather(put(b"a"), put(b"b"))
            return not all(won)
        finally:
            # Nobody waits for that but the first commit, when it is done (`put`).
            self.bucket.tidying = asyncio.ensure_future(self._forget(path))

    async def _forget(self, path: str) -> None:
        try:
            await self.delete(path)
        except (PilumError, OSError):
            pass


class _Download:
    """Bytes of an object, resumed where they broke off."""

    def __init__(self, client: Client, key: str, start: int, end: int) -> None:
        self._client = client
        self._key = key
        self._start = start
        self._end = end
        self._etag: str | None = None
        self._buffer: Bytes | None = None
        self.done = 0

    async def attempt(self) -> Bytes:
        at = self._start + self.done
        opened = await self._client.open(self._key, at, self._end, self._etag if self.done else None)
        if self._etag is not None and opened.etag != self._etag:
            self.done = 0  # another object lies there now
            self._etag = None
            raise ConnectionError("the object changed while it was read")
        self._etag = opened.etag
        if self._buffer is None:
            # Sizes in files are not to be trusted: memory only for bytes that are there.
            self._buffer = allocate(max(0, min(self._end, opened.size) - self._start))
        buffer = self._buffer
        async for chunk in opened.chunks:
            note_first_byte()
            size = len(chunk)
            if self.done + size > len(buffer):
                raise ConnectionError("the answer is longer than the range asked for")
            buffer[self.done : self.done + size] = memoryview(chunk)
            self.done += size
        if self.done < len(buffer):
            raise ConnectionError(f"the answer ended after {self.done} of {len(buffer)} bytes")
        return buffer
