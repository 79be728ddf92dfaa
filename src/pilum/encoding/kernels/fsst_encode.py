"""Making FSST code strings, and the symbol table they need (`spec/compression.md`, section 4.7).

A table has up to 255 symbols of 1 to 8 bytes.  Values are tokenised from the left: the longest symbol that fits is one
code; a byte that begins no symbol is an escape and itself, two bytes.  Symbols are found as in the published method:

    hashed    3 to 8 bytes    one symbol per hash of the first three bytes
    pairs     2 bytes         a table of 65536 codes
    bytes     1 byte          a table of 256 codes

`train` starts with an empty table and improves it: tokenise a sample, count tokens and adjacent pairs, and let the
tokens and joined pairs that saved most become the next table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum import distinct
from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.memory import empty
from pilum.encoding.kernels.words import word_at

__all__ = ["SymbolTable", "compress", "train"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]
Words: TypeAlias = npt.NDArray[np.uint64]

SYMBOLS = 255
SAMPLE = 32 << 10  # bytes; twice that of the published method, for tables that save 4 % more
ESCAPED = 256  # code of byte b as a token without a symbol: 256 + b
_ROUNDS = (8, 38, 68, 98, 108, 128)
_SLOTS = 4096
_SLOT = 512 + (1 << 16)  # of the first slot in the table of tokens
_WEIGHT = (
    64  # a byte of a sample costs as much as so many of what other kernels read, before they are compiled
)
_PRIME = 2971215073
_LANES = 4  # of the kernel that compresses
_SINGLE = 8  # how much a single byte counts more than a longer token: it saves an escape


@dataclass(slots=True)
class SymbolTable:
    """Symbols as little-endian words, and the tables that find them.

    Attributes:
        words, lengths: of each symbol, by code.
        slots: code by hash of the first three bytes, -1 where there is none.
        pairs, singles: code by two bytes and by one byte, -1 where there is none.
    """

    words: Words
    lengths: Ints
    slots: Ints
    pairs: Ints
    singles: Ints

    def symbols(self) -> Bytes:
        """8 bytes per symbol, zeros after its end."""
        return self.words.astype("<u8").view(np.uint8)


def _hash(words: Any) -> Any:
    """Slot of the first three bytes."""
    first = words & np.uint64(0xFFFFFF)
    product = first * np.uint64(_PRIME)
    return (product ^ (product >> np.uint64(15))) & np.uint64(_SLOTS - 1)


def make_table(words: Words, lengths: Ints) -> SymbolTable:
    """A table of the first 255 candidates that find a place, best first."""
    slots = np.full(_SLOTS, -1, np.int64)
    pairs = np.full(1 << 16, -1, np.int64)
    singles = np.full(256, -1, np.int64)
    where = _hash(words).astype(np.int64)
    longer = lengths >= 3
    # of the candidates for one slot the best, which comes first, has it
    first = np.zeros(len(words), np.bool_)
    first[distinct.unique_first(np.where(longer, where, -1 - np.arange(len(words))))[1]] = True
    kept = np.flatnonzero(first | ~longer)[:SYMBOLS]
    words, lengths, where = words[kept], lengths[kept], where[kept]
    codes = np.arange(len(kept))
    for size, table in ((1, singles), (2, pairs)):
        chosen = lengths == size
        table[words[chosen].astype(np.int64)] = codes[chosen]
    chosen = lengths >= 3
    slots[where[chosen]] = codes[chosen]
    return SymbolTable(words, lengths, slots, pairs, singles)


_EMPTY = (np.empty(0, np.uint64), np.empty(0, np.int64))


# --------------------------------------------------------------------------- training


def train(data: Bytes, offsets: Ints, seed: int = 0) -> SymbolTable:
    """A symbol table for values like these.

    Args:
        data: bytes of all values.
        offsets: where each value begins, and the end.
        seed: of the sample; the same values give the same table.
    """
    sample, ends = _sample(data, offsets, seed)
    table = best = make_table(*_EMPTY)
    best_saving = 0
    for part in _ROUNDS:
        used = max(1, len(ends) * part // 128)
        counts, pairs = _count(sample, ends[: used + 1] if used < len(ends) - 1 else ends, table)
        size = table.lengths
        saving = int((counts[: len(size)] * (size - 1)).sum() - counts[ESCAPED:].sum())
        saving = saving * 128 // part
        if saving > best_saving:
            best, best_saving = table, saving
        if part == 128:
            break
        table = make_table(*_candidates(table, counts, pairs, 5 * part / 128))
    return best


def _sample(data: Bytes, offsets: Ints, seed: int) -> tuple[Bytes, Ints]:
    """Whole values at random until there are 32 KiB; of very long ones the beginning."""
    count = len(offsets) - 1
    generator = np.random.default_rng(seed)
    likely = 1 + 2 * SAMPLE * count // max(1, int(offsets[-1]))
    order = generator.permutation(count) if count < 4 * likely else generator.integers(0, count, likely)
    sizes = np.minimum(offsets[order + 1] - offsets[order], SAMPLE)
    enough = int(np.searchsorted(np.cumsum(sizes), SAMPLE)) + 1
    sizes, starts = sizes[:enough], offsets[order[:enough]]
    parts = [data[a : a + n] for a, n in zip(starts.tolist(), sizes.tolist(), strict=True)]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([*parts, np.zeros(8, np.uint8)]), ends


def _candidates(table: SymbolTable, counts: Ints, pairs: Ints, least: float) -> tuple[Words, Ints]:
    """Words and lengths of the tokens and joined pairs, best first."""
    known = len(table.lengths)
    words = np.zeros(512, np.uint64)
    lengths = np.ones(512, np.int64)
    words[:known], lengths[:known] = table.words, table.lengths
    words[ESCAPED:] = np.arange(256)
    single = np.flatnonzero(counts >= least)
    number = counts[single] * np.where(lengths[single] == 1, _SINGLE, 1)
    left, right = np.divmod(np.flatnonzero(pairs >= least), 512)
    joined = np.minimum(lengths[left] + lengths[right], 8)
    shift = (8 * lengths[left]).astype(np.uint64)
    # a left part of 8 bytes leaves no room, and a shift of 64 is undefined
    tail = np.where(lengths[left] < 8, words[right] << (shift & np.uint64(63)), np.uint64(0))
    all_words = np.concatenate([words[single], words[left] | tail])
    all_lengths = np.concatenate([lengths[single], joined])
    gains = np.concatenate([number * lengths[single], pairs[512 * left + right] * joined])
    order = np.lexsort((all_lengths, all_words))
    all_words, all_lengths, gains = all_words[order], all_lengths[order], gains[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (all_words[1:] != all_words[:-1]) | (all_lengths[1:] != all_lengths[:-1])
    heads = np.flatnonzero(new)
    if not len(heads):
        return _EMPTY
    total = np.add.reduceat(gains, heads)
    best = np.argsort(-total, kind="stable")[: 4 * SYMBOLS]
    return all_words[heads][best], all_lengths[heads][best]


def _count(data: Bytes, offsets: Ints, table: SymbolTable) -> tuple[Ints, Ints]:
    """How often each token occurs, and each pair of neighbours (left * 512 + right)."""
    counts, pairs = np.zeros(512, np.int64), np.zeros(512 * 512, np.int64)
    kernel = _COUNT.get(_WEIGHT * int(offsets[-1]))
    arguments = (data, offsets, table.words, table.lengths, table.slots, table.pairs, table.singles)
    (kernel or count_numpy)(*arguments, counts, pairs)
    return counts, pairs


# --------------------------------------------------------------------------- compressing


def compress(data: Bytes, offsets: Ints, table: SymbolTable) -> tuple[Bytes, Ints]:
    """Code strings of all values, back to back, and where each begins.

    Args:
        data: bytes of all values.
        offsets: int64; where each value begins, and the end; starts at 0.
        table: of `train`.
    """
    padded = empty(int(offsets[-1]) + 8, np.uint8)  # words are read 8 bytes wide
    padded[:-8], padded[-8:] = data[: int(offsets[-1])], 0
    ends = np.zeros(len(offsets), np.int64)
    kernel = _COMPRESS.get(len(padded))
    if kernel is None:
        out = np.empty(2 * len(padded), np.uint8)
        arguments = (padded, offsets, table.words, table.lengths, table.slots, table.pairs, table.singles)
        compress_numpy(*arguments, out, ends)
        return out[: int(ends[-1])].copy(), ends
    shares = np.arange(1, _LANES) * int(offsets[-1]) // _LANES
    edges = np.concatenate([[0], np.searchsorted(offsets, shares), [len(offsets) - 1]])
    # a code takes two bytes at most, and one more is written
    begins = 2 * offsets[edges[:-1]] + 8 * np.arange(_LANES)
    out = empty(2 * len(padded) + 8 * _LANES, np.uint8)
    kernel(padded, offsets, edges, *_packed(table), out, begins, ends)
    parts, base = [], 0
    for begin, low, high in zip(begins.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if low < high:
            stop = int(ends[high])
            parts.append(out[begin:stop])
            ends[low + 1 : high + 1] += base - begin
            base += stop - begin
    return np.concatenate(parts) if parts else out[:0], ends


def _packed(table: SymbolTable) -> tuple[Words, npt.NDArray[np.uint16]]:
    """The tables as the kernel wants them, few and small.

    Returns:
        256 words and 256 masks of symbols; and tokens, ``bytes << 9 | escape << 8 | code``: of symbols, of one byte
        and of two bytes, with the symbols of the slots at the end.  Symbol 255 stands for none: nothing under its
        mask of 0 is 1.
    """
    count = len(table.lengths)
    symbols = np.zeros(512, np.uint64)
    symbols[count:256] = 1
    symbols[:count] = table.words
    symbols[256 : 256 + count] = ~np.uint64(0) >> (64 - 8 * table.lengths).astype(np.uint64)
    tokens = np.zeros(_SLOT + _SLOTS, np.uint16)
    tokens[:count] = (table.lengths << 9) | np.arange(count)
    singles = np.where(table.singles < 0, 1 << 9 | 1 << 8 | 255, 1 << 9 | table.singles)
    tokens[256:512] = singles
    tokens[512:_SLOT] = np.where(table.pairs < 0, np.tile(singles, 256), 2 << 9 | table.pairs)
    tokens[_SLOT:] = np.where(table.slots < 0, 255, table.slots)
    return symbols, tokens


def compress_numba(
    data: Bytes, offsets: Ints, edges: Ints, symbols: Words, tokens: Any, out: Bytes, begins: Ints, ends: Ints
) -> None:
    """Four lanes, ``edges`` are the values at which they begin: a token is known only after the one before it.

    Each of these steps waits for three loads; side by side the lanes wait at the same time.  Where the codes of a
    lane begin is given, where those of a value end is told in ``ends``.
    """
    one, eight, nine = np.uint64(1), np.uint64(8), np.uint64(9)
    a, b, c, d = np.uint64(edges[0]), np.uint64(edges[1]), np.uint64(edges[2]), np.uint64(edges[3])
    a_stop, b_stop, c_stop, d_stop = b, c, d, np.uint64(edges[4])
    a_to, b_to = np.uint64(begins[0]), np.uint64(begins[1])
    c_to, d_to = np.uint64(begins[2]), np.uint64(begins[3])
    a_at, b_at = np.uint64(offsets[a]), np.uint64(offsets[b])
    c_at, d_at = np.uint64(offsets[c]), np.uint64(offsets[d])
    a_end = np.uint64(offsets[min(a + one, a_stop)])
    b_end = np.uint64(offsets[min(b + one, b_stop)])
    c_end = np.uint64(offsets[min(c + one, c_stop)])
    d_end = np.uint64(offsets[min(d + one, d_stop)])
    while a < a_stop or b < b_stop or c < c_stop or d < d_stop:
        if a_at < a_end:
            word = word_at(data, a_at)
            token = token_of(word, a_end - a_at, symbols, tokens)
            out[a_to] = np.uint8(token)
            out[a_to + one] = np.uint8(word)  # overwritten unless the token is an escape
            a_at += token >> nine
            a_to += one + ((token >> eight) & one)
        elif a < a_stop:
            a += one
            ends[a] = a_to
            a_end = np.uint64(offsets[min(a + one, a_stop)])
        if b_at < b_end:
            word = word_at(data, b_at)
            token = token_of(word, b_end - b_at, symbols, tokens)
            out[b_to] = np.uint8(token)
            out[b_to + one] = np.uint8(word)
            b_at += token >> nine
            b_to += one + ((token >> eight) & one)
        elif b < b_stop:
            b += one
            ends[b] = b_to
            b_end = np.uint64(offsets[min(b + one, b_stop)])
        if c_at < c_end:
            word = word_at(data, c_at)
            token = token_of(word, c_end - c_at, symbols, tokens)
            out[c_to] = np.uint8(token)
            out[c_to + one] = np.uint8(word)
            c_at += token >> nine
            c_to += one + ((token >> eight) & one)
        elif c < c_stop:
            c += one
            ends[c] = c_to
            c_end = np.uint64(offsets[min(c + one, c_stop)])
        if d_at < d_end:
            word = word_at(data, d_at)
            token = token_of(word, d_end - d_at, symbols, tokens)
            out[d_to] = np.uint8(token)
            out[d_to + one] = np.uint8(word)
            d_at += token >> nine
            d_to += one + ((token >> eight) & one)
        elif d < d_stop:
            d += one
            ends[d] = d_to
            d_end = np.uint64(offsets[min(d + one, d_stop)])


def token_of(word: Any, left: Any, symbols: Words, tokens: Any) -> Any:
    """The token at the beginning of a word of which ``left`` bytes belong to the value; chosen without branches."""
    product = (word & np.uint64(0xFFFFFF)) * np.uint64(2971215073)
    slot = (product ^ (product >> np.uint64(15))) & np.uint64(4095)
    found = np.uint64(tokens[np.uint64(66048) + slot])
    token = np.uint64(tokens[found])
    short = np.uint64(tokens[np.uint64(512) + (word & np.uint64(0xFFFF))])
    alone = np.uint64(tokens[np.uint64(256) + (word & np.uint64(0xFF))])
    short = alone if left < np.uint64(2) else short
    same = (word & symbols[np.uint64(256) + found]) == symbols[found]
    return token if same & (token >> np.uint64(9) <= left) else short


def count_numba(
    data: Bytes, offsets: Ints, words: Words, lengths: Ints, slots: Ints, pairs: Ints, singles: Ints,
    counts: Ints, neighbours: Ints,
) -> None:  # fmt: skip
    for v in range(offsets.size - 1):
        i = np.uint64(offsets[v])
        end = np.uint64(offsets[v + 1])
        before = np.int64(-1)
        while i < end:
            word = np.uint64(0)
            for k in range(8):
                word |= np.uint64(data[i + np.uint64(k)]) << np.uint64(8 * k)
            left = end - i
            code = np.int64(-1)
            size = np.uint64(1)
            if left >= np.uint64(3):
                product = (word & np.uint64(0xFFFFFF)) * np.uint64(2971215073)
                found = slots[(product ^ (product >> np.uint64(15))) & np.uint64(4095)]
                if found >= 0:
                    length = np.uint64(lengths[found])
                    masked = word & (~np.uint64(0) >> (np.uint64(64) - np.uint64(8) * length))
                    if length <= left and masked == words[found]:
                        code = found
                        size = length
            if code < 0 and left >= np.uint64(2):
                code = pairs[word & np.uint64(0xFFFF)]
                if code >= 0:
                    size = np.uint64(2)
            if code < 0:
                code = singles[word & np.uint64(0xFF)]
                if code < 0:
                    code = np.int64(256) + np.int64(word & np.uint64(0xFF))
            counts[code] += 1
            if before >= 0:
                neighbours[before * 512 + code] += 1
            before = code
            i += size


# --------------------------------------------------------------------------- NumPy twins


def _tokens(
    data: Bytes, offsets: Ints, words: Words, lengths: Ints, slots: Ints, pairs: Ints, singles: Ints
) -> Any:
    """One token of every value per step: (values, codes), until all values are used up."""
    at, ends = offsets[:-1].copy(), offsets[1:]
    active = np.flatnonzero(at < ends)
    while len(active):
        here = at[active]
        left = ends[active] - here
        word = np.zeros(len(active), np.uint64)
        for k in range(8):
            word |= data[here + k].astype(np.uint64) << np.uint64(8 * k)
        low = word.astype(np.int64)
        code = np.where(left >= 2, pairs[low & 0xFFFF], -1)
        size = np.where(code >= 0, 2, 1)
        code = np.where(code >= 0, code, singles[low & 0xFF])
        code = np.where(code >= 0, code, ESCAPED + (low & 0xFF))
        found = np.where(left >= 3, slots[_hash(word).astype(np.int64)], -1)
        if len(words):
            length = lengths[found]
            masked = word & (~np.uint64(0) >> (64 - 8 * length).astype(np.uint64))
            fits = (found >= 0) & (length <= left) & (masked == words[found])
            code, size = np.where(fits, found, code), np.where(fits, length, size)
        yield active, code
        at[active] += size
        active = active[at[active] < ends[active]]


def compress_numpy(
    data: Bytes, offsets: Ints, words: Words, lengths: Ints, slots: Ints, pairs: Ints, singles: Ints,
    out: Bytes, ends: Ints,
) -> None:  # fmt: skip
    steps = list(_tokens(data, offsets, words, lengths, slots, pairs, singles))
    sizes = np.zeros(len(offsets) - 1, np.int64)
    for values, codes in steps:
        sizes[values] += 1 + (codes >= ESCAPED)
    ends[1:] = np.cumsum(sizes)
    at = ends[:-1].copy()
    for values, codes in steps:
        where, escaped = at[values], codes >= ESCAPED
        out[where] = np.where(escaped, 255, codes)
        out[where[escaped] + 1] = codes[escaped] - ESCAPED
        at[values] += 1 + escaped


def count_numpy(
    data: Bytes, offsets: Ints, words: Words, lengths: Ints, slots: Ints, pairs: Ints, singles: Ints,
    counts: Ints, neighbours: Ints,
) -> None:  # fmt: skip
    before = np.full(len(offsets) - 1, -1, np.int64)
    for values, codes in _tokens(data, offsets, words, lengths, slots, pairs, singles):
        counts += np.bincount(codes, minlength=512)
        known = before[values] >= 0
        np.add.at(neighbours, before[values][known] * 512 + codes[known], 1)
        before[values] = codes


_INPUTS = "r.u1, r.i8, r.u8, r.i8, r.i8, r.i8, r.i8"
_COMPRESS = Kernel(
    compress_numba, "void(r.u1, r.i8, r.i8, r.u8, r.u2, u1, r.i8, i8)", helpers=(word_at, token_of)
)
_COUNT = Kernel(count_numba, f"void({_INPUTS}, i8, i8)")
