"""Fixed-size lists: rows of ``dimension`` items, back to back (`spec/file-2.0-and-0.1.md`, A.4).

    nullable(fixed_size_list(d, nullable(flat)))      list validity outside, item validity inside

Row i is the items ``i * d .. (i + 1) * d``.  When the items are whole bytes and never null, a row is one wide flat
value, so a take needs no index per item.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pilum.encoding.blocks import Block, FixedBlock, FslBlock, pack_bits
from pilum.encoding.page import Rows
from pilum.encoding.v2_0.flat import FlatDecoder
from pilum.encoding.v2_0.reads import ArrayDecoder, ArrayRead, Values, then

__all__ = ["FixedSizeListDecoder"]


class FixedSizeListDecoder(ArrayDecoder):
    """Rows of ``dimension`` items each."""

    __slots__ = ("dimension", "items", "wide")

    def __init__(self, dimension: int, items: ArrayDecoder, count: int) -> None:
        self.dimension, self.items, self.count = dimension, items, count
        self.wide: FlatDecoder | None = None
        if isinstance(items, FlatDecoder) and items.bits % 8 == 0:
            self.wide = FlatDecoder(items.bits * dimension, (items.low, items.high), count, items.scheme)

    def schedule(self, rows: Rows) -> ArrayRead:
        dimension = self.dimension
        if self.wide is not None:
            bits = self.wide.bits // dimension
            return then(
                self.wide.schedule(rows), lambda values: Values(_split(values.block, bits, dimension))
            )
        items: Rows
        if isinstance(rows, range):
            items = range(rows.start * dimension, rows.stop * dimension)
        else:
            items = (rows[:, None] * dimension + np.arange(dimension)).reshape(-1)
        count = len(rows)

        def lists(values: Values) -> Values:
            validity = None if values.validity is None else pack_bits(values.validity)
            return Values(FslBlock(dimension, validity, values.block, count))

        return then(self.items.schedule(items), lists)


def _split(block: Any, bits: int, dimension: int) -> Block:
    return FslBlock(dimension, None, FixedBlock(bits, block.data, block.count * dimension), block.count)
