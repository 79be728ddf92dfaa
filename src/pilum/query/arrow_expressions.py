"""`pyarrow.compute.Expression` -> expression tree (spec api.md, section 10.7).

pyarrow shows its expressions to nobody except as a Substrait message, which it writes after binding them to a schema
and casting operands to Arrow's liking; casts that keep values safe are the one thing it cannot write.  So it is
shown a simpler schema than the real one, in which few casts are needed: integers are 64 bits, dictionaries are their
values, timestamps count microseconds.  References are positions, so the names come out the same, and our own binding
decides about types again.  Where an integer or a float32 meets a float, all numbers are shown as float64.

Covered: columns and struct fields, literals, comparisons, and / or / not / xor, is_null, is_valid, is_nan, isin,
arithmetic, unsafe casts, if_else, case_when, coalesce, and the functions in the table below.  Arrow's options do not
travel (except where a function has another name for them); what depends on one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import pyarrow as pa

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.query.expressions import Call, Cast, Expression, Literal
from pilum.query.substrait import read_extended_expression
from pilum.query.system import SYSTEM_TYPES

__all__ = ["read_arrow_expression"]

types = pa.types


def read_arrow_expression(expression: pa.compute.Expression, schema: pa.Schema) -> Expression:
    """The tree of a pyarrow expression on a table with this schema (and the system columns).

    Raises:
        InvalidInputError: a column that the schema does not have.
        UnsupportedError: a function or type that cannot be read; the message names it.
    """
    if "ignore_case=true" in str(expression):  # pyarrow would drop it and answer another question
        raise UnsupportedError(f"ignore_case in a pyarrow expression ({expression}); use ILIKE in SQL text")
    shown = _shown(schema, pa.int64())
    try:
        message = expression.to_substrait(shown, allow_arrow_extensions=True)
    except _REFUSALS as error:
        refusal = _explained(expression, shown, str(error).splitlines()[0])
    else:
        return read_extended_expression(bytes(message), shown, _call)
    shown = _shown(schema, pa.float64())
    try:
        message = expression.to_substrait(shown, allow_arrow_extensions=True)
    except _REFUSALS:
        raise refusal from None
    return _integers_again(read_extended_expression(bytes(message), shown, _call), refusal)


_REFUSALS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError)


def _shown(schema: pa.Schema, number: pa.DataType) -> pa.Schema:
    """The schema as pyarrow gets to see it; ``number``: what integers look like."""
    fields = [pa.field(field.name, _simplified(field.type, number)) for field in schema]
    fields += [pa.field(name, number) for name in SYSTEM_TYPES if name not in schema.names]
    return pa.schema(fields)


_ORDERED = frozenset({"=", "!=", "<", "<=", ">", ">=", "in"})
_ARITHMETIC = frozenset({"/", "+", "-", "*", "power"})


def _integers_again(expression: Expression, refusal: Exception) -> Expression:
    """Undo what showing integers as floats did: whole numbers beside a column are integers, so nothing is rounded.

    Arithmetic is refused: 5 / 2 is 2 for integers, and which ones were integers can no longer be told.
    """
    if isinstance(expression, Cast):
        return Cast(_integers_again(expression.operand, refusal), expression.type, expression.optional)
    if not isinstance(expression, Call):
        return expression
    if expression.name in _ARITHMETIC:
        raise refusal
    args = tuple(_integers_again(argument, refusal) for argument in expression.args)
    if expression.name in _ORDERED:
        args = tuple(_whole(argument) for argument in args)
    return Call(expression.name, args)


def _whole(argument: Expression) -> Expression:
    value = argument.value if isinstance(argument, Literal) else None
    if isinstance(value, float) and value.is_integer() and abs(value) <= 1 << 53:
        return Literal(int(value), pa.int64())
    return argument


def _explained(expression: pa.compute.Expression, schema: pa.Schema, problem: str) -> Exception:
    missing = re.match(r"No match for FieldRef\.(?:Name\((.*?)\)|(\S+))", problem)
    if missing:
        name = missing.group(1) or missing.group(2)
        near = get_close_matches(name, schema.names, 1, 0.5)
        return InvalidInputError(
            f"no column named {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" (in {expression})"
        )
    return UnsupportedError(f"pyarrow cannot hand over {expression}: {problem}; write the filter as SQL text")


def _simplified(type_: pa.DataType, number: pa.DataType) -> pa.DataType:
    if isinstance(type_, pa.BaseExtensionType):
        return _simplified(type_.storage_type, number)
    if types.is_dictionary(type_):
        return _simplified(type_.value_type, number)
    if types.is_struct(type_):
        return pa.struct([pa.field(field.name, _simplified(field.type, number)) for field in type_])
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return pa.list_(_simplified(type_.value_type, number))
    if types.is_floating(type_):
        return number if types.is_floating(number) else pa.float32() if types.is_float16(type_) else type_
    if types.is_decimal(type_) and types.is_floating(number):
        return number
    if types.is_integer(type_):
        return type_ if types.is_uint64(type_) and types.is_integer(number) else number
    for test, simple in _SIMPLE:
        if test(type_):
            return simple
    if types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz)
    if types.is_boolean(type_) or types.is_date32(type_) or types.is_decimal128(type_):
        return type_
    return pa.binary()  # nothing that Substrait knows: enough for is_null


_SIMPLE: Sequence[tuple[Callable[[pa.DataType], bool], pa.DataType]] = (
    (types.is_large_string, pa.string()),
    (types.is_string, pa.string()),
    (types.is_time, pa.time64("us")),
    (types.is_date64, pa.date32()),
)


# --- functions by Substrait's or Arrow's name --------------------------------------------------------------


def _call(name: str, args: Sequence[Expression]) -> Expression:
    same = _RENAMED.get(name)
    if same is not None:
        return Call(same, tuple(args))
    part = _DATE_PARTS.get(name)
    if part is not None:
        return Call("date_part", (Literal(part), *args))
    build = _REWRITTEN.get(name)
    if build is not None:
        return build(*args)
    raise UnsupportedError(f"the function {name} in a pyarrow expression; write the filter as SQL text")


def _list_element(lists: Expression, index: Expression) -> Expression:
    if not isinstance(index, Literal) or not isinstance(index.value, int) or index.value < 0:
        raise UnsupportedError("list_element with an index that is not a constant of 0 or more")
    return Call("element", (lists, Literal(index.value + 1)))  # ours count from 1


_RENAMED = {
    "equal": "=",
    "not_equal": "!=",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "and": "and",
    "or": "or",
    "not": "not",
    "xor": "!=",
    "is_null": "is null",
    "is_not_null": "is not null",
    "is_nan": "isnan",
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "negate": "negative",
    "shift_left": "<<",
    "shift_right": ">>",
    "coalesce": "coalesce",
    "max_element_wise": "greatest",
    "min_element_wise": "least",
    "starts_with": "starts_with",
    "ends_with": "ends_with",
    "contains": "contains",
    "utf8_lower": "lower",
    "utf8_upper": "upper",
    "utf8_length": "length",
    "utf8_reverse": "reverse",
    "binary_length": "octet_length",
    "list_value_length": "array_length",
    "sign": "signum",
    **{name: name for name in ("abs", "ceil", "floor", "sqrt", "power", "exp", "ln", "log10", "log2")},
    **{name: name for name in ("sin", "cos", "tan", "asin", "acos", "atan", "atan2")},
}
_DATE_PARTS = {
    "day_of_year": "doy",
    **{name: name for name in ("year", "quarter", "month", "day", "hour", "minute", "second")},
}
_REWRITTEN: dict[str, Callable[..., Expression]] = {
    "and_not_kleene": lambda a, b: Call("and", (a, Call("not", (b,)))),
    "or_not_kleene": lambda a, b: Call("or", (a, Call("not", (b,)))),
    "logb": lambda value, base: Call("log", (base, value)),
    "list_element": _list_element,
}
