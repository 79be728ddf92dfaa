"""Types meeting types: common types of operands, literals meeting columns, casts (spec api.md, section 10.3).

Three questions, three functions: `common_type` (what do both sides of an operator become), `fit_literal` (may this
literal stand beside this column, and as what) and `cast` (turn a bound expression into another type).  Casts follow
the reference where Arrow's own differ: float to integer truncates, numbers format as in Rust, a failing value
is an error, or null for TRY_CAST.
"""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query.expressions import Apply, Bound, Constant, fold
from pilum.query.vectors import per_distinct

__all__ = ["cast", "cast_kernel", "common_type", "fit_literal", "is_number", "is_string", "logical_type"]

types = pa.types


def is_string(type_: pa.DataType) -> bool:
    return bool(types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_))


def is_binary(type_: pa.DataType) -> bool:
    return bool(
        types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_)
        or types.is_fixed_size_binary(type_)
    )  # fmt: skip


def is_list(type_: pa.DataType) -> bool:
    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def is_number(type_: pa.DataType) -> bool:
    return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_))


def logical_type(type_: pa.DataType) -> pa.DataType:
    """The type of a column's values in an expression: dictionaries decoded, extensions as stored."""
    if types.is_dictionary(type_):
        return logical_type(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return logical_type(type_.storage_type)
    return type_


# --- common types ------------------------------------------------------------------------------------


def common_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type both operands of a comparison are converted to; None where there is none."""
    if left == right:
        return left
    if types.is_null(left):
        return right
    if types.is_null(right):
        return left
    for one, other in ((left, right), (right, left)):
        if is_number(one) and is_number(other):
            return _common_number(left, right)
        if is_string(one):
            if is_string(other):
                large = types.is_large_string(left) or types.is_large_string(right)
                return pa.large_string() if large else pa.string()
            if is_number(other) or types.is_temporal(other):
                return other
        if is_binary(one) and is_binary(other):
            large = types.is_large_binary(left) or types.is_large_binary(right)
            return pa.large_binary() if large else pa.binary()
    if types.is_temporal(left) and types.is_temporal(right):
        return _common_temporal(left, right)
    if is_list(left) and is_list(right):
        item = common_type(logical_type(left.value_type), logical_type(right.value_type))
        return pa.list_(item) if item is not None else None
    return None


def _common_number(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if types.is_decimal(left) and types.is_decimal(right):
        scale = max(left.scale, right.scale)
        return pa.decimal128(
            min(38, max(left.precision - left.scale, right.precision - right.scale) + scale), scale
        )
    if types.is_decimal(left) or types.is_decimal(right):
        exact, other = (left, right) if types.is_decimal(left) else (right, left)
        if types.is_floating(other):
            return other if other == pa.float32() else pa.float64()
        digits = max(exact.precision - exact.scale, decimal_of(other).precision)
        return pa.decimal128(min(38, digits + exact.scale), exact.scale)
    if types.is_floating(left) or types.is_floating(right):
        if pa.float64() in (left, right):
            return pa.float64()
        return pa.float32()  # also for float16: Arrow has no kernels for it
    if types.is_signed_integer(left) == types.is_signed_integer(right):
        return left if left.bit_width >= right.bit_width else right
    signed, unsigned = (left, right) if types.is_signed_integer(left) else (right, left)
    if unsigned.bit_width >= 64:
        return pa.decimal128(20, 0)
    if signed.bit_width > unsigned.bit_width:
        return signed
    return {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}[unsigned.bit_width]


def decimal_of(integer: pa.DataType) -> pa.DataType:
    """The decimal type that holds every value of an integer type."""
    return pa.decimal128({8: 3, 16: 5, 32: 10, 64: 20}[integer.bit_width], 0)


_UNIT_ORDER = ("s", "ms", "us", "ns")


def _common_temporal(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if types.is_date(left) and types.is_date(right):
        return pa.date64()
    if types.is_date(left) and types.is_timestamp(right):
        return right
    if types.is_timestamp(left) and types.is_date(right):
        return left
    if types.is_timestamp(left) and types.is_timestamp(right):
        return pa.timestamp(_finer(left.unit, right.unit), left.tz or right.tz)
    if types.is_time(left) and types.is_time(right):
        unit = _finer(left.unit, right.unit)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    if types.is_duration(left) and types.is_duration(right):
        return pa.duration(_finer(left.unit, right.unit))
    return None


def _finer(left: str, right: str) -> str:
    return max(left, right, key=_UNIT_ORDER.index)


# --- literals beside columns -----------------------------------------------------------------------------


def fit_literal(constant: Constant, target: pa.DataType, column: str) -> Constant:
    """The literal as a value of the column's type, by the strict rules.

    Raises:
        InvalidInputError: the rules do not allow it or it is out of range.
    """
    fitted = try_fit(constant, target)
    if fitted is None:
        hint = _hint(constant, target)
        shown = constant.value if not isinstance(constant.value, list) else "the list"
        raise InvalidInputError(
            f"{shown!r} cannot be compared with column {column!r} of type {target}"
            + (f": {hint}" if hint else "")
        )
    return Constant(fitted, literal=True)


def _hint(constant: Constant, target: pa.DataType) -> str:
    source = constant.type
    if types.is_integer(target) and types.is_integer(source):
        return "it is out of range"
    if types.is_temporal(target) and is_string(source):
        word = "date" if types.is_date(target) else "timestamp"
        return f"write {word} '{constant.value}'" if not types.is_time(target) else ""
    if types.is_decimal(target) or types.is_integer(target):
        return f"write cast({constant.value!r} as …)"
    return ""


def try_fit(constant: Constant, target: pa.DataType) -> pa.Scalar | None:
    """As `fit_literal`, but None where the literal does not fit."""
    source, value = constant.type, constant.value
    if value is None:
        return arrays.scalar(None, target)
    if source == target:
        return constant.scalar
    allowed = (
        (types.is_integer(source) and is_number(target))
        or (types.is_floating(source) and types.is_floating(target))
        or (is_string(source) and is_string(target))
        or (is_binary(source) and is_binary(target))
    )
    if allowed:
        return _converted(value, target)
    if is_list(source) and is_list(target):
        item = logical_type(target.value_type)
        items = [try_fit(Constant(arrays.scalar(each, source.value_type)), item) for each in value]
        if any(each is None for each in items):
            return None
        return _converted([each.as_py() for each in items if each is not None], pa.list_(item))
    return None


def _converted(value: Any, target: pa.DataType) -> pa.Scalar | None:
    if types.is_floating(target) and not isinstance(value, list):
        if types.is_float16(target):
            with np.errstate(over="ignore"):  # infinity
                value = np.float16(value)
        elif types.is_float32(target):
            with np.errstate(over="ignore"):
                value = np.float32(value)
        return arrays.scalar(value if not isinstance(value, int) else float(value), target)
    if types.is_decimal(target):
        value = decimal.Decimal(value)
    try:
        return arrays.scalar(value, target)
    except (pa.ArrowInvalid, OverflowError, pa.ArrowTypeError):
        return None


# --- casts -----------------------------------------------------------------------------------------


def cast(bound: Bound, target: pa.DataType, *, optional: bool = False) -> Bound:
    """``bound`` converted to ``target``; itself when it already is.

    Raises:
        InvalidInputError: no conversion between the two types exists.
    """
    source = bound.type
    if source == target:
        return bound
    if types.is_null(source):
        return Constant(arrays.scalar(None, target))
    kernel = cast_kernel(source, target, optional=optional)
    return fold(Apply(f"{'try_' if optional else ''}cast to {target}", (bound,), target, kernel))


def cast_kernel(source: pa.DataType, target: pa.DataType, *, optional: bool = False) -> Callable[[Any], Any]:
    """The function that converts arrays of ``source`` to ``target``."""
    kernel = _cast_kernel(source, target)
    if not optional:
        return kernel

    def lenient(values: Any) -> Any:
        try:
            return kernel(values)
        except pa.ArrowInvalid:
            return per_distinct(lambda value: _one(kernel, value, source), target, values)

    return lenient


def _one(kernel: Callable[[Any], Any], value: Any, source: pa.DataType) -> Any:
    try:
        return kernel(arrays.from_python([value], source))[0].as_py()
    except pa.ArrowInvalid:
        return None


def _cast_kernel(source: pa.DataType, target: pa.DataType) -> Callable[[Any], Any]:
    if is_string(target):
        return _to_text(source, target)
    if types.is_boolean(target):
        if is_string(source):
            return lambda values: per_distinct(_parse_boolean, pa.bool_(), values)
        if is_number(source):
            zero = arrays.scalar(0, pa.int8()).cast(source)
            return lambda values: pc.not_equal(values, zero)
    if types.is_integer(source) and types.is_floating(target):
        return lambda values: pc.cast(values, target, safe=False)  # rounded to the nearest
    if types.is_floating(source) and types.is_integer(target):
        return lambda values: pc.trunc(values).cast(target)
    if types.is_timestamp(target):
        return _to_timestamp(source, target)
    if types.is_date(target) and is_string(source):
        return lambda values: _first_ok(values, target, pa.timestamp("ms"))
    if types.is_integer(target) and types.is_temporal(source):
        width = pa.int32() if source.bit_width == 32 else pa.int64()
        return lambda values: values.cast(width).cast(target)
    if types.is_date32(target) and types.is_integer(source):
        return lambda values: values.cast(pa.int32()).cast(target)
    if types.is_decimal(target) and types.is_integer(source):
        wide = pa.decimal128(38, 0)
        return lambda values: values.cast(decimal_of(source)).cast(wide).cast(target)
    if types.is_decimal(target) and is_string(source):
        return lambda values: per_distinct(lambda text: _parse_decimal(text, target), target, values)
    if types.is_decimal(source) and types.is_integer(target):
        return lambda values: pc.trunc(values).cast(target)
    if types.is_time(target) and is_string(source):
        return lambda values: per_distinct(_parse_time, target, values)
    if is_number(target) and is_string(source):
        return lambda values: pc.cast(_view(values), target)
    try:
        arrays.empty(source).cast(target)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise InvalidInputError(f"{source} cannot be converted to {target}") from None
    return lambda values: pc.cast(values, target)


def _view(values: Any) -> Any:
    return pc.utf8_trim_whitespace(values)


def _first_ok(values: Any, target: pa.DataType, through: pa.DataType) -> Any:
    try:
        return pc.cast(values, target)
    except pa.ArrowInvalid:
        return pc.cast(pc.cast(values, through), target, safe=False)


def _to_timestamp(source: pa.DataType, target: pa.DataType) -> Callable[[Any], Any]:
    naive = pa.timestamp(target.unit)
    if is_string(source):

        def parse(values: Any) -> Any:
            try:
                return pc.cast(values, naive).cast(pa.int64()).cast(target)
            except pa.ArrowInvalid:
                return pc.cast(values, pa.timestamp(target.unit, "UTC")).cast(pa.int64()).cast(target)

        return parse
    if types.is_timestamp(source):
        # A zone is a way of showing the same instant: only the unit is converted.
        factor = _UNIT_ORDER.index(target.unit) - _UNIT_ORDER.index(source.unit)
        if factor == 0:
            return lambda values: values.cast(pa.int64()).cast(target)
        if factor > 0:
            scale = arrays.scalar(1000**factor, pa.int64())
            return lambda values: pc.multiply_checked(values.cast(pa.int64()), scale).cast(target)
        plain = pa.timestamp(source.unit)
        return lambda values: (
            pc.floor_temporal(values.cast(pa.int64()).cast(plain), unit=_FLOOR[target.unit])
            .cast(naive).cast(pa.int64()).cast(target)
        )  # fmt: skip
    if types.is_date(source):
        return lambda values: pc.cast(values, naive).cast(pa.int64()).cast(target)
    if types.is_integer(source):
        return lambda values: values.cast(pa.int64()).cast(target)
    raise InvalidInputError(f"{source} cannot be converted to {target}")


_FLOOR = {"s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond"}


def _to_text(source: pa.DataType, target: pa.DataType) -> Callable[[Any], Any]:
    if types.is_floating(source):
        return lambda values: per_distinct(lambda value: _float_text(value, source), target, values)
    if types.is_timestamp(source):
        return lambda values: per_distinct(_timestamp_text, target, values.cast(pa.string()))
    if is_list(source):
        return lambda values: per_distinct(_list_text, target, values)
    if types.is_fixed_size_binary(source):
        return lambda values: pc.cast(pc.cast(values, pa.binary()), target)
    try:
        arrays.empty(source).cast(target)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise InvalidInputError(f"{source} cannot be converted to text") from None
    return lambda values: pc.cast(values, target)


def _float_text(value: float, source: pa.DataType) -> str:
    """Shortest text, exponents only beyond 16 digits (13 for float32), as the reference writes floats."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    single = types.is_float32(source)
    sign, digits, exponent = decimal.Decimal(str(np.float32(value)) if single else repr(value)).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0") or "0"
    exponent += len(text) - len(text.rstrip("0")) if text != "0" else -exponent
    text = text.rstrip("0") or "0"
    point = len(text) + exponent
    if point > (13 if single else 16) or point <= (-6 if single else -5):
        text = text[0] + ("." + text[1:] if len(text) > 1 else "") + f"e{point - 1}"
    elif exponent >= 0:
        text += "0" * exponent + ".0"
    elif point > 0:
        text = f"{text[:point]}.{text[point:]}"
    else:
        text = "0." + "0" * -point + text
    return "-" + text if sign else text


def _timestamp_text(text: str) -> str:
    """Arrow's text of a timestamp in the reference's form: a T, as few digits as needed, +01:00."""
    zone = ""
    if text.endswith("Z"):
        text, zone = text[:-1], "Z"
    elif text[-5] in "+-":
        text, zone = text[:-5], f"{text[-5:-2]}:{text[-2:]}"
    whole, _, fraction = text.partition(".")
    while fraction.endswith("000"):
        fraction = fraction[:-3]
    return whole.replace(" ", "T") + (f".{fraction}" if fraction else "") + zone


def _list_text(value: Any) -> str:
    return "[" + ", ".join("" if item is None else str(item) for item in value) + "]"


_TRUE = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"})
_FALSE = frozenset({"f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"})


def _parse_boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise pa.ArrowInvalid(f"cannot convert {text!r} to a boolean")


def _parse_time(text: str) -> datetime.time:
    try:
        return datetime.time.fromisoformat(text.strip())
    except ValueError:
        raise pa.ArrowInvalid(f"cannot convert {text!r} to a time") from None


def _parse_decimal(text: str, target: pa.DataType) -> decimal.Decimal:
    try:
        value = decimal.Decimal(text.strip()).quantize(
            decimal.Decimal(1).scaleb(-target.scale), rounding=decimal.ROUND_HALF_UP,
            context=decimal.Context(prec=target.precision),
        )  # fmt: skip
    except decimal.InvalidOperation:
        raise pa.ArrowInvalid(f"cannot convert {text!r} to {target}") from None
    return value
