"""The codec registry: from a `CompressiveEncoding` to the code that reads it.

`spec/compression.md`, sections 1 and 2.  A `CompressiveEncoding` is a tree; each node is one
variant of a one-of, and each variant is one module in `pilum.encoding.codecs` with an object
``CODEC``.  `CODECS` below is the whole registration: a new codec is a module and a line.
Modules are imported on first use.

Codecs that wrap others (fixed-size list, general, ...) call the functions of this module for
their child, so the tree is walked from the outside in.  What to write is decided in
`pilum.encoding.selection`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from pilum import imports
from pilum.encoding import selection
from pilum.encoding.blocks import Block, Bytes, FixedBlock
from pilum.encoding.codecs.base import (
    BlocksEncoded,
    ChunkSet,
    Codec,
    EncodeOptions,
    FixedValues,
    Ints,
    MiniBlockEncoded,
    Values,
    VariableValues,
    variant,
)
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = [
    "BlocksEncoded",
    "ChunkSet",
    "EncodeOptions",
    "FixedValues",
    "MiniBlockEncoded",
    "Values",
    "VariableValues",
    "codec",
    "codec_of",
    "decode_block",
    "decode_blocks",
    "decode_miniblock",
    "decode_values",
    "encode_block",
    "encode_levels",
    "encode_miniblock",
    "encode_values",
    "num_buffers",
    "values_decoder",
]

CODECS: dict[str, str] = {
    "flat": "flat",
    "variable": "variable",
    "constant": "constant",
    "out_of_line_bitpacking": "out_of_line_bitpacking",
    "inline_bitpacking": "inline_bitpacking",
    "fsst": "fsst",
    "rle": "rle",
    "byte_stream_split": "byte_stream_split",
    "general": "general",
    "fixed_size_list": "fixed_size_list",
    "packed_struct": "packed_struct",
    "variable_packed_struct": "variable_packed_struct",
    "range": "sequences:RANGE",
    "delta": "sequences:DELTA",
    "dictionary": "sequences:DICTIONARY",
}

_loaded: dict[str, Codec] = {}  # owned by this module; filled once per name
_MAX_COUNT = 1 << 40  # keeps products of untrusted numbers inside 64 bits


def codec(name: str) -> Codec:
    """The codec of that one-of name.

    Raises:
        UnsupportedError: pilum has no such codec (yet).
    """
    found = _loaded.get(name)
    if found is None:
        module = CODECS.get(name)
        if module is None:
            raise UnsupportedError(f"value codec {name} is not supported")
        place, _, attribute = module.partition(":")
        found = getattr(imports.load(f"pilum.encoding.codecs.{place}"), attribute or "CODEC")
        assert isinstance(found, Codec)
        _loaded[name] = found
    return found


def codec_of(ce: Any) -> tuple[Codec, Any]:
    """The codec of an encoding node and its own message.

    Raises:
        CorruptFileError: the one-of is empty.
        UnsupportedError: the codec is not registered.
    """
    name = variant(ce)
    return codec(name), getattr(ce, name)


def num_buffers(ce: Any) -> int:
    """Value buffers per mini-block chunk that the tree implies."""
    return codec_of(ce)[0].num_buffers(ce)


def decode_miniblock(ce: Any, buffers: list[ChunkSet], counts: Ints) -> Block:
    """Position M: the values of all given chunks, concatenated.

    Args:
        ce: the tree in ``value_compression``.
        buffers: one `ChunkSet` per value buffer, in chunk order.
        counts: values per chunk, int64.
    """
    found, _ = codec_of(ce)
    expected = found.num_buffers(ce)
    if len(buffers) != expected:
        raise CorruptFileError(
            f"codec {found.name} needs {expected} buffers per chunk, the page has {len(buffers)}"
        )
    block = found.decode_miniblock(ce, buffers, counts)
    total = int(counts.sum())
    if block.count != total:
        raise CorruptFileError(f"codec {found.name} yielded {block.count} values instead of {total}")
    return block


def decode_values(ce: Any, values: Values) -> Block:
    """Position V: full-zip values, taken apart by the page layout."""
    return codec_of(ce)[0].decode_values(ce, values)


def values_decoder(ce: Any) -> Callable[[Values], Block]:
    """`decode_values` for a decoder to keep: the tree is walked once, not with every read.

    Nor for every page: the pages of a column, over all files, rarely differ in it.
    """
    return _values_decoder(ce.SerializeToString(deterministic=True))


@lru_cache(maxsize=256)
def _values_decoder(serialized: bytes) -> Callable[[Values], Block]:
    from pilum.proto import encodings_pb2

    ce = encodings_pb2.CompressiveEncoding.FromString(serialized)
    return codec_of(ce)[0].values_decoder(ce)


def decode_block(ce: Any, data: Bytes, count: int) -> Block:
    """Position B: one opaque block of ``count`` values (dictionary values, levels of one page)."""
    if count > _MAX_COUNT:
        raise CorruptFileError(f"block of {count} values")
    return codec_of(ce)[0].decode_block(ce, data, count)


def decode_blocks(ce: Any, chunks: ChunkSet, counts: Ints) -> FixedBlock:
    """Position B for the levels of many chunks at once: block c has ``counts[c]`` values."""
    return codec_of(ce)[0].decode_blocks(ce, chunks, counts)


def encode_miniblock(block: Block, options: EncodeOptions) -> MiniBlockEncoded:
    """Position M with the codec that `selection` picks."""
    return selection.choose_miniblock(block, options).encode_miniblock(block, options)


def encode_values(block: Block, options: EncodeOptions) -> tuple[Values, Any]:
    """Position V with the codec that `selection` picks."""
    return selection.choose_values(block, options).encode_values(block, options)


def encode_block(block: Block, options: EncodeOptions) -> tuple[Bytes, Any]:
    """Position B with the codec that `selection` picks."""
    return selection.choose_block(block, options).encode_block(block, options)


def encode_levels(levels: np.ndarray[Any, Any], counts: Ints, options: EncodeOptions) -> BlocksEncoded:
    """Levels of a page (uint16), cut into ``counts[c]`` levels per chunk: one codec for all chunks."""
    options = EncodeOptions(version=options.version)  # the metadata of the field says nothing about levels
    data = np.ascontiguousarray(levels, dtype="<u2").view(np.uint8)
    block = FixedBlock(16, data, len(levels))
    return selection.choose_block(block, options).encode_blocks(block, counts, options)
