"""Memory for what kernels write: large arrays come from Arrow's allocator, which keeps their pages for a while.

The C library gives the memory of large arrays back to the system when they are dropped and gets it again page by page:
filling 32 MiB in eight arrays that are held together took 16 ms, with Arrow's allocator 3 ms.  It costs 1 µs more a
call, so small arrays are NumPy's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["empty", "zeros"]

_FROM_ARROW = 64 << 10


def empty(count: int, dtype: Any) -> npt.NDArray[Any]:
    """``count`` numbers, not initialised."""
    kind = np.dtype(dtype)
    size = count * kind.itemsize
    if size < _FROM_ARROW:
        return np.empty(count, kind)
    return np.frombuffer(pa.allocate_buffer(size), kind)


def zeros(count: int, dtype: Any) -> npt.NDArray[Any]:
    """``count`` zeros; written here, where `numpy.zeros` takes new pages from the system, which costs more."""
    out = empty(count, dtype)
    out.fill(0)
    return out
