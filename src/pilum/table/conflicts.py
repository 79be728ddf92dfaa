"""Can two concurrent operations both stand?  (spec/table.md, sections 9.1 and 9.2)

The answer is a table: my operation, not committed yet, against one that another writer has committed since.

    .   both stand                 R   mine must be recomputed on the new version (retryable)
    X   they exclude each other    a letter behind: the condition that decides, a function below

An operation without a row or a column conflicts with everything.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pilum.proto import table_pb2 as pb
from pilum.table.fragment_codec import decode_data_file
from pilum.table.model import DataFile
from pilum.table.operations import Delete, Opaque, Operation, Overwrite

__all__ = ["Conflict", "Verdict", "conflict_between", "kind_of"]


class Verdict(enum.Enum):
    """Outcome for one pair of operations."""

    OK = "."
    RETRYABLE = "R"
    INCOMPATIBLE = "X"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why an operation cannot be committed.

    Attributes:
        retryable: recomputing the operation on the newest version can succeed.
        reason: which rule, in words.
    """

    retryable: bool
    reason: str


_COLUMNS = [
    "append",
    "delete",
    "update",
    "overwrite",
    "restore",
    "create_index",
    "rewrite",
    "merge",
    "project",
    "data_replacement",
    "update_config",
    "reserve_fragments",
    "update_bases",
    "update_mem_wal_state",
    "data_overlay",
    "clone",
]

# fmt: off
_ROWS = {
    # mine         App  Del  Upd  Ovw  Rst  Idx  Rew  Mrg  Prj  DRp  Cfg  Rsv  Bas  MemWAL Ovl Cln
    "append":    ".    .    .    X    X    .    .    .n   .n   .    .    .    .    X      .   .",
    "delete":    ".    Rf   Rf   X    X    .    Rf   R    .    Rf   .    .    .    X      .   .",
    "overwrite": ".    .    .    Ro   .    .    .    .    .    .    .o   .    .    X      .   .",
    "restore":   ".    .    .    .    .    .    .    .    .    .    .u   .    .    X      .   .",
}
# fmt: on

_MATRIX = {
    (mine, theirs): cell
    for mine, row in _ROWS.items()
    for theirs, cell in zip(_COLUMNS, row.split(), strict=True)
}


def kind_of(operation: Operation) -> str:
    """Row or column of an operation in the matrix."""
    return operation.name if isinstance(operation, Opaque) else operation.kind


def conflict_between(mine: Operation, theirs: Operation) -> Conflict | None:
    """Whether ``mine`` can follow ``theirs``, which was committed after the version mine was computed on.

    Returns:
        None when it can.  For two deletes in one fragment this still leaves it to the rebase to find that
        they delete the same row.
    """
    ours, other = kind_of(mine), kind_of(theirs)
    cell = _MATRIX.get((ours, other))
    if cell is None:
        return Conflict(False, f"pilum does not know whether {ours} can follow {other}")
    verdict = Verdict(cell[0])
    if len(cell) > 1:
        verdict = _CONDITIONS[cell[1]](mine, theirs, verdict)
    if verdict is Verdict.OK:
        return None
    ours, other = ours.replace("_", " "), other.replace("_", " ")
    return Conflict(verdict is Verdict.RETRYABLE, f"{ours} cannot follow a concurrent {other}")


def _message(operation: Opaque) -> pb.Transaction:
    return pb.Transaction.FromString(operation.message)


def _nullability(mine: Operation, theirs: Operation, verdict: Verdict) -> Verdict:
    """n: a schema change that may have made a column required needs the new rows to be checked again."""
    assert isinstance(theirs, Opaque)
    message = _message(theirs)
    change = message.merge if theirs.name == "merge" else message.project
    return Verdict.OK if change.preserves_nullability else Verdict.RETRYABLE


def _fragments(mine: Operation, theirs: Operation, verdict: Verdict) -> Verdict:
    """f: only fragments that both touch matter; deletions in one fragment can be merged."""
    assert isinstance(mine, Delete)
    changed, removed = _touched(theirs)
    common = mine.touched & (changed.keys() | removed)
    if not common:
        return Verdict.OK
    # A fragment that one of us removes, or whose files they replaced, leaves nothing to merge.
    mergeable = (
        mine.affected_rows and common.isdisjoint(removed) and common.isdisjoint(mine.deleted_fragment_ids)
    )
    mine_files = {fragment.id: fragment.files for fragment in mine.updated_fragments}
    if mergeable and all(changed[one] == mine_files[one] for one in common):
        return Verdict.OK
    return verdict


def _touched(theirs: Operation) -> tuple[dict[int, tuple[DataFile, ...]], frozenset[int]]:
    """The fragments an operation changed, with their data files afterwards, and those it removed.

    An operation that rewrites data counts as removing its fragments: deletions in them cannot be merged.
    """
    if isinstance(theirs, Delete):
        changed = {fragment.id: fragment.files for fragment in theirs.updated_fragments}
        return changed, frozenset(theirs.deleted_fragment_ids)
    assert isinstance(theirs, Opaque)
    message = _message(theirs)
    if theirs.name == "update":
        return _files(message.update.updated_fragments), frozenset(message.update.removed_fragment_ids)
    if theirs.name == "data_replacement":
        return {}, frozenset(one.fragment_id for one in message.data_replacement.replacements)
    rewrite = message.rewrite
    old = [one.id for group in rewrite.groups for one in group.old_fragments]
    return {}, frozenset(old or [one.id for one in rewrite.old_fragments])


def _files(fragments: Iterable[pb.DataFragment]) -> dict[int, tuple[DataFile, ...]]:
    return {one.id: tuple([decode_data_file(file) for file in one.files]) for one in fragments}


def _overwrites(mine: Operation, theirs: Operation, verdict: Verdict) -> Verdict:
    """o: two overwrites, or an overwrite and a config change, must not set the same config key."""
    assert isinstance(mine, Overwrite)
    if isinstance(theirs, Overwrite):
        keys = set(theirs.config_upserts)
    else:
        assert isinstance(theirs, Opaque)
        message = _message(theirs)
        if theirs.name == "overwrite":
            keys = set(message.overwrite.config_upsert_values)
        else:
            config = message.update_config
            keys = {*config.upsert_values, *config.delete_keys}
            keys.update(entry.key for entry in config.config_updates.update_entries)
    return Verdict.INCOMPATIBLE if keys & set(mine.config_upserts) else verdict


def _restored_metadata(mine: Operation, theirs: Operation, verdict: Verdict) -> Verdict:
    """u: restoring a schema would silently undo a change to its metadata."""
    assert isinstance(theirs, Opaque)
    config = _message(theirs).update_config
    touches_schema = (
        config.HasField("schema_metadata_updates")
        or config.schema_metadata
        or config.field_metadata_updates
        or config.field_metadata
    )
    return Verdict.INCOMPATIBLE if touches_schema else verdict


_CONDITIONS: dict[str, Callable[[Operation, Operation, Verdict], Verdict]] = {
    "n": _nullability,
    "f": _fragments,
    "o": _overwrites,
    "u": _restored_metadata,
}
