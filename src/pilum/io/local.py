"""Stores in a folder of the local file system.

A read is open, `preadv` into a buffer of our own, close: no descriptor is kept, so none leaks, none is
inherited over a fork and no limit is met.  (Keeping a descriptor of the folder for ``openat`` saves 0.1 of
the 4 µs that open and close take: not worth it.)  Nothing suspends.  Called on an event loop, reads above
1 MiB and everything that syncs go to the executor, so that the loop is not held; smaller reads are cheaper
than the hop.  How a file is written is in `pilum.io.durable`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pilum import config, turns
from pilum.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StoreError
from pilum.io import durable
from pilum.io.batch import read_files, read_joined, read_pieces, read_stack
from pilum.io.buffers import EMPTY, Bytes, Stack, allocate
from pilum.io.ranges import Range, assemble, check_range, merge_ranges, split_range
from pilum.io.runtime import LoopRuntime, current_runtime
from pilum.io.store import Infos, Leftovers, Names, ObjectInfo, ObjectWriter, Pieces, Store, Wanted
from pilum.io.tracing import TRACE, Request

__all__ = ["LocalStore"]

T = TypeVar("T")
Encoded: TypeAlias = list[bytes]  # `LocalStore.list` hides the builtin

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)
# A larger read is checked against the size of the file before memory is allocated for it, and leaves the
# event loop's thread.
_LARGE = 1 << 20
# A batch of more bytes than this is read file by file, range by range: sizes are then checked before memory is allocated.
_BATCH = 32 << 20


class LocalStore(Store):
    """Objects as files below a folder; folders are made when something is written into them.

    Args:
        path: the folder; need not exist.  ``~`` is expanded.

    Example:
        >>> import tempfile
        >>> from pilum.io import LocalStore, run
        >>> store = LocalStore(tempfile.mkdtemp())
        >>> run(store.put("a/b", b"hello"), suspends=False)
        >>> bytes(run(store.get("a/b", 1, 3), suspends=False))
        b'el'
    """

    suspends = False
    io_parallelism = 8
    block_size = 4096

    def __init__(self, path: str | os.PathLike[str]) -> None:
        root = os.path.abspath(os.path.expanduser(os.fsdecode(os.fspath(path))))
        super().__init__(root)
        self._prefix = root if root.endswith(os.sep) else root + os.sep

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced(LocalStore, (self.uri,))

    def _locate(self, path: str) -> str:
        """The file of a key.  Keys come from manifests: one that leads out of the folder is refused."""
        if ".." in path and ".." in path.replace("\\", "/").split("/"):
            raise InvalidInputError(f"{path!r} leads out of the dataset {self.uri}")
        return self._prefix + path

    # -- reading ---------------------------------------------------------------------------------------

    async def get(self, path: str, start: int, end: int, *, who: str = "") -> Bytes:
        size = end - start
        if size <= 0:
            check_range(path, start, end)
            return EMPTY
        if size > _LARGE and isinstance(current_runtime(), LoopRuntime):
            return await current_runtime().offload(self._get, path, start, end, who)
        return self._get(path, start, end, who)

    async def get_ranges(self, path: str, ranges: Sequence[Range], *, who: str = "") -> Pieces:
        if len(ranges) == 1:
            start, end = ranges[0]
            return [await self.get(path, start, end, who=who)]
        merged = merge_ranges(ranges, self.block_size)
        if sum(end - start for start, end in merged) > _LARGE and isinstance(current_runtime(), LoopRuntime):
            return await current_runtime().offload(self._get_merged, path, ranges, merged, who)
        return self._get_merged(path, ranges, merged, who)

    async def get_joined(self, path: str, spans: npt.NDArray[np.int64], *, who: str = "") -> Bytes:
        total = int((spans[:, 1] - spans[:, 0]).sum())
        if _LARGE < total <= _BATCH and spans[0, 0] >= 0 and TRACE.get() is None:
            found = await self._off_loop(self._get_joined, path, spans, total)
            if found is not None:
                return found
        return await super().get_joined(path, spans, who=who)

    def joined_now(self, path: str, spans: npt.NDArray[np.int64], total: int) -> Bytes | None:
        # A trace wants the time of each request.
        if total > _LARGE or spans[0, 0] < 0 or TRACE.get() is not None:
            return None
        return self._get_joined(path, spans, total)

    def _get_joined(self, path: str, spans: npt.NDArray[np.int64], total: int) -> Bytes | None:
        try:
            descriptor = os.open(self._locate(path), _READ)
        except (OSError, ValueError) as error:
            self._fail(error, path)
        try:
            if total > _LARGE and int(spans[-1, 1]) > os.fstat(descriptor).st_size:
                return None
            found = read_joined(descriptor, spans, total)
        finally:
            os.close(descriptor)
        if found is not None:
            self.stats.note_each_read((spans[:, 1] - spans[:, 0]).tolist())
        return found

    async def get_many(self, requests: Sequence[Wanted], *, who: str = "") -> Pieces:
        total = sum([end - start for _, start, end in requests])
        # A trace wants the time of each request; one or a few large ones gain nothing.
        if len(requests) < 2 or total > _BATCH or TRACE.get() is not None:
            return [await self.get(path, start, end, who=who) for path, start, end in requests]
        if total > _LARGE and isinstance(current_runtime(), LoopRuntime):
            return await current_runtime().offload(self._get_many, requests, who)
        return self._get_many(requests, who)

    def _get_many(self, requests: Sequence[Wanted], who: str) -> Pieces:
        found: list[Bytes | None] | None = None
        if min([end - start for _, start, end in requests]) > 0 <= min([start for _, start, _ in requests]):
            names = [os.fsencode(self._locate(path)) for path, _, _ in requests]
            if not any(b"\0" in name for name in names):
                starts = [start for _, start, _ in requests]
                found = read_files(names, starts, [end - start for _, start, end in requests])
        if found is None:
            found = [None] * len(requests)
        pieces: Pieces = []
        for (path, start, end), piece in zip(requests, found, strict=True):
            if piece is None:
                piece = self._get(path, start, end, who) if start != end else EMPTY
            else:
                self.stats.note_read(end - start)
            pieces.append(piece)
        return pieces

    async def get_stack(self, paths: Sequence[str], start: int, end: int, *, who: str = "") -> Stack:
        total = (end - start) * len(paths)
        if start >= 0 and 0 < total <= _BATCH and TRACE.get() is None:
            if total > _LARGE and isinstance(current_runtime(), LoopRuntime):
                stack = await current_runtime().offload(self._get_stack, paths, start, end)
            else:
                stack = self._get_stack(paths, start, end)
            if stack is not None:
                return stack
        return await super().get_stack(paths, start, end, who=who)

    def _get_stack(self, paths: Sequence[str], start: int, end: int) -> Stack | None:
        joined = ("\0" + self._prefix).join(paths)
        if ".." in joined:
            return None
        stack = read_stack(os.fsencode(f"{self._prefix}{joined}\0"), len(paths), start, end)
        if stack is not None:
            self.stats.note_reads(end - start, len(paths))
        return stack

    async def get_all(self, path: str, *, who: str = "") -> Bytes:
        # The size is known only once the file is open; what is read whole is small (manifests, deletions).
        return self._get_tail(path, None, None, who)[0]

    async def get_tail(
        self, path: str, nbytes: int, *, size: int | None = None, who: str = ""
    ) -> tuple[Bytes, int]:
        if nbytes > _LARGE and isinstance(current_runtime(), LoopRuntime):
            return await current_runtime().offload(self._get_tail, path, nbytes, size, who)
        return self._get_tail(path, nbytes, size, who)

    def _get(self, path: str, start: int, end: int, who: str) -> Bytes:
        log = TRACE.get()
        started = perf_counter() if log is not None else 0.0
        try:
            descriptor = os.open(self._locate(path), _READ)
        except (OSError, ValueError) as error:
            self._fail(error, path)
        try:
            buffer = self._read(descriptor, path, start, end)
        finally:
            os.close(descriptor)
        self.stats.note_read(end - start)
        if log is not None:
            log.record(Request(path, start, end, started, perf_counter(), who, "get"))
        return buffer

    def _get_merged(self, path: str, ranges: Sequence[Range], merged: Sequence[Range], who: str) -> Pieces:
        if not merged:
            return [EMPTY] * len(ranges)
        log = TRACE.get()
        buffers: Pieces = []
        limit = config.max_request_size()
        try:
            descriptor = os.open(self._locate(path), _READ)
        except (OSError, ValueError) as error:
            self._fail(error, path)
        try:
            pieces = None
            sizes = [end - start for start, end in merged]
            plain = log is None and len(merged) > 1 and merged[0][0] >= 0
            if plain and sum(sizes) <= _BATCH and max(sizes) <= limit:
                pieces = read_pieces(descriptor, merged)
            if pieces is not None:
                self.stats.note_each_read(sizes)
                return assemble(ranges, merged, pieces)
            for start, end in merged:
                started = perf_counter() if log is not None else 0.0
                buffers.append(self._read(descriptor, path, start, end))
                # One buffer, but counted as the requests that the plan says (`plan_requests`).
                for low, high in split_range(start, end, limit):
                    self.stats.note_read(high - low)
                    if log is not None:
                        log.record(Request(path, low, high, started, perf_counter(), who, "get"))
        finally:
            os.close(descriptor)
        return assemble(ranges, merged, buffers)

    def _get_tail(self, path: str, nbytes: int | None, size: int | None, who: str) -> tuple[Bytes, int]:
        log = TRACE.get()
        started = perf_counter() if log is not None else 0.0
        try:
            descriptor = os.open(self._locate(path), _READ)
        except (OSError, ValueError) as error:
            self._fail(error, path)
        try:
            if size is None:
                size = os.fstat(descriptor).st_size
            start = 0 if nbytes is None else max(0, size - nbytes)
            check_range(path, start, size)
            buffer = self._read(descriptor, path, start, size)
        finally:
            os.close(descriptor)
        self.stats.note_read(size - start)
        if log is not None:
            log.record(Request(path, start, size, started, perf_counter(), who, "get"))
        return buffer, size

    def _read(self, descriptor: int, path: str, start: int, end: int) -> Bytes:
        """Bytes ``[start, end)`` of an open file."""
        size = end - start
        if start < 0:
            check_range(path, start, end)
        try:
            if size > _LARGE and end > (length := os.fstat(descriptor).st_size):
                # Sizes in files are not to be trusted: allocate nothing for bytes that are not there.
                self._short(path, start, end, max(0, length - start))
            buffer = allocate(size)
            had = turns.leave() if size >= turns.LONG_READ else False
            try:
                got = _pread(descriptor, buffer, start)
            finally:
                turns.resume(had)
            while got < size:
                more = _pread(descriptor, buffer[got:], start + got)
                if more == 0:
                    self._short(path, start, end, got)
                got += more
        except OverflowError:
            self._short(path, start, end, 0)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            self._fail(error, path)
        return buffer

    def _short(self, path: str, start: int, end: int, got: int) -> NoReturn:
        raise StoreError(
            f"{self.uri}/{path}: asked for bytes {start}..{end}, got {got} of {end - start} bytes: the file ends"
        )

    async def head(self, path: str) -> ObjectInfo:
        started = perf_counter()
        try:
            found = os.stat(self._locate(path))
            if not _is_file(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a file", path)
        except (OSError, ValueError) as error:
            self._fail(error, path)
        _note(path, 0, started, "head")
        return ObjectInfo(path, found.st_size)

    async def modified(self, path: str) -> float | None:
        try:
            return os.stat(self._locate(path)).st_mtime
        except (OSError, ValueError) as error:
            self._fail(error, path)

    async def list(self, prefix: str) -> Infos:
        return await self._off_loop(self._list, prefix)

    async def leftovers(self, folder: str) -> Leftovers:
        return await self._off_loop(self._leftovers, folder.strip("/"))

    def _leftovers(self, folder: str) -> Leftovers:
        found = []
        for where, _, names in os.walk(self._locate(folder)):
            for name in names:
                if durable.is_temporary(name):
                    path = os.path.join(where, name)
                    with contextlib.suppress(OSError):  # finished meanwhile
                        status = os.stat(path)
                        key = os.path.relpath(path, self.uri).replace(os.sep, "/")
                        found.append((ObjectInfo(key, status.st_size), status.st_mtime))
        return sorted(found)

    async def list_names(self, folder: str) -> Names:
        return await self._off_loop(self._list_names, folder.strip("/"))

    async def list_encoded(self, folder: str) -> Encoded:
        """The names of the files and folders in a folder as the system has them, hidden ones among them, in any order.

        Of 10,000 names `list_names` takes a fifth longer.
        """
        return await self._off_loop(self._listdir, folder.strip("/"), os.fsencode)

    def _listdir(self, folder: str, form: Callable[[str], str | bytes]) -> Any:
        """The names in a folder, text or bytes as ``form`` makes the name of the folder."""
        started = perf_counter()
        try:
            found = os.listdir(form(self._locate(folder)))
        except (FileNotFoundError, NotADirectoryError):
            found = []
        except OSError as error:
            self._fail(error, folder)
        _note(folder, 0, started, "list")
        return found

    def _list_names(self, folder: str) -> Names:
        found: Names = self._listdir(folder, str)
        # There may be very many names, and hidden ones are rare: one search instead of one for each.
        if "\0" + durable.HIDDEN not in "\0".join(("", *found)):
            return found
        return [name for name in found if not name.startswith(durable.HIDDEN)]

    def _list(self, prefix: str) -> Infos:
        started = perf_counter()
        prefix = prefix.strip("/")
        try:
            found = sorted(_walk(self._locate(prefix), prefix + "/" if prefix else ""))
        except OSError as error:
            self._fail(error, prefix)
        _note(prefix, 0, started, "list")
        return found

    # -- writing ---------------------------------------------------------------------------------------

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        await self._off_loop(self._put, path, data, lambda file: file.publish(if_absent=if_absent))

    async def put_new(self, path: str, data: Any) -> None:
        await self._off_loop(self._put, path, data, durable.TemporaryFile.publish, True)

    async def put_unsynced(self, path: str, data: Any) -> None:
        await self._off_loop(self._put, path, data, lambda file: file.name(None), True)

    async def put_after(self, path: str, data: Any, syncs: durable.Syncs) -> None:
        """`put`, if absent, of what refers to files that are synced with it, before its name exists."""
        await self._off_loop(self._put, path, data, lambda file: file.publish(if_absent=True, after=syncs))

    def _put(
        self, path: str, data: Any, publish: Callable[[durable.TemporaryFile], None], unknown: bool = False
    ) -> None:
        started = perf_counter()
        view = memoryview(data).cast("B")
        try:
            file = durable.TemporaryFile(self._locate(path), unknown)
            try:
                file.write([view])
                publish(file)
            finally:
                file.discard()
        except (OSError, ValueError) as error:
            self._fail(error, path)
        self.stats.note_write(len(view))
        _note(path, len(view), started, "put")

    def remove_empty_folders(self) -> None:
        """Remove folders without files, the store's own included."""
        for folder, _, _ in os.walk(self.uri, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    async def delete(self, path: str) -> None:
        started = perf_counter()
        try:
            os.unlink(self._locate(path))
        except (OSError, ValueError) as error:
            self._fail(error, path)
        _note(path, 0, started, "delete")

    async def create(self, path: str, syncs: durable.Syncs | None = None) -> ObjectWriter:
        """Begin to write a file; with ``syncs`` it is left to them to make it durable."""
        try:
            file = await self._off_loop(durable.TemporaryFile, self._locate(path), syncs is not None)
        except (OSError, ValueError) as error:
            self._fail(error, path)
        return _LocalWriter(self, path, file, syncs)

    async def _off_loop(self, fn: Callable[..., T], *args: Any) -> T:
        """Call what waits for the disk: here, or away from the event loop's thread."""
        runtime = current_runtime()
        if isinstance(runtime, LoopRuntime):
            return await runtime.offload(fn, *args)
        return fn(*args)

    def _fail(self, error: Exception, path: str) -> NoReturn:
        """Raise the error of this package that says what the system's says, and where."""
        where = f"{self.uri}/{path}"
        if isinstance(error, (AlreadyExistsError, InvalidInputError, NotFoundError, StoreError)):
            raise error
        if isinstance(error, FileExistsError):
            raise AlreadyExistsError(f"{where} exists already", certain=True) from None
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            raise NotFoundError(f"there is no file {where}") from None
        if isinstance(error, OSError):
            raise StoreError(f"{where}: {error.strerror or error}") from error
        raise InvalidInputError(f"{where!r} is not a path: {error}") from error


class _LocalWriter(ObjectWriter):
    """Writes a file under a temporary name and gives it its own when it is complete."""

    def __init__(
        self, store: LocalStore, path: str, file: durable.TemporaryFile, syncs: durable.Syncs | None
    ) -> None:
        self.path = path
        self._syncs = syncs
        self._store = store
        self._file = file

    @property
    def position(self) -> int:
        return self._file.position

    async def write(self, buffers: Sequence[Any]) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        size = sum(map(len, views))
        started = perf_counter()
        try:
            if size > _LARGE:
                await self._store._off_loop(self._file.write, views)
            else:
                self._file.write(views)
        except (OSError, ValueError) as error:
            self._store._fail(error, self.path)
        self._store.stats.note_write(size)
        _note(self.path, size, started, "put")

    async def finish(self) -> None:
        try:
            if self._syncs is None:
                await self._store._off_loop(self._file.publish)
            else:
                await self._store._off_loop(self._file.name, self._syncs)
        except (OSError, ValueError) as error:
            self._file.discard()
            self._store._fail(error, self.path)

    async def abort(self) -> None:
        self._file.discard()


if hasattr(os, "preadv"):

    def _pread(descriptor: int, buffer: Any, offset: int) -> int:
        return os.preadv(descriptor, (buffer,), offset)

else:

    def _pread(descriptor: int, buffer: Any, offset: int) -> int:
        # The descriptor is this call's own, so moving its position disturbs nobody.
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            file.seek(offset)
            return file.readinto(buffer) or 0


def _is_file(mode: int) -> bool:
    return (mode & 0o170000) == 0o100000


def _walk(folder: str, prefix: str) -> Iterator[ObjectInfo]:
    """The files below a folder; files that are still being written are not there yet."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            name = entry.name
            if name.startswith(durable.HIDDEN):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, f"{prefix}{name}/")
                elif entry.is_file():
                    yield ObjectInfo(prefix + name, entry.stat().st_size)
            except FileNotFoundError:
                continue  # removed while we looked


def _note(path: str, size: int, started: float, kind: str) -> None:
    log = TRACE.get()
    if log is not None:
        log.record(Request(path, 0, size, started, perf_counter(), "", kind))
