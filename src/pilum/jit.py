"""Compiled kernels: functions that Numba compiles when an input is large enough, each with a twin that needs none.

Every kernel has a NumPy twin: its readable definition, the test oracle and what runs where Numba is missing, switched
off (``PILUM_NUMBA=0``) or not worth loading.  Numba compiles a kernel once; its machine code is kept on disk and loaded
by later processes without Numba (`pilum.native`), which takes 0.15 ms and some kilobytes, so that it is worth it almost
at once.  What has never been compiled on this machine takes importing Numba (0.6 s and 150 MiB) and up to a second: that
is done for large inputs only, or when small ones have added up.  `preload` compiles everything.  A loaded kernel is used
from a few kilobytes on.

Rules that this file keeps, so that kernels work in threads and across ``fork()``:

* One lock guards importing, compiling and loading.  A thread that finds it taken runs the
  NumPy twin instead of waiting.
* ``fork()`` waits for that lock, so no child inherits Numba's compiler in mid-flight.
* Each kernel has one explicit signature per use: calling it never compiles.
* Compiled functions release the GIL, unless a kernel is so short that handing it over costs more (``nogil``).
* Any failure to read, load, import, compile or write falls back: no machine code means compiling, in memory if there is
  no folder for it; where it cannot be made, Numba calls the function itself; no Numba means NumPy.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pilum import imports, turns
from pilum.native.source import Source

__all__ = ["Kernel", "enabled", "preload"]

# Of a kernel whose machine code is on disk.  NumPy takes no longer over them than loading does, but a first input is
# seldom the last.
FIRST_SUM = 256 << 10  # inputs of all kernels that add up to this: the first one costs 1.7 ms
LOAD_SUM = 32 << 10  # inputs of this kernel: 0.15 ms

# Of one that has to be compiled.
NUMBA_BYTES = 4 << 20  # a single input of this size loads Numba
NUMBA_SUM = 256 << 20  # so do small inputs of all kernels that add up to this: Numba takes 0.6 s and 150 MiB
MORE_BYTES = 1 << 20  # with Numba in memory, one input of this size loads one more kernel
MORE_SUM = 4 << 20  # ... and so do small inputs of this kernel that add up to this

switched_on = os.environ.get("PILUM_NUMBA", "1") != "0"

_lock = threading.RLock()
_kernels: list[Kernel] = []
_seen_by_all = 0  # bytes of inputs that NumPy processed
_opened = False  # machine code has been looked for on disk
_numba: Any = None  # the module, once imported; False when it cannot be used


def enabled() -> bool:
    """Whether Numba may be used: not switched off (read at import), not found missing."""
    return switched_on and _numba is not False


class Kernel(Source):
    """One compiled function, loaded lazily.

    Args:
        function: plain Python that Numba can compile, arrays and scalars in, status out.
        signature: as `pilum.native.signature` says; ``r.`` marks read-only inputs, e.g.
            ``"i8(r.u1, r.i8, u1)"``: 1-d contiguous arrays of that element type, ``r.f4[2]``
            for two dimensions, ``=i8`` for a scalar.
        fastmath: floating-point liberties to allow; never those that ignore NaN.
        small: below this many bytes the NumPy twin is as good, even when the kernel is loaded.
        nogil: release the GIL while it runs.
        externals: functions of the C library that it calls: its name for each -> a prototype in the same
            notation (``p`` is a pointer), e.g. ``{"c_close": "i4 close(i4)"}``.
        library: the shared library that has those functions, if not the C library; without it there is no kernel.
        helpers: plain functions that it calls, compiled into it.
        companions: kernels that serve the same reads, loaded when it is found to be worth loading.
    """

    __slots__ = ("_failed", "_seen", "_unkept", "companions", "compiled", "small")

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
        super().__init__(function, signature, fastmath, nogil, externals, library, helpers)
        self.small = small
        self.companions = companions
        self.compiled: Callable[..., Any] | None = None
        self._unkept = False  # there is no machine code of it on disk
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
        if self._failed:
            return None
        self._seen += nbytes  # racy on purpose: these only have to be roughly right
        _seen_by_all += nbytes
        if not self._unkept:
            if self._seen < LOAD_SUM or not (_opened or _seen_by_all >= FIRST_SUM):
                return None
            for kernel in self.companions:
                kernel._fetch()
            compiled = self._fetch()
            if compiled is not None or not self._unkept:
                return compiled
        if _numba is False:
            return None
        if _numba is None:
            worth = nbytes >= NUMBA_BYTES or _seen_by_all >= NUMBA_SUM
        else:
            worth = nbytes >= MORE_BYTES or self._seen >= MORE_SUM
        if not worth:
            return None
        for kernel in self.companions:
            kernel.load(wait=False)
        return self.load(wait=False)

    def _fetch(self) -> Callable[..., Any] | None:
        """Load the machine code that is kept, unless another thread is at it; None if there is none."""
        if self.compiled is None and not self._unkept and _lock.acquire(blocking=False):
            try:
                self._read()
            finally:
                _lock.release()
        return self.compiled

    def _read(self) -> None:
        """Load the machine code that is kept, with the lock held."""
        global _opened
        _opened = True
        try:
            code = imports.load("pilum.native.cache").read(self)
            if self.compiled is None and code is not None:
                self.compiled = imports.load("pilum.native.loader").load_code(self, code)
        except Exception:  # nothing of this is worth a failed query
            pass
        self._unkept = self.compiled is None

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
        """Load the machine code that is kept, or import Numba and compile; None when that is impossible."""
        if not _lock.acquire(blocking=wait):
            return None
        try:
            if self.compiled is None and not self._failed and enabled():
                self._read()  # once more: another process may have compiled it meanwhile
                if self.compiled is None:
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


def _compile(kernel: Kernel) -> Callable[..., Any] | None:
    """Compile a kernel and keep its machine code; as Numba's own function where that does not work."""
    if not _import_numba():
        return None
    compiler = imports.load("pilum.native.compiler")
    compiled: Callable[..., Any] | None = None
    try:
        code = compiler.compile_code(kernel)
        if code is not None:
            compiled = imports.load("pilum.native.loader").load_code(kernel, code)
        if compiled is not None:
            imports.load("pilum.native.cache").write(kernel, code)
    except Exception:  # another version of Numba inside, compiler trouble
        pass
    return compiled or compiler.compile_with_numba(kernel)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
