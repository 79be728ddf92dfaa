"""Functions on dates and timestamps (spec api.md, section 10.6).

Timestamps with a zone are cut and taken apart in their zone, as Arrow does.  Intervals are fixed lengths of time;
months are not.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.query.coercion import cast, is_string
from pilum.query.expressions import Bound, Constant
from pilum.query.function_kit import Function, Table, apply, fixed_text, integer, null, per_value

__all__ = ["DATE_FUNCTIONS"]

types = pa.types
_LATEST = float(2**63 - 1024)  # the largest float64 that is an int64
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _moment(argument: Bound, name: str) -> Bound:
    """A date, time or timestamp; text is read as a timestamp."""
    type_ = argument.type
    if is_string(type_) or types.is_null(type_):
        return cast(argument, pa.timestamp("ns"))
    if types.is_date(type_) or types.is_timestamp(type_) or types.is_time(type_):
        return argument
    raise InvalidInputError(f"{name} needs a date or a timestamp, not {type_}")


def _seconds_times(scale: int) -> Callable[[Any], Any]:
    """Seconds of the minute with their fraction, in units of 1/scale."""

    def kernel(values: Any) -> Any:
        whole = pc.multiply(pc.second(values), scale)
        parts = pc.multiply(pc.subsecond(values), float(scale))
        return pc.add(whole, pc.cast(pc.floor(pc.add(parts, 1e-6)), pa.int64()))

    return kernel


def _epoch(values: Any) -> Any:
    if types.is_date(values.type):
        values = values.cast(pa.timestamp("s"))
    return pc.divide(
        pc.cast(values.cast(pa.int64()), pa.float64(), safe=False), float(_PER_SECOND[values.type.unit])
    )


_PARTS: dict[str, Callable[[Any], Any]] = {
    "year": pc.year,
    "quarter": pc.quarter,
    "month": pc.month,
    "week": pc.iso_week,
    "day": pc.day,
    "hour": pc.hour,
    "minute": pc.minute,
    "second": pc.second,
    "millisecond": _seconds_times(10**3),
    "microsecond": _seconds_times(10**6),
    "nanosecond": _seconds_times(10**9),
    "dow": lambda values: pc.day_of_week(values, count_from_zero=True, week_start=7),
    "isodow": lambda values: pc.day_of_week(values, count_from_zero=False, week_start=1),
    "doy": pc.day_of_year,
    "epoch": _epoch,
}
_DAY_PARTS = frozenset({"year", "quarter", "month", "week", "day", "dow", "isodow", "doy"})


def _date_part(part: Bound, argument: Bound) -> Bound:
    name = (fixed_text(part, "date_part", "part") or "").lower()
    singular = name[:-1] if name.endswith("s") and name[:-1] in _PARTS else name
    if singular not in _PARTS:
        raise InvalidInputError(f"date_part: no part {name!r}; there are {', '.join(_PARTS)}")
    value, kernel = _moment(argument, "date_part"), _PARTS[singular]
    if types.is_date(value.type) and singular not in _DAY_PARTS and singular != "epoch":
        value = cast(value, pa.timestamp("ms"))
    if singular == "epoch":
        return apply("date_part", (value,), pa.float64(), kernel)
    return apply("date_part", (value,), pa.int32(), lambda values: kernel(values).cast(pa.int32()))


_TRUNC_UNITS = frozenset(
    {"year", "quarter", "month", "week", "day", "hour", "minute", "second", "millisecond", "microsecond"}
)


def _date_trunc(unit: Bound, argument: Bound) -> Bound:
    name = (fixed_text(unit, "date_trunc", "unit") or "").lower()
    if name not in _TRUNC_UNITS:
        raise InvalidInputError(f"date_trunc: no unit {name!r}; there are {', '.join(sorted(_TRUNC_UNITS))}")
    value = _moment(argument, "date_trunc")
    if types.is_date(value.type):
        value = cast(value, pa.timestamp("ns"))
    return apply(
        "date_trunc",
        (value,),
        value.type,
        lambda values: pc.floor_temporal(values, unit=name, week_starts_monday=True),
    )


def _date_bin(interval: Bound, argument: Bound, origin: Bound | None = None) -> Bound:
    if not isinstance(interval, Constant) or not types.is_duration(interval.type):
        raise InvalidInputError("date_bin needs an interval first, as in date_bin(interval '1 day', ts)")
    value = _moment(argument, "date_bin")
    if types.is_date(value.type):
        value = cast(value, pa.timestamp("ns"))
    length = interval.scalar.cast(pa.duration("ns")).value * _PER_SECOND[value.type.unit] // 10**9
    if length <= 0:
        raise InvalidInputError("date_bin needs an interval that is longer than the unit of the timestamp")
    start = 0
    if origin is not None:
        bound = cast(origin, value.type)
        if isinstance(origin, Constant) and not isinstance(bound, Constant):
            bound = Constant(bound.kernel(pa.repeat(origin.scalar, 1))[0])  # type: ignore[union-attr]
        if not isinstance(bound, Constant):
            raise UnsupportedError("date_bin with an origin that differs from row to row")
        start = bound.scalar.value or 0

    def kernel(values: Any) -> Any:
        count = arrays.filled(values.cast(pa.int64()))
        binned = np.floor_divide(count - start, length) * length + start
        mask = ~arrays.valid(values) if values.null_count else None
        return arrays.from_numpy(binned, pa.int64(), mask).cast(values.type)

    return apply("date_bin", (value,), value.type, kernel)


def _to_date(argument: Bound, *formats: Bound) -> Bound:
    if formats:
        pattern = fixed_text(formats[0], "to_date", "format")
        return apply(
            "to_date",
            (argument,),
            pa.date32(),
            lambda values: pc.strptime(values, format=pattern, unit="s").cast(pa.date32()),
        )
    return cast(argument, pa.date32())


def _to_timestamp(name: str, unit: str, integers: str) -> Function:
    """``integers``: the unit that integers count."""

    def build(argument: Bound, *formats: Bound) -> Bound:
        target = pa.timestamp(unit)
        if formats:
            pattern = fixed_text(formats[0], name, "format")
            return apply(
                name, (argument,), target, lambda values: pc.strptime(values, format=pattern, unit=unit)
            )
        if types.is_integer(argument.type):
            return cast(cast(argument, pa.timestamp(integers)), target)
        if types.is_floating(argument.type):
            scale = float(_PER_SECOND[unit] // _PER_SECOND[integers])

            def kernel(values: Any) -> Any:
                count = arrays.to_numpy(values) * scale
                with np.errstate(invalid="ignore"):  # NaN counts as 0, infinity as the last moment
                    count = np.clip(np.nan_to_num(count), -_LATEST, _LATEST).astype(np.int64)
                mask = ~arrays.valid(values) if values.null_count else None
                return arrays.from_numpy(count, pa.int64(), mask).cast(target)

            return apply(name, (cast(argument, pa.float64()),), target, kernel)
        return cast(argument, target)

    return Function(build, 1, 2)


def _to_char(argument: Bound, pattern: Bound) -> Bound:
    wanted = fixed_text(pattern, "to_char", "format")
    if wanted is None:
        return null(pa.string())
    if "%f" in wanted or "%." in wanted or "%3" in wanted:
        raise UnsupportedError(f"to_char with fractions of a second: {wanted!r}")
    value = _moment(argument, "to_char")

    def kernel(values: Any) -> Any:
        if types.is_timestamp(values.type):  # Arrow's %S shows the fraction
            values = pc.floor_temporal(values, unit="second").cast(pa.timestamp("s", values.type.tz))
        return pc.strftime(values, format=wanted)

    return apply("to_char", (value,), pa.string(), kernel)


def _make_date(year: Bound, month: Bound, day: Bound) -> Bound:
    def one(y: int, m: int, d: int) -> datetime.date:
        try:
            return datetime.date(y, m, d)
        except ValueError as error:
            raise pa.ArrowInvalid(f"make_date({y}, {m}, {d}): {error}") from None

    return per_value(
        "make_date", pa.date32(), one, *(integer(part, "make_date") for part in (year, month, day))
    )


def _now() -> Bound:
    # One moment for the whole query, as in SQL.
    return Constant(arrays.scalar(datetime.datetime.now(datetime.UTC), pa.timestamp("ns", "UTC")))


def _today() -> Bound:
    return Constant(arrays.scalar(datetime.datetime.now(datetime.UTC).date(), pa.date32()))


def _from_unixtime(argument: Bound) -> Bound:
    return cast(integer(argument, "from_unixtime"), pa.timestamp("s"))


_PART = Function(_date_part, 2)
_TRUNC = Function(_date_trunc, 2)

DATE_FUNCTIONS: Table = {
    "date_part": _PART,
    "datepart": _PART,
    "date_trunc": _TRUNC,
    "datetrunc": _TRUNC,
    "date_bin": Function(_date_bin, 2, 3),
    "to_date": Function(_to_date, 1, 2),
    "to_timestamp": _to_timestamp("to_timestamp", "ns", "s"),
    "to_timestamp_seconds": _to_timestamp("to_timestamp_seconds", "s", "s"),
    "to_timestamp_millis": _to_timestamp("to_timestamp_millis", "ms", "ms"),
    "to_timestamp_micros": _to_timestamp("to_timestamp_micros", "us", "us"),
    "to_timestamp_nanos": _to_timestamp("to_timestamp_nanos", "ns", "ns"),
    "from_unixtime": Function(_from_unixtime),
    "to_char": Function(_to_char, 2),
    "date_format": Function(_to_char, 2),
    "make_date": Function(_make_date, 3),
    "now": Function(_now, 0),
    "current_timestamp": Function(_now, 0),
    "current_date": Function(_today, 0),
    "today": Function(_today, 0),
}
