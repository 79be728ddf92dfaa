"""Operations: what a transaction does to a table, as values (spec/table.md, section 8).

`Operation.apply` turns one manifest into the next.  It is pure and sees only its two inputs; numbering of new
fragments, feature flags, time and version are the same for every operation and live in `build`.  Operations
that pilum cannot apply yet are carried as `Opaque`: enough to read the history and to detect conflicts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.schema import Schema
from pilum.table.indices import retain_indices
from pilum.table.model import BasePath, Fragment, Manifest
from pilum.table.row_ids import assign_row_ids

__all__ = ["UNKNOWN", "Append", "Delete", "Opaque", "Operation", "Overwrite", "Restore"]

# Kind of an operation that this version of pilum has never heard of.
UNKNOWN = "unknown"


class Operation(ABC):
    """A change to a table.

    Attributes:
        kind: name of the operation in the transaction message, and its row in the conflict matrix.
    """

    __slots__ = ()
    kind: ClassVar[str]

    @abstractmethod
    def apply(self, manifest: Manifest) -> Manifest:
        """The state after this operation.

        Args:
            manifest: the newest state, its ``version`` already being the one that is about to be committed.

        Raises:
            InvalidInputError: the operation does not fit the table.
        """


@dataclass(frozen=True, slots=True)
class Append(Operation):
    """Add fragments.  An id of 0 is assigned by the commit, another one was reserved before."""

    kind: ClassVar[str] = "append"

    fragments: tuple[Fragment, ...]

    def apply(self, manifest: Manifest) -> Manifest:
        """Number the new fragments and put them behind the others."""
        return _with_new_fragments(manifest, manifest.fragments, self.fragments)


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
    def touched(self) -> frozenset[int]:
        """Ids of all fragments this operation changes or removes."""
        return frozenset([*(one.id for one in self.updated_fragments), *self.deleted_fragment_ids])

    def apply(self, manifest: Manifest) -> Manifest:
        """Replace the updated fragments whole and drop the deleted ones."""
        updated = {fragment.id: fragment for fragment in self.updated_fragments}
        missing = self.touched - {fragment.id for fragment in manifest.fragments}
        if missing:
            raise InvalidInputError(f"delete: the table has no fragment {min(missing)}")
        gone = frozenset(self.deleted_fragment_ids)
        kept = tuple(
            [updated.get(fragment.id, fragment) for fragment in manifest.fragments if fragment.id not in gone]
        )
        changed = replace(manifest, fragments=kept)
        return retain_indices(changed) if gone else changed


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
        """Drop the old fragments and all indices; keep config, table metadata and the id counters."""
        emptied = replace(
            manifest,
            schema=self.schema,
            fragments=(),
            data_version=self.data_version or manifest.data_version,
            config={**manifest.config, **self.config_upserts},
            base_paths=manifest.base_paths + self.initial_bases,
            indices=(),
        )
        return _with_new_fragments(emptied, (), tuple([replace(one, id=0) for one in self.fragments]))


@dataclass(frozen=True, slots=True)
class Restore(Operation):
    """Make an old version the newest one.

    Attributes:
        version: which.
        content: its manifest; the commit loads it.
    """

    kind: ClassVar[str] = "restore"

    version: int
    content: Manifest | None = field(default=None, repr=False, compare=False)

    def apply(self, manifest: Manifest) -> Manifest:
        """The old content; the counters of ids never go back."""
        content = self.content
        if content is None:
            raise InvalidInputError(f"restore: version {self.version} has not been loaded")
        highest = [one for one in (content.max_fragment_id, manifest.max_fragment_id) if one is not None]
        return replace(
            content,
            version=manifest.version,
            max_fragment_id=max(highest, default=None),
            next_row_id=max(content.next_row_id, manifest.next_row_id),
        )


@dataclass(frozen=True, slots=True)
class Opaque(Operation):
    """An operation of another writer that pilum can name but not apply.

    Attributes:
        name: its name in the transaction message, or `UNKNOWN`.
        message: the encoded transaction it was found in.
    """

    kind: ClassVar[str] = UNKNOWN

    name: str
    message: bytes = field(repr=False)

    def apply(self, manifest: Manifest) -> Manifest:
        """Not possible."""
        raise UnsupportedError(f"pilum cannot commit a {self.name.replace('_', ' ')} operation yet")


def _with_new_fragments(
    manifest: Manifest, existing: tuple[Fragment, ...], added: tuple[Fragment, ...]
) -> Manifest:
    """Append fragments, giving ids, and row ids where the table has them."""
    next_id = 0 if manifest.max_fragment_id is None else manifest.max_fragment_id + 1
    numbered = []
    for fragment in added:
        if fragment.id == 0:
            fragment = replace(fragment, id=next_id)
            next_id += 1
        numbered.append(fragment)
    fresh, next_row_id = tuple(numbered), manifest.next_row_id
    if manifest.uses_stable_row_ids:
        fresh, next_row_id = assign_row_ids(fresh, next_row_id, manifest.version)
    return replace(manifest, fragments=existing + fresh, next_row_id=next_row_id)
