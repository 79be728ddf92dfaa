"""How much a running scan may hold: a share of the process's budget.

Results decoded ahead of a slow consumer, of many scans at once, must not add up.  A scan asks when it starts how
many bytes it may have in flight and decoded but not consumed: its own limit (`io_buffer_size`), or an equal share
of the process's budget (`pilum.config.io_buffer_size`) among the scans that run, whichever is smaller.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pilum import config
from pilum.io.forking import on_fork

__all__ = ["Share", "scan_share", "share_alone"]

# What a scan uses when it is alone: enough to keep the cores busy, or some thirty connections with requests of 8 MiB (at
# 50 MB a second each, 128 MiB took half as long again).
_LOCAL = 64 << 20
_REMOTE = 256 << 20

_lock = threading.Lock()
_running = 0


@on_fork
def _start_anew() -> None:
    global _lock, _running
    _lock = threading.Lock()
    _running = 0


def share_alone(limit: int | None, *, suspends: bool, running: int = 1) -> int:
    """Bytes that a scan may hold when so many run, itself included; arguments as `scan_share`."""
    most = (_REMOTE if suspends else _LOCAL) if limit is None else limit
    return max(1, min(config.io_buffer_size() // running, most))


class Share:
    """What a running scan may hold.

    Args:
        limit: the scan's own limit, if it has one.
        suspends: whether its store may wait for the network.
    """

    __slots__ = ("_limit", "_suspends")

    def __init__(self, limit: int | None, suspends: bool) -> None:
        self._limit = limit
        self._suspends = suspends

    @property
    def nbytes(self) -> int:
        """Bytes, as of now."""
        return share_alone(self._limit, suspends=self._suspends, running=max(1, _running))


@contextmanager
def scan_share(limit: int | None, *, suspends: bool) -> Iterator[Share]:
    """The share of a scan that runs inside the ``with`` block; it shrinks when others start and grows when they end.

    Args:
        limit: the scan's own limit, if it has one.
        suspends: whether its store may wait for the network.
    """
    global _running
    with _lock:
        _running += 1
    try:
        yield Share(limit, suspends)
    finally:
        with _lock:
            _running = max(0, _running - 1)
