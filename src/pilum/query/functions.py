"""Scalar functions."""

from __future__ import annotations

from collections.abc import Sequence

from pilum.errors import InvalidInputError
from pilum.query import operators
from pilum.query.expressions import Bound

__all__ = ["bind_function"]


def bind_function(name: str, args: Sequence[Bound]) -> Bound:
    """Bind a call by name."""
    if name == "is_valid" and len(args) == 1:
        return operators.is_null(args[0], negated=True)
    raise InvalidInputError(f"no function named {name!r}")
