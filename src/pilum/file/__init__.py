"""Data files: their container, `FileReader`, `FileWriter`, and the cache of what is known about files.

A reader opens a file by its tail, initialises the pages it needs, schedules byte ranges and decodes them; a writer
shreds batches, cuts pages and appends them (`docs/architecture.md`, "The one idea").  `Session` holds the metadata
that outlives one query.  What the bytes of a page mean is the business of `pilum.encoding`; where the bytes come
from, that of `pilum.io`.
"""

from pilum.file.cache import Cache, Session
from pilum.file.reader import FileReader
from pilum.file.stream import ReadTask
from pilum.file.writer import FileWriter, WrittenFile

__all__ = ["Cache", "FileReader", "FileWriter", "ReadTask", "Session", "WrittenFile"]
