"""What a `RemoteStore` needs from the library that talks to the network.

A client knows keys of one bucket, makes one request at a time without retrying, and says what its exceptions mean.
Everything else (retries, resuming, bounds, counting) is the store's business and the same for all clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from pilum.io.retry import Failure

if TYPE_CHECKING:
    import asyncio

__all__ = ["Client", "Entries", "Entry", "Opened"]


class Entry(NamedTuple):
    """An object as a listing or a HEAD request describes it.

    Attributes:
        key: its key in the bucket.
        size: bytes.
        modified: when it was written, seconds since the epoch; None if the store does not say.
    """

    key: str
    size: int
    modified: float | None


Entries: TypeAlias = list[Entry]


class Opened(NamedTuple):
    """An answer whose body is still on its way.

    Attributes:
        start, end: the bytes it will bring: less than was asked for where the object ends.
        size: size of the whole object.
        etag: identifies its content, if the store says so.
        chunks: the body.
    """

    start: int
    end: int
    size: int
    etag: str | None
    chunks: AsyncIterator[Any]


class Client(Protocol):
    """Requests to one bucket; each is made once.

    Attributes:
        ordered: listings are sorted by key.
        repeats: the library may make a request again on its own, after an answer was lost.
    """

    @property
    def ordered(self) -> bool: ...

    @property
    def repeats(self) -> bool: ...

    async def get(self, key: str, start: int, end: int) -> Any:
        """Bytes ``[start, end)``, fewer where the object ends."""
        ...

    def begin(self, key: str, start: int, end: int) -> asyncio.Future[Any]:
        """As `get`: a request that is on its way; cancelling the future ends it."""
        ...

    async def get_all(self, key: str) -> Any:
        """A whole object."""
        ...

    async def get_tail(self, key: str, nbytes: int) -> tuple[Any, int]:
        """The last bytes of an object, and its size."""
        ...

    async def open(self, key: str, start: int, end: int, etag: str | None) -> Opened:
        """Bytes ``[start, end)`` as they come, if the object is still the one with this ``etag``."""
        ...

    async def head(self, key: str) -> Entry: ...

    async def list(self, prefix: str) -> Entries:
        """All objects below a folder, which ends in a slash or is empty."""
        ...

    async def list_folder(self, prefix: str) -> Entries:
        """The objects directly in a folder."""
        ...

    async def first_page(self, prefix: str) -> Entries:
        """The first objects of a listing, as many as one request brings."""
        ...

    async def put(self, key: str, data: memoryview, *, if_absent: bool) -> None: ...

    async def upload(self, key: str, parts: AsyncIterator[bytes], part_size: int, parallel: int) -> None:
        """Write a large object in parts; what ``parts`` raises ends the upload, and nothing is left of it."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there may or may not be an error."""
        ...

    def explain(self, error: Exception) -> Failure:
        """What an exception of this client means."""
        ...

    def renew(self) -> bool:
        """Forget credentials that were refused; whether new ones can be had."""
        ...
