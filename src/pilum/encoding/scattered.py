"""Scattered rows of all columns of a file at once: tables made once, then two compiled passes a take.

    tables        what is known of all pages, made at the first take     `scattered_tables`
    locate        rows -> the spans of the file that hold them           `kernels.pick_columns`, pure
    decode        the bytes of these spans -> Arrow arrays               likewise

Columns that cannot take part are read page by page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding.arrow_blocks import aligned
from pilum.encoding.assembly import assemble
from pilum.encoding.blocks import Bytes
from pilum.encoding.codecs.base import Ints
from pilum.encoding.kernels import pick_columns as kernels
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.pick import cost_without
from pilum.encoding.kernels.pick_lists import MOST_LEVELS
from pilum.encoding.page import PageDecoder
from pilum.encoding.scattered_tables import ColumnArray, TableBuilder
from pilum.schema.field import Field

__all__ = ["Located", "ScatteredRows"]

_MOST_BYTES = 64 << 20  # of spans, and of results
_NOTHING: Ints = np.empty(0, np.int64)
_ROOM = 64  # items a row, for a first try


class Located(NamedTuple):
    """Where rows lie in a file.

    Attributes:
        spans: begin and end of what is to be read, ascending, a row each.
        nbytes: of all spans.
        table, used, places: of their chunks, see `kernels.pick_columns`.
        rows: their number.
    """

    spans: Ints
    nbytes: int
    table: Ints
    used: Ints
    places: Ints
    rows: int


class Vectors(NamedTuple):
    """The rows of a column that is nothing but vectors in one page: where they lie says multiplying.

    Attributes:
        base, stride: where the first row begins in the file, and bytes of each.
        kind: Arrow type.
    """

    base: int
    stride: int
    kind: pa.DataType

    def locate(self, rows: npt.NDArray[np.int64]) -> Located:
        """Rows that are not to be joined."""
        spans = np.empty((len(rows), 2), np.int64)
        begins = rows * self.stride
        begins += self.base
        spans[:, 0] = begins
        np.add(begins, self.stride, out=spans[:, 1])
        return Located(spans, len(rows) * self.stride, _NOTHING, _NOTHING, _NOTHING, len(rows))

    def array(self, count: int, data: Bytes) -> pa.Array:
        """The rows, whose bytes are those of their items."""
        items = count * self.kind.list_size
        value = self.kind.value_type
        child = pa.Array.from_buffers(value, items, [None, aligned(data, value.bit_width // 8)], 0)
        return pa.Array.from_buffers(self.kind, count, [None], 0, children=[child])


class ScatteredRows:
    """Reads scattered rows of some columns of one file.

    Attributes:
        positions: of the columns that take part among those it was made of.
        nbytes: memory held.
    """

    __slots__ = ("_columns", "_row_bytes", "_tables", "_vectors", "nbytes", "positions")

    def __init__(self, columns: Sequence[tuple[Field, Sequence[PageDecoder]] | None]) -> None:
        """Of each column the top-level field and all of its pages, initialised; None does not take part."""
        builder = TableBuilder()
        self.positions: list[int] = []
        self._columns: list[ColumnArray] = []
        for position, column in enumerate(columns):
            made = None if column is None or not column[1] else builder.add(*column)
            if made is not None:
                self.positions.append(position)
                self._columns.append(made)
        self._tables = builder.tables()
        self._row_bytes = 64 * max(1, len(self._columns))  # of results, learnt from takes
        self._vectors: Vectors | None = None
        if len(self._columns) == 1 and self._columns[0].items and len(self._tables.pages) == 1:
            base = int(self._tables.pages[0, kernels.PAGE.index("base")])
            self._vectors = Vectors(
                base, int(self._tables.columns[0, kernels.COLUMN.index("width")]), self._columns[0].value
            )
        self.nbytes = 1000 + sum([one.nbytes for one in self._tables])

    def locate(self, rows: npt.NDArray[np.int64], gap: int) -> Located | None:
        """Where rows lie; None if they are better read page by page.

        Args:
            rows: strictly increasing row numbers, at least one.
            gap: spans that are so many bytes apart, or less, are read as one.
        """
        worth = cost_without(len(rows)) * len(self._columns)
        kernel, lay_out = kernels.LOCATE_COLUMNS.get(worth), kernels.LAY_OUT.get(worth)
        if kernel is None or lay_out is None or not kernels.PICK_COLUMNS.get(worth):
            return None
        tables = self._tables
        count, columns = len(rows), len(self._columns)
        if self._vectors is not None and (
            count == 1 or int(np.diff(rows).min()) > 1 + gap // self._vectors.stride
        ):
            return self._vectors.locate(rows)
        rows = np.ascontiguousarray(rows)
        places = np.empty((columns, 2, count), np.int64)
        used = np.empty(columns + 1, np.int64)
        room = columns * (count + 8)
        while True:
            table = np.empty((7, room), np.int64)
            number = int(
                kernel(
                    rows, tables.columns, tables.pages, tables.first, tables.trailer, tables.stops, tables.begins,
                    tables.ends, tables.counts, table, used, places,
                )
            )  # fmt: skip
            if number >= 0:
                break
            if number == kernels.DENSE:
                return None
            room *= 4
        order = table[5, :number].argsort()
        spans = np.empty((number, 2), np.int64)
        spans = spans[: int(lay_out(table, order, gap, spans))]
        nbytes = int((spans[:, 1] - spans[:, 0]).sum())
        return Located(spans, nbytes, table, used, places, count) if nbytes <= _MOST_BYTES else None

    def decode(self, located: Located, data: Bytes) -> list[pa.Array] | None:
        """The arrays of the columns that take part; None if a page is not as it should be.

        Args:
            located: the rows; can be decoded once.
            data: the bytes of its spans.
        """
        tables = self._tables
        count, columns = located.rows, len(self._columns)
        if len(data) != located.nbytes:
            return None
        if self._vectors is not None and not len(located.used):
            return [self._vectors.array(count, data)]
        kernel = kernels.PICK_COLUMNS.compiled
        if kernel is None:
            return None
        spots = np.empty((columns, len(kernels.SPOT)), np.int64)
        total = np.empty(2, np.int64)
        amount = located.table.shape[1]
        shape = np.empty((4, amount), np.int64)
        room = _ROOM * count if tables.stops.size else count
        marks = np.empty((2, MOST_LEVELS if tables.stops.size else 0), np.uint16)
        size = 4096 + count * self._row_bytes
        while room <= _MOST_BYTES and size <= _MOST_BYTES:
            out = empty(size, np.uint8)
            numbers = empty(4 * room, np.int64)
            sizes, owners, of_chunk, in_chunk = [numbers[k * room : (k + 1) * room] for k in range(4)]
            places = located.places.copy()  # the kernel changes them, and may be called again
            good = kernel(
                data, tables.columns, tables.pages, tables.first, tables.trailer, tables.counts, located.table,
                located.used, places, tables.symbols, tables.symbol_sizes, tables.item_ends, tables.item_bytes,
                empty(room, np.uint64), sizes, empty(room, np.uint16), empty(room, np.uint16), owners, of_chunk, in_chunk,
                empty(room, np.uint8), marks, shape, total, out, spots,
            )  # fmt: skip
            if good == kernels.GOOD:
                return self._arrays(out, int(total[0]), spots, count)
            if good == kernels.ROOM:
                size *= 4
            elif good == kernels.ROOM_FOR_ITEMS:
                room *= 4
            else:
                return None
        return None

    def _arrays(self, out: Bytes, size: int, spots: Ints, count: int) -> list[pa.Array] | None:
        self._row_bytes = max(self._row_bytes, size // count + 64)
        whole = pa.py_buffer(out if 2 * size > len(out) else out[:size].copy())
        arrays = []
        part, build = whole.slice, pa.Array.from_buffers
        for (field, value, offset, text, lists, list_offset, plain, items), spot in zip(
            self._columns, spots.tolist(), strict=True
        ):
            validity, nulls, offsets, item_validity, item_nulls, number, at, nbytes, any_byte, text_at = spot
            if items:
                child = build(value.value_type, count * items, [None, part(at, nbytes)], 0)
                arrays.append(build(value, count, [None], 0, children=[child]))
                continue
            if plain is not None:
                arrays.append(assemble(field, [[plain.decode(count, out[at : at + nbytes])]]))
                continue
            bitmap = own = part(validity, (count + 7) // 8) if nulls else None
            own_nulls = nulls
            if lists is not None:
                own = part(item_validity, (number + 7) // 8) if item_nulls else None
                own_nulls = item_nulls
            if offset:
                buffers = [own, part(at, (number + 1) * offset), part(text_at, nbytes)]
                array = build(value, number, buffers, own_nulls)
                if any_byte >= 128 and text:
                    array.validate(full=True)
            else:
                array = build(value, number, [own, part(at, nbytes)], own_nulls)
            if lists is not None:
                edges = part(offsets, (count + 1) * list_offset)
                array = build(lists, count, [bitmap, edges], nulls, children=[array])
            arrays.append(array)
        return arrays
