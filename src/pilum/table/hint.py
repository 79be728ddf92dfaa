"""The version hint: the newest version without a listing (spec/table.md, section 4.3).

    _versions/latest_version_hint.json    {"version":N}, written after the commit of version N, best effort

A hint is not authoritative: a writer may have died before it wrote one, and others write none.  On a local disk it
can be checked.  To write it is the last that a commit does in the folder, whose time it renews, so the folder and the
hint changed at the same moment; whatever happens in the folder later, a commit, a cleanup or a migration, changes the folder
alone.  A hint that passes names the newest version, and three looks at the disk replace a listing of all versions
(10,000: 5 ms).  One that does not is ignored.
"""

from __future__ import annotations

import contextlib
import os
import re

from pilum.io import LocalStore, Store
from pilum.io.durable import HIDDEN
from pilum.table.naming import VERSION_HINT, VERSIONS, NamingScheme, manifest_path

__all__ = ["parse_hint", "read_hint", "write_hint"]

# What may lie between the two times of one change, which the kernel takes one after the other.
_SAME_MOMENT_NS = 10_000_000
# A hint of the longest number has 32 bytes.
_MAX_BYTES = 64
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_WRITE = os.O_WRONLY | getattr(os, "O_BINARY", 0)
_HINT = re.compile(rb'\s*\{\s*"version"\s*:\s*(\d{1,19})\s*\}\s*')


def read_hint(store: Store) -> tuple[int, NamingScheme] | None:
    """The newest version and how it is named; None when only a listing can tell."""
    if not isinstance(store, LocalStore) or not _enabled():
        return None
    folder, path = f"{store.uri}/{VERSIONS}", f"{store.uri}/{VERSION_HINT}"
    try:
        descriptor = os.open(path, _READ)
        try:
            # First the time: who writes meanwhile makes the folder newer than that.
            placed = os.fstat(descriptor).st_ctime_ns
            version = parse_hint(os.read(descriptor, _MAX_BYTES))
        finally:
            os.close(descriptor)
        if version is None:
            return None
        for scheme in (NamingScheme.V2, NamingScheme.V1):
            if os.path.exists(f"{store.uri}/{manifest_path(version, scheme)}"):
                if os.path.exists(f"{store.uri}/{manifest_path(version + 1, scheme)}"):
                    return None
                # Last, so that it speaks for what was seen before.
                changed = os.stat(folder).st_mtime_ns
                return (version, scheme) if 0 <= placed - changed <= _SAME_MOMENT_NS else None
    except OSError:
        pass
    return None


def parse_hint(data: bytes) -> int | None:
    """The version that the content of a hint names; None if it is none."""
    found = _HINT.fullmatch(data)
    return None if found is None else int(found[1])


def write_hint(store: Store, version: int) -> None:
    """Leave the newest version number; best effort.

    Nobody depends on it, so it is not synced to disk, which would be a third of the time of a commit.
    """
    if isinstance(store, LocalStore) and _enabled():
        path = f"{store.uri}/{VERSION_HINT}"
        content = b'{"version":%d}' % version
        with contextlib.suppress(OSError):
            if not _write_over(path, content):
                temporary = f"{store.uri}/{VERSIONS}/{HIDDEN}{os.urandom(8).hex()}.tmp"
                descriptor = os.open(temporary, _CREATE, 0o666)
                try:
                    os.write(descriptor, content)
                finally:
                    os.close(descriptor)
                os.replace(temporary, path)


def _write_over(path: str, content: bytes) -> bool:
    """Write a hint over the one that is there, in a fifth of the time that a new file in its place takes.

    Who reads half of each finds a number of which there is no version, or no newest one.  A file that a copy of the
    table shares stays as it is.
    """
    try:
        descriptor = os.open(path, _WRITE)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_nlink != 1 or status.st_size > len(content):
            return False
        os.utime(os.path.dirname(path))  # the folder changes, too; since the commit much time may have passed
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    return True


def _enabled() -> bool:
    return "LANCE_USE_VERSION_HINT" not in os.environ or (
        os.environ["LANCE_USE_VERSION_HINT"].lower() not in ("0", "false", "off")
    )
