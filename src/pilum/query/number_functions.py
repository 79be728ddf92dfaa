"""Functions on numbers (spec api.md, section 10.6).

Integers become float64 where the result is a real number; float32 stays float32.  Rounding is half away from zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query.coercion import cast, common_type, is_number
from pilum.query.expressions import Apply, Bound, Constant
from pilum.query.function_kit import Function, Table, apply, fixed_integer, floating, integer, null
from pilum.query.vectors import broadcast, validity

__all__ = ["NUMBER_FUNCTIONS"]

types = pa.types


def _real(name: str, kernel: Callable[[Any], Any]) -> Function:
    """A real function of one number."""

    def build(argument: Bound) -> Bound:
        value = floating(argument, name)
        return apply(name, (value,), value.type, kernel)

    return Function(build)


def _numpy(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A NumPy function as a kernel: nulls kept, no warnings."""

    def kernel(values: Any) -> Any:
        with np.errstate(all="ignore"):
            result = function(arrays.to_numpy(values))
        mask = ~arrays.valid(values) if values.null_count else None
        return arrays.from_numpy(result, values.type, mask)

    return kernel


def _test(name: str, kernel: Callable[[Any], Any]) -> Function:
    def build(argument: Bound) -> Bound:
        return apply(name, (floating(argument, name),), pa.bool_(), kernel)

    return Function(build)


def _same(name: str, kernel: Callable[[Any], Any]) -> Function:
    """Decimals stay decimals; other numbers become real."""

    def build(argument: Bound) -> Bound:
        value = argument if types.is_decimal(argument.type) else floating(argument, name)
        return apply(name, (value,), value.type, kernel)

    return Function(build)


def _abs(argument: Bound) -> Bound:
    if not is_number(argument.type):
        raise InvalidInputError(f"abs needs a number, not {argument.type}")
    value = floating(argument, "abs") if types.is_float16(argument.type) else argument
    return apply("abs", (value,), value.type, pc.abs_checked)


def _digits(name: str, mode: str) -> Function:
    def build(argument: Bound, digits: Bound | None = None) -> Bound:
        value = floating(argument, name)
        count = 0 if digits is None else fixed_integer(digits, name, "number of digits")
        if count is None:
            return null(value.type)
        return apply(
            name, (value,), value.type, lambda values: pc.round(values, ndigits=count, round_mode=mode)
        )

    return Function(build, 1, 2)


def _power(base: Bound, exponent: Bound) -> Bound:
    return apply(
        "power",
        (cast(floating(base, "power"), pa.float64()), cast(floating(exponent, "power"), pa.float64())),
        pa.float64(),
        lambda a, b: pc.power(a, b),
    )


def _log(first: Bound, second: Bound | None = None) -> Bound:
    if second is None:
        value = floating(first, "log")
        return apply("log", (value,), value.type, pc.log10)
    base, value = cast(floating(first, "log"), pa.float64()), cast(floating(second, "log"), pa.float64())
    return apply("log", (base, value), pa.float64(), lambda b, x: pc.logb(x, b))


def _two_reals(name: str, kernel: Callable[[Any, Any], Any]) -> Function:
    def build(first: Bound, second: Bound) -> Bound:
        a, b = floating(first, name), floating(second, name)
        type_ = common_type(a.type, b.type)
        if isinstance(b, Constant) or isinstance(a, Constant):  # a literal does not widen a float32 column
            type_ = a.type if isinstance(b, Constant) else b.type
        assert type_ is not None
        return apply(name, (cast(a, type_), cast(b, type_)), type_, kernel)

    return Function(build, 2)


def _integers(name: str, function: Any) -> Function:
    def kernel(a: Any, b: Any) -> Any:
        a, b = broadcast(a, b)
        valid = validity(a) & validity(b)
        first, second = (arrays.filled(side) for side in (a, b))
        return arrays.from_numpy(function(first, second), pa.int64(), ~valid)

    def build(first: Bound, second: Bound) -> Bound:
        return apply(name, (integer(first, name), integer(second, name)), pa.int64(), kernel)

    return Function(build, 2)


def _pi() -> Bound:
    return Constant(arrays.scalar(math.pi))


def _random() -> Bound:
    generator = np.random.default_rng()
    return Apply(
        "random", (), pa.float64(), lambda rows: arrays.from_numpy(generator.random((rows,))), volatile=True
    )


_POWER = Function(_power, 2)

NUMBER_FUNCTIONS: Table = {
    "abs": Function(_abs),
    "round": _digits("round", "half_towards_infinity"),
    "trunc": _digits("trunc", "towards_zero"),
    "ceil": _same("ceil", pc.ceil),
    "floor": _same("floor", pc.floor),
    "sqrt": _real("sqrt", pc.sqrt),
    "cbrt": _real("cbrt", _numpy(np.cbrt)),
    "power": _POWER,
    "pow": _POWER,
    "exp": _real("exp", pc.exp),
    "ln": _real("ln", pc.ln),
    "log": Function(_log, 1, 2),
    "log10": _real("log10", pc.log10),
    "log2": _real("log2", pc.log2),
    "signum": _real("signum", lambda values: pc.sign(values)),
    "sin": _real("sin", pc.sin),
    "cos": _real("cos", pc.cos),
    "tan": _real("tan", pc.tan),
    "asin": _real("asin", pc.asin),
    "acos": _real("acos", pc.acos),
    "atan": _real("atan", pc.atan),
    "sinh": _real("sinh", _numpy(np.sinh)),
    "cosh": _real("cosh", _numpy(np.cosh)),
    "tanh": _real("tanh", _numpy(np.tanh)),
    "degrees": _real("degrees", _numpy(np.degrees)),
    "radians": _real("radians", _numpy(np.radians)),
    "atan2": _two_reals("atan2", lambda a, b: pc.atan2(a, b)),
    "nanvl": _two_reals("nanvl", lambda a, b: pc.if_else(pc.is_nan(a), b, a)),
    "gcd": _integers("gcd", np.gcd),
    "lcm": _integers("lcm", np.lcm),
    "isnan": _test("isnan", pc.is_nan),
    "iszero": _test("iszero", lambda values: pc.equal(values, arrays.scalar(0.0, values.type))),
    "pi": Function(_pi, 0),
    "random": Function(_random, 0),
}
