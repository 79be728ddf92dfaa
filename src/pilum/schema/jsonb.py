"""JSONB, the binary form in which JSON columns are stored: to Python values, and from JSON text.

```
container = header u32 | entry u32 × n | keys … | values …          (big-endian)
  header:  top 3 bits 4 = array, 2 = object, 1 = scalar; the rest is n (entries, or key/value pairs)
  entry:   top 4 bits the kind (0 null, 1 string, 2 number, 3 false, 4 true, 5 container), the rest the length
  number:  tag byte (0 zero, 1 NaN, 2 inf, 3 -inf, 4 signed, 5 unsigned, 6 float in its high half), big-endian
```
An object has n key entries, then n value entries, then the key bytes and the value bytes; keys are sorted by their
bytes.  Whole numbers take as few bytes as they can, those beyond 64 bits are stored as floats.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import pyarrow as pa

from pilum import arrays
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["is_json_text", "jsonb_of_text", "read_jsonb", "write_jsonb"]

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


# --------------------------------------------------------------------------- from text


def is_json_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds JSON documents as text: ``arrow.json``, or plain strings."""
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name == "arrow.json" and is_json_text(kind.storage_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def jsonb_of_text(array: pa.Array, name: str) -> pa.Array:
    """An array of JSON text as JSONB, large binary.

    Args:
        array: of a type that `is_json_text`.
        name: of the column, for messages.

    Raises:
        InvalidInputError: a value is not a JSON document.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    known: dict[str, bytes] = {}  # documents repeat
    found: list[bytes | None] = []
    for row, text in enumerate(array.to_pylist()):
        if text is not None and text not in known:
            try:
                known[text] = write_jsonb(text)
            except InvalidInputError as error:
                raise InvalidInputError(f"column {name!r}, row {row} of a batch: {error}") from None
        found.append(None if text is None else known[text])
    return arrays.from_python(found, pa.large_binary())


def write_jsonb(text: str) -> bytes:
    """A JSON document in its binary form; no text at all is null, as the reference has it.

    Raises:
        InvalidInputError: it is not a JSON document, names a member twice or is nested too deeply.
    """
    try:
        document = json.loads(text, strict=False, object_pairs_hook=_members) if text.strip() else None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not a JSON document: {error}") from None
    kind, data = _entry(document, 0)
    if kind == _CONTAINER:
        return data
    return struct.pack(">II", _SCALAR, kind << 28 | len(data)) + data


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has two members of one name")
    return found


def _entry(value: Any, depth: int) -> tuple[int, bytes]:
    """Kind and bytes of a value."""
    if value is None or value is False or value is True:
        return {None: _NULL, False: _FALSE, True: _TRUE}[value], b""
    if isinstance(value, str):
        try:
            return _STRING, value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"not a JSON document: {error}") from None
    if isinstance(value, int | float):
        return _NUMBER, _packed_number(value)
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"a JSON document is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, list):
        header, entries = _ARRAY | len(value), [_entry(item, depth + 1) for item in value]
    else:
        members = sorted(((_entry(key, depth)[1], item) for key, item in value.items()), key=_first)
        header = _OBJECT | len(value)
        entries = [(_STRING, key) for key, _ in members] + [_entry(item, depth + 1) for _, item in members]
    heads = [kind << 28 | len(data) for kind, data in entries]
    return _CONTAINER, struct.pack(f">I{len(heads)}I", header, *heads) + b"".join(data for _, data in entries)


def _first(pair: tuple[bytes, Any]) -> bytes:
    return pair[0]


def _packed_number(value: float) -> bytes:
    if isinstance(value, int):
        if value == 0:
            return b"\0"
        if -(1 << 63) <= value < 1 << 64:
            width = next(w for w in (1, 2, 4, 8) if value < 1 << 8 * w and value >= -(1 << 8 * w - 1))
            return (b"\x40" if value < 0 else b"\x50") + value.to_bytes(width, "big", signed=value < 0)
        try:
            value = float(value)
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    if value != value:
        return b"\x10"
    if value in (float("inf"), float("-inf")):
        return b"\x20" if value > 0 else b"\x30"
    return b"\x60" + struct.pack(">d", value)
