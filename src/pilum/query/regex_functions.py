"""Regular expressions (spec api.md, section 10.6).

Patterns are RE2's, which reads what the reference's engine reads, except that ``\\d``, ``\\w``, ``\\b`` mean ASCII; both
run in linear time.  Patterns are constants and are checked while binding.  Positions count characters from 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.query.expressions import Bound, Constant
from pilum.query.function_kit import Function, Table, apply, fixed_integer, fixed_text, null, text
from pilum.query.string_functions import text_slice
from pilum.query.vectors import per_distinct

__all__ = ["REGEX_FUNCTIONS"]


def _pattern(name: str, pattern: Bound, flags: Bound | None, allowed: str) -> str | None:
    """The pattern with its flags in front, checked; None for null."""
    wanted = fixed_text(pattern, name, "pattern")
    letters = "" if flags is None else fixed_text(flags, name, "flags")
    if wanted is None or letters is None:
        return None
    unknown = set(letters) - set(allowed)
    if unknown:
        raise InvalidInputError(
            f"{name}: unknown flag {sorted(unknown)[0]!r}; there are {', '.join(allowed)}"
        )
    if "x" in letters:
        raise UnsupportedError(f"{name} with the flag 'x'")
    inline = "".join(letter for letter in letters if letter in "imsU")
    expression = f"(?{inline}){wanted}" if inline else wanted
    try:
        pc.match_substring_regex(arrays.from_python([""], pa.string()), pattern=expression)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"{name}: {wanted!r} is not a regular expression: {error}") from None
    return expression


def _regexp_like(value: Bound, pattern: Bound, flags: Bound | None = None) -> Bound:
    value = text(value, "regexp_like")
    expression = _pattern("regexp_like", pattern, flags, "imsUx")
    if expression is None:
        return null(pa.bool_())
    return apply(
        "regexp_like",
        (value,),
        pa.bool_(),
        lambda values: pc.match_substring_regex(values, pattern=expression),
    )


def _named_groups(expression: str) -> tuple[str, int]:
    """The pattern with every group named g1, g2, … and the whole as g0; how many groups there are."""
    out, groups, position, inside = [], 0, 0, False
    while position < len(expression):
        letter = expression[position]
        step = 1
        if letter == "\\":
            step = 2
            out.append(expression[position : position + 2])
        elif inside:
            inside = letter != "]" or out[-1] in ("[", "[^")
            out.append(letter)
        elif letter == "[":
            inside = True
            step = 2 if expression[position + 1 : position + 2] == "^" else 1
            out.append(expression[position : position + step])
        elif letter == "(" and expression[position + 1 : position + 2] != "?":
            groups += 1
            out.append(f"(?P<g{groups}>")
        elif letter == "(" and expression[position + 1 : position + 3] in ("?P", "?<"):
            groups += 1
            step = expression.index(">", position) - position + 1
            out.append(f"(?P<g{groups}>")
        else:
            out.append(letter)
        position += step
    return f"(?P<g0>{''.join(out)})", groups


def _regexp_match(value: Bound, pattern: Bound, flags: Bound | None = None) -> Bound:
    value = text(value, "regexp_match")
    type_ = pa.list_(value.type)
    expression = _pattern("regexp_match", pattern, flags, "imsUx")
    if expression is None:
        return null(type_)
    named, groups = _named_groups(expression)
    wanted = [f"g{group}" for group in range(1, groups + 1)] or ["g0"]

    def kernel(values: Any) -> Any:
        found = pc.extract_regex(values, pattern=named)
        parts = [pc.struct_field(found, name) for name in wanted]
        rows, width = len(values), len(parts)
        order = np.arange(rows * width).reshape(width, rows).T.reshape(-1)
        flat = pa.concat_arrays(parts).take(arrays.from_numpy(order))
        mask = found.is_null()
        offsets = arrays.from_numpy(np.arange(0, rows * width + 1, width, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, flat, mask=mask)

    return apply("regexp_match", (value,), type_, kernel)


def _replacement(new: str) -> str:
    """The reference's `$1`, `${1}` and `\\1` as RE2's `\\1`; other backslashes stand for themselves."""
    out, position = [], 0
    while position < len(new):
        letter, rest = new[position], new[position + 1 :]
        if letter == "\\" and rest[:1].isdigit():
            out.append("\\" + rest[0])
            position += 2
        elif letter == "\\":
            out.append("\\\\")
            position += 1
        elif letter == "$" and rest[:1] == "$":
            out.append("$")
            position += 2
        elif letter == "$" and rest[:1].isdigit():
            out.append("\\" + rest[0])
            position += 2
        elif letter == "$" and rest[:1] == "{" and rest[1:3].endswith("}") and rest[1].isdigit():
            out.append("\\" + rest[1])
            position += 4
        else:
            out.append(letter)
            position += 1
    return "".join(out)


def _regexp_replace(value: Bound, pattern: Bound, new: Bound, flags: Bound | None = None) -> Bound:
    value = text(value, "regexp_replace")
    expression = _pattern("regexp_replace", pattern, flags, "gimsUx")
    replacement = fixed_text(new, "regexp_replace", "replacement")
    if expression is None or replacement is None:
        return null(value.type)
    everywhere = isinstance(flags, Constant) and "g" in str(flags.value)
    limit = None if everywhere else 1
    written = _replacement(replacement)
    return apply(
        "regexp_replace",
        (value,),
        value.type,
        lambda values: pc.replace_substring_regex(
            values, pattern=expression, replacement=written, max_replacements=limit
        ),
    )


def _from_start(name: str, value: Bound, start: Bound | None) -> Bound:
    """The text from a 1-based start on."""
    if start is None:
        return value
    begin = fixed_integer(start, name, "start")
    if begin is None:
        return null(value.type)
    if begin < 1:
        raise InvalidInputError(f"{name} starts at 1 or later, not at {begin}")
    return text_slice(name, value, begin - 1, None) if begin > 1 else value


def _regexp_count(
    value: Bound, pattern: Bound, start: Bound | None = None, flags: Bound | None = None
) -> Bound:
    value = _from_start("regexp_count", text(value, "regexp_count"), start)
    expression = _pattern("regexp_count", pattern, flags, "imsUx")
    if expression is None:
        return null(pa.int64())
    return apply(
        "regexp_count",
        (value,),
        pa.int64(),
        # 0 for null, as in the reference
        lambda values: pc.fill_null(pc.count_substring_regex(values, pattern=expression).cast(pa.int64()), 0),
    )


def _regexp_instr(
    value: Bound, pattern: Bound, start: Bound | None = None, flags: Bound | None = None
) -> Bound:
    value = text(value, "regexp_instr")
    expression = _pattern("regexp_instr", pattern, flags, "imsUx")
    if expression is None:
        return null(pa.int64())
    shift = 0 if start is None else (fixed_integer(start, "regexp_instr", "start") or 1) - 1

    def position(each: str, at: int) -> int:
        return 0 if at < 0 else len(each.encode()[:at].decode()) + 1 + shift

    def kernel(values: Any) -> Any:
        at = pc.find_substring_regex(values, pattern=expression).cast(pa.int64())
        return per_distinct(position, pa.int64(), values, at)  # bytes -> characters

    return apply("regexp_instr", (_from_start("regexp_instr", value, start),), pa.int64(), kernel)


REGEX_FUNCTIONS: Table = {
    "regexp_like": Function(_regexp_like, 2, 3),
    "regexp_match": Function(_regexp_match, 2, 3),
    "regexp_replace": Function(_regexp_replace, 3, 4),
    "regexp_count": Function(_regexp_count, 2, 4),
    "regexp_instr": Function(_regexp_instr, 2, 4),
}
