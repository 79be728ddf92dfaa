"""Full-zip pages: large values, each next to its levels, so that one row is one small read.

`spec/file-container-and-structure.md`, section 4.3.  Buffer 0 is a run of entries without padding::

    entry      control word            nothing if no levels are stored, else 1, 2 or 4 bytes:
                                       rep << bits_def | def
               if the entry is visible (def <= V):
                 fixed width           the value; a null has (arbitrary) bytes too
                 variable width        nothing for a null, else length (u32 or u64), then the bytes

    buffer 1   repetition index        where each row begins; with variable width or lists

The codec of the values works value by value: the bytes of a fixed-size list with null items begin with
their bitmaps, those of a compressed string are compressed.  Fixed-width values without lists need no index; without
nulls either the page is nothing but the values, and what was read is what is returned
(vector columns: the hottest path there is).  Pages with an index are read in
`pilum.encoding.fullzip_index`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np

from pilum.encoding import levels, registry
from pilum.encoding.blocks import Bytes, NullBlock, VariableBlock
from pilum.encoding.codecs.base import EncodeOptions, FixedValues, Ints, Values
from pilum.encoding.fullzip_index import IndexedDecoder, pack_index, runs
from pilum.encoding.kernels import ranges
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.unzip import EntryShape
from pilum.encoding.page import (
    Decoded,
    EncodedPage,
    LeafRows,
    Levels,
    PageDecoder,
    PageRead,
    PageSource,
    Rows,
)
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["FixedDecoder", "decoder", "encode"]

_EMPTY: Bytes = np.empty(0, np.uint8)
_ANY_LEVEL = 1 << 16  # larger than every level: all entries are visible
_MAX_U32 = 2**32 - 1
_MAX_VALUE = 1 << 31  # bytes of one fixed-width value


def _control_bytes(bits: int) -> int:
    return 0 if bits == 0 else 1 if bits <= 8 else 2 if bits <= 16 else 4


def decoder(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a page whose layout is ``full_zip_layout``.

    Raises:
        CorruptFileError: the layout contradicts itself or the buffers.
        UnsupportedError: a codec that pilum does not know.
    """
    layout = source.layout.full_zip_layout
    layers = levels.check_layers(layout.layers)
    bits_rep, bits_def = layout.bits_rep, layout.bits_def
    if bits_rep > 16 or bits_def > 16:
        raise CorruptFileError(f"full-zip page with levels of {bits_rep} and {bits_def} bits")
    top = levels.max_rep(layers)
    if (bits_rep > 0) != (top > 0):
        raise CorruptFileError(
            f"full-zip page of {top} list layers with repetition levels of {bits_rep} bits"
        )
    if not layout.HasField("value_compression"):
        raise CorruptFileError("full-zip page without value compression")
    details = layout.WhichOneof("details")
    prefix_bits = layout.bits_per_offset if details == "bits_per_offset" else 0
    bits = layout.bits_per_value if details == "bits_per_value" else 0
    if details is None or (prefix_bits and prefix_bits not in (32, 64)) or (not prefix_bits and not bits):
        raise CorruptFileError(f"full-zip page of values of {bits} bits or lengths of {prefix_bits} bits")
    if bits % 8 or bits // 8 > _MAX_VALUE:
        raise CorruptFileError(f"full-zip page of values of {bits} bits")
    indexed = bool(prefix_bits or top)
    if len(source.sizes) != 1 + indexed:
        raise CorruptFileError(f"full-zip page of {len(source.sizes)} buffers instead of {1 + indexed}")
    if layout.num_items < source.length or (not top and layout.num_items != source.length):
        raise CorruptFileError(f"full-zip page of {source.length} rows has {layout.num_items} entries")
    control = _control_bytes(bits_rep + bits_def)
    if not indexed:
        return FixedDecoder(source, layers, control, bits_def, bits // 8, layout.value_compression)
    limit = levels.visible_limit(layers)
    visible = _ANY_LEVEL if limit is None or limit >= levels.max_def(layers) else limit
    shape = EntryShape(control, bits_def, top, visible, prefix_bits // 8, bits // 8)
    return IndexedDecoder(source, layers, shape, bits_rep, prefix_bits, layout.value_compression)


class FixedDecoder(PageDecoder):
    """Reads a page of fixed-width values without lists: row r begins at ``base + r * stride``."""

    __slots__ = ("_control", "_decode", "_encoding", "_mask", "_values", "_width", "base", "stride")

    def __init__(
        self, source: PageSource, layers: tuple[int, ...], control: int, bits_def: int, width: int, ce: Any
    ) -> None:
        self.layers, self.num_rows = layers, source.length
        self.base, self.stride = source.offsets[0], control + width
        self._control, self._width = control, width
        self._mask = (1 << bits_def) - 1
        self._encoding = ce
        self._values = registry.values_decoder(ce)
        self._decode = self._decode_zipped if control else self._decode_plain
        if source.sizes[0] != self.stride * source.length:
            raise CorruptFileError(
                f"full-zip page of {source.length} rows of {self.stride} bytes has {source.sizes[0]} bytes"
            )

    def schedule(self, rows: Rows) -> PageRead:
        # nothing here depends on the number of rows, and nothing is looked up twice: this and
        # `_decode_plain` are most of the Python time of a scan of many small fragments
        stride, base = self.stride, self.base
        if type(rows) is range:
            start, stop = rows.start, rows.stop
            if start < stop:
                wanted = [(base + start * stride, base + stop * stride)]
                return PageRead(wanted, partial(self._decode, stop - start))
        elif len(rows):
            scattered = np.asarray(rows)
            start, stop = int(scattered[0]), int(scattered[-1]) + 1
            if stop - start == len(scattered):
                return self.schedule(range(start, stop))
            first, last = runs(scattered)
            low, high = base + scattered[first] * stride, base + (scattered[last] + 1) * stride
            wanted = list(zip(low.tolist(), high.tolist(), strict=True))
            return PageRead(wanted, partial(self._decode, len(scattered)))
        return PageRead([], partial(self._decode, 0))

    @property
    def has_levels(self) -> bool:
        """Whether each value has a control word in front."""
        return self._control > 0

    def is_like(self, other: FixedDecoder) -> bool:
        """Whether `decode` of both is the same."""
        own, others = [(one.layers, one._control, one._width, one._mask) for one in (self, other)]
        return own == others and bool(self._encoding == other._encoding)

    def decode(self, count: int, data: Bytes) -> Decoded:
        """Rows whose bytes lie back to back."""
        return self._decode(count, [data])

    def _decode_plain(self, count: int, buffers: list[Bytes]) -> Decoded:
        data = buffers[0] if len(buffers) == 1 else _join(buffers)
        if len(data) != count * self._width:
            raise CorruptFileError(f"{len(data)} bytes were read for {count} values of {self._width} bytes")
        return Decoded(self._values(FixedValues(self._width, data, count)), None, None, self.layers, count)

    def _decode_zipped(self, count: int, buffers: list[Bytes]) -> Decoded:
        data = np.ascontiguousarray(buffers[0]) if len(buffers) == 1 else _join(buffers)
        if len(data) != count * self.stride:
            raise CorruptFileError(f"{len(data)} bytes were read for {count} entries of {self.stride} bytes")
        grid = data.reshape(count, self.stride)
        words = np.ascontiguousarray(grid[:, : self._control]).view(f"<u{self._control}").reshape(count)
        definition: Levels = (words & words.dtype.type(self._mask)).astype(np.uint16)
        plain = np.ascontiguousarray(grid[:, self._control :]).reshape(-1)
        block = self._values(FixedValues(self._width, plain, count))
        return Decoded(block, None, definition, self.layers, count)


def _join(buffers: list[Bytes]) -> Bytes:
    return np.concatenate(buffers) if buffers else _EMPTY


# --------------------------------------------------------------------------- encode


def encode(rows: LeafRows, options: EncodeOptions) -> EncodedPage:
    """The rows as one full-zip page.

    Raises:
        InvalidInputError: there are no visible values, or more entries than the layout can count.
    """
    from pilum.proto import encodings_pb2

    if not rows.block.count or isinstance(rows.block, NullBlock):
        raise InvalidInputError("a page without values cannot be a full-zip page")
    values, ce = registry.encode_values(rows.block, options)
    rep, definition = rows.rep, rows.definition
    if definition is not None and not definition.any():
        definition = None
    top = levels.max_rep(rows.layers)
    entries = rows.block.count if rep is None else len(rep)
    if entries > _MAX_U32:
        raise InvalidInputError(f"a full-zip page of {entries} entries; cut the page smaller")
    bits_rep = top.bit_length() if rep is not None else 0
    bits_def = int(definition.max()).bit_length() if definition is not None else 0
    control = _control_bytes(bits_rep + bits_def)
    words = _control_words(rep, definition, bits_def, control)
    details: dict[str, int]
    if isinstance(values, VariableBlock):
        details = {"bits_per_offset": values.offset_bits}
    else:
        details = {"bits_per_value": 8 * values.width}
    buffers: list[Bytes]
    if isinstance(values, FixedValues) and rep is None:
        buffers = [_zip_rows(values, words)]
    else:
        visible = levels.visible_mask(definition, rows.layers)
        data, starts = _zip_entries(values, words, visible, definition, entries)
        if rep is not None:
            starts = starts[levels.row_starts(rep, rows.layers)]
        prefix = values.offset_bits // 8 if isinstance(values, VariableBlock) else 0
        # as wide as in the files of the reference, which asks for the most that the entries could take
        bound = len(values.data) + entries * (control + prefix)
        buffers = [data, pack_index(starts, len(data), bound)]
    message = encodings_pb2.FullZipLayout(
        bits_rep=bits_rep,
        bits_def=bits_def,
        num_items=entries,
        num_visible_items=rows.block.count,
        value_compression=ce,
        layers=cast(Any, rows.layers),
        **details,
    )
    page = encodings_pb2.PageLayout(full_zip_layout=message)
    return EncodedPage(buffers, page.SerializeToString(deterministic=True), rows.num_rows)


def _control_words(
    rep: Levels | None, definition: Levels | None, bits_def: int, control: int
) -> Bytes | None:
    """One row of ``control`` bytes per entry; None when there are none."""
    if not control:
        return None
    words: Any = 0
    if rep is not None:
        words = rep.astype(np.uint32) << np.uint32(bits_def)
    if definition is not None:
        words = words | definition.astype(np.uint32)
    narrow = np.ascontiguousarray(words, f"<u{control}")
    return narrow.view(np.uint8).reshape(-1, control)


def _zip_rows(values: FixedValues, words: Bytes | None) -> Bytes:
    count, width = values.count, values.width
    data = values.data[: count * width]
    if words is None:
        return data
    return np.concatenate([words, data.reshape(count, width)], axis=1).reshape(-1)


def _zip_entries(
    values: Values, words: Bytes | None, visible: Any, definition: Levels | None, entries: int
) -> tuple[Bytes, Ints]:
    """Buffer 0 of entries of different sizes, and where each begins."""
    control = 0 if words is None else words.shape[1]
    shown = np.arange(entries) if visible is None else np.flatnonzero(visible)
    if isinstance(values, VariableBlock):
        prefix = values.offset_bits // 8
        sources = values.offsets[:-1].astype(np.int64)
        lengths = np.diff(values.offsets).astype(np.int64)
        if definition is not None:  # a null has neither length nor bytes
            stored = np.flatnonzero(definition[shown] == 0)
            shown, sources, lengths = shown[stored], sources[stored], lengths[stored]
    else:
        prefix = 0
        sources = np.arange(values.count) * values.width
        lengths = np.full(values.count, values.width, np.int64)
    sizes = np.full(entries, control, np.int64)
    sizes[shown] += prefix + lengths
    ends = np.cumsum(sizes)
    starts = ends - sizes
    out = empty(int(ends[-1]), np.uint8)
    if words is not None:
        out[starts[:, None] + np.arange(control)] = words
    at = starts[shown] + control
    if prefix:
        out[at[:, None] + np.arange(prefix)] = (
            lengths.astype(f"<u{prefix}").view(np.uint8).reshape(-1, prefix)
        )
    ranges.scatter(np.ascontiguousarray(values.data), sources, lengths, out, at + prefix)
    return out, starts
