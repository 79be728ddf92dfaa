"""Values of fixed width in format 0.1: back to back, booleans as one stream of bits per page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pilum import distinct
from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import Block, Bytes, FixedBlock, FslBlock, pack_bits, unpack_bits
from pilum.encoding.page import Rows
from pilum.encoding.v0_1.batches import (
    BatchedColumn,
    Batches,
    Pages,
    check_inside,
    joined,
    merged_ranges,
    page_ranges,
)
from pilum.encoding.v2_0.flat import read_spans
from pilum.encoding.v2_0.reads import ArrayRead, Values, then
from pilum.encoding.v2_0.values import converter, to_array
from pilum.errors import CorruptFileError

__all__ = ["BitsColumn", "FixedColumn"]


class FixedColumn(BatchedColumn):
    """Values of whole bytes, among them fixed-size lists and dictionary indices."""

    __slots__ = ("_convert", "dictionary", "width")

    def __init__(
        self, pages: Pages, batches: Batches, arrow_type: Any, width: int, file_size: int, dictionary: Any
    ) -> None:
        super().__init__(pages, batches, arrow_type)
        self.width, self.dictionary = width, dictionary
        self._convert = converter(arrow_type)
        check_inside(pages.positions, batches.counts * width, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        width, count = self.width, len(rows)
        if isinstance(rows, range):
            single = self.batches.within(rows)
            if single is not None:
                page, low, high = single
                at = int(self.positions[page])
                return ArrayRead(
                    [(at + low * width, at + high * width)], lambda buffers: self._array(buffers[0], count)
                )
            parts = self.batches.parts(rows)
            base = self.positions[parts.pages]
            ranges = merged_ranges(base + parts.lows * width, base + parts.highs * width)
            return ArrayRead(ranges, lambda buffers: self._array(joined(buffers), count))
        pages, places = self.batches.locate(rows)
        read = read_spans(self.positions[pages] + places * width, np.full(count, width))
        return then(read, lambda data: self._array(data, count))

    def _array(self, data: Bytes, count: int) -> Any:
        kind = self.arrow_type
        if self.dictionary is None:
            return self._convert(Values(_block(kind, data, count)))
        block = FixedBlock(8 * self.width, data, count)
        if count and int(block.words().max()) >= len(self.dictionary):
            raise CorruptFileError(
                f"dictionary index {int(block.words().max())}, the dictionary has {len(self.dictionary)} items"
            )
        return to_array(Values(block, None, self.dictionary), kind)


def _block(kind: Any, data: Bytes, count: int) -> Block:
    if pa.types.is_fixed_size_list(kind):
        return FslBlock(kind.list_size, None, _block(kind.value_type, data, count * kind.list_size), count)
    return FixedBlock(int(kind.bit_width), data, count)


class BitsColumn(BatchedColumn):
    """Booleans, and fixed-size lists of booleans: one bit stream per page."""

    __slots__ = ("dimension",)

    def __init__(
        self, pages: Pages, batches: Batches, arrow_type: Any, dimension: int, file_size: int
    ) -> None:
        super().__init__(pages, batches, arrow_type)
        self.dimension = dimension
        check_inside(pages.positions, (batches.counts * dimension + 7) // 8, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        dimension, count = self.dimension, len(rows)
        if isinstance(rows, range):
            parts = self.batches.parts(rows)
            lows, highs = parts.lows * dimension, parts.highs * dimension
            base = self.positions[parts.pages]
            shifts = (lows & 7).tolist()
            sizes = (highs - lows).tolist()

            def decode(buffers: list[Bytes]) -> Any:
                pieces = zip(buffers, sizes, shifts, strict=True)
                return self._array(np.concatenate([unpack_bits(data, n, k) for data, n, k in pieces]), count)

            return ArrayRead(page_ranges(base + lows // 8, base + (highs + 7) // 8), decode)
        pages, places = self.batches.locate(rows)
        bits = (places[:, None] * dimension + np.arange(dimension)).reshape(-1)
        holders = np.repeat(self.positions[pages], dimension) + (bits >> 3)
        needed, back = distinct.unique_inverse(holders)

        def pick(data: Bytes) -> Any:
            return self._array((data[back] >> (bits & 7).astype(np.uint8)) & np.uint8(1), count)

        return then(read_spans(needed, np.ones(len(needed), np.int64)), pick)

    def _array(self, bits: Any, count: int) -> Any:
        return to_arrow(_bit_block(self.arrow_type, pack_bits(bits), count), self.arrow_type)


def _bit_block(kind: Any, data: Bytes, count: int) -> Block:
    if pa.types.is_fixed_size_list(kind):
        return FslBlock(
            kind.list_size, None, _bit_block(kind.value_type, data, count * kind.list_size), count
        )
    return FixedBlock(1, data, count)
