"""Page layouts: which module reads a page, and which layout a page is written in.

`spec/file-container-and-structure.md`, sections 4 and 4.6.  `LAYOUTS` is the whole registration: each
layout is a module, imported on first use, with

    decoder(source, version) -> PageDecoder
    encode(rows, options)    -> EncodedPage

The layout only depends on the rows of the page and, if the user asks for one, on the field metadata
``lance-encoding:structural-encoding``.  Readers look at the page alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pilum import imports
from pilum.encoding import constant, dictionaries, levels, selection, structure
from pilum.encoding.blocks import (
    Block,
    DictionaryBlock,
    FixedBlock,
    FslBlock,
    StructBlock,
    VariableBlock,
    decode_dictionary,
)
from pilum.encoding.codecs import packed_struct
from pilum.encoding.codecs.base import EncodeOptions
from pilum.encoding.page import EncodedPage, LeafRows, PageDecoder, PageSource
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["LAYOUTS", "cut_to_budget", "encode_page", "open_page"]

LAYOUTS: dict[str, str] = {
    "mini_block_layout": "miniblock",
    "full_zip_layout": "fullzip",
    "constant_layout": "constant",
    "blob_layout": "blob",
    "sparse_layout": "sparse",
}

_LONG_VALUE = 256  # bytes; pages with longer values are written as full-zip
_LONGEST_IN_2_1 = 8192  # bytes; a 2.1 chunk holds 32 KiB and at least two values
_MAX_LEVELS = 65535 // 3  # per chunk, whose level buffers have 65535 bytes; run-length may need 3 for one

_modules: dict[str, Any] = {}  # owned by this module; filled once per name


def _module(name: str) -> Any:
    found = _modules.get(name)
    if found is None:
        found = _modules[name] = imports.load(f"pilum.encoding.{name}")
    return found


def open_page(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a page.

    Args:
        source: the page; its ``layout`` is a ``PageLayout`` or, in 2.3, a ``PlanarLayout`` message.
        version: of the file, (2, 1) or later.  Layouts check what it allows.

    Raises:
        CorruptFileError: the layout contradicts itself, the buffers or the version.
        UnsupportedError: unknown codecs.
    """
    if source.layout.DESCRIPTOR.name == "PlanarLayout":
        module = "planar"
    else:
        name = source.layout.WhichOneof("layout")
        if name is None:
            raise CorruptFileError("the page names no layout")
        module = LAYOUTS[name]
    decoder: PageDecoder = _module(module).decoder(source, version)
    return decoder


def encode_page(rows: LeafRows, *, options: EncodeOptions, structural: str | None = None) -> EncodedPage:
    """Write rows as one page.

    Args:
        rows: at least one row.
        options: of the leaf field.
        structural: ``"miniblock"`` or ``"fullzip"``, the wish of the top-level field, granted where the
            layout can hold the rows; None leaves the choice to the length of the values.

    Raises:
        InvalidInputError: no rows, another ``structural``, or a codec that cannot hold the values.
    """
    if structural is not None and structural.lower() not in ("miniblock", "fullzip"):
        raise InvalidInputError(f"unknown structural encoding {structural!r}; use miniblock or fullzip")
    if not rows.num_rows:
        raise InvalidInputError("a page needs at least one row")
    page = constant.encode(rows, options)
    if page is not None:
        return page
    rows = _with_dictionary(rows, options)
    encoded: EncodedPage = _module(choose_layout(rows, options, structural)).encode(rows, options)
    return encoded


def _with_dictionary(rows: LeafRows, options: EncodeOptions) -> LeafRows:
    """The rows as dictionary indices where that pays, or where they are that already."""
    block = rows.block
    if isinstance(block, DictionaryBlock):
        # full-zip has no dictionaries
        plain = _too_many_levels(rows, options)
        return replace(rows, block=decode_dictionary(block) if plain else dictionaries.compacted(block))
    if not isinstance(block, FixedBlock | VariableBlock) or _too_many_levels(rows, options):
        return rows
    found = dictionaries.dictionary_of(block, options)
    return rows if found is None else replace(rows, block=found)


def cut_to_budget(rows: LeafRows, options: EncodeOptions) -> list[LeafRows]:
    """The rows in parts whose levels chunks can hold (5.5), cut between rows; a part of one row may be too large.

    The reference cuts every page of more levels than its budget, as soon as one entry owns no value.  Here only those
    are cut whose chunks need it, into parts that fit one chunk: large pages are smaller and faster.
    """
    rep = rows.rep
    if rep is None or not _too_many_levels(rows, options):
        return [rows]
    begins = np.append(levels.row_starts(rep, rows.layers), len(rep))
    parts, at = [], 0
    while at < rows.num_rows:
        stop = max(at + 1, int(np.searchsorted(begins, begins[at] + _MAX_LEVELS, "right")) - 1)
        parts.append(structure.slice_rows(rows, at, stop - at))
        at = stop
    return parts


def choose_layout(rows: LeafRows, options: EncodeOptions, structural: str | None) -> str:
    """Mini-block or full-zip (4.6, steps 4, 8 and 9) for rows that are not constant."""
    if isinstance(rows.block, DictionaryBlock):
        return "miniblock"
    if isinstance(rows.block, StructBlock) and (
        options.version < (2, 3) or not packed_struct.is_fixed(rows.block)
    ):
        # one codec has a mini-block form only, the other a full-zip form only
        return "miniblock" if packed_struct.is_fixed(rows.block) else "fullzip"
    longest = selection.longest_value(rows.block)
    if _too_many_levels(rows, options) or (options.version < (2, 2) and longest > _LONGEST_IN_2_1):
        return "fullzip" if _zippable(rows.block) else "miniblock"
    if structural is not None:
        wanted = structural.lower()
        return wanted if wanted == "miniblock" or _zippable(rows.block) else "miniblock"
    return "miniblock" if longest < _LONG_VALUE else "fullzip"


def _too_many_levels(rows: LeafRows, options: EncodeOptions) -> bool:
    """Whether a mini-block chunk could get more levels than its header can count.

    A chunk holds at most ``max_values`` values, and all entries without a value that lie before them
    (null and empty lists, or rows of them).
    """
    if rows.rep is None:
        return False
    entries, most = len(rows.rep), options.max_values
    visible = levels.visible_mask(rows.definition, rows.layers)
    if entries <= _MAX_LEVELS or visible is None:
        return False
    ends = np.flatnonzero(visible)
    if len(ends) <= most:
        return True
    # a run of so many values, and what lies before it, is inside three steps between every `most`-th value
    coarse = np.concatenate([[-1], ends[::most], [entries, entries]])
    if len(coarse) > 3 and int((coarse[3:] - coarse[:-3]).max()) <= _MAX_LEVELS:
        return False
    begins = np.concatenate([[-1], ends[:-1]])
    ends[-1] = entries - 1  # the last chunk takes the rest
    return int((ends[most - 1 :] - begins[: len(ends) - most + 1]).max()) > _MAX_LEVELS


def _zippable(block: Block) -> bool:
    """Whether full-zip has a form for the values: whole bytes, or bits that become bytes."""
    if isinstance(block, FslBlock):
        return _zippable(block.child)
    return not isinstance(block, FixedBlock) or block.bits == 1 or block.bits % 8 == 0
