"""The codecs of formats 2.1 and 2.2: one module per message of `CompressiveEncoding`.

Each module describes its bytes once, on top, and holds decoder and encoder side by side as
one object named ``CODEC`` (a subclass of `base.Codec`).  `pilum.encoding.registry` finds it
by name; the few modules that others call, too, are imported when they do.
"""

from typing import TYPE_CHECKING

from pilum import imports

if not TYPE_CHECKING:
    __getattr__, __dir__ = imports.late(__name__, {"fsst": (), "general": (), "packed_struct": ()})
