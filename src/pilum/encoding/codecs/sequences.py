"""Range, Delta and Dictionary: sequences of numbers in format 2.3 (`spec/compression.md`, section 5).

Offsets and positions of pages that release 14 writes; read only, and only as blocks (position B)::

    Range       start, start + step, ...      nothing is stored
    Delta       base, and a block of n - 1 differences, each to the number before
    Dictionary  u64 bytes of indices | u64 bytes of items | indices | items
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bytes, FixedBlock
from pilum.encoding.codecs.base import CE, Codec, variant
from pilum.errors import CorruptFileError

__all__ = ["DELTA", "DICTIONARY", "RANGE", "has_payload", "numbers"]

_MAX_COUNT = 1 << 28  # a sequence without payload is bounded by nothing else


def has_payload(ce: CE) -> bool:
    """Whether a sequence has bytes of its own."""
    return variant(ce) not in ("range", "constant")


def numbers(block: Block) -> npt.NDArray[np.int64]:
    """A decoded sequence as int64.

    Raises:
        CorruptFileError: no numbers of 32 or 64 bits, or too large ones.
    """
    if not isinstance(block, FixedBlock) or block.bits not in (8, 16, 32, 64):
        raise CorruptFileError("a sequence of positions is not made of numbers")
    words = block.words()
    if len(words) and int(words.max()) >= 1 << 62:
        raise CorruptFileError(f"position {int(words.max())} in a page")
    return words.astype(np.int64)


def _bits(value: int, name: str) -> int:
    if value not in (32, 64):
        raise CorruptFileError(f"codec {name} of {value} bits")
    return value


def _check(count: int, name: str) -> None:
    if count > _MAX_COUNT:
        raise CorruptFileError(f"codec {name} of {count} values")


class RangeCodec(Codec):
    name = "range"

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        message = ce.range
        bits = _bits(int(message.bits), self.name)
        _check(count, self.name)
        word: Any = np.uint32 if bits == 32 else np.uint64
        start, step = int(message.start), int(message.step)
        if count and start + step * (count - 1) >= 1 << bits:
            raise CorruptFileError(f"codec range beyond {bits} bits")
        values = np.arange(count, dtype=word) * word(step) + word(start)
        return FixedBlock(bits, values.view(np.uint8), count)


class DeltaCodec(Codec):
    name = "delta"

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        from pilum.encoding import registry

        message = ce.delta
        bits = _bits(int(message.bits), self.name)
        if not message.HasField("deltas"):
            raise CorruptFileError("codec delta has no child")
        if not count:
            return FixedBlock(bits, np.empty(0, np.uint8), 0)
        deltas = registry.decode_block(message.deltas, data, count - 1)
        if not isinstance(deltas, FixedBlock) or deltas.bits != bits or deltas.count != count - 1:
            raise CorruptFileError(f"differences of a sequence are not numbers of {bits} bits")
        word: Any = np.uint32 if bits == 32 else np.uint64
        values = np.empty(count, word)
        values[0] = message.base & ((1 << bits) - 1)
        np.cumsum(deltas.words(), dtype=word, out=values[1:])
        values[1:] += values[0]
        return FixedBlock(bits, values.view(np.uint8), count)


class DictionaryCodec(Codec):
    name = "dictionary"

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        from pilum.encoding import registry

        message = ce.dictionary
        if len(data) < 16:
            raise CorruptFileError(f"dictionary block of {len(data)} bytes is shorter than its header")
        sizes = data[:16].view("<u8")
        first, second = int(sizes[0]), int(sizes[1])
        if first + second > len(data) - 16:
            raise CorruptFileError(f"dictionary block of {len(data)} bytes holds {first} and {second}")
        items_count = int(message.num_dictionary_items)
        _check(items_count, self.name)
        indices = registry.decode_block(message.indices, data[16 : 16 + first], count)
        items = registry.decode_block(message.items, data[16 + first : 16 + first + second], items_count)
        if (
            not isinstance(indices, FixedBlock)
            or not isinstance(items, FixedBlock)
            or items.bits not in (32, 64)
        ):
            raise CorruptFileError("a dictionary block of positions is not made of numbers")
        words = indices.words()
        if len(words) and int(words.max()) >= items.count:
            raise CorruptFileError(f"index {int(words.max())} into a dictionary of {items.count} items")
        return FixedBlock(items.bits, items.words()[words].view(np.uint8), count)


RANGE, DELTA, DICTIONARY = RangeCodec(), DeltaCodec(), DictionaryCodec()
