"""Reads: byte ranges and the step that turns their bytes into values, composed without doing any I/O.

An array encoding of format 2.0 is a small tree, and so are the columns of a nested field.  Each node plans its own
`ArrayRead` and combines those of its parts::

    then(read, step)          the values of ``read`` handed to ``step``
    join(reads, step)         the values of all, fetched in one round

A step returns a value, or another `ArrayRead` where the position of something had to be looked up first ("indirect
I/O": the bytes of strings, the items of lists).  `join` then fetches what is still missing of all its parts together,
so the number of rounds is the depth of the deepest part and not their sum.

`PageBuffers` says where the buffers are that encodings name.  Must not know: files, stores, Arrow types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bools, Bytes
from pilum.encoding.page import Range, Rows
from pilum.errors import CorruptFileError, UnsupportedError

__all__ = [
    "ArrayDecoder", "ArrayRead", "Ints", "PageBuffers", "Runs", "Values", "done", "join", "plan_runs", "then",
]  # fmt: skip

Ints: TypeAlias = npt.NDArray[np.int64]

# Bytes between two wanted pieces that are read along: what stores join anyway.
GAP = 4096


@dataclass(slots=True)
class Values:
    """Decoded values of an array, one step away from Arrow.

    Attributes:
        block: the values, null ones included.
        validity: one boolean per value, None = all valid.
        dictionary: the Arrow array that the values of ``block`` index, None = they are values themselves.
    """

    block: Block
    validity: Bools | None = None
    dictionary: Any = None


@dataclass(slots=True)
class ArrayRead:
    """A planned read: absolute byte ranges, and what makes a value (or the next read) of their bytes."""

    ranges: list[Range]
    decode: Callable[[list[Bytes]], Any]


class ArrayDecoder:
    """One node of an encoding tree.

    Attributes:
        count: values it holds.
    """

    __slots__ = ("count",)

    count: int

    def schedule(self, rows: Rows) -> ArrayRead:
        """Plan the read of some values, all below ``count``; decodes to `Values`.  Pure."""
        raise NotImplementedError


def done(value: Any) -> ArrayRead:
    """A read that needs no bytes."""
    return ArrayRead([], lambda buffers: value)


def then(read: ArrayRead, step: Callable[[Any], Any]) -> ArrayRead:
    """The value of ``read`` after ``step``, which may return another read."""

    def decode(buffers: list[Bytes]) -> Any:
        found = read.decode(buffers)
        return then(found, step) if isinstance(found, ArrayRead) else step(found)

    return ArrayRead(read.ranges, decode)


def join(reads: Sequence[ArrayRead], step: Callable[[list[Any]], Any]) -> ArrayRead:
    """The values of all reads, as a list, after ``step``; every round fetches what all of them lack."""
    if len(reads) == 1:
        return then(reads[0], lambda value: step([value]))
    ranges: list[Range] = []
    edges = [0]
    for read in reads:
        ranges += read.ranges
        edges.append(len(ranges))

    def decode(buffers: list[Bytes]) -> Any:
        again = False
        results = []
        for number, read in enumerate(reads):
            found = read.decode(buffers[edges[number] : edges[number + 1]])
            again = again or isinstance(found, ArrayRead)
            results.append(found)
        if not again:
            return step(results)
        return join([one if isinstance(one, ArrayRead) else done(one) for one in results], step)

    return ArrayRead(ranges, decode)


class Runs(NamedTuple):
    """Elements to fetch for some rows.

    Attributes:
        starts, stops: the runs, ascending.
        picks: places of the wanted elements among the fetched ones; None when all are wanted.
    """

    starts: list[int]
    stops: list[int]
    picks: Ints | None


def plan_runs(rows: Rows, gap: int) -> Runs:
    """Runs of elements that hold ``rows``; at most ``gap`` unwanted elements are fetched between two wanted ones."""
    if isinstance(rows, range):
        return Runs([rows.start], [rows.stop], None)
    cuts = np.flatnonzero(np.diff(rows) > gap + 1)
    firsts = rows[np.concatenate([[0], cuts + 1])]
    lasts = rows[np.concatenate([cuts, [len(rows) - 1]])] + 1
    sizes = lasts - firsts
    ends = np.cumsum(sizes)
    picks = None
    if int(ends[-1]) != len(rows):
        counts = np.diff(np.concatenate([[0], cuts + 1, [len(rows)]]))
        picks = rows - np.repeat(firsts - (ends - sizes), counts)
    return Runs(firsts.tolist(), lasts.tolist(), picks)


@dataclass(frozen=True, slots=True)
class PageBuffers:
    """The buffers that the encoding of one page may name.

    Attributes:
        page: byte ranges of the page's own buffers.
        column: those of the column.
    """

    page: tuple[Range, ...]
    column: tuple[Range, ...] = ()

    def find(self, owner: Any) -> Range:
        """The range of ``owner.buffer``, a ``Buffer`` message.

        Raises:
            CorruptFileError: the message is missing or names a buffer that does not exist.
            UnsupportedError: a buffer of the file, which no writer uses.
        """
        if not owner.HasField("buffer"):
            raise CorruptFileError("an array encoding names no buffer")
        kind, index = owner.buffer.buffer_type, owner.buffer.buffer_index
        if kind == 2:
            raise UnsupportedError("array encodings over buffers of the file are not supported")
        if kind not in (0, 1):
            raise CorruptFileError(f"unknown buffer type {kind}")
        buffers = self.column if kind else self.page
        if index >= len(buffers):
            raise CorruptFileError(
                f"buffer {index} of the {'column' if kind else 'page'} does not exist, there are {len(buffers)}"
            )
        return buffers[index]
