"""Scattered rows of a mini-block page without lists, picked out of their chunks one value at a time.

Which pages allow that, how their chunks look (`kernels.pick.Shape`) and what is made of the picked values: numbers,
booleans, or byte strings, possibly to be expanded by FSST.  Everything is worked out of the page's messages once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pilum.encoding import registry
from pilum.encoding.blocks import Block, Bytes, FixedBlock, VariableBlock, pack_bits
from pilum.encoding.codecs.base import Ints, variant
from pilum.encoding.kernels import pick, ranges
from pilum.encoding.page import Levels

__all__ = ["FEW", "Picker", "picker"]

FEW = 32  # rows per chunk; more are had faster by unpacking the chunk
_MAX_I32 = 2**31 - 1


class Picker(NamedTuple):
    """How values of a page are picked.

    Attributes:
        shape: of the chunks.
        finish: makes what the page holds of byte strings (FSST); None if they are that already.
    """

    shape: pick.Shape
    finish: Callable[[Block], Block] | None

    def rows(
        self, data: Bytes, starts: Ints, ends: Ints, counts: Ints, positions: Ints
    ) -> tuple[Block, Levels | None] | None:
        """The values and levels of rows (arguments as `kernels.pick.pick`); None: decode the chunks instead."""
        found = pick.pick(data, starts, ends, counts, positions, self.shape)
        if found is None:
            return None
        words, sizes, definition = found
        count, bits = len(words), self.shape.bits
        if self.shape.values == pick.STRINGS:
            offsets = np.zeros(count + 1, np.int64)
            np.cumsum(sizes, out=offsets[1:])
            wide = bits == 64 or int(offsets[-1]) > _MAX_I32
            joined = ranges.gather(data, words.view(np.int64), sizes)
            block: Block = VariableBlock(
                64 if wide else 32, offsets if wide else offsets.astype(np.int32), joined, count
            )
            return (block if self.finish is None else self.finish(block)), definition
        if bits == 1:
            return FixedBlock(1, pack_bits(words.astype(np.uint8)), count), definition
        narrow = words if bits == 64 else words.astype(f"<u{bits // 8}")
        return FixedBlock(bits, narrow.view(np.uint8), count), definition


def picker(values: Any, definition: Any | None, header: int, large: bool) -> Picker | None:
    """The picker of a page without lists; None if its codecs need their chunks whole.

    Args:
        values, definition: the messages of its codecs, checked by the decoder of the page.
        header: bytes of a chunk header.
        large: whether the sizes of value buffers have 32 bits.
    """
    levels, level_bits = pick.NONE, 0
    if definition is not None:
        levels, width, level_bits = _numbers(definition)
        if width != 16 or levels == pick.NONE:
            return None
    name = variant(values)
    finish = None
    if name == "fsst":
        finish = registry.codec(name).finisher(values)
        values = values.fsst.values
        name = variant(values)
    if name == "variable":
        offsets = values.variable.offsets
        if variant(offsets) != "flat" or offsets.flat.bits_per_value not in (32, 64):
            return None
        return Picker(
            pick.Shape(header, large, levels, level_bits, pick.STRINGS, int(offsets.flat.bits_per_value)),
            finish,
        )
    codec, bits, _ = _numbers(values)
    if codec in (pick.NONE, pick.OUT_OF_LINE):
        return None
    return Picker(pick.Shape(header, large, levels, level_bits, codec, bits), None)


def _numbers(ce: Any) -> tuple[int, int, int]:
    """Codec, bits of a value and bits of a packed one; `pick.NONE` for codecs that do not take part."""
    name = variant(ce)
    none = (pick.NONE, 0, 0)
    if name == "flat":
        bits = int(ce.flat.bits_per_value)
        return (pick.FLAT, bits, 0) if bits in (1, 8, 16, 32, 64) and not ce.flat.HasField("data") else none
    if name == "inline_bitpacking":
        return pick.INLINE, int(ce.inline_bitpacking.uncompressed_bits_per_value), 0
    if name == "out_of_line_bitpacking":
        child = ce.out_of_line_bitpacking.values
        bits = int(ce.out_of_line_bitpacking.uncompressed_bits_per_value)
        packed = int(child.flat.bits_per_value) if variant(child) == "flat" else 0
        return (pick.OUT_OF_LINE, bits, packed) if 0 < packed <= bits else none
    if name == "rle":
        values, lengths = ce.rle.values, ce.rle.run_lengths
        if variant(values) == "flat" and variant(lengths) == "flat" and lengths.flat.bits_per_value == 8:
            bits = int(values.flat.bits_per_value)
            return (pick.RUNS, bits, 0) if bits in (8, 16, 32, 64) else none
    return none
