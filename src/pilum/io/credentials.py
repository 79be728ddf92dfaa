"""Credentials that expire: asked for when they are needed, renewed before they end or when they are refused.

The user gives a function that returns storage options (`pilum.dataset(..., storage_options=function)`), among them
``expires_at_millis``.  The client asks before requests, by a callback that comes from a thread of its own; here the
answer is kept until ``refresh_offset_millis`` before it expires.  Functions of the client library's own kind, which
return its credentials, are given as the option ``credential_provider``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pilum.errors import InvalidInputError
from pilum.io.forking import on_fork

__all__ = ["OptionsProvider", "RenewableCredentials", "fetch_options"]

# The client keeps a credential that is about to expire for a tenth of a second only: it asks, we remember.
_LEASE = timedelta(seconds=1)
_REFRESH_OFFSET = 60_000

OptionsProvider = Callable[[], Mapping[str, Any]]


def fetch_options(provider: Any) -> dict[str, Any]:
    """The storage options that a provider has now.

    Args:
        provider: a function without arguments, or an object with ``fetch_storage_options``.

    Raises:
        InvalidInputError: it did not return a mapping.
    """
    found = getattr(provider, "fetch_storage_options", provider)()
    if not isinstance(found, Mapping):
        raise InvalidInputError(
            f"a provider of storage options returned {type(found).__name__}, not a mapping"
        )
    return {str(name).lower(): value for name, value in found.items()}


class RenewableCredentials:
    """A callback for the client library that hands out credentials of a provider.

    Args:
        provider: see `fetch_options`.
        convert: from storage options to what the library calls a credential, without its expiry.
        first: options that were fetched already.
    """

    def __init__(
        self, provider: Any, convert: Callable[[Mapping[str, Any]], dict[str, Any]], first: Mapping[str, Any]
    ) -> None:
        self._provider = provider
        self._convert = convert
        self._lock = threading.Lock()
        self._options: Mapping[str, Any] | None = first
        _all_locks.append(self)

    def __call__(self) -> dict[str, Any]:
        """The credential to use now."""
        with self._lock:
            if self._options is None or _expired(self._options):
                self._options = fetch_options(self._provider)
            credential = self._convert(self._options)
        credential["expires_at"] = datetime.now(UTC) + _LEASE
        return credential

    def renew(self) -> None:
        """The credential was refused: ask for another."""
        with self._lock:
            self._options = None

    def _forget_lock(self) -> None:
        self._lock = threading.Lock()


_all_locks: list[RenewableCredentials] = []


@on_fork
def _renew_locks() -> None:
    for one in _all_locks:
        one._forget_lock()


def _expired(options: Mapping[str, Any]) -> bool:
    expires = options.get("expires_at_millis")
    if expires is None:
        return False
    offset = options.get("refresh_offset_millis", _REFRESH_OFFSET)
    try:
        return time.time() * 1e3 >= float(expires) - float(offset)
    except ValueError:
        raise InvalidInputError(f"expires_at_millis must be a number, got {expires!r}") from None
