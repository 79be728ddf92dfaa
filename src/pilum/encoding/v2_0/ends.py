"""Ends: where strings and lists begin and end, and which are null (`spec/file-2.0-and-0.1.md`, A.5 and A.8).

Both store one unsigned 64-bit end per value, counted from the start of the page, and mark a null by adding an
adjustment to it.  Strings take it off by subtraction, lists by the remainder::

    valid(i) = stored[i] < adj       end(i) = stored[i] - adj  |  stored[i] mod adj       start(i) = end(i - 1), start(0) = 0

So the rows a..b need the stored ends from a - 1 on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pilum.encoding.blocks import Bools, FixedBlock
from pilum.encoding.page import Rows
from pilum.encoding.v2_0.reads import ArrayDecoder, ArrayRead, Ints, Values, then
from pilum.errors import CorruptFileError

__all__ = ["Extents", "schedule_ends"]


class Extents(NamedTuple):
    """Where some values lie.

    Attributes:
        starts, ends: int64; never decreasing within a value, at most the limit.
        validity: one boolean per value, None = all valid.
        adjacent: each value begins where the one before ends.
    """

    starts: Ints
    ends: Ints
    validity: Bools | None
    adjacent: bool


def schedule_ends(
    decoder: ArrayDecoder, rows: Rows, adjustment: int, limit: int | None, *, wrap: bool
) -> ArrayRead:
    """Plan the read of the extents of ``rows``; decodes to `Extents`.

    Args:
        decoder: of the stored ends.
        rows: at least one.
        adjustment: what is added for nulls.
        limit: no end may be larger; None = checked later by `Extents` users.
        wrap: remove the adjustment by remainder (lists) instead of subtraction (strings).

    Raises:
        CorruptFileError: from the decode step: ends that decrease or pass the limit.
    """
    if isinstance(rows, range):
        first = rows.start == 0
        wanted: Rows = rows if first else range(rows.start - 1, rows.stop)
        return then(
            decoder.schedule(wanted), lambda values: _of_range(values, first, adjustment, limit, wrap)
        )
    # Each row and the one before it, without repetition; rows ascend, so equal ones are neighbours.
    pairs = np.repeat(rows, 2)
    pairs[::2] -= 1
    new = np.append(pairs[0] >= 0, pairs[1:] != pairs[:-1])
    wanted = pairs[new]
    places = (np.cumsum(new) - 1)[1::2]
    before = places - 1
    zero = int(rows[0]) == 0

    def extents(values: Values) -> Extents:
        stored, valid = _plain(values, adjustment, wrap)
        starts, ends = stored[before], stored[places]
        if zero:
            starts[0] = 0
        _check(starts, ends, limit)
        marks = None if valid is None else valid[places]
        return Extents(starts, ends, None if marks is None or marks.all() else marks, False)

    return then(decoder.schedule(wanted), extents)


def _of_range(values: Values, first: bool, adjustment: int, limit: int | None, wrap: bool) -> Extents:
    stored, valid = _plain(values, adjustment, wrap)
    if first:
        edges = np.empty(len(stored) + 1, np.int64)
        edges[0] = 0
        edges[1:] = stored
    else:
        edges = stored
        if valid is not None:
            valid = valid[1:]
            if valid.all():
                valid = None
    # Edges that never decrease are bounded by the first and the last: one pass is enough.
    if int(edges[0]) < 0 or bool((edges[1:] < edges[:-1]).any()):
        raise CorruptFileError("ends of strings or lists decrease")
    _check_limit(int(edges[-1]), limit)
    return Extents(edges[:-1], edges[1:], valid, True)


def _plain(values: Values, adjustment: int, wrap: bool) -> tuple[Ints, Bools | None]:
    """The ends without adjustment, and which are valid."""
    block = values.block
    if not isinstance(block, FixedBlock) or block.bits != 64 or values.validity is not None:
        raise CorruptFileError("ends of strings and lists must be 64-bit numbers without nulls")
    stored = block.words()
    valid = None
    if len(stored) and int(stored.max()) >= adjustment:
        if not adjustment:
            raise CorruptFileError("ends of strings or lists with an adjustment of 0")
        step = np.uint64(adjustment)
        valid = stored < step
        stored = stored % step if wrap else np.where(valid, stored, stored - step)
    return stored.view(np.int64), valid


def _check(starts: Ints, ends: Ints, limit: int | None) -> None:
    """Numbers beyond 2^63 are negative here, so one comparison finds all that is wrong."""
    if not len(ends):
        return
    if int(starts.min()) < 0 or bool((ends < starts).any() or (starts[1:] < ends[:-1]).any()):
        raise CorruptFileError("ends of strings or lists decrease")
    _check_limit(int(ends[-1]), limit)


def _check_limit(last: int, limit: int | None) -> None:
    if limit is not None and last > limit:
        raise CorruptFileError(f"strings or lists end at {last}, there are only {limit} bytes or items")
