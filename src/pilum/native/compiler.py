"""From a plain function to machine code: Numba compiles it, `entry` puts a function in front that Python can call."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

from pilum.native.code import Code
from pilum.native.entry import write_entry
from pilum.native.image import link
from pilum.native.signature import TYPES, Argument, parse, parse_prototype
from pilum.native.source import Source
from pilum.native.symbols import SUPPORTED, announce

__all__ = ["compile_code", "compile_object", "compile_with_numba"]


def compile_code(source: Source) -> Code | None:
    """The machine code of a function, as an image where that is possible; None if it calls what is not there."""
    code = compile_object(source)
    return None if code is None else link(code) or code


def compile_object(source: Source) -> Code | None:
    """The same, as an object file.

    Relies on parts of Numba that are not public; whatever it raises means that the caller compiles another way.
    """
    if not SUPPORTED or not announce(source):
        return None
    options = {**_options(source), "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = numba.njit(**options)(_linked(source))
    signature = _signature(source.signature)
    compiled = dispatcher._compiler.compile(signature.args, signature.return_type)
    _, arguments = parse(source.signature)
    with global_compiler_lock:
        library = compiled.library.codegen.create_library(compiled.fndesc.llvm_func_name)
        library.enable_object_caching()
        module = library.create_ir_module("entry")
        name = f"pilum_{compiled.fndesc.llvm_func_name}"
        write_entry(module, name, compiled, arguments, source.function.__name__, nogil=source.nogil)
        library.add_ir_module(module)
        library.add_linking_library(compiled.library)
        library.finalize()
        _, _, (content, _) = library.serialize_using_object_code()
        final = library._final_module
        needed = [*final.functions, *final.global_variables]
        names = [one.name for one in needed if one.is_declaration and not one.name.startswith("llvm.")]
    return Code(content, name, names, [])


def compile_with_numba(source: Source) -> Any:
    """The function as Numba calls it itself, from its own cache if it can; None if it cannot be compiled."""
    if source.library and not announce(source):
        return None
    for cache in (True, False):
        try:
            return numba.njit([_signature(source.signature)], cache=cache, **_options(source))(
                _linked(source)
            )
        except Exception:  # no writable cache directory, disk full, compiler trouble
            continue
    return None


def _options(source: Source) -> dict[str, Any]:
    return {"nogil": source.nogil, "fastmath": source.fastmath, "error_model": "numpy"}


def _signature(text: str) -> Any:
    result, arguments = parse(text)
    back = numba.types.void if result == "void" else _scalar(result)
    return back(*map(_type, arguments))


def _scalar(element: str) -> Any:
    return getattr(numba.types, TYPES[element])


def _type(argument: Argument) -> Any:
    element = _scalar(argument.element)
    if not argument.ndim:
        return element
    # unaligned inputs are accepted everywhere: loads cost the same on current CPUs
    readonly = argument.readonly
    return numba.types.Array(element, argument.ndim, "C", readonly=readonly, aligned=not readonly)


def _linked(source: Source) -> Any:
    """The function with what it calls as globals; C functions are found by name when it is compiled."""
    function = source.function
    if not source.externals and not source.helpers:
        return function
    assert isinstance(function, FunctionType)
    symbols = {name: _external(prototype) for name, prototype in source.externals.items()}
    for helper in source.helpers:
        symbols[helper.__name__] = numba.njit(helper, nogil=source.nogil, error_model="numpy")
    return FunctionType(function.__code__, {**function.__globals__, **symbols}, function.__name__)


def _external(prototype: str) -> Any:
    told = parse_prototype(prototype)
    return numba.types.ExternalFunction(told.name, _scalar(told.result)(*map(_scalar, told.arguments)))
