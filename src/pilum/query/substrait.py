"""Substrait's ExtendedExpression message -> expression tree, the part that pyarrow writes.

```
ExtendedExpression  2 extensions: function anchor -> name      3 referred_expr: the expression
Expression          1 literal | 2 field reference | 3 function call | 6 if-then | 8 value IN (…) | 11 cast
```

Protobuf's wire format is read directly (field numbers from substrait.io, `algebra.proto` and `type.proto`): the
twenty fields used here do not justify a generated module of the whole standard.  Covered: literals of all types
that pyarrow can write, references to columns and struct fields, calls, IF THEN, IN, casts.  What a
function name means is the caller's table.
"""

from __future__ import annotations

import datetime
import decimal
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError, PilumError, UnsupportedError
from pilum.query.expressions import Call, Cast, Column, Expression, Literal

__all__ = ["read_extended_expression"]

_Message = dict[int, list[Any]]
_Builder = Callable[[str, Sequence[Expression]], Expression]


def read_extended_expression(data: bytes, schema: pa.Schema, call: _Builder) -> Expression:
    """The expression in a message.

    Args:
        data: the serialized ``ExtendedExpression``.
        schema: the Arrow schema it was bound to; references are positions in it.
        call: makes a function call of Substrait's function name and the arguments.

    Raises:
        InvalidInputError: the bytes are no such message, or hold not exactly one expression.
        UnsupportedError: a kind of expression or literal that is not covered.
    """
    try:
        message = _fields(data)
        functions, extension_types = {}, {}
        for declaration in map(_fields, message.get(2, [])):
            for function in map(_fields, declaration.get(3, [])):
                functions[_number(function, 2)] = _text(function, 3).split(":", 1)[0]
            for kind in map(_fields, declaration.get(1, [])):
                extension_types[_number(kind, 2)] = _text(kind, 3)
        references = message.get(3, [])
        if len(references) != 1:
            raise InvalidInputError(f"a filter is one Substrait expression, not {len(references)}")
        expression = _fields(references[0]).get(1)
        if not expression:
            raise UnsupportedError("a Substrait measure as a filter")
        return _Reader(schema, functions, extension_types, call).expression(expression[0])
    except PilumError:
        raise
    except RecursionError:
        raise InvalidInputError("the expression is nested too deeply") from None
    except (LookupError, ValueError, TypeError, ArithmeticError, struct.error) as error:
        raise InvalidInputError(f"the Substrait message is damaged: {error}") from None


# --- the wire format ---------------------------------------------------------------------------------------


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
        if shift > 63:
            raise IndexError("a varint of more than ten bytes")


def _fields(data: Any) -> _Message:
    """Field number -> values in order: int for varints, memoryview for the rest."""
    view, position = memoryview(data), 0
    found: _Message = {}
    while position < len(view):
        key, position = _varint(view, position)
        wire = key & 7
        if wire == 0:
            value: Any
            value, position = _varint(view, position)
        else:
            if wire == 2:
                size, position = _varint(view, position)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise IndexError(f"wire type {wire}")
            value = view[position : position + size]
            position += size
            if position > len(view):
                raise IndexError("a field ends behind its message")
        found.setdefault(key >> 3, []).append(value)
    return found


def _number(message: _Message, field: int) -> int:
    value: int = message[field][-1] if field in message else 0
    return value


def _text(message: _Message, field: int) -> str:
    return bytes(message[field][-1]).decode() if field in message else ""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


# --- literals and types --------------------------------------------------------------------------------------

_EPOCH = datetime.date(1970, 1, 1)
_UNITS = {0: "s", 3: "ms", 6: "us", 9: "ns"}


def _of_ints(type_: pa.DataType) -> Callable[[Any], Literal]:
    """A literal counted in units: kept as an Arrow value, which loses nothing."""
    return lambda value: Literal(arrays.scalar(_signed(value), pa.int64()).cast(type_).as_py(), type_)


def _precise(zone: str | None) -> Callable[[Any], Literal]:
    def read(data: Any) -> Literal:
        message = _fields(data)
        unit = _UNITS.get(_number(message, 1))
        if unit is None:
            raise UnsupportedError(f"Substrait timestamps of precision {_number(message, 1)}")
        return _of_ints(pa.timestamp(unit, zone))(_number(message, 2))

    return read


def _decimal(data: Any) -> Literal:
    message = _fields(data)
    precision, scale = _number(message, 2), _number(message, 3)
    unscaled = int.from_bytes(bytes(message[1][0]), "little", signed=True)
    with decimal.localcontext(prec=76):
        value = decimal.Decimal(unscaled).scaleb(-scale)
    return Literal(value, pa.decimal128(precision, scale))


def _date(value: int) -> Literal:
    return Literal(_EPOCH + datetime.timedelta(days=_signed(value)), pa.date32())


def _typed(type_: pa.DataType, read: Callable[[Any], Any]) -> Callable[[Any], Literal]:
    return lambda value: Literal(read(value), type_)


_LITERALS: Mapping[int, Callable[[Any], Literal]] = {
    1: _typed(pa.bool_(), bool),
    2: _typed(pa.int8(), _signed),
    3: _typed(pa.int16(), _signed),
    5: _typed(pa.int32(), _signed),
    7: _typed(pa.int64(), _signed),
    10: _typed(pa.float32(), lambda data: struct.unpack("<f", data)[0]),
    11: _typed(pa.float64(), lambda data: struct.unpack("<d", data)[0]),
    12: _typed(pa.string(), lambda data: bytes(data).decode()),
    13: _typed(pa.binary(), bytes),
    14: _of_ints(pa.timestamp("us")),
    16: _date,
    17: _of_ints(pa.time64("us")),
    21: _typed(pa.string(), lambda data: bytes(data).decode()),
    22: _typed(pa.string(), lambda data: _text(_fields(data), 1)),
    23: _typed(pa.binary(), bytes),
    24: _decimal,
    27: _of_ints(pa.timestamp("us", "UTC")),
    34: _precise(None),
    35: _precise("UTC"),
}
_TYPES: Mapping[int, pa.DataType] = {
    1: pa.bool_(),
    2: pa.int8(),
    3: pa.int16(),
    5: pa.int32(),
    7: pa.int64(),
    10: pa.float32(),
    11: pa.float64(),
    12: pa.string(),
    13: pa.binary(),
    14: pa.timestamp("us"),
    16: pa.date32(),
    17: pa.time64("us"),
    29: pa.timestamp("us", "UTC"),
}
_EXTENSION_TYPES: Mapping[str, pa.DataType] = {
    "u8": pa.uint8(),
    "u16": pa.uint16(),
    "u32": pa.uint32(),
    "u64": pa.uint64(),
    "fp16": pa.float16(),
    "large_string": pa.large_string(),
    "large_binary": pa.large_binary(),
    "null": pa.null(),
    "date_millis": pa.date64(),
    "time_seconds": pa.time32("s"),
    "time_millis": pa.time32("ms"),
    "time_nanos": pa.time64("ns"),
}


class _Reader:
    def __init__(
        self, schema: pa.Schema, functions: Mapping[int, str], types: Mapping[int, str], call: _Builder
    ) -> None:
        self._schema = schema
        self._functions = functions
        self._types = types
        self._call = call

    def expression(self, data: Any) -> Expression:
        ((kind, (body, *_)), *_rest) = _fields(data).items()
        reader = _KINDS.get(kind)
        if reader is None:
            raise UnsupportedError(f"Substrait expressions of kind {kind}")
        return reader(self, _fields(body))

    def literal(self, message: _Message) -> Expression:
        for field, values in message.items():
            if field in _LITERALS:
                return _LITERALS[field](values[-1])
            if field == 29:
                return Literal(None)
            if field == 30:
                return Call("make_array", tuple(self._item(item) for item in _fields(values[-1]).get(1, [])))
            if field == 33:
                return self._extension(_fields(values[-1]))
            if field not in (50, 51):  # nullable, type variation
                raise UnsupportedError(f"Substrait literals of kind {field}")
        raise InvalidInputError("a Substrait literal without a value")

    def _item(self, data: Any) -> Expression:
        return self.literal(_fields(data))

    def _extension(self, message: _Message) -> Literal:
        """A literal of a type that Substrait lacks: an `Any` that wraps one of protobuf's own values."""
        name = self._types.get(_number(message, 1), "?")
        type_ = _EXTENSION_TYPES.get(name)
        inner = message.get(3) or message.get(2)
        if type_ is None or not inner:
            raise UnsupportedError(f"Substrait literals of the extension type {name}")
        wrapped = _fields(_fields(inner[-1]).get(2, [b""])[-1])
        value: Any = wrapped[1][-1] if 1 in wrapped else 0
        if pa.types.is_large_string(type_):
            return Literal(bytes(value or b"").decode(), type_)
        if pa.types.is_large_binary(type_):
            return Literal(bytes(value or b""), type_)
        if not pa.types.is_integer(type_):
            raise UnsupportedError(f"Substrait literals of the extension type {name}")
        return Literal(value, type_)

    def selection(self, message: _Message) -> Expression:
        if 1 not in message or 3 in message:
            raise UnsupportedError("Substrait references other than to columns and their fields")
        path: list[str] = []
        container: Any = self._schema
        segment = _fields(message[1][-1])
        while True:
            if 2 not in segment:
                raise UnsupportedError("Substrait references into maps and lists")
            step = _fields(segment[2][-1])
            position = _number(step, 1)
            fields = [container.field(index) for index in range(_width(container))]
            if position >= len(fields):
                raise InvalidInputError(f"a Substrait reference to field {position} of {len(fields)}")
            path.append(fields[position].name)
            if 2 not in step:
                return Column(tuple(path), quoted=True)
            container = fields[position].type
            segment = _fields(step[2][-1])

    def function(self, message: _Message) -> Expression:
        name = self._functions.get(_number(message, 1))
        if name is None:
            raise InvalidInputError(f"a Substrait call of the undeclared function {_number(message, 1)}")
        arguments = [_fields(argument) for argument in message.get(4, [])]
        values = [self.expression(argument[3][-1]) for argument in arguments if 3 in argument]
        return self._call(name, values or [self.expression(argument) for argument in message.get(2, [])])

    def if_then(self, message: _Message) -> Expression:
        args: list[Expression] = []
        for clause in map(_fields, message.get(1, [])):
            args += [self.expression(clause[1][-1]), self.expression(clause[2][-1])]
        args.append(self.expression(message[2][-1]) if 2 in message else Literal(None))
        return Call("case", tuple(args))

    def in_list(self, message: _Message) -> Expression:
        options = [self.expression(option) for option in message.get(2, [])]
        if not options:
            return Literal(False)
        return Call("in", (self.expression(message[1][-1]), *options))

    def cast(self, message: _Message) -> Expression:
        type_ = self._type(_fields(message[1][-1]))
        return Cast(self.expression(message[2][-1]), type_, optional=_number(message, 3) == 1)

    def _type(self, message: _Message) -> pa.DataType:
        ((kind, (body, *_)), *_rest) = message.items()
        if kind in _TYPES:
            return _TYPES[kind]
        if kind == 31:  # a reference by anchor
            name = self._types.get(_number(_fields(body), 1), "?")
        else:
            parameters = _fields(body) if not isinstance(body, int) else {}
            if kind == 24:
                return pa.decimal128(_number(parameters, 2), _number(parameters, 1))
            if kind in (33, 34) and _number(parameters, 1) in _UNITS:
                return pa.timestamp(_UNITS[_number(parameters, 1)], "UTC" if kind == 34 else None)
            name = f"of kind {kind}"
        if name in _EXTENSION_TYPES:
            return _EXTENSION_TYPES[name]
        raise UnsupportedError(f"casts to the Substrait type {name}")


_KINDS: Mapping[int, Callable[[_Reader, _Message], Expression]] = {
    1: _Reader.literal,
    2: _Reader.selection,
    3: _Reader.function,
    6: _Reader.if_then,
    8: _Reader.in_list,
    11: _Reader.cast,
}


def _width(container: Any) -> int:
    if isinstance(container, pa.Schema):
        return len(container)
    if pa.types.is_struct(container):
        return int(container.num_fields)
    raise UnsupportedError(f"a Substrait reference into a column of type {container}")
