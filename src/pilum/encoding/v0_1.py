"""Columns of format 0.1: one page per field and batch, chosen by the type alone (`spec/file-2.0-and-0.1.md`, B.3).

    fixed width          values back to back; booleans as bits; fixed-size lists as their items
    strings, binary      int64[n + 1] absolute positions; value i is  file[pos[i] : pos[i + 1]]
    list                 int32 or int64 [n + 1] offsets into the items page of the same batch
    struct               nothing; null: nothing
    dictionary           indices; the values are somewhere else

Nothing says that a value is null; a nullable string is null when it is empty (B.4).  A batch has 1024 rows by default,
so a column has many small pages: they are planned and decoded together, with work per page counted in nanoseconds.

The trees and the reads are those of `pilum.encoding.v2_0`.  Must not know: files, stores, messages.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import distinct
from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import Block, Bytes, FixedBlock, FslBlock, VariableBlock, pack_bits, unpack_bits
from pilum.encoding.page import Range, Rows
from pilum.encoding.v2_0.columns import Column, Lists, NullColumn, StructColumn, over_all_items, read_items
from pilum.encoding.v2_0.flat import fixed_bits, read_spans
from pilum.encoding.v2_0.reads import ArrayRead, Ints, Values, join, then
from pilum.encoding.v2_0.values import to_array
from pilum.errors import CorruptFileError, UnsupportedError
from pilum.schema import Field

__all__ = ["Pages", "open_column"]

_MAX_I32 = 2**31 - 1


class Pages(NamedTuple):
    """The pages of one field, one per batch.

    Attributes:
        positions: where each begins.
        lengths: stored elements of each.
    """

    positions: Ints
    lengths: Ints


FindPages: TypeAlias = Callable[[int], Pages | None]
"""The pages of a field id; None if the file does not hold the field."""


class _Parts(NamedTuple):
    """The elements of some pages that hold a range of rows."""

    pages: Ints
    lows: Ints
    highs: Ints


class _Batches(Column):
    """A column whose pages are cut at the batches.

    Attributes:
        starts: first row of each page, then the number of rows.
        positions: where each page begins.
    """

    __slots__ = ("edges", "positions", "starts")

    def __init__(self, pages: Pages, counts: Ints, arrow_type: Any) -> None:
        self.positions = pages.positions
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.num_rows = int(self.starts[-1])
        self.edges: list[int] = self.starts.tolist()
        self.arrow_type = arrow_type

    def _within(self, rows: range) -> tuple[int, int, int] | None:
        """Position of the page that holds all of a few rows, and which of its elements they are."""
        page = bisect.bisect_right(self.edges, rows.start) - 1
        low = self.edges[page]
        if rows.stop > self.edges[page + 1]:
            return None
        return int(self.positions[page]), rows.start - low, rows.stop - low

    def _parts(self, rows: range) -> _Parts:
        starts = self.starts
        first = int(np.searchsorted(starts, rows.start, "right")) - 1
        last = int(np.searchsorted(starts, rows.stop, "left"))
        pages = np.arange(first, last)
        lows = np.maximum(starts[first:last], rows.start) - starts[first:last]
        highs = np.minimum(starts[first + 1 : last + 1], rows.stop) - starts[first:last]
        filled = highs > lows
        return (
            _Parts(pages, lows, highs) if filled.all() else _Parts(pages[filled], lows[filled], highs[filled])
        )

    def _locate(self, rows: npt.NDArray[np.int64]) -> tuple[Ints, Ints]:
        """Page and place within the page of each row."""
        pages = np.searchsorted(self.starts, rows, "right") - 1
        return pages, rows - self.starts[pages]


def _ranges(lows: Ints, highs: Ints) -> list[Range]:
    return list(zip(lows.tolist(), highs.tolist(), strict=True))


def _merged(lows: Ints, highs: Ints) -> list[Range]:
    """Ranges whose bytes are used back to back: pages of a file with one column touch each other."""
    if len(lows) > 1:
        apart = lows[1:] != highs[:-1]
        lows, highs = lows[np.append(True, apart)], highs[np.append(apart, True)]
    return _ranges(lows, highs)


def _joined(buffers: list[Bytes]) -> Bytes:
    return buffers[0] if len(buffers) == 1 else np.concatenate(buffers)


class _FixedColumn(_Batches):
    """Values of whole bytes, among them fixed-size lists and dictionary indices."""

    __slots__ = ("dictionary", "width")

    def __init__(
        self, pages: Pages, counts: Ints, arrow_type: Any, width: int, file_size: int, dictionary: Any
    ) -> None:
        super().__init__(pages, counts, arrow_type)
        self.width, self.dictionary = width, dictionary
        _check_inside(pages.positions, counts * width, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        width, count = self.width, len(rows)
        if isinstance(rows, range):
            single = self._within(rows)
            if single is not None:
                at, low, high = single
                return ArrayRead(
                    [(at + low * width, at + high * width)], lambda buffers: self._array(buffers[0], count)
                )
            parts = self._parts(rows)
            base = self.positions[parts.pages]
            ranges = _merged(base + parts.lows * width, base + parts.highs * width)
            return ArrayRead(ranges, lambda buffers: self._array(_joined(buffers), count))
        pages, places = self._locate(rows)
        read = read_spans(self.positions[pages] + places * width, np.full(count, width))
        return then(read, lambda data: self._array(data, count))

    def _array(self, data: Bytes, count: int) -> Any:
        kind = self.arrow_type
        if self.dictionary is None:
            return to_arrow(_block(kind, data, count), kind)
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


class _BitsColumn(_Batches):
    """Booleans, and fixed-size lists of booleans: one bit stream per page."""

    __slots__ = ("dimension",)

    def __init__(self, pages: Pages, counts: Ints, arrow_type: Any, dimension: int, file_size: int) -> None:
        super().__init__(pages, counts, arrow_type)
        self.dimension = dimension
        _check_inside(pages.positions, (counts * dimension + 7) // 8, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        dimension, count = self.dimension, len(rows)
        if isinstance(rows, range):
            parts = self._parts(rows)
            lows, highs = parts.lows * dimension, parts.highs * dimension
            base = self.positions[parts.pages]
            shifts = (lows & 7).tolist()
            sizes = (highs - lows).tolist()

            def decode(buffers: list[Bytes]) -> Any:
                pieces = zip(buffers, sizes, shifts, strict=True)
                return self._array(np.concatenate([unpack_bits(data, n, k) for data, n, k in pieces]), count)

            return ArrayRead(_ranges(base + lows // 8, base + (highs + 7) // 8), decode)
        pages, places = self._locate(rows)
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


class _BinaryColumn(_Batches):
    """Strings and binary: positions, and bytes anywhere before them."""

    __slots__ = ("file_size", "nullable")

    def __init__(self, pages: Pages, counts: Ints, arrow_type: Any, nullable: bool, file_size: int) -> None:
        super().__init__(pages, counts, arrow_type)
        self.nullable, self.file_size = nullable, file_size
        _check_inside(pages.positions, (counts + 1) * 8, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        if isinstance(rows, range):
            parts = self._parts(rows)
            base = self.positions[parts.pages]
            counts = parts.highs - parts.lows
            return ArrayRead(
                _ranges(base + 8 * parts.lows, base + 8 * (parts.highs + 1)),
                lambda buffers: self._pages(_joined(buffers).view(np.int64), counts),
            )
        pages, places = self._locate(rows)
        read = read_spans(self.positions[pages] + 8 * places, np.full(len(rows), 16))
        return then(read, self._rows)

    def _pages(self, positions: Ints, counts: Ints) -> ArrayRead:
        """Positions of whole runs of rows: the bytes of each run are one range."""
        starts, ends = _edges(positions, counts)
        self._check(starts, ends)
        lasts = np.cumsum(counts)
        lows, highs = starts[lasts - counts], ends[lasts - 1]
        return then(read_spans(lows, highs - lows), lambda data: self._array(data, ends - starts))

    def _rows(self, data: Bytes) -> ArrayRead:
        pairs = data.view(np.int64).reshape(-1, 2)
        starts, ends = pairs[:, 0], pairs[:, 1]
        self._check(starts, ends)
        return then(read_spans(starts, ends - starts), lambda found: self._array(found, ends - starts))

    def _check(self, starts: Ints, ends: Ints) -> None:
        if int(starts.min()) < 0 or int(ends.max()) > self.file_size or bool((ends < starts).any()):
            raise CorruptFileError("positions of strings decrease or leave the file")
        if int((ends - starts).sum()) > self.file_size:
            raise CorruptFileError("strings overlap: they are larger than the file")

    def _array(self, data: Bytes, sizes: Ints) -> Any:
        return _strings(data, sizes, self.arrow_type, self.nullable)


def _strings(data: Bytes, sizes: Ints, kind: Any, nullable: bool) -> Any:
    offsets = np.empty(len(sizes) + 1, np.int64)
    offsets[0] = 0
    np.cumsum(sizes, out=offsets[1:])
    if int(offsets[-1]) <= _MAX_I32 and not (
        pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    ):
        block = VariableBlock(32, offsets.astype(np.int32), data, len(sizes))
    else:
        block = VariableBlock(64, offsets, data, len(sizes))
    return to_arrow(block, kind, sizes > 0 if nullable else None)


def _edges(values: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Starts and ends from the n + 1 edges of each of several pages, back to back."""
    if len(counts) == 1:
        return values[:-1], values[1:]
    lasts = np.cumsum(counts + 1) - 1
    inner = np.ones(len(values), np.bool_)
    inner[lasts] = False
    starts = values[inner]
    inner[lasts] = True
    inner[lasts - counts] = False
    return starts, values[inner]


class _ListColumn(_Batches):
    """Offsets into the items of the same batch."""

    __slots__ = ("items", "limits", "width", "words")

    def __init__(
        self, pages: Pages, counts: Ints, arrow_type: Any, items: Column, edges: Ints, file_size: int
    ) -> None:
        super().__init__(pages, counts, arrow_type)
        self.items = items
        self.width = 8 if pa.types.is_large_list(arrow_type) else 4
        self.words = np.dtype(f"<i{self.width}")
        self.limits = edges
        _check_inside(pages.positions, (counts + 1) * self.width, file_size)

    def _schedule(self, rows: Rows) -> ArrayRead:
        width, kind = self.width, self.arrow_type
        if not isinstance(rows, range):
            pages, places = self._locate(rows)
            read = read_spans(self.positions[pages] + width * places, np.full(len(rows), 2 * width))

            def pick(data: Bytes) -> ArrayRead:
                pairs = data.view(self.words).reshape(-1, 2)
                return read_items(self._lists(pairs[:, 0], pairs[:, 1], pages), self.items, kind)

            return then(read, pick)
        parts = self._parts(rows)
        base = self.positions[parts.pages]
        counts = parts.highs - parts.lows
        ranges = _ranges(base + width * parts.lows, base + width * (parts.highs + 1))

        def lists(data: Bytes) -> Lists:
            starts, ends = _edges(data.view(self.words), counts)
            return self._lists(starts, ends, np.repeat(parts.pages, counts))

        offsets = ArrayRead(ranges, _joined)
        if len(rows) == self.num_rows:
            everything = self.items.schedule(range(self.items.num_rows))
            return join([offsets, everything], lambda found: over_all_items(lists(found[0]), found[1], kind))
        return then(offsets, lambda data: read_items(lists(data), self.items, kind))

    def _lists(self, starts: Ints, ends: Ints, pages: Ints) -> Lists:
        starts, ends = starts.astype(np.int64), ends.astype(np.int64)
        low = self.limits[pages]
        if bool((starts < 0).any() or (ends < starts).any() or (ends > self.limits[pages + 1] - low).any()):
            raise CorruptFileError("offsets of lists decrease or leave the items of their batch")
        return Lists.of(starts + low, ends - starts, None)


def _check_inside(positions: Ints, sizes: Ints, file_size: int) -> None:
    filled = sizes > 0
    if bool(((positions < 0) | (sizes < 0) | (positions > file_size - sizes))[filled].any()):
        raise CorruptFileError(f"a page leaves the file of {file_size} bytes")


def open_column(
    field: Field,
    find: FindPages,
    counts: Ints,
    file_size: int,
    dictionaries: dict[int, Any],
    nullable: bool | None = None,
) -> Column:
    """The column tree of a field.

    Args:
        field: possibly with only some of its members.
        find: the pages of a field.
        counts: rows of each batch; items of each batch inside a list.
        file_size: no page lies beyond.
        dictionaries: values of dictionary fields by field id.
        nullable: of the field as it is read, None = as the field says.

    Raises:
        CorruptFileError: the page table contradicts the field, or pages leave the file.
    """
    kind = field.arrow_type
    pages = find(field.id)
    if pa.types.is_struct(kind):
        members = [
            open_column(child, find, counts, file_size, dictionaries)
            if any(find(node.id) is not None for node in child.walk())
            else NullColumn(int(counts.sum()), child.arrow_type)
            for child in field.children
        ]
        return StructColumn(int(counts.sum()), members, kind)
    if pages is None:
        raise CorruptFileError(f"the file holds no pages for field {field.name!r} (id {field.id})")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _check_lengths(field, pages.lengths, counts + 1)
        (item,) = field.children
        item_counts = _item_counts(item, find)
        items = open_column(item, find, item_counts, file_size, dictionaries)
        edges = np.concatenate([[0], np.cumsum(item_counts)])
        return _ListColumn(pages, counts, kind, items, edges, file_size)
    _check_lengths(field, pages.lengths, counts)
    if pa.types.is_null(kind):
        return NullColumn(int(counts.sum()), kind)
    if pa.types.is_dictionary(kind):
        width = int(kind.index_type.bit_width) // 8
        return _FixedColumn(pages, counts, kind, width, file_size, dictionaries[field.id])
    inner, dimension = kind, 1
    while pa.types.is_fixed_size_list(inner):
        dimension *= inner.list_size
        inner = inner.value_type
    bits = fixed_bits(inner)
    if bits == 1:
        return _BitsColumn(pages, counts, kind, dimension, file_size)
    if bits is not None:
        if dimension * bits > 8 * _MAX_I32:
            raise UnsupportedError(f"field {field.name!r}: values of {dimension * bits} bits")
        return _FixedColumn(pages, counts, kind, dimension * bits // 8, file_size, None)
    return _BinaryColumn(pages, counts, kind, field.nullable if nullable is None else nullable, file_size)


def _check_lengths(field: Field, found: Ints, expected: Ints) -> None:
    if not np.array_equal(found, expected):
        raise CorruptFileError(f"the pages of field {field.name!r} have other lengths than the batches")


def _item_counts(item: Field, find: FindPages) -> Ints:
    """Items of each batch: what the page table says of the item field, or of the first member that has pages."""
    for node in item.walk():
        if pa.types.is_struct(node.arrow_type):
            continue
        pages = find(node.id)
        if pages is not None:
            listed = pa.types.is_list(node.arrow_type) or pa.types.is_large_list(node.arrow_type)
            return np.maximum(pages.lengths - 1, 0) if listed else pages.lengths
    raise CorruptFileError(f"the file holds no pages of the list items {item.name!r} (id {item.id})")
