"""Array encodings of format 2.0: pages whose encoding is a tree, columns of which a nested field has several.

`open_column` makes the column tree of a field; its ``schedule`` turns rows into an `ArrayRead`, whose ``decode`` turns
bytes into an Arrow array, or into the next read where positions had to be looked up first.  Inside: how reads are
composed (``reads``), one module per family of encodings (``flat``, ``nullable``, ``fixed_size_list``, ``bitpacked``,
``binary`` with ``ends``, ``dictionary``), their registration (``arrays``), columns over pages (``columns``, opened by
``source``), values as Arrow arrays (``values``) and the other direction (``encode``).
"""

from pilum.encoding.v2_0.columns import Column
from pilum.encoding.v2_0.reads import ArrayRead, PageBuffers, join, then
from pilum.encoding.v2_0.source import ColumnSource, PageEncoding, Sources, open_column

__all__ = [
    "ArrayRead",
    "Column",
    "ColumnSource",
    "PageBuffers",
    "PageEncoding",
    "Sources",
    "join",
    "open_column",
    "then",
]
