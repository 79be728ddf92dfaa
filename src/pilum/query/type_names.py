"""Names of Arrow types in expressions: SQL's (``bigint``) and the reference's own (``Int64``).

SQL names are what CAST takes and `to_sql` writes; the others belong to `arrow_cast` and `arrow_typeof`.
"""

from __future__ import annotations

import re

import pyarrow as pa

from pilum.errors import UnsupportedError

__all__ = ["parse_type", "sql_type", "type_name"]

types = pa.types

_SQL = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.uint8(): "tinyint unsigned",
    pa.uint16(): "smallint unsigned",
    pa.uint32(): "int unsigned",
    pa.uint64(): "bigint unsigned",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date",
}
_NAMES = {
    pa.null(): "Null",
    pa.bool_(): "Boolean",
    pa.int8(): "Int8",
    pa.int16(): "Int16",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.uint8(): "UInt8",
    pa.uint16(): "UInt16",
    pa.uint32(): "UInt32",
    pa.uint64(): "UInt64",
    pa.float16(): "Float16",
    pa.float32(): "Float32",
    pa.float64(): "Float64",
    pa.string(): "Utf8",
    pa.large_string(): "LargeUtf8",
    pa.binary(): "Binary",
    pa.large_binary(): "LargeBinary",
    pa.date32(): "Date32",
    pa.date64(): "Date64",
}
_UNITS = {"s": "s", "ms": "ms", "us": "µs", "ns": "ns"}
_LONG_UNITS = {"Second": "s", "Millisecond": "ms", "Microsecond": "us", "Nanosecond": "ns"}
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_BY_NAME = {name: type_ for type_, name in _NAMES.items()}
_BY_UNIT = {**{name: unit for unit, name in _UNITS.items()}, **_LONG_UNITS, "us": "us"}
_PARAMETRIC = re.compile(r'(\w+)\(\s*(\w+)\s*(?:,\s*(?:(?:Some\()?"([^"]*)"\)?|(\w+|-?\d+))\s*)?\)')


def sql_type(type_: pa.DataType) -> str | None:
    """The name that CAST takes; None for a type that SQL cannot name."""
    if type_ in _SQL:
        return _SQL[type_]
    if types.is_timestamp(type_) and type_.tz is None:
        return f"timestamp({_DIGITS[type_.unit]})"
    if types.is_decimal128(type_) or types.is_decimal256(type_):
        return f"decimal({type_.precision}, {type_.scale})"
    return None


def type_name(type_: pa.DataType) -> str:
    """The reference's name: ``Int64``, ``Timestamp(µs, "UTC")``, ``Decimal128(10, 2)``."""
    if type_ in _NAMES:
        return _NAMES[type_]
    if types.is_timestamp(type_):
        zone = f', "{type_.tz}"' if type_.tz else ""
        return f"Timestamp({_UNITS[type_.unit]}{zone})"
    if types.is_time32(type_) or types.is_time64(type_):
        return f"Time{type_.bit_width}({_UNITS[type_.unit]})"
    if types.is_duration(type_):
        return f"Duration({_UNITS[type_.unit]})"
    if types.is_decimal(type_):
        return f"Decimal{type_.bit_width}({type_.precision}, {type_.scale})"
    if types.is_fixed_size_binary(type_):
        return f"FixedSizeBinary({type_.byte_width})"
    if types.is_fixed_size_list(type_):
        return f"FixedSizeList({type_.list_size} x {type_name(type_.value_type)})"
    if types.is_list(type_) or types.is_large_list(type_):
        return f"{'Large' if types.is_large_list(type_) else ''}List({type_name(type_.value_type)})"
    if types.is_struct(type_):
        return "Struct(" + ", ".join(f'"{field.name}": {type_name(field.type)}' for field in type_) + ")"
    return str(type_)


def parse_type(name: str) -> pa.DataType:
    """The type with the reference's name.

    Raises:
        UnsupportedError: a name that is not known.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    match = _PARAMETRIC.fullmatch(name.strip())
    if match is not None:
        kind, first, zone, second = match.groups()
        unit = _BY_UNIT.get(first)
        if kind == "Timestamp" and unit is not None and second in (None, "None"):
            return pa.timestamp(unit, zone)
        if kind == "Time32" and unit in ("s", "ms"):
            return pa.time32(unit)
        if kind == "Time64" and unit in ("us", "ns"):
            return pa.time64(unit)
        if kind == "Duration" and unit is not None:
            return pa.duration(unit)
        if kind in ("Decimal128", "Decimal256") and first.isdigit() and second is not None:
            widest = 38 if kind == "Decimal128" else 76
            if 1 <= int(first) <= widest and second.lstrip("-").isdigit():
                make = pa.decimal128 if widest == 38 else pa.decimal256
                return make(int(first), int(second))
        if kind == "FixedSizeBinary" and first.isdigit():
            return pa.binary(int(first))
    raise UnsupportedError(f"the type {name!r}; write it as in Int64, Utf8, Timestamp(µs, 'UTC')")
