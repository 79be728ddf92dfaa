"""What a child must forget after ``fork()``: locks somebody else held, loops and threads that are not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pyarrow as pa

__all__ = ["generation", "on_fork"]

_generation = 0


def generation() -> int:
    """How many forks lie between this process and the one that imported pilum.

    Cheaper than a process id to tell whether an object was made before a fork.
    """
    return _generation


def on_fork(hook: Callable[[], None]) -> Callable[[], None]:
    """Call ``hook`` in every child after a fork (decorator)."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=hook)
    return hook


@on_fork
def _count() -> None:
    global _generation
    _generation += 1


# Arrow allocates with mimalloc, whose lock of its page map knows nothing of forks: one that another thread held is
# locked for ever in the child, which hangs at some later allocation (one fork in a thousand of a parent with eight
# reading threads).  The allocator of the C library does survive forks, so such children use that.
_threads = 1


def _note_threads() -> None:
    global _threads
    _threads = threading.active_count()


def _allocate_safely() -> None:
    if _threads > 1 and pa.default_memory_pool().backend_name == "mimalloc":
        pa.set_memory_pool(pa.system_memory_pool())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_note_threads, after_in_child=_allocate_safely)
