"""How a scan is cut into pieces of work.  Pure: manifest numbers in, units out.

A unit is a physical row range of one fragment, small enough that a window of units fits the memory budget
and large enough that the Python per unit does not matter.  Small fragments are one unit each; a large
fragment becomes several, so that both cores work on it and memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from pilum.schema import bytes_per_row
from pilum.table import Fragment

__all__ = ["Unit", "plan_units", "unit_rows"]

# Decoded bytes per unit: two cores with a window of 16 units stay far below the 256 MiB process budget.
_UNIT_BYTES = 8 << 20


class Unit(NamedTuple):
    """Physical rows ``[start, stop)`` of ``fragment``."""

    fragment: Fragment
    start: int
    stop: int


def unit_rows(schema: pa.Schema, batch_size: int) -> int:
    """Rows per unit: about 8 MiB, a whole number of batches, at least one batch."""
    rows = int(_UNIT_BYTES / bytes_per_row(schema))
    return max(rows // batch_size, 1) * batch_size


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
