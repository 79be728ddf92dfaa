"""The synchronous door, room by room; `pilum.dataset.synchronous` puts it together.

Every method hands the coroutine of its asynchronous twin to `pilum.io.run`: a method here is its signature, its
documentation and one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports

if not TYPE_CHECKING:
    __getattr__, __dir__ = imports.late(__name__, {"fragments": ()})
