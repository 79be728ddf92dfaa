"""Chunks of a mini-block page: the words that list them, and the header each begins with.

`spec/file-container-and-structure.md`, section 4.2.  Everything is little-endian::

    buffer 0   one word per chunk           u16 (2.1) or u32 (2.2+): low 4 bits log, the rest w
    buffer 1   the chunks, back to back     chunk c has 8 * (w + 1) bytes and 2^log visible items;
                                            the last one has what remains of the page's items

    chunk      u16 number of levels | u16 bytes of rep? | u16 bytes of def?
               u16 or u32 bytes of each value buffer | padding to 8
               rep | padding to 8 | def | padding to 8 | each value buffer | padding to 8

Level buffers that the page does not store take no room at all.  Many chunks are taken apart and put
together at once, as arrays; a single one with plain integers, which for a take or a small
page is several times faster.

This file knows sizes and positions only: not what levels mean, nor how values are compressed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Bytes
from pilum.encoding.codecs.base import ChunkSet, Ints
from pilum.encoding.kernels import chunks, ranges
from pilum.encoding.kernels.memory import empty
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["Chunks", "Framing", "framing", "pack_words", "read_words"]

PADDING = 0xFE
_PADDING_WORD = np.uint64(0x0101010101010101 * PADDING)
_MAX_SMALL = 32 << 10  # bytes of a chunk with u16 sizes: 12 bits of words of 8 bytes
_MAX_LARGE = 2 << 30
_MAX_U16 = 65535
_MAX_ITEMS = 1 << 48


def read_words(data: Bytes, large: bool, num_items: int, body: int) -> tuple[Ints, Ints]:
    """Where chunks lie and how many visible items they have.

    Args:
        data: buffer 0.
        large: whether the page has large chunks (u32 words).
        num_items: visible items of the page.
        body: size of buffer 1 in bytes.

    Returns:
        ``n + 1`` offsets in buffer 1 and ``n`` counts.

    Raises:
        CorruptFileError: the words contradict themselves, ``num_items`` or ``body``.
    """
    width = 4 if large else 2
    if not len(data) or len(data) % width:
        raise CorruptFileError(f"mini-block page with {len(data)} bytes of chunk words of {width} bytes")
    if num_items > _MAX_ITEMS:
        raise CorruptFileError(f"mini-block page of {num_items} items")
    if len(data) == width:
        word = int.from_bytes(data.tobytes(), "little")
        size, log = 8 * ((word >> 4) + 1), word & 15
        if size != body:
            raise CorruptFileError(f"mini-block chunk of {size} bytes in a buffer of {body} bytes")
        if log and num_items != 1 << log:
            raise CorruptFileError(f"mini-block chunk of {1 << log} items in a page of {num_items}")
        return np.array([0, size]), np.array([num_items])
    words = data.view(f"<u{width}").astype(np.int64)
    starts = np.zeros(len(words) + 1, np.int64)
    np.cumsum(8 * ((words >> 4) + 1), out=starts[1:])
    if int(starts[-1]) != body:
        raise CorruptFileError(
            f"{len(words)} mini-block chunks of {int(starts[-1])} bytes in a buffer of {body} bytes"
        )
    logs = words & 15
    if not bool(logs[:-1].all()):
        at = int(np.flatnonzero(logs[:-1] == 0)[0])
        raise CorruptFileError(f"mini-block chunk {at} of {len(words)} does not say how many items it has")
    counts = np.left_shift(1, logs)
    rest = num_items - int(counts[:-1].sum())
    if rest < 0 or (int(logs[-1]) and int(counts[-1]) != rest):
        raise CorruptFileError(
            f"mini-block chunks do not add up to {num_items} items: {rest} left for the last"
        )
    counts[-1] = rest
    return starts, counts


def pack_words(sizes: Ints, counts: Ints, large: bool) -> Bytes:
    """Buffer 0: the words of chunks of these sizes and item counts.

    Raises:
        InvalidInputError: a chunk is larger than a word can say.
    """
    limit = _MAX_LARGE if large else _MAX_SMALL
    biggest = int(sizes.max())
    if biggest > limit:
        raise InvalidInputError(
            f"a mini-block chunk of {biggest} bytes exceeds the limit of {limit}; store the column as full-zip"
        )
    words = (sizes // 8 - 1) << 4
    words[:-1] |= np.log2(counts[:-1]).astype(np.int64)
    return words.astype("<u4" if large else "<u2").view(np.uint8)


@dataclass(slots=True)
class Chunks:
    """Selected chunks, taken apart.

    Attributes:
        num_levels: level entries per chunk.
        rep, definition: level buffers; None when the page does not store them.
        values: one set per value buffer.
    """

    num_levels: Ints
    rep: ChunkSet | None
    definition: ChunkSet | None
    values: list[ChunkSet]


@lru_cache(maxsize=128)
def framing(has_rep: bool, has_def: bool, num_buffers: int, large: bool) -> Framing:
    """The `Framing` of pages of that shape, one for all of them: thousands of small pages may be open."""
    return Framing(has_rep, has_def, num_buffers, large)


class Framing:
    """The shape of the chunk headers of some pages.

    Args:
        has_rep, has_def: whether level buffers are stored.
        num_buffers: value buffers per chunk.
        large: u32 sizes of value buffers.
    """

    __slots__ = ("_fields", "_struct", "header", "large", "num_buffers", "with_def", "with_rep")

    def __init__(self, has_rep: bool, has_def: bool, num_buffers: int, large: bool) -> None:
        self.with_rep, self.with_def = has_rep, has_def
        self.num_buffers, self.large = num_buffers, large
        levels = has_rep + has_def
        self._fields = 1 + levels + num_buffers
        self._struct: Any = struct.Struct(f"<{1 + levels}H{num_buffers}{'I' if large else 'H'}")
        self.header = (self._struct.size + 7) // 8 * 8

    # ------------------------------------------------------------------ reading

    def parse(self, data: Bytes, starts: Ints, ends: Ints) -> Chunks:
        """Take chunks apart; chunk c is ``data[starts[c]:ends[c]]``, both multiples of 8.

        Raises:
            CorruptFileError: buffers reach past the end of their chunk.
        """
        if len(starts) == 1:
            return self._parse_one(data, int(starts[0]), int(ends[0]))
        found = chunks.read_headers(
            data, starts, ends, self._fields - 1, self.num_buffers if self.large else 0, self.header
        )
        if found is not None:
            levels, begins, lengths = found
            return self._chunks(levels, [ChunkSet(data, *pair) for pair in zip(begins, lengths, strict=True)])
        if len(starts) and int((ends - starts).min()) < self.header:
            raise CorruptFileError(f"mini-block chunk is shorter than its header of {self.header} bytes")
        fields = self._read_fields(data, starts)
        at = starts + self.header
        sets = []
        end = at
        for sizes in fields[1:]:
            sets.append(ChunkSet(data, at, sizes))
            end = at + sizes
            at = at + ((sizes + 7) & -8)
        if bool((end > ends).any()):
            chunk = int(np.flatnonzero(end > ends)[0])
            raise CorruptFileError(
                f"buffers of mini-block chunk {chunk} end {int((end - ends)[chunk])} bytes after the chunk"
            )
        return self._chunks(fields[0], sets)

    def _parse_one(self, data: Bytes, start: int, end: int) -> Chunks:
        if end - start < self.header:
            raise CorruptFileError(f"mini-block chunk of {end - start} bytes has a header of {self.header}")
        levels, *sizes = self._struct.unpack_from(data, start)
        at = last = start + self.header
        sets = []
        for size in sizes:
            sets.append(ChunkSet(data, np.array([at]), np.array([size])))
            last = at + size
            at += size + 7 & -8
        if last > end:
            raise CorruptFileError(f"buffers of a mini-block chunk end {last - end} bytes after the chunk")
        return self._chunks(np.array([levels]), sets)

    def _chunks(self, levels: Ints, sets: list[ChunkSet]) -> Chunks:
        rep = sets.pop(0) if self.with_rep else None
        definition = sets.pop(0) if self.with_def else None
        return Chunks(levels, rep, definition, sets)

    def _read_fields(self, data: Bytes, starts: Ints) -> list[Ints]:
        """Every header field of all chunks, one int64 array each."""
        size = self._struct.size
        halves = data.view("<u2")
        # Fields side by side in memory: compiled loops take arrays without gaps only.
        table = np.ascontiguousarray(halves[(starts // 2)[:, None] + np.arange(size // 2)].T, np.int64)
        small = self._fields - self.num_buffers if self.large else self._fields
        fields = list(table[:small])
        for k in range(small, len(table), 2):
            fields.append(table[k] | table[k + 1] << 16)
        return fields

    # ------------------------------------------------------------------ writing

    def assemble(self, num_levels: Ints, parts: list[tuple[Bytes, Ints]]) -> tuple[Bytes, Ints]:
        """Put chunks together.

        Args:
            num_levels: level entries per chunk; ignored when no levels are stored.
            parts: rep, def (those stored) and value buffers: page-wide bytes and bytes per chunk.

        Returns:
            Buffer 1 and the size of each chunk.

        Raises:
            InvalidInputError: a number does not fit its header field.
        """
        stored = self.with_rep or self.with_def
        if len(num_levels) == 1:
            return self._assemble_one(int(num_levels[0]) if stored else 0, parts)
        levels = num_levels if stored else np.zeros(len(num_levels), np.int64)
        self._check_fields([int(values.max()) for values in (levels, *(sizes for _, sizes in parts))])
        padded = [sizes + 7 & -8 for _, sizes in parts]
        totals = sum(padded, np.full(len(levels), self.header, np.int64))
        starts = np.cumsum(totals) - totals
        out = empty(int(totals.sum()), np.uint8)
        words = out.view(np.uint64)
        words[(starts // 8)[:, None] + np.arange(self.header // 8)] = _PADDING_WORD
        self._write_fields(out, starts, [levels, *(sizes for _, sizes in parts)])
        at = starts + self.header
        for (data, sizes), room in zip(parts, padded, strict=True):
            words[(at + room)[room > 0] // 8 - 1] = _PADDING_WORD  # its last bytes, unless they are data
            ranges.scatter(np.ascontiguousarray(data), np.cumsum(sizes) - sizes, sizes, out, at)
            at = at + room
        return out, totals

    def _assemble_one(self, levels: int, parts: list[tuple[Bytes, Ints]]) -> tuple[Bytes, Ints]:
        """`assemble` for one chunk: plain integers are several times faster."""
        fields = [levels, *(int(sizes[0]) for _, sizes in parts)]
        self._check_fields(fields)
        total = self.header + sum([size + 7 & -8 for size in fields[1:]])
        out = empty(total, np.uint8)
        self._struct.pack_into(out, 0, *fields)
        at, end = self._struct.size, self.header
        for (data, _), size in zip(parts, fields[1:], strict=True):
            out[at:end] = PADDING
            out[end : end + size] = data[:size]
            at, end = end + size, end + (size + 7 & -8)
        out[at:end] = PADDING
        return out, np.array([total])

    def _check_fields(self, biggest: list[int]) -> None:
        """Refuse what does not fit the header; of each field the largest number."""
        small = self._fields - self.num_buffers if self.large else self._fields
        for position, value in enumerate(biggest[:small]):
            if value > _MAX_U16:
                what = "level entries" if position == 0 else "bytes of levels or values"
                raise InvalidInputError(
                    f"a mini-block chunk with {value} {what}; {_MAX_U16} at most, cut the page smaller"
                )

    def _write_fields(self, out: Bytes, starts: Ints, fields: list[Ints]) -> None:
        small = self._fields - self.num_buffers if self.large else self._fields
        columns: list[npt.NDArray[Any]] = list(fields[:small])
        for values in fields[small:]:
            columns += [values & _MAX_U16, values >> 16]
        table = np.stack(columns, axis=1).astype("<u2")
        out.view("<u2")[(starts // 2)[:, None] + np.arange(table.shape[1])] = table
