"""Random predicates against a small evaluator of three-valued logic that works on Python values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from pilum.query.binding import parse_filter
from pilum.schema import Schema

pytestmark = pytest.mark.property

SCHEMA = pa.schema({"i": pa.int64(), "j": pa.int32(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_()})
STORED = Schema.from_arrow(SCHEMA)

_INTEGERS = st.integers(-3, 3)
_FLOATS = st.sampled_from([0.0, -0.0, 1.5, -2.0, math.nan, math.inf, -math.inf])
_TEXTS = st.sampled_from(["", "a", "ab", "A", "%", "ä", "b'c"])
_VALUES = {"i": _INTEGERS, "j": _INTEGERS, "f": _FLOATS, "s": _TEXTS, "b": st.booleans()}

Row = dict[str, Any]
Predicate = tuple[str, Callable[[Row], bool | None]]


def _key(value: Any) -> Any:
    """Order of the filter language: NaN is the largest number, text by its bytes."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (1, 0.0) if value != value else (0, value)
    return value


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _compare(operator: str, a: Any, b: Any) -> bool | None:
    return None if a is None or b is None else _COMPARISONS[operator](_key(a), _key(b))


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _and(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float):
        if value != value:
            return "cast('NaN' as double)"
        if math.isinf(value):
            return "1e999" if value > 0 else "-1e999"
    return repr(value)


@st.composite
def _leaf(draw: st.DrawFn) -> Predicate:
    column = draw(st.sampled_from(sorted(_VALUES)))
    shape = draw(st.sampled_from(["compare", "mirrored", "columns", "null", "in", "between", "distinct"]))
    if shape == "null":
        negated = draw(st.booleans())
        word = "is not null" if negated else "is null"
        return f"{column} {word}", lambda row: (row[column] is None) != negated
    operator = draw(st.sampled_from(sorted(_COMPARISONS)))
    if shape == "columns":
        other = draw(st.sampled_from(["i", "j", "f"] if column in "ijf" else [column]))
        return f"{column} {operator} {other}", lambda row: _compare(operator, row[column], row[other])
    value = draw(st.none() | _VALUES[column])
    if shape == "compare":
        return f"{column} {operator} {_literal(value)}", lambda row: _compare(operator, row[column], value)
    if shape == "mirrored":
        return f"{_literal(value)} {operator} {column}", lambda row: _compare(operator, value, row[column])
    if shape == "distinct":
        return (
            f"{column} is distinct from {_literal(value)}",
            lambda row: (
                (row[column] is None) != (value is None)
                or (value is not None and _key(row[column]) != _key(value))
            ),
        )
    if shape == "in":
        items = draw(st.lists(st.none() | _VALUES[column], min_size=1, max_size=4))
        negated = draw(st.booleans())

        def is_in(row: Row) -> bool | None:
            found = _not(_and([_not(_compare("=", row[column], item)) for item in items]))
            return _not(found) if negated else found

        listed = ", ".join(_literal(item) for item in items)
        return f"{column} {'not ' if negated else ''}in ({listed})", is_in
    high = draw(st.none() | _VALUES[column])
    return (
        f"{column} between {_literal(value)} and {_literal(high)}",
        lambda row: _and([_compare(">=", row[column], value), _compare("<=", row[column], high)]),
    )


def _combined(parts: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    def negate(part: Predicate) -> Predicate:
        return f"not ({part[0]})", lambda row: _not(part[1](row))

    def join(word: str, several: list[Predicate]) -> Predicate:
        text = f" {word} ".join(f"({part[0]})" for part in several)
        if word == "and":
            return text, lambda row: _and([part[1](row) for part in several])
        return text, lambda row: _not(_and([_not(part[1](row)) for part in several]))

    def truth(part: Predicate, word: str) -> Predicate:
        wanted = word.endswith("true")
        return f"({part[0]}) is {word}", lambda row: (part[1](row) is wanted) != word.startswith("not")

    several = st.lists(parts, min_size=2, max_size=3)
    return st.one_of(
        parts.map(negate),
        st.builds(join, st.sampled_from(["and", "or"]), several),
        st.builds(truth, parts, st.sampled_from(["true", "false", "not true", "not false"])),
    )


_PREDICATES = st.recursive(_leaf(), _combined, max_leaves=6)
_ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in _VALUES.items()}), max_size=12
)


@settings(max_examples=400, deadline=None)
@given(_PREDICATES, _ROWS, st.integers(0, 3))
def test_random_predicates(predicate: Predicate, rows: list[Row], start: int) -> None:
    text, model = predicate
    bound = parse_filter(text, STORED)
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA).slice(start)
    wanted = [model(row) for row in rows[start:]]
    if bound.constant is not None:
        wanted = [bool(each) for each in wanted]
        assert all(each is bound.constant for each in wanted)
        assert bound.evaluate(batch).fill_null(False).to_pylist() == wanted
    else:
        assert bound.evaluate(batch).to_pylist() == wanted
    assert parse_filter(str(bound), STORED).evaluate(batch).equals(bound.evaluate(batch))


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="ab%_\\.\n", max_size=6),
    st.lists(st.none() | st.text(alphabet="ab%_\\.\n", max_size=6), max_size=10),
)
def test_random_patterns(pattern: str, texts: list[str | None]) -> None:
    schema = pa.schema({"s": pa.string()})
    batch = pa.RecordBatch.from_pylist([{"s": text} for text in texts], schema=schema)
    bound = parse_filter("s like '" + pattern + "'", Schema.from_arrow(schema))
    wanted = [None if text is None else _like(pattern, text) for text in texts]
    assert bound.evaluate(batch).to_pylist() == wanted


def _like(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(_like(pattern[1:], text[skip:]) for skip in range(len(text) + 1))
    if pattern[0] == "\\" and len(pattern) > 1:
        return text[:1] == pattern[1] and _like(pattern[2:], text[1:])
    return bool(text) and (pattern[0] == "_" or pattern[0] == text[0]) and _like(pattern[1:], text[1:])
