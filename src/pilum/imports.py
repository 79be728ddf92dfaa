"""Late imports that are safe beside ``fork()``.

Much is imported when it is first needed (the write side, protobuf, the SQL parser, codecs), so that ``import pilum``
stays cheap.  Python does not make that safe: a child that is forked while another thread is in the middle of an
import inherits the lock of that module, locked by a thread that does not exist, and hangs when it imports the module
too.  So what is imported late is imported by `load`, and no fork happens meanwhile: it waits until the import is
over.  The imports do not wait for each other, Python's own locks order them; a lock of ours around them would close
a circle with those.

A package that says ``__getattr__, __dir__ = imports.late(__name__, …)`` imports nothing of its own.  ``from package
import name`` finds the name in its module; ``from package import module`` gives a `LateModule`, which is imported
when something is first asked of it: ``module.function(…)``.  That is how code names what only some calls need.
"""

from __future__ import annotations

import logging  # noqa: F401 - for its hook, see below
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["LateModule", "guard", "guarded", "late", "load", "load_all"]

# Owned by this module: what has been imported here, to its end; how many threads import, and how deeply this one.
_complete: set[str] = set()
_importing = 0
_changed = threading.Condition(threading.Lock())
_mine = threading.local()


def guarded() -> bool:
    """Whether this thread is where no fork happens meanwhile."""
    return getattr(_mine, "depth", 0) > 0


@contextmanager
def guard() -> Iterator[None]:
    """No fork happens meanwhile: for calls into libraries that import what they need themselves."""
    global _importing
    depth: int = getattr(_mine, "depth", 0)
    if not depth:
        with _changed:
            _importing += 1
    _mine.depth = depth + 1
    try:
        yield
    finally:
        _mine.depth = depth
        if not depth:
            with _changed:
                _importing -= 1
                _changed.notify_all()


def load(name: str) -> ModuleType:
    """Import a module, or find it."""
    if name in _complete:
        return sys.modules[name]
    with guard():
        module = import_module(name)
        # Asked for on its own way, it is not complete yet.
        if not getattr(module.__spec__, "_initializing", False):
            _complete.add(name)
        return module


def load_all(names: Iterable[str]) -> None:
    """Import modules that functions will import on their way."""
    for name in names:
        if name not in _complete:
            load(name)


class LateModule:
    """A module that is imported when something is first asked of it, and passes for it from then on."""

    __slots__ = ("__dict__", "_path")

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        module = load(self._path)
        self.__dict__ = module.__dict__  # from now on an attribute is found without coming here
        return getattr(module, name)

    def __repr__(self) -> str:
        return f"<late module {self._path!r}>"


def late(
    package: str, modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose modules are imported when they are first needed.

    Args:
        package: its ``__name__``.
        modules: the path of each module below the package, and the names that the package exports from it.
    """
    places = {name: module for module, names in modules.items() for name in names}
    space = vars(sys.modules[package])

    def find(name: str) -> Any:
        value: Any
        if name in places:
            value = getattr(load(f"{package}.{places[name]}"), name)
        elif name in modules:
            value = LateModule(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        space[name] = value
        return value

    def names() -> list[str]:
        return sorted({*space, *places})

    return find, names


def _before_fork() -> None:
    """Wait until no other thread imports; none begins until the fork is over."""
    _changed.acquire()
    mine = 1 if guarded() else 0
    while _importing > mine:
        _changed.wait()


def _after_fork_in_child() -> None:
    """The threads that waited here do not exist."""
    global _changed
    _changed = threading.Condition(threading.Lock())


if hasattr(os, "register_at_fork"):
    # Of these hooks, the ones registered last run first.  That of `logging` takes a lock that many an import needs, so it
    # must run after ours: that is why `logging` is imported above.
    os.register_at_fork(
        before=_before_fork, after_in_parent=lambda: _changed.release(), after_in_child=_after_fork_in_child
    )
