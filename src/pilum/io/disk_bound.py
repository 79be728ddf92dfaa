"""How a folder that several processes write to is kept below a number of bytes, without locks.

```
<root>/usage          as many bytes long as 4 KiB pages were written
<root>/busy           while somebody makes room
<root>/3f/9a…c2/…     files; those that are being written begin with a dot
```

The length of ``usage`` counts what all processes have written since one of them last looked: appending is atomic, and
a writer knows from it, without looking around, when the folder is full.  Then one of them lists all files, removes
those that were used least recently until a tenth is free, and corrects the count; others wait for it a moment, else
what they wanted to write is not kept.  A file is created at its full length before it is counted, so none is
overlooked by that.  The time of a file's last use is its modification time.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["WRITING", "DiskBound", "in_pages", "quietly"]

WRITING = "."
_USAGE = "usage"
_BUSY = "busy"
_PAGE = 4096
# Seconds: for which one that makes room is believed to be alive, others wait for it, a file may be being written.
_BUSY_FOR = 60.0
_PATIENCE = 0.5
_ABANDONED = 3600.0


class _File(NamedTuple):
    used: float
    size: int
    path: str
    finished: bool


class DiskBound:
    """The bound of a folder.

    Args:
        root: the folder; it need not exist.
        capacity: bytes to hold at most.
    """

    def __init__(self, root: str, capacity: int) -> None:
        self.capacity = capacity
        self._root = root
        self._usage = os.path.join(root, _USAGE)
        self._busy = os.path.join(root, _BUSY)

    def reserve(self, size: int) -> bool:
        """Count ``size`` bytes, whole pages, of a file that was created, and make room for them if need be.

        Returns:
            False: there is no room yet; somebody else is making it, and takes long.

        Raises:
            OSError: files cannot be removed.
        """
        patience = time.monotonic() + _PATIENCE
        used = self._count(size)
        while used is None or used > self.capacity:
            if self._begin():
                try:
                    self._make_room()
                finally:
                    quietly(os.unlink, self._busy)
                return True
            if time.monotonic() > patience:
                return False
            time.sleep(_PATIENCE / 100)
            # Before there is a count, somebody else may be finding it out.
            used = self._count(size) if used is None else self._counted()
        return True

    def _count(self, size: int) -> int | None:
        """Add to the count; the new one, None if there is none."""
        try:
            usage = os.open(self._usage, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            os.write(usage, bytes(size // _PAGE))
            return os.fstat(usage).st_size * _PAGE
        finally:
            os.close(usage)

    def _counted(self) -> int:
        try:
            return os.stat(self._usage).st_size * _PAGE
        except FileNotFoundError:
            return 0

    def _begin(self) -> bool:
        """Whether nobody else makes room now; one that was killed while it did counts for a minute."""
        try:
            os.close(os.open(self._busy, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            try:
                if time.time() - os.stat(self._busy).st_mtime > _BUSY_FOR:
                    quietly(os.unlink, self._busy)
            except OSError:
                pass
            return False
        return True

    def _make_room(self) -> None:
        """Look at all files, remove the least recently used if they are too much, and correct the count."""
        before = self._counted()
        files = list(self._files())
        total = sum([file.size for file in files])
        if total > self.capacity:
            target = self.capacity - self.capacity // 10
            for file in sorted([file for file in files if file.finished]):
                if total <= target:
                    break
                if quietly(os.unlink, file.path):
                    total -= file.size
                    quietly(os.rmdir, os.path.dirname(file.path))
            if total > self.capacity:
                raise OSError(errno.ENOSPC, "its files cannot be removed", self._root)
        with open(self._usage, "ab") as usage:
            # What others have counted meanwhile is kept.
            more = max(0, os.fstat(usage.fileno()).st_size - before // _PAGE)
            usage.truncate(total // _PAGE + more)

    def _files(self) -> Iterator[_File]:
        """All files, those being written included; what was never finished is removed."""
        for shard in _scan(self._root):
            if len(shard.name) != 2:
                continue
            for folder in _scan(shard.path):
                for file in _scan(folder.path):
                    try:
                        found = file.stat()
                    except OSError:
                        continue
                    finished = not file.name.startswith(WRITING)
                    if not finished and time.time() - found.st_mtime > _ABANDONED:
                        quietly(os.unlink, file.path)
                        continue
                    yield _File(found.st_mtime, in_pages(found.st_size), file.path, finished)

    def nbytes(self) -> int:
        """Bytes of all finished files now, in whole pages; looks at every one."""
        return sum([file.size for file in self._files() if file.finished])


def in_pages(size: int) -> int:
    """Bytes that a file of ``size`` bytes takes on disk: whole pages."""
    return -(-size // _PAGE) * _PAGE


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def quietly(fn: Callable[[str], Any], path: str) -> bool:
    """Do something to a file that may be gone; False if the disk does not let us."""
    try:
        fn(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
