"""Rle: run values and run lengths side by side (`spec/compression.md`, section 4.9).

    M  two buffers per chunk    values of T bits | lengths of 8 bits
    B  one buffer               u64 size of the values part | values | lengths

A run longer than 255 takes several entries.  In blocks the lengths sum to the number of
values exactly; in mini-block chunks the last run may overshoot (writers up to 7.1.0) and is
cut.  Files of 2.3 may have lengths of 16 or 32 bits, and children that are blocks of other codecs
(general, out-of-line bit-packing, range); these are read too, chunk by chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bytes, FixedBlock
from pilum.encoding.codecs import general
from pilum.encoding.codecs.base import (
    CE,
    BlocksEncoded,
    ChunkSet,
    Codec,
    EncodeOptions,
    Ints,
    MiniBlockEncoded,
    variant,
)
from pilum.encoding.codecs.flat import CHUNK_BYTES, flat_bits, flat_ce
from pilum.encoding.codecs.inline_bitpacking import word_bits
from pilum.encoding.kernels import ranges
from pilum.encoding.kernels.runs import expand
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["CODEC", "rle_size"]

_LONGEST = 255
_SEGMENT = 4096  # the reference's writer measures runs in segments of this many values
_PIECE = 1 << 15  # words compared at a time


class RleCodec(Codec):
    name = "rle"

    def _widths(self, ce: CE) -> tuple[int, int]:
        message = ce.rle
        for child in ("values", "run_lengths"):
            if not message.HasField(child):
                raise CorruptFileError(f"codec rle has no child {child}")
        lengths = _child_bits(message.run_lengths)
        if lengths not in (8, 16, 32):
            raise CorruptFileError(f"codec rle with run lengths of {lengths} bits")
        return word_bits(_child_bits(message.values), self.name), lengths

    def num_buffers(self, ce: CE) -> int:
        self._widths(ce)
        return 2

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        widths = self._widths(ce)
        return _expand(widths, *_plain(ce, buffers[0], buffers[1]), counts, exact=False)

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        one = ChunkSet(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))
        return self.decode_blocks(ce, one, np.array([count], np.int64))

    def decode_blocks(self, ce: CE, chunks: ChunkSet, counts: Ints) -> FixedBlock:
        widths = self._widths(ce)
        used = np.flatnonzero(counts)
        starts, sizes, counts = chunks.starts[used], chunks.sizes[used], counts[used]
        if len(sizes) and int(sizes.min()) < 8:
            raise CorruptFileError(f"run-length block of {int(sizes.min())} bytes is shorter than its header")
        parts = chunks.data[starts[:, None] + np.arange(8)].view("<u8")[:, 0]
        if bool((parts > (sizes - 8).astype(np.uint64)).any()):
            raise CorruptFileError(
                f"run-length block: values part of {int(parts.max())} bytes leaves the block"
            )
        first = parts.astype(np.int64)
        values = ChunkSet(chunks.data, starts + 8, first)
        lengths = ChunkSet(chunks.data, starts + 8 + first, sizes - 8 - first)
        return _expand(widths, *_plain(ce, values, lengths), counts, exact=True)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        words = _words(block)
        heads = run_starts(words)
        counts = _plan(heads, len(words), words.itemsize + 1, options.max_values)
        values, lengths, entries = _entries(words, heads, counts)
        sizes = [entries * words.itemsize, entries]
        return MiniBlockEncoded([values.view(np.uint8), lengths], sizes, counts, _ce(8 * words.itemsize))

    def encode_block(self, block: Block, options: EncodeOptions) -> tuple[Bytes, CE]:
        if not isinstance(block, FixedBlock):
            raise InvalidInputError("codec rle takes words of 8, 16, 32 or 64 bits")
        encoded = self.encode_blocks(block, np.array([block.count], np.int64), options)
        return encoded.data, encoded.ce

    def encode_blocks(self, block: FixedBlock, counts: Ints, options: EncodeOptions) -> BlocksEncoded:
        words = _words(block)
        values, lengths, entries = _entries(words, run_starts(words), counts)
        body = entries * words.itemsize
        sizes = 8 + body + entries
        starts = np.cumsum(sizes) - sizes
        out = np.empty(int(sizes.sum()), np.uint8)
        out[starts[:, None] + np.arange(8)] = body.astype("<u8").view(np.uint8).reshape(-1, 8)
        ranges.scatter(values.view(np.uint8), np.cumsum(body) - body, body, out, starts + 8)
        ranges.scatter(lengths, np.cumsum(entries) - entries, entries, out, starts + 8 + body)
        return BlocksEncoded(out, sizes, _ce(block.bits))


def _child_bits(ce: CE) -> int:
    """Width of the words of a child."""
    name = variant(ce)
    if name == "flat":
        return flat_bits(ce)
    if name == "general" and ce.general.HasField("values"):
        return _child_bits(ce.general.values)
    if name == "out_of_line_bitpacking":
        return int(ce.out_of_line_bitpacking.uncompressed_bits_per_value)
    if name == "range":
        return int(ce.range.bits)
    raise UnsupportedError(f"codec rle with a child of codec {name} is not supported")


def _counts_itself(ce: CE) -> bool:
    """Whether the bytes of a child say how many words it has."""
    name = variant(ce)
    return name == "flat" or (name == "general" and _counts_itself(ce.general.values))


def _plain(ce: CE, values: ChunkSet, lengths: ChunkSet) -> tuple[ChunkSet, ChunkSet]:
    """Both parts as plain words; the number of runs comes from the child that says it."""
    message = ce.rle
    children = (message.values, message.run_lengths)
    if all(variant(child) == "flat" for child in children):
        return values, lengths
    known = next((k for k, child in enumerate(children) if _counts_itself(child)), None)
    if known is None:
        raise CorruptFileError("codec rle of children that do not say how many runs there are")
    parts: tuple[list[Bytes], list[Bytes]] = ([], [])
    for chunk in range(len(values)):
        raw = (values.chunk(chunk), lengths.chunk(chunk))
        first = _words_of(children[known], raw[known], None)
        count = 8 * len(first) // _child_bits(children[known])
        other = _words_of(children[1 - known], raw[1 - known], count)
        parts[known].append(first)
        parts[1 - known].append(other)
    return _joined(parts[0]), _joined(parts[1])


def _words_of(ce: CE, data: Bytes, count: int | None) -> Bytes:
    from pilum.encoding import registry

    if variant(ce) == "general" and count is None:
        return _words_of(
            ce.general.values, general.decompress(int(ce.general.compression.scheme), data), None
        )
    if count is None:
        return data
    block = registry.decode_block(ce, data, count)
    if not isinstance(block, FixedBlock):
        raise CorruptFileError("codec rle with a child that is not words")
    return block.data[: count * block.bits // 8]


def _joined(parts: list[Bytes]) -> ChunkSet:
    sizes = np.array([len(part) for part in parts], np.int64)
    data = np.concatenate([*parts, np.empty(0, np.uint8)])
    return ChunkSet(data, np.cumsum(sizes) - sizes, sizes)


def _expand(
    widths: tuple[int, int], values: ChunkSet, lengths: ChunkSet, counts: Ints, *, exact: bool
) -> FixedBlock:
    bits, length_bits = widths
    step, length_step = bits // 8, length_bits // 8
    if length_step == 1:
        found = expand(
            (values.data, lengths.data), (values.starts, lengths.starts), (values.sizes, lengths.sizes), counts,
            step, exact=exact,
        )  # fmt: skip
        if found is not None:
            return FixedBlock(bits, found.view(np.uint8), len(found))
    used = np.flatnonzero(counts)
    counts = counts[used]
    if not len(used):
        return FixedBlock(bits, np.empty(0, np.uint8), 0)
    value_sizes, length_sizes = values.sizes[used], lengths.sizes[used]
    entries = value_sizes // step
    odd = (value_sizes != entries * step) | (length_sizes != entries * length_step) | (entries == 0)
    if bool(odd.any()):
        at = int(np.flatnonzero(odd)[0])
        raise CorruptFileError(
            f"run-length chunk {at}: {int(value_sizes[at])} bytes of values, {int(length_sizes[at])} of lengths"
        )
    words = ranges.gather(values.data, values.starts[used], value_sizes).view(f"<u{step}")
    runs = ranges.gather(lengths.data, lengths.starts[used], length_sizes).view(f"<u{length_step}")
    runs = runs.astype(np.int64)
    if not bool(runs.all()):
        raise CorruptFileError("run-length chunk with a run of no values")
    ends = np.cumsum(runs)
    last = np.cumsum(entries) - 1
    sums = np.diff(ends[last], prepend=0)
    if bool((sums != counts).any() if exact else (sums < counts).any()):
        at = int(np.flatnonzero(sums != counts if exact else sums < counts)[0])
        raise CorruptFileError(
            f"run-length chunk {at}: runs of {int(sums[at])} values instead of {int(counts[at])}"
        )
    if bool((sums > counts).any()):  # cut what overshoots the end of its chunk
        base = np.repeat(ends[last] - sums, entries)
        inside = np.minimum(ends - base, np.repeat(counts, entries))
        starts = np.minimum(ends - runs - base, inside)
        runs = inside - starts
    total = int(counts.sum())
    return FixedBlock(bits, np.repeat(words, runs).view(np.uint8), total)


def run_starts(words: npt.NDArray[Any]) -> Ints:
    """Positions where a run begins (0 first)."""
    changes = np.flatnonzero(words[1:] != words[:-1]) + 1
    return np.concatenate([np.zeros(min(1, len(words)), np.int64), changes])


def rle_size(block: FixedBlock) -> tuple[int, int]:
    """Encoded bytes as the reference's writer estimates them (section 6.2), and the number of runs.

    Where the runs alone say that nothing is saved, that is what is returned: at least as many bytes as the values.
    """
    words = block.words()
    number = _count_runs(words)
    least = number * (words.itemsize + 1)
    if least >= words.nbytes:
        return least, number
    heads = run_starts(words)
    longest = max(int(np.diff(heads).max(initial=0)), len(words) - int(heads[-1]))
    if longest <= _LONGEST:  # an entry for each run
        return least, number
    lengths = np.diff(heads, append=len(words))
    whole, rest = np.divmod(lengths, _SEGMENT)
    entries = whole * -(-_SEGMENT // _LONGEST) + (rest + _LONGEST - 1) // _LONGEST
    return int(entries.sum()) * (words.itemsize + 1), len(heads)


def _count_runs(words: npt.NDArray[Any]) -> int:
    """How many runs there are, piece by piece: what is compared stays in the processor's cache."""
    changed = np.empty(_PIECE, np.bool_)
    number = min(1, len(words))
    for start in range(1, len(words), _PIECE):
        piece = words[start : start + _PIECE]
        number += int(
            np.count_nonzero(
                np.not_equal(piece, words[start - 1 : start - 1 + len(piece)], out=changed[: len(piece)])
            )
        )
    return number


def _plan(heads: Ints, total: int, entry: int, max_values: int) -> Ints:
    """The largest power of two of values per chunk whose entries stay within 8186 bytes."""
    most = CHUNK_BYTES // entry
    full = 1 << (max_values.bit_length() - 1)
    if total > max_values:  # usually runs are long enough for chunks of that size everywhere
        even = np.full(-(-total // full), full, np.int64)
        even[-1] = total - full * (len(even) - 1)
        if int(_cut_runs(heads, total, even)[2].max()) <= most:
            return even
    counts: list[int] = []
    at = 0
    while at < total:
        left = total - at
        count = left if left <= max_values else full
        while count > 2 and _count_entries(heads, total, at, at + count) > most:
            count = 1 << ((count - 1).bit_length() - 1)
        counts.append(count)
        at += count
    return np.array(counts or [0], np.int64)


def _count_entries(heads: Ints, total: int, low: int, high: int) -> int:
    first, last = np.searchsorted(heads, [low, high], side="right")
    cuts = np.concatenate([[low], heads[first : int(np.searchsorted(heads, high))], [high]])
    return int(((np.diff(cuts) + _LONGEST - 1) // _LONGEST).sum()) if last else 0


def _entries(words: npt.NDArray[Any], heads: Ints, counts: Ints) -> tuple[npt.NDArray[Any], Bytes, Ints]:
    """Values and lengths of all entries, and the number of entries of each chunk."""
    cuts, lengths, entries = _cut_runs(heads, len(words), counts)
    pieces = (lengths + _LONGEST - 1) // _LONGEST
    out = np.full(int(pieces.sum()), _LONGEST, np.uint8)
    last = np.cumsum(pieces) - 1
    out[last] = lengths - (pieces - 1) * _LONGEST
    return np.repeat(words[cuts], pieces), out, entries


def _cut_runs(heads: Ints, total: int, counts: Ints) -> tuple[Ints, Ints, Ints]:
    """Runs cut at the edges of chunks: where each begins, its length, and the entries of each chunk."""
    ends = np.cumsum(counts)
    starts = ends - counts
    edges = starts[counts > 0]
    at = np.searchsorted(heads, edges)
    new = heads[np.minimum(at, len(heads) - 1)] != edges
    cuts = np.insert(heads, at[new], edges[new])
    lengths = np.diff(cuts, append=total)
    before = np.zeros(len(cuts) + 1, np.int64)
    np.cumsum((lengths + _LONGEST - 1) // _LONGEST, out=before[1:])
    found = np.searchsorted(cuts, np.append(starts, ends[-1:]))
    return cuts, lengths, np.diff(before[found])


def _ce(bits: int) -> CE:
    from pilum.proto import encodings_pb2

    message = encodings_pb2.Rle(values=flat_ce(bits), run_lengths=flat_ce(8))
    return encodings_pb2.CompressiveEncoding(rle=message)


def _words(block: Block) -> npt.NDArray[Any]:
    if not isinstance(block, FixedBlock) or block.bits not in (8, 16, 32, 64):
        raise InvalidInputError("codec rle takes words of 8, 16, 32 or 64 bits")
    return block.words()


CODEC = RleCodec()
