"""The entry of a kernel: a C function that Python calls like a built-in one, and that calls the compiled function.

    entry(self, arguments, count) -> object              as METH_FASTCALL says

It reads where an array's data is and how long it is from the array object itself, whose layout is part of NumPy's
binary interface, after having checked that the object is an array and the one that the signature asks for.  Whatever
does not fit ends in a TypeError that names the argument.  16 arguments take 0.1 µs; through ctypes, which converts
each of them first, 1.8 µs before anything is checked (1.0 µs as addresses), and 0.6 µs through Numba's own dispatcher.

    PyArrayObject    head | data | i32 dimensions | shape | strides | base | element | i32 flags
    PyArray_Descr    head | type | kind, letter, byte order, flags | i32 number
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.np import arrayobj

from pilum.native.signature import TYPES, Argument
from pilum.native.symbols import NDARRAY, NONE, RUNTIME_ERROR, TYPE_ERROR

__all__ = ["write_entry"]

_POINTER = np.dtype(np.intp).itemsize
_HEAD = object.__basicsize__
_TYPE = _HEAD - _POINTER
_DATA, _NDIM, _SHAPE, _ELEMENT, _FLAGS = (_HEAD + k * _POINTER for k in (0, 1, 2, 5, 6))
_ORDER, _NUMBER = _HEAD + _POINTER + 2, _HEAD + _POINTER + 4
_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_WORD = ir.IntType(8 * _POINTER)
_OBJECT = _I8.as_pointer()


def write_entry(
    module: ir.Module,
    name: str,
    compiled: Any,
    arguments: Sequence[Argument],
    title: str,
    *,
    nogil: bool,
) -> None:
    """Add the entry of a compiled function to a module.

    Args:
        module: where to add it.
        name: of the entry.
        compiled: Numba's result: the function's name, its types and how it is called.
        arguments: of the kernel's signature.
        title: what errors call the kernel.
        nogil: let go of the GIL while the function runs.
    """
    _Entry(module, name, compiled, arguments, title).write(nogil)


class _Entry:
    def __init__(
        self, module: ir.Module, name: str, compiled: Any, arguments: Sequence[Argument], title: str
    ) -> None:
        self.module = module
        self.compiled = compiled
        self.arguments = arguments
        kind = ir.FunctionType(_OBJECT, (_OBJECT, _OBJECT.as_pointer(), _WORD))
        self.function = ir.Function(module, kind, name)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.wrong = self.function.append_basic_block("wrong")
        self.raised = self.function.append_basic_block("raised")
        ir.IRBuilder(self.raised).ret(ir.Constant(_OBJECT, None))
        self._write_errors(title)

    def write(self, nogil: bool) -> None:
        builder = self.builder
        _, given, count = self.function.args
        self._expect(builder.icmp_signed("==", count, _WORD(len(self.arguments))), len(self.arguments))
        objects = [
            builder.load(builder.gep(given, [_I32(position)])) for position in range(len(self.arguments))
        ]
        values: list[Any] = [None] * len(objects)
        # Numbers first: asking one for its value may run Python code.
        for wanted in (0, 1):
            for position, (argument, one) in enumerate(zip(self.arguments, objects, strict=True)):
                if bool(argument.ndim) == bool(wanted):
                    values[position] = self._array(position, one) if wanted else self._number(position, one)
        state = builder.call(self._python("PyEval_SaveThread", _OBJECT), ()) if nogil else None
        described = self.compiled.fndesc
        context = self.compiled.target_context
        convention = context.call_conv
        callee = ir.Function(
            self.module,
            convention.get_function_type(described.restype, described.argtypes),
            described.llvm_func_name,
        )
        status, result = convention.call_function(
            builder, callee, described.restype, described.argtypes, values
        )
        if state is not None:
            builder.call(self._python("PyEval_RestoreThread", ir.VoidType(), _OBJECT), (state,))
        self._expect(status.is_ok, len(self.arguments) + 1)
        builder.ret(self._result(result))

    def _array(self, position: int, one: Any) -> Any:
        builder, argument = self.builder, self.arguments[position]
        kind = builder.ptrtoint(self._field(one, _TYPE, _OBJECT), _WORD)
        self._expect(
            builder.icmp_unsigned("==", kind, builder.ptrtoint(self._object(NDARRAY), _WORD)), position
        )
        flags = _CONTIGUOUS | (0 if argument.readonly else _ALIGNED | _WRITEABLE)
        found = builder.and_(self._field(one, _FLAGS, _I32), _I32(flags))
        right = builder.icmp_unsigned("==", found, _I32(flags))
        ndim = self._field(one, _NDIM, _I32)
        right = builder.and_(right, builder.icmp_unsigned("==", ndim, _I32(argument.ndim)))
        element = self._field(one, _ELEMENT, _OBJECT)
        foreign = ord(np.dtype(np.int32).newbyteorder("S").byteorder)
        order = builder.icmp_unsigned("!=", self._field(element, _ORDER, _I8), _I8(foreign))
        number = self._field(element, _NUMBER, _I32)
        known = [builder.icmp_unsigned("==", number, _I32(one)) for one in _numbers(argument.element)]
        any_of = known[0]
        for more in known[1:]:
            any_of = builder.or_(any_of, more)
        self._expect(builder.and_(right, builder.and_(order, any_of)), position)

        itemsize = np.dtype(TYPES[argument.element]).itemsize
        shape = self._field(one, _SHAPE, _WORD.as_pointer())
        sizes = [builder.load(builder.gep(shape, [_I32(axis)])) for axis in range(argument.ndim)]
        steps = [_WORD(itemsize)]
        for size in reversed(sizes[1:]):
            steps.insert(0, builder.mul(steps[0], size))
        context, kind = self.compiled.target_context, self.compiled.fndesc.argtypes[position]
        array = arrayobj.make_array(kind)(context, builder)
        arrayobj.populate_array(
            array,
            data=builder.bitcast(self._field(one, _DATA, _OBJECT), array.data.type),
            shape=sizes,
            strides=steps,
            itemsize=_WORD(itemsize),
            meminfo=None,
        )
        return array._getvalue()

    def _number(self, position: int, one: Any) -> Any:
        builder, argument = self.builder, self.arguments[position]
        dtype = np.dtype(TYPES[argument.element])
        if dtype.kind == "f":
            value = builder.call(self._python("PyFloat_AsDouble", ir.DoubleType(), _OBJECT), (one,))
            self._check_raised(builder.fcmp_ordered("==", value, ir.DoubleType()(-1.0)))
            return value if dtype.itemsize == 8 else builder.fptrunc(value, ir.FloatType())
        value = builder.call(self._python("PyLong_AsLongLong", _I64, _OBJECT), (one,))
        self._check_raised(builder.icmp_signed("==", value, _I64(-1)))
        if dtype.itemsize == 8:
            assert dtype.kind == "i"
            return value
        narrow = builder.trunc(value, ir.IntType(8 * dtype.itemsize))
        back = builder.sext(narrow, _I64) if dtype.kind == "i" else builder.zext(narrow, _I64)
        self._expect(builder.icmp_signed("==", value, back), position)
        return narrow

    def _check_raised(self, suspect: Any) -> None:
        """-1 is a value, or an error."""
        with self.builder.if_then(suspect, likely=False):
            raised = self.builder.call(self._python("PyErr_Occurred", _OBJECT), ())
            onward = self.builder.append_basic_block()
            fine = self.builder.icmp_unsigned("==", raised, ir.Constant(_OBJECT, None))
            self.builder.cbranch(fine, onward, self.raised)
            self.builder.position_at_end(onward)

    def _result(self, value: Any) -> Any:
        builder, kind = self.builder, self.compiled.fndesc.restype
        if str(kind) == "none":
            none = self._object(NONE)
            builder.call(self._python("Py_IncRef", ir.VoidType(), _OBJECT), (none,))
            return none
        dtype = np.dtype(str(kind))
        if dtype.kind == "f":
            wide = value if dtype.itemsize == 8 else builder.fpext(value, ir.DoubleType())
            return builder.call(self._python("PyFloat_FromDouble", _OBJECT, ir.DoubleType()), (wide,))
        if dtype.kind == "u":
            wide = value if dtype.itemsize == 8 else builder.zext(value, _I64)
            return builder.call(self._python("PyLong_FromUnsignedLongLong", _OBJECT, _I64), (wide,))
        wide = value if dtype.itemsize == 8 else builder.sext(value, _I64)
        return builder.call(self._python("PyLong_FromLongLong", _OBJECT, _I64), (wide,))

    def _write_errors(self, title: str) -> None:
        """The block that raises, with the number of the error as its input."""
        texts = [f"{title}: argument {k} must be {one}" for k, one in enumerate(self.arguments, 1)]
        texts += [f"{title}: takes {len(self.arguments)} arguments", f"{title}: the compiled function failed"]
        rows = [text.encode() + b"\0" for text in texts]
        width = max(map(len, rows))
        table = bytearray(b"".join(row.ljust(width, b"\0") for row in rows))
        kept = ir.GlobalVariable(self.module, ir.ArrayType(_I8, len(table)), f"{self.function.name}_errors")
        kept.initializer, kept.linkage, kept.global_constant = (
            ir.Constant(kept.type.pointee, table),
            "internal",
            True,
        )
        builder = ir.IRBuilder(self.wrong)
        self.error = builder.phi(_I32)
        text = builder.gep(builder.bitcast(kept, _OBJECT), [builder.mul(self.error, _I32(width))])
        failed = builder.icmp_unsigned("==", self.error, _I32(len(texts) - 1))
        kind = builder.select(failed, self._object(RUNTIME_ERROR), self._object(TYPE_ERROR))
        builder.call(self._python("PyErr_SetString", ir.VoidType(), _OBJECT, _OBJECT), (kind, text))
        builder.branch(self.raised)

    def _expect(self, condition: Any, error: int) -> None:
        """Go on if the condition holds, else raise."""
        onward = self.builder.append_basic_block()
        self.builder.cbranch(condition, onward, self.wrong)
        self.error.add_incoming(_I32(error), self.builder.block)
        self.builder.position_at_end(onward)

    def _field(self, one: Any, offset: int, kind: Any) -> Any:
        place = self.builder.gep(one, [_I32(offset)])
        return self.builder.load(self.builder.bitcast(place, kind.as_pointer()))

    def _object(self, name: str) -> Any:
        if name not in self.module.globals:
            ir.GlobalVariable(self.module, _I8, name)
        return self.module.globals[name]

    def _python(self, name: str, result: Any, *arguments: Any) -> Any:
        if name not in self.module.globals:
            ir.Function(self.module, ir.FunctionType(result, arguments), name)
        return self.module.globals[name]


def _numbers(element: str) -> list[int]:
    """NumPy's numbers of the types that are this element: 64-bit integers are `long` or `long long`."""
    wanted = np.dtype(TYPES[element])
    kinds = [np.dtype(letter) for letter in "bBhHiIlLqQfd"]
    return sorted({one.num for one in kinds if (one.kind, one.itemsize) == (wanted.kind, wanted.itemsize)})
