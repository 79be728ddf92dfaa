"""Compiled kernels: functions that Numba compiles when an input is large enough, each with a twin that needs none.

Every kernel has a NumPy twin: its readable definition, the test oracle and what runs where
Numba is missing, switched off (``PILUM_NUMBA=0``) or not worth loading.  Importing Numba
costs about half a second and a kernel some milliseconds from its cache (a second when it has
never been compiled on this machine), so a kernel is loaded only when a single input is large
or small ones have added up.  A loaded kernel is used from a few kilobytes on.

Rules that this file keeps, so that kernels work in threads and across ``fork()``:

* One lock guards importing, compiling and loading.  A thread that finds it taken runs the
  NumPy twin instead of waiting.
* ``fork()`` waits for that lock, so no child inherits Numba's compiler in mid-flight.
* Each kernel has one explicit signature per use: calling it never compiles.
* Compiled functions release the GIL, unless a kernel is so short that handing it over costs more (``nogil``).
* Any failure to import, compile or cache falls back: no cache directory means compiling in
  memory, no Numba means NumPy.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from pilum import imports, turns

__all__ = ["Kernel", "enabled", "preload"]

FIRST_BYTES = 4 << 20  # a single input of this size loads Numba
SUM_BYTES = 256 << 20  # so do small inputs of all kernels that add up to this: Numba takes 0.6 s and 150 MiB
MORE_BYTES = 1 << 20  # with Numba in memory, one input of this size loads one more kernel
MORE_SUM = 4 << 20  # ... and so do small inputs of this kernel that add up to this: loading it takes 4 ms

switched_on = os.environ.get("PILUM_NUMBA", "1") != "0"

_lock = threading.RLock()
_kernels: list[Kernel] = []
_seen_by_all = 0  # bytes of inputs that NumPy processed before Numba was imported
_numba: Any = None  # the module, once imported; False when it cannot be used


def enabled() -> bool:
    """Whether Numba may be used: not switched off (read at import), not found missing."""
    return switched_on and _numba is not False


class Kernel:
    """One compiled function, loaded lazily.

    Args:
        function: plain Python that Numba can compile, arrays and scalars in, status out.
        signature: Numba signature; ``r.`` marks read-only inputs, e.g.
            ``"i8(r.u1, r.i8, u1)"``: 1-d contiguous arrays of that element type, ``r.f4[2]``
            for two dimensions, ``=i8`` for a scalar.
        fastmath: floating-point liberties to allow; never those that ignore NaN.
        small: below this many bytes the NumPy twin is as good, even when the kernel is loaded.
        nogil: release the GIL while it runs.
        externals: functions of the C library that it calls: its name for each -> a prototype in the same
            notation (``p`` is a pointer), e.g. ``{"c_close": "i4 close(i4)"}``.
        library: the shared library that has those functions, if not the C library; without it there is no kernel.
        helpers: plain functions that it calls, compiled into it: of its own file, which is what Numba's cache looks
            at, or of one whose functions do not change.
        companions: kernels that serve the same reads, loaded when it is found to be worth loading.
    """

    __slots__ = (
        "_failed", "_seen", "companions", "compiled", "externals", "fastmath", "function", "helpers", "library", "nogil",
        "signature", "small",
    )  # fmt: skip

    def __init__(
        self,
        function: Callable[..., Any],
        signature: str,
        *,
        fastmath: bool | set[str] = False,
        small: int = 4 << 10,
        nogil: bool = True,
        externals: Mapping[str, str] | None = None,
        library: str | None = None,
        helpers: Sequence[Callable[..., Any]] = (),
        companions: Sequence[Kernel] = (),
    ) -> None:
        self.function = function
        self.signature = signature
        self.fastmath = fastmath
        self.small = small
        self.nogil = nogil
        self.externals = externals
        self.library = library
        self.helpers = helpers
        self.companions = companions
        self.compiled: Callable[..., Any] | None = None
        self._failed = False
        self._seen = 0
        _kernels.append(self)

    @property
    def ready(self) -> bool:
        """Whether it is loaded, and may be used."""
        return self.compiled is not None and switched_on

    def get(self, nbytes: int) -> Callable[..., Any] | None:
        """The compiled function if it should process ``nbytes``, else None (use NumPy).

        Where the twin's work is not one of bytes, ``nbytes`` is what NumPy would do in that time, 1 GB/s.
        """
        global _seen_by_all
        compiled = self.compiled
        if nbytes < self.small or not switched_on:
            return None
        if compiled is not None:
            return compiled if nbytes < turns.LONG_KERNEL or not self.nogil else self._long
        if self._failed or _numba is False:
            return None
        self._seen += nbytes  # racy on purpose: these only have to be roughly right
        if _numba is None:
            _seen_by_all += nbytes
            worth = nbytes >= FIRST_BYTES or _seen_by_all >= SUM_BYTES
        else:
            worth = nbytes >= MORE_BYTES or self._seen >= MORE_SUM
        if not worth:
            return None
        for kernel in self.companions:
            kernel.load(wait=False)
        return self.load(wait=False)

    def _long(self, *args: Any) -> Any:
        """Call the compiled function and let other threads have their turn meanwhile."""
        compiled = self.compiled
        assert compiled is not None
        had = turns.leave()
        try:
            return compiled(*args)
        finally:
            turns.resume(had)

    def load(self, *, wait: bool = True) -> Callable[..., Any] | None:
        """Import Numba and compile, or load from its cache; None when that is impossible."""
        if not _lock.acquire(blocking=wait):
            return None
        try:
            if self.compiled is None and not self._failed and enabled():
                with imports.guard():  # compiling imports much of Numba
                    self.compiled = _compile(self)
                self._failed = self.compiled is None
            return self.compiled
        finally:
            _lock.release()


def preload() -> bool:
    """Load every kernel now (benchmarks, servers); False when Numba is not available.

    Kernels of a library that is missing do not count.
    """
    # all of them, also after a failure
    loaded = [kernel.load() is not None or kernel.library is not None for kernel in list(_kernels)]
    return all(loaded)


def _import_numba() -> Any:
    global _numba
    if _numba is None:
        try:
            numba = imports.load("numba")
        except Exception:  # missing, or broken for this NumPy: both mean "not available"
            _numba = False
        else:
            _numba = numba
    return _numba


_TYPES = {
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64", "i4": "int32", "i8": "int64",
    "f4": "float32", "f8": "float64", "p": "intp",
}  # fmt: skip


def _signature(text: str) -> Any:
    types = _numba.types

    def one(part: str) -> Any:
        part = part.strip()
        if part.startswith("="):
            return getattr(types, _TYPES[part[1:]])
        readonly = part.startswith("r.")
        part = part.removeprefix("r.")
        ndim = 1
        if part.endswith("]"):
            part, ndim = part[:-3], int(part[-2])
        # unaligned inputs are accepted everywhere: loads cost the same on current CPUs
        element = getattr(types, _TYPES[part])
        return types.Array(element, ndim, "C", readonly=readonly, aligned=not readonly)

    result, arguments = text.rstrip(")").split("(")
    back = types.void if result == "void" else one("=" + result)
    return back(*[one(part) for part in arguments.split(",")])


def _linked(kernel: Kernel) -> Callable[..., Any]:
    """The kernel's function with what it calls as globals; C functions are found by name when it is compiled."""
    function = kernel.function
    if not kernel.externals and not kernel.helpers:
        return function
    assert isinstance(function, FunctionType)
    symbols = {name: _external(prototype) for name, prototype in (kernel.externals or {}).items()}
    for helper in kernel.helpers:
        symbols[helper.__name__] = _numba.njit(helper, nogil=kernel.nogil, error_model="numpy")
    return FunctionType(function.__code__, {**function.__globals__, **symbols}, function.__name__)


def _external(prototype: str) -> Any:
    head, arguments = prototype.rstrip(")").split("(")
    result, name = head.split()
    types = _numba.types
    scalars = [getattr(types, _TYPES[part.strip()]) for part in arguments.split(",") if part]
    return types.ExternalFunction(name, getattr(types, _TYPES[result])(*scalars))


def _announced(kernel: Kernel) -> bool:
    """Tell LLVM where the functions of a kernel's library are: a name that it does not find ends the process.

    The library stays private: with its names in the process others that bring their own would call this one.
    """
    try:
        library = ctypes.CDLL(kernel.library)
        binding = imports.load("llvmlite.binding")
        for prototype in (kernel.externals or {}).values():
            name = prototype.split("(")[0].split()[1]
            binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    except (OSError, AttributeError, ImportError):
        return False
    return True


def _compile(kernel: Kernel) -> Callable[..., Any] | None:
    numba = _import_numba()
    if not numba:
        return None
    if kernel.library is not None and not _announced(kernel):
        return None
    options: dict[str, Any] = {"nogil": kernel.nogil, "fastmath": kernel.fastmath, "error_model": "numpy"}
    function = _linked(kernel)
    for cache in (True, False):
        try:
            compiled: Callable[..., Any] = numba.njit([_signature(kernel.signature)], cache=cache, **options)(
                function
            )
        except Exception:  # no writable cache directory, disk full, compiler trouble
            continue
        return compiled
    return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
