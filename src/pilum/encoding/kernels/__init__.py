"""Kernels of the encodings: tight loops over bytes, each in NumPy and, for large inputs, in Numba.

One module per family; how a kernel is compiled, loaded and replaced by its NumPy twin is told in `pilum.jit`.
"""

from pilum.jit import Kernel, enabled, preload

__all__ = ["Kernel", "enabled", "preload"]
