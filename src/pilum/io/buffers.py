"""Memory for bytes that are read.

Large buffers come from Arrow's allocator.  A query holds dozens of them and drops them together; the C
library then gives the memory back to the system and gets it again page by page: reading 256 KiB took 150 µs
instead of 30 µs (held 8 at a time, two-core virtual machine).  Arrow's allocator keeps the pages for a while.
It costs 1 µs more a call, so small buffers, which do not suffer, are NumPy's.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["EMPTY", "Bytes", "allocate"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""The bytes of one range: contiguous, one-dimensional."""

EMPTY: Bytes = np.empty(0, dtype=np.uint8)

_FROM_ARROW = 16_384
_BYTE = np.dtype(np.uint8)
_allocate = pa.allocate_buffer


def allocate(size: int) -> Bytes:
    """Writable memory of ``size`` bytes, not initialised."""
    if size < _FROM_ARROW:
        return np.empty(size, dtype=_BYTE)
    return np.frombuffer(_allocate(size), dtype=_BYTE)
