"""SQL text of the filter language -> expression tree (spec api.md, sections 10.1, 10.3, 10.4).

sqlglot does the grammar, with a dialect of ours: back quotes are names, double quotes are strings, no
function is rewritten (names are resolved by us, so that an unknown one can be reported), type names are
those of the specification.  The translation below is one table from sqlglot's node class to ours; a node that is
not in it is a construct the filter language does not have.

After a complete expression the rest of a filter is ignored, as the reference does, if it begins with a word or a
semicolon; an operator there that the language lacks (``&&``, ``~``, ``rlike``) is an error, because ignoring it
would answer another question.  In a projection a rest is an error, except that all after a comma is ignored.

Importing sqlglot takes about 100 ms; this module is imported by the first query with an expression.
"""

from __future__ import annotations

import datetime
import re
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pyarrow as pa
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.parser import Parser
from sqlglot.tokens import Token, Tokenizer, TokenType

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.io.forking import on_fork
from pilum.query.expressions import Call, Cast, Column, Expression, Literal

__all__ = ["parse_filter_text", "parse_projection_text"]

# Type names that sqlglot knows but the filter language does not; some mean different things elsewhere
# (INT8 is one byte or eight), so they are refused rather than guessed.
_FOREIGN_TYPES = frozenset(
    {"INT8", "INT4", "INT2", "INT1", "INT16", "INT32", "INT64", "INT128", "INT256", "UINT", "LONG", "REAL"}
    | {"NUMERIC", "TEXT", "VARCHAR", "BYTEA", "BYTEINT", "LONGTEXT", "MEDIUMTEXT", "TINYTEXT"}
)
_KEPT_FUNCTION_PARSERS = (
    "CAST",
    "TRY_CAST",
    "EXTRACT",
    "SUBSTRING",
    "TRIM",
    "POSITION",
    "OVERLAY",
    "CEIL",
    "FLOOR",
)


class _LanceTokenizer(Tokenizer):  # type: ignore[misc]
    IDENTIFIERS = ["`"]  # noqa: RUF012 (sqlglot's way of declaring a dialect)
    QUOTES = ["'", '"']  # noqa: RUF012
    STRING_ESCAPES = ["'", '"']  # noqa: RUF012
    HEX_STRINGS = [("x'", "'"), ("X'", "'"), ("0x", ""), ("0X", "")]  # noqa: RUF012
    KEYWORDS = {  # noqa: RUF012
        name: token for name, token in Tokenizer.KEYWORDS.items() if name not in _FOREIGN_TYPES
    }
    SINGLE_TOKENS = {name: token for name, token in Tokenizer.SINGLE_TOKENS.items() if name != "!"}  # noqa: RUF012


class _LanceParser(Parser):  # type: ignore[misc]
    FUNCTIONS: dict[str, Any] = {}  # noqa: RUF012
    NO_PAREN_FUNCTIONS: dict[Any, Any] = {}  # noqa: RUF012
    FUNCTION_PARSERS = {  # noqa: RUF012
        name: parse for name, parse in Parser.FUNCTION_PARSERS.items() if name in _KEPT_FUNCTION_PARSERS
    }
    EXPRESSION_PARSERS = {  # noqa: RUF012
        **Parser.EXPRESSION_PARSERS,
        exp.Where: lambda self: self._parse_filter(),
        exp.Select: lambda self: self._parse_projection(),
    }

    def _parse_filter(self) -> Any:
        expression = self._parse_disjunction()
        following = self._curr
        if following is not None and not _ignorable(following):
            self.raise_error(f"{following.text!r} is not an operator of the filter language", following)
        self._advance(len(self._tokens) - self._index)
        return expression

    def _parse_projection(self) -> Any:
        expression = self._parse_disjunction()
        if self._match(TokenType.COMMA):
            self._advance(len(self._tokens) - self._index)
        return expression


class _Lance(Dialect):  # type: ignore[misc]
    """The filter language as a sqlglot dialect."""

    Tokenizer = _LanceTokenizer
    Parser = _LanceParser


_DIALECT = _Lance()


@lru_cache(maxsize=256)
def parse_filter_text(text: str) -> Expression:
    """Parse a filter.

    Raises:
        InvalidInputError: the text is empty or no expression.
        UnsupportedError: it uses a construct outside the filter language.
    """
    return _like_others(text) or _parse(text, exp.Where, "filter")


# Whoever looks for one row after the other asks for `id = 1`, `id = 2`, ..., which differ in the number only.
_COMPARED = re.compile(r"(\s*[A-Za-z_]\w*\s*(?:=|<>|!=|<=?|>=?)\s*)([1-9][0-9]{0,17})\s*").fullmatch


def _like_others(text: str) -> Expression | None:
    """A comparison with a number, made of the tree of the same one with 0; None for other filters."""
    found = _COMPARED(text)
    if found is None:
        return None
    try:
        tree = parse_filter_text(found[1] + "0")
    except (InvalidInputError, UnsupportedError):
        return None  # the message shows the text
    if isinstance(tree, Call) and tree.args[1:] == (Literal(0),):
        return Call(tree.name, (tree.args[0], Literal(int(found[2]))))
    return None


@lru_cache(maxsize=256)
def parse_projection_text(text: str) -> Expression:
    """Parse one expression of a projection; raises as `parse_filter_text` does."""
    return _parse(text, exp.Select, "expression")


# sqlglot takes some twenty frames for a pair of parentheses: Python's limit of 1000 is reached at fifty pairs, which
# programs that write filters do nest.  Its calls are pure Python, which need no C stack, so more are safe.
_DEEP = 6000
_DEEP_LOCK = threading.Lock()


@on_fork
def _forget() -> None:
    global _DEEP_LOCK
    _DEEP_LOCK = threading.Lock()


def _parse(text: str, kind: Any, what: str) -> Expression:
    try:
        return _parse_once(text, kind, what)
    except RecursionError:
        pass
    with _DEEP_LOCK:
        usual = sys.getrecursionlimit()
        sys.setrecursionlimit(max(usual, _DEEP))
        try:
            return _parse_once(text, kind, what)
        except RecursionError:
            raise InvalidInputError(f"the {what} is nested too deeply ({len(text)} characters)") from None
        finally:
            sys.setrecursionlimit(usual)


def _parse_once(text: str, kind: Any, what: str) -> Expression:
    if not text.strip():
        raise InvalidInputError(f"the {what} is empty")
    try:
        tokens = [_as_name(token, following) for token, following in _pairs(_DIALECT.tokenize(text))]
        parsed = _DIALECT.parser().parse_into(kind, tokens, text)
    except SqlglotError as error:
        raise InvalidInputError(f"cannot parse the {what} {_shown(text)}: {_first_message(error)}") from None
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # sqlglot on text it did not foresee
        raise InvalidInputError(f"cannot parse the {what} {_shown(text)}: {error}") from None
    tree = parsed[0] if parsed else None
    if tree is None:
        raise InvalidInputError(f"cannot parse the {what} {_shown(text)}: no expression found")
    try:
        return _translate(tree)
    except UnsupportedError as error:
        raise UnsupportedError(f"{error} (in the {what} {_shown(text)})") from None


_INFIX_WORDS = frozenset(
    {"XOR", "DIV", "MOD", "RLIKE", "REGEXP", "GLOB", "SIMILAR", "OVERLAPS", "COLLATE", "MEMBER", "MATCH"}
)


def _ignorable(token: Token) -> bool:
    """Whether what follows an expression may be dropped from this token on."""
    if token.token_type == TokenType.SEMICOLON:
        return True
    text = token.text
    return bool(text) and (text[0].isalnum() or text[0] == "_") and text.upper() not in _INFIX_WORDS


def _pairs(tokens: list[Token]) -> list[tuple[Token, Token | None]]:
    following: list[Token | None] = [*tokens[1:], None]
    return list(zip(tokens, following, strict=True))


_STATEMENTS = frozenset(
    {TokenType.SELECT, TokenType.WITH, TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY}
)
_OPENERS = frozenset({TokenType.EQ, TokenType.NEQ, TokenType.LT, TokenType.LTE, TokenType.GT, TokenType.GTE})


def _as_name(token: Token, following: Token | None) -> Token:
    """A reserved word in front of a comparison is a column: `select = 1`."""
    if token.token_type in _STATEMENTS and following is not None and following.token_type in _OPENERS:
        return Token(
            token_type=TokenType.VAR,
            text=token.text,
            line=token.line,
            col=token.col,
            start=token.start,
            end=token.end,
        )
    return token


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "…")


def _first_message(error: SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if details:
        first = details[0]
        where = first.get("col")
        return f"{first.get('description')}" + (f" (column {where})" if where is not None else "")
    return str(error).splitlines()[0]


# --- sqlglot nodes -> our nodes -----------------------------------------------------------------------


def _translate(node: Any) -> Expression:
    handler = _HANDLERS.get(type(node))
    if handler is None:
        raise UnsupportedError(f"{type(node).__name__} is not part of the filter language: {node.sql()}")
    return handler(node)


def _binary(name: str) -> Callable[[Any], Expression]:
    return lambda node: Call(name, (_translate(node.this), _translate(node.expression)))


def _junction(name: str) -> Callable[[Any], Expression]:
    def translate(node: Any) -> Expression:
        # Long chains are left-deep; flattening keeps the recursion shallow (thousands of terms are usual).
        parts: list[Expression] = []
        while type(node) is _JUNCTIONS[name]:
            parts.append(_translate(node.expression))
            node = node.this
        parts.append(_translate(node))
        return Call(name, tuple(reversed(parts)))

    return translate


_JUNCTIONS = {"and": exp.And, "or": exp.Or}


def _not(node: Any) -> Expression:
    inner = node.this
    operand = _translate(inner)
    if type(inner) in _NEGATED and isinstance(operand, Call):
        return _negated(operand)
    return Call("not", (operand,))


_NEGATED = frozenset({exp.In, exp.Is, exp.Between, exp.Like, exp.ILike})


def _negated(call: Call) -> Expression:
    """`x NOT IN`, `NOT BETWEEN`, `IS NOT`: one operator, so that literals are still coerced (not so below NOT)."""
    if call.name == "and":
        low, high = call.args
        assert isinstance(low, Call)
        assert isinstance(high, Call)
        return Call("or", (Call("<", low.args), Call(">", high.args)))
    return Call(
        call.name.replace("is ", "is not ") if call.name.startswith("is ") else f"not {call.name}", call.args
    )


def _like(name: str) -> Callable[[Any], Expression]:
    def translate(node: Any) -> Expression:
        call = Call(name, (_translate(node.this), _translate(node.expression)))
        return _negated(call) if node.args.get("negate") else call

    return translate


def _escape(node: Any) -> Expression:
    if node.expression.this != "\\":
        raise UnsupportedError("LIKE … ESCAPE with another character than the backslash")
    return _translate(node.this)


def _in(node: Any) -> Expression:
    items = node.args.get("expressions")
    if (
        node.args.get("query") is not None
        or node.args.get("unnest") is not None
        or node.args.get("field") is not None
    ):
        raise UnsupportedError("IN with a subquery")
    if not items:
        raise InvalidInputError("IN needs at least one value")
    return Call("in", (_translate(node.this), *(_translate(item) for item in items)))


def _between(node: Any) -> Expression:
    value = _translate(node.this)
    return Call(
        "and",
        (
            Call(">=", (value, _translate(node.args["low"]))),
            Call("<=", (value, _translate(node.args["high"]))),
        ),
    )


def _is(node: Any) -> Expression:
    value = _translate(node.this)
    if isinstance(node.expression, exp.Null):
        return Call("is null", (value,))
    if isinstance(node.expression, exp.Boolean):
        return Call("is true" if node.expression.this else "is false", (value,))
    raise UnsupportedError(f"IS {node.expression.sql()}")


def _literal(node: Any) -> Expression:
    if node.is_string:
        return Literal(node.this)
    return Literal(_number(node.this))


def _number(text: str) -> int | float:
    digits = text.replace("_", "")
    if digits.isdigit():
        value = int(digits)
        return value if value < 1 << 64 else float(value)
    try:
        return float(digits)
    except ValueError:
        raise InvalidInputError(f"{text!r} is not a number") from None


def _negative(node: Any) -> Expression:
    operand = _translate(node.this)
    if isinstance(operand, Literal) and type(operand.value) in (int, float) and operand.type is None:
        value = -operand.value
        return Literal(value if isinstance(value, float) or value >= -(1 << 63) else float(value))
    return Call("negative", (operand,))


def _hex(node: Any) -> Expression:
    digits = str(node.this)
    try:
        return Literal(bytes.fromhex(digits.zfill(len(digits) + len(digits) % 2)))
    except ValueError:
        raise InvalidInputError(f"X'{digits}' is not a binary literal") from None


def _column(node: Any) -> Expression:
    parts = [node.args[key] for key in ("catalog", "db", "table", "this") if node.args.get(key) is not None]
    if any(not isinstance(part, exp.Identifier) for part in parts):
        raise UnsupportedError(f"{node.sql()} is not a column")
    return Column(tuple(part.this for part in parts), bool(parts[0].args.get("quoted")))


def _dot(node: Any) -> Expression:
    base = _translate(node.this)
    if isinstance(base, Literal):
        raise UnsupportedError("a field of a string; names are quoted with back quotes")
    if not isinstance(node.expression, exp.Identifier):
        raise UnsupportedError(f"{node.sql()} is not a field access")
    return _field(base, node.expression.this)


def _field(base: Expression, name: str) -> Expression:
    if isinstance(base, Column):
        return Column((*base.path, name), base.quoted)
    return Call("get_field", (base, Literal(name)))


def _bracket(node: Any) -> Expression:
    if len(node.expressions) != 1:
        raise UnsupportedError(f"more than one subscript: {node.sql()}")
    base, key = _translate(node.this), _translate(node.expressions[0])
    if isinstance(key, Literal) and isinstance(key.value, str):
        return _field(base, key.value)
    return Call("element", (base, key))


def _array(node: Any) -> Expression:
    items = tuple(_translate(item) for item in node.expressions)
    if any(isinstance(item, Column) for item in items):
        raise InvalidInputError(
            f"{node.sql()} is neither a column nor a list of literals; quote names with back quotes"
        )
    return Call("make_array", items)


def _cast(node: Any) -> Expression:
    return Cast(_translate(node.this), _arrow_type(node.args["to"]), isinstance(node, exp.TryCast))


_TYPES: dict[Any, pa.DataType] = {
    exp.DataType.Type.BOOLEAN: pa.bool_(),
    exp.DataType.Type.TINYINT: pa.int8(),
    exp.DataType.Type.UTINYINT: pa.uint8(),
    exp.DataType.Type.SMALLINT: pa.int16(),
    exp.DataType.Type.USMALLINT: pa.uint16(),
    exp.DataType.Type.INT: pa.int32(),
    exp.DataType.Type.UINT: pa.uint32(),
    exp.DataType.Type.BIGINT: pa.int64(),
    exp.DataType.Type.UBIGINT: pa.uint64(),
    exp.DataType.Type.FLOAT: pa.float32(),
    exp.DataType.Type.DOUBLE: pa.float64(),
    exp.DataType.Type.TEXT: pa.string(),
    exp.DataType.Type.BINARY: pa.binary(),
    exp.DataType.Type.DATE: pa.date32(),
}
_UNITS = {0: "s", 3: "ms", 6: "us", 9: "ns"}


def _arrow_type(node: Any) -> pa.DataType:
    kind, parameters = node.this, [int(parameter.this.this) for parameter in node.expressions]
    if kind in (exp.DataType.Type.TIMESTAMP, exp.DataType.Type.DATETIME):
        unit = _UNITS.get(parameters[0] if parameters else 6)
        if unit is not None:
            return pa.timestamp(unit)
    elif kind == exp.DataType.Type.DECIMAL and len(parameters) in (1, 2):
        precision, scale = parameters[0], parameters[1] if len(parameters) == 2 else 0
        if 1 <= precision <= 38 and scale <= precision:
            return pa.decimal128(precision, scale)
        if 1 <= precision <= 76 and scale <= precision:
            return pa.decimal256(precision, scale)
    elif kind in _TYPES and not parameters:
        return _TYPES[kind]
    raise UnsupportedError(
        f"type {node.sql()} is not part of the filter language; there are boolean, tinyint, smallint, int, bigint "
        "(each also unsigned), float, double, decimal(p, s), string, binary, date, timestamp(0|3|6|9)"
    )


_INTERVALS = {
    "WEEK": datetime.timedelta(weeks=1), "DAY": datetime.timedelta(days=1), "HOUR": datetime.timedelta(hours=1),
    "MINUTE": datetime.timedelta(minutes=1), "SECOND": datetime.timedelta(seconds=1),
    "MILLISECOND": datetime.timedelta(milliseconds=1), "MICROSECOND": datetime.timedelta(microseconds=1),
}  # fmt: skip


def _interval(node: Any) -> Expression:
    unit = str(node.args["unit"].this).upper().rstrip("S") if node.args.get("unit") is not None else "SECOND"
    if unit not in _INTERVALS or node.this is None:
        raise UnsupportedError(
            f"interval {node.sql()}: only weeks, days, hours, minutes, seconds and parts of these"
        )
    try:
        return Literal(float(node.this.this) * _INTERVALS[unit], pa.duration("ns"))
    except ValueError:
        raise InvalidInputError(f"cannot read the interval {node.sql()}") from None


def _function(node: Any) -> Expression:
    name = node.this
    if not isinstance(name, str):
        raise UnsupportedError(f"{node.sql()} is not a function call")
    return Call(name, tuple(_translate(argument) for argument in node.expressions))


def _as_call(name: str, *keys: str) -> Callable[[Any], Expression]:
    def translate(node: Any) -> Expression:
        return Call(name, tuple(_translate(node.args[key]) for key in keys if node.args.get(key) is not None))

    return translate


def _extract(node: Any) -> Expression:
    return Call("date_part", (Literal(node.this.sql().strip("'").lower()), _translate(node.expression)))


def _trim(node: Any) -> Expression:
    side = str(node.args.get("position") or "").upper()
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(side, "btrim")
    return _as_call(name, "this", "expression")(node)


def _case(node: Any) -> Expression:
    """CASE as a call: condition, value, condition, value, …, else."""
    subject = _translate(node.this) if node.this is not None else None
    args: list[Expression] = []
    for branch in node.args["ifs"]:
        condition = _translate(branch.this)
        args.append(condition if subject is None else Call("=", (subject, condition)))
        args.append(_translate(branch.args["true"]))
    default = node.args.get("default")
    args.append(_translate(default) if default is not None else Literal(None))
    return Call("case", tuple(args))


_HANDLERS: dict[type, Callable[[Any], Expression]] = {
    exp.Paren: lambda node: _translate(node.this),
    exp.And: _junction("and"),
    exp.Or: _junction("or"),
    exp.Not: _not,
    exp.EQ: _binary("="),
    exp.NEQ: _binary("!="),
    exp.LT: _binary("<"),
    exp.LTE: _binary("<="),
    exp.GT: _binary(">"),
    exp.GTE: _binary(">="),
    exp.Add: _binary("+"),
    exp.Sub: _binary("-"),
    exp.Mul: _binary("*"),
    exp.Div: _binary("/"),
    exp.Mod: _binary("%"),
    exp.DPipe: _binary("||"),
    exp.BitwiseLeftShift: _binary("<<"),
    exp.BitwiseRightShift: _binary(">>"),
    exp.NullSafeNEQ: _binary("is distinct from"),
    exp.NullSafeEQ: _binary("is not distinct from"),
    exp.Like: _like("like"),
    exp.ILike: _like("ilike"),
    exp.Escape: _escape,
    exp.In: _in,
    exp.Between: _between,
    exp.Is: _is,
    exp.Neg: _negative,
    exp.Literal: _literal,
    exp.Boolean: lambda node: Literal(bool(node.this)),
    exp.Null: lambda node: Literal(None),
    exp.HexString: _hex,
    exp.Column: _column,
    exp.Dot: _dot,
    exp.Bracket: _bracket,
    exp.Array: _array,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Interval: _interval,
    exp.Anonymous: _function,
    exp.Extract: _extract,
    exp.Substring: _as_call("substr", "this", "start", "length"),
    exp.Trim: _trim,
    exp.StrPosition: _as_call("strpos", "this", "substr"),
    exp.Overlay: _as_call("overlay", "this", "expression", "from_", "for_"),
    exp.Ceil: _as_call("ceil", "this"),
    exp.Floor: _as_call("floor", "this"),
    exp.Case: _case,
}
