"""Scattered rows of a column of several mini-block pages, in one pass over all of them.

A take of a hundred rows touches dozens of small pages with a row or two of each, and what is done once a page costs
more than the values.  Here the chunks of all pages are numbered through: rows are found, ranges made and values picked
(`miniblock_pick`) for the whole column at once.  Pages only differ in what their values are codes of: dictionaries and
FSST tables are looked up page by page.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bytes, DictionaryBlock, concat_blocks, decode_dictionary, slice_block
from pilum.encoding.codecs.base import Ints
from pilum.encoding.miniblock import MiniBlockDecoder
from pilum.encoding.miniblock_pick import FEW, Picked, Picker
from pilum.encoding.miniblock_rows import RowIndex
from pilum.encoding.page import Decoded, PageDecoder, Range

__all__ = ["ColumnRows", "column_rows"]


class ColumnRows:
    """Reads scattered rows of a column.

    Attributes:
        nbytes: memory held.
    """

    __slots__ = ("_counts", "_ends", "_first_rows", "_index", "_pages", "_picker", "_starts", "nbytes")

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
        self.nbytes = self._index.nbytes + 3 * self._counts.nbytes + self._first_rows.nbytes

    def schedule(self, rows: npt.NDArray[np.int64]) -> tuple[list[Range], Any] | None:
        """The ranges of some rows, and what decodes their bytes; None if pages are better read one by one.

        Args:
            rows: strictly increasing row numbers of the column.

        Returns:
            The ranges, ascending; a function of their bytes that gives the rows, or None if the pages must be decoded one
            by one after all (from the same bytes, which hold whole chunks).
        """
        index = self._index
        _, low, high = index.chunks_of(rows)
        lengths = high - low
        chunks = np.repeat(low - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        if len(rows) > FEW * len(chunks):
            return None
        ranges = list(zip(self._starts[chunks].tolist(), self._ends[chunks].tolist(), strict=True))
        return ranges, partial(self._decode, rows, chunks)

    def _decode(self, rows: npt.NDArray[np.int64], chunks: Ints, buffers: list[Bytes]) -> Decoded | None:
        data = buffers[0] if len(buffers) == 1 else np.concatenate(buffers)
        sizes = self._ends[chunks] - self._starts[chunks]
        ends = np.cumsum(sizes)
        if len(data) != int(ends[-1]):
            return None
        found = self._picker.rows(data, ends - sizes, ends, chunks, self._counts[chunks], self._index, rows)
        if found is None:
            return None
        block = found.block
        if not all(page.stores_values for page in self._pages):
            block = self._look_up(found, rows)
        return Decoded(block, found.rep, found.definition, self._pages[0].layers, len(rows))

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


def column_rows(pages: Sequence[PageDecoder]) -> ColumnRows | None:
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
