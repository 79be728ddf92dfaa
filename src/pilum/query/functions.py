"""Scalar functions by name (spec api.md, section 10.6): one table, and the functions that fit no other.

Names are case-insensitive, except `is_valid`, which the reference knows in lower case only.  What a function
does to its arguments is decided while binding; see `function_kit` for how a builder looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.query import operators
from pilum.query.array_functions import ARRAY_FUNCTIONS
from pilum.query.coercion import cast, common_type, is_list, logical_type, try_fit
from pilum.query.date_functions import DATE_FUNCTIONS
from pilum.query.expressions import Bound, Constant, FieldRef
from pilum.query.function_kit import ANY, Function, Table, apply, fixed_text
from pilum.query.json_functions import JSON_FUNCTIONS
from pilum.query.number_functions import NUMBER_FUNCTIONS
from pilum.query.regex_functions import REGEX_FUNCTIONS
from pilum.query.string_functions import STRING_FUNCTIONS
from pilum.query.type_names import parse_type, type_name
from pilum.query.vectors import broadcast

__all__ = ["bind_function", "function_names"]

types = pa.types


def bind_function(name: str, args: Sequence[Bound]) -> Bound:
    """The call of a function on bound arguments.

    Raises:
        InvalidInputError: no such function (the nearest name is suggested), or wrong arguments.
        UnsupportedError: an aggregate, or arguments that must be constant and are not.
    """
    function = _FUNCTIONS.get(name) or (_FUNCTIONS.get(name.lower()) if name.lower() != "is_valid" else None)
    if function is not None:
        arrays.prepare()  # many hand Python values to Arrow
        return function.bind(name, list(args))
    if name.lower() in _AGGREGATES:
        raise UnsupportedError(f"the aggregate {name}(…) in a filter or a computed column")
    near = get_close_matches(name.lower(), _FUNCTIONS, 1, 0.6)
    raise InvalidInputError(f"no function named {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def function_names() -> list[str]:
    """All names that can be called, sorted."""
    return sorted(_FUNCTIONS)


_AGGREGATES = frozenset(
    {"sum", "count", "avg", "mean", "min", "max", "median", "stddev", "var", "array_agg", "string_agg"}
    | {"first_value", "last_value", "row_number", "rank", "lag", "lead", "approx_distinct", "corr"}
)


def _unified(name: str, args: Sequence[Bound]) -> tuple[list[Bound], pa.DataType]:
    """All arguments as their common type."""
    type_: pa.DataType = pa.null()
    for argument in args:
        # A literal beside uint64 keeps it an integer; otherwise the two signs would meet in a decimal.
        if not (isinstance(argument, Constant) and types.is_uint64(type_) and try_fit(argument, type_)):
            type_ = _wider(name, type_, argument.type)
    unified: list[Bound] = []
    for argument in args:
        fitted = try_fit(argument, type_) if isinstance(argument, Constant) else None
        unified.append(Constant(fitted) if fitted is not None else cast(argument, type_))
    return unified, type_


def _wider(name: str, left: pa.DataType, right: pa.DataType) -> pa.DataType:
    wider = common_type(left, right)
    if wider is None:
        raise InvalidInputError(f"{name}: {left} and {right} have no common type")
    return wider


# --- nulls and choices --------------------------------------------------------------------------------------


def _coalesce(*args: Bound) -> Bound:
    unified, type_ = _unified("coalesce", args)
    return apply("coalesce", tuple(unified), type_, lambda *values: _coalesced(values, type_))


def _coalesced(values: Sequence[Any], type_: pa.DataType) -> Any:
    if types.is_nested(type_):
        return reduce(lambda a, b: pc.if_else(pc.is_valid(a), a, b), broadcast(*values))
    return pc.coalesce(*values)


def _nullif(value: Bound, other: Bound) -> Bound:
    left, right = operators.unify("nullif", value, other)
    nothing = arrays.scalar(None, left.type)

    def kernel(a: Any, b: Any) -> Any:
        a, b = broadcast(a, b)
        return pc.if_else(pc.fill_null(operators.equal(a, b), False), nothing, a)

    return apply("nullif", (left, right), left.type, kernel)


def _nvl2(test: Bound, present: Bound, absent: Bound) -> Bound:
    (yes, no), type_ = _unified("nvl2", (present, absent))
    return apply("nvl2", (test, yes, no), type_, lambda t, y, n: pc.if_else(pc.is_valid(t), y, n))


def _extreme(name: str, largest: bool) -> Function:
    """greatest / least: nulls are skipped."""

    def pick(a: Any, b: Any) -> Any:
        first = operators.greater(a, b) if largest else operators.greater(b, a)
        # Unknown means that one side is null: then the other is the answer.
        return pc.if_else(pc.fill_null(first, pc.is_null(b)), a, b)

    def build(*args: Bound) -> Bound:
        unified, type_ = _unified(name, args)
        return apply(name, tuple(unified), type_, lambda *values: reduce(pick, broadcast(*values)))

    return Function(build, 1, ANY)


def _case(*args: Bound) -> Bound:
    """condition, value, condition, value, …, else."""
    conditions = [operators.condition(argument, "CASE WHEN") for argument in args[:-1:2]]
    values, type_ = _unified("CASE", [*args[1::2], args[-1]])

    def kernel(*operands: Any) -> Any:
        arrays = broadcast(*operands)
        result = arrays[-1]
        for position in range(len(conditions) - 1, -1, -1):
            chosen = pc.fill_null(arrays[position], False)
            result = pc.if_else(chosen, arrays[len(conditions) + position], result)
        return result

    return apply("case", (*conditions, *values), type_, kernel)


def _is_valid(value: Bound) -> Bound:
    return operators.is_null(value, negated=True)


# --- structs and types ---------------------------------------------------------------------------------------


def _get_field(value: Bound, *names: Bound) -> Bound:
    for argument in names:
        name = fixed_text(argument, "get_field", "field name")
        if not types.is_struct(value.type):
            raise InvalidInputError(f"get_field needs a struct, not {value.type}")
        position = value.type.get_field_index(name) if name is not None else -1
        if position < 0:
            known = ", ".join(field.name for field in value.type)
            raise InvalidInputError(f"no field named {name!r} in the struct (there are: {known})")
        type_ = logical_type(value.type.field(position).type)
        if isinstance(value, FieldRef):
            value = FieldRef((*value.path, str(name)), type_)
        else:
            value = apply("get_field", (value,), type_, _field_kernel(str(name)))
    return value


def _field_kernel(name: str) -> Any:
    return lambda values: pc.struct_field(values, name)


def _struct(*args: Bound) -> Bound:
    return _make_struct([f"c{position}" for position in range(len(args))], args)


def _named_struct(*args: Bound) -> Bound:
    if len(args) % 2:
        raise InvalidInputError("named_struct takes names and values in turn")
    names = [fixed_text(argument, "named_struct", "field name") or "" for argument in args[::2]]
    return _make_struct(names, args[1::2])


def _make_struct(names: list[str], args: Sequence[Bound]) -> Bound:
    type_ = pa.struct([pa.field(name, argument.type) for name, argument in zip(names, args, strict=True)])
    return apply(
        "struct",
        tuple(args),
        type_,
        lambda *values: pa.StructArray.from_arrays(broadcast(*values), fields=list(type_)),
    )


def _arrow_cast(value: Bound, target: Bound) -> Bound:
    return cast(value, parse_type(fixed_text(target, "arrow_cast", "type") or ""))


def _arrow_typeof(value: Bound) -> Bound:
    return Constant(arrays.scalar(type_name(value.type)))


def _length_of_anything(value: Bound) -> Bound:
    # The reference measures the text form of a list; so do we, to give the same rows.
    return STRING_FUNCTIONS["length"].build(cast(value, pa.string()) if is_list(value.type) else value)


_COALESCE = Function(_coalesce, 1, ANY)
_IFNULL = Function(_coalesce, 2)
_STRUCT = Function(_struct, 1, ANY)

_FUNCTIONS: Table = {
    **STRING_FUNCTIONS,
    **REGEX_FUNCTIONS,
    **NUMBER_FUNCTIONS,
    **DATE_FUNCTIONS,
    **ARRAY_FUNCTIONS,
    **JSON_FUNCTIONS,
    "length": Function(_length_of_anything),
    "coalesce": _COALESCE,
    "ifnull": _IFNULL,
    "nvl": _IFNULL,
    "nullif": Function(_nullif, 2),
    "nvl2": Function(_nvl2, 3),
    "greatest": _extreme("greatest", True),
    "least": _extreme("least", False),
    "case": Function(_case, 3, ANY),
    "is_valid": Function(_is_valid),
    "get_field": Function(_get_field, 2, ANY),
    "struct": _STRUCT,
    "row": _STRUCT,
    "named_struct": Function(_named_struct, 2, ANY),
    "arrow_cast": Function(_arrow_cast, 2),
    "arrow_typeof": Function(_arrow_typeof),
}
