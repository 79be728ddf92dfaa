"""Late imports that are safe beside ``fork()``.

Much is imported when it is first needed (protobuf, the SQL parser, codecs), so that ``import pilum`` stays cheap.
Python does not make that safe: a child that is forked while another thread is in the middle of an import inherits
the lock of that module, locked by a thread that does not exist, and hangs when it imports the module too.  So what
is imported late is imported by `load`, and no fork happens meanwhile: it waits until the import is over.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

__all__ = ["guard", "load", "load_all"]

_lock = threading.RLock()
_complete: set[str] = set()  # owned by this module: what has been imported here, to its end

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def load(name: str) -> ModuleType:
    """Import a module, or find it."""
    if name not in _complete:
        with _lock:
            import_module(name)
            _complete.add(name)
    return sys.modules[name]


def load_all(names: Iterable[str]) -> None:
    """Import modules that functions will import on their way."""
    for name in names:
        if name not in _complete:
            load(name)


@contextmanager
def guard() -> Iterator[None]:
    """No fork happens meanwhile: for calls into libraries that import what they need themselves."""
    with _lock:
        yield
