"""Threads of a query take turns in Python, and run side by side only where that is worth a hand-over.

NumPy and the operating system let go of the GIL for every array of some hundred elements and every system call.
With two threads at work, each of these moments hands the GIL over and waits to get it back: a scan on two
threads took 215 ms and 290 ms of processor time, where one thread needs 150 ms.  So worker threads hold one lock
of ours, the turn, while they run Python.  Nobody else then waits for the GIL, and letting go of it costs
nothing.  The turn is given up for what is long enough: reading a file, a kernel over a large input
(`leave` and `resume`), and it is not held while a thread waits for work or for another thread.

There is one turn for the process, because there is one GIL.  Threads that are not pilum's never take it.  Code that
holds the turn must not wait for a thread that may need it.
"""

from __future__ import annotations

import os
import threading

__all__ = ["LONG_KERNEL", "LONG_READ", "leave", "resume", "start", "stop"]

LONG_READ = 128 << 10
LONG_KERNEL = 1 << 20
"""Reading, or computing on, this many bytes takes longer than handing the turn over (some 20 µs)."""


# Reentrant only because such a lock knows its owner: an interrupt may come between taking it and noting that.
_turn = threading.RLock()


def start() -> None:
    """Wait for the turn and take it."""
    _turn.acquire()


def stop() -> None:
    """Give the turn back for good; does nothing if this thread does not have it."""
    if _owned():
        _turn.release()


def leave() -> bool:
    """Give the turn up for something long; whether this thread had it, for `resume`."""
    if not _owned():
        return False
    _turn.release()
    return True


def resume(had: bool) -> None:
    """Take the turn again if `leave` gave it up."""
    if had:
        _turn.acquire()


def _owned() -> bool:
    # What `threading.Condition` asks its lock, too; the type stubs do not know it.
    owned: bool = _turn._is_owned()  # type: ignore[attr-defined]
    return owned


def _renew() -> None:
    """The thread that had the turn may not exist in the child."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
