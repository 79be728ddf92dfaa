"""Trees and their text; pyarrow expressions give the same rows as the SQL that says the same."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow.compute import field

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.query import sql_parser
from pilum.query.arrow_expressions import read_arrow_expression
from pilum.query.binding import parse_filter
from pilum.query.expressions import Call, Cast, Column, Literal, columns, to_sql
from pilum.query.sql_parser import parse_filter_text
from pilum.query.substrait import read_extended_expression
from pilum.schema import Schema

SCHEMA = pa.schema(
    {
        "i": pa.int32(),
        "l": pa.int64(),
        "tiny": pa.int8(),
        "u": pa.uint16(),
        "u64": pa.uint64(),
        "f": pa.float32(),
        "d": pa.float64(),
        "half": pa.float16(),
        "b": pa.bool_(),
        "s": pa.string(),
        "big": pa.large_string(),
        "bin": pa.binary(),
        "kind": pa.dictionary(pa.int8(), pa.string()),
        "day": pa.date32(),
        "ts": pa.timestamp("ns"),
        "tz": pa.timestamp("us", "UTC"),
        "time": pa.time64("us"),
        "dec": pa.decimal128(10, 2),
        "st": pa.struct({"x": pa.int32(), "y": pa.struct({"z": pa.string()})}),
        "li": pa.list_(pa.int32()),
        "vec": pa.list_(pa.float32(), 2),
        "span": pa.duration("us"),
    }
)
DAY = datetime.date(2024, 1, 3)
MOMENT = datetime.datetime(2024, 1, 3, 6)
ROWS: list[dict[str, Any]] = [
    {"i": 5, "l": 1, "tiny": 1, "u": 3000, "u64": 2**63 + 1, "f": 1.5, "d": 0.5, "b": True, "s": "apple",
     "big": "apple", "bin": b"\x01\x02", "kind": "a", "day": DAY, "ts": MOMENT, "tz": MOMENT,
     "time": datetime.time(3, 30), "dec": decimal.Decimal("2.50"), "st": {"x": 3, "y": {"z": "q"}},
     "li": [0, 1], "vec": [0.0, 1.0], "span": datetime.timedelta(1)},
    {"i": 4, "l": 2**53 + 1, "tiny": -5, "u": 1, "u64": 7, "f": float("nan"), "d": -0.0, "b": False,
     "s": "Äpfel", "big": "", "bin": b"", "kind": "b", "day": datetime.date(1969, 1, 1),
     "ts": datetime.datetime(1969, 1, 1), "tz": datetime.datetime(2025, 1, 1), "time": datetime.time(0),
     "dec": decimal.Decimal("-1.00"), "st": {"x": None, "y": None}, "li": [], "vec": [1.0, 1.0]},
    {"i": None, "st": None},
]  # fmt: skip
BATCH = pa.RecordBatch.from_pylist(ROWS, schema=SCHEMA)
STORED = Schema.from_arrow(SCHEMA)

PAIRS: list[tuple[Any, str]] = [
    (field("i") == 5, "i = 5"),
    (field("i") != 5, "i <> 5"),
    (field("i") < field("l"), "i < l"),
    (field("i") > 4.5, "i + 0 > 4.5"),
    (field("l") == 9007199254740992.0, "l = 9007199254740992"),
    (field("tiny") < field("d"), "tiny < d"),
    (field("i") > 5_000_000_000, "i + 0 > 5000000000"),
    (field("u") == 3000, "u = 3000"),
    (field("u") == -1, "u + 0 = -1"),
    (field("u64") == pa.scalar(2**63 + 1, pa.uint64()), "u64 = 9223372036854775809"),
    (field("f") >= 1.5, "f >= 1.5"),
    (field("d") == 0.0, "d = 0"),
    (field("half") > 1, "half > 1"),
    (field("b"), "b"),
    (~field("b"), "not b"),
    (field("b") & (field("i") > 4), "b and i > 4"),
    (field("b") | field("i").is_null(), "b or i is null"),
    (pc.xor(field("b"), field("i") > 4), "b <> (i > 4)"),
    (field("s") == "apple", "s = 'apple'"),
    (field("big") == "apple", "big = 'apple'"),
    (field("bin") == b"\x01\x02", "bin = X'0102'"),
    (field("kind") == "a", "kind = 'a'"),
    (field("kind").isin(["a", "c"]), "kind in ('a', 'c')"),
    (field("day") == DAY, "day = date '2024-01-03'"),
    (field("ts") >= MOMENT, "ts >= timestamp '2024-01-03 06:00:00'"),
    (field("tz") == pa.scalar(MOMENT, pa.timestamp("us", "UTC")), "tz = timestamp '2024-01-03 06:00:00'"),
    (field("time") == datetime.time(3, 30), "time = arrow_cast('03:30:00', 'Time64(Microsecond)')"),
    (field("dec") == decimal.Decimal("2.50"), "dec = decimal(10, 2) '2.50'"),
    (field("dec") > 2, "dec > 2"),
    (field("st", "x") == 3, "st.x = 3"),
    (field("st", "y", "z") == "q", "st.y.z = 'q'"),
    (field("st").is_null(), "st is null"),
    (field("span").is_valid(), "span is not null"),
    (field("vec").is_null(), "vec is null"),
    (field("f").is_nan(), "isnan(f)"),
    (field("i").is_valid(), "i is not null"),
    (field("i").isin([1, 5]), "i in (1, 5)"),
    (field("i").isin([]), "false"),
    (field("i").isin([5, None]), "i in (5, null)"),
    (field("i") == pa.scalar(None, pa.int32()), "i = null"),
    ((field("i") + 1) * 2 - field("tiny") == 11, "(i + 1) * 2 - tiny = 11"),
    (field("i") / 2 == 2, "i / 2 = 2"),
    (pc.negate(field("i")) == -5, "-i = -5"),
    (field("d").cast(pa.int32(), safe=False) == 0, "cast(d as int) = 0"),
    (pc.if_else(field("b"), field("i"), 0) > 4, "case when b then i else 0 end > 4"),
    (pc.coalesce(field("i"), 7) == 7, "coalesce(i, 7) = 7"),
    (pc.starts_with(field("s"), "ap"), "s like 'ap%'"),
    (pc.match_substring(field("s"), "pf"), "s like '%pf%'"),
    (pc.utf8_length(field("s")) == 5, "length(s) = 5"),
    (pc.utf8_lower(field("s")) == "äpfel", "lower(s) = 'äpfel'"),
    (pc.year(field("ts")) == 2024, "date_part('year', ts) = 2024"),
    (pc.list_element(field("li"), 0) == 0, "li[1] = 0"),
    (pc.list_value_length(field("li")) == 0, "array_length(li) = 0"),
    (pc.scalar(True), "true"),
    (field("_rowid") == 1, "_rowid = 1"),
]


@pytest.mark.parametrize(("expression", "text"), PAIRS, ids=[text for _, text in PAIRS])
def test_pyarrow_expressions_mean_what_sql_means(expression: Any, text: str) -> None:
    if "li[" in text:
        # Arrow has no element 0 of an empty list; SQL has null.
        batch = BATCH.slice(0, 1)
    else:
        batch = BATCH
    batch = batch.append_column("_rowid", pa.array(range(len(batch)), pa.uint64()))
    bound = parse_filter(expression, STORED)
    assert bound.evaluate(batch).equals(parse_filter(text, STORED).evaluate(batch))
    if "+ 0" not in text:  # SQL refuses the literal beside the column; that is why the text has a sum
        assert parse_filter(str(bound), STORED).evaluate(batch).equals(bound.evaluate(batch))


def test_the_trees_are_equal_where_the_types_are() -> None:
    found = read_arrow_expression((field("s") == "x") & field("b"), SCHEMA)
    assert to_sql(found) == to_sql(parse_filter_text("s = 'x' and b"))


@pytest.mark.parametrize(
    ("expression", "word"),
    [
        (pc.match_like(field("s"), "a%"), "match_like"),
        (pc.round(field("d")) == 1, "round"),
        (pc.starts_with(field("s"), "A", ignore_case=True), "ignore_case"),
        (pc.match_substring_regex(field("s"), "a.*"), "match_substring_regex"),
        (pc.list_element(field("li"), field("i")) == 1, "list_element"),
        (field("i") * field("d") > 1, "unsafe casts"),
    ],
)
def test_what_cannot_be_read_is_named(expression: Any, word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        parse_filter(expression, STORED)


def test_unknown_columns_are_named() -> None:
    with pytest.raises(InvalidInputError, match="no column named 'kinf'; did you mean 'kind'"):
        parse_filter(field("kinf") == 1, STORED)


def test_damaged_messages_are_refused() -> None:
    expression = (field("i") > 5) & field("s").isin(["a", "b"])
    message = bytearray(bytes(expression.to_substrait(SCHEMA.remove(SCHEMA.get_field_index("vec")).remove(
        SCHEMA.get_field_index("span") - 1), allow_arrow_extensions=True)))  # fmt: skip
    for position in range(len(message)):
        for value in (0, 0x7F, 0xFF):
            damaged = bytes(message[:position]) + bytes([value]) + bytes(message[position + 1 :])
            for data in (damaged, bytes(message[:position])):
                try:
                    read_extended_expression(data, SCHEMA, lambda name, args: Call(name, tuple(args)))
                except (InvalidInputError, UnsupportedError):
                    pass


# --- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a=1", "a = 1"),
        ("a==1", "a = 1"),
        ("a<>1", "a != 1"),
        ("a in(1,2)", "a IN (1, 2)"),
        ("not a in (1)", "a NOT IN (1)"),
        ("a between 1 and 2", "(a >= 1) AND (a <= 2)"),
        ("a not between 1 and 2", "(a < 1) OR (a > 2)"),
        ("a is not true", "a IS NOT TRUE"),
        ("a = 'it''s'", "a = 'it''s'"),
        ('a = "text"', "a = 'text'"),
        ("`with space` = 1", "`with space` = 1"),
        ("`a``b` = 1", "`a``b` = 1"),
        ("`select` = 1", "`select` = 1"),
        ("select = 1", "`select` = 1"),
        ("cast(a as bigint unsigned) = 1", "cast(a as bigint unsigned) = 1"),
        ("a::timestamp(3) is null", "cast(a as timestamp(3)) IS NULL"),
        ("a = 1e400", "a = 1e999"),
        ("a = -5", "a = -5"),
        ("a = x'0a'", "a = X'0a'"),
        ("case a when 1 then b else c end", "CASE WHEN (a = 1) THEN b ELSE c END"),
        ("st.x.`odd one` > 1", "st.x.`odd one` > 1"),
        ("li[1] = 2", "li[1] = 2"),
        ("date_bin(interval '90 minutes', a) is null", "date_bin(interval '5400.0 second', a) IS NULL"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    tree = parse_filter_text(text)
    assert to_sql(tree) == canonical
    assert to_sql(parse_filter_text(canonical)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "a = 7",
        " a<>18",
        "a >= 1 ",
        "st = 999999999999999999",
        "`a` = 5",
        "select = 12",
        "a = 007",
        "a=0",
        "A\n!= 4",
    ],
)
def test_filters_that_differ_in_a_number(text: str) -> None:
    """They are made of one tree, and are what they would be alone."""
    alone = sql_parser._parse(text, sql_parser.exp.Where, "filter")
    parse_filter_text.cache_clear()
    assert parse_filter_text(text) == alone
    assert [type(one.value) for one in parse_filter_text(text).args[1:]] == [int]  # type: ignore[union-attr]


def test_only_the_first_of_them_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_filter_text.cache_clear()
    parse_filter_text("a = 1")
    monkeypatch.setattr(sql_parser, "_parse", None)
    assert to_sql(parse_filter_text("a = 12345")) == "a = 12345"


def test_the_message_shows_the_filter_that_was_given() -> None:
    with pytest.raises(InvalidInputError, match="'case = 37'"):
        parse_filter_text("case = 37")


def test_columns_of_a_tree() -> None:
    assert columns(parse_filter_text("a.b = 1 and lower(c) = cast(d as string)")) == {"a.b", "c", "d"}


def test_types_that_sql_cannot_name_are_written_as_arrow_cast() -> None:
    tree = Call("=", (Cast(Column(("a",)), pa.time64("us")), Literal(None)))
    assert to_sql(tree) == "arrow_cast(a, 'Time64(µs)') = NULL"
