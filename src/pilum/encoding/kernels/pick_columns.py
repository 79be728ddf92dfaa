"""Scattered rows of all columns of a file: where they lie, and their values as Arrow stores them, in two calls.

A take of one row of seven columns was a hundred array operations.  Here they are two passes over tables that describe
all columns at once (`encoding/scattered.py` makes them), with the file read in between::

    locate_columns   rows -> chunks of every column, with their place in the file
    lay_out          chunks in the order of the file -> few spans to read, and each chunk's place in their bytes
    pick_columns     bytes -> validity bitmaps, offsets, values and strings of every column, back to back

Rows are found by `locate`, levels of lists by `pick_lists`, values by `pick`; what is new is what comes of them.  Like
these the kernels say no where a chunk is not as it should be, and the caller reads the ordinary way, which says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pilum.encoding.kernels import Kernel
from pilum.encoding.kernels.locate import locate_numba
from pilum.encoding.kernels.pick import pick_numba
from pilum.encoding.kernels.pick_lists import pick_lists_numba
from pilum.encoding.kernels.words import put_word

__all__ = [
    "BOOLEANS", "COLUMN", "DENSE", "FIXED", "GOOD", "LAY_OUT", "LOCATE_COLUMNS", "PAGE", "PICK_COLUMNS", "PLAIN", "ROOM",
    "ROOM_FOR_ITEMS", "SPOT", "TEXT",
]  # fmt: skip

# What a column holds: numbers of whole bytes, booleans, byte strings, or values of a full-zip page without levels.
FIXED, BOOLEANS, TEXT, PLAIN = range(4)

# One row of the table of columns: what it holds, bytes of a value, of an offset (text), of an offset of lists (0: no
# lists), its pages, its chunks, its chunks that end a row which goes on.
COLUMN = ("kind", "width", "offset", "lists", "page", "pages", "chunk", "chunks", "stop", "stops")
_KIND, _WIDTH, _OFFSET, _LISTS, _PAGE, _PAGES, _CHUNK, _CHUNKS, _STOP, _STOPS = range(10)

# One row of the table of pages: `pick.Shape`, `pick_lists.ListShape`, levels of empty lists, the largest one, symbol
# table (-1: none), first item of its dictionary (-1: none) and the one after the last, first row and chunk of the page
# in the column, its place in the file (full-zip).
PAGE = (
    "header", "large", "levels", "level_bits", "values", "bits", "passed", "rep", "rep_bits", "definition",
    "definition_bits", "visible", "empty", "top", "symbols", "item", "items", "row", "first_chunk", "base",
)  # fmt: skip
(
    _HEADER, _LARGE, _LEVELS, _LEVEL_BITS, _VALUES, _BITS, _PASSED, _REP, _REP_BITS, _DEFINITION, _DEFINITION_BITS,
    _VISIBLE, _EMPTY, _TOP, _SYMBOLS, _ITEM, _ITEMS, _ROW, _FIRST_CHUNK, _BASE,
) = range(20)  # fmt: skip

# One row of what is told about a column: where its buffers begin in the output (-1: there is none) and their lengths.
SPOT = (
    "validity",
    "nulls",
    "offsets",
    "item_validity",
    "item_nulls",
    "items",
    "values",
    "size",
    "any",
    "text",
)
_VALIDITY, _NULLS, _OFFSETS, _ITEM_VALIDITY, _ITEM_NULLS, _NUMBER, _AT, _SIZE, _ANY, _TEXT_AT = range(10)

_MOST = 2**31 - 1  # of a 32-bit offset
_FEW = 32  # rows per chunk: more are had faster by unpacking the chunk
_MORE, DENSE = -1, -2
GOOD, ROOM, ROOM_FOR_ITEMS = 1, 2, 3


def locate_columns_numba(
    rows: Any, columns: Any, pages: Any, first: Any, trailer: Any, stops: Any, begins: Any, ends: Any, counts: Any,
    table: Any, used: Any, places: Any,
) -> int:  # fmt: skip
    """How many chunks; -1 if there is no room for them, -2 if they are better unpacked.

    Of ``table`` rows 0 (number of the chunk in its column), 5 and 6 (where it lies in the file) are for the caller.
    """
    at = 0
    for c in range(columns.shape[0]):
        used[c] = at
        column = columns[c]
        page = column[_PAGE]
        if column[_KIND] == PLAIN:
            if at + rows.size > table.shape[1]:
                return _MORE
            last = page + column[_PAGES] - 1
            for i in range(rows.size):
                while page < last and rows[i] >= pages[page + 1, _ROW]:
                    page += 1
                begin = pages[page, _BASE] + (rows[i] - pages[page, _ROW]) * column[_WIDTH]
                table[0, at] = i
                table[5, at] = begin
                table[6, at] = begin + column[_WIDTH]
                at += 1
            continue
        low, high = column[_CHUNK], column[_CHUNK] + column[_CHUNKS]
        flags = trailer[low:high] if column[_LISTS] else trailer[:0]
        found = locate_numba(
            rows, first[low + c : high + c + 1], flags, stops[column[_STOP] : column[_STOP] + column[_STOPS]],
            begins[low:high], ends[low:high], 0, table[:5, at:], places[c],
        )  # fmt: skip
        if found < 0:
            return _MORE
        number = found & 0xFFFFFFFF
        values = 0
        beginning = 0
        for j in range(at, at + number):
            chunk = low + table[0, j]
            table[5, j] = begins[chunk]
            table[6, j] = ends[chunk]
            values += counts[chunk]
            beginning += first[chunk + c + 1] - first[chunk + c]
        wanted = rows.size
        if column[_LISTS]:
            wanted = max(wanted, rows.size * values // max(1, beginning) // 8)
        if wanted > _FEW * number:
            return DENSE
        at += number
    used[columns.shape[0]] = at
    return at


def lay_out_numba(table: Any, order: Any, gap: int, spans: Any) -> int:
    """How many spans of the file hold all chunks, those at most ``gap`` bytes apart joined.

    Rows 1 and 2 of ``table`` become where each chunk lies in the bytes of all spans.
    """
    number = 0
    base = 0  # of the newest span
    for k in range(order.size):
        one = order[k]
        begin, end = table[5, one], table[6, one]
        if number == 0 or begin > spans[number - 1, 1] + gap:
            if number > 0:
                base += spans[number - 1, 1] - spans[number - 1, 0]
            spans[number, 0] = begin
            spans[number, 1] = end
            number += 1
        elif end > spans[number - 1, 1]:
            spans[number - 1, 1] = end
        table[1, one] = base + begin - spans[number - 1, 0]
        table[2, one] = base + end - spans[number - 1, 0]
    return number


def pick_columns_numba(
    data: Any, columns: Any, pages: Any, first: Any, trailer: Any, counts: Any, table: Any, used: Any, places: Any,
    symbols: Any, symbol_sizes: Any, item_ends: Any, item_bytes: Any, words: Any, sizes: Any, levels: Any, rep: Any,
    owners: Any, of_chunk: Any, in_chunk: Any, flags: Any, marks: Any, shape: Any, total: Any, out: Any, spots: Any,
) -> int:  # fmt: skip
    count = places.shape[2]
    at = 0  # in the output
    for c in range(columns.shape[0]):
        column, spot = columns[c], spots[c]
        low, high = used[c], used[c + 1]
        kind, width, lists = column[_KIND], column[_WIDTH], column[_LISTS]
        spot[_VALIDITY], spot[_NULLS], spot[_OFFSETS] = -1, 0, -1
        spot[_ITEM_VALIDITY], spot[_ITEM_NULLS], spot[_ANY], spot[_TEXT_AT] = -1, 0, 0, 0
        if kind == PLAIN:
            spot[_AT], spot[_SIZE], spot[_NUMBER] = at, count * width, count
            if at + count * width + 64 > out.size:
                return ROOM
            for j in range(low, high):
                begin, end = table[1, j], table[2, j]
                if end > data.size:
                    return 0
                for k in range(end - begin):
                    out[at + k] = data[begin + k]
                at += width
            at = (at + 63) // 64 * 64
            continue

        # -- levels and values of the chunks, page by page
        number = 0  # of values
        entries = 0  # of lists
        row = 0
        chunk = low
        page = column[_PAGE]
        last = page + column[_PAGES] - 1
        while row < count:
            while page < last and table[0, chunk] >= pages[page + 1, _FIRST_CHUNK]:
                page += 1
            to_chunk = chunk
            while to_chunk < high and (page == last or table[0, to_chunk] < pages[page + 1, _FIRST_CHUNK]):
                to_chunk += 1
            to_row = row
            while to_row < count and places[c, 0, to_row] < to_chunk - low:
                places[c, 0, to_row] -= chunk - low
                to_row += 1
            if to_row == row or to_chunk == chunk:
                return 0
            layout = pages[page]
            for j in range(to_chunk - chunk):
                one = column[_CHUNK] + table[0, chunk + j]
                shape[0, j] = counts[one]
                if lists:
                    shape[1, j] = first[one + c + 1] - first[one + c]
                    shape[2, j] = table[0, chunk + j] > layout[_FIRST_CHUNK] and trailer[one - 1] != 0
                    shape[3, j] = trailer[one] != 0
            amount = to_chunk - chunk
            starts, stops = table[1, chunk:to_chunk], table[2, chunk:to_chunk]
            if lists:
                good = pick_lists_numba(
                    data, starts, stops, shape[0, :amount], shape[1, :amount], shape[2, :amount], shape[3, :amount],
                    places[c, 0, row:to_row], places[c, 1, row:to_row], layout[_HEADER], layout[_REP],
                    layout[_REP_BITS], layout[_DEFINITION], layout[_DEFINITION_BITS], 1, layout[_VISIBLE],
                    rep[entries:], levels[entries:], owners[number:], of_chunk[number:], in_chunk[number:], total, marks,
                )  # fmt: skip
                if not good:
                    return 0
                if total[0] > rep.size - entries:
                    return ROOM_FOR_ITEMS
                # definition levels become: 0 a value, 1 a null item, 2 an empty list, 3 no list
                for e in range(entries, entries + total[0]):
                    level: Any = np.int64(levels[e]) if layout[_DEFINITION] else np.int64(0)
                    if level > layout[_TOP] or rep[e] > 1 or (e == entries and rep[e] != 1):
                        return 0
                    if level > layout[_VISIBLE]:
                        level = 2 if level == layout[_EMPTY] else 3
                        # nothing goes on before or after an entry without a value
                        if rep[e] != 1 or (e + 1 < entries + total[0] and rep[e + 1] != 1):
                            return 0
                    levels[e] = level
                values = total[1]
                entries += total[0]
                of_value, positions = of_chunk[number : number + values], in_chunk[number : number + values]
            else:
                values = to_row - row
                of_value, positions = places[c, 0, row:to_row], places[c, 1, row:to_row]
            if number + values > words.size:
                return ROOM_FOR_ITEMS
            if values:
                good = pick_numba(
                    data, starts, stops, shape[0, :amount], of_value, positions, layout[_HEADER], layout[_LARGE],
                    layout[_LEVELS], layout[_LEVEL_BITS], layout[_VALUES], layout[_BITS], layout[_PASSED],
                    words[number:], sizes[number:], levels[number:],
                )  # fmt: skip
                if not good:
                    return 0
            for v in range(number, number + values):
                of_chunk[v] = page  # the chunk is not needed any more
                if not lists:
                    if layout[_LEVELS] == 0:
                        levels[v] = 0
                    elif levels[v] > layout[_TOP]:
                        return 0
            number += values
            row, chunk = to_row, to_chunk
        if chunk != high:
            return 0

        # -- the lists
        spot[_NUMBER] = number
        if at + 16 * (count + number) + 256 > out.size:
            return ROOM
        if lists:
            spot[_OFFSETS] = at
            validity = at + ((count + 1) * lists + 63) // 64 * 64
            for k in range((count + 7) // 8):
                out[validity + k] = 0
            row = 0
            value = 0
            for e in range(entries):
                level = levels[e]
                if rep[e] == 1:
                    if row >= count:
                        return 0
                    for k in range(lists):
                        out[at + row * lists + k] = value >> (8 * k) & 0xFF
                    if level == 3:
                        spot[_NULLS] += 1
                    else:
                        out[validity + row // 8] |= 1 << (row % 8)
                    row += 1
                if level < 2:
                    flags[value] = level
                    value += 1
            if row != count or value != number:
                return 0
            for k in range(lists):
                out[at + count * lists + k] = value >> (8 * k) & 0xFF
            at = validity
            if spot[_NULLS]:
                spot[_VALIDITY] = at
                at += (count + 511) // 512 * 64
        else:
            for v in range(number):
                flags[v] = levels[v] != 0

        # -- the validity of the values
        nulls = 0
        for v in range(number):
            nulls += flags[v]
        if nulls:
            for k in range((number + 7) // 8):
                out[at + k] = 0
            for v in range(number):
                if not flags[v]:
                    out[at + v // 8] |= 1 << (v % 8)
            if lists:
                spot[_ITEM_VALIDITY], spot[_ITEM_NULLS] = at, nulls
            else:
                spot[_VALIDITY], spot[_NULLS] = at, nulls
            at += (number + 511) // 512 * 64

        # -- the values
        spot[_AT] = at
        offset = column[_OFFSET]
        begin = at
        if kind == BOOLEANS:
            for k in range((number + 7) // 8):
                out[at + k] = 0
            at += (number + 511) // 512 * 64
        elif kind == TEXT:
            at += ((number + 1) * offset + 63) // 64 * 64
            spot[_TEXT_AT] = at
        text = at
        if at + number * width + 64 > out.size:
            return ROOM
        for v in range(number):
            size = at - text
            if kind == TEXT:
                if offset == 4 and size > _MOST:
                    return 0
                for k in range(offset):
                    out[begin + v * offset + k] = size >> (8 * k) & 0xFF
            layout = pages[of_chunk[v]]
            word = words[v]
            place, length = np.int64(word), sizes[v]
            source = data
            if layout[_ITEM] >= 0:
                item = np.uint64(layout[_ITEM]) + word
                if flags[v]:
                    item = np.uint64(layout[_ITEM])
                elif word >= np.uint64(layout[_ITEMS] - layout[_ITEM]):
                    return 0
                source = item_bytes
                place = item_ends[item]
                length = item_ends[item + np.uint64(1)] - place
                if flags[v] and kind == TEXT:
                    length = 0
            if kind == BOOLEANS:
                out[begin + v // 8] |= np.uint8(word & np.uint64(1)) << (v % 8)
            elif kind == FIXED and layout[_ITEM] < 0:
                for k in range(width):
                    out[at + k] = np.uint8(word >> np.uint64(8 * k))
                at += width
            elif kind == FIXED:
                for k in range(width):
                    out[at + k] = source[place + k]
                at += width
            elif layout[_SYMBOLS] < 0 or layout[_ITEM] >= 0:
                if at + length + 64 > out.size:
                    spot[_SIZE] = length
                    return ROOM
                for k in range(length):
                    byte = source[place + k]
                    out[at + k] = byte
                    spot[_ANY] |= byte
                at += length
            elif not flags[v]:
                if at + 8 * length + 64 > out.size:
                    spot[_SIZE] = 8 * length
                    return ROOM
                base = 256 * layout[_SYMBOLS]
                stop = place + length
                first_byte = at
                while place < stop:
                    code = np.int64(data[place])
                    place += 1
                    if code == 255:
                        if place == stop:
                            return 0
                        out[at] = data[place]
                        place += 1
                        at += 1
                    else:
                        length = symbol_sizes[base + code]
                        if length == 0:
                            return 0
                        put_word(out, np.uint64(at), symbols[base + code])
                        at += length
                for k in range(first_byte, at):
                    spot[_ANY] |= out[k]
        if kind == TEXT:
            size = at - text
            if offset == 4 and size > _MOST:
                return 0
            for k in range(offset):
                out[begin + number * offset + k] = size >> (8 * k) & 0xFF
            spot[_SIZE] = size
        else:
            spot[_SIZE] = at - begin
        at = (at + 63) // 64 * 64
        if at > out.size:
            return ROOM
    total[0] = at
    return GOOD


LOCATE_COLUMNS = Kernel(
    locate_columns_numba,
    "i8(r.i8, r.i8[2], r.i8[2], r.i8, r.u1, r.i8, r.i8, r.i8, r.i8, i8[2], i8, i8[3])",
    small=0,
    nogil=False,
    helpers=(locate_numba,),
)
LAY_OUT = Kernel(lay_out_numba, "i8(i8[2], r.i8, =i8, i8[2])", small=0, nogil=False)
PICK_COLUMNS = Kernel(
    pick_columns_numba,
    "i8(r.u1, r.i8[2], r.i8[2], r.i8, r.u1, r.i8, r.i8[2], r.i8, i8[3], r.u8, r.i8, r.i8, r.u1, u8, i8, u2, u2, i8,"
    " i8, i8, u1, u2[2], i8[2], i8, u1, i8[2])",
    small=0,
    nogil=False,
    helpers=(pick_numba, pick_lists_numba, put_word),
    companions=(LOCATE_COLUMNS, LAY_OUT),
)
