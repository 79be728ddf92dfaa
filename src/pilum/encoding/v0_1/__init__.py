"""Columns of format 0.1: one page per field and batch, chosen by the type alone (`spec/file-2.0-and-0.1.md`, B.3).

    fixed width          values back to back; booleans as bits; fixed-size lists as their items      (``fixed``)
    dictionary           indices of fixed width; the values are somewhere else
    strings, lists       positions and bytes; offsets and items                                      (``variable``)
    struct               nothing; null: nothing

Nothing says that a value is null; a nullable string is null when it is empty (B.4).  ``batches`` knows how rows are cut,
``source`` opens columns.  The trees and the reads are those of `pilum.encoding.v2_0`.  Must not know: files, stores,
messages.
"""

from pilum.encoding.v0_1.batches import Batches, Pages
from pilum.encoding.v0_1.source import open_column, page_sizes

__all__ = ["Batches", "Pages", "open_column", "page_sizes"]
