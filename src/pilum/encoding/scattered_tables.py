"""The tables that describe all columns of a file to the kernels that read scattered rows (`kernels.pick_columns`).

Columns of leaves and of lists of leaves take part, whose pages are mini-block pages of codecs whose values can be picked
(`miniblock_pick`), and columns of full-zip pages of fixed width.  Rows, chunks and items of all columns stand one after the
other; what a column or a page has of them is told in the tables of columns and pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pilum.encoding import levels
from pilum.encoding.arrow_blocks import is_large, is_text, is_variable
from pilum.encoding.assembly import holds_items
from pilum.encoding.blocks import Block, Bytes, FixedBlock, FslBlock, VariableBlock, block_bytes
from pilum.encoding.codecs.base import Ints
from pilum.encoding.codecs.fsst import Expander
from pilum.encoding.fullzip import FixedDecoder
from pilum.encoding.kernels import pick_columns as kernels
from pilum.encoding.kernels.pick import STRINGS
from pilum.encoding.miniblock import MiniBlockDecoder
from pilum.encoding.page import PageDecoder
from pilum.schema.field import Field

__all__ = ["ColumnArray", "TableBuilder", "Tables"]

_MOST_ITEMS = 4 << 20  # bytes of the dictionaries of a column
_ANY_LEVEL = 1 << 16
_DICTIONARY = pa.dictionary(pa.int8(), pa.int8()).id


class ColumnArray(NamedTuple):
    """How an array is made of what the kernel wrote.

    Attributes:
        field: the top-level field.
        value: Arrow type of the values.
        offset: bytes of an offset, 0 unless they are byte strings.
        text: whether these must be UTF-8.
        lists: Arrow type of the lists that they are items of, if they are.
        list_offset: bytes of an offset of these.
        plain: decodes the values of a full-zip page.
        items: of a fixed-size list, if these values are nothing but the items of one.
    """

    field: Field
    value: pa.DataType
    offset: int = 0
    text: bool = False
    lists: pa.DataType | None = None
    list_offset: int = 0
    plain: FixedDecoder | None = None
    items: int = 0


class Tables(NamedTuple):
    """Arguments of the kernels.

    Attributes:
        columns, pages: a row each, fields by `kernels.COLUMN` and `kernels.PAGE`.
        first: first row of each chunk of a column, then its number of rows.
        trailer: whether the last row of a chunk goes on in the next.
        stops: chunks that end a row which goes on into them.
        begins, ends, counts: place of each chunk in the file, and its values.
        symbols, symbol_sizes: FSST symbols, 256 a page that has some.
        item_ends, item_bytes: items of dictionaries, as byte strings.
    """

    columns: Ints
    pages: Ints
    first: Ints
    trailer: Bytes
    stops: Ints
    begins: Ints
    ends: Ints
    counts: Ints
    symbols: Any
    symbol_sizes: Ints
    item_ends: Ints
    item_bytes: Bytes


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


class TableBuilder:
    """Makes the tables, column by column."""

    def __init__(self) -> None:
        self._columns: list[list[int]] = []
        self._pages: list[list[int]] = []
        self._first: list[Any] = []
        self._trailer: list[Any] = []
        self._stops: list[Any] = []
        self._begins: list[Any] = []
        self._ends: list[Any] = []
        self._counts: list[Any] = []
        self._symbols: list[Any] = []
        self._symbol_sizes: list[Any] = []
        self._item_ends: list[Any] = []
        self._item_bytes: list[Any] = []
        self._num_chunks = self._num_stops = self._num_items = self._num_bytes = 0

    def add(self, field: Field, pages: Sequence[PageDecoder]) -> ColumnArray | None:
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
        first_page, first_chunk, first_stop = len(self._pages), self._num_chunks, self._num_stops
        row = 0
        for block, page in zip(blocks, known, strict=True):
            self._add_page(block, page, row, self._num_chunks - first_chunk)
            row += block.num_rows
        self._first.append([row])
        self._columns.append(
            [
                form, bits // 8, offset, of_lists, first_page, len(pages), first_chunk, self._num_chunks - first_chunk,
                first_stop, self._num_stops - first_stop,
            ]
        )  # fmt: skip
        return ColumnArray(field, value, offset, is_text(value), kind if lists else None, of_lists)

    def tables(self) -> Tables:
        """The tables of all columns."""
        return Tables(
            np.array(self._columns, np.int64).reshape(-1, len(kernels.COLUMN)),
            np.array(self._pages, np.int64).reshape(-1, len(kernels.PAGE)),
            _joined(self._first, np.int64),
            _joined(self._trailer, np.uint8),
            _joined(self._stops, np.int64),
            _joined(self._begins, np.int64),
            _joined(self._ends, np.int64),
            _joined(self._counts, np.int64),
            _joined(self._symbols, np.uint64),
            _joined(self._symbol_sizes, np.int64),
            _joined(self._item_ends, np.int64),
            _joined(self._item_bytes, np.uint8),
        )

    def _add_plain(self, field: Field, pages: Sequence[FixedDecoder]) -> ColumnArray | None:
        page = pages[0]
        if any(not page.is_like(other) for other in pages):
            return None
        row = 0
        first = len(self._pages)
        for one in pages:
            entry = dict.fromkeys(kernels.PAGE, 0) | {"row": row, "base": one.base}
            self._pages.append(list(entry.values()))
            row += one.num_rows
        self._first.append([0])
        self._columns.append(
            [kernels.PLAIN, page.stride, 0, 0, first, len(pages), self._num_chunks, 0, self._num_stops, 0]
        )
        return ColumnArray(field, field.arrow_type, plain=page, items=_vector_items(page, field.arrow_type))

    def _add_page(self, block: MiniBlockDecoder, page: _Page, row: int, chunk: int) -> None:
        index, begins, ends, counts = block.chunks
        number = len(begins)
        self._first.append(index.first[:-1] + row)
        self._trailer.append(np.zeros(number, np.uint8) if index.trailer is None else index.trailer)
        if index.stops is not None:
            self._stops.append(index.stops + chunk)
            self._num_stops += len(index.stops)
        self._begins.append(begins)
        self._ends.append(ends)
        self._counts.append(counts)
        self._num_chunks += number
        table = item = after = -1
        if page.symbols is not None:
            table = len(self._symbols)
            words, sizes = np.zeros(256, np.uint64), np.zeros(256, np.int64)
            symbols, lengths = page.symbols
            words[: len(lengths)] = symbols.view("<u8")
            sizes[: len(lengths)] = lengths
            self._symbols.append(words)
            self._symbol_sizes.append(sizes)
        if page.items is not None:
            offsets, data = _items(page.items)
            item, after = self._num_items, self._num_items + len(offsets) - 1
            self._item_ends.append(offsets + self._num_bytes)
            self._item_bytes.append(data)
            self._num_items += len(offsets)  # each dictionary has its own end
            self._num_bytes += len(data)
        self._pages.append([*page.shape, table, item, after, row, chunk, 0])


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


def _vector_items(page: FixedDecoder, kind: pa.DataType) -> int:
    """Items of a vector, if a page stores vectors of numbers as they are in Arrow; else 0."""
    block = page.decode(1, np.zeros(page.stride, np.uint8)).block
    if page.has_levels or not pa.types.is_fixed_size_list(kind) or not isinstance(block, FslBlock):
        return 0
    bits = _bits(kind.value_type)
    same = block.dimension == kind.list_size and block.validity is None
    return block.dimension if same and bits not in (None, 1) and _is_fixed(block.child, bits or 0) else 0


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
