"""The page protocol: how a page of a column is read and written, whatever its layout.

Reading a page has three phases, none of which does I/O; the caller moves the bytes
(docs/architecture.md, "The one idea")::

    decoder = open_page(source, version)               file/ knows where the page lies
    decoder.initialise(bytes of decoder.metadata_ranges())     once, then cached
    read = decoder.schedule(rows)                      rows -> byte ranges
    decoded = read.decode(bytes of read.ranges)        any thread

Writing goes the other way: `structure.shred` makes `LeafRows` of an Arrow array, `encode_page`
makes an `EncodedPage` of them.  `spec/file-container-and-structure.md`, sections 4 and 6.

A decoder is a plain object without locks: `initialise` computes first and assigns last, so two
threads that initialise the same page do the same work twice and no harm.  Errors name what is
wrong with the page; the file reader adds path, column and page number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bytes

__all__ = [
    "Decoded",
    "EncodedPage",
    "LeafRows",
    "Levels",
    "PageDecoder",
    "PageRead",
    "PageSource",
    "Range",
    "Rows",
]

Levels: TypeAlias = npt.NDArray[np.uint16]

Range: TypeAlias = tuple[int, int]
"""Byte range ``[start, end)`` of the file."""

Rows: TypeAlias = range | npt.NDArray[np.int64]
"""Top-level rows of a page: a range of step 1, or strictly increasing offsets within the page."""


@dataclass(frozen=True, slots=True)
class PageSource:
    """Where a page lies and what it claims to be.

    Attributes:
        offsets, sizes: absolute position and length of each page buffer; checked to lie in the file.
        length: ``Page.length`` (rows; for structural fixed-size lists rows times dimension).
        layout: the decoded ``PageLayout`` message.
        file_size: bytes of the file; pages that point elsewhere in it are checked against that.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    length: int
    layout: Any
    file_size: int = 0


@dataclass(slots=True)
class Decoded:
    """Decoded rows of one leaf column: values, and the levels that place them.

    Attributes:
        block: the values of the visible entries, null ones included (their content is arbitrary).
        rep, definition: one level per entry, None when the page does not store them (all zero).
        layers: `RepDefLayer` numbers, innermost first.
        num_rows: top-level rows.
    """

    block: Block
    rep: Levels | None
    definition: Levels | None
    layers: tuple[int, ...]
    num_rows: int


@dataclass(slots=True)
class PageRead:
    """A scheduled read of some rows of a page.

    Attributes:
        ranges: absolute byte ranges, ascending; may be empty.
        decode: takes the bytes of ``ranges`` in that order.  Returns the rows, or a second
            `PageRead` when the position of the values had to be looked up first (a repetition index too
            large to be kept in memory).
        decode_alike: takes the bytes of the only range, of several pages with the same metadata, and returns the
            rows of all, or None where a page must be decoded alone; None if the layout cannot do that.
    """

    ranges: list[Range]
    decode: Callable[[list[Bytes]], Decoded | PageRead]
    decode_alike: Callable[[Sequence[Bytes]], Decoded | None] | None = None


class PageDecoder:
    """Base of the page layouts."""

    __slots__ = ("layers", "num_rows")

    num_rows: int
    layers: tuple[int, ...]

    def metadata_ranges(self) -> list[Range]:
        """Byte ranges that must be read before `schedule`; ascending, empty when there are none."""
        return []

    def initialise(self, buffers: list[Bytes]) -> None:
        """Take the bytes of `metadata_ranges`, in that order.

        Raises:
            CorruptFileError: they contradict the layout.
        """

    @property
    def initialised(self) -> bool:
        """Whether `schedule` may be called; True from the start when there is no metadata."""
        return True

    @property
    def nbytes(self) -> int:
        """Memory that the initialised decoder holds, for the cache."""
        return 256

    def descriptors(self) -> PageDecoder:
        """The page of a blob column as descriptors; a page that holds values or nulls itself stays what it is."""
        return self

    def schedule(self, rows: Rows) -> PageRead:
        """Plan the read of some rows, all of them within the page.  Pure."""
        raise NotImplementedError


@dataclass(slots=True)
class LeafRows:
    """Rows of one leaf column, shredded and ready to be encoded.  Mirrors `Decoded`."""

    block: Block
    rep: Levels | None
    definition: Levels | None
    layers: tuple[int, ...]
    num_rows: int


@dataclass(slots=True)
class EncodedPage:
    """A page ready to be written.

    Attributes:
        buffers: page buffers in the order of the layout.
        layout: serialized ``PageLayout``.
        length: ``Page.length``.
    """

    buffers: list[Bytes]
    layout: bytes
    length: int
