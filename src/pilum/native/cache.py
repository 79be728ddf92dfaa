"""Files with the machine code of kernels, one for each kernel and environment.

    pilum k1 | u32 checksum of what follows | key, content, entry, names, fixups

They lie in ``__pycache__`` beside the kernel's source where that can be written to, else in a folder of the user that
nobody else may write to: what is in them is run.  ``NUMBA_CACHE_DIR`` names another folder.  The environment (the
processor, the versions of Numba and NumPy, the layout of Python's objects) is part of the name; a change of the kernel's
code replaces the file.  One file for each kernel: most processes need ten of fifty, and no writer has to merge what
others wrote.  What cannot be read, is damaged or another kernel's, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from types import FunctionType

import numpy as np

from pilum import imports
from pilum.native.code import Code
from pilum.native.source import Source

__all__ = ["read", "write"]

_MAGIC = b"pilum k1"
_UNSAFE = 0o022  # others may write


def read(source: Source) -> Code | None:
    """The machine code of a kernel, if it is kept."""
    for folder, name in _places(source):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                content = file.read()
        except OSError:
            continue
        code = _parse(content, source.key())
        if code is not None:
            return code
    return None


def write(source: Source, code: Code) -> bool:
    """Keep the machine code of a kernel; False if there is no place for it."""
    content = marshal.dumps((source.key(), code.content, code.entry, code.names, code.fixups))
    content = _MAGIC + zlib.crc32(content).to_bytes(4, "little") + content
    for folder, name in _places(source, make=True):
        path = os.path.join(folder, name)
        part = f"{path}.{os.urandom(4).hex()}"
        try:
            with open(part, "wb") as file:
                file.write(content)
            os.replace(part, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.remove(part)
            continue
        return True
    return False


def _parse(content: bytes, key: bytes) -> Code | None:
    if not content.startswith(_MAGIC) or content[8:12] != zlib.crc32(content[12:]).to_bytes(4, "little"):
        return None
    try:
        kept, *fields = marshal.loads(content[12:])
        return Code(*fields) if kept == key else None
    except (EOFError, ValueError, TypeError):  # of another version of Python or pilum
        return None


def _places(source: Source, *, make: bool = False) -> Iterator[tuple[str, str]]:
    """Folders where the code of a kernel may lie, and its name there; the folders are made if asked for."""
    function = source.function
    assert isinstance(function, FunctionType)
    path = os.path.abspath(function.__code__.co_filename)
    beside, file = os.path.split(path)
    environment = f"{zlib.crc32(_environment()):08x}"
    name = f"{file.removesuffix('.py')}.{source.name}-{environment}.kernel"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if not chosen:
        folder = os.path.join(beside, "__pycache__")
        if make:
            with contextlib.suppress(OSError):
                os.makedirs(folder, exist_ok=True)
        yield folder, name
        chosen = _user_folder()
    for folder in (os.path.join(chosen, "pilum"), os.path.join(chosen, "pilum", _digest(beside))):
        if make:
            with contextlib.suppress(OSError):
                os.makedirs(folder, mode=0o700, exist_ok=True)
        if not _ours(folder):
            return
    yield folder, name


def _digest(path: str) -> str:
    return f"{os.path.basename(path)}-{zlib.crc32(path.encode()):08x}"


def _ours(folder: str) -> bool:
    """Whether nobody else can put files into a folder."""
    try:
        status = os.stat(folder)
    except OSError:
        return False
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & _UNSAFE)


def _user_folder() -> str:
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


@cache
def _environment() -> bytes:
    """What machine code depends on beside its source; found out without importing a compiler."""
    parts = [sys.platform, np.__version__, object.__basicsize__, np.dtype(np.intp).itemsize, _processor()]
    parts += [_content(_folder(package), "_version.py") for package in ("numba", "llvmlite")]
    parts += [_content(os.path.dirname(__file__), name) for name in ("compiler.py", "entry.py", "image.py")]
    parts += sorted(
        item for item in os.environ.items() if item[0].startswith("NUMBA_") and item[0] not in _OTHER
    )
    return repr(parts).encode()


_OTHER = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS")


def _folder(package: str) -> str:
    """Where a package is that need not be imported; an empty text if it is missing."""
    found = PathFinder.find_spec(package)
    places = found.submodule_search_locations if found else None
    return places[0] if places else ""


def _content(folder: str, name: str) -> bytes | None:
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except OSError:
        return None


# The lines of /proc/cpuinfo that say what a processor is, on any kind; not how many there are, or how fast they run now.
_TELLING = (
    b"vendor_id", b"cpu family", b"model", b"stepping", b"flags", b"Features", b"features", b"CPU ", b"cpu\t", b"machine", b"isa",
    b"uarch",
)  # fmt: skip


def _processor() -> list[object]:
    """The processor and what it can do: LLVM uses all of it."""
    lines: list[object] = []
    try:
        with open("/proc/cpuinfo", "rb") as file:
            first = file.read(16 << 10).split(b"\n\n")[0]
        lines += [line for line in first.splitlines() if line.startswith(_TELLING)]
    except OSError:
        pass
    if not lines:
        binding = imports.load("llvmlite.binding")
        lines += [binding.get_host_cpu_name(), *sorted(binding.get_host_cpu_features().items())]
    return lines
