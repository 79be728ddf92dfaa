"""Addresses of what compiled code names: functions of Python and of the C library, and a few Python objects.

Every name is looked up before code that uses it is put together: LLVM ends the process at a name that it does not find.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from pilum import imports
from pilum.native.source import Source

__all__ = ["NDARRAY", "NONE", "OBJECTS", "RUNTIME_ERROR", "TYPE_ERROR", "addresses", "announce"]

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


def _places(library: str | None) -> list[Any]:
    """Where to look for functions: in the kernel's library, then in the process and the mathematical library."""
    named = [library] if library else []
    if sys.platform == "win32":
        return [ctypes.CDLL(name) for name in (*named, "ucrtbase.dll")]
    return [*(ctypes.CDLL(name) for name in named), ctypes.CDLL(None)]


def _find(places: list[Any], name: str) -> int | None:
    for place in places:
        try:
            return ctypes.cast(getattr(place, name), ctypes.c_void_p).value
        except AttributeError:
            continue
    return None
