"""Functions on JSON columns (spec api.md, section 10.6): json_extract, json_get…, json_exists, json_array….

A document is text, or binary in the JSONB form that tables store (`jsonb.py`).  Each distinct document is
parsed once per call.  Paths are the part of JSONPath that the reference's users write: ``$``, ``.name``,
``["name"]``, ``[0]``, ``[*]``, ``.*``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pilum.errors import InvalidInputError
from pilum.query.coercion import is_binary, is_string
from pilum.query.expressions import Bound, Constant
from pilum.query.function_kit import Function, Table, fixed_text, null, per_value
from pilum.schema.jsonb import read_jsonb

__all__ = ["JSON_FUNCTIONS"]

_MISSING = object()
_STEP = re.compile(
    r"""\.(\*)|\.([^.\[\s"]+)|\."((?:[^"\\]|\\.)*)"|\[\s*(?:(\*)|(-?\d+)|"([^"]*)"|'([^']*)')\s*\]"""
)

_Path = tuple[str | int | None, ...]  # None is the wildcard


def _document(argument: Bound, name: str) -> Bound:
    if not (is_string(argument.type) or is_binary(argument.type)):
        raise InvalidInputError(f"{name} needs a JSON column, not {argument.type}")
    return argument


def _parse(value: Any) -> Any:
    if isinstance(value, bytes):
        return read_jsonb(value)
    try:
        return json.loads(value)
    except ValueError as error:
        raise pa.ArrowInvalid(f"not a JSON document: {value[:80]!r}: {error}") from None


def _write(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parse_path(text: str, name: str) -> _Path:
    steps: list[str | int | None] = []
    position = 1 if text.startswith("$") else -1
    while 0 <= position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            position = -1
            break
        any_member, member, quoted, any_item, index, *bracket = match.groups()
        if any_member or any_item:
            steps.append(None)
        elif index is not None:
            steps.append(int(index))
        else:
            steps.append(next(each for each in (member, quoted, *bracket) if each is not None))
        position = match.end()
    if position < 0:
        raise InvalidInputError(
            f"{name}: {text!r} is not a path that is understood; write $.name, $.list[0], $[*]"
        )
    return tuple(steps)


def _walk(value: Any, path: _Path) -> list[Any]:
    """All values at a path."""
    found = [value]
    for step in path:
        following: list[Any] = []
        for each in found:
            if step is None:
                following.extend(
                    each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
                )
            elif isinstance(step, int):
                if isinstance(each, list) and -len(each) <= step < len(each):
                    following.append(each[step])
            elif isinstance(each, dict) and step in each:
                following.append(each[step])
        found = following
    return found


def _by_path(name: str, type_: pa.DataType, function: Callable[..., Any]) -> Function:
    """``function`` on the values found at the path."""

    def build(document: Bound, path: Bound) -> Bound:
        text = fixed_text(path, name, "path")
        if text is None:
            return null(type_)
        steps = _parse_path(text, name)
        return per_value(
            name, type_, lambda value: function(_walk(_parse(value), steps)), _document(document, name)
        )

    return Function(build, 2)


def _extracted(found: list[Any]) -> str | None:
    if not found:
        return None
    return _write(found[0] if len(found) == 1 else found)


def _count(found: list[Any]) -> int | None:
    if not found:
        return None
    if not isinstance(found[0], list):
        raise pa.ArrowInvalid(f"json_array_length: not an array: {_write(found[0])[:80]}")
    return len(found[0])


def _array_contains(document: Bound, path: Bound, wanted: Bound) -> Bound:
    name = "json_array_contains"
    text = fixed_text(path, name, "path")
    if not isinstance(wanted, Constant) or wanted.value is None or text is None:
        return null(pa.bool_())
    steps, value = _parse_path(text, name), wanted.value
    forms = {_write(value)}
    if isinstance(value, str):
        forms.add(value)  # '3' finds the number 3 as well as the text "3"

    def contains(each: Any) -> bool:
        return any(
            _write(item) in forms
            for found in _walk(_parse(each), steps)
            if isinstance(found, list)
            for item in found
        )

    return per_value(name, pa.bool_(), contains, _document(document, name))


def _member(value: Any, key: str) -> Any:
    parsed = _parse(value)
    if isinstance(parsed, dict):
        return parsed.get(key, _MISSING)
    if isinstance(parsed, list) and key.isdigit() and int(key) < len(parsed):
        return parsed[int(key)]
    return _MISSING


def _get(name: str, type_: pa.DataType, convert: Callable[[Any], Any]) -> Function:
    """A top-level member, converted; null when it is missing or JSON null."""

    def build(document: Bound, key: Bound) -> Bound:
        wanted = fixed_text(key, name, "key")
        if wanted is None:
            return null(type_)

        def one(value: Any) -> Any:
            found = _member(value, wanted)
            return None if found is _MISSING or (found is None and name != "json_get") else convert(found)

        return per_value(name, type_, one, _document(document, name))

    return Function(build, 2)


def _refuse(value: Any, what: str) -> Any:
    raise pa.ArrowInvalid(f"{_write(value)[:80]} cannot be converted to {what}")


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    text: str = _refuse(value, "text") if isinstance(value, (dict, list)) else _write(value)
    return text


def _as_number(kind: Callable[[Any], Any], what: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, (dict, list)):
            return _refuse(value, what)
        try:
            return kind(value)
        except (ValueError, OverflowError):
            return _refuse(value, what)

    return convert


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value != 0
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return bool(_refuse(value, "a boolean"))


JSON_FUNCTIONS: Table = {
    "json_extract": _by_path("json_extract", pa.string(), _extracted),
    "json_exists": _by_path("json_exists", pa.bool_(), bool),
    "json_array_length": _by_path("json_array_length", pa.int64(), _count),
    "json_array_contains": Function(_array_contains, 3),
    "json_get": _get("json_get", pa.string(), _write),
    "json_get_string": _get("json_get_string", pa.string(), _as_text),
    "json_get_int": _get("json_get_int", pa.int64(), _as_number(int, "an integer")),
    "json_get_float": _get("json_get_float", pa.float64(), _as_number(float, "a float")),
    "json_get_bool": _get("json_get_bool", pa.bool_(), _as_bool),
}
