"""How a scan is cut into pieces of work.  Pure: manifest numbers in, units and groups out.

A unit is a physical row range of one fragment, small enough that a window of units fits the memory budget
and large enough that the Python per unit does not matter.  Small fragments are one unit each; a large
fragment becomes several, so that both cores work on it and memory stays bounded.

```
fragments   ▌▌▌▌▌ ██████████████████████ ▌▌        small, one large, small
units       ▌▌▌▌▌ ███████ ███████ ██████ ▌▌
groups      └───┘ └─────┘ └─────┘ └────┘ └┘        a group is read, filtered and computed on in one go
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pilum.query.rows import address_base
from pilum.table import Fragment

__all__ = ["UNIT_BYTES", "Unit", "UnitGroup", "group_units", "plan_units", "rows_for", "unit_bytes"]

# Decoded bytes per unit: large enough that Python does not matter, small enough that the values are still in the
# processor's cache when they are copied or computed on.
UNIT_BYTES = 8 << 20
# Python is spent on each page of each column, some 0.1 ms, so units of many columns are larger: each column should
# have this much to decode.  The scan of a table of 19 columns took half the time.
_COLUMN_BYTES = 4 << 20
_MOST_BYTES = 32 << 20


class Unit(NamedTuple):
    """Physical rows ``[start, stop)`` of ``fragment``."""

    fragment: Fragment
    start: int
    stop: int


class UnitGroup(NamedTuple):
    """Neighbouring units that are handled together.

    Attributes:
        units: the units.
        starts: position of each unit's first row within the group, then the number of rows.
        bases: row address of each unit's first row.
    """

    units: tuple[Unit, ...]
    starts: npt.NDArray[np.int64]
    bases: npt.NDArray[np.int64]

    @classmethod
    def of(cls, units: Sequence[Unit]) -> UnitGroup:
        """A group of some units."""
        return cls(
            tuple(units),
            np.cumsum([0, *(unit.stop - unit.start for unit in units)], dtype=np.int64),
            np.array([address_base(unit.fragment.id) + unit.start for unit in units], dtype=np.int64),
        )

    @property
    def num_rows(self) -> int:
        """Physical rows of all units."""
        return int(self.starts[-1])

    def addresses(self, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.uint64]:
        """Row addresses of positions within the group, of all by default."""
        if rows is None:
            if len(self.units) == 1:
                first = int(self.bases[0])
                return np.arange(first, first + self.num_rows, dtype=np.uint64)
            rows = np.arange(self.num_rows)
        which = np.searchsorted(self.starts, rows, side="right") - 1
        found: npt.NDArray[np.uint64] = (self.bases[which] + rows - self.starts[which]).astype(np.uint64)
        return found


def unit_bytes(columns: int) -> int:
    """Decoded bytes of a unit that many leaf columns are read of."""
    return min(max(UNIT_BYTES, columns * _COLUMN_BYTES), _MOST_BYTES)


def rows_for(row_bytes: float, batch_size: int, unit_bytes: int = UNIT_BYTES) -> int:
    """Rows per unit: about ``unit_bytes``, a whole number of batches, at least one batch."""
    return max(int(unit_bytes / row_bytes) // batch_size, 1) * batch_size


def plan_units(fragments: Iterable[Fragment], rows_per_unit: int) -> list[Unit]:
    """Cut fragments into units, in order."""
    units: list[Unit] = []
    for fragment in fragments:
        rows = fragment.physical_rows
        if rows <= rows_per_unit:
            if rows:
                units.append(Unit(fragment, 0, rows))
            continue
        for start in range(0, rows, rows_per_unit):
            units.append(Unit(fragment, start, min(start + rows_per_unit, rows)))
    return units


def group_units(units: Sequence[Unit], most_rows: int, most_units: int) -> list[UnitGroup]:
    """Neighbouring small units in groups of up to ``most_units`` units and ``most_rows`` rows."""
    groups: list[list[Unit]] = []
    rows = most_rows
    for unit in units:
        size = unit.stop - unit.start
        if not groups or rows + size > most_rows or len(groups[-1]) >= most_units:
            groups.append([])
            rows = 0
        groups[-1].append(unit)
        rows += size
    return [UnitGroup.of(group) for group in groups]
