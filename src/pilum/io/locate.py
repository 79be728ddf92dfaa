"""From an address to a store.

A scheme is one entry of `FACTORIES`; what has no scheme is a path of the local file system.  Instead of an address
there may be the thing itself: one of our stores, a store of obstore, or a folder of an fsspec file system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from pilum import imports
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.io import base_options, memory
from pilum.io.local import LocalStore
from pilum.io.store import Store

__all__ = ["FACTORIES", "address_suspends", "store_for"]

# At least two letters: `C:\data` is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")

StoreFactory = Callable[[str, Any], Store]


def _file(uri: str, _: Any) -> Store:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InvalidInputError(f"{uri}: a file address has three slashes, file:///path")
    path = unquote(parts.path)
    if os.name == "nt" and re.match(r"/[A-Za-z]:", path):
        path = path[1:]
    return LocalStore(path)


def _memory(uri: str, _: Any) -> Store:
    name = uri.partition("://")[2].strip("/")
    if not name:
        raise InvalidInputError("a memory store needs a name: memory://name")
    return memory.MemoryStore(name)


def _remote(uri: str, options: Any) -> Store:
    store: Store = imports.load("pilum.io.cloud").remote_store(uri, options)
    return store


_REMOTE = ("s3", "s3a", "s3+ddb", "gs", "az", "abfs", "abfss", "adl", "http", "https")

# scheme -> (address, storage options) -> store
FACTORIES: dict[str, StoreFactory] = {
    "file": _file,
    "file-object-store": lambda uri, options: _file(uri.replace("file-object-store:", "file:", 1), options),
    "memory": _memory,
    **dict.fromkeys(_REMOTE, _remote),
}


def store_for(
    uri: Any,
    storage_options: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    base_store_params: Mapping[str, Mapping[str, Any]] | None = None,
) -> Store:
    """The store at an address.

    Args:
        uri: a path (``~`` is expanded) or an address with a scheme; or a store: one of `pilum.io`, one of obstore,
            or a folder of an fsspec file system (``fs.get_mapper(folder)``, or a ``UPath``).
        storage_options: options of the store, or a function that returns them and is asked again when they
            expire (`pilum.io.storage_options`); local stores have none and ignore them.  A store that the caller
            made takes those of the cache on disk alone.
        base_store_params: options of other places that a table refers to, by their address; see `BaseOptions`.

    Raises:
        UnsupportedError: an address of a kind that is not known.
        InvalidInputError: an address that names nothing.
    """
    store = _store_at(uri, storage_options)
    if storage_options or base_store_params:
        store.base_options = base_options.BaseOptions(storage_options or None, base_store_params)
    return store


def _store_at(uri: Any, storage_options: Any) -> Store:
    if isinstance(uri, Store):
        return uri
    if not isinstance(uri, (str, os.PathLike)) or hasattr(uri, "fs"):
        given: Store = imports.load("pilum.io.foreign").foreign_store(uri)
        if isinstance(storage_options, Mapping):
            settings = imports.load("pilum.io.storage_options").cache_settings(storage_options)
            given = imports.load("pilum.io.cached").with_cache(given, settings)
        return given
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
    return factory(address, storage_options or None)


def address_suspends(uri: Any) -> bool:
    """Whether the store at an address may wait for the network; opens nothing."""
    if isinstance(uri, Store):
        return uri.suspends
    if not isinstance(uri, (str, os.PathLike)) or hasattr(uri, "fs"):
        return True
    found = _SCHEME.match(os.fsdecode(os.fspath(uri)))
    return found is not None and found[1].lower() in _REMOTE
