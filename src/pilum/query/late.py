"""The door to the filter language, imported with the first filter or expression.

Binding needs a few hundred functions and, for text, the SQL parser; queries without a filter need neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pilum import imports

if TYPE_CHECKING:
    from pilum.query.binding import BoundExpression, BoundFilter
    from pilum.schema import Schema

__all__ = ["parse_filter", "parse_projection", "split_filter"]

_BINDING = "pilum.query.binding"


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
