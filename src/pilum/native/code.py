"""Machine code as it is kept."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Code"]


class Code(NamedTuple):
    """Machine code with an entry.

    Attributes:
        content: the image (`pilum.native.image`); or, if ``entry`` is a name, an object file.
        entry: where in the image it begins; or its name in the object file.
        names: functions and objects elsewhere whose addresses it needs.
        fixups: where an address belongs, of which name (an index; -1 is the image itself), and what to add to it; none
            for an object file.
    """

    content: bytes
    entry: int | str
    names: list[str]
    fixups: list[tuple[int, int, int]]
