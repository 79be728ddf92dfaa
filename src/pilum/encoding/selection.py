"""What to write: the codec for a page, as the reference's writer would choose it.

`spec/compression.md`, section 6.  The choice looks at the values only; which page layout they
go to (mini-block, full-zip, constant, dictionary) is decided by the page encoder before.

``choose_*`` include the wrapper `general`; ``plain_*`` are the codecs inside it.
"""

from __future__ import annotations

import numpy as np

from pilum.encoding import registry
from pilum.encoding.blocks import Block, FixedBlock, FslBlock, StructBlock, VariableBlock
from pilum.encoding.codecs.base import Codec, EncodeOptions
from pilum.encoding.codecs.rle import rle_size
from pilum.encoding.kernels import bitpacking
from pilum.errors import InvalidInputError

__all__ = [
    "choose_block",
    "choose_miniblock",
    "choose_values",
    "longest_value",
    "plain_block",
    "plain_miniblock",
    "plain_values",
]

_GROUP = bitpacking.GROUP
_LARGE = 32768  # bytes: values and pages from here on are worth a compressor
_WORDS = (8, 16, 32, 64)
_FSST_LONGEST = 5
_SCHEMES = ("lz4", "zstd")


def longest_value(block: Block) -> int:
    """Bytes of the longest value (section 6.1): pages below 256 are stored as mini-blocks."""
    if isinstance(block, FixedBlock):
        return block.bits // 8
    if isinstance(block, VariableBlock):
        return int(np.diff(block.offsets).max(initial=0))
    if isinstance(block, FslBlock):
        return block.dimension * longest_value(block.child)
    if isinstance(block, StructBlock):
        return sum(map(longest_value, block.children))
    return 0


def choose_miniblock(block: Block, options: EncodeOptions) -> Codec:
    """Position M (section 6.2)."""
    if isinstance(block, FslBlock):  # never compressed, whatever the field asks for
        return registry.codec("fixed_size_list")
    if isinstance(block, StructBlock):
        return registry.codec("packed_struct")
    if options.compression in (None, "none", "fsst"):
        return plain_miniblock(block, options)
    if options.compression not in _SCHEMES:
        raise InvalidInputError(f"unknown compression {options.compression!r}; use zstd, lz4, fsst or none")
    return registry.codec("general")


def plain_miniblock(block: Block, options: EncodeOptions) -> Codec:
    """Position M, below any `general`."""
    if isinstance(block, FslBlock):
        return registry.codec("fixed_size_list")
    if isinstance(block, VariableBlock):
        return registry.codec("fsst" if _wants_fsst(block, options) else "variable")
    if not isinstance(block, FixedBlock):
        raise InvalidInputError("a page without values has no mini-block encoding")
    if options.compression == "none" or block.bits not in _WORDS or not block.count:
        return registry.codec("flat")
    if _wants_byte_stream_split(block, options):
        return registry.codec("byte_stream_split")
    raw = block.count * block.bits // 8
    packed = inline_size(block)
    runs, number = rle_size(block)
    threshold = options.rle_threshold
    if (
        runs < raw
        and not (packed < raw and packed < runs)
        and (threshold is None or number < block.count * threshold)
    ):
        return registry.codec("rle")
    return registry.codec("inline_bitpacking" if packed < raw else "flat")


def choose_values(block: Block, options: EncodeOptions) -> Codec:
    """Position V (section 6.5)."""
    if isinstance(block, VariableBlock) and options.compression != "none":
        wanted = options.compression in _SCHEMES or longest_value(block) > _LARGE
        size = len(block.data) + block.offsets.nbytes
        if wanted and size >= _LARGE:
            return registry.codec("general")
    return plain_values(block, options)


def plain_values(block: Block, options: EncodeOptions) -> Codec:
    """Position V, below any `general`."""
    if isinstance(block, FslBlock):
        return registry.codec("fixed_size_list")
    if isinstance(block, StructBlock):
        return registry.codec("variable_packed_struct")
    if isinstance(block, VariableBlock):
        return registry.codec("fsst" if _wants_fsst(block, options) else "variable")
    return registry.codec("flat")


def _wants_fsst(block: VariableBlock, options: EncodeOptions) -> bool:
    """Whether strings become symbols: when asked for, or unasked for a page of text that is worth it (6.2)."""
    if options.compression is not None:
        return options.compression == "fsst"
    size = len(block.data) + block.offsets.nbytes
    return options.is_text and size >= _LARGE and longest_value(block) >= _FSST_LONGEST


def choose_block(block: Block, options: EncodeOptions) -> Codec:
    """Position B: levels and dictionary values (section 6.3)."""
    plain = plain_block(block, options)
    if options.version < (2, 2) or options.compression == "none" or plain.name not in ("flat", "variable"):
        return plain
    if isinstance(block, FixedBlock):
        size = block.count * block.bits // 8
    elif isinstance(block, VariableBlock):
        size = len(block.data) + block.offsets.nbytes
    else:
        return plain
    return registry.codec("general") if options.compression in _SCHEMES or size > _LARGE else plain


def plain_block(block: Block, options: EncodeOptions) -> Codec:
    """Position B, below any `general`."""
    if isinstance(block, VariableBlock):
        return registry.codec("variable")
    if not isinstance(block, FixedBlock) or block.bits not in _WORDS or not block.count:
        return registry.codec("flat")
    widths = bitpacking.bit_widths(block.words())
    width, word = int(widths.max()), block.bits // 8
    raw = block.count * word
    single = block.count <= _GROUP
    can_pack = width < block.bits and not (single and 128 * width >= raw)
    if options.version >= (2, 2):
        groups = len(widths)
        packed = word + 128 * width if single else groups * 128 * width
        runs = rle_size(block)[0]
        if runs + 8 < raw and not (can_pack and packed < runs + 8):
            return registry.codec("rle")
    if can_pack:
        return registry.codec("inline_bitpacking" if single else "out_of_line_bitpacking")
    return registry.codec("flat")


def inline_size(block: FixedBlock) -> int:
    """Bytes that inline bit-packing needs; a short last group counts as a full one."""
    widths = bitpacking.bit_widths(block.words())
    return int((128 * widths + block.bits // 8).sum())


def _wants_byte_stream_split(block: FixedBlock, options: EncodeOptions) -> bool:
    if block.bits not in (32, 64) or options.compression is None or options.bss == "off":
        return False
    if options.bss == "on":
        return True
    # average entropy of each byte position over the first 64 values, in bits
    width = block.bits // 8
    head = block.data[: min(block.count, 64) * width].reshape(-1, width)
    total = 0.0
    for column in head.T:
        share = np.bincount(column, minlength=1).astype(np.float64)
        share = share[share > 0] / len(column)
        total -= float((share * np.log2(share)).sum())
    return total / width < 4.0
