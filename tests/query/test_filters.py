"""Binding and evaluating filters: names, literals, three-valued logic, LIKE, errors, threads."""

from __future__ import annotations

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum.errors import ExecutionError, InvalidInputError, UnsupportedError
from pilum.query.binding import BoundFilter, parse_filter, parse_projection
from pilum.schema import Schema

SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "Camel": pa.int32(),
        "name": pa.string(),
        "kind": pa.dictionary(pa.int32(), pa.string()),
        "score": pa.float32(),
        "flag": pa.bool_(),
        "odd name": pa.int32(),
        "order": pa.int32(),
        "st": pa.struct({"x": pa.int32(), "In": pa.struct({"z": pa.string()})}),
        "tags": pa.list_(pa.string()),
        "vec": pa.list_(pa.float32(), 2),
        "day": pa.date32(),
        "small": pa.uint8(),
    }
)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "Camel": 1, "name": "alpha", "kind": "a", "score": 1.1, "flag": True, "odd name": 7, "order": 1,
     "st": {"x": 1, "In": {"z": "q"}}, "tags": ["a", "b"], "vec": [0.0, 1.0], "small": 200},
    {"id": 2, "Camel": 2, "name": "", "kind": None, "score": math.nan, "flag": False, "odd name": None, "order": 2,
     "st": None, "tags": [], "vec": None, "small": 3},
    {"id": None, "Camel": None, "name": None, "kind": "b", "score": -0.0, "flag": None, "odd name": 1, "order": 3,
     "st": {"x": None, "In": None}, "tags": None, "vec": [3.0, 4.0], "small": None},
]  # fmt: skip
BATCH = pa.RecordBatch.from_pylist(ROWS, schema=SCHEMA)
STORED = Schema.from_arrow(SCHEMA)


def bind(text: Any) -> BoundFilter:
    return parse_filter(text, STORED)


def answers(text: Any) -> list[bool | None]:
    result: list[bool | None] = bind(text).evaluate(BATCH).to_pylist()
    return result


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("id = 1 and name = 'x' or id = 2", ("id", "name")),
        ("ID = 1", ("id",)),
        ("camel = 1", ("Camel",)),
        ("`odd name` = 7", ("odd name",)),
        ("`order` = 1", ("order",)),
        ("st.x = 1", ("st.x",)),
        ("st['In']['z'] = 'q'", ("st.In.z",)),
        ("get_field(st, 'x') = 1", ("st.x",)),
        ("get_field(st.In, 'z') = 'q'", ("st.In.z",)),
        ("st is null", ("st",)),
        ("_rowid = 3 and _rowaddr > 1", ("_rowid", "_rowaddr")),
        ("tags[1] = 'a'", ("tags",)),
        ("true", ()),
    ],
)
def test_columns_are_the_paths_needed(text: str, columns: tuple[str, ...]) -> None:
    assert bind(text).columns == columns


def test_a_path_quotes_names_with_dots() -> None:
    schema = Schema.from_arrow(pa.schema({"st": pa.struct({"a.b": pa.int32()})}))
    bound = parse_filter("st.`a.b` = 1", schema)
    assert bound.columns == ("st.`a.b`",)
    assert schema.project(bound.columns).names == ["st"]
    assert bound.evaluate(pa.record_batch({"st": [{"a.b": 1}, {"a.b": 2}]})).to_pylist() == [True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nmae = 'x'", ["no column named 'nmae'", "did you mean 'name'"]),
        ("`ID` = 1", ["no column named 'ID'", "did you mean 'id'"]),
        ("lower(NAME) = 'x'", ["no column named 'NAME'", "did you mean 'name'"]),
        ("st.y = 1", ["no field of 'st' named 'y'", "x, In"]),
        ("st.in.z = 'q'", ["no field of 'st' named 'in'", "did you mean 'In'"]),
        ("name.x = 1", ["column 'name' is string, not a struct"]),
        ("lwer(name) = 'x'", ["no function named 'lwer'", "did you mean 'lower'"]),
        ("left(name) = 'x'", ["left takes 2 argument(s), not 1"]),
        ("id = 'x'", ["'x' cannot be compared with column 'id' of type int64"]),
        ("small = 300", ["300 cannot be compared with column 'small' of type uint8", "out of range"]),
        ("day = '2024-01-01'", ["write date '2024-01-01'"]),
        ("id", ["a filter must be a condition", "int64"]),
        ("null", ["a filter must be a condition"]),
        ("name and flag", ["AND needs a condition, not a value of type string"]),
        ("(id = 1", ["cannot parse the filter"]),
        ("   ", ["the filter is empty"]),
        ("id in ()", ["IN needs at least one value"]),
        ("id = 1 && flag", ["'&&' is not an operator", "cannot parse"]),
        ("id = 1 xor flag", ["'xor' is not an operator"]),
        ("regexp_like(name, '(')", ["'(' is not a regular expression"]),
        ("vec > [1.0, 2.0]", ["tested for equality only"]),
        ("st = st", ["cannot be compared"]),
    ],
)
def test_errors_say_what_is_wrong(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        bind(text)
    assert isinstance(caught.value, InvalidInputError)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "id in (select 1)",
        "name rlike 'a'",
        "name like 'x' escape '!'",
        "sum(id) > 1",
        "id = cast('1' as money)",
    ],
)
def test_what_is_not_built_is_named(text: str) -> None:
    with pytest.raises((UnsupportedError, InvalidInputError)):
        bind(text)


def test_filters_of_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"pyarrow\.compute\.Expression"):
        bind(5)


# --- constants and literals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("true", True),
        ("1 = 1", True),
        ("false", False),
        ("null and true", False),
        ("id = null", False),
        ("id = 1 and false", False),
        ("id = 1 or true", True),
        ("upper('a') = 'A'", True),
        ("id = 1", None),
        ("id = 1 or null", None),
    ],
)
def test_constant(text: str, constant: bool | None) -> None:
    bound = bind(text)
    assert bound.constant is constant
    assert len(bound.evaluate(BATCH)) == BATCH.num_rows


def test_literals_take_the_type_of_a_column_at_the_top_only() -> None:
    assert answers("score = 1.1") == [True, False, False]  # rounded to float32
    assert answers("not (score = 1.1)") == [True, True, True]  # compared as float64
    with pytest.raises(InvalidInputError):
        bind("id = 1.5")
    assert answers("id + 0 = 1.5") == [False, False, None]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_in_compares_as_equality_does(kind: pa.DataType) -> None:
    bits = np.array([0xFFF8 << 48, 0x7FF8 << 48], np.uint64).view(np.float64)  # NaN of either sign
    column = pa.array([*bits, math.inf, 0.1, -0.0, None]).cast(kind)
    schema = pa.schema({"x": kind})
    batch = pa.RecordBatch.from_arrays([column], schema=schema)
    for value in ("cast('NaN' as double)", "cast('1e300' as double)", "cast('0.1' as double)", "0.1", "0.0"):
        equal, among, beside = (
            parse_filter(text, Schema.from_arrow(schema)).evaluate(batch).to_pylist()
            for text in (f"x = {value}", f"x in ({value})", f"x in ({value}, {value}, 7.0)")
        )
        assert among == beside == equal


def test_dictionary_columns_are_compared_by_value() -> None:
    assert answers("kind = 'a'") == [True, None, False]
    assert answers("kind in ('b', 'c') or kind is null") == [False, True, True]


def test_a_null_struct_has_null_fields() -> None:
    assert answers("st.x is null") == [False, True, True]
    assert answers("st.In.z = 'q'") == [True, None, None]
    pruned = BATCH.select(["st"]).cast(pa.schema({"st": pa.struct({"x": pa.int32()})}))
    assert bind("st.x = 1").evaluate(pruned).to_pylist() == [True, None, None]


# --- logic ---------------------------------------------------------------------------------------------------


def test_later_conditions_are_skipped_when_no_row_is_left() -> None:
    decided = parse_filter("small > 250 and `order` / (`order` - `order`) = 1", STORED)
    batch = BATCH.slice(0, 2)
    assert decided.evaluate(batch).to_pylist() == [False, False]
    with pytest.raises(ExecutionError, match="divide by zero"):
        parse_filter("small > 100 and `order` / (`order` - `order`) = 1", STORED).evaluate(batch)
    settled = parse_filter("small < 250 or `order` / (`order` - `order`) = 1", STORED)
    assert settled.evaluate(batch).to_pylist() == [True, True]


def test_execution_errors_name_the_expression_and_are_value_errors() -> None:
    with pytest.raises(ValueError, match=r"cannot evaluate cast\(name as int\) = 1") as caught:
        answers("cast(name as int) = 1")
    assert isinstance(caught.value, ExecutionError)
    assert answers("try_cast(name as int) is null") == [True, True, True]


# --- LIKE ----------------------------------------------------------------------------------------------------

_TEXTS = ["", "a", "ab", "a%b", "a_b", "a\\b", "a\nb", "A.B", "äb", "aab", "a*b", "b\n", "%", "\\"]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("", {""}),
        ("%", set(_TEXTS)),
        ("%%", set(_TEXTS)),
        ("_", {"a", "%", "\\"}),
        ("a", {"a"}),
        ("a%", {"a", "ab", "a%b", "a_b", "a\\b", "a\nb", "aab", "a*b"}),
        ("%b", {"ab", "a%b", "a_b", "a\\b", "a\nb", "äb", "aab", "a*b"}),
        ("a%b", {"ab", "a%b", "a_b", "a\\b", "a\nb", "aab", "a*b"}),
        ("a_b", {"a%b", "a_b", "a\\b", "a\nb", "aab", "a*b"}),
        ("a\\%b", {"a%b"}),
        ("a\\_b", {"a_b"}),
        ("a\\\\b", {"a\\b"}),
        ("\\", {"\\"}),
        ("_b", {"ab", "äb"}),
        ("a*b", {"a*b"}),
        ("A.B", {"A.B"}),
        ("%a%b%", {"ab", "a%b", "a_b", "a\\b", "a\nb", "aab", "a*b"}),
        ("b_", {"b\n"}),
        ("b", set()),
    ],
)
def test_like(pattern: str, matches: set[str]) -> None:
    schema = Schema.from_arrow(pa.schema({"s": pa.string(), "p": pa.string()}))
    batch = pa.record_batch({"s": [*_TEXTS, None], "p": pa.array([pattern] * (len(_TEXTS) + 1), pa.string())})
    wanted = [text in matches for text in _TEXTS] + [None]
    quoted = pattern.replace("'", "''")
    assert parse_filter(f"s like '{quoted}'", schema).evaluate(batch).to_pylist() == wanted
    assert parse_filter("s like p", schema).evaluate(batch).to_pylist() == wanted
    opposite = [None if each is None else not each for each in wanted]
    assert parse_filter(f"s not like '{quoted}'", schema).evaluate(batch).to_pylist() == opposite


def test_ilike_ignores_case_beyond_ascii() -> None:
    schema = Schema.from_arrow(pa.schema({"s": pa.string()}))
    batch = pa.record_batch({"s": ["ÄPFEL", "äpfel", "apfel"]})
    assert parse_filter("s ilike 'äp%'", schema).evaluate(batch).to_pylist() == [True, True, False]


# --- what follows an expression --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest", ["garbage here", "; drop table t", "order by id", "limit 1", "-- note", "/* note */"]
)
def test_words_after_a_filter_are_ignored(rest: str) -> None:
    assert answers(f"id = 1 {rest}") == answers("id = 1")


def test_deep_nesting_is_answered_or_refused() -> None:
    assert answers("(" * 150 + "id = 1" + ")" * 150) == answers("id = 1")
    assert answers("(" * 80 + "id = 1" + " and true)" * 80) == answers("id = 1")
    for text in ("(" * 3000 + "id = 1" + ")" * 3000, "not " * 5000 + "flag", "id" + " + 1" * 5000 + " = 1"):
        with pytest.raises(InvalidInputError, match="nested too deeply") as caught:
            bind(text)
        assert len(str(caught.value)) < 500


def test_long_lists_and_chains() -> None:
    numbers = ", ".join(str(number) for number in range(5000))
    assert answers(f"id in ({numbers})") == [True, True, None]
    chain = " or ".join(f"id = {number}" for number in range(2, 2000))
    assert answers(chain) == [False, True, None]


# --- values --------------------------------------------------------------------------------------------------


def test_a_filter_is_a_value() -> None:
    bound = bind("id > 1 and name like 'a%'")
    copy = pickle.loads(pickle.dumps(bound))
    assert copy == bound
    assert str(copy) == "(id > 1) AND (name LIKE 'a%')"
    assert copy.columns == bound.columns
    assert copy.evaluate(BATCH).equals(bound.evaluate(BATCH))


def test_threads_share_a_filter() -> None:
    bound = bind("id > 1 and lower(name) in ('a', 'b') or score >= 0 and st.x = 1")
    batches = [BATCH.slice(start, length) for start in range(3) for length in range(3)] * 30
    wanted = [bound.evaluate(batch).to_pylist() for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: bound.evaluate(batch).to_pylist(), batches))
    assert found == wanted


# --- computed columns ------------------------------------------------------------------------------------------


def test_projection() -> None:
    bound = parse_projection(
        {"a": "id + 1", "b": "NAME", "c": "odd name", "d": "upper(name)", "e": "5", "f": "id, flag"}, STORED
    )
    assert [each.type for each in bound] == [
        pa.int64(), pa.string(), pa.int32(), pa.string(), pa.int64(), pa.int64(),
    ]  # fmt: skip
    values = [each.evaluate(BATCH) for each in bound]
    assert [each.type for each in values] == [each.type for each in bound]
    assert [each.to_pylist() for each in values] == [
        [2, 3, None], ["alpha", "", None], [7, None, 1], ["ALPHA", "", None], [5, 5, 5], [1, 2, None],
    ]  # fmt: skip
    assert [each.columns for each in bound] == [("id",), ("name",), ("odd name",), ("name",), (), ("id",)]


@pytest.mark.parametrize("text", ["_rowid + 1", "id as x", "id + 1.5", "", "nope + 1"])
def test_projection_errors(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_projection({"x": text}, STORED)
