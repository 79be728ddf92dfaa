"""The expression tree of filters and computed columns: plain values, no parsing, no evaluation, no I/O.

An expression lives twice.  The parser (and the reader of `pyarrow.compute.Expression`) produces *names*:
`Column`, `Literal`, `Call`, `Cast`.  Binding to a schema produces *typed* nodes: `FieldRef`, `Constant`,
`Junction`, `Apply`; these know their Arrow type and the kernel that computes them (spec api.md, section 10).

Operators and functions share one node, `Call`; operators are spelled as in canonical SQL ("=", "and",
"is null", "not in"), so that `to_sql` needs no second table and no function name collides with one.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from pilum import arrays
from pilum.query.type_names import sql_type, type_name

__all__ = [
    "Apply",
    "Bound",
    "Call",
    "Cast",
    "Column",
    "Constant",
    "Expression",
    "FieldRef",
    "Junction",
    "Literal",
    "columns",
    "conjuncts",
    "field_refs",
    "fold",
    "to_sql",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a field below it, by name.

    Attributes:
        path: the column's name and the struct fields below it.
        quoted: the name was written in back quotes; it must match exactly.
    """

    path: tuple[str, ...]
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as written.

    Attributes:
        value: a Python value that `pa.scalar` accepts; None is the null literal.
        type: its type; None for the natural type of a literal in text, which may still be coerced.
    """

    value: Any
    type: pa.DataType | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function with its operands."""

    name: str
    args: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """A conversion; with ``optional`` (TRY_CAST) values that cannot be converted become null."""

    operand: Expression
    type: pa.DataType
    optional: bool = False


Expression: TypeAlias = Column | Literal | Call | Cast


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A bound column or struct field.  ``type`` is what evaluation returns: dictionaries are decoded."""

    path: tuple[str, ...]
    type: pa.DataType


@dataclass(frozen=True, slots=True)
class Constant:
    """A bound value.  ``literal``: written as a plain literal, so the coercion rules of 10.3 apply to it."""

    scalar: pa.Scalar
    literal: bool = False

    @property
    def type(self) -> pa.DataType:
        return self.scalar.type

    @property
    def value(self) -> Any:
        if pa.types.is_temporal(self.scalar.type):
            arrays.prepare()  # a time of nanoseconds becomes one of pandas
        return self.scalar.as_py()


@dataclass(frozen=True, slots=True)
class Junction:
    """AND (``conjunction``) or OR of two or more conditions; nested ones of the same kind are flattened."""

    conjunction: bool
    args: tuple[Bound, ...]

    @property
    def type(self) -> pa.DataType:
        return pa.bool_()


@dataclass(frozen=True, slots=True)
class Apply:
    """A bound operator, function or cast.

    Attributes:
        name: for messages.
        args: the operands.
        type: the Arrow type of the result.
        kernel: maps the evaluated operands (arrays or scalars, at least one an array) to an array.
        volatile: the kernel is called with the number of rows and its value must not be folded or cached.
        items: of IN: the constants that the operand is looked up among.
    """

    name: str
    args: tuple[Bound, ...]
    type: pa.DataType
    kernel: Callable[..., Any]
    volatile: bool = False
    items: tuple[Constant, ...] = ()


Bound: TypeAlias = FieldRef | Constant | Junction | Apply


def fold(bound: Bound) -> Bound:
    """A call whose operands are all constants becomes its value.

    Raises:
        pyarrow.ArrowInvalid: the value cannot be computed (division by zero, a failing cast).
    """
    if not isinstance(bound, Apply) or bound.volatile or not bound.args:
        return bound
    operands = []
    for argument in bound.args:
        if not isinstance(argument, Constant):
            return bound
        operands.append(pa.repeat(argument.scalar, 1))  # kernels want an array among their operands
    return Constant(bound.kernel(*operands)[0])


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything below it, parents first."""
    yield expression
    if isinstance(expression, Call):
        for argument in expression.args:
            yield from walk(argument)
    elif isinstance(expression, Cast):
        yield from walk(expression.operand)


def columns(expression: Expression) -> set[str]:
    """Dotted paths of the columns that ``expression`` names (as written)."""
    return {".".join(node.path) for node in walk(expression) if isinstance(node, Column)}


def field_refs(bound: Bound) -> Iterator[FieldRef]:
    """Every bound column below ``bound``, in order of appearance, repetitions included."""
    if isinstance(bound, FieldRef):
        yield bound
    elif isinstance(bound, (Junction, Apply)):
        for argument in bound.args:
            yield from field_refs(argument)


def conjuncts(bound: Bound) -> tuple[Bound, ...]:
    """The conditions that must all hold: the parts a planner can treat separately."""
    if isinstance(bound, Junction) and bound.conjunction:
        return bound.args
    return (bound,)


_SUFFIX = frozenset({"is null", "is not null", "is true", "is not true", "is false", "is not false"})
_WORDS = frozenset({"and", "or", "like", "not like", "ilike", "not ilike"})
_SYMBOLS = frozenset({"=", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "<<", ">>"})
_DISTINCT = frozenset({"is distinct from", "is not distinct from"})
INFIX = _WORDS | _SYMBOLS | _DISTINCT


def to_sql(expression: Expression) -> str:
    """Canonical SQL text of an expression, fully parenthesised; parsing it gives the same tree."""
    if isinstance(expression, Column):
        return ".".join(_name(part, exact=expression.quoted) for part in expression.path)
    if isinstance(expression, Literal):
        return _literal(expression.value, expression.type)
    if isinstance(expression, Cast):
        return _cast(to_sql(expression.operand), expression.type, optional=expression.optional)
    name, args = expression.name, [_operand(argument) for argument in expression.args]
    if name in _SUFFIX:
        return f"{args[0]} {name.upper()}"
    if name in INFIX:
        return f" {name.upper()} ".join(args)
    if name in ("in", "not in"):
        items = ", ".join(to_sql(argument) for argument in expression.args[1:])
        return f"{args[0]} {name.upper()} ({items})"
    if name == "not":
        return f"NOT {args[0]}"
    if name == "negative":
        return f"-{args[0]}"
    if name == "case":
        return _case(args)
    if name == "element":
        return f"{args[0]}[{to_sql(expression.args[1])}]"
    return f"{name}({', '.join(to_sql(argument) for argument in expression.args)})"


def _cast(operand: str, type_: pa.DataType, *, optional: bool) -> str:
    name = sql_type(type_)
    if name is None:  # a type that only pyarrow expressions and arrow_cast can name
        return f"arrow_cast({operand}, '{type_name(type_)}')"
    return f"{'try_cast' if optional else 'cast'}({operand} as {name})"


def _case(args: list[str]) -> str:
    branches = " ".join(
        f"WHEN {condition} THEN {value}" for condition, value in zip(args[:-1:2], args[1:-1:2], strict=True)
    )
    return f"CASE {branches} ELSE {args[-1]} END"


def _operand(expression: Expression) -> str:
    text = to_sql(expression)
    return f"({text})" if isinstance(expression, Call) and _is_operator(expression.name) else text


def _is_operator(name: str) -> bool:
    return name in _SUFFIX or name in INFIX or name in ("in", "not in", "not", "negative")


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset(
    [
        "all",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "between",
        "by",
        "case",
        "cast",
        "cross",
        "current_date",
        "current_timestamp",
        "date",
        "desc",
        "distinct",
        "else",
        "end",
        "escape",
        "except",
        "exists",
        "extract",
        "false",
        "from",
        "group",
        "having",
        "ilike",
        "in",
        "intersect",
        "interval",
        "is",
        "join",
        "like",
        "limit",
        "not",
        "null",
        "on",
        "or",
        "order",
        "overlay",
        "position",
        "select",
        "substring",
        "table",
        "then",
        "timestamp",
        "time",
        "trim",
        "true",
        "try_cast",
        "union",
        "unnest",
        "values",
        "when",
        "where",
        "with",
        "decimal",
        "bigint",
        "int",
        "integer",
        "float",
        "double",
        "string",
        "binary",
        "boolean",
        "tinyint",
        "smallint",
    ]
)


def _name(part: str, *, exact: bool) -> str:
    """A name as text; ``exact``: it must not match a column in another case."""
    plain = _PLAIN_NAME.fullmatch(part) is not None and part.lower() not in _RESERVED
    return part if plain and (part.islower() or not exact) else "`" + part.replace("`", "``") + "`"


def _literal(value: Any, type_: pa.DataType | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, datetime.datetime):
        return f"timestamp{'(9)' if type_ == pa.timestamp('ns') else ''} '{value}'"
    if isinstance(value, datetime.date):
        return f"date '{value}'"
    if isinstance(value, decimal.Decimal) and type_ is not None:
        return f"decimal({type_.precision}, {type_.scale}) '{value}'"
    if isinstance(value, datetime.time):
        return f"arrow_cast('{value}', '{type_name(type_ or pa.time64('us'))}')"
    if isinstance(value, datetime.timedelta):
        return f"interval '{value.total_seconds()} second'"
    if isinstance(value, float) and value != value:
        return "cast('NaN' as double)"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "1e999" if value > 0 else "-1e999"
    return str(value)
