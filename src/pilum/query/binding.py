"""Expressions meet a schema: names become columns, literals take their types, the tree becomes a closure.

```
text ──sql_parser──► names ──bind──► typed nodes ──_program──► f(batch) -> array
pyarrow Expression ──arrow_expressions──► names ┘
```

`parse_filter` and `parse_projection` are the door.  All decisions fall while binding: what a name means (spec
api.md, 10.2), whether a literal may stand beside a column (10.3), which kernel computes a node.  Evaluating
a batch then only calls kernels: about a microsecond a node above Arrow's own time.  A bound expression is a
value without state; any number of threads may evaluate it.

Must not know: datasets, fragments, files.  A batch brings every column that ``columns`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import ExecutionError, InvalidInputError
from pilum.query import arrow_expressions, operators, sql_parser
from pilum.query.coercion import cast, fit_literal, logical_type
from pilum.query.expressions import (
    Apply,
    Bound,
    Call,
    Cast,
    Column,
    Constant,
    Expression,
    FieldRef,
    Junction,
    Literal,
    conjuncts,
    field_refs,
    fold,
    to_sql,
)
from pilum.query.functions import bind_function
from pilum.query.system import DISTANCE, SYSTEM_TYPES
from pilum.query.vectors import as_array
from pilum.schema import Field, Schema

__all__ = ["BoundExpression", "BoundFilter", "parse_filter", "parse_projection", "split_filter"]

types = pa.types
_Program = Callable[[Any], Any]

_NILADIC = frozenset({"current_date", "current_timestamp"})  # functions that are called without parentheses


@dataclass(frozen=True, slots=True)
class BoundExpression:
    """A computed column.

    Attributes:
        expression: the tree as parsed.
        schema: what it was bound to.
        node: the typed tree.
        columns: paths of the stored columns it needs, each once (``st.x``; odd names in back quotes).
        type: Arrow type of the result.
    """

    expression: Expression
    schema: Schema = field(repr=False)
    node: Bound = field(repr=False, compare=False)
    columns: tuple[str, ...] = field(compare=False)
    type: pa.DataType = field(compare=False)
    _program: _Program = field(repr=False, compare=False)

    def evaluate(self, batch: pa.RecordBatch) -> Any:
        """The values for the rows of ``batch``: an array of ``type``.

        Raises:
            ExecutionError: the data does not allow it (division by zero, a failing cast).
        """
        try:
            result = self._program(batch)
        except (pa.ArrowInvalid, OverflowError) as error:
            raise ExecutionError(f"cannot evaluate {to_sql(self.expression)}: {error}") from error
        return as_array(result, batch.num_rows)

    def __str__(self) -> str:
        return to_sql(self.expression)

    def __reduce__(self) -> Any:
        return _bind_projection, (self.expression, self.schema)


@dataclass(frozen=True, slots=True)
class BoundFilter(BoundExpression):
    """A condition on rows; ``evaluate`` gives a boolean array, null where the answer is unknown.

    Attributes:
        constant: True when every row matches, False when none does (also for a constant null),
            None when it depends on the row.  ``columns`` may name system columns.
    """

    constant: bool | None = None

    def __reduce__(self) -> Any:
        return _bind_filter, (self.expression, self.schema, DISTANCE in self.columns)


def parse_filter(filter: Any, schema: Schema, *, distance: bool = False) -> BoundFilter:
    """Bind a filter to the columns of a table.

    Args:
        filter: SQL text, or a `pyarrow.compute.Expression`.
        schema: the table's schema; the system columns (`pilum.query.system`) are known besides.
        distance: whether the rows are those of a search, which have a `_distance`.

    Raises:
        InvalidInputError: no expression, an unknown column or function, a literal that does not fit
            its column, or not a condition.
        UnsupportedError: a construct that the filter language does not have.

    Example:
        >>> schema = Schema.from_arrow(pa.schema({"id": pa.int64(), "name": pa.string()}))
        >>> bound = parse_filter("id > 1 and name like 'a%'", schema)
        >>> bound.columns
        ('id', 'name')
        >>> bound.evaluate(pa.record_batch({"id": [1, 2, None], "name": ["a", "ab", "abc"]})).to_pylist()
        [False, True, None]
    """
    if isinstance(filter, str):
        return _bind_filter(sql_parser.parse_filter_text(filter), schema, distance)
    if isinstance(filter, pc.Expression):
        return _bind_filter(
            arrow_expressions.read_arrow_expression(filter, schema.to_arrow()), schema, distance
        )
    raise TypeError(f"a filter is SQL text or a pyarrow.compute.Expression, not {type(filter).__name__}")


def parse_projection(columns: Mapping[str, str], schema: Schema) -> list[BoundExpression]:
    """Bind computed columns (name -> SQL text), in order; errors as for `parse_filter`."""
    bound = []
    for name, text in columns.items():
        if not isinstance(text, str):
            raise TypeError(f"the expression of column {name!r} must be SQL text, not {type(text).__name__}")
        plain = _named(text, schema, exact=False)
        expression = Column((plain.name,), quoted=True) if plain else sql_parser.parse_projection_text(text)
        bound.append(_bind_projection(expression, schema))
    return bound


def split_filter(bound: BoundFilter) -> tuple[BoundFilter, ...]:
    """The conditions that must all hold, each a filter of its own; a row passes when every one is true."""
    nodes = conjuncts(bound.node)
    parts = tuple(_and_parts(bound.expression))
    if len(nodes) < 2 or len(parts) != len(nodes):
        return (bound,)
    return tuple(
        BoundFilter(part, bound.schema, node, _paths(node), node.type, _program(node))
        for part, node in zip(parts, nodes, strict=True)
    )


def _and_parts(expression: Expression) -> Iterator[Expression]:
    if isinstance(expression, Call) and expression.name == "and":
        for argument in expression.args:
            yield from _and_parts(argument)
    else:
        yield expression


def _bind_filter(expression: Expression, schema: Schema, distance: bool = False) -> BoundFilter:
    system = {**SYSTEM_TYPES, DISTANCE: pa.float32()} if distance else SYSTEM_TYPES
    node = _Binder(schema, system=system).bind(expression, _Place(strict=True))
    if isinstance(node, Apply) and node.name == "regexp_match":
        node = operators.is_null(node, negated=True)
    if not types.is_boolean(node.type):
        raise InvalidInputError(
            f"a filter must be a condition, but {to_sql(expression)} is a value of type {node.type}"
        )
    constant = None
    if isinstance(node, Constant):
        constant = node.value is True
    return BoundFilter(expression, schema, node, _paths(node), node.type, _program(node), constant)


def _bind_projection(expression: Expression, schema: Schema) -> BoundExpression:
    node = _Binder(schema, system={}).bind(expression, _Place(strict=True, arithmetic=True))
    return BoundExpression(expression, schema, node, _paths(node), node.type, _program(node))


def _paths(node: Bound) -> tuple[str, ...]:
    return tuple(dict.fromkeys(".".join(_quoted(name) for name in ref.path) for ref in field_refs(node)))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`" if "." in name or "`" in name else name


# --- names -> typed nodes --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an expression stands.

    Attributes:
        strict: literals beside columns must fit the column's type (top level, below AND and OR).
        arithmetic: ... also beside arithmetic operators (projections).
        nested: inside a function call, where names are case-sensitive.
    """

    strict: bool = False
    arithmetic: bool = False
    nested: bool = False


_JUNCTIONS = {"and": True, "or": False}
_COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})
_ARITHMETIC = frozenset({"+", "-", "*", "/", "%"})


class _Binder:
    """Binds trees to one schema."""

    def __init__(self, schema: Schema, *, system: Mapping[str, pa.DataType]) -> None:
        self._schema = schema
        self._system = system

    def bind(self, expression: Expression, place: _Place) -> Bound:
        if isinstance(expression, Column):
            return self._column(expression, place)
        if isinstance(expression, Literal):
            return _literal(expression)
        try:
            if isinstance(expression, Cast):
                operand = self.bind(expression.operand, _Place(nested=place.nested))
                return cast(operand, expression.type, optional=expression.optional)
            return fold(self._call(expression, place))
        except pa.ArrowInvalid as error:  # folding a constant failed
            raise ExecutionError(f"cannot evaluate {to_sql(expression)}: {error}") from error
        except RecursionError:
            raise InvalidInputError("the expression is nested too deeply") from None

    def _call(self, call: Call, place: _Place) -> Bound:
        name = call.name
        if name in _JUNCTIONS:
            return operators.junction(_JUNCTIONS[name], [self.bind(part, place) for part in call.args])
        inner = _Place(nested=place.nested)
        if name in _COMPARISONS:
            left, right = self._pair(call, inner, place.strict)
            return operators.compare(name, left, right)
        if name in ("in", "not in"):
            value, *items = (self.bind(argument, inner) for argument in call.args)
            if place.strict and isinstance(value, FieldRef):
                items = [_beside(item, value) for item in items]
            return operators.is_in(value, items, negated=name == "not in")
        if name in _ARITHMETIC:
            left, right = self._pair(call, inner, place.strict and place.arithmetic)
            return _kept_literal(operators.arithmetic(name, left, right), left, right)
        args = [self.bind(argument, inner) for argument in call.args] if name in _OPERATORS else []
        if name in _OPERATORS:
            return _OPERATORS[name](*args)
        return bind_function(name, [self.bind(argument, _Place(nested=True)) for argument in call.args])

    def _pair(self, call: Call, inner: _Place, strict: bool) -> tuple[Bound, Bound]:
        left, right = (self.bind(argument, inner) for argument in call.args)
        if strict and isinstance(left, FieldRef):
            return left, _beside(right, left)
        if strict and isinstance(right, FieldRef):
            return _beside(left, right), right
        return left, right

    def _column(self, column: Column, place: _Place) -> Bound:
        name = column.path[0]
        found = _named(name, self._schema, exact=column.quoted or place.nested)
        if found is None:
            if name in self._system and len(column.path) == 1:
                return FieldRef((name,), self._system[name])
            if name.lower() in _NILADIC and not column.quoted and len(column.path) == 1:
                return bind_function(name, [])
            raise _unknown(name, self._schema.names, "column")
        path, here = [found.name], found
        for part in column.path[1:]:
            if here.logical_type != "struct":
                raise InvalidInputError(
                    f"column {'.'.join(path)!r} is {here.logical_type}, not a struct: it has no field {part!r}"
                )
            child = next((child for child in here.children if child.name == part), None)
            if child is None:
                raise _unknown(part, [child.name for child in here.children], f"field of {'.'.join(path)!r}")
            path.append(part)
            here = child
        return FieldRef(tuple(path), logical_type(here.arrow_type))


def _named(name: str, schema: Schema, *, exact: bool) -> Field | None:
    """The top-level field of that name; without ``exact`` in any case, as long as only one matches."""
    lowered, alike = name.lower(), None
    for candidate in schema.fields:
        if candidate.name == name:
            return candidate
        if not exact and alike is None and candidate.name.lower() == lowered:
            alike = candidate
    return alike


def _unknown(name: str, known: Iterable[str], what: str) -> InvalidInputError:
    names = list(known)
    near = get_close_matches(name, names, 1, 0.5) or [each for each in names if each.lower() == name.lower()]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return InvalidInputError(f"no {what} named {name!r}{hint} (there are: {shown or 'none'})")


def _literal(literal: Literal) -> Constant:
    value, type_ = literal.value, literal.type
    if type_ is None and isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 63:
        type_ = pa.uint64()
    return Constant(arrays.scalar(value, type_), literal=literal.type is None)


def _beside(bound: Bound, column: FieldRef) -> Bound:
    """A plain literal beside a column takes the column's type; anything else stays."""
    if isinstance(bound, Constant) and bound.literal:
        return fit_literal(bound, column.type, ".".join(column.path))
    return bound


def _kept_literal(bound: Bound, *operands: Bound) -> Bound:
    """Arithmetic on plain literals is a plain literal."""
    if all(isinstance(operand, Constant) and operand.literal for operand in operands):
        folded = fold(bound)
        if isinstance(folded, Constant):
            return Constant(folded.scalar, literal=True)
    return bound


_OPERATORS: dict[str, Callable[..., Bound]] = {
    "not": operators.negate,
    "is null": lambda value: operators.is_null(value, negated=False),
    "is not null": lambda value: operators.is_null(value, negated=True),
    "is true": lambda value: operators.is_truth(value, True, negated=False),
    "is not true": lambda value: operators.is_truth(value, True, negated=True),
    "is false": lambda value: operators.is_truth(value, False, negated=False),
    "is not false": lambda value: operators.is_truth(value, False, negated=True),
    "is distinct from": lambda a, b: operators.distinct(a, b, negated=False),
    "is not distinct from": lambda a, b: operators.distinct(a, b, negated=True),
    "like": lambda a, b: operators.like(a, b, ignore_case=False, negated=False),
    "not like": lambda a, b: operators.like(a, b, ignore_case=False, negated=True),
    "ilike": lambda a, b: operators.like(a, b, ignore_case=True, negated=False),
    "not ilike": lambda a, b: operators.like(a, b, ignore_case=True, negated=True),
    "||": operators.concatenate,
    "<<": lambda a, b: operators.shift("<<", a, b),
    ">>": lambda a, b: operators.shift(">>", a, b),
    "negative": operators.negative,
}


# --- typed nodes -> closures -----------------------------------------------------------------------------


def _program(bound: Bound) -> _Program:
    """The function that evaluates ``bound`` on a batch: an array, or a scalar for constants."""
    if isinstance(bound, FieldRef):
        return _field_program(bound)
    if isinstance(bound, Constant):
        scalar = bound.scalar
        return lambda batch: scalar
    if isinstance(bound, Junction):
        return _junction_program(bound)
    kernel = bound.kernel
    if bound.volatile:
        return lambda batch: kernel(batch.num_rows)
    operands = [_program(argument) for argument in bound.args]
    # The usual shapes are spelled out: a loop over operands costs as much as a kernel on a small batch.
    if len(operands) == 1:
        (only,) = operands
        return lambda batch: kernel(only(batch))
    if len(operands) == 2:
        first, second = operands
        if isinstance(bound.args[1], Constant):
            scalar = bound.args[1].scalar
            return lambda batch: kernel(first(batch), scalar)
        return lambda batch: kernel(first(batch), second(batch))
    return lambda batch: kernel(*[operand(batch) for operand in operands])


def _field_program(ref: FieldRef) -> _Program:
    name, below = ref.path[0], ref.path[1:]

    def top(batch: Any) -> Any:
        return _stored(batch.column(name))

    def nested(batch: Any) -> Any:
        column = batch.column(name)
        for part in below:
            column = pc.struct_field(column, part)
        return _stored(column)

    return nested if below else top


def _stored(column: Any) -> Any:
    """The plain values of a column: extension types as stored, dictionaries decoded."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column


_AND, _OR = pc.get_function("and_kleene").call, pc.get_function("or_kleene").call


def _junction_program(bound: Junction) -> _Program:
    programs = [_program(argument) for argument in bound.args]
    combine = _AND if bound.conjunction else _OR
    first, *others = programs
    if bound.conjunction:

        def decided(result: Any) -> bool:
            return bool(result.true_count == 0 and result.null_count == 0)

    else:

        def decided(result: Any) -> bool:
            return bool(result.true_count == len(result))

    def run(batch: Any) -> Any:
        result = first(batch)
        for program in others:
            # No later condition can change a row: it is not computed, nor can it fail.
            if isinstance(result, pa.BooleanArray) and decided(result):
                return result
            result = combine([result, program(batch)])
        return result

    return run
