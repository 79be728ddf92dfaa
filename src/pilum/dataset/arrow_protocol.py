"""How other programs take a dataset for one of pyarrow's (spec/api.md, section 1).

DuckDB, Polars and DataFusion accept ``pyarrow.dataset.Dataset`` objects: they ask for that class, read ``schema``,
call ``scanner(columns=..., filter=...)`` and read the Arrow reader it gives.  Our classes answer these calls.  But
deriving from pyarrow's would load ``pyarrow.dataset``, and with it pandas: 0.4 s for everybody.  So

* an object made while one of those programs is there is of a class that derives from both;
* an older object *says* that it is: ``isinstance`` looks at ``__class__`` when the type itself does not match.
  That is enough for most; DuckDB then reads whole tables through the Arrow stream interface.

The filters that such a program pushes down are always applied in full, as it expects.  pyarrow's own C++ part of an
object stays empty: every public method of it is overridden.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from pilum import imports

__all__ = ["Posing"]

# Programs that look for pyarrow's classes.
_WHO_ASKS = ("pyarrow.dataset", "duckdb", "datafusion")


class Posing:
    """Base of the classes that stand in for one of ``pyarrow.dataset``; ``poses_as`` names it."""

    poses_as: str = ""

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if cls.poses_as and any(name in sys.modules for name in _WHO_ASKS):
                both = _derived(cls, getattr(imports.load("pyarrow.dataset"), cls.poses_as))
                return getattr(sys.modules["pyarrow.dataset"], cls.poses_as).__new__(both)
            return object.__new__(cls)

        @property
        def __class__(self) -> Any:
            """Own class, also derived from pyarrow's when that is loaded."""
            module = sys.modules.get("pyarrow.dataset")
            own = type(self)
            if module is None or not self.poses_as:
                return own
            return _derived(own, getattr(module, self.poses_as))

    @classmethod
    def own_class(cls) -> type[Self]:
        """The class as it was written, without pyarrow's."""
        own: type[Self] = cls.__dict__.get("_own", cls)
        return own


@cache
def _derived(own: Any, other: Any) -> Any:
    """A class that derives from one of ours and one of pyarrow's, under the name of ours."""
    if issubclass(own, other):
        return own
    names = {
        "__module__": own.__module__,
        "__qualname__": own.__qualname__,
        "__doc__": own.__doc__,
        "_own": own,
    }
    return type(own.__name__, (own, other), names)
