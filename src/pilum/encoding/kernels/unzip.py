"""Taking full-zip entries apart (`spec/file-container-and-structure.md`, section 4.3).

    entry    control word (0, 1, 2 or 4 bytes) = rep << bits_def | def
             if visible:  fixed width     the value, also when it is null
                          variable width  if def = 0: length (4 or 8 bytes), then as many bytes

Where an entry ends is known only after reading its control word and length, so a row of a list
column must be walked.  Where rows begin is known from the repetition index; the NumPy twin therefore walks all
rows abreast, one entry of each per step, and leaves the last few rows, those with very many entries,
to the kernel's own code, run by Python entry by entry.  Without lists one step is all there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel

__all__ = ["Entries", "EntryShape", "unzip"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]
Levels: TypeAlias = npt.NDArray[np.uint16]

_FEW_ROWS = 32  # below, a step of whole arrays costs more than a Python loop over the entries
_NO_LEVELS, _NO_INTS = np.empty(0, np.uint16), np.empty(0, np.int64)
_LEAVES_ROW, _NOT_A_ROW = -1, -2
_PROBLEMS = {
    _LEAVES_ROW: "an entry reaches past the end of its row",
    _NOT_A_ROW: "the repetition levels of a row do not begin and end where the repetition index says",
}


@dataclass(frozen=True, slots=True)
class EntryShape:
    """What all entries of a page have in common.

    Attributes:
        control: bytes of the control word.
        bits_def: bits of the definition level in it.
        top: repetition level of the first entry of a row.
        visible: largest definition level of an entry with a value.
        prefix: bytes of the length of a variable-width value, 0 for fixed width.
        width: bytes of a fixed-width value, 0 for variable width.
    """

    control: int
    bits_def: int
    top: int
    visible: int
    prefix: int
    width: int


@dataclass(slots=True)
class Entries:
    """Levels of all entries; position and size of the value of each visible one."""

    rep: Levels
    definition: Levels
    starts: Ints
    sizes: Ints


def unzip(data: Bytes, edges: Ints, shape: EntryShape) -> Entries | str:
    """Walk the entries of some rows.

    Args:
        data: the rows, back to back.
        edges: where each row begins in ``data``, and ``len(data)``; strictly increasing.
        shape: of the entries.

    Returns:
        The entries, or what is wrong with them.
    """
    kernel = _WALK.get(len(data))
    found: Entries | int
    if kernel is not None:
        found = _walk(kernel, data, edges, shape)
    elif len(edges) <= _FEW_ROWS:
        found = _walk(walk_numba, data.data, edges.tolist(), shape)
    else:
        found = unzip_numpy(data, edges, shape)
    return _PROBLEMS[found] if isinstance(found, int) else found


def _walk(walk: Any, data: Any, edges: Any, shape: EntryShape, resumed: int = 0) -> Entries | int:
    """Two passes: the first counts, so that nothing is allocated but what the bytes justify.

    Run by Python, ``walk`` is many times faster on a memory view and lists than on arrays.
    """
    fixed = (shape.control, shape.bits_def, shape.top, shape.visible, shape.prefix, shape.width)
    totals = np.zeros(2, np.int64)
    status = int(walk(data, edges, resumed, *fixed, totals, _NO_LEVELS, _NO_LEVELS, _NO_INTS, _NO_INTS))
    if status:
        return status
    entries, values = totals.tolist()
    if walk is walk_numba:
        lists: Any = [0] * entries, [0] * entries, [0] * values, [0] * values
        walk(data, edges, resumed, *fixed, totals, *lists)
        rep, definition, starts, sizes = map(np.array, lists, (np.uint16, np.uint16, np.int64, np.int64))
    else:
        rep, definition = np.empty(entries, np.uint16), np.empty(entries, np.uint16)
        starts, sizes = np.empty(values, np.int64), np.empty(values, np.int64)
        walk(data, edges, resumed, *fixed, totals, rep, definition, starts, sizes)
    return Entries(rep, definition, starts, sizes)


def walk_numba(
    data: Bytes,
    edges: Ints,
    resumed: int,
    control: int,
    bits_def: int,
    top: int,
    visible: int,
    prefix: int,
    width: int,
    totals: Ints,
    rep: Levels,
    definition: Levels,
    starts: Ints,
    sizes: Ints,
) -> int:
    """Walk; fills ``rep``, ... unless they are empty.  ``resumed``: rows begin after their first entry."""
    mask = (1 << bits_def) - 1
    fill = len(rep) > 0
    entries = 0
    values = 0
    for row in range(len(edges) - 1):
        at = edges[row]
        end = edges[row + 1]
        begins = resumed == 0
        while at < end or begins:
            if at + control > end:
                return -1
            word = 0
            for k in range(control):
                word |= int(data[at + k]) << (8 * k)
            at += control
            level = word & mask
            repeat = word >> bits_def
            if (begins and repeat != top) or (not begins and repeat >= top):
                return -2
            begins = False
            if fill:
                rep[entries] = repeat
                definition[entries] = level
            entries += 1
            if level <= visible:
                size = width
                if prefix > 0 and level == 0:
                    if at + prefix > end:
                        return -1
                    for k in range(prefix):
                        size |= int(data[at + k]) << (8 * k)
                    at += prefix
                if size < 0 or size > end - at:
                    return -1
                if fill:
                    starts[values] = at
                    sizes[values] = size
                values += 1
                at += size
    totals[0] = entries
    totals[1] = values
    return 0


# --------------------------------------------------------------------------- NumPy twin


def unzip_numpy(data: Bytes, edges: Ints, shape: EntryShape) -> Entries | int:
    at, ends = edges[:-1], edges[1:]
    rows = np.arange(len(at))
    steps: list[tuple[Ints, ...]] = []  # row, rep, def, visible, start, size of each entry
    while len(rows) and (len(rows) > _FEW_ROWS or not steps):
        step = _one_entry_each(data, at, ends, shape, first=not steps)
        if isinstance(step, int):
            return step
        steps.append((rows, *step))
        at = step[3] + step[4]
        more = at < ends
        rows, at, ends = rows[more], at[more], ends[more]
    for row, begin, end in zip(rows.tolist(), at.tolist(), ends.tolist(), strict=True):
        rest = _one_row(data[begin:end], shape)
        if isinstance(rest, int):
            return rest
        rest[3][:] += begin
        steps.append((np.full(len(rest[0]), row), *rest))
    if len(steps) == 1:
        _, rep, definition, visible, starts, sizes = steps[0]
    else:
        columns = [np.concatenate(column) for column in zip(*steps, strict=True)] or [
            np.empty(0, np.int64)
        ] * 6
        order = np.argsort(columns[0], kind="stable")  # entries of a row were found in their order
        rep, definition, visible, starts, sizes = (column[order] for column in columns[1:])
    shown = np.flatnonzero(visible)
    return Entries(rep.astype(np.uint16), definition.astype(np.uint16), starts[shown], sizes[shown])


def _one_entry_each(
    data: Bytes, at: Ints, ends: Ints, shape: EntryShape, *, first: bool
) -> tuple[Ints, Ints, Ints, Ints, Ints] | int:
    """The entries at ``at``: rep, def, visible, start and size of the value."""
    if bool((at + shape.control > ends).any()):
        return _LEAVES_ROW
    word = _little_endian(data, at, shape.control)
    rep, definition = word >> shape.bits_def, word & ((1 << shape.bits_def) - 1)
    if bool((rep != shape.top if first else rep >= shape.top).any()):
        return _NOT_A_ROW
    visible = (definition <= shape.visible).astype(np.int64)
    at = at + shape.control
    if not shape.prefix:
        sizes = visible * shape.width
    else:
        sizes = np.zeros(len(at), np.int64)
        stored = np.flatnonzero(visible & (definition == 0))
        if bool((at[stored] + shape.prefix > ends[stored]).any()):
            return _LEAVES_ROW
        sizes[stored] = _little_endian(data, at[stored], shape.prefix)
        at[stored] += shape.prefix
    if bool(((sizes < 0) | (sizes > ends - at)).any()):
        return _LEAVES_ROW
    return rep, definition, visible, at, sizes


def _little_endian(data: Bytes, at: Ints, width: int) -> Ints:
    number = np.zeros(len(at), np.int64)
    for k in range(width):
        number |= data[at + k].astype(np.int64) << (8 * k)
    return number


def _one_row(data: Bytes, shape: EntryShape) -> tuple[Ints, Ints, Ints, Ints, Ints] | int:
    """The entries of a row after its first."""
    found = _walk(walk_numba, data.data, (0, len(data)), shape, resumed=1)
    if isinstance(found, int):
        return found
    visible = (found.definition <= shape.visible).astype(np.int64)
    starts, sizes = np.zeros((2, len(visible)), np.int64)
    shown = np.flatnonzero(visible)
    starts[shown], sizes[shown] = found.starts, found.sizes
    return found.rep.astype(np.int64), found.definition.astype(np.int64), visible, starts, sizes


_WALK = Kernel(walk_numba, "i8(r.u1, r.i8, =i8, =i8, =i8, =i8, =i8, =i8, =i8, i8, u2, u2, i8, i8)")
