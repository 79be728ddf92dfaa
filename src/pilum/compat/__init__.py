"""pilum under the name of the reference: `install`.

After it ``import lance`` and its submodules resolve to pilum.  `catalogue` says which name means what, `finder`
makes the modules when they are imported.  What is not built is there, too, and raises `UnsupportedError` when it
is used, so that importing a program never fails for a name it does not reach.
"""

from __future__ import annotations

from pilum.compat.finder import install

__all__ = ["install"]
