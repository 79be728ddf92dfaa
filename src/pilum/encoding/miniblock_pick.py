"""Scattered rows of a mini-block page, picked out of their chunks one value at a time.

Which pages allow that, how their chunks look (`kernels.pick.Shape`) and what is made of the picked values: numbers,
booleans, or byte strings, possibly to be expanded by FSST.  With lists the levels of a row come first
(`kernels.pick_lists`); they say which values are its.  Everything is worked out of the page's messages once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pilum.encoding import levels, registry
from pilum.encoding.blocks import Block, Bytes, FixedBlock, VariableBlock, pack_bits
from pilum.encoding.codecs.base import Ints, variant
from pilum.encoding.kernels import pick, pick_lists, ranges
from pilum.encoding.kernels.locate import Located
from pilum.encoding.miniblock_rows import RowIndex
from pilum.encoding.page import Levels

__all__ = ["FEW", "Picked", "Picker", "picker"]

FEW = 32  # rows per chunk (of lists: eight times as many values); more are had faster by unpacking the chunk
_MAX_I32 = 2**31 - 1


class Picked(NamedTuple):
    """Values of rows as the chunks hold them (codes of FSST, indices into a dictionary), and their levels.

    Attributes:
        owners: of each value the row, by its place among those asked for; None without lists.
    """

    block: Block
    rep: Levels | None
    definition: Levels | None
    owners: Ints | None


class Picker(NamedTuple):
    """How values of a page are picked.

    Attributes:
        shape: of the chunks.
        finish: makes what the page holds of byte strings (FSST); None if they are that already.
        lists: how levels are stored, for a page with lists.
    """

    shape: pick.Shape
    finish: Callable[[Block], Block] | None
    lists: pick_lists.ListShape | None

    @property
    def loaded(self) -> bool:
        """Whether its kernels are: until then pages are decoded chunk by chunk."""
        return pick.PICK.ready and (self.lists is None or pick_lists.PICK_LISTS.ready)

    def rows(self, data: Bytes, located: Located, counts: Ints, index: RowIndex) -> Picked | None:
        """The values and levels of some rows; None: decode the chunks instead.

        Args:
            data: the chunks that hold the rows, joined.
            located: where the rows are in them.
            counts: values in each chunk of the page.
            index: which rows begin in which chunk.
        """
        chunks, starts, ends, of_row, positions, _ = located
        counts = counts[chunks]
        rows = len(of_row)
        if self.lists is None:
            if rows > FEW * len(chunks):
                return None
            found = pick.pick(data, starts, ends, counts, of_row, positions, self.shape)
            return None if found is None else Picked(self._block(data, *found[:2]), None, found[2], None)
        assert index.trailer is not None
        begins = index.first[chunks + 1] - index.first[chunks]
        expected = rows * int(counts.sum()) // max(1, int(begins.sum()))
        if max(rows, expected // 8) > FEW * len(chunks):
            return None
        # the last chunk has no trailer: so nothing comes before the first one
        inside, trailer = index.trailer[chunks - 1], index.trailer[chunks]
        lists = pick_lists.pick_lists(
            data, starts, ends, counts, begins, inside, trailer, of_row, positions, self.lists
        )
        if lists is None:
            return None
        found = pick.pick(data, starts, ends, counts, lists.chunks, lists.positions, self.shape)
        if found is None:
            return None
        return Picked(self._block(data, *found[:2]), lists.rep, lists.definition, lists.owners)

    def _block(self, data: Bytes, words: npt.NDArray[np.uint64], sizes: Ints) -> Block:
        count, bits = len(words), self.shape.bits
        if self.shape.values == pick.STRINGS:
            offsets = np.zeros(count + 1, np.int64)
            np.cumsum(sizes, out=offsets[1:])
            wide = bits == 64 or int(offsets[-1]) > _MAX_I32
            joined = ranges.gather(data, words.view(np.int64), sizes)
            return VariableBlock(
                64 if wide else 32, offsets if wide else offsets.astype(np.int32), joined, count
            )
        if bits == 1:
            return FixedBlock(1, pack_bits(words.astype(np.uint8)), count)
        narrow = words if bits == 64 else words.astype(f"<u{bits // 8}")
        return FixedBlock(bits, narrow.view(np.uint8), count)


def picker(
    values: Any, rep: Any | None, definition: Any | None, header: int, large: bool, layers: levels.Layers
) -> Picker | None:
    """The picker of a page; None if its codecs need their chunks whole.

    Args:
        values, rep, definition: the messages of its codecs, checked by the decoder of the page.
        header: bytes of a chunk header.
        large: whether the sizes of value buffers have 32 bits.
        layers: of the page.
    """
    codec, bits = _levels(definition)
    if codec is None:
        return None
    lists, passed = None, 0
    if rep is not None:
        rep_codec, rep_bits = _levels(rep)
        if rep_codec is None or pick.INLINE in (rep_codec, codec):
            return None
        top, visible = levels.max_rep(layers), levels.visible_limit(layers)
        lists = pick_lists.ListShape(header, rep_codec, rep_bits, codec, bits, top, visible)
        passed = 1 + (definition is not None)
        codec, bits = pick.NONE, 0
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
        width = int(offsets.flat.bits_per_value)
        shape = pick.Shape(header, large, codec, bits, pick.STRINGS, width, passed)
    else:
        value_codec, width, _ = _numbers(values)
        if value_codec in (pick.NONE, pick.OUT_OF_LINE):
            return None
        shape = pick.Shape(header, large, codec, bits, value_codec, width, passed)
    return Picker(shape, finish, lists)


def _levels(ce: Any | None) -> tuple[int | None, int]:
    """Codec and bits of a packed level; `pick.NONE` if none are stored, None for codecs that do not take part."""
    if ce is None:
        return pick.NONE, 0
    codec, width, bits = _numbers(ce)
    return (codec, bits) if width == 16 and codec != pick.NONE else (None, 0)


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
