"""Versions that this process has decoded and still uses.

Handles of one version share its manifest: opening a table again, or in another thread, decodes nothing, and a long list
of fragments is in memory once.  Nothing is kept alive by this, and nothing is assumed: the file is read each time, and
its bytes must be those that were decoded.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

from pilum.table.model import Manifest

__all__ = ["find_alive", "note_alive"]


class _Alive(NamedTuple):
    manifest: weakref.ref[Manifest]
    transaction: bytes | None


_known: dict[tuple[str, int], _Alive] = {}


def find_alive(uri: str, version: int, content: bytes) -> tuple[Manifest, bytes | None] | None:
    """The manifest that the bytes of a file hold, and its inline transaction, if somebody uses it."""
    found = _known.get((uri, version))
    manifest = None if found is None else found.manifest()
    if found is None or manifest is None or not manifest.has_bytes(content):
        return None
    return manifest, found.transaction


def note_alive(uri: str, manifest: Manifest, transaction: bytes | None) -> None:
    """Let others have a manifest whose bytes have been noted."""
    key = uri, manifest.version

    def forget(reference: weakref.ref[Manifest]) -> None:
        found = _known.get(key)
        if found is not None and found.manifest is reference:
            _known.pop(key, None)

    _known[key] = _Alive(weakref.ref(manifest, forget), transaction)
