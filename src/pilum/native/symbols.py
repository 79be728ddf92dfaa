"""Addresses of what compiled code names: functions of Python and of the C library, and a few Python objects.

Every name is looked up before code that uses it is put together: LLVM ends the process at a name that it does not find.
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np

from pilum import imports
from pilum.native.source import Source

__all__ = [
    "NDARRAY",
    "NONE",
    "OBJECTS",
    "RUNTIME_ERROR",
    "SUPPORTED",
    "TYPE_ERROR",
    "addresses",
    "announce",
]

SUPPORTED = sys.implementation.name == "cpython" and sys.platform != "win32" and sys.maxsize > 1 << 32
"""Whether machine code is kept here at all; elsewhere Numba loads and calls every kernel itself."""

NDARRAY, NONE, TYPE_ERROR, RUNTIME_ERROR = (
    "pilum_ndarray",
    "pilum_none",
    "pilum_type_error",
    "pilum_runtime_error",
)
OBJECTS: dict[str, object] = {
    NDARRAY: np.ndarray, NONE: None, TYPE_ERROR: TypeError, RUNTIME_ERROR: RuntimeError,
}  # fmt: skip
"""Python objects by the names that entries call them."""

# What frees the memory of an array that Numba's runtime owns is linked into many kernels and never called: arrays come
# without owners.  (What allocates is not found, so that a kernel that does is left to Numba.)
_NEVER_CALLED = "NRT_MemInfo_call_dtor"


def addresses(source: Source, names: list[str]) -> list[int] | None:
    """Where each name is, for a kernel; None if one of them, or the kernel's library, is missing."""
    try:
        places = _places(source.library)
    except OSError:
        return None
    own = source.functions()
    found = []
    for name in names:
        if name in OBJECTS:
            address: int | None = id(OBJECTS[name])
        elif name == _NEVER_CALLED:
            address = _find(places, "abort")
        elif name in own:
            address = _find(places[:1] if source.library else places, name)
        else:
            address = _find([ctypes.pythonapi, *places], name)
        if not address:
            return None
        found.append(address)
    return found


def announce(source: Source) -> bool:
    """Tell LLVM where the objects and the functions of a kernel's library are; False if one is missing.

    The library stays private: with its names in the process others that bring their own would call this one.
    """
    binding = imports.load("llvmlite.binding")
    names = [*OBJECTS, *source.functions()]
    found = addresses(source, names)
    if found is None:
        return False
    for name, address in zip(names, found, strict=True):
        binding.add_symbol(name, address)
    return True


def _places(library: str | None) -> list[ctypes.CDLL]:
    """Where to look for functions: in the kernel's library, then in the process."""
    named = [ctypes.CDLL(library)] if library else []
    return named if sys.platform == "win32" else [*named, ctypes.CDLL(None)]


def _find(places: list[ctypes.CDLL], name: str) -> int | None:
    for place in places:
        try:
            return ctypes.cast(getattr(place, name), ctypes.c_void_p).value
        except AttributeError:
            continue
    return None
