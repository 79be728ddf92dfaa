"""What an operation is, and how new fragments get their ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.table.lineage import adopt_rows, assign_row_ids
from pilum.table.model import Fragment, Manifest

__all__ = ["UNKNOWN", "Opaque", "Operation", "number_fragments", "require_fragments", "with_new_fragments"]

# Kind of an operation that this version of pilum has never heard of.
UNKNOWN = "unknown"


class Operation(ABC):
    """A change to a table.

    Attributes:
        kind: name of the operation in the transaction message, and its row in the conflict matrix.
    """

    __slots__ = ()
    kind: ClassVar[str]

    def scope(self, manifest: Manifest) -> frozenset[int] | None:
        """Ids of the fragments that matter to this operation; None for all of them.

        `apply` may be given a manifest with only these, the highest id being known, and returns what became of
        them and the new ones.  What needs the ids of the others has `Manifest.unseen`.
        """
        return None

    @abstractmethod
    def apply(self, manifest: Manifest) -> Manifest:
        """The state after this operation.

        Args:
            manifest: the newest state, its ``version`` already being the one that is about to be committed.

        Raises:
            InvalidInputError: the operation does not fit the table.
        """


@dataclass(frozen=True, slots=True)
class Opaque(Operation):
    """An operation of another writer that pilum can name but not interpret.

    Attributes:
        name: its name in the transaction message, or `UNKNOWN`.
        message: the encoded transaction it was found in.
    """

    kind: ClassVar[str] = UNKNOWN

    name: str
    message: bytes = field(repr=False)

    def apply(self, manifest: Manifest) -> Manifest:
        """Not possible."""
        raise UnsupportedError(f"pilum cannot commit a {self.name.replace('_', ' ')} operation")


def number_fragments(manifest: Manifest, added: Iterable[Fragment]) -> tuple[Fragment, ...]:
    """Give the next ids of the table to fragments without one (0); ids are never used twice."""
    highest = manifest.max_fragment_id
    if highest is None:  # old releases left a highest id of 0 out
        highest = max((fragment.id for fragment in manifest.fragments), default=-1)
    next_id = highest + 1
    numbered = []
    for fragment in added:
        if fragment.id == 0:
            fragment = replace(fragment, id=next_id)
            next_id += 1
        numbered.append(fragment)
    return tuple(numbered)


def with_new_fragments(
    manifest: Manifest,
    existing: tuple[Fragment, ...],
    added: tuple[Fragment, ...],
    sources: tuple[Fragment, ...] = (),
) -> Manifest:
    """Append fragments, giving ids, and row ids where the table has them.

    Args:
        manifest: the state, with the counters.
        existing: fragments that stay.
        added: new fragments.
        sources: fragments from which rows may have moved, with their row ids, into new ones; without any, all
            rows of new fragments are new.

    Raises:
        InvalidInputError: a new file lies in a base path that the table does not have.
    """
    _require_bases(manifest, added)
    fresh, next_row_id = number_fragments(manifest, added), manifest.next_row_id
    if manifest.uses_stable_row_ids:
        if sources:
            fresh, next_row_id = adopt_rows(fresh, sources, next_row_id, manifest.version)
        else:
            fresh, next_row_id = assign_row_ids(fresh, next_row_id, manifest.version)
    return replace(manifest, fragments=existing + fresh, next_row_id=next_row_id)


def _require_bases(manifest: Manifest, added: Iterable[Fragment]) -> None:
    named = {file.base_id for fragment in added for file in fragment.files if file.base_id is not None}
    unknown = named.difference([base.id for base in manifest.base_paths]) if named else named
    if unknown:
        raise InvalidInputError(f"a new file lies in base path {min(unknown)}, which the table does not have")


def require_fragments(manifest: Manifest, wanted: Iterable[int], operation: str) -> None:
    """Refuse an operation on fragments that the table does not have.

    Raises:
        InvalidInputError: one is missing.
    """
    missing = frozenset(wanted) - {fragment.id for fragment in manifest.fragments}
    if missing:
        raise InvalidInputError(f"{operation}: the table has no fragment {min(missing)}")
