"""Stores that the caller made: those of obstore, and folders of fsspec file systems.

They come with everything they need (credentials, options), so an address and storage options are not wanted.  The
address that such a dataset shows is made up where the store has none.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pilum.errors import InvalidInputError
from pilum.io.client import Entries, Entry, Opened
from pilum.io.obstore_client import ObstoreClient
from pilum.io.remote import Bucket, RemoteStore
from pilum.io.retry import Failure, Kind
from pilum.io.store import Store

if TYPE_CHECKING:
    import asyncio

__all__ = ["FsspecClient", "foreign_store"]

T = TypeVar("T")


def foreign_store(given: Any) -> Store:
    """A store around what the caller made.

    Args:
        given: a store of obstore, or what has a file system and a path in it: an ``fsspec.FSMap`` or a ``UPath``.

    Raises:
        InvalidInputError: it is something else.
    """
    module = type(given).__module__
    if module.partition(".")[0] in ("obstore", "pyo3_object_store", "builtins") and hasattr(
        given, "list_with_delimiter"
    ):
        return _of_obstore(given)
    filesystem = getattr(given, "fs", None)
    folder = getattr(given, "root", None) if type(given).__name__ == "FSMap" else getattr(given, "path", None)
    if filesystem is not None and hasattr(filesystem, "cat_file") and isinstance(folder, str):
        return _of_fsspec(filesystem, folder)
    raise InvalidInputError(
        f"a dataset is given by a path, an address or a store, not by {type(given).__name__} ({given!r})"
    )


def _of_obstore(store: Any) -> RemoteStore:
    kind = type(store).__name__
    config = getattr(store, "config", {})
    prefix = str(getattr(store, "prefix", None) or "").strip("/")
    root = (
        config.get("bucket") or config.get("container_name") or getattr(store, "url", None) or hex(id(store))
    )
    scheme = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az"}.get(kind, kind.lower())
    root = str(root).rstrip("/")
    uri = root if "://" in root else "/".join(part for part in (f"{scheme}://{root}", prefix) if part)
    # Its retries are the caller's; ours come on top and know how far a body has come.
    return RemoteStore(uri, Bucket(ObstoreClient(store, store, repeats=True)), "", (_of_obstore, (store,)))


def _of_fsspec(filesystem: Any, folder: str) -> RemoteStore:
    folder = folder.rstrip("/")
    uri = str(filesystem.unstrip_protocol(folder))
    return RemoteStore(uri, Bucket(FsspecClient(filesystem)), folder, (_of_fsspec, (filesystem, folder)))


class FsspecClient:
    """Requests through an fsspec file system; its calls block, so each runs on a thread.

    fsspec promises no order of listings; of conditional puts, mode ``create`` where a file system has it.

    Args:
        filesystem: the file system.
    """

    ordered = False
    repeats = True

    def __init__(self, filesystem: Any) -> None:
        self._fs = filesystem

    async def _call(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        import asyncio

        return await asyncio.to_thread(fn, *args, **kwargs)

    async def get(self, key: str, start: int, end: int) -> Any:
        return await self._call(self._fs.cat_file, key, start, end)

    def begin(self, key: str, start: int, end: int) -> asyncio.Future[Any]:
        import asyncio

        return asyncio.ensure_future(self.get(key, start, end))

    async def get_all(self, key: str) -> Any:
        return await self._call(self._fs.cat_file, key)

    async def get_tail(self, key: str, nbytes: int) -> tuple[Any, int]:
        size = (await self.head(key)).size
        return await self.get(key, max(0, size - nbytes), size), size

    async def open(self, key: str, start: int, end: int, etag: str | None) -> Opened:
        data = await self.get(key, start, end)

        async def one() -> AsyncIterator[Any]:
            yield data

        return Opened(start, start + len(data), start + len(data), None, one())

    async def head(self, key: str) -> Entry:
        info = await self._call(self._fs.info, key)
        if info.get("type") == "directory":
            raise FileNotFoundError(errno.ENOENT, "not a file", key)
        return _entry(info)

    async def list(self, prefix: str) -> Entries:
        try:
            found = await self._call(self._fs.find, prefix.rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return [_entry(info) for info in found.values() if info["type"] == "file"]

    async def list_folder(self, prefix: str) -> Entries:
        try:
            found = await self._call(self._fs.ls, prefix.rstrip("/"), detail=True, refresh=True)
        except FileNotFoundError:
            return []
        except TypeError:
            found = await self._call(self._fs.ls, prefix.rstrip("/"), detail=True)
        return [_entry(info) for info in found if info["type"] == "file"]

    async def first_page(self, prefix: str) -> Entries:
        return await self.list_folder(prefix)

    async def put(self, key: str, data: memoryview, *, if_absent: bool) -> None:
        await self._call(self._put, key, bytes(data), if_absent)

    def _put(self, key: str, data: bytes, if_absent: bool) -> None:
        self._make_folder(key)
        if not if_absent:
            self._fs.pipe_file(key, data)
            return
        if getattr(self._fs, "protocol", None) in ("file", ("file", "local")):
            with open(key, "xb") as file:
                file.write(data)
            return
        self._fs.pipe_file(key, data, mode="create")

    def _make_folder(self, key: str) -> None:
        self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)

    async def upload(self, key: str, parts: AsyncIterator[bytes], part_size: int, parallel: int) -> None:
        del part_size, parallel
        await self._call(self._make_folder, key)
        file = await self._call(self._fs.open, key, "wb")
        try:
            async for part in parts:
                await self._call(file.write, part)
        except BaseException:
            discard = getattr(file, "discard", None)
            if discard is not None:
                await self._call(discard)
            raise
        await self._call(file.close)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                await self._call(self._fs.rm_file, key)
            except FileNotFoundError:
                if len(keys) == 1:
                    raise

    def explain(self, error: Exception) -> Failure:
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, FileNotFoundError):
            return Failure(Kind.MISSING, message)
        if isinstance(error, FileExistsError):
            return Failure(Kind.EXISTS, message)
        if isinstance(error, NotImplementedError):
            return Failure(Kind.UNSUPPORTED, message)
        if isinstance(error, PermissionError):
            return Failure(Kind.DENIED, message)
        if isinstance(error, (ConnectionError, TimeoutError)):
            return Failure(Kind.BROKEN, message)
        return Failure(Kind.FINAL, message)

    def renew(self) -> bool:
        return False


def _entry(info: Any) -> Entry:
    modified = info.get("mtime", info.get("LastModified", info.get("last_modified", info.get("created"))))
    if hasattr(modified, "timestamp"):
        modified = modified.timestamp()
    return Entry(info["name"], info["size"] or 0, modified if isinstance(modified, (int, float)) else None)
