"""Requests through obstore: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure, HTTP.

obstore's own retries are switched off, because ours know how far a body has come; only the parts of an upload,
which nobody sees from here, are retried by obstore (`ObstoreClient.upload`).  Its exceptions tell what happened in
their text alone, which `explain` reads.

obstore works on threads of its own, which a child of ``fork()`` does not have: a request there would wait for ever,
and is refused instead.  They need the interpreter for a moment after an answer has been handed over.  One that asks
for it while the interpreter ends aborts the process (one in a hundred that ended right after a request), so the end
waits for them.
"""

from __future__ import annotations

import atexit
import re
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pilum import imports
from pilum.errors import StoreError
from pilum.io.client import Entries, Entry, Opened
from pilum.io.driver import stop_at_exit
from pilum.io.forking import generation
from pilum.io.retry import Failure, Kind
from pilum.io.tracing import EXCHANGE, note_first_byte

if TYPE_CHECKING:
    import asyncio

__all__ = ["ObstoreClient", "load_obstore"]

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
# Parts of signed addresses are as good as a password.
_SECRET = re.compile(r"(?i)([?&](?:sig|signature|x-amz-signature|x-amz-security-token|token)=)[^&\s]+")
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_THROTTLED = frozenset({"SlowDown", "Throttling", "ThrottlingException", "ServerBusy", "TooManyRequests"})
# Timeouts, refused and lost connections, broken bodies.
_NETWORK = re.compile(
    r"(?<!Generic )HTTP error|kind: (?:Connect|Timeout|Interrupted|Request|Decode)|Connection|connection|timed out|Interrupted"
)
_REFUSED_SCHEME = re.compile(r"URL scheme is not allowed|BadScheme")
_CHUNK = 256 << 10

_started: int | None = None  # how many forks ago obstore was first used in this line of processes


# What its threads need after the last answer, many times over.
_GRACE = 0.05


@atexit.register
def _let_threads_finish() -> None:
    if _started == generation():
        stop_at_exit()
        time.sleep(_GRACE)


def load_obstore() -> Any:
    """The library.

    Raises:
        StoreError: it is not installed.
    """
    try:
        return imports.load("obstore")
    except ImportError as error:
        raise StoreError(
            "object stores need the package obstore: pip install 'pilum[cloud]', or pip install obstore"
        ) from error


class ObstoreClient:
    """Requests to one obstore store.

    Args:
        store: reads, and writes what fits into one request; should not retry.
        uploader: writes in parts; should retry.
        credentials: can renew what is refused (`RenewableCredentials`).
        ordered: listings are sorted by key.
        repeats: the store retries all the same.
    """

    def __init__(
        self,
        store: Any,
        uploader: Any,
        credentials: Any = None,
        *,
        ordered: bool = True,
        repeats: bool = False,
    ) -> None:
        self._obstore = load_obstore()
        self._store = store
        self._uploader = uploader
        self._credentials = credentials
        self.ordered = ordered
        self.repeats = repeats

    def _same_process(self) -> None:
        global _started
        if _started is None:
            _started = generation()
        elif _started != generation():
            raise StoreError(
                "object stores cannot be used in a child of fork() once they were used in its parent: the "
                "threads of obstore are not copied.  Start processes by spawn or forkserver"
            )

    async def get(self, key: str, start: int, end: int) -> Any:
        self._same_process()
        made = EXCHANGE.get()
        if made is None or not made.timed:
            return await self._obstore.get_range_async(self._store, key, start=start, end=end)
        # The same in two steps, so that the begin of the answer is seen.
        answer = await self._obstore.get_async(self._store, key, options={"range": (start, end)})
        note_first_byte()
        return await answer.bytes_async()

    def begin(self, key: str, start: int, end: int) -> asyncio.Future[Any]:
        self._same_process()
        answer: asyncio.Future[Any] = self._obstore.get_range_async(self._store, key, start=start, end=end)
        return answer

    async def get_all(self, key: str) -> Any:
        self._same_process()
        answer = await self._obstore.get_async(self._store, key)
        note_first_byte()
        size = answer.meta["size"]
        data = await answer.bytes_async()
        if len(data) != size:
            raise ConnectionError(f"got {len(data)} of {size} bytes")
        return data

    async def get_tail(self, key: str, nbytes: int) -> tuple[Any, int]:
        self._same_process()
        answer = await self._obstore.get_async(self._store, key, options={"range": {"suffix": nbytes}})
        note_first_byte()
        return await answer.bytes_async(), answer.meta["size"]

    async def open(self, key: str, start: int, end: int, etag: str | None) -> Opened:
        self._same_process()
        options: dict[str, Any] = {"range": (start, end)}
        if etag is not None:
            options["if_match"] = etag
        answer = await self._obstore.get_async(self._store, key, options=options)
        low, high = answer.range
        meta = answer.meta
        chunks = aiter(answer.stream(min_chunk_size=_CHUNK))
        return Opened(low, high, meta["size"], meta["e_tag"], chunks)

    async def head(self, key: str) -> Entry:
        self._same_process()
        return _entry(await self._obstore.head_async(self._store, key))

    async def list(self, prefix: str) -> Entries:
        self._same_process()
        return _entries(await self._obstore.list(self._store, prefix or None).collect_async())

    async def list_folder(self, prefix: str) -> Entries:
        self._same_process()
        return _entries(
            (await self._obstore.list_with_delimiter_async(self._store, prefix or None))["objects"]
        )

    async def first_page(self, prefix: str) -> Entries:
        self._same_process()
        async for page in self._obstore.list(self._store, prefix or None, chunk_size=1000):
            return _entries(page)
        return []

    async def put(self, key: str, data: memoryview, *, if_absent: bool) -> None:
        self._same_process()
        mode = "create" if if_absent else "overwrite"
        await self._obstore.put_async(self._store, key, data, use_multipart=False, mode=mode)

    async def upload(self, key: str, parts: AsyncIterator[bytes], part_size: int, parallel: int) -> None:
        self._same_process()
        await self._obstore.put_async(
            self._uploader, key, parts, use_multipart=True, chunk_size=part_size, max_concurrency=parallel
        )

    async def delete(self, keys: Sequence[str]) -> None:
        self._same_process()
        await self._obstore.delete_async(self._store, keys[0] if len(keys) == 1 else list(keys))

    def renew(self) -> bool:
        if self._credentials is None:
            return False
        self._credentials.renew()
        return True

    def explain(self, error: Exception) -> Failure:
        text = str(error)
        message = _SECRET.sub(r"\1...", text.partition("\n\nDebug source")[0]).strip().replace("\n", " ")
        message = message or type(error).__name__
        name = type(error).__name__
        if isinstance(error, FileNotFoundError):
            return Failure(Kind.MISSING, message)
        if name == "AlreadyExistsError":
            return Failure(Kind.EXISTS, message)
        if isinstance(error, NotImplementedError) or name == "NotSupportedError":
            return Failure(Kind.UNSUPPORTED, message)
        code = _CODE.search(text)
        if code is not None and code[1] in _EXPIRED:
            return Failure(Kind.DENIED, message)
        if name in ("PermissionDeniedError", "UnauthenticatedError"):
            return Failure(Kind.DENIED, message)
        if name == "PreconditionError":
            # A body that was resumed belongs to another object now: read it anew.
            return Failure(Kind.BROKEN, message)
        status = int(found[1]) if (found := _STATUS.search(text)) else None
        if status == 416:
            return Failure(Kind.BEYOND, message)
        if status == 501:
            return Failure(Kind.UNSUPPORTED, message)
        if status in (401, 403):
            return Failure(Kind.DENIED, message)
        if status in (429, 503) or (code is not None and code[1] in _THROTTLED):
            return Failure(Kind.THROTTLED, message)
        if status is not None:
            return Failure(Kind.BROKEN if status >= 500 or status in (408, 409) else Kind.FINAL, message)
        if _REFUSED_SCHEME.search(text):
            return Failure(Kind.FINAL, f"{message}; an http:// endpoint needs the option allow_http=true")
        if isinstance(error, (ConnectionError, TimeoutError)) or _NETWORK.search(text):
            return Failure(Kind.BROKEN, message)
        return Failure(Kind.FINAL, message)


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())


def _entries(found: Any) -> Entries:
    return [_entry(meta) for meta in found]


def retry_config(max_retries: int, seconds: float) -> dict[str, Any]:
    """How obstore itself retries."""
    pauses = {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=15), "base": 2}
    return {"max_retries": max_retries, "retry_timeout": timedelta(seconds=seconds), "backoff": pauses}
