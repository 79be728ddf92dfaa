"""Full-zip pages with a repetition index: variable-width values, and lists of any values.

The bytes are described in `pilum.encoding.fullzip`.  Buffer 1 says where each row begins in
buffer 0::

    buffer 1   rows + 1 numbers of 1, 2, 4 or 8 bytes     number r = first byte of row r,
                                                           the last = size of buffer 0

An index of at most 1 MiB is metadata: read once and kept, and a read of some rows is one round of
requests.  A larger one stays in the file: a read looks up its rows first and then asks for their bytes, and a read of
the whole page asks for both buffers at once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding import registry
from pilum.encoding.blocks import Block, Bytes, Offsets, VariableBlock
from pilum.encoding.codecs.base import FixedValues, Ints
from pilum.encoding.kernels import ranges
from pilum.encoding.kernels.unzip import EntryShape, unzip
from pilum.encoding.page import Decoded, PageDecoder, PageRead, PageSource, Range, Rows
from pilum.errors import CorruptFileError

__all__ = ["CACHED_INDEX", "IndexedDecoder", "pack_index", "runs"]

CACHED_INDEX = 1 << 20  # bytes of the largest index that is kept in memory
_MAX_I32 = 2**31 - 1
_WIDTHS = (1, 2, 4, 8)


def runs(rows: npt.NDArray[np.int64]) -> tuple[Ints, Ints]:
    """Positions in ``rows`` of the first and of the last row of each run of consecutive rows."""
    breaks = np.flatnonzero(rows[1:] - rows[:-1] != 1)
    return np.append(0, breaks + 1), np.append(breaks, len(rows) - 1)


def pack_index(starts: Ints, size: int, bound: int) -> Bytes:
    """Buffer 1: where rows begin, then the size of buffer 0; as wide as ``bound`` needs."""
    width = next(width for width in _WIDTHS if bound < 1 << 8 * width)
    return np.append(starts, size).astype(f"<u{width}").view(np.uint8)


class IndexedDecoder(PageDecoder):
    """Reads a full-zip page whose rows lie where buffer 1 says.

    Args:
        source: the page.
        layers: of the page, checked.
        shape: of its entries.
        bits_rep: 0 when no repetition levels are stored.
        prefix_bits: width of the lengths, 0 for fixed-width values.
        ce: the codec of the values.
    """

    __slots__ = ("_bits_rep", "_index", "_kept", "_prefix_bits", "_shape", "_source", "_values", "_width")

    def __init__(
        self,
        source: PageSource,
        layers: tuple[int, ...],
        shape: EntryShape,
        bits_rep: int,
        prefix_bits: int,
        ce: Any,
    ) -> None:
        self._source, self._shape = source, shape
        self._bits_rep, self._prefix_bits = bits_rep, prefix_bits
        self.layers, self.num_rows = layers, source.length
        self._values = registry.values_decoder(ce)
        self._width, rest = divmod(source.sizes[1], source.length + 1)
        if rest or self._width not in _WIDTHS:
            raise CorruptFileError(
                f"repetition index of {source.sizes[1]} bytes for a full-zip page of {source.length} rows"
            )
        self._kept = source.sizes[1] <= CACHED_INDEX
        self._index: npt.NDArray[Any] | None = None

    # ------------------------------------------------------------------ metadata

    def metadata_ranges(self) -> list[Range]:
        return [self._range(1)] if self._kept else []

    def initialise(self, buffers: list[Bytes]) -> None:
        if self._kept:
            # a copy: the cached index must not keep the buffer of a whole request alive
            self._index = self._check_whole(buffers[0].copy())

    @property
    def initialised(self) -> bool:
        return not self._kept or self._index is not None

    @property
    def nbytes(self) -> int:
        return 512 + (0 if self._index is None else self._index.nbytes)

    def _range(self, number: int) -> Range:
        start = self._source.offsets[number]
        return start, start + self._source.sizes[number]

    def _numbers(self, data: Bytes, count: int) -> npt.NDArray[Any]:
        if len(data) != count * self._width:
            raise CorruptFileError(f"{len(data)} bytes of a repetition index for {count} numbers")
        return data.view(f"<u{self._width}")

    def _check_whole(self, data: Bytes) -> npt.NDArray[Any]:
        index = self._numbers(data, self.num_rows + 1)
        first, last = int(index[0]), int(index[-1])
        if first != 0 or last != self._source.sizes[0] or not bool((index[1:] > index[:-1]).all()):
            raise CorruptFileError(
                f"repetition index runs from {first} to {last} and must rise from 0 to"
                f" {self._source.sizes[0]}, the size of the values"
            )
        return index

    # ------------------------------------------------------------------ schedule

    def schedule(self, rows: Rows) -> PageRead:
        if not len(rows):
            return PageRead([], partial(self._unzip, np.zeros(1, np.int64)))
        if not isinstance(rows, range) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
            rows = range(int(rows[0]), int(rows[-1]) + 1)
        if self._index is not None:
            if isinstance(rows, range):
                return self._plan_range(self._index[rows.start : rows.stop + 1])
            return self._plan_rows(rows, self._index[rows], self._index[rows + 1])
        if self._kept:
            raise RuntimeError("schedule() before initialise()")
        start, width = self._source.offsets[1], self._width
        if isinstance(rows, range):
            if len(rows) == self.num_rows:
                both = sorted((0, 1), key=self._source.offsets.__getitem__)
                return PageRead([self._range(k) for k in both], partial(self._decode_whole, both))
            wanted = [(start + rows.start * width, start + (rows.stop + 1) * width)]
            return PageRead(wanted, partial(self._look_up_range, rows))
        first, last = runs(rows)
        low, high = start + rows[first] * width, start + (rows[last] + 2) * width
        wanted = list(zip(low.tolist(), high.tolist(), strict=True))
        return PageRead(wanted, partial(self._look_up_rows, rows, first))

    def _look_up_range(self, rows: range, buffers: list[Bytes]) -> PageRead:
        index = self._numbers(buffers[0], len(rows) + 1)
        self._check_part(rows.start, rows.stop - 1, index[:-1], index[1:])
        return self._plan_range(index)

    def _look_up_rows(self, rows: npt.NDArray[np.int64], first: Ints, buffers: list[Bytes]) -> PageRead:
        """A run of n rows fetched n + 1 numbers: row k of run j is number k + j."""
        index = self._numbers(np.concatenate(buffers), len(rows) + len(first))
        at = np.arange(len(rows)) + np.searchsorted(first, np.arange(len(rows)), "right") - 1
        starts, ends = index[at], index[at + 1]
        self._check_part(int(rows[0]), int(rows[-1]), starts, ends)
        return self._plan_rows(rows, starts, ends)

    def _check_part(self, first: int, last: int, starts: npt.NDArray[Any], ends: npt.NDArray[Any]) -> None:
        size = self._source.sizes[0]
        good = bool((starts < ends).all()) and bool((ends[:-1] <= starts[1:]).all()) and int(ends[-1]) <= size
        if first == 0:
            good = good and int(starts[0]) == 0
        if last == self.num_rows - 1:
            good = good and int(ends[-1]) == size
        if not good:
            raise CorruptFileError(
                f"repetition index of rows {first} to {last} does not rise inside the {size} bytes of the values"
            )

    def _plan_range(self, index: npt.NDArray[Any]) -> PageRead:
        edges = index.astype(np.int64)
        start = self._source.offsets[0]
        low, high = int(edges[0]), int(edges[-1])
        edges -= low
        return PageRead([(start + low, start + high)], partial(self._unzip, edges))

    def _plan_rows(
        self, rows: npt.NDArray[np.int64], starts: npt.NDArray[Any], ends: npt.NDArray[Any]
    ) -> PageRead:
        starts, ends = starts.astype(np.int64), ends.astype(np.int64)
        first, last = runs(rows)
        base = self._source.offsets[0]
        wanted = zip((base + starts[first]).tolist(), (base + ends[last]).tolist(), strict=True)
        edges = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(ends - starts, out=edges[1:])
        return PageRead(list(wanted), partial(self._unzip, edges))

    # ------------------------------------------------------------------ decode

    def _decode_whole(self, order: list[int], buffers: list[Bytes]) -> Decoded:
        values, index = (buffers[order.index(number)] for number in (0, 1))
        return self._unzip(self._check_whole(index).astype(np.int64), [values])

    def _unzip(self, edges: Ints, buffers: list[Bytes]) -> Decoded:
        """Rows that lie back to back in the buffers, row r at ``edges[r]``."""
        if len(buffers) == 1:
            data = np.ascontiguousarray(buffers[0])
        else:
            data = np.concatenate([*buffers, np.empty(0, np.uint8)])
        if len(data) != int(edges[-1]):
            raise CorruptFileError(f"{len(data)} bytes were read where {int(edges[-1])} belong to the page")
        entries = unzip(data, edges, self._shape)
        if isinstance(entries, str):
            raise CorruptFileError(f"full-zip page: {entries}")
        plain = ranges.gather(data, entries.starts, entries.sizes)
        block = self._block(plain, entries.sizes)
        rep = entries.rep if self._bits_rep else None
        definition = entries.definition if self._shape.bits_def else None
        return Decoded(block, rep, definition, self.layers, len(edges) - 1)

    def _block(self, data: Bytes, sizes: Ints) -> Block:
        if not self._prefix_bits:
            return self._values(FixedValues(self._shape.width, data, len(sizes)))
        narrow = self._prefix_bits == 32 and len(data) <= _MAX_I32
        offsets: Offsets = (
            np.zeros(len(sizes) + 1, np.int32) if narrow else np.zeros(len(sizes) + 1, np.int64)
        )
        np.cumsum(sizes, out=offsets[1:])
        return self._values(VariableBlock(32 if narrow else 64, offsets, data, len(sizes)))
