"""What a codec is: the three positions of a value encoding, and the values passed around.

`spec/compression.md`, section 1: the same `CompressiveEncoding` tree can describe

    M  mini-block values   one or more buffers per chunk, all chunks decoded at once
    V  full-zip values     one byte string per value, already unzipped by the page layout
    B  a block             levels and dictionary values: one opaque byte string

A codec overrides the positions it has; the others say so by raising.  Codecs are stateless.
All sizes come from untrusted bytes: a codec checks them before it allocates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bytes, FixedBlock, VariableBlock
from pilum.encoding.options import EncodeOptions
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = [
    "BlocksEncoded",
    "ChunkSet",
    "Codec",
    "EncodeOptions",
    "FixedValues",
    "Ints",
    "MiniBlockEncoded",
    "Values",
    "VariableValues",
    "variant",
]

Ints: TypeAlias = npt.NDArray[np.int64]
CE: TypeAlias = Any  # encodings_pb2.CompressiveEncoding; untyped so that protobuf stays lazy


def variant(ce: CE) -> str:
    """The one-of name that is set in a `CompressiveEncoding`.

    Raises:
        CorruptFileError: none is.
    """
    name = ce.WhichOneof("compression")
    if name is None:
        raise CorruptFileError("compressive encoding names no codec")
    return str(name)


@dataclass(slots=True)
class ChunkSet:
    """One value buffer of the selected chunks of a page.

    Chunk c is ``data[starts[c] : starts[c] + sizes[c]]``.  The chunks may lie anywhere in
    ``data``, in any order; a producer has checked that all of them lie inside.
    """

    data: Bytes
    starts: Ints
    sizes: Ints

    def __len__(self) -> int:
        return len(self.starts)

    def chunk(self, index: int) -> Bytes:
        start = int(self.starts[index])
        return self.data[start : start + int(self.sizes[index])]


@dataclass(slots=True)
class FixedValues:
    """Unzipped full-zip values: ``count`` values of ``width`` bytes."""

    width: int
    data: Bytes
    count: int


VariableValues: TypeAlias = VariableBlock
Values: TypeAlias = FixedValues | VariableBlock


@dataclass(slots=True)
class MiniBlockEncoded:
    """A page in position M: page-wide buffers, cut into chunks.

    Chunk c has ``counts[c]`` values and owns the next ``sizes[b][c]`` bytes of ``buffers[b]``.
    Every count but the last is a power of two.
    """

    buffers: list[Bytes]
    sizes: list[Ints]
    counts: Ints
    ce: CE


@dataclass(slots=True)
class BlocksEncoded:
    """Blocks in position B, back to back: block c is the next ``sizes[c]`` bytes of ``data``."""

    data: Bytes
    sizes: Ints
    ce: CE


class Codec:
    """Base of all codecs; ``name`` is the one-of name in `CompressiveEncoding`."""

    name = ""

    def num_buffers(self, ce: CE) -> int:
        """Value buffers per mini-block chunk."""
        self._no("mini-block values")

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        """Position M: all chunks at once, concatenated; ``counts[c]`` values in chunk c."""
        self._no("mini-block values")

    def decode_values(self, ce: CE, values: Values) -> Block:
        """Position V: values that the full-zip layout has taken apart."""
        self._no("full-zip values")

    def values_decoder(self, ce: CE) -> Callable[[Values], Block]:
        """`decode_values` of one page, for a decoder to keep: what ``ce`` alone says is worked out once."""
        return partial(self.decode_values, ce)

    def finisher(self, ce: CE) -> Callable[[Block], Block]:
        """Codecs around byte strings: what makes values of stored strings, for a decoder to keep."""
        self._no("strings one by one")

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        """Position B: one block of ``count`` values."""
        self._no("a block")

    def decode_blocks(self, ce: CE, chunks: ChunkSet, counts: Ints) -> FixedBlock:
        """Position B, many fixed-width blocks, concatenated (the levels of all chunks)."""
        parts = [self.decode_block(ce, chunks.chunk(c), int(n)) for c, n in enumerate(counts)]
        width = next((part.bits for part in parts if isinstance(part, FixedBlock)), 16)
        if any(not isinstance(part, FixedBlock) or part.bits != width or width % 8 for part in parts):
            raise CorruptFileError(f"blocks of codec {self.name} are not fixed-width values")
        data = [part.data[: part.count * width // 8] for part in parts if isinstance(part, FixedBlock)]
        joined = np.concatenate(data) if data else np.empty(0, np.uint8)
        return FixedBlock(width, joined, int(counts.sum()))

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        """Position M: chunk and encode a page."""
        self._no("mini-block values")

    def encode_values(self, block: Block, options: EncodeOptions) -> tuple[Values, CE]:
        """Position V."""
        self._no("full-zip values")

    def encode_block(self, block: Block, options: EncodeOptions) -> tuple[Bytes, CE]:
        """Position B."""
        self._no("a block")

    def encode_blocks(self, block: FixedBlock, counts: Ints, options: EncodeOptions) -> BlocksEncoded:
        """Position B: consecutive slices of one block, one codec description for all."""
        self._no("a block")

    def _no(self, position: str) -> NoReturn:
        raise UnsupportedError(f"codec {self.name} does not encode {position}")
