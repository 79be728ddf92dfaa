"""Every error that pilum raises on purpose.

Each class derives from `PilumError` and from the builtin a caller would expect, so both
``except PilumError`` and ``except ValueError`` work.  A message says what was wrong, where
(path, column, page, offset), what was expected and, where there is one, the remedy.
"""

from __future__ import annotations

import pyarrow as pa

__all__ = [
    "AlreadyExistsError",
    "CommitConflictError",
    "CorruptFileError",
    "ExecutionError",
    "InvalidInputError",
    "NotFoundError",
    "PilumError",
    "RetryTimeoutError",
    "StoreError",
    "UnsupportedError",
    "located",
]


class PilumError(Exception):
    """Base class of all errors raised by pilum."""


class InvalidInputError(PilumError, OSError, ValueError):
    """The caller asked for something impossible (bad column, filter, range, schema).

    The reference raises `ValueError` for such mistakes while planning a read and `OSError`
    in mutating calls; this class is both.
    """


class NotFoundError(PilumError, FileNotFoundError, ValueError):
    """A dataset, version, file or tag does not exist."""


class AlreadyExistsError(PilumError, FileExistsError, ValueError):
    """Something that must not exist does (`mode="create"`, put-if-absent).

    Attributes:
        certain: for a put-if-absent, whether somebody else made the object; if not, this very call may have made it
            at an earlier attempt whose answer was lost.
    """

    def __init__(self, *message: object, certain: bool = False) -> None:
        super().__init__(*message)
        self.certain = certain


class CorruptFileError(PilumError, OSError, ValueError):
    """The bytes of a file contradict the format."""


class UnsupportedError(PilumError, NotImplementedError, ValueError):
    """The file or the call is valid but uses a feature that pilum does not have (yet)."""


class StoreError(PilumError, OSError):
    """The object store or the disk failed: short read, refused connection, permission."""


class ExecutionError(PilumError, pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow is untyped
    """Evaluating an expression failed on the data (division by zero, failed cast).

    It is an `ArrowInvalid`, and so a `ValueError`, as callers of Arrow streams expect.
    """


class RetryTimeoutError(PilumError, TimeoutError):
    """An operation that lost races against other writers was not finished in its time."""


class CommitConflictError(PilumError, OSError):
    """Another writer committed something that this commit cannot stand beside.

    Attributes:
        retryable: whether re-running the operation on the newest version can succeed.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


def located(
    message: str,
    *,
    path: str | None = None,
    column: str | int | None = None,
    page: int | None = None,
    offset: int | None = None,
) -> str:
    """Append the known parts of a location to ``message``: path, column, page, offset."""
    where = [
        f"{name} {value}"
        for name, value in (("file", path), ("column", column), ("page", page), ("offset", offset))
        if value is not None
    ]
    return f"{message} ({', '.join(where)})" if where else message
