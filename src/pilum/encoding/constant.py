"""Constant pages: no value per row, only levels (`spec/file-container-and-structure.md`, section 4.4).

    form              recognised by                          page buffers
    simple all-null   no scalar, layers [NULLABLE_ITEM]      none
    complex all-null  no scalar                              rep, def
    scalar (2.2+)     inline_value of at most 32 bytes       none, or rep, def        (none: binary of width 0)
                      1 or 3 buffers                         value, or value, rep, def

"All-null" includes pages of nothing but empty or null lists: no entry is a valid value.  Levels are raw
16-bit numbers, or (all-null form, since 2.2) one compressed block each; a zero-length buffer means "not
stored".  The value buffer is the Arrow array of the one value without validity
(`spec/compression.md`, section 4.16)::

    u32 n | n x u32 length | buffers           n = 1: the value     n = 2: offsets (0, length), bytes

All buffers are metadata, so a read asks for nothing.  The number of rows is a claim of the page: nothing
of that size is made before rows are decoded, and then only what was asked for.
"""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pilum.encoding import levels, registry
from pilum.encoding.blocks import (
    Block,
    Bytes,
    FixedBlock,
    NullBlock,
    Offsets,
    VariableBlock,
    take_block,
    unpack_bits,
)
from pilum.encoding.codecs.base import EncodeOptions
from pilum.encoding.page import (
    Decoded,
    EncodedPage,
    LeafRows,
    Levels,
    PageDecoder,
    PageRead,
    PageSource,
    Range,
    Rows,
)
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["ConstantDecoder", "decoder", "encode"]

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

_MAX_INLINE = 32
_MAX_I32 = 2**31 - 1
# Compressed levels: how many a page may claim, whatever its size, and per byte.  Bit-packing
# of zeros, the densest codec, stays far below.
_ANY_LEVELS = 1 << 24
_LEVELS_PER_BYTE = 4096
_NO_BYTES: Bytes = np.empty(0, np.uint8)
_WORDS = (8, 16, 32, 64)
_PROBE = 64  # values that are compared before the whole page is


# --------------------------------------------------------------------------- decoding


def decoder(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a page whose layout is ``constant_layout``.

    Raises:
        CorruptFileError: the layout contradicts itself, the buffers or the file version.
    """
    return ConstantDecoder(source, version)


class ConstantDecoder(PageDecoder):
    """Reads a constant page; see `PageDecoder`."""

    __slots__ = (
        "_definition",
        "_layout",
        "_levels_at",
        "_ready",
        "_rep",
        "_simple",
        "_source",
        "_starts",
        "_value",
    )

    def __init__(self, source: PageSource, version: tuple[int, int]) -> None:
        layout = source.layout.constant_layout
        self.layers = levels.check_layers(layout.layers)
        self.num_rows = source.length
        self._source, self._layout = source, layout
        self._rep: Levels | None = None
        self._definition: Levels | None = None
        self._starts: Ints | None = None  # first entry of each row, and the number of entries
        self._value: Block | None = None  # of count 1; None = all null
        buffers = len(source.sizes)
        inline = layout.HasField("inline_value")
        if buffers > 3 or (inline and buffers not in (0, 2)):
            raise CorruptFileError(
                f"constant page with {buffers} buffers{' and an inline value' if inline else ''}"
            )
        scalar = inline or buffers in (1, 3)
        compressed = layout.HasField("rep_compression") or layout.HasField("def_compression")
        if version < (2, 2) and (scalar or compressed):
            what = "a value" if scalar else "compressed levels"
            raise CorruptFileError(
                f"constant page with {what} in a file of version {version[0]}.{version[1]}"
            )
        if scalar and compressed:
            raise CorruptFileError("constant page with a value and compressed levels")
        self._levels_at = None if buffers < 2 else buffers - 2
        self._simple = not scalar and buffers == 0
        if self._simple and self.layers != (levels.NULLABLE_ITEM,):
            raise CorruptFileError(f"all-null page without levels declares layers {list(self.layers)}")
        if self._levels_at is None and levels.max_rep(self.layers) and self.num_rows:
            raise CorruptFileError("constant page of lists has no repetition levels")
        if inline:
            value = np.frombuffer(layout.inline_value, np.uint8)
            if len(value) > _MAX_INLINE:
                raise CorruptFileError(f"constant page with an inline value of {len(value)} bytes")
            self._value = FixedBlock(8 * len(value), value, 1)
        self._ready = not any(source.sizes)
        if self._ready:
            self._take([_NO_BYTES] * buffers)

    def metadata_ranges(self) -> list[Range]:
        """All buffers: value and levels."""
        return [(start, start + size) for start, size, _ in self._stored()]

    def _stored(self) -> list[tuple[int, int, int]]:
        """(start, size, number) of each buffer that is not empty, by position."""
        source = self._source
        return sorted(
            (start, size, number)
            for number, (start, size) in enumerate(zip(source.offsets, source.sizes, strict=True))
            if size
        )

    def initialise(self, buffers: list[Bytes]) -> None:
        """Parse the value and decode the levels."""
        placed = [_NO_BYTES] * len(self._source.sizes)
        for data, (_, size, number) in zip(buffers, self._stored(), strict=True):
            if len(data) != size:
                raise CorruptFileError(f"buffer {number} of a constant page has {len(data)} of {size} bytes")
            placed[number] = data
        self._take(placed)

    def _take(self, buffers: list[Bytes]) -> None:
        rep = definition = starts = None
        value = self._value
        if len(buffers) in (1, 3):
            value = _parse_value(buffers[0])
        if self._levels_at is not None:
            layout, at = self._layout, self._levels_at
            rep = _read_levels(layout, "rep", buffers[at])
            definition = _read_levels(layout, "def", buffers[at + 1])
            levels.check_levels(rep, definition, self.layers)
            if rep is None and levels.max_rep(self.layers) and self.num_rows:
                raise CorruptFileError("constant page of lists has no repetition levels")
            if rep is not None:
                if not levels.max_rep(self.layers):
                    rep = None  # all 0, as checked
                else:
                    starts = np.append(levels.row_starts(rep, self.layers), len(rep))
            stored = definition if rep is None else rep
            rows = self.num_rows if stored is None else len(stored) if starts is None else len(starts) - 1
            if rows != self.num_rows:
                raise CorruptFileError(
                    f"the levels of a constant page hold {rows} rows instead of {self.num_rows}"
                )
        self._rep, self._definition, self._starts, self._value = rep, definition, starts, value
        self._ready = True

    @property
    def initialised(self) -> bool:
        return self._ready

    @property
    def nbytes(self) -> int:
        size = 512
        for held in (self._rep, self._definition, self._starts):
            size += 0 if held is None else held.nbytes
        return size + (len(self._value.data) if isinstance(self._value, (FixedBlock, VariableBlock)) else 0)

    def schedule(self, rows: Rows) -> PageRead:
        """Nothing to read; the rows are made when `decode` is called."""
        return PageRead([], partial(self._decode, rows))

    def _decode(self, rows: Rows, buffers: list[Bytes]) -> Decoded:
        count = len(rows)
        rep, definition = self._rep, self._definition
        entries = count
        if self._simple:
            definition = np.ones(count, np.uint16)
        elif self._starts is not None or definition is not None:
            where = self._entries(rows)
            rep = None if rep is None else rep[where]
            definition = None if definition is None else definition[where]
            entries = count if rep is None else len(rep)
        visible = levels.count_visible(definition, self.layers, entries)
        block = NullBlock(visible) if self._value is None else _repeat(self._value, visible)
        return Decoded(block, rep, definition, self.layers, count)

    def _entries(self, rows: Rows) -> Any:
        """An index (slice or array) of the entries of these rows."""
        starts = self._starts
        if isinstance(rows, range):
            first, last = rows.start, rows.stop
            if starts is not None:
                first, last = int(starts[first]), int(starts[last])
            return slice(first, last)
        if starts is None:
            return rows
        begins = starts[rows]
        sizes = starts[rows + 1] - begins
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        return np.repeat(begins - (ends - sizes), sizes) + np.arange(total)


def _read_levels(layout: Any, kind: str, data: Bytes) -> Levels | None:
    """The rep or def levels of a page; None when they are not stored."""
    name = f"{kind}_compression"
    if not len(data) and not getattr(layout, f"num_{kind}_values"):
        return None
    if not layout.HasField(name):
        if len(data) % 2:
            raise CorruptFileError(f"{kind} levels of a constant page have {len(data)} bytes")
        return data.view("<u2")
    count = getattr(layout, f"num_{kind}_values")
    if count > max(_ANY_LEVELS, _LEVELS_PER_BYTE * len(data)):
        raise CorruptFileError(f"constant page claims {count} {kind} levels in {len(data)} bytes")
    block = registry.decode_block(getattr(layout, name), data, count)
    if not isinstance(block, FixedBlock) or block.bits != 16 or block.count != count:
        raise CorruptFileError(f"{kind} levels of a constant page are not 16-bit numbers")
    words: Levels = block.words()
    return words


def _parse_value(data: Bytes) -> Block:
    """The one value of a value buffer."""
    number = int(data[:4].view("<u4")[0]) if len(data) >= 4 else 0
    if number not in (1, 2) or len(data) < 4 + 4 * number:
        raise CorruptFileError(f"value buffer of {len(data)} bytes with {number} Arrow buffers")
    sizes = data[4 : 4 + 4 * number].view("<u4").astype(np.int64)
    body = data[4 + 4 * number :]
    if int(sizes.sum()) != len(body):
        raise CorruptFileError(f"value buffer declares {int(sizes.sum())} bytes and has {len(body)}")
    if number == 1:
        if not len(body):
            raise CorruptFileError("value buffer with a value of no bytes")
        return FixedBlock(8 * len(body), body, 1)
    size = int(sizes[0])
    if size not in (8, 16):
        raise CorruptFileError(f"value buffer with {size} bytes of offsets")
    offsets = body[:size].view("<i4" if size == 8 else "<i8")
    if offsets[0] != 0 or offsets[1] != len(body) - size:
        raise CorruptFileError(f"value buffer with offsets {offsets.tolist()} for {len(body) - size} bytes")
    return VariableBlock(4 * size, offsets, body[size:], 1)


def _repeat(value: Block, count: int) -> Block:
    """``count`` copies of the value."""
    if isinstance(value, FixedBlock):
        if value.bits in _WORDS:
            return FixedBlock(value.bits, np.full(count, value.words()[0]).view(np.uint8), count)
        return FixedBlock(value.bits, np.tile(value.data, count), count)
    assert isinstance(value, VariableBlock)
    size = len(value.data)
    if value.offset_bits == 32 and size * count > _MAX_I32:
        raise InvalidInputError(
            f"{count} values of {size} bytes do not fit one Arrow array; read smaller batches"
        )
    ends = np.arange(count + 1, dtype=np.int64) * size
    offsets: Offsets = ends.astype(np.int32) if value.offset_bits == 32 else ends
    return VariableBlock(value.offset_bits, offsets, np.tile(value.data, count), count)


# --------------------------------------------------------------------------- encoding


def encode(rows: LeafRows, options: EncodeOptions) -> EncodedPage | None:
    """The rows as a constant page; None when they are not constant.

    Pages of one value are so only since 2.2, and not those of lists, structs and dictionaries.
    """
    definition = rows.definition
    if definition is not None and bool(definition.all()):
        return _all_null(rows, options)
    if isinstance(rows.block, NullBlock):
        raise InvalidInputError("a page of values without content needs definition levels")
    if options.version < (2, 2):
        return None
    value = _only_value(rows)
    if value is None:
        return None

    from pilum.proto import encodings_pb2

    layout = encodings_pb2.ConstantLayout()
    layout.layers.extend(cast("Any", rows.layers))
    buffers: list[Bytes] = []
    if isinstance(value, FixedBlock) and len(value.data) <= _MAX_INLINE:
        layout.inline_value = value.data.tobytes()
    else:
        buffers.append(_value_buffer(value))
    if rows.rep is not None or definition is not None:
        buffers += [_raw(rows.rep), _raw(definition)]
    return _page(layout, buffers, rows.num_rows)


def _all_null(rows: LeafRows, options: EncodeOptions) -> EncodedPage:
    from pilum.proto import encodings_pb2

    layout = encodings_pb2.ConstantLayout()
    layout.layers.extend(cast("Any", rows.layers))
    if rows.layers == (levels.NULLABLE_ITEM,):
        return _page(layout, [], rows.num_rows)
    buffers = []
    for kind, stored in (("rep", rows.rep), ("def", rows.definition)):
        if stored is None or options.version < (2, 2):
            buffers.append(_raw(stored))
            continue
        encoded = registry.encode_levels(stored, np.array([len(stored)], np.int64), options)
        buffers.append(encoded.data)
        getattr(layout, f"{kind}_compression").CopyFrom(encoded.ce)
        setattr(layout, f"num_{kind}_values", len(stored))
    return _page(layout, buffers, rows.num_rows)


def _page(layout: Any, buffers: list[Bytes], length: int) -> EncodedPage:
    from pilum.proto import encodings_pb2

    page = encodings_pb2.PageLayout(constant_layout=layout)
    return EncodedPage(buffers, page.SerializeToString(), length)


def _raw(stored: Levels | None) -> Bytes:
    return _NO_BYTES if stored is None else np.ascontiguousarray(stored, "<u2").view(np.uint8)


def _value_buffer(value: Block) -> Bytes:
    if isinstance(value, FixedBlock):
        parts = [value.data]
    else:
        assert isinstance(value, VariableBlock)
        parts = [np.ascontiguousarray(value.offsets).view(np.uint8), value.data]
    head = np.array([len(parts), *map(len, parts)], "<u4").view(np.uint8)
    return np.concatenate([head, *parts])


def _only_value(rows: LeafRows) -> Block | None:
    """The value that all valid entries share, as a block of one; None when there are several.

    Bytes are compared: -0.0 is not 0.0, and NaNs of the same bits are the same.
    """
    block, definition = rows.block, rows.definition
    valid: Bools | None = None
    first = 0
    if definition is not None:
        visible = levels.visible_mask(definition, rows.layers)
        valid = (definition if visible is None else definition[visible]) == 0
        first = int(np.argmax(valid))
    if isinstance(block, FixedBlock):
        if block.bits == 1:
            grid: npt.NDArray[Any] = unpack_bits(block.data, block.count).view(np.uint8)
        elif block.bits in _WORDS:
            grid = block.words()
        elif block.bits % 8:
            return None
        else:
            width = block.bits // 8
            grid = block.data[: block.count * width].reshape(block.count, width)
        value = grid[first]
        for part in (slice(0, _PROBE), slice(None)) if block.count > _PROBE else (slice(None),):
            differs = grid[part] != value
            if differs.ndim == 2:
                differs = differs.any(axis=1)
            if valid is not None:
                differs = differs & valid[part]
            if differs.any():
                return None
        data = np.ascontiguousarray(grid[first : first + 1]).reshape(-1).view(np.uint8)
        return FixedBlock(8 * len(data), data, 1)
    if isinstance(block, VariableBlock):
        return _only_string(block, valid, first)
    return None


def _only_string(block: VariableBlock, valid: Bools | None, first: int) -> VariableBlock | None:
    size, bits = int(block.offsets[first + 1] - block.offsets[first]), block.offset_bits
    for part in (slice(0, _PROBE), slice(None)):
        differs = np.diff(block.offsets[: part.stop + 1 if part.stop else None]) != size
        if valid is not None:
            differs &= valid[part]
        if differs.any():
            return None
    if valid is not None:
        taken = take_block(block, np.flatnonzero(valid))
        assert isinstance(taken, VariableBlock)
        block = taken
    data = block.data[: block.count * size]
    value = data[:size].copy()
    if size and (data.reshape(block.count, size) != value).any():
        return None
    offsets: Offsets = np.array([0, size], np.int32) if bits == 32 else np.array([0, size], np.int64)
    return VariableBlock(bits, offsets, value, 1)
