"""What the tables of functions are made of: arity, and arguments brought to the type a kernel takes.

A function is a builder: bound arguments in, one bound node out, all checks made on the way.  The tables of
`string_functions`, `number_functions`, … map SQL names to builders; `functions` joins them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.query.coercion import cast, is_binary, is_number, is_string
from pilum.query.expressions import Apply, Bound, Constant, fold
from pilum.query.vectors import per_distinct

__all__ = [
    "ANY",
    "Function",
    "Table",
    "apply",
    "fixed_integer",
    "fixed_text",
    "floating",
    "integer",
    "null",
    "per_value",
    "text",
]

ANY = 1 << 30


@dataclass(frozen=True, slots=True)
class Function:
    """A builder and how many arguments it takes (``most`` defaults to ``least``)."""

    build: Callable[..., Bound]
    least: int = 1
    most: int = 0

    def bind(self, name: str, args: list[Bound]) -> Bound:
        """Build the call after checking the number of arguments."""
        most = max(self.least, self.most)
        if not self.least <= len(args) <= most:
            wanted = str(self.least) if most == self.least else f"{self.least} to {most}"
            if most == ANY:
                wanted = f"at least {self.least}"
            raise InvalidInputError(f"{name} takes {wanted} argument(s), not {len(args)}")
        return self.build(*args)


Table = dict[str, Function]


def apply(name: str, args: tuple[Bound, ...], type_: pa.DataType, kernel: Callable[..., Any]) -> Bound:
    """A call of ``kernel`` on ``args``, or its value when all of them are constants."""
    return fold(Apply(name, args, type_, kernel))


def null(type_: pa.DataType) -> Constant:
    """The null of a type."""
    return Constant(arrays.scalar(None, type_))


def text(argument: Bound, name: str) -> Bound:
    """The argument as text; numbers, dates and lists are written out."""
    if is_string(argument.type):
        return argument
    if is_binary(argument.type) or pa.types.is_struct(argument.type):
        raise InvalidInputError(f"{name} needs text, not {argument.type}")
    return cast(argument, pa.string())


def floating(argument: Bound, name: str) -> Bound:
    """The argument as float32 where it is one, else as float64."""
    if pa.types.is_float32(argument.type) or pa.types.is_float64(argument.type):
        return argument
    if pa.types.is_float16(argument.type):
        return cast(argument, pa.float32())
    if is_number(argument.type) or pa.types.is_null(argument.type):
        return cast(argument, pa.float64())
    raise InvalidInputError(f"{name} needs a number, not {argument.type}")


def integer(argument: Bound, name: str) -> Bound:
    """The argument as int64."""
    if pa.types.is_integer(argument.type) or pa.types.is_null(argument.type):
        return cast(argument, pa.int64())
    raise InvalidInputError(f"{name} needs an integer, not {argument.type}")


def _fixed(argument: Bound, name: str, what: str, kind: type) -> Any:
    if not isinstance(argument, Constant):
        raise UnsupportedError(f"{name} with a {what} that differs from row to row; it must be constant")
    value = argument.value
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise InvalidInputError(f"the {what} of {name} is {value!r}; it must be of type {kind.__name__}")
    return value


def fixed_text(argument: Bound, name: str, what: str) -> str | None:
    """The value of a constant text argument; None for null."""
    value: str | None = _fixed(argument, name, what, str)
    return value


def fixed_integer(argument: Bound, name: str, what: str) -> int | None:
    """The value of a constant integer argument; None for null."""
    value: int | None = _fixed(argument, name, what, int)
    return value


def per_value(
    name: str, type_: pa.DataType, function: Callable[..., Any], *args: Bound, null_in: bool = False
) -> Bound:
    """A call that runs a Python function once per distinct combination of arguments."""
    return fold(
        Apply(name, args, type_, lambda *operands: per_distinct(function, type_, *operands, null_in=null_in))
    )
