"""Operations that bring, change and remove rows: append, delete, update, overwrite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pilum.errors import InvalidInputError
from pilum.schema import Schema
from pilum.table.indices import (
    covered_fragments,
    fields_inside,
    retain_indices,
    with_coverage,
    without_coverage_of_fields,
)
from pilum.table.lineage import fragment_row_ids, mark_updated
from pilum.table.model import BasePath, Fragment, Manifest
from pilum.table.operations.base import Operation, number_fragments, require_fragments, with_new_fragments
from pilum.table.row_ids import RowIdSequence, decode_row_ids

__all__ = ["REWRITE_COLUMNS", "REWRITE_ROWS", "Append", "Delete", "KeyFilter", "Overwrite", "Update"]

# How an update was done: changed rows moved to new fragments, or columns got new files.
REWRITE_ROWS = 0
REWRITE_COLUMNS = 1


@dataclass(frozen=True, slots=True)
class Append(Operation):
    """Add fragments.  An id of 0 is assigned by the commit, another one was reserved before."""

    kind: ClassVar[str] = "append"

    fragments: tuple[Fragment, ...]

    def scope(self, manifest: Manifest) -> frozenset[int]:
        """No fragment: those that are there stay as they are."""
        return frozenset()

    def apply(self, manifest: Manifest) -> Manifest:
        """Number the new fragments and put them behind the others."""
        return with_new_fragments(manifest, manifest.fragments, self.fragments)


@dataclass(frozen=True, slots=True)
class Delete(Operation):
    """Delete rows.

    Attributes:
        updated_fragments: fragments with their new deletion file.
        deleted_fragment_ids: fragments that lost all their rows.
        predicate: what the rows matched, for the history.
        affected_rows: whether the deletion files may be merged with those of a concurrent delete.  False for
            an operation that does not know which rows it deletes.
    """

    kind: ClassVar[str] = "delete"

    updated_fragments: tuple[Fragment, ...]
    deleted_fragment_ids: tuple[int, ...]
    predicate: str = ""
    affected_rows: bool = field(default=True, compare=False)

    @property
    def removed(self) -> frozenset[int]:
        """Ids of the fragments this operation removes."""
        return frozenset(self.deleted_fragment_ids)

    @property
    def touched(self) -> frozenset[int]:
        """Ids of all fragments this operation changes or removes."""
        return self.removed.union(one.id for one in self.updated_fragments)

    def scope(self, manifest: Manifest) -> frozenset[int] | None:
        """The touched fragments."""
        return self.touched

    def apply(self, manifest: Manifest) -> Manifest:
        """Replace the updated fragments whole and drop the deleted ones."""
        require_fragments(manifest, self.touched, "delete")
        changed = replace(manifest, fragments=_replaced(manifest, self.updated_fragments, self.removed))
        return retain_indices(changed)


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which primary keys an update inserted: hashes, or a split-block Bloom filter over them.

    Attributes:
        field_ids: the key columns.
        exact: hashes of the keys, None for a Bloom filter.
        bitmap: blocks of the Bloom filter.
        num_bits, number_of_items, probability: its parameters.
    """

    field_ids: tuple[int, ...]
    exact: tuple[int, ...] | None = None
    bitmap: bytes = b""
    num_bits: int = 0
    number_of_items: int = 0
    probability: float = 0.0

    def may_share_keys(self, other: KeyFilter) -> bool:
        """Whether both may have inserted the same key; True when they cannot be compared."""
        if self.field_ids != other.field_ids:
            return True
        if self.exact is not None and other.exact is not None:
            return not frozenset(self.exact).isdisjoint(other.exact)
        mine = (self.exact is None, self.num_bits, self.number_of_items, self.probability, len(self.bitmap))
        theirs = (
            other.exact is None,
            other.num_bits,
            other.number_of_items,
            other.probability,
            len(other.bitmap),
        )
        if mine != theirs:
            return True
        return bool(int.from_bytes(self.bitmap, "little") & int.from_bytes(other.bitmap, "little"))


@dataclass(frozen=True, slots=True)
class Update(Operation):
    """Change rows: move them to new fragments, or give columns new files.

    Attributes:
        removed_fragment_ids: fragments that lost all their rows.
        updated_fragments: fragments with a new deletion file (rows moved) or new data files (columns).
        new_fragments: moved rows, and inserted ones behind them.
        fields_modified: field ids that have new values in the updated fragments (`REWRITE_COLUMNS`).
        compacted_sstables: shard (16 bytes) and generation of the write-ahead log that this update brought in.
        fields_for_preserving_frag_bitmap: field ids whose values changed in moved rows; indices on others
            keep covering the rows.
        update_mode: `REWRITE_ROWS` or `REWRITE_COLUMNS`.
        inserted_rows: primary keys that were inserted.
        updated_offsets: fragment id -> Roaring bitmap of the rows whose columns changed.
        affected_rows: whether the deletion files may be merged with those of a concurrent delete.
    """

    kind: ClassVar[str] = "update"

    removed_fragment_ids: tuple[int, ...] = ()
    updated_fragments: tuple[Fragment, ...] = ()
    new_fragments: tuple[Fragment, ...] = ()
    fields_modified: tuple[int, ...] = ()
    compacted_sstables: tuple[tuple[bytes, int], ...] = ()
    fields_for_preserving_frag_bitmap: tuple[int, ...] = ()
    update_mode: int = REWRITE_ROWS
    inserted_rows: KeyFilter | None = None
    updated_offsets: Mapping[int, bytes] = field(default_factory=dict)
    affected_rows: bool = field(default=True, compare=False)

    @property
    def removed(self) -> frozenset[int]:
        """Ids of the fragments this operation removes."""
        return frozenset(self.removed_fragment_ids)

    @property
    def touched(self) -> frozenset[int]:
        """Ids of all fragments this operation changes or removes."""
        return self.removed.union(one.id for one in self.updated_fragments)

    def scope(self, manifest: Manifest) -> frozenset[int] | None:
        """The touched fragments; all where moved rows are looked for."""
        moved = manifest.uses_stable_row_ids and any(one.row_ids is not None for one in self.new_fragments)
        return None if moved else self.touched

    def apply(self, manifest: Manifest) -> Manifest:
        """Drop and replace fragments, add the new ones with the ids of the rows that moved there."""
        require_fragments(manifest, self.touched, "update")
        touched = self.touched
        sources = tuple([one for one in manifest.fragments if one.id in touched])
        # Moved rows nearly always come from the touched fragments: look there first.
        others = tuple([one for one in manifest.fragments if one.id not in touched])
        updated = self.updated_fragments
        stable = manifest.uses_stable_row_ids
        if stable and self.update_mode == REWRITE_COLUMNS:
            offsets = self.updated_offsets
            updated = tuple(
                [
                    mark_updated(one, manifest.version, offsets[one.id]) if one.id in offsets else one
                    for one in updated
                ]
            )
        kept = _replaced(manifest, updated, self.removed)
        added = number_fragments(manifest, self.new_fragments)
        changed = with_new_fragments(manifest, kept, added, sources + others)
        modified = frozenset(self.fields_modified)
        changed = without_coverage_of_fields(
            changed, {one.id: modified for one in updated} if modified else {}
        )
        if stable and self.update_mode == REWRITE_ROWS:
            changed = self._cover_moved_rows(changed, sources, added)
        return retain_indices(changed)

    def _cover_moved_rows(
        self, manifest: Manifest, sources: tuple[Fragment, ...], added: tuple[Fragment, ...]
    ) -> Manifest:
        """Let indices cover new fragments of rows that they know by their ids and whose values did not change."""
        if not manifest.indices:
            return manifest
        values = frozenset(self.fields_for_preserving_frag_bitmap)
        moved = []
        for fragment in added:
            if fragment.row_ids is None:
                continue
            ids = decode_row_ids(fragment.row_ids, f"fragment {fragment.id}")
            if len(ids) == fragment.physical_rows:
                moved.append((fragment.id, _owners(ids, sources)))
        result = []
        for index in manifest.indices:
            covered = covered_fragments(index)
            if index.fields and covered is not None and values.isdisjoint(fields_inside(index)):
                gained = [one for one, owners in moved if owners is not None and owners <= covered]
                index = with_coverage(index, covered.union(gained)) if gained else index
            result.append(index)
        return replace(manifest, indices=tuple(result))


@dataclass(frozen=True, slots=True)
class Overwrite(Operation):
    """Replace all rows and the schema; also creates a table.

    Attributes:
        fragments: numbered by the commit whatever their id is; ids are never reused.
        schema: the new schema with its metadata.
        data_version: file format version of the new files; None keeps the table's.
        config_upserts: config entries to set.
        initial_bases: base paths to add (creation only).
    """

    kind: ClassVar[str] = "overwrite"

    fragments: tuple[Fragment, ...]
    schema: Schema
    data_version: tuple[int, int] | None = None
    config_upserts: Mapping[str, str] = field(default_factory=dict)
    initial_bases: tuple[BasePath, ...] = ()

    def apply(self, manifest: Manifest) -> Manifest:
        """Drop the old fragments and all indices; keep config, table metadata and the id counters.

        Raises:
            InvalidInputError: there are base paths for a table that exists, or two of them have the same id.
        """
        if self.initial_bases:
            if manifest.version > 1:
                raise InvalidInputError("overwrite: base paths are given to a table when it is created")
            ids = sorted([base.id for base in self.initial_bases])
            if len(set(ids)) != len(ids):
                raise InvalidInputError(f"overwrite: two base paths have the same id: {ids}")
        emptied = replace(
            manifest,
            schema=self.schema,
            fragments=(),
            data_version=self.data_version or manifest.data_version,
            config={**manifest.config, **self.config_upserts},
            base_paths=manifest.base_paths + self.initial_bases,
            indices=(),
        )
        return with_new_fragments(emptied, (), tuple([replace(one, id=0) for one in self.fragments]))


def _replaced(
    manifest: Manifest, updated: tuple[Fragment, ...], removed: frozenset[int]
) -> tuple[Fragment, ...]:
    """The fragments of the table, some replaced and some gone."""
    by_id = {fragment.id: fragment for fragment in updated}
    return tuple([by_id.get(one.id, one) for one in manifest.fragments if one.id not in removed])


def _owners(ids: RowIdSequence, sources: tuple[Fragment, ...]) -> frozenset[int] | None:
    """The source fragments that list any of the ids; None when some id is in none of them."""
    wanted = ids.to_array()
    wanted.sort()
    missing = len(wanted)
    owners = set()
    for source in sources:
        listed = fragment_row_ids(source)
        # Positions of the first and last wanted id of every run.
        low = wanted.searchsorted(listed.starts)
        high = wanted.searchsorted(listed.starts + (listed.lengths.astype("u8") - 1), side="right")
        count = int((high - low).sum())
        if count:
            owners.add(source.id)
            missing -= count
    return frozenset(owners) if missing <= 0 else None
