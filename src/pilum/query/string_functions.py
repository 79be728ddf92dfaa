"""Functions on text (spec api.md, section 10.6).

Positions and lengths count characters (code points) from 1.  What Arrow has no kernel for runs in Python once
per distinct value.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query.coercion import cast, is_binary
from pilum.query.expressions import Apply, Bound, Constant
from pilum.query.function_kit import (
    ANY,
    Function,
    Table,
    apply,
    fixed_integer,
    fixed_text,
    integer,
    null,
    per_value,
    text,
)
from pilum.query.vectors import broadcast, per_distinct

__all__ = ["STRING_FUNCTIONS", "text_slice"]


def _mapped(name: str, kernel: Callable[[Any], Any]) -> Function:
    """Text to text of the same kind."""

    def build(argument: Bound) -> Bound:
        value = text(argument, name)
        return apply(name, (value,), value.type, kernel)

    return Function(build)


def _case(ascii_kernel: Callable[[Any], Any], function: Callable[[str], str]) -> Callable[[Any], Any]:
    # Arrow maps characters one to one; the reference (and Python) knows that 'ß' becomes 'SS'.
    def kernel(values: Any) -> Any:
        if pc.all(pc.string_is_ascii(values)).as_py() is not False:
            return ascii_kernel(values)
        return per_distinct(function, values.type, values)

    return kernel


def _measured(name: str, kernel: Callable[[Any], Any]) -> Function:
    """Text to a length: int32, or int64 for large strings."""

    def build(argument: Bound) -> Bound:
        value = text(argument, name)
        type_ = pa.int64() if pa.types.is_large_string(value.type) else pa.int32()
        return apply(name, (value,), type_, lambda values: kernel(values).cast(type_))

    return Function(build)


def _python(
    name: str, type_: pa.DataType | None, function: Callable[..., Any], kinds: str, least: int = 0
) -> Function:
    """A Python function per distinct value; ``kinds``: t for text, i for integer, one letter an argument."""

    def build(*args: Bound) -> Bound:
        typed = [
            text(argument, name) if kind == "t" else integer(argument, name)
            for argument, kind in zip(args, kinds, strict=False)
        ]
        return per_value(name, typed[0].type if type_ is None else type_, function, *typed)

    return Function(build, least or len(kinds), len(kinds))


# --- searching ---------------------------------------------------------------------------------------------


def _search(name: str, kernel: Any, function: Callable[[str, str], bool]) -> Function:
    call = pc.get_function(kernel).call

    def build(value: Bound, pattern: Bound) -> Bound:
        value = text(value, name)
        if not isinstance(pattern, Constant):
            return per_value(name, pa.bool_(), function, value, text(pattern, name))
        wanted = fixed_text(pattern, name, "pattern")
        if wanted is None:
            return null(pa.bool_())
        options = pc.MatchSubstringOptions(wanted)
        return apply(name, (value,), pa.bool_(), lambda values: call([values], options))

    return Function(build, 2)


def _tokens(value: str) -> set[str]:
    return set("".join(letter if letter.isalnum() else " " for letter in value).split())


def _contains_tokens(value: Bound, wanted: Bound) -> Bound:
    words = fixed_text(wanted, "contains_tokens", "list of words")
    if words is None:
        return null(pa.bool_())
    tokens = _tokens(words)
    return per_value(
        "contains_tokens", pa.bool_(), lambda each: tokens <= _tokens(each), text(value, "contains_tokens")
    )


# --- cutting -----------------------------------------------------------------------------------------------


def text_slice(name: str, value: Bound, start: int, stop: int | None) -> Bound:
    """The characters from ``start`` to ``stop``, counted from 0; negative counts from the end."""
    return apply(
        name, (value,), value.type, lambda values: pc.utf8_slice_codeunits(values, start=start, stop=stop)
    )


def _left(value: Bound, count: Bound) -> Bound:
    value = text(value, "left")
    if not isinstance(count, Constant):
        return per_value(
            "left", value.type, lambda each, n: each[:n] if n else "", value, integer(count, "left")
        )
    number = fixed_integer(count, "left", "count")
    return null(value.type) if number is None else text_slice("left", value, 0, number)


def _right(value: Bound, count: Bound) -> Bound:
    value = text(value, "right")
    if not isinstance(count, Constant):
        return per_value(
            "right", value.type, lambda each, n: each[-n:] if n else "", value, integer(count, "right")
        )
    number = fixed_integer(count, "right", "count")
    if number is None:
        return null(value.type)
    return text_slice("right", value, -number, None) if number else text_slice("right", value, 0, 0)


def _substring(each: str, start: int, length: int | None = None) -> str:
    if length is None:
        return each[max(start - 1, 0) :]
    if length < 0:
        raise pa.ArrowInvalid(f"negative substring length {length}")
    return each[max(start - 1, 0) : max(start - 1 + length, 0)]


def _substr(value: Bound, start: Bound, length: Bound | None = None) -> Bound:
    value = text(value, "substr")
    args = (start,) if length is None else (start, length)
    if not all(isinstance(argument, Constant) for argument in args):
        return per_value(
            "substr", value.type, _substring, value, *(integer(argument, "substr") for argument in args)
        )
    begin = fixed_integer(start, "substr", "start")
    count = None if length is None else fixed_integer(length, "substr", "length")
    if begin is None or (length is not None and count is None):
        return null(value.type)
    if count is None:
        return text_slice("substr", value, max(begin - 1, 0), None)
    if count < 0:
        raise InvalidInputError(f"substr with a negative length: {count}")
    return text_slice("substr", value, max(begin - 1, 0), max(begin - 1 + count, 0))


def _trim(name: str, kernel: Callable[..., Any]) -> Function:
    def build(value: Bound, letters: Bound | None = None) -> Bound:
        value = text(value, name)
        cut = " " if letters is None else fixed_text(letters, name, "set of letters")
        if cut is None:
            return null(value.type)
        if not cut:
            return value
        return apply(name, (value,), value.type, lambda values: kernel(values, characters=cut))

    return Function(build, 1, 2)


def _pad(each: str, length: int, fill: str = " ", *, left: bool) -> str:
    missing = length - len(each)
    if missing <= 0 or not fill:
        return each[: max(length, 0)] if missing < 0 else each
    padding = (fill * (missing // len(fill) + 1))[:missing]
    return padding + each if left else each + padding


def _split_part(each: str, separator: str, position: int) -> str:
    parts = each.split(separator) if separator else [each]
    if position == 0:
        raise pa.ArrowInvalid("split_part counts from 1")
    index = position - 1 if position > 0 else len(parts) + position
    return parts[index] if 0 <= index < len(parts) else ""


def _overlay(each: str, new: str, start: int, length: int | None = None) -> str:
    count = len(new) if length is None else length
    return each[: max(start - 1, 0)] + new + each[max(start - 1 + count, 0) :]


# --- rewriting ---------------------------------------------------------------------------------------------


def _replace(value: Bound, old: Bound, new: Bound) -> Bound:
    value = text(value, "replace")
    if isinstance(old, Constant) and isinstance(new, Constant) and old.value and new.value is not None:
        before, after = fixed_text(old, "replace", "pattern"), fixed_text(new, "replace", "replacement")
        return apply(
            "replace",
            (value,),
            value.type,
            lambda values: pc.replace_substring(values, pattern=before, replacement=after),
        )
    return per_value("replace", value.type, str.replace, value, text(old, "replace"), text(new, "replace"))


def _translate(each: str, old: str, new: str) -> str:
    table: dict[int, str] = {}
    for position, letter in enumerate(old):
        table.setdefault(ord(letter), new[position] if position < len(new) else "")
    return each.translate(table)


def _initcap(each: str) -> str:
    out, inside = [], False
    for letter in each:
        out.append(letter.lower() if inside else letter.upper())
        inside = letter.isalnum()
    return "".join(out)


def _texts(name: str, args: Sequence[Bound]) -> tuple[tuple[Bound, ...], pa.DataType]:
    """All arguments as text of one kind."""
    parts = [text(argument, name) for argument in args]
    type_ = pa.large_string() if any(pa.types.is_large_string(part.type) for part in parts) else pa.string()
    return tuple(cast(part, type_) for part in parts), type_


def _concat(*args: Bound) -> Bound:
    """Nulls count as empty text."""
    parts, type_ = _texts("concat", args)
    empty = arrays.scalar("", type_)

    def kernel(*values: Any) -> Any:
        filled = [pc.coalesce(value, empty) for value in broadcast(*values)]
        return pc.binary_join_element_wise(*filled, empty)

    return apply("concat", parts, type_, kernel)


def _concat_ws(separator: Bound, *args: Bound) -> Bound:
    """Nulls are left out, together with their separator."""
    parts, type_ = _texts("concat_ws", (separator, *args))
    empty = arrays.scalar("", type_)

    def kernel(*values: Any) -> Any:
        between, *rest = broadcast(*values)
        joined = rest[0]
        for value in rest[1:]:
            joined = pc.coalesce(pc.binary_join_element_wise(joined, value, between), joined, value)
        return pc.if_else(pc.is_valid(between), pc.coalesce(joined, empty), between)

    return apply("concat_ws", parts, type_, kernel)


# --- distances, digests, codes -----------------------------------------------------------------------------


def _levenshtein(a: str, b: str) -> int:
    above = np.arange(len(b) + 1)
    steps = np.arange(len(b) + 1)
    letters = np.array([ord(letter) for letter in b], dtype=np.int64)
    for position, letter in enumerate(a, 1):
        row = np.minimum(above[1:] + 1, above[:-1] + (letters != ord(letter)))
        # Insertions run along the row: the running minimum of (value - index) gives them all at once.
        row = np.concatenate(([position], row))
        above = np.minimum.accumulate(row - steps) + steps
    return int(above[-1])


def _hex(value: int) -> str:
    return format(value & (1 << 64) - 1, "x")


def _character(code: int) -> str:
    if not 0 < code < 0x110000 or 0xD800 <= code < 0xE000:
        raise pa.ArrowInvalid(f"chr: {code} is not a character")
    return chr(code)


def _bytes(argument: Bound, name: str) -> Bound:
    return argument if is_binary(argument.type) else text(argument, name)


def _raw(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _digest(name: str, algorithm: str) -> Function:
    def build(argument: Bound) -> Bound:
        if name == "md5":
            return per_value(
                name,
                pa.string(),
                lambda each: hashlib.md5(_raw(each), usedforsecurity=False).hexdigest(),
                _bytes(argument, name),
            )
        return per_value(
            name,
            pa.binary(),
            lambda each: hashlib.new(algorithm, _raw(each)).digest(),
            _bytes(argument, name),
        )

    return Function(build)


def _encode(value: Bound, encoding: Bound) -> Bound:
    kind = fixed_text(encoding, "encode", "encoding")
    if kind == "hex":
        return per_value("encode", pa.string(), lambda each: _raw(each).hex(), _bytes(value, "encode"))
    if kind == "base64":
        return per_value(
            "encode",
            pa.string(),
            lambda each: base64.b64encode(_raw(each)).decode().rstrip("="),
            _bytes(value, "encode"),
        )
    raise InvalidInputError(f"encode knows 'hex' and 'base64', not {kind!r}")


def _decode(value: Bound, encoding: Bound) -> Bound:
    kind = fixed_text(encoding, "decode", "encoding")
    if kind not in ("hex", "base64"):
        raise InvalidInputError(f"decode knows 'hex' and 'base64', not {kind!r}")

    def one(each: Any) -> bytes:
        raw = _raw(each)
        try:
            if kind == "hex":
                return bytes.fromhex(raw.decode())
            return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
        except ValueError:
            raise pa.ArrowInvalid(f"decode: {each!r} is not {kind}") from None

    return per_value("decode", pa.binary(), one, _bytes(value, "decode"))


def _uuid() -> Bound:
    def kernel(rows: int) -> Any:
        return arrays.from_python([str(uuid.uuid4()) for _ in range(rows)], pa.string())

    return Apply("uuid", (), pa.string(), kernel, volatile=True)


def _bit_length(values: Any) -> Any:
    return pc.multiply(pc.binary_length(values), 8)


_LENGTH = _measured("length", pc.utf8_length)
_SUBSTR = Function(_substr, 2, 3)

STRING_FUNCTIONS: Table = {
    "lower": _mapped("lower", _case(pc.ascii_lower, str.lower)),
    "upper": _mapped("upper", _case(pc.ascii_upper, str.upper)),
    "reverse": _mapped("reverse", pc.utf8_reverse),
    "initcap": _mapped("initcap", lambda values: per_distinct(_initcap, values.type, values)),
    "length": _LENGTH,
    "char_length": _LENGTH,
    "character_length": _LENGTH,
    "octet_length": _measured("octet_length", pc.binary_length),
    "bit_length": _measured("bit_length", _bit_length),
    "contains": _search("contains", "match_substring", lambda each, part: part in each),
    "starts_with": _search("starts_with", "starts_with", str.startswith),
    "ends_with": _search("ends_with", "ends_with", str.endswith),
    "contains_tokens": Function(_contains_tokens, 2),
    "strpos": _python("strpos", pa.int32(), lambda each, part: each.find(part) + 1, "tt"),
    "instr": _python("instr", pa.int32(), lambda each, part: each.find(part) + 1, "tt"),
    "ascii": _python("ascii", pa.int32(), lambda each: ord(each[0]) if each else 0, "t"),
    "chr": _python("chr", pa.string(), _character, "i"),
    "left": Function(_left, 2),
    "right": Function(_right, 2),
    "substr": _SUBSTR,
    "substring": _SUBSTR,
    "btrim": _trim("btrim", pc.utf8_trim),
    "trim": _trim("trim", pc.utf8_trim),
    "ltrim": _trim("ltrim", pc.utf8_ltrim),
    "rtrim": _trim("rtrim", pc.utf8_rtrim),
    "lpad": _python("lpad", None, lambda *args: _pad(*args, left=True), "tit", 2),
    "rpad": _python("rpad", None, lambda *args: _pad(*args, left=False), "tit", 2),
    "repeat": _python("repeat", None, lambda each, count: each * count, "ti"),
    "replace": Function(_replace, 3),
    "overlay": _python("overlay", None, _overlay, "ttii", 3),
    "split_part": _python("split_part", None, _split_part, "tti"),
    "substr_index": _python(
        "substr_index",
        None,
        lambda each, part, n: (
            part.join(each.split(part)[:n] if n > 0 else each.split(part)[n:]) if n and part else ""
        ),
        "tti",
    ),
    "translate": _python("translate", None, _translate, "ttt"),
    "concat": Function(_concat, 1, ANY),
    "concat_ws": Function(_concat_ws, 2, ANY),
    "levenshtein": _python("levenshtein", pa.int32(), _levenshtein, "tt"),
    "find_in_set": _python(
        "find_in_set",
        pa.int32(),
        lambda each, words: words.split(",").index(each) + 1 if each in words.split(",") else 0,
        "tt",
    ),
    "to_hex": _python("to_hex", pa.string(), _hex, "i"),
    "md5": _digest("md5", "md5"),
    "sha224": _digest("sha224", "sha224"),
    "sha256": _digest("sha256", "sha256"),
    "sha384": _digest("sha384", "sha384"),
    "sha512": _digest("sha512", "sha512"),
    "encode": Function(_encode, 2),
    "decode": Function(_decode, 2),
    "uuid": Function(_uuid, 0),
}
