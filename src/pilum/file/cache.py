"""The session: metadata that outlives one query, in one cache weighed by bytes.

A data file never changes, so what was learnt from it (footer, column metadata, initialised pages, deletion
vectors) may be kept as long as there is room.  A `Session` owns the cache; datasets share a session to share
what it knows.  Keys begin with the store's address and the file's path, so nothing here needs to be
invalidated.

`Cache.get` takes no lock: reading a dictionary and stamping the entry are single steps, and a stamp that gets
lost only makes an entry look a little older.  Only writers exclude each other.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Hashable
from typing import Any

from pilum import config
from pilum.file.in_flight import InFlight

__all__ = ["Cache", "Session"]

DEFAULT_CACHE_BYTES = 1 << 30


class _Entry:
    __slots__ = ("nbytes", "used", "value")

    def __init__(self, value: Any, nbytes: int, used: int) -> None:
        self.value = value
        self.nbytes = nbytes
        self.used = used


class Cache:
    """Values by key, bounded by the sum of their weights; the least recently used go first.

    Args:
        capacity: bytes to hold at most; a value heavier than that is not kept.
        files: a cache of bytes of files from stores where requests take time; see `Session`.

    Attributes:
        in_flight: what tasks load at this moment, to be kept here.
    """

    def __init__(self, capacity: int, files: Cache | None = None) -> None:
        self.capacity = capacity
        self.files = files
        self._entries: dict[Hashable, _Entry] = {}
        self._nbytes = 0
        self._clock = itertools.count()
        self._lock = threading.Lock()
        self.in_flight = InFlight()
        self.hits = 0
        self.misses = 0
        _caches.add(self)

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        entry.used = next(self._clock)
        self.hits += 1
        return entry.value

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep a value; replaces the one under the same key."""
        nbytes += 200  # key, entry and dictionary slot
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._nbytes -= old.nbytes
            if nbytes > self.capacity:
                return
            self._entries[key] = _Entry(value, nbytes, next(self._clock))
            self._nbytes += nbytes
            if self._nbytes > self.capacity:
                self._evict()

    def _evict(self) -> None:
        """Drop the oldest until a tenth of the capacity is free, so that eviction is rare."""
        target = self.capacity - self.capacity // 10
        for key, entry in sorted(self._entries.items(), key=lambda item: item[1].used):
            if self._nbytes <= target:
                break
            del self._entries[key]
            self._nbytes -= entry.nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Sum of the weights of all entries."""
        return self._nbytes

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self.in_flight = InFlight()


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


def _after_fork() -> None:
    """A thread that held a lock or loaded something does not exist in the child; the dictionary itself is whole."""
    for cache in list(_caches):
        cache._start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Session:
    """Caches that several datasets may share.

    Args:
        metadata_cache_size_bytes: most memory for file and page metadata and deletion vectors (1 GiB).
        index_cache_size_bytes: most memory for index data; accepted for callers that set it.
        file_cache_size_bytes: most memory for small files, and small pages of large ones, that came over a
            network (twice ``LANCE_DEFAULT_IO_BUFFER_SIZE``: 512 MiB); files of a local disk are not kept.

    Example:
        >>> import pilum, pyarrow as pa
        >>> session = pilum.Session(metadata_cache_size_bytes=64 << 20)
        >>> _ = pilum.write_dataset(pa.table({"a": [1]}), "memory://doc-session")
        >>> pilum.dataset("memory://doc-session", session=session).session() is session
        True
    """

    def __init__(
        self,
        index_cache_size_bytes: int | None = None,
        metadata_cache_size_bytes: int | None = None,
        file_cache_size_bytes: int | None = None,
    ) -> None:
        del index_cache_size_bytes  # there is no index data yet
        capacity = DEFAULT_CACHE_BYTES if metadata_cache_size_bytes is None else metadata_cache_size_bytes
        room = 2 * config.io_buffer_size() if file_cache_size_bytes is None else file_cache_size_bytes
        self.files = Cache(room)
        self.cache = Cache(capacity, self.files)

    def size_bytes(self) -> int:
        """Memory that the caches hold now."""
        return self.cache.nbytes + self.files.nbytes

    def index_cache_size_bytes(self) -> int:
        """Memory that index data takes of it."""
        return 0

    def is_same_as(self, other: Session) -> bool:
        """Whether two sessions share their caches."""
        return self.cache is other.cache

    def __repr__(self) -> str:
        return f"Session({len(self.cache)} entries, {self.cache.nbytes} bytes)"
