"""Counters of a store: requests and bytes, read and written; what was repeated, and what a cache spared.

Every read counts, from any thread, so a lock or a lost update on that path would hurt.  `note_read` only
appends to a deque, which is atomic; whoever asks for the numbers (or finds the deque long) takes the entries
out one by one and adds them up under a lock.  No entry is lost or counted twice.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from pilum.io.forking import on_fork

__all__ = ["IoCounts", "IoStats"]

_FOLD_AT = 1024

# One lock for all counters: it is taken once in a thousand requests.
_folding = threading.Lock()


@on_fork
def _renew_lock() -> None:
    global _folding
    _folding = threading.Lock()  # another thread of the parent may have held the old one


class IoCounts(NamedTuple):
    """Requests and bytes; listing and asking for a size are not reads."""

    read_iops: int = 0
    read_bytes: int = 0
    write_iops: int = 0
    write_bytes: int = 0


class _Counter:
    """A number of events and the sum of their sizes."""

    __slots__ = ("_pending", "_size", "_times")

    def __init__(self) -> None:
        self._pending: deque[int] = deque()
        self._times = 0
        self._size = 0

    def add(self, size: int) -> None:
        self._pending.append(size)
        if len(self._pending) > _FOLD_AT:
            self.totals()

    def add_many(self, size: int, times: int) -> None:
        self._pending.extend([size] * times)
        if len(self._pending) > _FOLD_AT:
            self.totals()

    def add_all(self, sizes: Iterable[int]) -> None:
        self._pending.extend(sizes)
        if len(self._pending) > _FOLD_AT:
            self.totals()

    def totals(self, *, reset: bool = False) -> tuple[int, int]:
        with _folding:
            while self._pending:
                self._size += self._pending.popleft()
                self._times += 1
            found = (self._times, self._size)
            if reset:
                self._times = self._size = 0
        return found


class IoStats:
    """Counters of one store object.  HEAD and LIST requests are not reads."""

    __slots__ = (
        "_cached", "_reads", "_retries", "_writes", "note_cached", "note_each_read", "note_read", "note_reads",
        "note_retries", "note_write",
    )  # fmt: skip

    def __init__(self) -> None:
        self._reads = _Counter()
        self._writes = _Counter()
        self._cached = _Counter()
        self._retries = _Counter()
        # Bound once: `stats.note_read(size)` is then one call.
        self.note_read = self._reads.add
        self.note_reads = self._reads.add_many
        self.note_each_read = self._reads.add_all
        self.note_write = self._writes.add
        self.note_cached = self._cached.add
        self.note_retries = self._retries.add

    @property
    def read_iops(self) -> int:
        """Read requests."""
        return self._reads.totals()[0]

    @property
    def read_bytes(self) -> int:
        """Bytes read."""
        return self._reads.totals()[1]

    @property
    def write_iops(self) -> int:
        """Write requests."""
        return self._writes.totals()[0]

    @property
    def write_bytes(self) -> int:
        """Bytes written."""
        return self._writes.totals()[1]

    @property
    def retries(self) -> int:
        """Attempts of requests that failed and could be repeated."""
        return self._retries.totals()[1]

    @property
    def cache_hits(self) -> int:
        """Reads that a disk cache answered; they are not among `read_iops`."""
        return self._cached.totals()[0]

    @property
    def cache_bytes(self) -> int:
        """Bytes of them."""
        return self._cached.totals()[1]

    def snapshot(self) -> IoCounts:
        """The counters so far."""
        return IoCounts(*self._reads.totals(), *self._writes.totals())

    def incremental(self) -> IoCounts:
        """The counters since the last call; sets them to zero."""
        return IoCounts(*self._reads.totals(reset=True), *self._writes.totals(reset=True))

    def __repr__(self) -> str:
        return repr(self.snapshot()).replace("IoCounts", "IoStats")

    def __reduce__(self) -> tuple[type[IoStats], tuple[()]]:
        return IoStats, ()
