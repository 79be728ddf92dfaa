"""The door to the filter language, imported with the first filter or expression.

Binding needs a few hundred functions and, for text, the SQL parser; queries without a filter need neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pilum import imports

if TYPE_CHECKING:
    from pilum.io import Bytes
    from pilum.query.binding import BoundExpression, BoundFilter
    from pilum.query.snapshot import Snapshot
    from pilum.query.units import UnitGroup
    from pilum.schema import Schema

__all__ = ["bounded_columns", "parse_filter", "parse_projection", "prune", "split_filter"]

_BINDING = "pilum.query.binding"
_PRUNING = "pilum.query.pruning"


def parse_filter(filter: Any, schema: Schema, *, distance: bool = False) -> BoundFilter:
    """See `pilum.query.binding.parse_filter`."""
    found: BoundFilter = imports.load(_BINDING).parse_filter(filter, schema, distance=distance)
    return found


def split_filter(bound: BoundFilter) -> tuple[BoundFilter, ...]:
    """See `pilum.query.binding.split_filter`."""
    found: tuple[BoundFilter, ...] = imports.load(_BINDING).split_filter(bound)
    return found


def parse_projection(columns: Mapping[str, str], schema: Schema) -> list[BoundExpression]:
    """See `pilum.query.binding.parse_projection`."""
    found: list[BoundExpression] = imports.load(_BINDING).parse_projection(columns, schema)
    return found


def bounded_columns(node: Any) -> tuple[str, ...]:
    """See `pilum.query.pruning.bounded_columns`."""
    found: tuple[str, ...] = imports.load(_PRUNING).bounded_columns(node)
    return found


async def prune(
    snapshot: Snapshot, group: UnitGroup, node: Any, schema: Schema, bodies: dict[str, Bytes]
) -> UnitGroup | None:
    """See `pilum.query.pruning.prune`."""
    found: UnitGroup | None = await imports.load(_PRUNING).prune(snapshot, group, node, schema, bodies)
    return found
