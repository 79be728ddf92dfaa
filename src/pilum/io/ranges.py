"""Which requests to make for a set of byte ranges, and how to cut the answers back (pure).

```
ranges      ██  ███      █████████████           asked for, in any order
requests    ███████      ███████│█████           gap ≤ `gap` joined, longer than `max_size` split evenly
```

Implements spec/read-path.md, section 3.1, with one difference: ranges may come in any order and overlap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.errors import InvalidInputError
from pilum.io.buffers import EMPTY, Bytes, allocate

__all__ = [
    "EMPTY",
    "Bytes",
    "Range",
    "assemble",
    "check_range",
    "edges_of",
    "merge_ranges",
    "plan_requests",
    "split_range",
]

Range: TypeAlias = tuple[int, int]
"""Start and end of a byte range, end exclusive."""

_MANY = 48  # ranges from which arrays are faster than a loop


def check_range(path: str, start: int, end: int) -> None:
    """Refuse a range that cannot exist.

    Raises:
        InvalidInputError: it begins before the file or ends before it begins.
    """
    if not 0 <= start <= end:
        raise InvalidInputError(f"{path}: bytes {start}..{end} are not a range")


def edges_of(ranges: Sequence[Range]) -> npt.NDArray[np.int64]:
    """Starts and ends as two columns; twice as fast as `numpy.array`."""
    return np.fromiter(chain.from_iterable(ranges), np.int64, 2 * len(ranges)).reshape(-1, 2)


def merge_ranges(ranges: Sequence[Range], gap: int) -> list[Range]:
    """Join ranges that overlap or lie at most ``gap`` bytes apart; the result ascends.  Empty ranges vanish."""
    if len(ranges) >= _MANY:
        return _merge_many(ranges, gap)
    merged: list[Range] = []
    low, high = -1, -1
    for start, end in sorted(ranges):
        if not 0 <= start <= end:
            raise InvalidInputError(f"bytes {start}..{end} are not a range")
        if start == end:
            continue
        if low >= 0 and start <= high + gap:
            high = max(high, end)
            continue
        if low >= 0:
            merged.append((low, high))
        low, high = start, end
    if low >= 0:
        merged.append((low, high))
    return merged


def _merge_many(ranges: Sequence[Range], gap: int) -> list[Range]:
    """The same on whole arrays."""
    edges = edges_of(ranges)
    bad = (edges[:, 0] < 0) | (edges[:, 0] > edges[:, 1])
    if bool(bad.any()):
        start, end = edges[int(bad.argmax())].tolist()
        raise InvalidInputError(f"bytes {start}..{end} are not a range")
    edges = edges[edges[:, 0] < edges[:, 1]]
    if not len(edges):
        return []
    starts = edges[:, 0]
    if not bool((starts[1:] >= starts[:-1]).all()):
        edges = edges[starts.argsort(kind="stable")]
    starts, reached = edges[:, 0], np.maximum.accumulate(edges[:, 1])
    begins = np.flatnonzero(starts[1:] > reached[:-1] + gap) + 1
    lows = starts[np.append(0, begins)]
    highs = reached[np.append(begins - 1, len(edges) - 1)]
    return list(zip(lows.tolist(), highs.tolist(), strict=True))


def split_range(start: int, end: int, max_size: int) -> list[Range]:
    """Cut a range into the fewest pieces of at most ``max_size`` bytes, equal to within one byte."""
    length = end - start
    if length <= max_size:
        return [(start, end)]
    count = -(-length // max_size)
    edges = [start + length * index // count for index in range(count + 1)]
    return list(pairwise(edges))


def plan_requests(ranges: Sequence[Range], *, gap: int, max_size: int) -> list[Range]:
    """The requests to make for ``ranges``: ascending, disjoint, each at most ``max_size`` bytes.

    Args:
        ranges: byte ranges in any order; they may overlap, repeat or be empty.
        gap: bytes between two ranges that are read along rather than cost another request.
        max_size: largest request.

    Raises:
        InvalidInputError: a range begins before the file or ends before it begins.

    Example:
        >>> plan_requests([(100, 200), (0, 10), (12, 20)], gap=4, max_size=60)
        [(0, 20), (100, 150), (150, 200)]
    """
    return [piece for start, end in merge_ranges(ranges, gap) for piece in split_range(start, end, max_size)]


def assemble(ranges: Sequence[Range], requests: Sequence[Range], buffers: Sequence[Bytes]) -> list[Bytes]:
    """The bytes of each range, in the order asked for.

    A range inside one buffer is a view of it; one that lies across several is copied together.

    Args:
        ranges: the ranges that were given to `plan_requests`.
        requests: what it returned.
        buffers: the answers, one a request.
    """
    if len(ranges) >= _MANY and len(requests):
        at_once = _assemble_many(ranges, requests, buffers)
        if at_once is not None:
            return at_once
    starts = [start for start, _ in requests]
    found: list[Bytes] = []
    for start, end in ranges:
        if start == end:
            found.append(EMPTY)
            continue
        at = bisect_right(starts, start) - 1
        base, limit = requests[at]
        if end <= limit:
            found.append(buffers[at][start - base : end - base])
            continue
        joined = allocate(end - start)
        position = start
        while position < end:
            base, limit = requests[at]
            stop = min(end, limit)
            joined[position - start : stop - start] = buffers[at][position - base : stop - base]
            position = stop
            at += 1
        found.append(joined)
    return found


def _assemble_many(
    ranges: Sequence[Range], requests: Sequence[Range], buffers: Sequence[Bytes]
) -> list[Bytes] | None:
    """The same for many ranges that all lie inside one buffer each; None if they do not."""
    edges, asked = edges_of(ranges), edges_of(requests)
    at = np.maximum(asked[:, 0].searchsorted(edges[:, 0], "right") - 1, 0)
    bases = asked[at, 0]
    if not bool((edges[:, 1] <= asked[at, 1]).all()) or bool((edges[:, 0] < bases).any()):
        return None
    lows, highs = (edges[:, 0] - bases).tolist(), (edges[:, 1] - bases).tolist()
    return [buffers[k][low:high] for k, low, high in zip(at.tolist(), lows, highs, strict=True)]
