"""Operations of features that lie outside of tables: recognised, so that conflicts with them are seen.

The write-ahead log and data overlays are unstable (spec/table.md, sections 16 and 17.1).  pilum reads their
transactions of other writers and cannot commit them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pilum.errors import UnsupportedError
from pilum.table.model import Manifest
from pilum.table.operations.base import Operation

__all__ = ["DataOverlay", "UpdateMemWalState"]


@dataclass(frozen=True, slots=True)
class UpdateMemWalState(Operation):
    """Note which parts of the write-ahead log are in the table.

    Attributes:
        compacted_sstables: shard (16 bytes) and generation.
    """

    kind: ClassVar[str] = "update_mem_wal_state"

    compacted_sstables: tuple[tuple[bytes, int], ...]

    def apply(self, manifest: Manifest) -> Manifest:
        """Not possible."""
        raise UnsupportedError("pilum cannot change the state of a write-ahead log")


@dataclass(frozen=True, slots=True)
class DataOverlay(Operation):
    """Lay values over those of the data files.

    Attributes:
        touched: ids of the fragments.
        message: the encoded operation.
    """

    kind: ClassVar[str] = "data_overlay"

    touched: frozenset[int]
    message: bytes = field(repr=False)

    def apply(self, manifest: Manifest) -> Manifest:
        """Not possible."""
        raise UnsupportedError("pilum cannot commit data overlays")
