"""Stores in the memory of this process, for tests and for data that need not outlive it."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from pilum.errors import AlreadyExistsError, NotFoundError, StoreError
from pilum.io.buffers import EMPTY, Bytes
from pilum.io.ranges import Range, check_range
from pilum.io.store import Infos, ObjectInfo, ObjectWriter, Pieces, Store
from pilum.io.tracing import TRACE, Request

__all__ = ["MemoryStore"]


class _Objects(dict[str, Bytes]):
    """The objects of one store.  Single dictionary operations are atomic: no lock is needed, none is forked."""

    __slots__ = ("__weakref__",)


# Named stores live as long as the process, others as long as somebody holds them.
_named: dict[str, _Objects] = {}
_unnamed: weakref.WeakValueDictionary[str, _Objects] = weakref.WeakValueDictionary()


class MemoryStore(Store):
    """Objects in the memory of this process.

    Args:
        name: stores of the same name have the same content, in every thread; it is kept until the process
            ends.  Without a name the store is new and lives as long as it is used.  Pickles by name.

    Example:
        >>> from pilum.io import MemoryStore, run
        >>> run(MemoryStore("doc-memory").put("a/b", b"hello"), suspends=False)
        >>> bytes(run(MemoryStore("doc-memory").get("a/b", 1, 3), suspends=False))
        b'el'
    """

    suspends = False
    io_parallelism = 64
    block_size = 0

    def __init__(self, name: str | None = None) -> None:
        if name is None:
            name = f"unnamed-{uuid.uuid4().hex}"
            _unnamed[name] = self._objects = _Objects()
        else:
            name = name.strip("/")
            found = _unnamed.get(name)
            self._objects = _named.setdefault(name, _Objects()) if found is None else found
        self.name = name
        super().__init__(f"memory://{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced(MemoryStore, (self.name,))

    # -- reading ---------------------------------------------------------------------------------------

    def _object(self, path: str) -> Bytes:
        found = self._objects.get(path)
        if found is None:
            raise NotFoundError(f"{self.uri} has no object {path}")
        return found

    def _slice(self, path: str, start: int, end: int, who: str) -> Bytes:
        log = TRACE.get()
        started = perf_counter() if log is not None else 0.0
        whole = self._object(path)
        found = whole[start:end]
        if len(found) != end - start:
            raise StoreError(
                f"{self.uri}/{path}: asked for bytes {start}..{end}, got {len(found)} of {end - start} bytes: "
                f"the object ends at {len(whole)}"
            )
        self.stats.note_read(end - start)
        if log is not None:
            log.record(Request(path, start, end, started, perf_counter(), who, "get"))
        return found

    async def get(self, path: str, start: int, end: int, *, who: str = "") -> Bytes:
        check_range(path, start, end)
        return self._slice(path, start, end, who) if end > start else EMPTY

    async def get_ranges(self, path: str, ranges: Sequence[Range], *, who: str = "") -> Pieces:
        # Every answer is a view of the object: there is nothing to gain from joining requests.
        return [await self.get(path, start, end, who=who) for start, end in ranges]

    def planned(self, ranges: Sequence[Range]) -> list[Range]:
        return [(start, end) for start, end in ranges if start < end]

    async def get_all(self, path: str, *, who: str = "") -> Bytes:
        return self._slice(path, 0, len(self._object(path)), who)

    async def get_tail(
        self, path: str, nbytes: int, *, size: int | None = None, who: str = ""
    ) -> tuple[Bytes, int]:
        if size is None:
            size = len(self._object(path))
        start = max(0, size - nbytes)
        check_range(path, start, size)
        return self._slice(path, start, size, who), size

    async def head(self, path: str) -> ObjectInfo:
        started = perf_counter()
        found = ObjectInfo(path, len(self._object(path)))
        _note(path, 0, started, "head")
        return found

    async def list(self, prefix: str) -> Infos:
        started = perf_counter()
        below = prefix.rstrip("/") + "/" if prefix else ""
        found = [
            ObjectInfo(path, len(data))
            for path, data in sorted(self._objects.copy().items(), key=lambda entry: entry[0])
            if path.startswith(below)
        ]
        _note(prefix, 0, started, "list")
        return found

    # -- writing ---------------------------------------------------------------------------------------

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        started = perf_counter()
        stored = _frozen(data)
        if not if_absent:
            self._objects[path] = stored
        elif self._objects.setdefault(path, stored) is not stored:
            raise AlreadyExistsError(f"{self.uri}/{path} exists already", certain=True)
        self.stats.note_write(len(stored))
        _note(path, len(stored), started, "put")

    async def delete(self, path: str) -> None:
        started = perf_counter()
        if self._objects.pop(path, None) is None:
            raise NotFoundError(f"{self.uri} has no object {path}")
        _note(path, 0, started, "delete")

    async def create(self, path: str) -> ObjectWriter:
        return _MemoryWriter(self, path)


class _MemoryWriter(ObjectWriter):
    """Collects an object and stores it when it is complete."""

    def __init__(self, store: MemoryStore, path: str) -> None:
        self.path = path
        self._store = store
        self._data = bytearray()
        self._open = True

    @property
    def position(self) -> int:
        return len(self._data)

    async def write(self, buffers: Sequence[Any]) -> None:
        if not self._open:
            raise StoreError(f"{self._store.uri}/{self.path} is no longer being written")
        for buffer in buffers:
            self._data += memoryview(buffer).cast("B")

    async def finish(self) -> None:
        if not self._open:
            raise StoreError(f"{self._store.uri}/{self.path} is no longer being written")
        self._open = False
        await self._store.put(self.path, self._data)

    async def abort(self) -> None:
        self._open = False
        self._data = bytearray()


def _frozen(data: Any) -> Bytes:
    """A private copy that nobody can write to."""
    found: Bytes = np.frombuffer(bytes(memoryview(data).cast("B")), dtype=np.uint8)
    return found


def _note(path: str, size: int, started: float, kind: str) -> None:
    log = TRACE.get()
    if log is not None:
        log.record(Request(path, 0, size, started, perf_counter(), "", kind))
