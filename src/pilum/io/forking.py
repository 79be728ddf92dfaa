"""What a child must forget after ``fork()``: locks somebody else held, loops and threads that are not there."""

from __future__ import annotations

import os
from collections.abc import Callable

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
