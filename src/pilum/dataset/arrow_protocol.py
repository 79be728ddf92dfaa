"""How other programs take a dataset for one of pyarrow's (spec/api.md, section 1).

DuckDB, Polars and DataFusion accept ``pyarrow.dataset.Dataset`` objects: they ask ``isinstance``, read ``schema``,
call ``scanner(columns=..., filter=...)`` and read the Arrow reader it gives.  Our classes answer these calls, but
cannot be subclasses: that would load ``pyarrow.dataset`` (100 ms) for everyone, and its C++ methods would follow a
null pointer.  So an object *says* that it is of such a class, once somebody has loaded the module: ``isinstance``
looks at ``__class__`` when the type itself does not match.

The filters that such a program pushes down are always applied in full, as it expects.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

__all__ = ["Posing"]


class Posing:
    """Base of the classes that stand in for one of ``pyarrow.dataset``; ``poses_as`` names it."""

    poses_as: str = ""

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> Any:
            """Own class, also derived from pyarrow's when that is loaded."""
            module = sys.modules.get("pyarrow.dataset")
            own = type(self)
            if module is None or not self.poses_as:
                return own
            return _posed(own, getattr(module, self.poses_as))


@cache
def _posed(own: Any, other: Any) -> Any:
    return type(own.__name__, (own, other), {"__module__": own.__module__, "__qualname__": own.__qualname__})
