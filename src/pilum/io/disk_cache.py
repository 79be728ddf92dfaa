"""A bounded cache of byte ranges on a local disk, shared by processes without locks.

```
<directory>/v1/3f/9a…c2/0-118ad                       bytes [0, 0x118ad) of the object with digest 3f9a…c2
<directory>/v1/3f/9a…c2/40000-50000.end               … and the object ends there
<directory>/v1/3f/9a…c2/.…                            being written
```

A piece (`pilum.io.cached_piece`) is written under a name of its own and then renamed, so whoever sees it sees all of
it; whoever reads one that goes away meanwhile misses it.  Checksums stand in for flushing to disk: what a power cut
spoils is found out, removed, and fetched again.

`pilum.io.disk_bound` keeps all of it below a number of bytes; the pieces that were used least recently go first.  A read
sets the modification time of a piece, which says when it was last used, if that is older than a minute.

Whatever the disk refuses (it is full, read-only, gone) is said once in the log and then passed over: the cache is
asked to keep nothing for a minute, and what is read from it is simply not there.  All calls block.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple

from pilum.io.buffers import Bytes
from pilum.io.cached_piece import DamagedError, piece_size, read_piece, write_piece
from pilum.io.disk_bound import WRITING, DiskBound, in_pages, quietly
from pilum.io.ranges import Range, merge_ranges

__all__ = ["DiskCache", "Extent", "Found", "cover", "disk_cache"]

_LOG = logging.getLogger("pilum")

_LAYOUT = "v1"
_END = ".end"
_TOUCH_AFTER = 60.0  # seconds
_PAUSE = 60.0
# Whoever made room may have been killed: reads are not to wait for it one after the other.
_PAUSE_FOR_ROOM = 5.0
# Objects whose pieces are remembered, until their folder changes.
_REMEMBERED = 10_000


class Extent(NamedTuple):
    """A range of an object that is in the cache.

    Attributes:
        start, end: the bytes.
        last: whether the object ends there.
    """

    start: int
    end: int
    last: bool = False

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.start:x}-{self.end:x}" + (_END if self.last else "")

    @classmethod
    def parse(cls, name: str) -> Extent | None:
        """The extent of a file name, None if it is not one."""
        last = name.endswith(_END)
        low, dash, high = name.removesuffix(_END).partition("-")
        try:
            found = cls(int(low, 16), int(high, 16), last) if dash else None
        except ValueError:
            return None
        # Written in one way only, so that the name leads back to the file.
        return found if found is not None and found.name == name and found.start < found.end else None


class Found(NamedTuple):
    """What the cache has of some ranges of an object.

    Attributes:
        pieces: disjoint ranges, ascending.
        buffers: their bytes.
        missing: the other ranges, disjoint, ascending.
    """

    pieces: list[Range]
    buffers: list[Bytes]
    missing: list[Range]


def cover(
    wanted: Sequence[Range], extents: Sequence[Extent]
) -> tuple[list[tuple[Extent, Range]], list[Range]]:
    """Which parts of ``wanted`` to take from which extent, and which parts are in none.  Pure.

    Args:
        wanted: ranges in any order; they may overlap or be empty.
        extents: sorted; they may overlap.
    """
    hits: list[tuple[Extent, Range]] = []
    missing: list[Range] = []
    position = 0
    best: Extent | None = None  # that reaches furthest of those that have begun
    for low, high in merge_ranges(wanted, 0):
        at = low
        while at < high:
            while position < len(extents) and extents[position].start <= at:
                if best is None or extents[position].end > best.end:
                    best = extents[position]
                position += 1
            if best is not None and best.end > at:
                stop = min(best.end, high)
                hits.append((best, (at, stop)))
            else:
                stop = high if position == len(extents) else min(high, extents[position].start)
                missing.append((at, stop))
            at = stop
    return hits, missing


class DiskCache:
    """Byte ranges of objects in a folder of this machine.

    Args:
        directory: the folder; made when something is kept.
        capacity: bytes to hold at most.
    """

    def __init__(self, directory: str, capacity: int) -> None:
        self.directory = directory
        self.capacity = capacity
        self._root = os.path.join(directory, _LAYOUT)
        self._bound = DiskBound(self._root, capacity)
        self._listings: dict[bytes, tuple[int, list[Extent]]] = {}
        self._paused = 0.0
        self._warned = False

    # -- reading ---------------------------------------------------------------------------------------

    def read(self, key: str, wanted: Sequence[Range]) -> Found:
        """What is here of some ranges of an object.

        Args:
            key: the object's address.
            wanted: ranges in any order.
        """
        digest = _digest(key)
        hits, missing = cover(wanted, self._extents(digest))
        pieces: list[tuple[Range, Bytes]] = []
        for extent, ranges in _by_extent(hits):
            buffers = self._read(digest, extent, ranges)
            if buffers is None:
                missing += ranges
            else:
                pieces += zip(ranges, buffers, strict=True)
        pieces.sort(key=lambda piece: piece[0])
        return Found([one for one, _ in pieces], [data for _, data in pieces], merge_ranges(missing, 0))

    def read_many(self, requests: Sequence[tuple[str, Sequence[Range]]]) -> list[Found]:
        """As `read`, for several objects."""
        return [self.read(key, wanted) for key, wanted in requests]

    def size(self, key: str) -> int | None:
        """Length of an object, if a piece that ends it is here."""
        return next((extent.end for extent in self._extents(_digest(key)) if extent.last), None)

    def read_tail(self, key: str, nbytes: int | None) -> tuple[Bytes, int] | None:
        """The last bytes of an object, or all of it, and its length; None if they are not in one piece here."""
        size = self.size(key)
        if not size:
            return None
        found = self.read(key, [(0 if nbytes is None else max(0, size - nbytes), size)])
        return (found.buffers[0], size) if not found.missing and len(found.buffers) == 1 else None

    def _folder(self, digest: bytes) -> str:
        name = digest.hex()
        return os.path.join(self._root, name[:2], name[2:])

    def _extents(self, digest: bytes) -> list[Extent]:
        folder = self._folder(digest)
        try:
            changed = os.stat(folder).st_mtime_ns
            known = self._listings.get(digest)
            if known is not None and known[0] == changed:
                return known[1]
            found = sorted(one for one in map(Extent.parse, os.listdir(folder)) if one is not None)
        except OSError:
            return []
        if len(self._listings) >= _REMEMBERED:
            self._listings.clear()
        self._listings[digest] = (changed, found)
        return found

    def _read(self, digest: bytes, extent: Extent, wanted: Sequence[Range]) -> list[Bytes] | None:
        path = os.path.join(self._folder(digest), extent.name)
        try:
            found = read_piece(path, digest, extent.start, extent.end, wanted)
            if time.time() - os.stat(path).st_mtime > _TOUCH_AFTER:
                quietly(os.utime, path)
        except DamagedError as damage:
            _LOG.warning("%s: %s; it is fetched again", path, damage)
            quietly(os.unlink, path)
        except OSError:
            pass  # removed meanwhile
        else:
            return found
        self._listings.pop(digest, None)
        return None

    # -- writing ---------------------------------------------------------------------------------------

    def write(self, key: str, pieces: Iterable[tuple[int, Bytes]], size: int | None = None) -> None:
        """Keep pieces of an object.  Never fails: what cannot be kept is not.

        Args:
            key: the object's address.
            pieces: position and bytes of each.
            size: length of the object where it is known.
        """
        if time.monotonic() < self._paused:
            return
        digest = _digest(key)
        try:
            for start, data in pieces:
                end = start + len(data)
                if start < end and _pages(end - start) <= self.capacity:
                    self._store(digest, Extent(start, end, end == size), data)
        except OSError as error:
            self._paused = time.monotonic() + _PAUSE
            if not self._warned:
                self._warned = True
                _LOG.warning("nothing can be kept in the cache %s: %s", self.directory, error)

    def _store(self, digest: bytes, extent: Extent, data: Bytes) -> None:
        folder = self._folder(digest)
        temporary = os.path.join(folder, WRITING + secrets.token_hex(8))
        try:
            with self._create(temporary) as file:
                # As long as it will be: whoever looks around counts it already.
                file.truncate(piece_size(len(data)))
                kept = self._bound.reserve(_pages(len(data)))
                if kept:
                    write_piece(file, digest, extent.start, data)
            if kept:
                os.replace(temporary, os.path.join(folder, extent.name))
            else:
                os.unlink(temporary)
                self._paused = time.monotonic() + _PAUSE_FOR_ROOM
        except BaseException:
            quietly(os.unlink, temporary)
            raise
        self._listings.pop(digest, None)

    def _create(self, path: str) -> BinaryIO:
        if not os.path.isdir(self.directory):
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            return open(path, "xb")
        except FileNotFoundError:  # the folder was empty and was removed just then
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return open(path, "xb")

    def forget(self, keys: Iterable[str]) -> None:
        """Drop all pieces of some objects."""
        for key in keys:
            digest = _digest(key)
            for extent in self._extents(digest):
                quietly(os.unlink, os.path.join(self._folder(digest), extent.name))
            quietly(os.rmdir, self._folder(digest))
            self._listings.pop(digest, None)

    def nbytes(self) -> int:
        """Bytes of all pieces on disk now, in whole pages; looks at every one."""
        return self._bound.nbytes()


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _pages(length: int) -> int:
    """Bytes that a piece takes on disk."""
    return in_pages(piece_size(length))


def _by_extent(hits: Sequence[tuple[Extent, Range]]) -> list[tuple[Extent, list[Range]]]:
    groups: dict[Extent, list[Range]] = {}
    for extent, wanted in hits:
        groups.setdefault(extent, []).append(wanted)
    return list(groups.items())


# One for each folder, so that it complains once; they hold no locks and no descriptors, so a fork does no harm.
_caches: dict[tuple[str, int], DiskCache] = {}


def disk_cache(directory: str, capacity: int) -> DiskCache:
    """The cache in a folder.

    Args:
        directory: ``~`` is expanded.
        capacity: bytes to hold at most.
    """
    place = os.path.abspath(os.path.expanduser(directory))
    return _caches.setdefault((place, capacity), DiskCache(place, capacity))
