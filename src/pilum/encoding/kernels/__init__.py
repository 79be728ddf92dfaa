"""Kernels of the encodings: tight loops over bytes, each in NumPy and, for large inputs, in Numba.

One module per family; how a kernel is compiled, loaded and replaced by its NumPy twin is told in `pilum.jit`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pilum import imports, jit
from pilum.jit import Kernel, enabled

__all__ = ["Kernel", "enabled", "preload"]

MODULES = (
    "bitpacking", "chunks", "distance", "flags", "fsst", "fsst_encode", "levels", "locate", "lookup", "lz4", "pick",
    "pick_columns", "pick_lists", "ranges", "runs", "transpose", "unzip", "utf8", "variable", "zstd",
)  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = imports.late(__name__, {"fsst_encode": (), "lz4": (), "zstd": ()})


def preload() -> bool:
    """Load every kernel now (benchmarks, servers), compiling what is not kept yet; False without Numba."""
    for name in MODULES:
        import_module(f"pilum.encoding.kernels.{name}")
    import_module("pilum.io.batch")
    return jit.preload()
