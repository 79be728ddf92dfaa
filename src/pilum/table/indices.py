"""Index entries: made, changed, and pruned when fragments or columns go (spec/table.md, sections 5.4, 8, 16).

Commits carry index entries from version to version without understanding them.  All they need is the name,
the indexed fields and the set of covered fragments; everything else stays in the encoded entry, which every
change here starts from.  Pure.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pilum import distinct
from pilum.errors import CorruptFileError, InvalidInputError
from pilum.proto.lazy import table_pb2 as pb
from pilum.table.model import IndexMetadata, Manifest
from pilum.table.roaring import decode_roaring, encode_roaring

__all__ = [
    "FRAGMENT_REUSE",
    "MEM_WAL",
    "covered_fragments",
    "covering_fields",
    "decode_index",
    "encode_coverage",
    "fields_inside",
    "holds_addresses",
    "index_details",
    "index_files",
    "is_system_index",
    "new_index",
    "retain_indices",
    "uncover",
    "with_coverage",
    "without_coverage_of_fields",
]

FRAGMENT_REUSE = "__lance_frag_reuse"
MEM_WAL = "__lance_mem_wal"
_SYSTEM_PREFIX = "__lance_"

# Kinds whose entries are physical addresses even in a table with stable row ids.
_BY_ADDRESS = ("zonemapindexdetails", "bloomfilterindexdetails")


def decode_index(message: pb.IndexMetadata) -> IndexMetadata:
    """The value of an index entry."""
    return IndexMetadata(
        uuid=message.uuid.uuid,
        name=message.name,
        fields=tuple(message.fields),
        dataset_version=message.dataset_version,
        fragment_bitmap=message.fragment_bitmap,
        message=message.SerializeToString(),
    )


def new_index(
    name: str,
    fields: Sequence[int],
    dataset_version: int,
    fragments: Iterable[int],
    *,
    details: tuple[str, bytes],
    index_version: int = 0,
    created_at_ms: int | None = None,
    files: Sequence[tuple[str, int]] = (),
    uuid: bytes | None = None,
) -> IndexMetadata:
    """A new index entry.

    Args:
        name: of the index; entries of one name are its segments.
        fields: indexed field ids.
        dataset_version: version whose data the segment was built from.
        fragments: ids of the covered fragments.
        details: type URL and encoded message that describe the kind of index.
        index_version: of the layout of its files.
        created_at_ms: milliseconds since the epoch.
        files: name and size in bytes of the files in its folder.
        uuid: 16 bytes that name the folder; by default random.
    """
    message = pb.IndexMetadata(name=name, fields=fields, dataset_version=dataset_version)
    message.uuid.uuid = uuids.uuid4().bytes if uuid is None else uuid
    message.fragment_bitmap = encode_coverage(fragments)
    message.index_details.type_url, message.index_details.value = details
    message.index_version = index_version
    if created_at_ms is not None:
        message.created_at = created_at_ms
    message.files.extend([pb.IndexFile(path=path, size_bytes=size) for path, size in files])
    return decode_index(message)


def edit_index(index: IndexMetadata, change: Callable[[pb.IndexMetadata], None]) -> IndexMetadata:
    """The entry after a change to its message."""
    message = pb.IndexMetadata.FromString(index.message)
    change(message)
    return decode_index(message)


def index_details(index: IndexMetadata) -> tuple[str, bytes]:
    """Type URL and encoded message that describe the kind of an index."""
    details = pb.IndexMetadata.FromString(index.message).index_details
    return details.type_url, details.value


def index_files(index: IndexMetadata) -> list[tuple[str, int]]:
    """Name and size of the files of a segment; empty when the entry does not list them."""
    return [(one.path, one.size_bytes) for one in pb.IndexMetadata.FromString(index.message).files]


def covering_fields(index: IndexMetadata) -> tuple[int, ...]:
    """Ids of the fields whose values the index carries along beside its keys; release 14 lists them in ``fields`` too."""
    return tuple(pb.IndexMetadata.FromString(index.message).covering_fields)


def fields_inside(index: IndexMetadata) -> frozenset[int]:
    """Ids of the fields whose values are in the index, as keys or carried along."""
    return frozenset(index.fields).union(covering_fields(index))


def index_base(index: IndexMetadata) -> int | None:
    """Base path in which the folder of a segment lies; None is the table's own ``_indices``."""
    message = pb.IndexMetadata.FromString(index.message)
    return message.base_id if message.HasField("base_id") else None


def is_system_index(index: IndexMetadata) -> bool:
    """Whether an entry is bookkeeping of the format rather than an index of a user."""
    return index.name.startswith(_SYSTEM_PREFIX) and not index.fields


def holds_addresses(index: IndexMetadata) -> bool:
    """Whether the index knows rows by address even where rows have stable ids."""
    return index_details(index)[0].lower().endswith(_BY_ADDRESS)


# -- coverage ------------------------------------------------------------------------------------------


def encode_coverage(fragments: Iterable[int]) -> bytes:
    """The bitmap of some fragment ids."""
    return encode_roaring(distinct.unique(np.fromiter(fragments, np.uint32)))


def covered_fragments(index: IndexMetadata) -> frozenset[int] | None:
    """Ids of the fragments that a segment covers, gone ones included; None when that is not recorded.

    Raises:
        CorruptFileError: the bitmap contradicts its format.
    """
    if not index.fragment_bitmap:
        return None
    return frozenset(decode_roaring(index.fragment_bitmap, f"index {index.name}").tolist())


def with_coverage(index: IndexMetadata, fragments: Iterable[int]) -> IndexMetadata:
    """The entry with another set of covered fragments."""
    bitmap = encode_coverage(fragments)

    def change(message: pb.IndexMetadata) -> None:
        message.fragment_bitmap = bitmap

    return edit_index(index, change)


def uncover(index: IndexMetadata, fragments: Iterable[int]) -> IndexMetadata:
    """The entry without some fragments; unknown coverage stays unknown."""
    covered = covered_fragments(index)
    gone = frozenset(fragments)
    if covered is None or covered.isdisjoint(gone):
        return index
    return with_coverage(index, covered - gone)


def without_coverage_of_fields(manifest: Manifest, changed: Mapping[int, frozenset[int]]) -> Manifest:
    """Take fragments out of the indices on columns that were rewritten in them.

    Args:
        manifest: the state.
        changed: fragment id -> ids of the fields that have new values there.
    """
    if not manifest.indices or not changed:
        return manifest
    return replace(
        manifest,
        indices=tuple(
            [
                uncover(
                    index,
                    [one for one, fields in changed.items() if not fields.isdisjoint(fields_inside(index))],
                )
                for index in manifest.indices
            ]
        ),
    )


def swap_coverage(
    index: IndexMetadata, groups: Iterable[tuple[Iterable[int], Iterable[int]]], *, gain: bool = True
) -> IndexMetadata:
    """The entry after fragments were rewritten into others.

    Args:
        index: the entry.
        groups: ids of the old and of the new fragments of each group.
        gain: whether the index knows the rows in their new place.

    Raises:
        InvalidInputError: a group mixes covered and uncovered fragments.
    """
    covered = covered_fragments(index)
    if covered is None:
        return index
    result = set(covered)
    for old, new in groups:
        ids = frozenset(old)
        inside = ids & covered
        if not inside:
            continue
        if gain and inside != ids:
            raise InvalidInputError(
                f"rewrite: index {index.name} covers fragment {min(inside)} but not {min(ids - inside)}, "
                "which are rewritten together"
            )
        result -= ids
        if gain:
            result.update(new)
    return index if result == covered else with_coverage(index, result)


def retain_indices(manifest: Manifest) -> Manifest:
    """Drop the entries that lost a column, and segments that cover no fragment any more.

    Of the segments of one index those without a covered fragment go as long as another one has some; when
    none has, the oldest stays, so that the index itself does not vanish.
    """
    if not manifest.indices:
        return manifest
    columns = {field.id for field in manifest.schema.walk()}
    live: npt.NDArray[np.uint32] | None = None
    named: dict[str, list[IndexMetadata]] = {}
    for index in manifest.indices:
        if not is_system_index(index) and columns.issuperset(index.fields):
            named.setdefault(index.name, []).append(index)
    kept: set[bytes] = set()
    for segments in named.values():
        if len(segments) == 1:
            kept.add(segments[0].uuid)
            continue
        if live is None:
            unseen = () if manifest.unseen is None else manifest.unseen()
            live = np.array([*(fragment.id for fragment in manifest.fragments), *unseen], dtype=np.uint32)
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
    return bool(len(distinct.intersection(covered, live)))
