"""Blob pages: large values far away in the file, and where they are (4.5).

`spec/file-container-and-structure.md`, section 4.5::

    inner page     one packed struct {position u64, size u64} per row, none of them null
    descriptor     size > 0                    the value: that many bytes of the file, at that position
                   size = 0, position = 0      an empty value
                   size = 0, position > 0      null: rep = low 16 bits, def = next 16 bits of the position

A page is read in two rounds, descriptors and then values, or as descriptors only (`BlobDecoder.descriptors`).
Values lie inside the file and are not larger than it taken together, so damaged descriptors cannot ask for more
memory than that.  Blobs inside lists do not exist: the descriptor of a value has no room for its levels.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pilum.encoding import levels, miniblock
from pilum.encoding.blocks import Bytes, FixedBlock, StructBlock, VariableBlock
from pilum.encoding.codecs.base import Ints
from pilum.encoding.kernels import ranges
from pilum.encoding.options import EncodeOptions
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

__all__ = ["BlobDecoder", "decoder", "descriptors_of", "encode"]

Words = npt.NDArray[np.uint64]
_LEVEL = 0xFFFF


def decoder(source: PageSource, version: tuple[int, int]) -> PageDecoder:
    """The decoder of a page whose layout is ``blob_layout``.

    Raises:
        CorruptFileError: the layout contradicts itself or its inner page.
        UnsupportedError: blobs inside lists.
    """
    from pilum.encoding.pages import open_page

    layout = source.layout.blob_layout
    layers = levels.check_layers(layout.layers)
    if levels.max_rep(layers):
        raise UnsupportedError("blobs inside lists are not supported")
    inner = layout.inner_layout
    if inner.WhichOneof("layout") in (None, "blob_layout"):
        raise CorruptFileError("blob page without an inner page")
    described = open_page(
        PageSource(source.offsets, source.sizes, source.length, inner, source.file_size), version
    )
    if described.layers != (levels.ALL_VALID_ITEM,):
        raise CorruptFileError(f"descriptors of blobs with layers {list(described.layers)}")
    return BlobDecoder(described, layers, source.file_size, values=True)


class BlobDecoder(PageDecoder):
    """Reads a blob page; see `PageDecoder`.

    Args:
        inner: the page of descriptors.
        layers: of the values.
        file_size: no value ends beyond.
        values: False to read descriptors.
    """

    __slots__ = ("_file_size", "_inner", "_values")

    def __init__(self, inner: PageDecoder, layers: tuple[int, ...], file_size: int, *, values: bool) -> None:
        self._inner, self.layers, self.num_rows = inner, layers, inner.num_rows
        self._file_size, self._values = file_size, values

    def descriptors(self) -> PageDecoder:
        """The same page, read as its descriptors."""
        return BlobDecoder(self._inner, self.layers, self._file_size, values=False)

    def metadata_ranges(self) -> list[Range]:
        return self._inner.metadata_ranges()

    def initialise(self, buffers: list[Bytes]) -> None:
        self._inner.initialise(buffers)

    @property
    def initialised(self) -> bool:
        return self._inner.initialised

    @property
    def nbytes(self) -> int:
        return 256 + self._inner.nbytes

    def schedule(self, rows: Rows) -> PageRead:
        read = self._inner.schedule(rows)
        return PageRead(read.ranges, partial(self._described, read))

    def _described(self, read: PageRead, buffers: list[Bytes]) -> Decoded | PageRead:
        found = read.decode(buffers)
        if isinstance(found, PageRead):
            return PageRead(found.ranges, partial(self._described, found))
        positions, sizes = _words(found)
        absent = (sizes == 0) & (positions != 0)
        definition: Levels | None = None
        if absent.any():
            marks = np.where(absent, positions, np.uint64(0))
            if bool((marks & np.uint64(_LEVEL)).any()):
                raise CorruptFileError("a blob has a repetition level outside lists")
            definition = ((marks >> np.uint64(16)) & np.uint64(_LEVEL)).astype(np.uint16)
            if bool((marks >> np.uint64(32)).any()) or not bool(definition[absent].all()):
                raise CorruptFileError("the descriptor of a null blob has no definition level")
        starts = np.where(absent, np.uint64(0), positions)
        if not self._values:
            columns = tuple(FixedBlock(64, part.view(np.uint8), len(part)) for part in (starts, sizes))
            return Decoded(StructBlock(columns, len(sizes)), None, definition, self.layers, found.num_rows)
        return self._fetch(starts, sizes, definition, found.num_rows)

    def _fetch(self, starts: Words, sizes: Words, definition: Levels | None, rows: int) -> PageRead:
        limit = np.uint64(self._file_size)
        if bool(((sizes > limit) | (starts > limit - np.minimum(sizes, limit))).any()):
            raise CorruptFileError(f"a blob lies outside the file of {self._file_size} bytes")
        if float(sizes.sum(dtype=np.float64)) > self._file_size:
            raise CorruptFileError("blobs overlap: together they are larger than the file")
        lengths = sizes.astype(np.int64)
        filled = np.flatnonzero(lengths)
        begins, spans = starts[filled].astype(np.int64), lengths[filled]
        order = np.argsort(begins, kind="stable")
        wanted = list(zip(begins[order].tolist(), (begins + spans)[order].tolist(), strict=True))
        return PageRead(wanted, partial(self._join, lengths, spans, order, definition, rows))

    def _join(
        self,
        lengths: Ints,
        spans: Ints,
        order: Ints,
        definition: Levels | None,
        rows: int,
        buffers: list[Bytes],
    ) -> Decoded:
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = np.concatenate([*buffers, np.empty(0, np.uint8)])
        if len(data) != int(offsets[-1]):
            raise CorruptFileError(f"{len(data)} bytes of blobs were read instead of {int(offsets[-1])}")
        sorted_spans = spans[order]
        if not bool((order[1:] > order[:-1]).all()):  # they lie in another order than their rows
            at = np.empty(len(order), np.int64)
            at[order] = np.cumsum(sorted_spans) - sorted_spans
            data = ranges.gather(data, at, spans)
        return Decoded(VariableBlock(64, offsets, data, len(lengths)), None, definition, self.layers, rows)


def _words(found: Decoded) -> tuple[Words, Words]:
    block = found.block
    if (
        not isinstance(block, StructBlock)
        or len(block.children) != 2
        or found.definition is not None
        or any(not isinstance(child, FixedBlock) or child.bits != 64 for child in block.children)
    ):
        raise CorruptFileError("descriptors of blobs are not pairs of 64-bit numbers")
    columns = cast("tuple[FixedBlock, FixedBlock]", block.children)
    return columns[0].words(), columns[1].words()


# --------------------------------------------------------------------------- encoding


def descriptors_of(rows: LeafRows, positions: Ints) -> LeafRows:
    """Descriptors of shredded blobs.

    Args:
        rows: values and levels.
        positions: where each value that is not empty begins in the file; the others are ignored.

    Returns:
        One descriptor per row.  ``layers`` are those of the values: what the levels in null descriptors mean, so
        only rows of equal layers may go to one page.

    Raises:
        UnsupportedError: blobs inside lists.
        InvalidInputError: values that are no byte strings.
    """
    if rows.rep is not None or levels.max_rep(rows.layers):
        raise UnsupportedError("blobs inside lists cannot be stored")
    if not isinstance(rows.block, VariableBlock):
        raise InvalidInputError("a blob column holds byte strings")
    sizes = np.diff(rows.block.offsets).astype(np.uint64)
    marks = np.zeros(len(sizes), np.uint64)
    if rows.definition is not None:
        marks = rows.definition.astype(np.uint64) << np.uint64(16)
        sizes = np.where(marks > 0, np.uint64(0), sizes)
    where = np.where(sizes > 0, positions.astype(np.uint64), marks)
    columns = tuple(FixedBlock(64, part.view(np.uint8), len(part)) for part in (where, sizes))
    return LeafRows(StructBlock(columns, len(sizes)), None, None, rows.layers, rows.num_rows)


def encode(rows: LeafRows, options: EncodeOptions) -> EncodedPage:
    """Descriptors (of `descriptors_of`) as a blob page."""
    from pilum.proto import encodings_pb2

    inner = miniblock.encode(
        LeafRows(rows.block, None, None, (levels.ALL_VALID_ITEM,), rows.num_rows), options
    )
    message = encodings_pb2.BlobLayout(
        inner_layout=encodings_pb2.PageLayout.FromString(inner.layout), layers=cast(Any, rows.layers)
    )
    page = encodings_pb2.PageLayout(blob_layout=message)
    return EncodedPage(inner.buffers, page.SerializeToString(deterministic=True), rows.num_rows)
