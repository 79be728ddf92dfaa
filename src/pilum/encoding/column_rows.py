"""Scattered rows of a column of several mini-block pages, in one pass over all of them.

A take of a hundred rows touches dozens of small pages with a row or two of each, and what is done once a page costs
more than the values.  Here the chunks of all pages are numbered through: rows are found, ranges made and values picked
(`miniblock_pick`) for the whole column at once.  Pages only differ in what their values are codes of: FSST tables are
looked up page by page, small dictionaries are joined, others looked up page by page, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import (
    Block,
    Bytes,
    DictionaryBlock,
    FixedBlock,
    VariableBlock,
    block_bytes,
    concat_blocks,
    decode_dictionary,
    slice_block,
    take_block,
)
from pilum.encoding.codecs.base import Ints
from pilum.encoding.kernels.locate import Located
from pilum.encoding.miniblock import MiniBlockDecoder, value_levels
from pilum.encoding.miniblock_pick import FEW, Picked, Picker
from pilum.encoding.miniblock_rows import RowIndex
from pilum.encoding.page import Decoded, PageDecoder, Range

__all__ = ["ColumnRows", "together"]

_MOST_ITEMS = 4 << 20  # bytes of dictionaries that are joined


class ColumnRows:
    """Reads scattered rows of a column."""

    __slots__ = (
        "_counts", "_ends", "_first_rows", "_index", "_item_starts", "_items", "_pages", "_picker", "_starts",
        "_stores_values",
    )  # fmt: skip

    def __init__(self, pages: Sequence[MiniBlockDecoder], picker: Picker) -> None:
        indices, starts, ends, counts = zip(*[page.chunks for page in pages], strict=True)
        row = chunk = 0
        first_rows, firsts, stops = [], [], []
        for index in indices:
            first_rows.append(row)
            firsts.append(index.first[:-1] + row)
            if index.stops is not None:
                stops.append(index.stops + chunk)
            row += int(index.first[-1])
            chunk += len(index.first) - 1
        trailers = [index.trailer for index in indices if index.trailer is not None]
        self._index = RowIndex(
            np.concatenate([*firsts, [row]]),
            np.concatenate(trailers) if trailers else None,
            np.concatenate(stops) if stops else None,
        )
        self._first_rows: Ints = np.array([*first_rows, row])
        self._starts, self._ends, self._counts = map(np.concatenate, (starts, ends, counts))
        self._pages, self._picker = pages, picker
        self._items, self._item_starts = _joined_items(pages)
        self._stores_values = all(page.stores_values for page in pages)

    def schedule(self, rows: npt.NDArray[np.int64]) -> tuple[list[Range], Any] | None:
        """The ranges of some rows, and what decodes their bytes; None if pages are better read one by one.

        Args:
            rows: strictly increasing row numbers of the column.

        Returns:
            The ranges, in the order of the rows; a function of their bytes that gives the rows, or None if the pages must be decoded one
            by one after all (from the same bytes, which hold whole chunks).
        """
        if not self._picker.loaded:
            return None
        located = self._index.locate(rows, self._starts, self._ends, join=False)
        if len(rows) > FEW * len(located.chunks):
            return None
        return located.ranges, partial(self._decode, rows, located)

    def _decode(self, rows: npt.NDArray[np.int64], located: Located, buffers: list[Bytes]) -> Decoded | None:
        data = buffers[0] if len(buffers) == 1 else np.concatenate(buffers)
        if len(data) != int(located.ends[-1]):
            return None
        found = self._picker.rows(data, located, self._counts, self._index)
        if found is None:
            return None
        block = found.block
        if self._items is not None:
            items = self._look_up_all(self._items, found, rows)
            if items is None:
                return None
            block = items
        elif not self._stores_values:
            block = self._look_up(found, rows)
        return Decoded(block, found.rep, found.definition, self._pages[0].layers, len(rows))

    def _look_up_all(self, items: Block, found: Picked, rows: npt.NDArray[np.int64]) -> Block | None:
        """The items of what was picked, of all pages at once; None if an index is out of range."""
        if not isinstance(found.block, FixedBlock) or found.block.bits not in (8, 16, 32, 64):
            return None
        indices = found.block.words().astype(np.int64)
        definition = value_levels(found.definition, self._pages[0].layers)
        if definition is not None:
            indices[definition != 0] = 0
        page = self._first_rows.searchsorted(rows, "right") - 1
        if found.owners is not None:
            page = page[found.owners]
        first, after = self._item_starts[page], self._item_starts[page + 1]
        indices += first
        if bool(((indices < first) | (indices >= after)).any()):
            return None
        return take_block(items, indices)

    def _look_up(self, found: Picked, rows: npt.NDArray[np.int64]) -> Block:
        """The values of what was picked, page by page."""
        edges = rows.searchsorted(self._first_rows)
        values = levels = edges
        if found.owners is not None and found.rep is not None:
            values = found.owners.searchsorted(edges)
            heads = np.flatnonzero(found.rep == found.rep[0])
            levels = np.append(heads, len(found.rep))[edges]
        blocks = []
        for page, low in enumerate(edges[:-1].tolist()):
            high = int(edges[page + 1])
            if low == high:
                continue
            here = slice(int(levels[page]), int(levels[page + 1]))
            part = slice_block(found.block, int(values[page]), int(values[page + 1] - values[page]))
            rep = None if found.rep is None else found.rep[here]
            definition = None if found.definition is None else found.definition[here]
            block = self._pages[page].complete(part, rep, definition, high - low).block
            blocks.append(decode_dictionary(block) if isinstance(block, DictionaryBlock) else block)
        return concat_blocks(blocks)


def _joined_items(pages: Sequence[MiniBlockDecoder]) -> tuple[Block | None, Ints]:
    """The dictionaries of all pages, one after the other, and where each begins; None if there are others, or much."""
    items = [page.dictionary for page in pages if page.picker is not None and page.picker.finish is None]
    dictionaries = [block for block in items if isinstance(block, (FixedBlock, VariableBlock))]
    starts = np.cumsum([0, *(block.count for block in dictionaries)])
    if len(dictionaries) < len(pages) or sum(map(block_bytes, dictionaries)) > _MOST_ITEMS:
        return None, starts
    kinds = {block.bits if isinstance(block, FixedBlock) else 0 for block in dictionaries}
    return (concat_blocks([*dictionaries]) if len(kinds) == 1 else None), starts


def together(pages: Sequence[PageDecoder]) -> ColumnRows | None:
    """What reads scattered rows of a column; None if its pages are not alike, or too few.

    Args:
        pages: all of its pages, initialised.
    """
    blocks = [page for page in pages if isinstance(page, MiniBlockDecoder)]
    if len(pages) < 2 or len(blocks) < len(pages):
        return None
    pickers = [page.picker for page in blocks]
    first = pickers[0]
    if first is None:
        return None
    for page, picker in zip(blocks, pickers, strict=True):
        if picker is None or (picker.shape, picker.lists) != (first.shape, first.lists):
            return None
        if page.layers != blocks[0].layers:
            return None
    return ColumnRows(blocks, first)
