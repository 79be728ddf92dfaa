"""Writing a file so that it is whole or absent, whatever is killed or loses power.

```
.pilum-<random>.tmp ──write──► fsync ──link / replace──► name ──► fsync of the folder
```

The file is complete and on disk before its name exists, and the name is on disk before the call returns: a
manifest can only follow its data files.  A process killed on the way leaves a temporary file, which listings
hide.

Putting a file only where there is none needs an operation that fails when the name exists:

1. ``link`` (POSIX), or ``rename`` on Windows, which refuses to replace.
2. Some file systems have no hard links (exFAT, some network and user-space ones).  Creating the final name
   with ``O_EXCL`` and writing into it would show a half-written file after a kill, and Python has no
   ``renameat2(RENAME_NOREPLACE)``.  So the writers there take turns under ``flock`` on a hidden file in the
   folder, which the system releases when its holder dies, look whether the name exists, and rename.
3. Where there are no locks either, the write is refused: two writers could both believe that they won.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from pilum import imports
from pilum.errors import StoreError

__all__ = ["HIDDEN", "TemporaryFile", "is_temporary", "put_if_absent"]

HIDDEN = ".pilum-"
_LOCK = HIDDEN + "lock"

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_WINDOWS = os.name == "nt"
_NO_LINKS = {
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EINVAL,
    errno.EACCES,
}
_MOST_BUFFERS = 1024  # IOV_MAX on Linux and macOS


def is_temporary(name: str) -> bool:
    """Whether a file is one that was not finished, by its name."""
    return name.startswith(HIDDEN) and name.endswith(".tmp")


class TemporaryFile:
    """A file that gets its name when it is complete.

    Args:
        path: the name it will get; missing folders are made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.position = 0
        self._folder = os.path.dirname(path)
        self._temporary = os.path.join(self._folder, f"{HIDDEN}{os.urandom(8).hex()}.tmp")
        self._owner = os.getpid()
        self._descriptor = -1
        try:
            self._descriptor = os.open(self._temporary, _CREATE, 0o666)
        except FileNotFoundError:
            make_folders(self._folder)
            self._descriptor = os.open(self._temporary, _CREATE, 0o666)

    def write(self, buffers: Sequence[memoryview]) -> None:
        """Append byte buffers."""
        if self._descriptor < 0:
            raise StoreError(f"{self.path} is no longer being written")
        for at in range(0, len(buffers), _MOST_BUFFERS):
            self._write_some([buffer for buffer in buffers[at : at + _MOST_BUFFERS] if len(buffer)])

    def _write_some(self, buffers: list[memoryview]) -> None:
        while buffers:
            if hasattr(os, "writev"):
                written = os.writev(self._descriptor, buffers)
            else:
                written = os.write(self._descriptor, buffers[0])
            self.position += written
            # A full disk or a signal may have cut the write short; a gigabyte always does.
            done = 0
            while done < len(buffers) and written >= len(buffers[done]):
                written -= len(buffers[done])
                done += 1
            buffers = buffers[done:]
            if buffers and written:
                buffers[0] = buffers[0][written:]

    def publish(self, *, if_absent: bool = False) -> None:
        """Make the file durable and give it its name.

        Raises:
            FileExistsError: ``if_absent`` and the name exists.
        """
        if self._descriptor < 0:
            raise StoreError(f"{self.path} is no longer being written")
        os.fsync(self._descriptor)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        if if_absent:
            put_if_absent(self._temporary, self.path)
        else:
            os.replace(self._temporary, self.path)
        sync_folder(self._folder)

    def discard(self) -> None:
        """Close and remove what was not published."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        if self._owner == os.getpid():
            # Also after a failed publication; after a successful one there is nothing to remove.
            try:
                os.unlink(self._temporary)
            except OSError:
                pass

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.discard()


def put_if_absent(temporary: str, path: str) -> None:
    """Give a complete file its name unless the name exists; the temporary name is gone afterwards.

    Raises:
        FileExistsError: the name exists.
        StoreError: this file system has no way to be sure.
    """
    if _WINDOWS:
        os.rename(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_in_turn(temporary, path)
    else:
        os.unlink(temporary)


def _rename_in_turn(temporary: str, path: str) -> None:
    fcntl = imports.load("fcntl")

    descriptor = os.open(os.path.join(os.path.dirname(path), _LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise StoreError(
                f"{path}: this file system has neither hard links nor file locks, so two writers could both "
                f"create the file ({error.strerror}); write the dataset elsewhere and copy it here"
            ) from error
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        os.rename(temporary, path)
    finally:
        os.close(descriptor)  # releases the lock


def make_folders(folder: str) -> None:
    """Make a folder and those above it, durably."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    for one in reversed(missing):
        try:
            os.mkdir(one)
        except FileExistsError:
            continue  # another writer was faster, or it is a file: opening will tell
        sync_folder(os.path.dirname(one))


def sync_folder(folder: str) -> None:
    """Put the names in a folder on disk; where the system cannot, it need not (Windows, some network ones)."""
    if _WINDOWS:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EROFS):
            raise
    finally:
        os.close(descriptor)
