"""Many files below one address, asynchronous: `AsyncLanceFileSession` (`spec/api.md`, section 6).

Readers and writers of data files and of blobs beside them by relative path, and what a folder of files needs besides: listing, ranges of any
file, copies from and to the local disk.  The synchronous twin is in `synchronous.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pilum.errors import InvalidInputError
from pilum.file.api import AsyncLanceFileReader, AsyncLanceFileWriter, locate
from pilum.file.blob_writers import AsyncDedicatedBlobWriter, AsyncPackedBlobWriter
from pilum.file.open import open_file
from pilum.io import Store, store_for

__all__ = ["AsyncLanceFileSession", "ListResult"]

_COPY_BYTES = 8 << 20


class ListResult(NamedTuple):
    """What a folder holds.

    Attributes:
        common_prefixes: folders in it.
        objects: files in it.
    """

    common_prefixes: list[str]
    objects: list[str]


class AsyncLanceFileSession:
    """Files below one address; paths are relative to it."""

    __slots__ = ("_store",)

    def __init__(
        self, base_path: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None
    ) -> None:
        self._store = store_for(base_path, storage_options)

    @property
    def suspends(self) -> bool:
        """Whether calls may wait for the network."""
        return self._store.suspends

    async def open_reader(self, path: str, columns: Sequence[str] | None = None) -> AsyncLanceFileReader:
        """A reader of a data file; arguments and errors as in `AsyncLanceFileReader.open`."""
        return AsyncLanceFileReader(await open_file(self._store, path), columns)

    async def open_writer(
        self,
        path: str,
        *,
        schema: pa.Schema | None = None,
        data_cache_bytes: int | None = None,
        version: str | None = None,
        max_page_bytes: int | None = None,
    ) -> AsyncLanceFileWriter:
        """A writer of a data file; arguments and errors as in `AsyncLanceFileWriter.open`."""
        begin = AsyncLanceFileWriter.begin
        return await begin(self._store, path, schema, data_cache_bytes, version, max_page_bytes)

    async def open_packed_blob_writer(self, path: str, blob_id: int) -> AsyncPackedBlobWriter:
        """A writer of a file of many blobs.

        Args:
            path: of the data file whose rows will refer to it; the blobs lie in a folder of the same name.
            blob_id: 1 to 2**32 - 1; another one for each file of blobs of this data file.

        Raises:
            InvalidInputError: (a `ValueError`) no such id; ``path`` does not end in ``.lance``.
        """
        return await AsyncPackedBlobWriter.open(self._store, path, blob_id)

    async def open_dedicated_blob_writer(self, path: str, blob_id: int) -> AsyncDedicatedBlobWriter:
        """A writer of a file of one blob; arguments and errors as of `open_packed_blob_writer`."""
        return await AsyncDedicatedBlobWriter.open(self._store, path, blob_id)

    async def contains(self, path: str) -> bool:
        """Whether there is a file of that name."""
        try:
            await self._store.head(path)
        except FileNotFoundError:
            return False
        return True

    async def list(self, path: str | None = None) -> list[str]:
        """All files below a folder, at any depth."""
        return [info.path for info in await self._store.list(path or "")]

    async def list_with_delimiter(self, path: str | None = None) -> ListResult:
        """Files and folders directly in a folder."""
        prefix = (path or "").strip("/")
        prefix = prefix + "/" if prefix else ""
        folders: dict[str, None] = {}
        files = []
        for info in await self._store.list(path or ""):
            name, slash, _ = info.path.removeprefix(prefix).partition("/")
            if slash:
                folders[prefix + name] = None
            else:
                files.append(info.path)
        return ListResult([*folders], files)

    async def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Bytes of any file.

        Raises:
            InvalidInputError: a negative offset or length.
            StoreError: (an `OSError`) the file is shorter.
        """
        if offset < 0 or length < 0:
            raise InvalidInputError(f"cannot read {length} bytes at {offset}")
        return (
            (await self._store.get(path, offset, offset + length, who="session")).tobytes() if length else b""
        )

    async def upload_file(self, local_path: str | Path, remote_path: str) -> None:
        """Copy a local file to ``remote_path``."""
        local, name = locate(local_path)
        await _copy(local, name, self._store, remote_path)

    async def download_file(self, remote_path: str, local_path: str | Path) -> None:
        """Copy ``remote_path`` to a local file."""
        local, name = locate(local_path)
        await _copy(self._store, remote_path, local, name)

    async def delete_file(self, path: str) -> None:
        """Delete a file.

        Raises:
            NotFoundError: (an `OSError`) there is none.
        """
        await self._store.head(path)
        await self._store.delete(path)


async def _copy(source: Store, path: str, target: Store, name: str) -> None:
    size = (await source.head(path)).size
    sink = await target.create(name)
    try:
        for start in range(0, size, _COPY_BYTES):
            await sink.write([await source.get(path, start, min(size, start + _COPY_BYTES), who="session")])
        await sink.finish()
    except BaseException:
        await sink.abort()
        raise
