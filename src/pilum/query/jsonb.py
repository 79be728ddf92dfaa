"""JSONB, the binary form in which tables store JSON columns, to Python values.

```
container = header u32 | entry u32 × n | keys … | values …          (big-endian)
  header:  top 3 bits 4 = array, 2 = object, 1 = scalar; the rest is n (entries, or key/value pairs)
  entry:   top 4 bits the kind (0 null, 1 string, 2 number, 3 false, 4 true, 5 container), the rest the length
  number:  tag byte (0 zero, 1 NaN, 2 inf, 3 -inf, 4 signed, 5 unsigned, 6 float in its high half), big-endian
```
An object has n key entries, then n value entries, then the key bytes and the value bytes.
"""

from __future__ import annotations

import struct
from typing import Any

from pilum.errors import CorruptFileError, UnsupportedError

__all__ = ["read_jsonb"]

_ARRAY, _OBJECT, _SCALAR = 0x80000000, 0x40000000, 0x20000000
_NULL, _STRING, _NUMBER, _FALSE, _TRUE, _CONTAINER = range(6)
# Deeper than any real document, far below the interpreter's recursion limit.
_MAX_DEPTH = 128


def read_jsonb(data: bytes) -> Any:
    """The document as dicts, lists, text, numbers, booleans and None.

    Raises:
        CorruptFileError: the bytes are not JSONB.
        UnsupportedError: a number kind that JSON does not have (decimals, dates).
    """
    try:
        return _container(memoryview(data), 0)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise CorruptFileError(f"not a JSONB document ({len(data)} bytes): {error}") from None


def _container(data: memoryview, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise CorruptFileError(f"a JSONB document is nested more than {_MAX_DEPTH} levels deep")
    (header,) = struct.unpack_from(">I", data)
    kind, count = header & 0xE0000000, header & 0x1FFFFFFF
    entries_count = {_ARRAY: count, _OBJECT: 2 * count, _SCALAR: 1}.get(kind)
    if entries_count is None:
        raise CorruptFileError(f"a JSONB container begins with {header:#010x}")
    if 4 + 4 * entries_count > len(data):
        raise CorruptFileError(f"a JSONB container of {len(data)} bytes claims {entries_count} entries")
    entries = struct.unpack_from(f">{entries_count}I", data, 4)
    values, position = [], 4 + 4 * entries_count
    for entry in entries:
        length = entry & 0x0FFFFFFF
        if position + length > len(data):
            raise CorruptFileError(
                f"a JSONB value ends {position + length - len(data)} bytes behind its container"
            )
        values.append(_value(entry >> 28 & 7, data[position : position + length], depth))
        position += length
    if kind == _ARRAY:
        return values
    if kind == _SCALAR:
        return values[0]
    if any(not isinstance(key, str) for key in values[:count]):
        raise CorruptFileError("a JSONB object has a key that is not text")
    return dict(zip(values[:count], values[count:], strict=True))


def _value(kind: int, data: memoryview, depth: int) -> Any:
    if kind == _STRING:
        return bytes(data).decode()
    if kind == _NUMBER:
        return _number(data)
    if kind == _CONTAINER:
        return _container(data, depth + 1)
    if kind in (_NULL, _FALSE, _TRUE):
        return {_NULL: None, _FALSE: False, _TRUE: True}[kind]
    raise UnsupportedError(f"JSONB values of kind {kind}")


def _number(data: memoryview) -> int | float:
    tag, rest = data[0] & 0xF0, bytes(data[1:])
    if tag == 0x00:
        return 0
    if tag in (0x10, 0x20, 0x30):
        return {0x10: float("nan"), 0x20: float("inf"), 0x30: float("-inf")}[tag]
    if tag in (0x40, 0x50) and len(rest) in (1, 2, 4, 8):
        return int.from_bytes(rest, "big", signed=tag == 0x40)
    if tag == 0x60 and len(rest) == 8:
        value: float = struct.unpack(">d", rest)[0]
        return value
    raise UnsupportedError(f"JSONB numbers of kind {tag:#04x} with {len(rest)} bytes")
