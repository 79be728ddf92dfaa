"""Storage options of base paths: a table may have files in other places, with other credentials.

```
storage_options     account_key=shared        of the table, and of its bases
                    base_1.account_key=abc    of the base with that id in the manifest, instead of `account_key`
base_store_params   s3://other/place: {...}   of the base at that address, instead of all of these
```

A store carries them, because it opens the others (`Store.elsewhere`); which base has which id it is told by whoever
reads a manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pilum.io.credentials import fetch_options

__all__ = ["BaseOptions", "unscoped"]

Options = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None

_SCOPED = re.compile(r"base_(\d+)\.(.+)", re.IGNORECASE)


def unscoped(options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options without those of single bases."""
    return {name: value for name, value in options.items() if _SCOPED.fullmatch(str(name)) is None}


class BaseOptions:
    """The options for other places than the table's own.

    Args:
        options: storage options of the table, or a function that returns them.
        by_address: options of base paths by their address.
    """

    def __init__(self, options: Options, by_address: Mapping[str, Mapping[str, Any]] | None) -> None:
        self._options = options
        self._by_address = {address.rstrip("/"): own for address, own in (by_address or {}).items()}
        self._ids: dict[str, int] = {}

    def learn(self, by_address: Mapping[str, Mapping[str, Any]]) -> None:
        """Options of further base paths by their address, or other ones."""
        self._by_address.update((address.rstrip("/"), own) for address, own in by_address.items())

    def note(self, bases: Iterable[tuple[str, int]]) -> None:
        """Bases of a manifest: address and id of each."""
        self._ids.update((address.rstrip("/"), number) for address, number in bases)

    def own(self, address: str) -> Options:
        """Options that are meant for one base alone, completed by those of the table; None if there are none."""
        address = address.rstrip("/")
        explicit = self._by_address.get(address)
        if explicit is not None:
            return explicit
        number = self._ids.get(address)
        if number is None or self._options is None:
            return None
        scoped = _Scoped(self._options, number)
        if isinstance(self._options, Mapping):
            return scoped() if scoped.names(self._options) else None
        return scoped

    def inherited(self) -> Options:
        """Options of the table itself."""
        return self._options


class _Scoped:
    """Storage options as one base sees them."""

    def __init__(self, options: Options, number: int) -> None:
        self._options = options
        self._number = number

    def names(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of this base alone."""
        found = {}
        for name, value in options.items():
            scope = _SCOPED.fullmatch(str(name))
            if scope is not None and int(scope[1]) == self._number:
                found[scope[2]] = value
        return found

    def __call__(self) -> dict[str, Any]:
        options = self._options if isinstance(self._options, Mapping) else fetch_options(self._options)
        own = {name.lower(): value for name, value in self.names(options).items()}
        kept = {name: value for name, value in unscoped(options).items() if str(name).lower() not in own}
        return {**kept, **own}
