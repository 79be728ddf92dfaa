"""Pages of format 2.3 as release 14 writes them: a plane of structure and a plane of values.

`spec/file-container-and-structure.md`, section 9.2.  Read only; the format is not stable.  A dense structure is
levels as since 2.1, so such a page is opened as the layout that it is::

    dense  + chunked    mini-block            sparse + chunked, constant, none     `sparse`
    dense  + zipped     full-zip
    dense  + constant   constant
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from pilum.encoding import sparse
from pilum.encoding.page import PageDecoder, PageSource
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = ["decoder"]


def decoder(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a page whose layout is a ``PlanarLayout``.

    Raises:
        CorruptFileError: the layout contradicts itself, or stands in a file of another version.
        UnsupportedError: a pair of planes that no release is known to write.
    """
    from pilum.encoding.pages import open_page

    if version < (2, 3):
        raise CorruptFileError(f"planar page in a file of version {version[0]}.{version[1]}")
    layout = source.layout
    structure, values = layout.structure.WhichOneof("structure"), layout.values.WhichOneof("values")
    if structure is None or values is None:
        raise CorruptFileError("the page names no structure or no values")
    if structure == "sparse":
        return sparse.decoder_of_planes(source, version)
    dense = _DENSE.get(values)
    if dense is None:
        raise UnsupportedError(f"pages of dense structure with values {values} are not supported")
    layers = list(layout.structure.dense.layers)
    return open_page(replace(source, layout=dense(getattr(layout.values, values), layers)), version)


def _child(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _chunked(values: Any, layers: list[int]) -> Any:
    from pilum.proto import encodings_pb2

    mini = encodings_pb2.MiniBlockLayout(
        value_compression=_child(values, "compression"),
        rep_compression=_child(values.levels, "rep"),
        def_compression=_child(values.levels, "def"),
        dictionary=_child(values, "dictionary"),
        num_dictionary_items=values.num_dictionary_items,
        layers=cast(Any, layers),
        num_buffers=values.num_buffers,
        repetition_index_depth=values.levels.repetition_index_depth,
        num_items=values.num_items,
        has_large_chunk=True,
    )
    return encodings_pb2.PageLayout(mini_block_layout=mini)


def _zipped(values: Any, layers: list[int]) -> Any:
    from pilum.proto import encodings_pb2

    details: dict[str, int] = {}
    if values.bits_per_value:
        details["bits_per_value"] = values.bits_per_value
    elif values.bits_per_offset:
        details["bits_per_offset"] = values.bits_per_offset
    full = encodings_pb2.FullZipLayout(
        bits_rep=values.levels.bits_rep,
        bits_def=values.levels.bits_def,
        num_items=values.num_items,
        num_visible_items=values.num_visible_items,
        value_compression=_child(values, "compression"),
        layers=cast(Any, layers),
        **cast(Any, details),
    )
    return encodings_pb2.PageLayout(full_zip_layout=full)


def _constant(values: Any, layers: list[int]) -> Any:
    from pilum.proto import encodings_pb2

    constant = encodings_pb2.ConstantLayout(layers=cast(Any, layers), inline_value=values.scalar)
    return encodings_pb2.PageLayout(constant_layout=constant)


_DENSE = {"chunked": _chunked, "zipped": _zipped, "constant": _constant}
