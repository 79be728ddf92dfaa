"""Machine code made a function of this process.

An image is copied to memory of its own, its addresses are filled in, and it is made executable, no longer writable.
Nothing is ever taken down again: functions may be called until the process ends, by threads that outlive the
interpreter's end too.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

from pilum import imports
from pilum.native.code import Code
from pilum.native.source import Source
from pilum.native.symbols import addresses

__all__ = ["load_code"]

_READ, _WRITE, _EXECUTE = 1, 2, 4
_PRIVATE, _ANONYMOUS = 0x02, 0x20  # Linux, x86-64: there are no images elsewhere
_FASTCALL = 0x80


class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("code", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def load_code(source: Source, code: Code) -> Callable[..., Any] | None:
    """The function of a kernel's machine code; None if something that it calls, or LLVM, is missing."""
    found = addresses(source, code.names)
    if found is None:
        return None
    if isinstance(code.entry, str):
        entry = _load_object(code, code.entry, found)
    else:
        entry = _load_image(code, code.entry, found)
    return None if entry is None else _function(source.function.__name__, entry)


def _load_image(code: Code, entry: int, found: list[int]) -> int | None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    size = len(code.content)
    base = libc.mmap(
        None, ctypes.c_size_t(size), _READ | _WRITE, _PRIVATE | _ANONYMOUS, -1, ctypes.c_size_t(0)
    )
    if base in (None, ctypes.c_void_p(-1).value):
        return None
    content = bytearray(code.content)
    for place, name, more in code.fixups:
        address = (base if name < 0 else found[name]) + more
        struct.pack_into("<Q", content, place, address & (1 << 64) - 1)
    ctypes.memmove(base, bytes(content), size)
    if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(size), _READ | _EXECUTE):
        return None
    return int(base) + entry


def _load_object(code: Code, entry: str, found: list[int]) -> int | None:
    try:
        binding = imports.load("llvmlite.binding")
    except ImportError:
        return None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    for name, address in zip(code.names, found, strict=True):
        binding.add_symbol(name, address)
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    _keep(engine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code.content))
    engine.finalize_object()
    return engine.get_function_address(entry) or None


def _function(name: str, entry: int) -> Callable[..., Any]:
    method = _Method(name.encode(), entry, _FASTCALL, None)
    _keep(method)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    function: Callable[..., Any] = make(ctypes.addressof(method), None, None)
    return function


def _keep(one: object) -> None:
    """Never free this."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
