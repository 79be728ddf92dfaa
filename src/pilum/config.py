"""Settings from the environment, read when they are asked for (spec/read-path.md, section 16).

One function for each variable: a process may change the environment between two queries.  The names are
those of the reference, so that a deployment's settings keep working.
"""

from __future__ import annotations

import os

from pilum.errors import InvalidInputError

__all__ = [
    "cpu_threads",
    "default_batch_size",
    "default_fragment_readahead",
    "inline_scheduling_threshold",
    "io_buffer_size",
    "io_parallelism",
    "max_request_size",
]

MIB = 1 << 20


def default_fragment_readahead() -> int | None:
    """Fragments opened ahead by a scan (``LANCE_DEFAULT_FRAGMENT_READAHEAD``); None when unset."""
    return _integer("LANCE_DEFAULT_FRAGMENT_READAHEAD")


def default_batch_size() -> int | None:
    """Most rows of a batch (``LANCE_DEFAULT_BATCH_SIZE``); None when unset."""
    return _integer("LANCE_DEFAULT_BATCH_SIZE")


def inline_scheduling_threshold() -> int:
    """Rows up to which a read is scheduled inline (``LANCE_INLINE_SCHEDULING_THRESHOLD``, 16384)."""
    found = _integer("LANCE_INLINE_SCHEDULING_THRESHOLD", minimum=0)
    return 16_384 if found is None else found


def io_parallelism(default: int) -> int:
    """Requests in flight for a store (``LANCE_IO_THREADS``), or the store's own ``default``."""
    return _integer("LANCE_IO_THREADS") or default


def max_request_size() -> int:
    """Largest single read request in bytes (``LANCE_MAX_IOP_SIZE``, 16 MiB)."""
    return _integer("LANCE_MAX_IOP_SIZE") or 16 * MIB


def io_buffer_size() -> int:
    """Bytes of the process that may be in flight (``LANCE_DEFAULT_IO_BUFFER_SIZE``, 256 MiB)."""
    return _integer("LANCE_DEFAULT_IO_BUFFER_SIZE") or 256 * MIB


def cpu_threads() -> int:
    """Threads that compute (``LANCE_CPU_THREADS``, or the processors this process may use)."""
    found = _integer("LANCE_CPU_THREADS")
    if found is not None:
        return found
    process_cpu_count = getattr(os, "process_cpu_count", None)  # Python 3.13
    if process_cpu_count is not None:
        return process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _integer(name: str, *, minimum: int = 1) -> int | None:
    """The value of a variable; None when it is unset or empty.

    Raises:
        InvalidInputError: it is not an integer of at least ``minimum``.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if value < minimum:
        raise InvalidInputError(
            f"environment variable {name} must be an integer of at least {minimum}, got {text!r}"
        )
    return value
