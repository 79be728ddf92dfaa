"""Operations of index building and compaction: create index, rewrite."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from pilum.errors import InvalidInputError
from pilum.proto.lazy import table_pb2 as pb
from pilum.table.indices import edit_index, holds_addresses, is_system_index, retain_indices, swap_coverage
from pilum.table.model import Fragment, IndexMetadata, Manifest
from pilum.table.operations.base import Operation, number_fragments, require_fragments

__all__ = ["CreateIndex", "Rewrite", "RewriteGroup", "RewrittenIndex"]


@dataclass(frozen=True, slots=True)
class CreateIndex(Operation):
    """Add and remove index entries; dropping an index is removing without adding.

    Attributes:
        new_indices: entries to add.
        removed_indices: entries to remove, found by their uuid.
    """

    kind: ClassVar[str] = "create_index"

    new_indices: tuple[IndexMetadata, ...] = ()
    removed_indices: tuple[IndexMetadata, ...] = ()

    def scope(self, manifest: Manifest) -> frozenset[int]:
        """No fragment: those that are there stay as they are."""
        return frozenset()

    def apply(self, manifest: Manifest) -> Manifest:
        """Remove, then add.  An entry on a column that has been dropped meanwhile is left out."""
        gone = {one.uuid for one in (*self.new_indices, *self.removed_indices)}
        # There is only one system index of a name.
        system = {one.name for one in self.new_indices if is_system_index(one)}
        kept = [
            one
            for one in manifest.indices
            if one.uuid not in gone and not (one.name in system and is_system_index(one))
        ]
        columns = {one.id for one in manifest.schema.walk()}
        added = [one for one in self.new_indices if columns.issuperset(one.fields)]
        return replace(manifest, indices=(*kept, *added))


@dataclass(frozen=True, slots=True)
class RewriteGroup:
    """Fragments and those that take their place, with the same live rows in the same order."""

    old_fragments: tuple[Fragment, ...]
    new_fragments: tuple[Fragment, ...]


@dataclass(frozen=True, slots=True)
class RewrittenIndex:
    """An index segment whose row addresses were translated.

    Attributes:
        old_id: uuid (16 bytes) of the segment.
        new_id: uuid of the translated one.
        details: type URL and encoded message of the new segment; None keeps those of the old one.
        index_version: layout version of the new files.
        files: name and size in bytes of the new files.
    """

    old_id: bytes
    new_id: bytes
    details: tuple[str, bytes] | None = None
    index_version: int = 0
    files: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Rewrite(Operation):
    """Replace fragments by others with the same rows: compaction.

    Attributes:
        groups: what replaces what.
        rewritten_indices: translated index segments (tables without stable row ids).
        frag_reuse_index: entry of the fragment reuse index when translating was put off; not part of the
            stored transaction.
    """

    kind: ClassVar[str] = "rewrite"

    groups: tuple[RewriteGroup, ...]
    rewritten_indices: tuple[RewrittenIndex, ...] = ()
    frag_reuse_index: IndexMetadata | None = field(default=None, compare=False)

    @property
    def touched(self) -> frozenset[int]:
        """Ids of the fragments that go."""
        return frozenset(one.id for group in self.groups for one in group.old_fragments)

    def apply(self, manifest: Manifest) -> Manifest:
        """Put the new fragments in the place of the old ones and translate the indices."""
        touched = self.touched
        if len(touched) != sum(len(group.old_fragments) for group in self.groups):
            raise InvalidInputError("rewrite: a fragment is in two groups")
        require_fragments(manifest, touched, "rewrite")
        added = number_fragments(manifest, [one for group in self.groups for one in group.new_fragments])
        if manifest.uses_stable_row_ids and any(one.row_ids is None for one in added):
            raise InvalidInputError("rewrite: a new fragment does not bring the row ids of its rows")
        kept = tuple([one for one in manifest.fragments if one.id not in touched])
        swaps = []
        position = 0
        for group in self.groups:
            new = added[position : position + len(group.new_fragments)]
            position += len(new)
            swaps.append(([one.id for one in group.old_fragments], [one.id for one in new]))
        indices = self._indices(manifest, swaps)
        return retain_indices(replace(manifest, fragments=kept + added, indices=indices))

    def _indices(
        self, manifest: Manifest, swaps: list[tuple[list[int], list[int]]]
    ) -> tuple[IndexMetadata, ...]:
        translated = {one.old_id: one for one in self.rewritten_indices}
        result = []
        for index in manifest.indices:
            if self.frag_reuse_index is not None and index.name == self.frag_reuse_index.name:
                continue
            if index.uuid in translated:
                index = swap_coverage(_translated(index, translated[index.uuid]), swaps)
            elif manifest.uses_stable_row_ids and not is_system_index(index):
                index = swap_coverage(index, swaps, gain=not holds_addresses(index))
            # Others keep the old ids, which name no fragment any more: they cover none of the new ones.
            result.append(index)
        if self.frag_reuse_index is not None:
            result.append(self.frag_reuse_index)
        return tuple(result)


def _translated(index: IndexMetadata, by: RewrittenIndex) -> IndexMetadata:
    def change(message: pb.IndexMetadata) -> None:
        message.uuid.uuid = by.new_id
        # The new files lie in the table's own folder.
        message.ClearField("base_id")
        message.ClearField("files")
        message.files.extend([pb.IndexFile(path=path, size_bytes=size) for path, size in by.files])
        message.index_version = by.index_version
        if by.details is not None:
            message.index_details.type_url, message.index_details.value = by.details

    return edit_index(index, change)
