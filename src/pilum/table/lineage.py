"""Row lineage: in which version a row was created, and in which it last changed (spec/table.md, section 12.4).

Two sequences for every fragment of a table with stable row ids, one version for every physical row, stored as
runs.  Missing ones mean: created in version 1, last updated when created.

Also the bookkeeping of commits: new rows get the next unused ids and the version that is being committed; rows
that move keep their id and the version that created them.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.proto.lazy import table_pb2 as pb
from pilum.proto.lazy import wire
from pilum.table.model import Fragment
from pilum.table.roaring import decode_roaring
from pilum.table.row_ids import MAX_ROWS, RowIdSequence, decode_row_ids, encode_row_ids, segment_length

__all__ = [
    "VersionSequence",
    "adopt_rows",
    "assign_row_ids",
    "created_versions",
    "decode_versions",
    "encode_versions",
    "fragment_row_ids",
    "hides_lineage",
    "mark_updated",
    "updated_versions",
]

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_HIDDEN: Any = ("row_id_column", "last_updated_at_version_column", "created_at_version_column")

# What a row without a record counts as.
_FIRST_VERSION = 1


@dataclass(frozen=True, eq=False, slots=True)
class VersionSequence:
    """One version number for every row, as runs.

    Attributes:
        versions: uint64, the version of each run.
        lengths: int64, rows of each run.
    """

    versions: U64
    lengths: I64

    @classmethod
    def uniform(cls, version: int, rows: int) -> VersionSequence:
        """The same version for all rows."""
        return cls(np.array([version], np.uint64), np.array([rows], np.int64))

    @classmethod
    def of_array(cls, values: Any) -> VersionSequence:
        """From one version for each row."""
        versions = np.asarray(values, dtype=np.uint64)
        first = np.concatenate([[0], np.flatnonzero(versions[1:] != versions[:-1]) + 1])
        if not len(versions):
            return cls.uniform(_FIRST_VERSION, 0)
        return cls(versions[first], np.diff(np.append(first, len(versions))).astype(np.int64))

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def to_array(self) -> U64:
        """The version of every row, uint64."""
        return np.repeat(self.versions, self.lengths)

    def take(self, offsets: Any) -> U64:
        """The versions of the rows at some offsets, uint64."""
        ends = np.cumsum(self.lengths)
        return self.versions[np.searchsorted(ends, np.asarray(offsets, np.int64), side="right")]


def decode_versions(data: bytes, rows: int, where: str) -> VersionSequence:
    """Decode a ``RowDatasetVersionSequence`` message.

    Raises:
        CorruptFileError: the bytes contradict the format or do not describe ``rows`` rows.
    """
    try:
        message = pb.RowDatasetVersionSequence.FromString(data)
    except wire.DecodeError as error:
        raise CorruptFileError(f"{where}: the row versions cannot be decoded: {error}") from error
    lengths = np.array([segment_length(run.span, f"{where}: row versions") for run in message.runs], np.int64)
    if int(lengths.sum()) != rows:
        raise CorruptFileError(f"{where}: {int(lengths.sum())} row versions for {rows} rows")
    return VersionSequence(np.array([run.version for run in message.runs], np.uint64), lengths)


def encode_versions(sequence: VersionSequence) -> bytes:
    """The encoded message."""
    message = pb.RowDatasetVersionSequence()
    position = 0
    for version, length in zip(sequence.versions.tolist(), sequence.lengths.tolist(), strict=True):
        run = message.runs.add(version=version)
        run.span.range.SetInParent()
        run.span.range.start, run.span.range.end = position, position + length
        position += length
    return message.SerializeToString()


def fragment_row_ids(fragment: Fragment, where: str = "") -> RowIdSequence:
    """The row ids of a fragment, one for each physical row.

    Raises:
        CorruptFileError: they contradict the format, or the fragment has none.
        UnsupportedError: they are stored outside of the manifest.
    """
    where = f"{where}: fragment {fragment.id}" if where else f"fragment {fragment.id}"
    if fragment.row_ids is None:
        if _stored_elsewhere(fragment, "row_id_sequence"):
            raise UnsupportedError(f"{where} keeps its row ids outside the manifest")
        raise CorruptFileError(f"{where} has no row ids")
    return decode_row_ids(fragment.row_ids, where, rows=fragment.physical_rows)


def created_versions(fragment: Fragment, where: str = "") -> VersionSequence:
    """In which version each physical row of a fragment was created."""
    where = f"{where}: fragment {fragment.id}" if where else f"fragment {fragment.id}"
    if fragment.created_at is not None:
        return decode_versions(fragment.created_at, fragment.physical_rows, where)
    if _stored_elsewhere(fragment, "created_at_version_sequence"):
        raise UnsupportedError(f"{where} keeps its row versions outside the manifest")
    return VersionSequence.uniform(_FIRST_VERSION, fragment.physical_rows)


def updated_versions(fragment: Fragment, where: str = "") -> VersionSequence:
    """In which version each physical row of a fragment was last updated."""
    at = f"{where}: fragment {fragment.id}" if where else f"fragment {fragment.id}"
    if fragment.last_updated_at is not None:
        return decode_versions(fragment.last_updated_at, fragment.physical_rows, at)
    if _stored_elsewhere(fragment, "last_updated_at_version_sequence"):
        raise UnsupportedError(f"{at} keeps its row versions outside the manifest")
    return created_versions(fragment, where)


def hides_lineage(fragment: Fragment) -> bool:
    """Whether row ids or row versions are in hidden columns of the data files (section 12.6)."""
    if not fragment.extra:
        return False
    rest = pb.DataFragment.FromString(fragment.extra)
    return any(rest.HasField(name) for name in _HIDDEN)


def _stored_elsewhere(fragment: Fragment, group: Any) -> bool:
    return bool(fragment.extra) and pb.DataFragment.FromString(fragment.extra).WhichOneof(group) is not None


# -- what commits do -----------------------------------------------------------------------------------


def assign_row_ids(
    fragments: tuple[Fragment, ...], next_row_id: int, version: int
) -> tuple[tuple[Fragment, ...], int]:
    """Give the rows of new fragments fresh ids and mark them as created in ``version``.

    Returns:
        The fragments and the next unused row id.
    """
    result = []
    for fragment in fragments:
        end = next_row_id + fragment.physical_rows
        lineage = encode_versions(VersionSequence.uniform(version, fragment.physical_rows))
        ids = encode_row_ids(RowIdSequence.of_range(next_row_id, end))
        result.append(replace(fragment, row_ids=ids, created_at=lineage, last_updated_at=lineage))
        next_row_id = end
    return tuple(result), next_row_id


def adopt_rows(
    fragments: Iterable[Fragment], sources: Iterable[Fragment], next_row_id: int, version: int
) -> tuple[tuple[Fragment, ...], int]:
    """Complete new fragments whose first rows moved there from other fragments, with their ids.

    Args:
        fragments: with the ids of the moved rows; rows behind them are new.
        sources: fragments, ascending by id, from which rows may have come.
        next_row_id: next unused row id.
        version: that is being committed.

    Returns:
        The fragments and the next unused row id.

    Raises:
        InvalidInputError: more ids than rows.
    """
    sources = tuple(sources)
    result = []
    for fragment in fragments:
        if fragment.row_ids is None:
            (fresh,), next_row_id = assign_row_ids((fragment,), next_row_id, version)
            result.append(fresh)
            continue
        rows = fragment.physical_rows
        moved = decode_row_ids(fragment.row_ids, f"fragment {fragment.id}")
        if len(moved) > rows:
            raise InvalidInputError(f"a new fragment of {rows} rows brings {len(moved)} row ids")
        inserted = rows - len(moved)
        row_ids = fragment.row_ids
        if inserted:
            added = RowIdSequence.of_range(next_row_id, next_row_id + inserted)
            row_ids = encode_row_ids(RowIdSequence.concatenate([moved, added]))
            next_row_id += inserted
        created = np.full(rows, version, np.uint64)
        created[: len(moved)] = _created_of(moved.to_array(), sources)
        result.append(
            replace(
                fragment,
                row_ids=row_ids,
                created_at=encode_versions(VersionSequence.of_array(created)),
                last_updated_at=encode_versions(VersionSequence.uniform(version, rows)),
            )
        )
    return tuple(result), next_row_id


def _created_of(ids: U64, sources: tuple[Fragment, ...]) -> U64:
    """The creating versions of rows, from the first source that lists each; 1 where none does."""
    created = np.full(len(ids), _FIRST_VERSION, np.uint64)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    known = np.zeros(len(ids), bool)
    for source in sources:
        if known.all():
            break
        sequence = fragment_row_ids(source)
        by_id = np.argsort(sequence.starts, kind="stable")
        starts, lengths, offsets = sequence.starts[by_id], sequence.lengths[by_id], sequence.offsets[by_id]
        if not len(starts):
            continue
        # Only ids between the smallest and the largest of the source are looked at.
        low = int(np.searchsorted(ordered, starts[0]))
        high = int(
            np.searchsorted(ordered, (starts + (lengths.astype(np.uint64) - np.uint64(1))).max(), "right")
        )
        candidates = ordered[low:high]
        run = np.searchsorted(starts, candidates, side="right") - 1
        within = (candidates - starts[run]).astype(np.uint64)
        hit = (within < lengths[run].astype(np.uint64)) & ~known[low:high]
        place = low + np.flatnonzero(hit)
        found = offsets[run[hit]] + within[hit].astype(np.int64)
        created[order[place]] = created_versions(source).take(found)
        known[place] = True
    return created


def mark_updated(fragment: Fragment, version: int, offsets: bytes | None = None) -> Fragment:
    """The fragment with its rows, or those of a Roaring bitmap, marked as updated in ``version``."""
    rows = fragment.physical_rows
    if rows > MAX_ROWS:
        raise CorruptFileError(f"fragment {fragment.id} claims {rows} rows")
    if offsets is None:
        marked = VersionSequence.uniform(version, rows)
    else:
        chosen = decode_roaring(offsets, f"updated rows of fragment {fragment.id}")
        if len(chosen) and int(chosen[-1]) >= rows:
            raise InvalidInputError(
                f"row {int(chosen[-1])} of fragment {fragment.id} with {rows} rows is updated"
            )
        versions = updated_versions(fragment).to_array()
        versions[chosen] = version
        marked = VersionSequence.of_array(versions)
    return replace(fragment, last_updated_at=encode_versions(marked))
