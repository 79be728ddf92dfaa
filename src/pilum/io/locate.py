"""From an address to a store.

A scheme is one entry of `FACTORIES`; what has no scheme is a path of the local file system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.io.local import LocalStore
from pilum.io.memory import MemoryStore
from pilum.io.store import Store

__all__ = ["FACTORIES", "store_for"]

# At least two letters: `C:\data` is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")

StoreFactory = Callable[[str, Mapping[str, str]], Store]


def _file(uri: str, _: Mapping[str, str]) -> Store:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InvalidInputError(f"{uri}: a file address has three slashes, file:///path")
    path = unquote(parts.path)
    if os.name == "nt" and re.match(r"/[A-Za-z]:", path):
        path = path[1:]
    return LocalStore(path)


def _memory(uri: str, _: Mapping[str, str]) -> Store:
    name = uri.partition("://")[2].strip("/")
    if not name:
        raise InvalidInputError("a memory store needs a name: memory://name")
    return MemoryStore(name)


# scheme -> (address, storage options) -> store
FACTORIES: dict[str, StoreFactory] = {"file": _file, "memory": _memory}


def store_for(uri: str | os.PathLike[str], storage_options: Mapping[str, str] | None = None) -> Store:
    """The store at an address.

    Args:
        uri: a path (``~`` is expanded), ``file://`` or ``memory://`` address.
        storage_options: options of the store; the local ones have none and ignore them.

    Raises:
        UnsupportedError: an address of a kind that is not known.
        InvalidInputError: an address that names nothing.
    """
    address = os.fsdecode(os.fspath(uri))
    if not address:
        raise InvalidInputError("the address of a dataset is empty")
    found = _SCHEME.match(address)
    if found is None:
        return LocalStore(address)
    scheme = found[1].lower()
    factory = FACTORIES.get(scheme)
    if factory is None:
        known = ", ".join(f"{name}://" for name in sorted(FACTORIES))
        raise UnsupportedError(
            f"{address}: stores of scheme {scheme}:// are not supported yet (known: {known})"
        )
    return factory(address, storage_options or {})
