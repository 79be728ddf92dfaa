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

__all__ = ["parse_filter", "parse_projection"]

_BINDING = "pilum.query.binding"


def parse_filter(filter: Any, schema: Schema) -> BoundFilter:
    """See `pilum.query.binding.parse_filter`."""
    found: BoundFilter = imports.load(_BINDING).parse_filter(filter, schema)
    return found


def parse_projection(columns: Mapping[str, str], schema: Schema) -> list[BoundExpression]:
    """See `pilum.query.binding.parse_projection`."""
    found: list[BoundExpression] = imports.load(_BINDING).parse_projection(columns, schema)
    return found
