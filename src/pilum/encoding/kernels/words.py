"""Words at any byte, for kernels that copy or compare 8 bytes at a time (see `Kernel`, helpers).

Spelled out byte by byte: LLVM makes one load or one store of each.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["put_word", "word_at"]

Bytes: TypeAlias = npt.NDArray[np.uint8]


def word_at(data: Bytes, at: Any) -> Any:
    """The 8 bytes at ``at``, little-endian."""
    return (
        np.uint64(data[at])
        | np.uint64(data[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[at + np.uint64(3)]) << np.uint64(24)
        | np.uint64(data[at + np.uint64(4)]) << np.uint64(32)
        | np.uint64(data[at + np.uint64(5)]) << np.uint64(40)
        | np.uint64(data[at + np.uint64(6)]) << np.uint64(48)
        | np.uint64(data[at + np.uint64(7)]) << np.uint64(56)
    )


def put_word(out: Bytes, at: Any, word: Any) -> None:
    """The reverse."""
    out[at] = np.uint8(word)
    out[at + np.uint64(1)] = np.uint8(word >> np.uint64(8))
    out[at + np.uint64(2)] = np.uint8(word >> np.uint64(16))
    out[at + np.uint64(3)] = np.uint8(word >> np.uint64(24))
    out[at + np.uint64(4)] = np.uint8(word >> np.uint64(32))
    out[at + np.uint64(5)] = np.uint8(word >> np.uint64(40))
    out[at + np.uint64(6)] = np.uint8(word >> np.uint64(48))
    out[at + np.uint64(7)] = np.uint8(word >> np.uint64(56))
