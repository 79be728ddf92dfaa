"""Lists of files: what is there, and what the versions of a table name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any, NamedTuple

from pilum.errors import NotFoundError
from pilum.io import Store, current_runtime
from pilum.table.files import TrackedFile, files_of
from pilum.table.versions import find_versions, load_version

__all__ = ["FileInfo", "all_files", "tracked_files"]

_WINDOW = 64


class FileInfo(NamedTuple):
    """A file below the folder of a table.

    Attributes:
        path: key.
        size: bytes.
        modified: seconds since the epoch, None where the store does not know.
    """

    path: str
    size: int
    modified: float | None


async def all_files(store: Store) -> list[FileInfo]:
    """All files below the folder of a table, sorted by path; other base paths are not looked at."""

    async def describe(entry: Any) -> FileInfo | None:
        if entry.modified is not None:
            return FileInfo(entry.path, entry.size, entry.modified)
        try:
            return FileInfo(entry.path, entry.size, await store.modified(entry.path))
        except NotFoundError:
            return None

    result = []
    stream = current_runtime().map_ordered(
        describe, await store.list(""), window=_WINDOW, suspends=store.suspends, chunk=32
    )
    async with aclosing(stream):
        async for info in stream:
            if info is not None:
                result.append(info)
    return result


async def tracked_files(
    store: Store, *, min_version: int = 0, progress: Callable[[int, int], None] | None = None
) -> list[tuple[int, TrackedFile]]:
    """The files of all versions, with the version that names each; one that several name comes several times.

    Args:
        store: store of the table or branch.
        min_version: leave out older versions.
        progress: called with the number of versions done and of all.
    """
    found = await find_versions(store)
    versions = [version for version in found.versions if version >= min_version]

    async def describe(version: int) -> list[tuple[int, TrackedFile]]:
        with suppress(NotFoundError):
            file = await load_version(store, version, found.scheme)
            return [(version, one) for one in files_of(store.uri, file.manifest, file.path)]
        return []

    result = []
    done = 0
    stream = current_runtime().map_ordered(describe, versions, window=_WINDOW, suspends=store.suspends)
    async with aclosing(stream):
        async for files in stream:
            result.extend(files)
            done += 1
            if progress is not None:
                progress(done, len(versions))
    return result
