"""Operators on bound operands: comparison, three-valued logic, arithmetic, IN, LIKE (spec api.md, 10.4 and 10.5).

Each builder takes bound operands, converts them to a common type and returns a typed node with its kernel.  Kernels
are Arrow compute functions called on arrays directly: no expression engine, hence none of Arrow's threads.

Where Arrow's kernels and SQL differ:
- NaN equals NaN and is greater than every number.  `x > c` is computed as `not (x <= c)`, which does that for free.
- modulo does not exist in Arrow; integer division truncates, so `a - a / b * b` keeps the sign of the dividend.
- `x IN (…, null)` is null where nothing matches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query.coercion import cast, common_type, decimal_of, is_list, is_number, is_string, try_fit
from pilum.query.expressions import Apply, Bound, Constant, Junction
from pilum.query.list_functions import lists_equal
from pilum.query.vectors import broadcast, per_distinct, validity

__all__ = [
    "arithmetic", "compare", "concatenate", "distinct", "equal", "greater", "is_in", "is_null", "is_truth",
    "junction", "like", "negate", "negative", "shift",
]  # fmt: skip

types = pa.types
_FALSE = arrays.scalar(False)
Kernel = Callable[..., Any]


def _kernel(name: str) -> Kernel:
    # The registered function itself: a microsecond less than the generated Python wrapper.
    call = pc.get_function(name).call
    return lambda *operands: call(operands)


_EQUAL, _NOT_EQUAL = _kernel("equal"), _kernel("not_equal")
_LESS, _LESS_EQUAL = _kernel("less"), _kernel("less_equal")
_GREATER, _GREATER_EQUAL = _kernel("greater"), _kernel("greater_equal")
_INVERT, _AND, _OR = _kernel("invert"), _kernel("and_kleene"), _kernel("or_kleene")
_IS_NULL, _IS_VALID, _IS_NAN = _kernel("is_null"), _kernel("is_valid"), _kernel("is_nan")

_COMPARISONS: dict[str, Kernel] = {
    "=": _EQUAL, "!=": _NOT_EQUAL, "<": _LESS, "<=": _LESS_EQUAL, ">": _GREATER, ">=": _GREATER_EQUAL,
}  # fmt: skip
MIRRORED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


# --- comparison ------------------------------------------------------------------------------------------


def compare(operator: str, left: Bound, right: Bound) -> Bound:
    """A comparison of two operands of any comparable types."""
    left, right = _uncast(left, right), _uncast(right, left)
    left, right = unify(operator, left, right)
    if isinstance(left, Constant) and not isinstance(right, Constant):
        operator, left, right = MIRRORED[operator], right, left
    if isinstance(right, Constant) and right.value is None:
        return Constant(arrays.scalar(None, pa.bool_()))
    return Apply(operator, (left, right), pa.bool_(), comparison_kernel(operator, left.type, right))


def _uncast(side: Bound, other: Bound) -> Bound:
    """`cast(i as bigint) = 5` is `i = 5`: no conversion, and none that can fail, for integers beside a constant."""
    if not isinstance(side, Apply) or not isinstance(other, Constant) or not side.name.startswith("cast to "):
        return side
    (operand,) = side.args
    if types.is_integer(side.type) and types.is_integer(operand.type) and types.is_integer(other.type):
        return operand if try_fit(other, operand.type) is not None else side
    return side


def unify(what: str, left: Bound, right: Bound) -> tuple[Bound, Bound]:
    """Both operands as their common type; a literal that fits the other side's type takes that type."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Constant) and one.type != other.type and one.value is not None:
            fitted = try_fit(one, other.type) if _lossless(one, other.type) else None
            if fitted is not None:
                return (Constant(fitted), other) if one is left else (other, Constant(fitted))
    target = common_type(left.type, right.type)
    if target is None or types.is_struct(target) or types.is_map(target):
        raise InvalidInputError(f"{left.type} and {right.type} cannot be compared ({what})")
    both = isinstance(left, Constant) and isinstance(right, Constant)
    if both and is_string(left.type) != is_string(right.type) and is_number(target):
        raise InvalidInputError(f"a string and a number cannot be compared ({what})")
    if types.is_float16(target):
        target = pa.float32()  # Arrow has no comparison of half floats
    return cast(left, target), cast(right, target)


def _lossless(constant: Constant, target: pa.DataType) -> bool:
    """Converting the literal to the column's type cannot change the outcome (1.1 to float32 would)."""
    return not (types.is_floating(constant.type) and types.is_floating(target)) and not types.is_float16(
        target
    )


def comparison_kernel(operator: str, type_: pa.DataType, right: Bound) -> Kernel:
    """The kernel for operands of one type; ``right`` is looked at when it is a constant."""
    if is_list(type_):
        if operator not in ("=", "!="):
            raise InvalidInputError(f"lists can be tested for equality only, not with {operator}")
        return lists_equal if operator == "=" else lambda a, b: _INVERT(lists_equal(a, b))
    if not types.is_floating(type_):
        return _COMPARISONS[operator]
    if not isinstance(right, Constant):
        return _TOTAL_ORDER[operator]
    if math.isnan(right.value):
        return _BESIDE_NAN[operator]
    if operator in (">", ">="):
        opposite = _LESS_EQUAL if operator == ">" else _LESS
        return lambda a, b: _INVERT(opposite(a, b))
    return _COMPARISONS[operator]


def _total_equal(a: Any, b: Any) -> Any:
    return _OR(_EQUAL(a, b), _AND(_IS_NAN(a), _IS_NAN(b)))


def _total_less(a: Any, b: Any) -> Any:
    return _OR(_LESS(a, b), _AND(_INVERT(_IS_NAN(a)), _IS_NAN(b)))


_TOTAL_ORDER: dict[str, Kernel] = {
    "=": _total_equal,
    "!=": lambda a, b: _INVERT(_total_equal(a, b)),
    "<": _total_less,
    ">": lambda a, b: _total_less(b, a),
    "<=": lambda a, b: _INVERT(_total_less(b, a)),
    ">=": lambda a, b: _INVERT(_total_less(a, b)),
}
_BESIDE_NAN: dict[str, Kernel] = {
    "=": lambda a, b: _IS_NAN(a),
    ">=": lambda a, b: _IS_NAN(a),
    "!=": lambda a, b: _INVERT(_IS_NAN(a)),
    "<": lambda a, b: _INVERT(_IS_NAN(a)),
    "<=": lambda a, b: _EQUAL(_IS_NAN(a), _IS_NAN(a)),  # true, or null
    ">": lambda a, b: _NOT_EQUAL(_IS_NAN(a), _IS_NAN(a)),  # false, or null
}


def equal(a: Any, b: Any) -> Any:
    """Equality of two arrays of one type, NaN equal to NaN."""
    if is_list(a.type):
        return lists_equal(a, b)
    return (_total_equal if types.is_floating(a.type) else _EQUAL)(a, b)


def greater(a: Any, b: Any) -> Any:
    """a > b of two arrays of one type, NaN greatest."""
    return (_TOTAL_ORDER[">"] if types.is_floating(a.type) else _GREATER)(a, b)


def distinct(left: Bound, right: Bound, *, negated: bool) -> Bound:
    """IS [NOT] DISTINCT FROM: equality that treats null as a value; never null."""
    left, right = unify("is distinct from", left, right)

    def same(a: Any, b: Any) -> Any:
        a, b = broadcast(a, b)
        return _OR(pc.fill_null(equal(a, b), _FALSE), _AND(_IS_NULL(a), _IS_NULL(b)))

    kernel = same if negated else lambda a, b: _INVERT(same(a, b))
    return Apply("is not distinct from" if negated else "is distinct from", (left, right), pa.bool_(), kernel)


# --- three-valued logic -------------------------------------------------------------------------------


def condition(bound: Bound, what: str) -> Bound:
    """The operand as a condition: boolean, or the null literal."""
    if types.is_boolean(bound.type):
        return bound
    if types.is_null(bound.type):
        return Constant(arrays.scalar(None, pa.bool_()))
    raise InvalidInputError(f"{what} needs a condition, not a value of type {bound.type}")


def junction(conjunction: bool, parts: Sequence[Bound]) -> Bound:
    """AND or OR; constants are folded, nested ones flattened."""
    word = "AND" if conjunction else "OR"
    flat: list[Bound] = []
    for part in parts:
        part = condition(part, word)
        if isinstance(part, Junction) and part.conjunction == conjunction:
            flat.extend(part.args)
        elif isinstance(part, Constant) and part.value is (not conjunction):
            return part
        elif not (isinstance(part, Constant) and part.value is conjunction):
            flat.append(part)
    if not flat:
        return Constant(arrays.scalar(conjunction))
    if all(isinstance(part, Constant) for part in flat):
        return Constant(arrays.scalar(None, pa.bool_()))
    return flat[0] if len(flat) == 1 else Junction(conjunction, tuple(flat))


def negate(operand: Bound) -> Bound:
    return Apply("not", (condition(operand, "NOT"),), pa.bool_(), _INVERT)


def is_null(operand: Bound, *, negated: bool) -> Bound:
    """IS [NOT] NULL; NaN is a value."""
    return Apply(
        "is not null" if negated else "is null", (operand,), pa.bool_(), _IS_VALID if negated else _IS_NULL
    )


def is_truth(operand: Bound, truth: bool, *, negated: bool) -> Bound:
    """IS [NOT] TRUE / FALSE; never null."""

    def kernel(values: Any) -> Any:
        result = pc.fill_null(values if truth else _INVERT(values), False)
        return _INVERT(result) if negated else result

    word = f"is {'not ' if negated else ''}{'true' if truth else 'false'}"
    return Apply(word, (condition(operand, word.upper()),), pa.bool_(), kernel)


# --- IN ------------------------------------------------------------------------------------------------


def is_in(value: Bound, items: Sequence[Bound], *, negated: bool) -> Bound:
    """[NOT] IN.  Constants become one hash lookup; other items are compared one by one."""
    constants = [item for item in items if isinstance(item, Constant)]
    others = [compare("=", value, item) for item in items if not isinstance(item, Constant)]
    if not constants or is_list(value.type) or types.is_null(value.type):
        result = junction(False, [compare("=", value, item) for item in items])
        return negate(result) if negated else result
    target = value.type
    for constant in constants:
        if constant.value is not None and not _fits_exactly(constant, target):
            wider = common_type(target, constant.type)
            if wider is None:
                raise InvalidInputError(f"{constant.value!r} cannot be compared with {value.type} (IN)")
            target = wider
    if types.is_float16(target):
        target = pa.float32()
    choices = tuple(
        Constant(arrays.scalar(_as_constant(one, target), target))
        for one in constants
        if one.value is not None
    )
    lookup = Apply("in", (cast(value, target),), pa.bool_(), _lookup(constants, target), items=choices)
    result = junction(False, [lookup, *others]) if others else lookup
    return negate(result) if negated else result


def _fits_exactly(constant: Constant, target: pa.DataType) -> bool:
    """Whether a constant can be compared as a value of ``target``: 0.1 is not a float32."""
    fitted = try_fit(constant, target)
    if fitted is None or not types.is_floating(target) or constant.type == target:
        return fitted is not None
    value = constant.value
    return bool(fitted.as_py() == value or value != value)


def _lookup(constants: Sequence[Constant], target: pa.DataType) -> Kernel:
    values = [_as_constant(constant, target) for constant in constants if constant.value is not None]
    has_null = len(values) < len(constants)
    if types.is_floating(target) and 0.0 in values:
        values += [0.0, -0.0]  # Arrow's hash keeps the two zeros apart, and NaN of different bits
    is_nan = None
    if types.is_floating(target) and any(value != value for value in values):
        is_nan = pc.get_function("is_nan").call
    options = pc.SetLookupOptions(arrays.from_python(values, target), skip_nulls=True)
    call = pc.get_function("is_in").call
    true, null = arrays.scalar(True), arrays.scalar(None, pa.bool_())

    def kernel(operand: Any) -> Any:
        found = call([operand], options)
        if is_nan is not None:
            found = pc.or_(found, is_nan([operand]))
        if has_null:
            return pc.if_else(found, true, null)
        if operand.null_count:
            return pc.if_else(_IS_VALID(operand), found, null)
        return found

    return kernel


def _as_constant(constant: Constant, target: pa.DataType) -> Any:
    fitted = try_fit(constant, target)
    if fitted is None:
        node = cast(constant, target)
        assert isinstance(node, Apply)
        fitted = node.kernel(arrays.from_python([constant.value], constant.type))[0]
    if types.is_temporal(target):
        return fitted
    return fitted.as_py()


# --- LIKE ----------------------------------------------------------------------------------------------


def like(value: Bound, pattern: Bound, *, ignore_case: bool, negated: bool) -> Bound:
    """[NOT] LIKE / ILIKE with `%`, `_` and the backslash as escape."""
    for side in (value, pattern):
        if not is_string(side.type) and not types.is_null(side.type):
            raise InvalidInputError(f"LIKE compares strings, not {side.type}")
    if isinstance(pattern, Constant):
        if pattern.value is None:
            return Constant(arrays.scalar(None, pa.bool_()))
        matcher = _matcher(pattern.value, ignore_case)
        node = Apply(f"like {pattern.value!r}", (value,), pa.bool_(), matcher)
    else:
        node = Apply("like", (value, pattern), pa.bool_(), lambda v, p: _like_pairs(v, p, ignore_case))
    return negate(node) if negated else node


def _like_pairs(values: Any, patterns: Any, ignore_case: bool) -> Any:
    values, patterns = broadcast(values, patterns)
    matchers: dict[str, Any] = {}

    def match(value: str, pattern: str) -> bool:
        if pattern not in matchers:
            # Python's $ also matches in front of a final line break: fullmatch does not.
            matchers[pattern] = re.compile(_like_regex(pattern, ignore_case).removesuffix("$"))
        return matchers[pattern].fullmatch(value) is not None

    return per_distinct(match, pa.bool_(), values, patterns)


def _pieces(pattern: str) -> list[str | None]:
    """Literal runs, None for `%`; raises ValueError when there is a `_`."""
    pieces: list[str | None] = []
    text, position = "", 0
    while position < len(pattern):
        letter = pattern[position]
        if letter == "\\" and position + 1 < len(pattern):
            position += 1
            text += pattern[position]
        elif letter == "%":
            if text:
                pieces.append(text)
            text = ""
            if not pieces or pieces[-1] is not None:
                pieces.append(None)
        elif letter == "_":
            raise ValueError
        else:
            text += letter
        position += 1
    return [*pieces, text] if text else pieces


def _matcher(pattern: str, ignore_case: bool) -> Kernel:
    """The cheapest kernel for a constant pattern: equality, prefix, suffix, substring or a regular expression."""
    if not ignore_case:
        try:
            pieces = _pieces(pattern)
        except ValueError:
            pieces = [None, "", None, ""]
        match pieces:
            case []:
                return lambda values: _EQUAL(values, arrays.scalar("", values.type))
            case [None]:
                return lambda values: _EQUAL(values, values)
            case [str() as text]:
                return lambda values: _EQUAL(values, arrays.scalar(text, values.type))
            case [str() as text, None]:
                return lambda values: pc.starts_with(values, text)
            case [None, str() as text]:
                return lambda values: pc.ends_with(values, text)
            case [None, str() as text, None]:
                return lambda values: pc.match_substring(values, text)
    regex = _like_regex(pattern, ignore_case)
    return lambda values: pc.match_substring_regex(values, regex)


def _like_regex(pattern: str, ignore_case: bool) -> str:
    """The pattern as a regular expression that RE2 and Python read alike."""
    out = ["(?is)" if ignore_case else "(?s)", r"\A"]
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        if letter == "\\" and position + 1 < len(pattern):
            position += 1
            out.append(quote(pattern[position]))
        else:
            out.append({"%": ".*", "_": "."}.get(letter) or quote(letter))
        position += 1
    return "".join([*out, "$"])


def quote(text: str) -> str:
    """Text that stands for itself in a regular expression."""
    return "".join(letter if letter.isalnum() or ord(letter) > 127 else "\\" + letter for letter in text)


# --- arithmetic ------------------------------------------------------------------------------------------

_DIVIDE, _MULTIPLY, _SUBTRACT = _kernel("divide"), _kernel("multiply"), _kernel("subtract")


def arithmetic(operator: str, left: Bound, right: Bound) -> Bound:
    """+ - * / % with integers that wrap and divide towards zero; dates and timestamps can be subtracted."""
    if operator == "-" and types.is_date(left.type) and types.is_date(right.type):
        days = [cast(cast(side, pa.date32()), pa.int64()) for side in (left, right)]
        return _apply("-", days[0], days[1], _SUBTRACT)
    if operator == "-" and types.is_temporal(left.type) and left.type == right.type:
        return _apply("-", left, right, _SUBTRACT)
    if not all(is_number(side.type) or types.is_null(side.type) for side in (left, right)):
        raise InvalidInputError(
            f"{left.type} {operator} {right.type} is not defined; operands must be numbers"
        )
    if types.is_null(left.type) and types.is_null(right.type):
        return Constant(arrays.scalar(None, pa.int64()))
    if types.is_decimal(left.type) or types.is_decimal(right.type):
        exact = [side for side in (left, right) if types.is_decimal(side.type)]
        other = right if exact[0] is left else left
        if types.is_integer(other.type):
            whole = _narrow_decimal(other)
            left, right = (left, whole) if other is right else (whole, right)
        elif types.is_floating(other.type):
            target = other.type if types.is_float32(other.type) else pa.float64()
            left, right = cast(left, target), cast(right, target)
        if types.is_decimal(left.type) and operator in ("/", "%"):
            return _decimal_division(operator, left, right)
        return _apply(operator, left, right, _kernel(_NAMES[operator]))
    for one, other in ((left, right), (right, left)):
        # A literal that fits uint64 keeps `_rowid + 1` an integer instead of a decimal.
        if (
            isinstance(one, Constant)
            and other.type == pa.uint64()
            and types.is_integer(one.type)
            and (one.value or 0) >= 0
        ):
            fitted = Constant(arrays.scalar(one.value, pa.uint64()))
            left, right = (fitted, right) if one is left else (left, fitted)
    target = common_type(left.type, right.type)
    assert target is not None
    if types.is_float16(target):
        target = pa.float32()
    left, right = cast(left, target), cast(right, target)
    if operator == "%":
        return _apply("%", left, right, _modulo_float if types.is_floating(target) else _modulo)
    return _apply(operator, left, right, _kernel(_NAMES[operator]))


_NAMES = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


def _narrow_decimal(side: Bound) -> Bound:
    """An integer as decimal; a literal only as wide as it is, so that results keep a usable precision."""
    if isinstance(side, Constant) and side.value is not None:
        digits = max(1, len(str(abs(side.value))))
        return Constant(
            arrays.scalar(side.value, pa.int64()).cast(pa.decimal128(20, 0)).cast(pa.decimal128(digits, 0))
        )
    return cast(side, decimal_of(side.type))


def _decimal_division(operator: str, left: Bound, right: Bound) -> Bound:
    first, second = left.type, right.type
    scale = max(first.scale, second.scale)
    if operator == "%":
        whole = max(first.precision - first.scale, second.precision - second.scale)
        target = pa.decimal128(min(38, whole + scale), scale)
    else:
        scale = min(38, first.scale + 4)
        target = pa.decimal128(min(38, first.precision - first.scale + second.scale + scale), scale)

    def divide(a: Any, b: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            if y == 0:
                raise pa.ArrowInvalid("divide by zero")
            return x % y if operator == "%" else (x / y).quantize(type(x)(1).scaleb(-target.scale))

        return per_distinct(one, target, a, b)

    return Apply(operator, (left, right), target, divide)


def _apply(operator: str, left: Bound, right: Bound, kernel: Kernel) -> Bound:
    try:
        result = kernel(arrays.empty(left.type), arrays.empty(right.type)).type
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidInputError(f"{left.type} {operator} {right.type} is not defined: {error}") from None
    return Apply(operator, (left, right), result, kernel)


def _modulo(a: Any, b: Any) -> Any:
    return _SUBTRACT(a, _MULTIPLY(_DIVIDE(a, b), b))


def _modulo_float(a: Any, b: Any) -> Any:
    a, b = broadcast(a, b)
    valid = validity(a) & validity(b)
    with np.errstate(all="ignore"):
        values = np.fmod(arrays.to_numpy(a), arrays.to_numpy(b))
    return arrays.from_numpy(values, a.type, ~valid)


def negative(operand: Bound) -> Bound:
    """Unary minus."""
    if not is_number(operand.type) or types.is_unsigned_integer(operand.type):
        raise InvalidInputError(f"a value of type {operand.type} cannot be negated")
    return Apply("negative", (operand,), operand.type, _kernel("negate"))


def shift(operator: str, left: Bound, right: Bound) -> Bound:
    """<< and >> on integers."""
    for side in (left, right):
        if not types.is_integer(side.type):
            raise InvalidInputError(f"{operator} needs integers, not {side.type}")
    target = left.type if isinstance(right, Constant) else common_type(left.type, right.type)
    if target is None or types.is_decimal(target):
        target = pa.int64()
    return _apply(
        operator,
        cast(left, target),
        cast(right, target),
        _kernel("shift_left" if operator == "<<" else "shift_right"),
    )


def concatenate(left: Bound, right: Bound) -> Bound:
    """||: text of both operands; null when either is null."""
    large = any(types.is_large_string(side.type) for side in (left, right))
    target = pa.large_string() if large else pa.string()
    empty = arrays.scalar("", target)
    return Apply(
        "||", (cast(left, target), cast(right, target)), target,
        lambda a, b: pc.binary_join_element_wise(a, b, empty),
    )  # fmt: skip
