"""Can two concurrent operations both stand?  (spec/table.md, sections 9.1 and 9.2)

The answer is a table: my operation, not committed yet, against one that another writer has committed since.

    .   both stand                 R   mine must be recomputed on the new version (retryable)
    X   they exclude each other    a letter behind: the condition that decides, see `conflict_rules`

An operation without a row or a column conflicts with everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pilum.table.conflict_rules import CONDITIONS, Verdict
from pilum.table.operations import Opaque, Operation

__all__ = ["MATRIX", "Conflict", "Verdict", "conflict_between", "kind_of"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why an operation cannot be committed.

    Attributes:
        retryable: recomputing the operation on the newest version can succeed.
        reason: which rule, in words.
    """

    retryable: bool
    reason: str


# The columns, as the letters above the table stand for them.
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
    # mine                  App  Del  Upd  Ovw  Rst  Idx  Rew  Mrg  Prj  DRp  Cfg  Rsv  Bas  Wal  Ovl Cln
    "append":               ".    .    .    X    X    .    .    .n   .n   .    .    .    .    X    .   .",
    "delete":               ".    Rf   Rf   X    X    .    Rf   R    .    Rf   .    .    .    X    .   .",
    "update":               ".k   Rf   Rf   X    X    .    Rf   R    .n   Rf   .    .    .    .c   .e  .",
    "overwrite":            ".    .    .    Ro   .    .    .    .    .    .    .o   .    .    X    .   .",
    "restore":              ".    .    .    .    .    .    .    .    .    .    .u   .    .    X    .   .",
    "create_index":         ".    .    .    X    X    Rs   Rb   .m   .    Ri   .    .    .    Xw   .   .",
    "rewrite":              ".    Rf   Rf   X    X    Rb   Rf   R    .    Rf   .    .    .    .    Rf  .",
    "merge":                "R    R    R    X    X    .m   R    R    X    R    .g   .    .    X    R   .",
    "project":              ".n   .    .n   X    X    .    .    R    R    .n   .    .    .    X    .n  .",
    "data_replacement":     ".    Xd   Xd   X    X    Ri   Rf   R    Xd   Rv   .    .    .    X    .   .",
    "update_config":        ".    .    .    Xu   Xu   .    .    .g   .    .    Xu   .    .    .    .   .",
    "reserve_fragments":    ".    .    .    X    X    .    .    .    .    .    .    .    .    .    .   .",
    "update_bases":         ".    .    .    .    .    .    .    .    .    .    .    .    Xa   .    .   .",
    "update_mem_wal_state": "X    X    .c   X    X    .c   .    X    X    X    .    .    .    .c   X   .",
    "data_overlay":         ".    Re   Re   X    X    .    Rf   R    .n   .    .    .    .    X    .   .",
    "clone":                ".    .    .    .    .    .    .    .    .    .    .    .    .    .    .   .",
}
# fmt: on

MATRIX: Mapping[tuple[str, str], str] = {
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
    cell = MATRIX.get((ours, other))
    if cell is None:
        return Conflict(False, f"pilum does not know whether {ours} can follow {other}")
    verdict = Verdict(cell[0])
    if len(cell) > 1:
        if isinstance(mine, Opaque) or isinstance(theirs, Opaque):
            # Its content cannot be looked into: take the stricter answer.
            verdict = Verdict.RETRYABLE if verdict is Verdict.OK else verdict
        else:
            verdict = CONDITIONS[cell[1]](mine, theirs, verdict)
    if verdict is Verdict.OK:
        return None
    ours, other = ours.replace("_", " "), other.replace("_", " ")
    return Conflict(verdict is Verdict.RETRYABLE, f"{ours} cannot follow a concurrent {other}")
