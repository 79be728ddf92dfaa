"""Operations: what a transaction does to a table, as values (spec/table.md, section 8).

`Operation.apply` turns one manifest into the next.  It is pure and sees only its two inputs; the order of
fragments, feature flags, time and version are the same for every operation and live in `build`.  What two
operations mean to each other is in `conflicts`.
"""

from pilum.table.operations.base import UNKNOWN, Opaque, Operation
from pilum.table.operations.columns import DataReplacement, Merge, Project
from pilum.table.operations.configuration import ReserveFragments, UpdateBases, UpdateConfig, UpdateMap
from pilum.table.operations.indexing import CreateIndex, Rewrite, RewriteGroup, RewrittenIndex
from pilum.table.operations.outside import DataOverlay, UpdateMemWalState
from pilum.table.operations.rows import (
    REWRITE_COLUMNS,
    REWRITE_ROWS,
    Append,
    Delete,
    KeyFilter,
    Overwrite,
    Update,
)
from pilum.table.operations.versions import Clone, Restore

__all__ = [
    "REWRITE_COLUMNS",
    "REWRITE_ROWS",
    "UNKNOWN",
    "Append",
    "Clone",
    "CreateIndex",
    "DataOverlay",
    "DataReplacement",
    "Delete",
    "KeyFilter",
    "Merge",
    "Opaque",
    "Operation",
    "Overwrite",
    "Project",
    "ReserveFragments",
    "Restore",
    "Rewrite",
    "RewriteGroup",
    "RewrittenIndex",
    "Update",
    "UpdateBases",
    "UpdateConfig",
    "UpdateMap",
    "UpdateMemWalState",
]
