"""Scattered rows of all columns of a file at once: tables made once, then two compiled passes a take.

`kernels.pick_columns` tells what is done; here the tables are made that it works on, and Arrow arrays of what it
returns.  Columns of leaves and of lists of leaves take part, whose pages are mini-block pages of codecs whose values
can be picked (`miniblock_pick`), and columns of full-zip pages of fixed width.  All others are read page by page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding import levels
from pilum.encoding.arrow_blocks import is_large, is_text, is_variable
from pilum.encoding.assembly import assemble, holds_items
from pilum.encoding.blocks import Block, Bytes, FixedBlock, VariableBlock, block_bytes
from pilum.encoding.codecs.base import Ints
from pilum.encoding.codecs.fsst import Expander
from pilum.encoding.fullzip import FixedDecoder
from pilum.encoding.kernels import pick_columns as kernels
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.pick import STRINGS, cost_without
from pilum.encoding.miniblock import MiniBlockDecoder
from pilum.encoding.page import PageDecoder
from pilum.schema.field import Field

__all__ = ["Located", "ScatteredRows"]

_MOST_ITEMS = 4 << 20  # bytes of dictionaries that are joined
_MOST_BYTES = 64 << 20  # of spans, and of results
_ANY_LEVEL = 1 << 16
_ROOM = 64  # items a row, for a first try
_DICTIONARY = pa.dictionary(pa.int8(), pa.int8()).id
_NO_INTS: Ints = np.empty(0, np.int64)


class Located(NamedTuple):
    """Where rows lie in a file.

    Attributes:
        spans: begin and end of what is to be read, ascending: an array of two rows.
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


class _Column(NamedTuple):
    """How an array is made of what the kernel wrote.

    Attributes:
        field: the top-level field.
        value: Arrow type of the values.
        offset: bytes of an offset, 0 unless they are byte strings.
        text: whether these must be UTF-8.
        lists: Arrow type of the lists that they are items of, if they are.
        list_offset: bytes of an offset of these.
        plain: decodes the values of a full-zip page.
    """

    field: Field
    value: pa.DataType
    offset: int = 0
    text: bool = False
    lists: pa.DataType | None = None
    list_offset: int = 0
    plain: FixedDecoder | None = None


class ScatteredRows:
    """Reads scattered rows of some columns of one file.

    Attributes:
        positions: of the columns that take part among those it was made of.
        nbytes: memory held.
    """

    __slots__ = (
        "_begins", "_columns", "_counts", "_ends", "_first", "_item_bytes", "_item_ends", "_made", "_pages", "_row_bytes",
        "_stops", "_symbol_sizes", "_symbols", "_trailer", "nbytes", "positions",
    )  # fmt: skip

    def __init__(self, columns: Sequence[tuple[Field, Sequence[PageDecoder]] | None]) -> None:
        """Of each column the top-level field and all of its pages, initialised; None does not take part."""
        tables = _Tables()
        self.positions: list[int] = []
        self._made: list[_Column] = []
        for position, column in enumerate(columns):
            made = None if column is None or not column[1] else tables.add(*column)
            if made is not None:
                self.positions.append(position)
                self._made.append(made)
        self._columns = np.array(tables.columns, np.int64).reshape(-1, len(kernels.COLUMN))
        self._pages = np.array(tables.pages, np.int64).reshape(-1, len(kernels.PAGE))
        self._first = _joined(tables.first, np.int64)
        self._trailer = _joined(tables.trailer, np.uint8)
        self._stops = _joined(tables.stops, np.int64)
        self._begins = _joined(tables.begins, np.int64)
        self._ends = _joined(tables.ends, np.int64)
        self._counts = _joined(tables.counts, np.int64)
        self._symbols = _joined(tables.symbols, np.uint64)
        self._symbol_sizes = _joined(tables.symbol_sizes, np.int64)
        self._item_ends = _joined(tables.item_ends, np.int64)
        self._item_bytes = _joined(tables.item_bytes, np.uint8)
        self._row_bytes = 64 * max(1, len(self._made))
        held = (getattr(self, name, None) for name in self.__slots__)
        self.nbytes = 1000 + sum([one.nbytes for one in held if isinstance(one, np.ndarray)])

    def locate(self, rows: npt.NDArray[np.int64], gap: int) -> Located | None:
        """Where rows lie; None if they are better read page by page.

        Args:
            rows: strictly increasing row numbers, at least one.
            gap: spans that are so many bytes apart, or less, are read as one.
        """
        worth = cost_without(len(rows)) * len(self._made)
        kernel, lay_out = kernels.LOCATE_COLUMNS.get(worth), kernels.LAY_OUT.get(worth)
        if kernel is None or lay_out is None or not kernels.PICK_COLUMNS.get(worth):
            return None
        count, columns = len(rows), len(self._made)
        rows = np.ascontiguousarray(rows)
        places = np.empty((columns, 2, count), np.int64)
        used = np.empty(columns + 1, np.int64)
        room = columns * (count + 8)
        while True:
            table = np.empty((7, room), np.int64)
            number = int(
                kernel(
                    rows, self._columns, self._pages, self._first, self._trailer, self._stops, self._begins,
                    self._ends, self._counts, table, used, places,
                )
            )  # fmt: skip
            if number >= 0:
                break
            if number == kernels.DENSE:
                return None
            room *= 4
        order = table[5, :number].argsort()
        spans = np.empty((2, number), np.int64)
        spans = spans[:, : int(lay_out(table, order, gap, spans))]
        nbytes = int((spans[1] - spans[0]).sum())
        return Located(spans, nbytes, table, used, places, count) if nbytes <= _MOST_BYTES else None

    def decode(self, located: Located, data: Bytes) -> list[pa.Array] | None:
        """The arrays of the columns that take part; None if a page is not as it should be.

        Args:
            located: the rows; can be decoded once.
            data: the bytes of its spans.
        """
        count, columns = located.rows, len(self._made)
        if len(data) != located.nbytes:
            return None
        kernel = kernels.PICK_COLUMNS.compiled
        if kernel is None:
            return None
        spots = np.empty((columns, len(kernels.SPOT)), np.int64)
        total = np.empty(2, np.int64)
        amount = located.table.shape[1]
        shape = np.empty((4, amount), np.int64)
        room = _ROOM * count if self._stops.size else count
        size = 4096 + count * self._row_bytes
        while room <= _MOST_BYTES and size <= _MOST_BYTES:
            out = empty(size, np.uint8)
            numbers = empty(4 * room, np.int64)
            sizes, owners, of_chunk, in_chunk = [numbers[k * room : (k + 1) * room] for k in range(4)]
            places = located.places.copy()  # the kernel changes them
            good = kernel(
                data, self._columns, self._pages, self._first, self._trailer, self._counts, located.table,
                located.used, places, self._symbols, self._symbol_sizes, self._item_ends, self._item_bytes,
                empty(room, np.uint64), sizes, empty(room, np.uint16), empty(room, np.uint16), owners, of_chunk, in_chunk,
                empty(room, np.uint8), shape, total, out, spots,
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
        for (field, value, offset, text, lists, list_offset, plain), spot in zip(
            self._made, spots.tolist(), strict=True
        ):
            validity, nulls, offsets, item_validity, item_nulls, number, at, nbytes, any_byte, text_at = spot
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


class _Page(NamedTuple):
    """What the tables say about a mini-block page.

    Attributes:
        shape: the first fields of `kernels.PAGE`.
        symbols: of its FSST codes.
        items: of its dictionary.
    """

    shape: list[int]
    symbols: tuple[Bytes, Bytes] | None
    items: Block | None


class _Tables:
    """The tables of columns and pages while they are made; see `kernels.pick_columns` for what is in them."""

    def __init__(self) -> None:
        self.columns: list[list[int]] = []
        self.pages: list[list[int]] = []
        self.first: list[Any] = []
        self.trailer: list[Any] = []
        self.stops: list[Any] = []
        self.begins: list[Any] = []
        self.ends: list[Any] = []
        self.counts: list[Any] = []
        self.symbols: list[Any] = []
        self.symbol_sizes: list[Any] = []
        self.item_ends: list[Any] = []
        self.item_bytes: list[Any] = []
        self._chunks = self._stops = self._items = self._bytes = 0

    def add(self, field: Field, pages: Sequence[PageDecoder]) -> _Column | None:
        """Enter a column; None if it cannot take part."""
        plain = [page for page in pages if isinstance(page, FixedDecoder)]
        if len(plain) == len(pages):
            return self._add_plain(field, plain)
        blocks = [page for page in pages if isinstance(page, MiniBlockDecoder)]
        lists = holds_items(field)
        kind = field.arrow_type
        value = field.children[0].arrow_type if lists else kind
        if len(blocks) < len(pages) or (field.children and not lists):
            return None
        text = is_variable(value)
        bits = 0 if text else _bits(value)
        if bits is None:
            return None
        described = [_describe(page, bits, lists) for page in blocks]
        known = [page for page in described if page is not None]
        size = sum([block_bytes(page.items) for page in known])
        if len(known) < len(pages) or size > _MOST_ITEMS:
            return None
        form = kernels.TEXT if text else kernels.BOOLEANS if bits == 1 else kernels.FIXED
        offset = (8 if is_large(value) else 4) if text else 0
        of_lists = (8 if pa.types.is_large_list(kind) else 4) if lists else 0
        first_page, first_chunk, first_stop = len(self.pages), self._chunks, self._stops
        row = 0
        for block, page in zip(blocks, known, strict=True):
            self._add_page(block, page, row, self._chunks - first_chunk)
            row += block.num_rows
        self.first.append([row])
        self.columns.append(
            [
                form, bits // 8, offset, of_lists, first_page, len(pages), first_chunk, self._chunks - first_chunk,
                first_stop, self._stops - first_stop,
            ]
        )  # fmt: skip
        return _Column(field, value, offset, is_text(value), kind if lists else None, of_lists)

    def _add_plain(self, field: Field, pages: Sequence[FixedDecoder]) -> _Column | None:
        page = pages[0]
        if any(not page.is_like(other) for other in pages):
            return None
        row = 0
        first = len(self.pages)
        for one in pages:
            entry = dict.fromkeys(kernels.PAGE, 0) | {"row": row, "base": one.base}
            self.pages.append(list(entry.values()))
            row += one.num_rows
        self.first.append([0])
        self.columns.append(
            [kernels.PLAIN, page.stride, 0, 0, first, len(pages), self._chunks, 0, self._stops, 0]
        )
        return _Column(field, field.arrow_type, plain=page)

    def _add_page(self, block: MiniBlockDecoder, page: _Page, row: int, chunk: int) -> None:
        index, begins, ends, counts = block.chunks
        number = len(begins)
        self.first.append(index.first[:-1] + row)
        self.trailer.append(np.zeros(number, np.uint8) if index.trailer is None else index.trailer)
        if index.stops is not None:
            self.stops.append(index.stops + chunk)
            self._stops += len(index.stops)
        self.begins.append(begins)
        self.ends.append(ends)
        self.counts.append(counts)
        self._chunks += number
        table = item = after = -1
        if page.symbols is not None:
            table = len(self.symbols)
            words, sizes = np.zeros(256, np.uint64), np.zeros(256, np.int64)
            symbols, lengths = page.symbols
            words[: len(lengths)] = symbols.view("<u8")
            sizes[: len(lengths)] = lengths
            self.symbols.append(words)
            self.symbol_sizes.append(sizes)
        if page.items is not None:
            offsets, data = _items(page.items)
            item, after = self._items, self._items + len(offsets) - 1
            self.item_ends.append(offsets + self._bytes)
            self.item_bytes.append(data)
            self._items += len(offsets)  # each dictionary has its own end
            self._bytes += len(data)
        self.pages.append([*page.shape, table, item, after, row, chunk, 0])


def _describe(page: MiniBlockDecoder, bits: int, lists: bool) -> _Page | None:
    """How a page is picked from; ``bits`` of a value, 0 for byte strings.  None if it cannot be."""
    picker, layers, items = page.picker, page.layers, page.dictionary
    if picker is None or len(layers) != 1 + lists or layers[0] in levels.LIST_KINDS:
        return None
    if lists != (picker.lists is not None):
        return None
    shape, symbols = picker.shape, None
    if isinstance(picker.finish, Expander):
        symbols = picker.finish.table
    elif picker.finish is not None:
        return None
    strings = shape.values == STRINGS
    if items is None:
        fits = strings if bits == 0 else not strings and shape.bits == bits
    else:
        like = isinstance(items, VariableBlock) if bits == 0 else bits > 1 and _is_fixed(items, bits)
        fits = like and items.count > 0 and not strings and shape.bits >= 8
    if not fits:
        return None
    _, empty_list = levels.level_numbers(layers)[-1]
    visible, shown = _ANY_LEVEL, [0, 0, 0, 0]
    if picker.lists is not None:
        limit = picker.lists.visible
        visible = _ANY_LEVEL if limit is None else limit
        shown = [
            picker.lists.rep,
            picker.lists.rep_bits,
            picker.lists.definition,
            picker.lists.definition_bits,
        ]
    return _Page(
        [*map(int, shape), *shown, visible, empty_list if lists else 0, levels.max_def(layers)],
        symbols,
        items,
    )


def _is_fixed(block: Block, bits: int) -> bool:
    return isinstance(block, FixedBlock) and block.bits == bits


def _items(block: Block) -> tuple[Ints, Bytes]:
    """The items of a dictionary as byte strings."""
    if isinstance(block, VariableBlock):
        return block.offsets.astype(np.int64), block.data
    assert isinstance(block, FixedBlock)
    width = block.bits // 8
    return np.arange(0, (block.count + 1) * width, width), block.data[: block.count * width]


def _bits(kind: pa.DataType) -> int | None:
    """Bits of a value that can be picked."""
    if kind.num_fields or isinstance(kind, pa.BaseExtensionType) or kind.id == _DICTIONARY:
        return None
    try:
        bits = int(kind.bit_width)
    except ValueError:
        return None
    return bits if bits in (1, 8, 16, 32, 64) else None


def _joined(parts: list[Any], kind: Any) -> Any:
    return np.ascontiguousarray(np.concatenate(parts), kind) if parts else np.empty(0, kind)
