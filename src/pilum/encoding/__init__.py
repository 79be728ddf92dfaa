"""Encodings: pages of columns as bytes, and back.  Pure: no file, no store, no await.

Reading a page: `open_page` makes a `PageDecoder`, which says what it must know first
(``metadata_ranges``), turns rows into byte ranges (``schedule``) and bytes into `Decoded` values and
levels; `assemble` makes an Arrow array of the decoded leaves of a column.  Writing is the mirror image:
`shred` makes `LeafRows` of an Arrow array, `merge` and `slice_rows` collect and cut them, `encode_page`
writes a page.  Inside: page layouts (``miniblock``, ``fullzip``, ``constant``), levels and structure
(``levels``, ``structure``, ``assembly``), value codecs (``codecs``, chosen in ``selection``) and the loops
they run (``kernels``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports

if TYPE_CHECKING:
    from pilum.encoding.assembly import assemble
    from pilum.encoding.blob import descriptors_of
    from pilum.encoding.column_rows import ColumnRows
    from pilum.encoding.options import EncodeOptions
    from pilum.encoding.page import (
        Decoded,
        EncodedPage,
        LeafRows,
        PageDecoder,
        PageRead,
        PageSource,
        Range,
        Rows,
    )
    from pilum.encoding.pages import cut_to_budget, encode_page, open_page
    from pilum.encoding.structure import merge, row_factors, shred, size_of, slice_rows
else:
    __getattr__, __dir__ = imports.late(
        __name__,
        {
            "assembly": ("assemble",),
            "blob": ("descriptors_of",),
            "column_rows": ("ColumnRows",),
            "constant": (),
            "dictionaries": (),
            "options": ("EncodeOptions",),
            "page": (
                "Decoded",
                "EncodedPage",
                "LeafRows",
                "PageDecoder",
                "PageRead",
                "PageSource",
                "Range",
                "Rows",
            ),
            "pages": ("cut_to_budget", "encode_page", "open_page"),
            "prepared_blobs": (),
            "selection": (),
            "sparse": (),
            "structure": ("merge", "row_factors", "shred", "size_of", "slice_rows"),
        },
    )

__all__ = [
    "ColumnRows",
    "Decoded",
    "EncodeOptions",
    "EncodedPage",
    "LeafRows",
    "PageDecoder",
    "PageRead",
    "PageSource",
    "Range",
    "Rows",
    "assemble",
    "cut_to_budget",
    "descriptors_of",
    "encode_page",
    "merge",
    "open_page",
    "row_factors",
    "shred",
    "size_of",
    "slice_rows",
]
