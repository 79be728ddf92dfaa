"""Which index entries survive when fragments or columns go (spec/table.md, sections 8 and 16).

Commits carry index entries from version to version without understanding them.  All they need is the name,
the indexed fields and the set of covered fragments.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pilum.errors import CorruptFileError
from pilum.table.model import IndexMetadata, Manifest
from pilum.table.roaring import decode_roaring

__all__ = ["is_system_index", "retain_indices"]

_SYSTEM_PREFIX = "__lance_"


def is_system_index(index: IndexMetadata) -> bool:
    """Whether an entry is bookkeeping of the format rather than an index of a user."""
    return index.name.startswith(_SYSTEM_PREFIX) and not index.fields


def retain_indices(manifest: Manifest) -> Manifest:
    """Drop the entries that lost a column, and segments that cover no fragment any more.

    Of the segments of one index those without a covered fragment go as long as another one has some; when
    none has, the oldest stays, so that the index itself does not vanish.
    """
    if not manifest.indices:
        return manifest
    columns = {field.id for field in manifest.schema.walk()}
    live = np.array([fragment.id for fragment in manifest.fragments], dtype=np.uint32)
    named: dict[str, list[IndexMetadata]] = {}
    for index in manifest.indices:
        if not is_system_index(index) and columns.issuperset(index.fields):
            named.setdefault(index.name, []).append(index)
    kept: set[bytes] = set()
    for segments in named.values():
        covering = [index for index in segments if _covers(index, live)]
        kept.update(index.uuid for index in covering or [min(segments, key=lambda one: one.dataset_version)])
    remaining = tuple([one for one in manifest.indices if one.uuid in kept or is_system_index(one)])
    return manifest if len(remaining) == len(manifest.indices) else replace(manifest, indices=remaining)


def _covers(index: IndexMetadata, live: npt.NDArray[np.uint32]) -> bool:
    if not index.fragment_bitmap:
        return True  # coverage unknown
    try:
        covered = decode_roaring(index.fragment_bitmap, f"index {index.name}")
    except CorruptFileError:
        return True  # not ours to judge; keep it
    return bool(np.isin(covered, live).any())
