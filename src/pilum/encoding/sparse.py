"""Sparse pages of format 2.3: positions of nulls and lengths of lists instead of levels.

`spec/file-container-and-structure.md`, sections 9.1 (release 11) and 9.2 (release 14).  Read only.  Layers come
outermost first; the slots of each are the child slots of the one before::

    validity         which slots are null
    list             which slots are not empty, how many items these have, which are null
    fixed-size list  which slots are null; dimension

    page buffers     chunk words | chunks of values without levels | dictionary? | sequences, in the order of layers

The sequences are metadata.  `initialise` makes levels of them, by the same steps that shred an array, so whoever
gets rows of such a page sees what a dense page gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum import distinct
from pilum.encoding import levels, registry
from pilum.encoding.blocks import (
    Block,
    Bytes,
    DictionaryBlock,
    FixedBlock,
    NullBlock,
    decode_dictionary,
    slice_block,
    take_block,
)
from pilum.encoding.codecs.base import Ints
from pilum.encoding.codecs.sequences import has_payload, numbers
from pilum.encoding.entries import Entries, enter_item, enter_list, finish, repeat_entries
from pilum.encoding.miniblock_chunks import framing, read_words
from pilum.encoding.page import Decoded, Levels, PageDecoder, PageRead, PageSource, Range, Rows
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = ["SparseDecoder", "decoder", "decoder_of_planes"]

Bools = npt.NDArray[np.bool_]
_MAX_SLOTS = 1 << 30
_NULLS, _VALID = 1, 2

# A sequence reads its buffer, if it has one, and gives positions or counts.
Sequence = Callable[[Bytes | None, int], Ints]


@dataclass(slots=True)
class _Set:
    """Positions in some domain."""

    count: int
    stored: bool
    read: Sequence


@dataclass(slots=True)
class _Layer:
    kind: str  # validity, list or fixed_size_list
    meaning: int
    marked: _Set  # null or valid slots
    filled: _Set | None = None
    counts: _Set | None = None
    children: int = 0
    dimension: int = 1

    def sets(self) -> list[_Set]:
        """In the order of their buffers."""
        return [part for part in (self.filled, self.counts, self.marked) if part is not None]


@dataclass(slots=True)
class _Values:
    """What the value plane says; ``ce`` is None where there are no chunks."""

    ce: Any = None
    num_buffers: int = 0
    wide_words: bool = False  # 8 bytes with the item count, as release 11 writes them
    dictionary: Any = None
    num_dictionary_items: int = 0
    scalar: bytes | None = None


# --------------------------------------------------------------------------- messages


def decoder(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a ``sparse_layout`` of release 11."""
    layout = source.layout.sparse_layout
    if version < (2, 3):
        raise CorruptFileError(f"sparse page in a file of version {version[0]}.{version[1]}")
    if not layout.has_large_chunk or not layout.HasField("value_compression"):
        raise CorruptFileError("sparse page without large chunks or value compression")
    found = []
    for layer in layout.structural_layers:
        kind = layer.WhichOneof("layer")
        if kind is None:
            raise CorruptFileError("a sparse page has a layer of no kind")
        message = getattr(layer, kind)
        meaning = int(message.validity.meaning)
        marked = _old_set(message.validity.positions)
        if kind == "list":
            filled = _old_set(message.non_empty_positions)
            counts = _old_counts(message.counts, filled.count)
            found.append(_Layer(kind, meaning, marked, filled, counts, int(message.num_child_slots)))
        else:
            dimension = int(message.dimension) if kind == "fixed_size_list" else 1
            found.append(_Layer(kind, meaning, marked, dimension=dimension))
    values = _Values(layout.value_compression, int(layout.num_buffers), wide_words=True)
    return SparseDecoder(source, found, values)


def _old_set(message: Any) -> _Set:
    """Positions of release 11: explicit ones are differences."""
    kind, count = message.WhichOneof("positions"), int(message.num_positions)
    if kind == "explicit":
        ce = message.explicit
        return _Set(count, True, lambda data, n: np.cumsum(_decode(ce, data, n)))
    if kind == "range":
        start, length = int(message.range.start), int(message.range.length)
        _limit(start + length)
        return _Set(length, False, lambda data, n: np.arange(start, start + n))
    if kind == "all":
        return _Set(count, False, lambda data, n: np.arange(n))
    if kind == "empty":
        return _Set(0, False, lambda data, n: np.zeros(0, np.int64))
    raise CorruptFileError("a sparse page has a set of positions of no kind")


def _old_counts(message: Any, count: int) -> _Set:
    kind = message.WhichOneof("counts")
    if kind == "explicit":
        ce = message.explicit
        return _Set(count, True, lambda data, n: _decode(ce, data, n))
    if kind == "constant":
        value = int(message.constant.value)
        _limit(value)
        return _Set(count, False, lambda data, n: np.full(n, value, np.int64))
    return _Set(0, False, lambda data, n: np.zeros(0, np.int64))


def decoder_of_planes(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a ``PlanarLayout`` of sparse structure (release 14)."""
    layout = source.layout
    found = []
    for layer in layout.structure.sparse.layers:
        kind = layer.WhichOneof("layer")
        if kind is None:
            raise CorruptFileError("a sparse page has a layer of no kind")
        message = getattr(layer, kind)
        validity = message if kind == "validity" else message.validity
        marked = _set(validity.positions, int(validity.num_positions))
        if kind == "list":
            count = int(message.num_non_empty_positions)
            filled, counts = _set(message.non_empty_positions, count), _set(message.counts, count)
            children = int(message.num_child_slots)
            found.append(_Layer(kind, int(validity.meaning), marked, filled, counts, children))
        else:
            dimension = int(message.dimension) if kind == "fixed_size_list" else 1
            found.append(_Layer(kind, int(validity.meaning), marked, dimension=dimension))
    name = layout.values.WhichOneof("values")
    plane = getattr(layout.values, name)
    if name == "chunked":
        if not plane.HasField("compression"):
            raise CorruptFileError("sparse page without value compression")
        dictionary = plane.dictionary if plane.HasField("dictionary") else None
        values = _Values(
            plane.compression, int(plane.num_buffers), False, dictionary, int(plane.num_dictionary_items)
        )
    elif name == "constant":
        values = _Values(scalar=bytes(plane.scalar))
    elif name == "none":
        values = _Values()
    else:
        raise UnsupportedError(f"pages of sparse structure with values {name} are not supported")
    return SparseDecoder(source, found, values)


def _set(ce: Any, count: int) -> _Set:
    if not count:
        return _Set(0, False, lambda data, n: np.zeros(0, np.int64))
    return _Set(count, has_payload(ce), lambda data, n: _decode(ce, data, n))


def _decode(ce: Any, data: Bytes | None, count: int) -> Ints:
    found = numbers(registry.decode_block(ce, np.empty(0, np.uint8) if data is None else data, count))
    if len(found) != count:
        raise CorruptFileError(f"a sequence of {len(found)} numbers instead of {count}")
    return found


def _limit(count: int) -> None:
    if not 0 <= count <= _MAX_SLOTS:
        raise CorruptFileError(f"a sparse page of {count} slots")


# --------------------------------------------------------------------------- decoder


class SparseDecoder(PageDecoder):
    """Reads a sparse page; see `PageDecoder`."""

    __slots__ = (
        "_chunk_counts", "_chunk_firsts", "_chunk_starts", "_definition", "_dictionary", "_framing", "_metadata", "_ready",
        "_rep", "_source", "_starts", "_steps", "_values", "_visible",
    )  # fmt: skip

    def __init__(self, source: PageSource, steps: list[_Layer], values: _Values) -> None:
        self._source, self._steps, self._values = source, steps, values
        self.num_rows = source.length
        self._ready = False
        kinds = [step.kind for step in steps]
        if not kinds or kinds[-1] == "list" or len(kinds) > 64:
            raise CorruptFileError(f"sparse page of layers {kinds}")
        if "fixed_size_list" in kinds and "list" in kinds:
            raise UnsupportedError("fixed-size lists of structs together with lists")
        _limit(source.length)
        for step in steps:
            if step.meaning not in (_NULLS, _VALID):
                raise CorruptFileError("a sparse page does not say whether positions are null or valid")
            for part in step.sets():
                _limit(part.count)
        self.layers = (levels.NULLABLE_ITEM,)  # known once initialised
        chunked = values.ce is not None
        stored = sum(part.stored for step in steps for part in step.sets())
        expected = 2 * chunked + (values.dictionary is not None) + stored
        if len(source.sizes) != expected:
            raise CorruptFileError(f"sparse page of {len(source.sizes)} buffers instead of {expected}")
        if chunked:
            self._framing = framing(False, False, values.num_buffers, True)
            if registry.num_buffers(values.ce) != values.num_buffers:
                raise CorruptFileError(f"sparse page of {values.num_buffers} value buffers")
        skip = {1} if chunked else set()
        wanted = [k for k in range(expected) if k not in skip]
        self._metadata = sorted(wanted, key=source.offsets.__getitem__)
        if not self._metadata:
            self.initialise([])

    def metadata_ranges(self) -> list[Range]:
        source = self._source
        return [(source.offsets[k], source.offsets[k] + source.sizes[k]) for k in self._metadata]

    @property
    def initialised(self) -> bool:
        return self._ready

    @property
    def nbytes(self) -> int:
        if not self._ready:
            return 512
        held = (self._rep, self._definition, self._starts)
        return 1024 + sum(0 if part is None else part.nbytes for part in held)

    def initialise(self, buffers: list[Bytes]) -> None:
        values, source = self._values, self._source
        found = dict(zip(self._metadata, buffers, strict=True))
        for number, data in found.items():
            if len(data) != source.sizes[number]:
                raise CorruptFileError(f"buffer {number} of a sparse page has {len(data)} bytes")
        at = 0
        dictionary: Block | None = None
        if values.ce is not None:
            at = 2
            if values.dictionary is not None:
                data = found[2].copy()
                dictionary = registry.decode_block(values.dictionary, data, values.num_dictionary_items)
                at = 3
        entries = self._entries(found, at)
        rows = finish(entries, NullBlock(0))
        self.layers, self._rep, self._definition = rows.layers, rows.rep, rows.definition
        count = entries.count
        self._visible = levels.visible_mask(rows.definition, rows.layers)
        visible = count if self._visible is None else int(np.count_nonzero(self._visible))
        self._starts = None
        if rows.rep is not None:
            self._starts = np.append(levels.row_starts(rows.rep, rows.layers), count)
            if len(self._starts) != self.num_rows + 1:
                raise CorruptFileError(
                    f"sparse page of {len(self._starts) - 1} rows instead of {self.num_rows}"
                )
        if values.ce is not None:
            starts, counts = self._chunks(found[0], visible)
            self._chunk_starts, self._chunk_counts = starts, counts
            self._chunk_firsts = np.concatenate([[0], np.cumsum(counts)])
        self._dictionary = dictionary
        self._ready = True

    def _chunks(self, words: Bytes, visible: int) -> tuple[Ints, Ints]:
        body = self._source.sizes[1]
        if not self._values.wide_words:
            return read_words(words, True, visible, body)
        if len(words) % 8 or not len(words):
            raise CorruptFileError(f"sparse page with {len(words)} bytes of chunk words")
        table = words.view("<u4").reshape(-1, 2).astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(8 * (table[:, 0] + 1))])
        if int(starts[-1]) != body or int(table[:, 1].sum()) != visible:
            raise CorruptFileError(f"chunks of a sparse page do not add up to {body} bytes, {visible} values")
        return starts, table[:, 1]

    def _entries(self, found: dict[int, Bytes], at: int) -> Entries:
        """Walk the layers; each consumes the buffers of its sequences."""
        rows = self.num_rows
        for step in self._steps:
            if step.kind == "fixed_size_list":
                if step.dimension < 1 or rows % step.dimension:
                    raise CorruptFileError(f"sparse page of {rows} rows and lists of {step.dimension}")
                rows //= step.dimension
        entries = Entries(rows, rows)
        slots = rows
        for step in self._steps:
            parts: list[Ints] = []
            for part in step.sets():
                data = found[at] if part.stored else None
                at += part.stored
                parts.append(part.read(data, part.count))
            marked = _mask(parts[-1], slots)
            nulls: Bools = marked if step.meaning == _NULLS else ~marked
            if step.kind == "list":
                filled = _mask(parts[0], slots)
                sizes = np.zeros(slots, np.int64)
                sizes[filled] = parts[1]
                total = int(sizes.sum(dtype=np.float64))
                if len(parts[0]) != len(parts[1]) or bool((nulls & filled).any()) or not bool(parts[1].all()):
                    raise CorruptFileError("a sparse page lists items of null or empty lists")
                if total != step.children:
                    raise CorruptFileError(f"lists of {total} items in a sparse page of {step.children}")
                _limit(total)
                entries, kept = enter_list(entries, sizes, nulls if nulls.any() else None)
                if int(kept.sum()) != total:
                    raise CorruptFileError("a sparse page lists items below null structs")
                slots = total
                continue
            entries = enter_item(entries, nulls if nulls.any() else None)
            if step.kind == "fixed_size_list":
                slots *= step.dimension
                _limit(slots)
                entries = repeat_entries(entries, step.dimension)
        return entries

    # ------------------------------------------------------------------ reading

    def schedule(self, rows: Rows) -> PageRead:
        if not self._ready:
            raise RuntimeError("schedule() before initialise()")
        entries = self._entry_index(rows)
        visible = self._visible
        if visible is None:
            positions = entries
        else:
            number = np.cumsum(visible) - 1
            positions = number[entries[visible[entries]]]
        if self._values.ce is None or not len(positions):
            return PageRead([], partial(self._decode, len(rows), entries, positions, np.zeros(0, np.int64)))
        firsts = self._chunk_firsts
        chunks = distinct.unique(np.searchsorted(firsts, positions, "right") - 1)
        base = self._source.offsets[1]
        wanted = [(base + int(self._chunk_starts[c]), base + int(self._chunk_starts[c + 1])) for c in chunks]
        return PageRead(wanted, partial(self._decode, len(rows), entries, positions, chunks))

    def _entry_index(self, rows: Rows) -> Ints:
        index = np.arange(rows.start, rows.stop) if isinstance(rows, range) else np.asarray(rows)
        if self._starts is None:
            return index
        begins = self._starts[index]
        sizes = self._starts[index + 1] - begins
        shift = begins - (np.cumsum(sizes) - sizes)
        return np.repeat(shift, sizes) + np.arange(int(sizes.sum()))

    def _decode(
        self, count: int, entries: Ints, positions: Ints, chunks: Ints, buffers: list[Bytes]
    ) -> Decoded:
        rep: Levels | None = None if self._rep is None else self._rep[entries]
        definition: Levels | None = None if self._definition is None else self._definition[entries]
        return Decoded(self._block(positions, chunks, buffers), rep, definition, self.layers, count)

    def _block(self, positions: Ints, chunks: Ints, buffers: list[Bytes]) -> Block:
        values = self._values
        if values.scalar is not None:
            scalar = np.frombuffer(values.scalar, np.uint8)
            if not 1 <= len(scalar) <= 32:
                raise CorruptFileError(f"constant page with an inline value of {len(scalar)} bytes")
            return FixedBlock(8 * len(scalar), np.tile(scalar, len(positions)), len(positions))
        if values.ce is None:
            return NullBlock(len(positions))
        data = np.concatenate([*buffers, np.empty(0, np.uint8)])
        sizes = self._chunk_starts[chunks + 1] - self._chunk_starts[chunks]
        ends = np.cumsum(sizes)
        if len(data) != (int(ends[-1]) if len(ends) else 0):
            raise CorruptFileError("a sparse page was read in part")
        parsed = self._framing.parse(data, ends - sizes, ends)
        counts = self._chunk_counts[chunks]
        block = registry.decode_miniblock(values.ce, parsed.values, counts)
        firsts = np.cumsum(counts) - counts
        of = np.searchsorted(chunks, np.searchsorted(self._chunk_firsts, positions, "right") - 1)
        local = positions - self._chunk_firsts[chunks[of]] + firsts[of] if len(positions) else positions
        if len(local) and int(local[-1]) - int(local[0]) + 1 == len(local):
            block = slice_block(block, int(local[0]), len(local))
        else:
            block = take_block(block, local)
        if self._dictionary is None:
            return block
        if not isinstance(block, FixedBlock):
            raise CorruptFileError("dictionary indices are not integers")
        words = block.words()
        # the index of a null means nothing
        words = np.where(words < self._dictionary.count, words, words.dtype.type(0))
        indices = FixedBlock(block.bits, words.view(np.uint8), block.count)
        if not self._dictionary.count:
            return NullBlock(block.count)
        return decode_dictionary(DictionaryBlock(indices, self._dictionary, block.count))


def _mask(positions: Ints, slots: int) -> Bools:
    """Which slots are listed; positions must rise inside the domain."""
    if len(positions) and (
        int(positions[0]) < 0 or int(positions[-1]) >= slots or bool((positions[1:] <= positions[:-1]).any())
    ):
        raise CorruptFileError(f"positions of a sparse page do not rise inside {slots} slots")
    mask = np.zeros(slots, np.bool_)
    mask[positions] = True
    return mask
