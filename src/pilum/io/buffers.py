"""Memory for bytes that are read.

Large buffers come from Arrow's allocator.  A query holds dozens of them and drops them together; the C
library then gives the memory back to the system and gets it again page by page: reading 256 KiB took 150 µs
instead of 30 µs (held 8 at a time, two-core virtual machine).  Arrow's allocator keeps the pages for a while.
It costs 1 µs more a call, so small buffers, which do not suffer, are NumPy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["ALIGN", "EMPTY", "Bytes", "Stack", "allocate"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""The bytes of one range: contiguous, one-dimensional."""

EMPTY: Bytes = np.empty(0, dtype=np.uint8)

ALIGN = 64
"""Pieces that share memory begin at multiples of this many bytes."""

_FROM_ARROW = 16_384
_BYTE = np.dtype(np.uint8)
_allocate = pa.allocate_buffer


def allocate(size: int) -> Bytes:
    """Writable memory of ``size`` bytes, not initialised."""
    if size < _FROM_ARROW:
        return np.empty(size, dtype=_BYTE)
    return np.frombuffer(_allocate(size), dtype=_BYTE)


class Stack(NamedTuple):
    """Pieces of equal size in one piece of memory: piece i begins at ``i * stride``.

    Attributes:
        memory: all of it.
        stride: bytes from one piece to the next, a multiple of 64.
        size: bytes of a piece.
        pieces: their number.
    """

    memory: Bytes
    stride: int
    size: int
    pieces: int

    def piece(self, number: int) -> Bytes:
        """One of the pieces, a view."""
        return self.memory[number * self.stride : number * self.stride + self.size]

    def matrix(self) -> Any:
        """All pieces as the rows of a matrix, a view."""
        return self.memory.reshape(self.pieces, self.stride)[:, : self.size]

    @classmethod
    def of(cls, pieces: Sequence[Bytes]) -> Stack:
        """Copy pieces of equal size together."""
        size = len(pieces[0])
        stride = (size + (ALIGN - 1)) & -ALIGN
        stack = cls(allocate(stride * len(pieces)), stride, size, len(pieces))
        for row, piece in zip(stack.matrix(), pieces, strict=True):
            row[:] = piece
        return stack
