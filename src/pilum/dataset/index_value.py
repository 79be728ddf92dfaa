"""Index entries of a version as values (spec/api.md, section 7; spec/table.md, section 5.4).

pilum carries the indices of other writers through its commits; here they become visible.  Building, loading
and searching them is not the business of this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pilum.dataset.bitmap import Bitmap
from pilum.errors import InvalidInputError
from pilum.table import IndexMetadata, Manifest, covered_fragments, index_details, new_index

__all__ = [
    "Index",
    "IndexDescription",
    "IndexFile",
    "describe_indices",
    "index_of",
    "list_indices",
    "stored_index",
]


@dataclass
class IndexFile:
    """A file of an index.

    Attributes:
        path: below the folder of the index.
        size_bytes: its size.
    """

    path: str
    size_bytes: int


@dataclass
class Index:
    """A segment of an index.

    Attributes:
        uuid: names the segment and its folder.
        name: of the index.
        fields: ids of the indexed fields.
        dataset_version: version it was built from.
        fragment_ids: fragments it covers.
        index_version: layout of its files.
        created_at: when it was built.
        base_id: base path its folder lies in, None for the dataset itself.
        files: what is in the folder, None when that is not recorded.
        index_details: type URL and encoded message that say what kind of index it is.
        covering_fields: ids of fields whose values the index holds beside its keys.
    """

    uuid: str
    name: str
    fields: list[int]
    dataset_version: int
    fragment_ids: Bitmap
    index_version: int
    created_at: datetime | None = None
    base_id: int | None = None
    files: list[IndexFile] | None = None
    index_details: tuple[str, bytes] | None = None
    covering_fields: list[int] = field(default_factory=list)
    # The complete entry: what else it holds survives a commit.
    _stored: IndexMetadata | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class IndexDescription:
    """An index with all its segments.

    Attributes:
        name: of the index.
        type_url: kind, as stored.
        num_rows_indexed: rows of the covered fragments that are still there.
        fields: ids of the indexed fields.
        field_names: their paths.
        num_segments: number of segments.
        total_size_bytes: bytes of all files, None when that is not recorded.
        segments: the segments.
    """

    name: str
    type_url: str
    num_rows_indexed: int
    fields: list[int]
    field_names: list[str]
    num_segments: int
    total_size_bytes: int | None
    segments: list[Index] = field(repr=False)

    @property
    def index_type(self) -> str:
        """Kind of the index, such as ``BTree`` or ``IVF_PQ``; ``Vector`` where the entry does not say more."""
        return _kind(self.type_url)


def index_of(stored: IndexMetadata) -> Index:
    """An index entry as users see it."""
    from pilum.proto import table_pb2

    message = table_pb2.IndexMetadata.FromString(stored.message)
    covered = covered_fragments(stored)
    return Index(
        str(UUID(bytes=stored.uuid)),
        stored.name,
        list(stored.fields),
        stored.dataset_version,
        Bitmap(covered or ()),
        message.index_version,
        datetime.fromtimestamp(message.created_at / 1000, UTC) if message.HasField("created_at") else None,
        message.base_id if message.HasField("base_id") else None,
        [IndexFile(one.path, one.size_bytes) for one in message.files] or None,
        (message.index_details.type_url, message.index_details.value)
        if message.HasField("index_details")
        else None,
        list(message.covering_fields),
        stored,
    )


def stored_index(given: Index) -> IndexMetadata:
    """An index entry that a user hands over.

    Raises:
        TypeError: it is not an `Index`.
        InvalidInputError: its uuid is not one, or it does not say what kind of index it is.
    """
    if not isinstance(given, Index):
        raise TypeError(f"expected an Index, got {type(given).__name__}")
    if given._stored is not None and given == index_of(given._stored):
        return given._stored
    if given.index_details is None:
        raise InvalidInputError(f"index {given.name!r}: index_details must say what kind of index it is")
    try:
        uuid = UUID(given.uuid).bytes
    except ValueError as error:
        raise InvalidInputError(f"index {given.name!r}: {given.uuid!r} is not a uuid") from error
    return new_index(
        given.name,
        given.fields,
        given.dataset_version,
        given.fragment_ids,
        details=given.index_details,
        index_version=given.index_version,
        created_at_ms=None if given.created_at is None else int(given.created_at.timestamp() * 1000),
        files=[(one.path, one.size_bytes) for one in given.files or ()],
        uuid=uuid,
    )


def _kind(type_url: str) -> str:
    name = type_url.rpartition(".")[2].rpartition("/")[2].removesuffix("IndexDetails")
    return re.sub(r"Fts|Inverted", "Inverted", name) or "Unknown"


def _paths(manifest: Manifest, fields: Iterable[int]) -> list[str]:
    paths: dict[int, str] = {}

    def walk(one: Any, above: str) -> None:
        paths[one.id] = above + one.name
        for child in one.children:
            walk(child, paths[one.id] + ".")

    for top in manifest.schema.fields:
        walk(top, "")
    return [paths.get(one, f"<field {one}>") for one in fields]


def list_indices(manifest: Manifest) -> list[dict[str, Any]]:
    """The segments of all indices, those of the format included, one dictionary each."""
    return [
        {
            "name": one.name,
            "type": _kind(index_details(one)[0]),
            "uuid": str(UUID(bytes=one.uuid)),
            "fields": _paths(manifest, one.fields),
            "version": one.dataset_version,
            "fragment_ids": Bitmap(covered_fragments(one) or ()),
            "base_id": index_of(one).base_id,
        }
        for one in manifest.indices
    ]


def describe_indices(manifest: Manifest) -> list[IndexDescription]:
    """The indices, those of the format included, each with its segments."""
    groups: dict[str, list[IndexMetadata]] = {}
    for one in manifest.indices:
        groups.setdefault(one.name, []).append(one)
    rows = {one.id: one.num_rows for one in manifest.fragments}
    result = []
    for name, stored in groups.items():
        segments = [index_of(one) for one in stored]
        covered = frozenset().union(*(frozenset(one.fragment_ids) for one in segments))
        sizes = [file.size_bytes for one in segments for file in one.files or ()]
        known = all(one.files for one in segments)
        result.append(
            IndexDescription(
                name,
                index_details(stored[0])[0],
                sum(rows.get(one, 0) for one in covered),
                list(stored[0].fields),
                _paths(manifest, stored[0].fields),
                len(segments),
                sum(sizes) if known else None,
                segments,
            )
        )
    return result
