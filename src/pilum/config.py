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
    "dictionary_compression",
    "dictionary_compression_level",
    "dictionary_divisor",
    "dictionary_max_cardinality",
    "dictionary_size_ratio",
    "dictionary_too_small",
    "initial_upload_size",
    "inline_scheduling_threshold",
    "io_buffer_size",
    "io_parallelism",
    "max_request_size",
    "miniblock_max_values",
    "minichunk_size",
    "upload_concurrency",
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


def initial_upload_size() -> int:
    """Bytes up to which a new object is written by one request (``LANCE_INITIAL_UPLOAD_SIZE``, 5 MiB)."""
    found = _integer("LANCE_INITIAL_UPLOAD_SIZE") or 5 * MIB
    return min(max(found, 5 * MIB), (5 << 30) - 1)


def upload_concurrency() -> int:
    """Parts of an upload in flight (``LANCE_UPLOAD_CONCURRENCY``, 10)."""
    return _integer("LANCE_UPLOAD_CONCURRENCY") or 10


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


def miniblock_max_values() -> int:
    """Values of a mini-block chunk at most (``LANCE_MINIBLOCK_MAX_VALUES``, 4096; up to 32768)."""
    return min(_integer("LANCE_MINIBLOCK_MAX_VALUES") or 4096, 32_768)


def minichunk_size() -> int:
    """Bytes that a chunk of variable-width values aims at (``LANCE_BINARY_MINIBLOCK_CHUNK_SIZE``, 4096)."""
    return _integer("LANCE_BINARY_MINIBLOCK_CHUNK_SIZE") or 4096


def dictionary_too_small() -> int:
    """Pages of fewer values get no dictionary (``LANCE_ENCODING_DICT_TOO_SMALL``, 100)."""
    found = _integer("LANCE_ENCODING_DICT_TOO_SMALL", minimum=0)
    return 100 if found is None else found


def dictionary_divisor() -> int:
    """Values per dictionary entry at least (``LANCE_ENCODING_DICT_DIVISOR``, 2)."""
    return _integer("LANCE_ENCODING_DICT_DIVISOR") or 2


def dictionary_max_cardinality() -> int:
    """Entries of a dictionary at most (``LANCE_ENCODING_DICT_MAX_CARDINALITY``, 100000)."""
    found = _integer("LANCE_ENCODING_DICT_MAX_CARDINALITY", minimum=0)
    return 100_000 if found is None else found


def dictionary_size_ratio() -> float:
    """Share of the plain size that a dictionary page may have (``LANCE_ENCODING_DICT_SIZE_RATIO``, 0.8)."""
    text = os.environ.get("LANCE_ENCODING_DICT_SIZE_RATIO", "").strip()
    try:
        return float(text) if text else 0.8
    except ValueError:
        raise InvalidInputError(
            f"environment variable LANCE_ENCODING_DICT_SIZE_RATIO must be a number, got {text!r}"
        ) from None


def dictionary_compression() -> str:
    """Compression of dictionary values (``LANCE_ENCODING_DICT_VALUES_COMPRESSION``, lz4)."""
    return os.environ.get("LANCE_ENCODING_DICT_VALUES_COMPRESSION", "").strip().lower() or "lz4"


def dictionary_compression_level() -> int | None:
    """Its level (``LANCE_ENCODING_DICT_VALUES_COMPRESSION_LEVEL``); None when unset."""
    return _integer("LANCE_ENCODING_DICT_VALUES_COMPRESSION_LEVEL", minimum=-100)


def _integer(name: str, *, minimum: int = 1) -> int | None:
    """The value of a variable; None when it is unset or empty.

    Raises:
        InvalidInputError: it is not an integer of at least ``minimum``.
    """
    # To ask first is three times as fast as an exception inside `get`.
    text = os.environ[name].strip() if name in os.environ else ""
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
