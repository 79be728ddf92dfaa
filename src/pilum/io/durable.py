"""Writing a file so that it is whole or absent, whatever is killed or loses power.

```
.pilum-<random>.tmp ──write──► fsync ──link / replace──► name ──► fsync of the folder
```

The file is complete and on disk before its name exists, and the name is on disk before the call returns: a
manifest can only follow its data files.  A process killed on the way leaves a temporary file, which listings
hide.

What nobody refers to yet may have its name first, and be synced together with what will refer to it (`Syncs`):

```
data file ──write─────────────┐
                              ├► fsync of all ──link──► manifest ──► fsync of its folder
manifest  ──write─────────────┘
```

An fsync is mostly a wait for the disk to empty its cache, and those that wait at the same time share one: where the
disk is slow, or busy, they wait on threads.  Small files are on their way to the disk before the first fsync, so that
a file system with a journal writes that once.  After a kill or a power cut there may be a data file that is not whole,
which nothing refers to.

Putting a file only where there is none needs an operation that fails when the name exists:

1. ``link`` (POSIX), or ``rename`` on Windows, which refuses to replace.
2. Some file systems have no hard links (exFAT, some network and user-space ones).  Creating the final name
   with ``O_EXCL`` and writing into it would show a half-written file after a kill, and Python has no
   ``renameat2(RENAME_NOREPLACE)``.  So the writers there take turns under ``flock`` on a hidden file in the
   folder, which the system releases when its holder dies, look whether the name exists, and rename.
3. Where there are no locks either, the write is refused: two writers could both believe that they won.
"""

from __future__ import annotations

import _thread
import errno
import os
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import ClassVar

from pilum import imports
from pilum.errors import StoreError

__all__ = ["HIDDEN", "Syncs", "TemporaryFile", "is_temporary", "put_if_absent"]

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
# Files whose sync is postponed, and their bytes: more are better on their way to the disk while others are written.
_MOST_POSTPONED = 16
_MOST_POSTPONED_BYTES = 32 << 20
# More bytes take much longer than what syncs share, and the system may have written some of them before.
_FEW_BYTES = 1 << 20
# Where a sync takes less, threads cost more than they save.
_SLOW_SYNC_SECONDS = 5e-4


def is_temporary(name: str) -> bool:
    """Whether a file is one that was not finished, by its name."""
    return name.startswith(HIDDEN) and name.endswith(".tmp")


class Syncs:
    """Files and folders that must be on disk before something refers to them.

    Attributes:
        seconds: how long a sync took in this process when `wait` was last called.
    """

    seconds: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self._files: list[int] = []
        self._folders: dict[str, None] = {}
        self._bytes = 0

    def takes(self, size: int) -> bool:
        """Whether a file of ``size`` bytes may be added, or had better be synced at once."""
        return len(self._files) < _MOST_POSTPONED and self._bytes + size <= _MOST_POSTPONED_BYTES

    def add(self, descriptor: int, folder: str, size: int) -> None:
        """Take over an open file whose name is in ``folder``."""
        self._files.append(descriptor)
        self._folders[folder] = None
        self._bytes += size

    def wait(self, descriptor: int) -> None:
        """Sync everything that was added, and one more file, which stays open.

        Raises:
            OSError: something could not be written.
        """
        files = [*self._files, descriptor]
        if self._bytes <= _FEW_BYTES:
            for one in files:
                _begin_to_sync(one)
        jobs: list[Callable[[], None]] = [lambda one=one: sync_folder(one) for one in self._folders]  # type: ignore[misc]
        jobs += [lambda one=one: os.fsync(one) for one in files]  # type: ignore[misc]
        together = len(jobs) > 1 and Syncs.seconds > _SLOW_SYNC_SECONDS
        started = perf_counter()
        try:
            if together:
                _together(jobs)
            else:
                for job in jobs:
                    job()
        finally:
            self.close()
        elapsed = perf_counter() - started
        Syncs.seconds = elapsed if together else elapsed / len(jobs)

    def close(self) -> None:
        """Let go of what was added, synced or not."""
        files, self._files = self._files, []
        self._folders.clear()
        self._bytes = 0
        for descriptor in files:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _begin_to_sync(descriptor: int) -> None:
    """Have the system begin to write a file to disk, so that files which are synced next share what that takes.

    It is told that the pages of the file are not needed any more; those that are to be written stay all the same.
    """
    if hasattr(os, "posix_fadvise"):
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass  # not on this file system


def _together(jobs: Sequence[Callable[[], None]]) -> None:
    """Run jobs that wait for the disk, each on a thread; all have ended when it returns or raises."""
    failures: list[BaseException] = []

    def run(job: Callable[[], None], ended: _thread.LockType) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)
        finally:
            ended.release()

    running = []
    for job in jobs[1:]:
        ended = _thread.allocate_lock()
        ended.acquire()
        try:
            _thread.start_new_thread(run, (job, ended))  # a third of the cost of `threading.Thread`
        except RuntimeError:  # the system has no more threads
            run(job, ended)
        running.append(ended)
    try:
        jobs[0]()
    finally:
        for ended in running:
            ended.acquire()
    if failures:
        raise failures[0]


class TemporaryFile:
    """A file that gets its name when it is complete.

    Args:
        path: the name it will get; missing folders are made.
        unknown: nobody knows the name before something refers to the file, so it may have it from the start, which
            saves a change of the folder.  Should there be such a file it is replaced when this one is complete.
    """

    def __init__(self, path: str, unknown: bool = False) -> None:
        self.path = path
        self.position = 0
        self._folder = os.path.dirname(path)
        self._owner = os.getpid()
        self._descriptor = -1
        self._named = False
        if unknown:
            self._temporary = path
            try:
                self._descriptor = self._create()
                return
            except FileExistsError:
                pass
        self._temporary = os.path.join(self._folder, f"{HIDDEN}{os.urandom(8).hex()}.tmp")
        self._descriptor = self._create()

    def _create(self) -> int:
        try:
            return os.open(self._temporary, _CREATE, 0o666)
        except FileNotFoundError:
            make_folders(self._folder)
            return os.open(self._temporary, _CREATE, 0o666)

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

    def publish(self, *, if_absent: bool = False, after: Syncs | None = None) -> None:
        """Make the file durable and give it its name.

        Args:
            if_absent: only if nothing has that name.
            after: what else must be on disk before the name exists.

        Raises:
            FileExistsError: ``if_absent`` and the name exists.
        """
        descriptor = self._open_descriptor()
        if self._temporary == self.path:  # name and content are synced together
            if self.position <= _FEW_BYTES:
                _begin_to_sync(descriptor)
            sync_folder(self._folder)
            os.fsync(descriptor)
            self._close()
            self._named = True
            return
        if after is None:
            os.fsync(descriptor)
        else:
            after.wait(descriptor)
        self._close()
        if if_absent:
            put_if_absent(self._temporary, self.path)
        else:
            os.replace(self._temporary, self.path)
        self._named = True
        sync_folder(self._folder)

    def name(self, syncs: Syncs | None) -> None:
        """Give the file its name, and leave it to ``syncs`` to make both durable; nobody does where it is None."""
        descriptor = self._open_descriptor()
        # On Windows an open file keeps its name.
        if syncs is not None and (_WINDOWS or not syncs.takes(self.position)):
            self.publish()
            return
        if syncs is None:
            self._close()
        if self._temporary != self.path:
            os.replace(self._temporary, self.path)
        self._named = True
        if syncs is not None:
            self._descriptor = -1
            syncs.add(descriptor, self._folder, self.position)

    def _open_descriptor(self) -> int:
        if self._descriptor < 0:
            raise StoreError(f"{self.path} is no longer being written")
        return self._descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def discard(self) -> None:
        """Close and remove what was not published."""
        if self._descriptor >= 0:
            self._close()
        if not self._named and self._owner == os.getpid():
            # Also after a failed publication.
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
        # A network file system repeats a request whose answer was lost: the second link may have met the first.
        if os.stat(temporary).st_nlink < 2:
            raise
        os.unlink(temporary)
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
