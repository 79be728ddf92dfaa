"""Mini-block pages: small values, in chunks that are decoded as a whole.

`spec/file-container-and-structure.md`, section 4.2.  Page buffers::

    0      chunk words      where each chunk lies, how many values it has    miniblock_chunks.py
    1      chunks           levels and compressed values of 2^k entries      miniblock_chunks.py
    2      dictionary       only if the values are indices into it
    last   repetition index rows per chunk, only with lists                  miniblock_rows.py

All but buffer 1 are metadata, read once.  A read of some rows fetches the chunks that hold them, decodes
these as one batch (levels, values) and drops what was not asked for.  Without lists an entry is a
row is a value; with lists rows may span chunks.

Values that are a `DictionaryBlock` are written as indices with their dictionary; read, they stay
indices as long as the items are byte strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pilum.encoding import levels, registry
from pilum.encoding.blocks import (
    Block,
    Bytes,
    DictionaryBlock,
    FixedBlock,
    VariableBlock,
    block_bytes,
    decode_dictionary,
    slice_block,
    take_block,
)
from pilum.encoding.codecs.base import ChunkSet, EncodeOptions, Ints, variant
from pilum.encoding.kernels import lookup
from pilum.encoding.kernels.levels import find_rows
from pilum.encoding.kernels.locate import Located
from pilum.encoding.miniblock_chunks import framing, pack_words, read_words
from pilum.encoding.miniblock_pick import FEW, Picker, picker
from pilum.encoding.miniblock_rows import (
    ListTrim,
    RowIndex,
    cut_levels,
    index_without_lists,
    pack_index,
    read_index,
)
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
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["MiniBlockDecoder", "decoder", "encode", "value_levels"]

_INDEX_BITS = (8, 16, 32, 64)
# Codecs that decode chunks of several pages like those of one, though not only the last one is short.
_JOINING = ("flat", "inline_bitpacking")
_MAX_I32 = 2**31 - 1
_MAX_EXPANDED = 1 << 36  # bytes that a dictionary of long values may expand to in one read
_NO_INTS: Ints = np.empty(0, np.int64)
_NO_BYTES: Bytes = np.empty(0, np.uint8)


def decoder(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a page whose layout is ``mini_block_layout``.

    Raises:
        CorruptFileError: the layout contradicts itself, the buffers or the file version.
        UnsupportedError: a codec or an index depth that pilum does not know.
    """
    return MiniBlockDecoder(source, version)


class MiniBlockDecoder(PageDecoder):
    """Reads a mini-block page; see `PageDecoder`."""

    __slots__ = (
        "_counts",
        "_def_ce",
        "_dictionary",
        "_framing",
        "_index",
        "_large",
        "_layout",
        "_metadata",
        "_picker",
        "_rep_ce",
        "_source",
        "_starts",
        "_value_ce",
    )

    def __init__(self, source: PageSource, version: tuple[int, int]) -> None:
        layout = source.layout.mini_block_layout
        self._source, self._layout = source, layout
        self.num_rows = source.length
        self.layers = levels.check_layers(layout.layers)
        self._large = bool(layout.has_large_chunk)
        if self._large != (version >= (2, 2)):
            raise CorruptFileError(
                f"mini-block page with {'large' if self._large else 'small'} chunks in a file of version"
                f" {version[0]}.{version[1]}"
            )
        if not layout.HasField("value_compression"):
            raise CorruptFileError("mini-block page without value compression")
        self._value_ce = layout.value_compression
        self._rep_ce = layout.rep_compression if layout.HasField("rep_compression") else None
        self._def_ce = layout.def_compression if layout.HasField("def_compression") else None
        has_lists = levels.max_rep(self.layers) > 0
        depth = layout.repetition_index_depth
        if depth > 1:
            raise UnsupportedError(f"repetition indices of depth {depth} are not supported")
        if not has_lists == (self._rep_ce is not None) == (depth == 1):
            raise CorruptFileError(
                f"mini-block page with layers {self.layers}, repetition levels"
                f" {'not ' if self._rep_ce is None else ''}stored and a repetition index of depth {depth}"
            )
        buffers = registry.num_buffers(self._value_ce)
        if layout.num_buffers != buffers:
            raise CorruptFileError(
                f"mini-block page of {layout.num_buffers} value buffers; its codec has {buffers}"
            )
        self._framing = framing(self._rep_ce is not None, self._def_ce is not None, buffers, self._large)
        has_dictionary = layout.HasField("dictionary")
        expected = 2 + has_dictionary + (depth == 1)
        if len(source.sizes) != expected:
            raise CorruptFileError(f"mini-block page of {len(source.sizes)} buffers instead of {expected}")
        if not has_lists and layout.num_items != source.length:
            raise CorruptFileError(f"mini-block page of {source.length} rows has {layout.num_items} items")
        self._metadata = sorted((k for k in range(expected) if k != 1), key=source.offsets.__getitem__)
        self._index: RowIndex | None = None
        self._picker: Picker | bool | None = True  # not asked for yet

    # ------------------------------------------------------------------ metadata

    def metadata_ranges(self) -> list[Range]:
        source = self._source
        return [(source.offsets[k], source.offsets[k] + source.sizes[k]) for k in self._metadata]

    def initialise(self, buffers: list[Bytes]) -> None:
        layout, source = self._layout, self._source
        found: dict[int, Bytes] = dict(zip(self._metadata, buffers, strict=True))
        for number, data in found.items():
            _expect(data, source.sizes[number])
        starts, counts = read_words(found[0], self._large, layout.num_items, source.sizes[1])
        dictionary = None
        if layout.HasField("dictionary"):
            # a copy: the cached dictionary must not keep the buffer of a whole request alive
            dictionary = registry.decode_block(
                layout.dictionary, found[2].copy(), layout.num_dictionary_items
            )
        if self._rep_ce is not None:
            index = read_index(found[len(source.sizes) - 1], len(counts), source.length)
        else:
            index = index_without_lists(counts)
        self._starts, self._counts = starts + source.offsets[1], counts
        self._dictionary = dictionary
        self._index = index

    @property
    def initialised(self) -> bool:
        return self._index is not None

    @property
    def nbytes(self) -> int:
        if self._index is None:
            return 512
        arrays = self._starts.nbytes + self._counts.nbytes + self._index.nbytes
        return 512 + arrays + block_bytes(self._dictionary)

    # ------------------------------------------------------------------ schedule

    def schedule(self, rows: Rows) -> PageRead:
        if isinstance(rows, range):
            return self._schedule_range(rows.start, rows.stop)
        count = len(rows)
        if not count:
            return self._schedule_range(0, 0)
        first, stop = int(rows[0]), int(rows[-1]) + 1
        if stop - first == count:
            return self._schedule_range(first, stop)
        return self._schedule_rows(rows)

    def _schedule_rows(self, rows: npt.NDArray[np.int64]) -> PageRead:
        located = self._ready().locate(rows, self._starts[:-1], self._starts[1:])
        return PageRead(located.ranges, partial(self._decode_rows, located))

    def _schedule_range(self, first: int, stop: int) -> PageRead:
        index = self._ready()
        if first >= stop:
            return PageRead([], self._decode_nothing)
        if stop - first <= FEW and self._picker:
            return self._schedule_rows(np.arange(first, stop))
        low, high = index.chunk_range(first, stop)
        starts = self._starts
        read = PageRead(
            [(int(starts[low]), int(starts[high]))], partial(self._decode_range, first, stop, low, high)
        )
        if self._joins and stop - first == int(self._counts[low:high].sum()):
            read.decode_alike = partial(self._decode_alike, low, high)
        return read

    @property
    def _joins(self) -> bool:
        """Whether chunks of several pages can be decoded in one go: numbers without lists."""
        codecs = (self._value_ce, self._def_ce)
        return self._rep_ce is None and all(ce is None or variant(ce) in _JOINING for ce in codecs)

    def _ready(self) -> RowIndex:
        if self._index is None:
            raise RuntimeError("schedule() before initialise()")
        return self._index

    # ------------------------------------------------------------------ decode

    def _decode_nothing(self, buffers: list[Bytes]) -> Decoded:
        block, rep, definition, _ = self._decode_chunks(_NO_BYTES, _NO_INTS, _NO_INTS, _NO_INTS)
        return self._finish(block, rep, definition, 0)

    def _decode_range(self, first: int, stop: int, low: int, high: int, buffers: list[Bytes]) -> Decoded:
        """Rows ``first .. stop``, which lie in chunks ``low .. high``."""
        data, index = buffers[0], self._ready()
        starts = self._starts[low : high + 1] - self._starts[low]
        _expect(data, int(starts[-1]))
        counts = self._counts[low:high]
        block, rep, definition, num_levels = self._decode_chunks(data, starts[:-1], starts[1:], counts)
        if rep is not None:
            skip, count = first - int(index.first[low]), stop - first
            whole = count == self.num_rows
            shape = index.shape(slice(low, high))
            place = find_rows(
                rep, definition, levels.max_rep(self.layers), levels.visible_limit(self.layers), num_levels,
                counts, *shape, skip, count,
            )  # fmt: skip
            if place is None:
                trim = ListTrim(rep, definition, self.layers, num_levels)
                trim.check(counts, *shape, positions=not whole)
                if not whole:
                    place = trim.row_range(skip, count)
            if not whole and place is not None:
                entries, values = place
                rep = rep[entries]
                definition = None if definition is None else definition[entries]
                block = slice_block(block, values.start, values.stop - values.start)
            return self._finish(block, rep, definition, count)
        skip, count = first - int(index.first[low]), stop - first
        if count != block.count:
            block = slice_block(block, skip, count)
            definition = None if definition is None else definition[skip : skip + count]
        return self._finish(block, None, definition, count)

    def _decode_alike(self, low: int, high: int, pages: Sequence[Bytes]) -> Decoded | None:
        """All rows of chunks ``low .. high`` of each page: some twenty array operations for all, not for each."""
        edges = self._starts[low : high + 1] - self._starts[low]
        size, number = int(edges[-1]), len(pages)
        if {len(page) for page in pages} != {size}:
            return None
        moved = size * np.arange(number)[:, None]
        starts, ends = (edges[:-1] + moved).reshape(-1), (edges[1:] + moved).reshape(-1)
        counts = np.tile(self._counts[low:high], number)
        block, _, definition, _ = self._decode_chunks(np.concatenate(pages), starts, ends, counts)
        return self._finish(block, None, definition, int(counts.sum()))

    def _decode_rows(self, located: Located, buffers: list[Bytes]) -> Decoded:
        """Scattered rows, or a few neighbours."""
        data = buffers[0] if len(buffers) == 1 else np.concatenate(buffers)
        chunks, rows = located.chunks, len(located.of_row)
        _expect(data, int(located.ends[-1]))
        found = self._pick(data, located)
        if found is not None:
            return found
        index, counts = self._ready(), self._counts[chunks]
        block, rep, definition, num_levels = self._decode_chunks(data, located.starts, located.ends, counts)
        begins = index.first[chunks + 1] - index.first[chunks]  # rows that begin in each chunk
        position = located.positions + (np.cumsum(begins) - begins)[located.of_row]
        if rep is not None:
            trim = ListTrim(rep, definition, self.layers, num_levels)
            trim.check(counts, *index.shape(chunks))
            entries, values = trim.rows(position, np.flatnonzero(np.diff(chunks, prepend=-2) != 1))
            rep = rep[entries]
            definition = None if definition is None else definition[entries]
            return self._finish(take_block(block, values), rep, definition, rows)
        definition = None if definition is None else definition[position]
        return self._finish(take_block(block, position), None, definition, rows)

    def _pick(self, data: Bytes, located: Located) -> Decoded | None:
        """Rows out of their chunks; None if these must be decoded for them."""
        picker = self.picker
        if picker is None:
            return None
        found = picker.rows(data, located, self._counts, self._ready())
        return None if found is None else self.complete(*found[:3], len(located.of_row))

    @property
    def picker(self) -> Picker | None:
        """How single rows are picked out of the page's chunks; None if that cannot be."""
        if self._picker is True:
            self._picker = picker(
                self._value_ce, self._rep_ce, self._def_ce, self._framing.header, self._large, self.layers
            )
        return self._picker if isinstance(self._picker, Picker) else None

    @property
    def chunks(self) -> tuple[RowIndex, Ints, Ints, Ints]:
        """Rows of each chunk, where chunks begin and end in the file, and values of each."""
        return self._ready(), self._starts[:-1], self._starts[1:], self._counts

    @property
    def dictionary(self) -> Block | None:
        """The items that its values are indices of."""
        return self._dictionary

    @property
    def stores_values(self) -> bool:
        """Whether picked values are values, not codes or indices that `complete` must look up."""
        picker = self.picker
        return self._dictionary is None and (picker is None or picker.finish is None)

    def complete(self, block: Block, rep: Levels | None, definition: Levels | None, rows: int) -> Decoded:
        """Rows of picked values and their levels."""
        picker = self.picker
        if picker is not None and picker.finish is not None:
            block = picker.finish(block)
        return self._finish(block, rep, definition, rows)

    def _decode_chunks(
        self, data: Bytes, starts: Ints, ends: Ints, counts: Ints
    ) -> tuple[Block, Levels | None, Levels | None, Ints]:
        """Values and levels of whole chunks, and how many levels each has."""
        chunks = self._framing.parse(data, starts, ends)
        num_levels = chunks.num_levels
        if chunks.definition is not None and chunks.rep is None and not np.array_equal(num_levels, counts):
            raise CorruptFileError("a mini-block chunk has more or fewer definition levels than values")
        rep = None if chunks.rep is None else _decode_levels(self._rep_ce, chunks.rep, num_levels)
        definition = (
            None if chunks.definition is None else _decode_levels(self._def_ce, chunks.definition, num_levels)
        )
        return registry.decode_miniblock(self._value_ce, chunks.values, counts), rep, definition, num_levels

    def _finish(self, block: Block, rep: Levels | None, definition: Levels | None, rows: int) -> Decoded:
        if self._dictionary is not None:
            block = self._look_up(block, definition)
        return Decoded(block, rep, definition, self.layers, rows)

    def _look_up(self, indices: Block, definition: Levels | None) -> Block:
        """Dictionary values of indices; those of nulls mean nothing and become index 0."""
        dictionary = self._dictionary
        assert dictionary is not None
        if not isinstance(indices, FixedBlock) or indices.bits not in _INDEX_BITS:
            raise CorruptFileError("dictionary indices are not integers")
        words = indices.words()
        definition = value_levels(definition, self.layers)
        if isinstance(dictionary, FixedBlock) and dictionary.bits in (32, 64):
            found = lookup.take_words(dictionary.words(), words, definition)
            if found is not None:
                return FixedBlock(dictionary.bits, found.view(np.uint8), len(found))
        if definition is not None:
            words = np.where(definition == 0, words, words.dtype.type(0))
        largest = int(words.max(initial=0))
        if len(words) and largest >= dictionary.count:
            raise CorruptFileError(f"index {largest} into a dictionary of {dictionary.count} items")
        coded = DictionaryBlock(
            FixedBlock(indices.bits, words.view(np.uint8), len(words)), dictionary, len(words)
        )
        return coded if isinstance(dictionary, VariableBlock) else decode_dictionary(coded)


def value_levels(definition: Levels | None, layers: levels.Layers) -> Levels | None:
    """The levels of the entries that have a value; None if all of these are 0."""
    visible = None if definition is None else levels.visible_mask(definition, layers)
    if definition is None or visible is None:
        return definition
    # entries with a value have level 0, unless items or structs around them can be null
    return definition[visible] if levels.visible_limit(layers) else None


def _decode_levels(ce: Any, chunks: ChunkSet, counts: Ints) -> Levels:
    block = registry.decode_blocks(ce, chunks, counts)
    if len(counts) and (block.bits != 16 or block.count != int(counts.sum())):
        raise CorruptFileError(f"levels are {block.count} numbers of {block.bits} bits")
    words: Levels = block.words() if len(counts) else np.empty(0, np.uint16)
    return words


def _expect(data: Bytes, size: int) -> None:
    if len(data) != size:
        raise CorruptFileError(f"{len(data)} bytes were read where {size} belong to the page")


# --------------------------------------------------------------------------- encode


def encode(rows: LeafRows, options: EncodeOptions) -> EncodedPage:
    """The rows as one mini-block page.

    Raises:
        InvalidInputError: there are no visible values (such pages are constant), or a chunk would
            exceed what the format version allows.
    """
    from pilum.proto import encodings_pb2

    if not rows.block.count:
        raise InvalidInputError("a page without values cannot be a mini-block page")
    large = options.version >= (2, 2)
    block: Block = rows.block
    items: Block | None = None
    if isinstance(block, DictionaryBlock):
        items, block = block.items, block.indices
    encoded = registry.encode_miniblock(block, options)
    counts = encoded.counts
    definition = rows.definition
    if definition is not None and not definition.any():
        definition = None
    num_levels = counts
    if rows.rep is not None:
        num_levels = cut_levels(counts, levels.visible_mask(definition, rows.layers), len(rows.rep))
    layout: dict[str, Any] = {}
    parts = []
    for name, stored in (("rep_compression", rows.rep), ("def_compression", definition)):
        if stored is not None:
            level_blocks = registry.encode_levels(stored, num_levels, options)
            parts.append((level_blocks.data, level_blocks.sizes))
            layout[name] = level_blocks.ce
    parts += zip(encoded.buffers, encoded.sizes, strict=True)
    frame = framing(rows.rep is not None, definition is not None, len(encoded.buffers), large)
    body, sizes = frame.assemble(num_levels, parts)
    buffers = [pack_words(sizes, counts, large), body]
    if items is not None:
        data, layout["dictionary"] = registry.encode_block(items, options.of_dictionary())
        layout["num_dictionary_items"] = items.count
        buffers.append(data)
    if rows.rep is not None:
        buffers.append(pack_index(rows.rep, levels.max_rep(rows.layers), num_levels))
    message = encodings_pb2.MiniBlockLayout(
        value_compression=encoded.ce,
        layers=cast(Any, rows.layers),
        num_buffers=len(encoded.buffers),
        repetition_index_depth=int(rows.rep is not None),
        num_items=rows.block.count,
        has_large_chunk=large,
        **layout,
    )
    page = encodings_pb2.PageLayout(mini_block_layout=message)
    return EncodedPage(buffers, page.SerializeToString(deterministic=True), rows.num_rows)
