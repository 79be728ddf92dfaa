"""Data files: their container, `open_file` and the readers, `FileWriter`, and the cache of what is known about files.

A reader opens a file by its tail, initialises the pages it needs, schedules byte ranges and decodes them; a writer
shreds batches, cuts pages and appends them (`docs/architecture.md`, "The one idea").  `Session` holds the metadata
that outlives one query.  What the bytes of a page mean is the business of `pilum.encoding`; where the bytes come
from, that of `pilum.io`.  Files of format 2.0 (`v2_0`, `writer_v2_0`) and 0.1 (`v0_1`) have readers of their own behind
the same interface, `GenericReader`; they are imported when such a file is met.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports

if TYPE_CHECKING:
    from pilum.file.cache import Cache, Session
    from pilum.file.generic import GenericReader
    from pilum.file.open import open_file
    from pilum.file.reader import FileReader
    from pilum.file.stream import ReadTask
    from pilum.file.writer import FileWriter, WrittenFile
else:
    __getattr__, __dir__ = imports.late(
        __name__,
        {
            "api": (),
            "cache": ("Cache", "Session"),
            "details": (),
            "folder": (),
            "generic": ("GenericReader",),
            "open": ("open_file",),
            "reader": ("FileReader",),
            "stream": ("ReadTask",),
            "synchronous": (),
            "v0_1": (),
            "v2_0": (),
            "writer": ("FileWriter", "WrittenFile"),
            "writer_v2_0": (),
        },
    )

__all__ = [
    "Cache", "FileReader", "FileWriter", "GenericReader", "ReadTask", "Session", "WrittenFile", "open_file",
]  # fmt: skip
