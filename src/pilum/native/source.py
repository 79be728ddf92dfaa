"""What is compiled: a plain function, its signature and options, and a key that changes when any of them does.

The key is made of the function's bytecode, not of the text of its file: a comment changes nothing, and no file is
read to find out that nothing has changed.  Constants of a module that the function uses are compiled into it, so
their values belong to the key, and so do the functions that it calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["Source"]


class Source:
    """A function to compile; the arguments are described in `pilum.jit.Kernel`."""

    __slots__ = ("externals", "fastmath", "function", "helpers", "library", "nogil", "signature")

    def __init__(
        self,
        function: Callable[..., Any],
        signature: str,
        fastmath: bool | set[str],
        nogil: bool,
        externals: Mapping[str, str] | None,
        library: str | None,
        helpers: Sequence[Callable[..., Any]],
    ) -> None:
        self.function = function
        self.signature = signature
        self.fastmath = fastmath
        self.nogil = nogil
        self.externals = dict(externals or {})
        self.library = library
        self.helpers = tuple(helpers)

    @property
    def name(self) -> str:
        """Unique among the kernels of a module."""
        return re.sub(r"\W+", "_", f"{self.function.__name__}-{self.signature}")

    def functions(self) -> list[str]:
        """The C functions that it calls."""
        return [prototype.split("(")[0].split()[-1] for prototype in self.externals.values()]

    def key(self) -> bytes:
        """What the compiled code is made of, beside the compiler and the machine."""
        options = (
            self.signature,
            sorted(self.fastmath) if isinstance(self.fastmath, set) else self.fastmath,
            self.nogil,
            sorted(self.externals.items()),
            self.library,
        )
        parts = [_function(one, self.externals) for one in (self.function, *self.helpers)]
        return repr((options, parts)).encode()


def _function(function: Callable[..., Any], replaced: Mapping[str, str]) -> Any:
    assert isinstance(function, FunctionType)
    names = sorted(_names(function.__code__))
    space = function.__globals__
    used = [(name, _value(space[name])) for name in names if name in space and name not in replaced]
    cells = [_value(cell.cell_contents) for cell in function.__closure__ or ()]
    return _code(function.__code__), used, cells, repr(function.__defaults__)


def _names(code: CodeType) -> set[str]:
    """The names that are looked up by a function and those inside it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _code(code: CodeType) -> Any:
    constants = [_code(one) if isinstance(one, CodeType) else _value(one) for one in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _value(value: Any) -> Any:
    """Something whose text is the same in each process."""
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, FunctionType):
        return _code(value.__code__)
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    if hasattr(value, "tobytes"):  # an array or a number of NumPy
        return str(value.dtype), value.tobytes()
    if isinstance(value, (int, float, str, bytes, tuple, list, type(None))):
        return value
    return type(value).__name__
