"""Random predicates: the same rows as DuckDB over the same Arrow table.

Nulls, NaN, infinities, -0.0, unicode, dates; comparisons, arithmetic, ``IN``, ``BETWEEN``, ``LIKE``, ``IS DISTINCT FROM``,
``CASE``, functions, three-valued logic.  ``PILUM_EXAMPLES`` says how many (300 by default).

Where the two dialects differ, predicates keep away (the filter language is that of spec/api.md, section 10):

* ``/`` of integers: an integer here, a double in DuckDB.  Only doubles are divided.
* ``x % 0`` and ``x / 0`` of integers: an error here, null in DuckDB.  Divisors are not 0.
* Sums that do not fit their type: wrap around here, an error in DuckDB.  Numbers are small.
* ``LIKE``: a backslash escapes here, and is a character like others in DuckDB.  Patterns have none.
* ``%`` of a negative number: the sign of the dividend in both; of doubles, DuckDB gives null for ``x % 0.0``.
* A decimal literal is a double here and a decimal in DuckDB: 0.5 and 1.25 are the same in both, 0.1 need not be.
* ``lower`` and ``upper`` of characters whose other case is longer (``ß``): not among the texts.
* An integer literal that its column's type cannot hold (``k = 300``): an error here.  Literals fit into 8 bits.
* NaN is written ``cast('NaN' as double)``: DuckDB has no literal, and neither has the filter language.
"""

from __future__ import annotations

import datetime
import math
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum

duckdb = pytest.importorskip("duckdb")

pytestmark = pytest.mark.property

EXAMPLES = int(os.environ.get("PILUM_EXAMPLES", "300"))
ROWS = 700

INTEGERS = [-3, -2, -1, 0, 1, 2, 3, 100, 2**31 - 1]
FLOATS = [0.0, -0.0, 1.5, -2.0, 0.5, 1e300, math.nan, math.inf, -math.inf]
TEXTS = [
    "",
    "a",
    "ab",
    "A",
    "aB",
    "ä",
    "äöü",
    "b'c",
    "日本語",
    "😀",
    "e\u0301",
    "é",
    "z",
    "a%b",
    "a_b",
    "_",
    "%",
]
DATES = [datetime.date(1969, 12, 31), datetime.date(1970, 1, 1), datetime.date(2024, 2, 29)]
TIMES = [datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime.datetime(2024, 2, 29, 12, 0, 0, 1)]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    choose = random.Random(1)

    def column(values: list[Any], kind: pa.DataType, nulls: float) -> pa.Array:
        return pa.array(
            [None if choose.random() < nulls else choose.choice(values) for _ in range(ROWS)], kind
        )

    return pa.table(
        {
            "id": pa.array(range(ROWS)),
            "i": column(INTEGERS, pa.int32(), 0.2),
            "j": column(INTEGERS, pa.int64(), 0.1),
            "k": column([-3, -1, 0, 2, 100], pa.int8(), 0.0),
            "f": column(FLOATS, pa.float64(), 0.2),
            "g": column([one for one in FLOATS if one != 1e300], pa.float32(), 0.1),
            "s": column(TEXTS, pa.string(), 0.2),
            "t": column(TEXTS, pa.string(), 0.0),
            "b": column([True, False], pa.bool_(), 0.3),
            "d": column(DATES, pa.date32(), 0.2),
            "ts": column(TIMES, pa.timestamp("us"), 0.2),
        }
    )


@pytest.fixture(scope="module")
def ds(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> pilum.LanceDataset:
    path: Path = tmp_path_factory.mktemp("duckdb") / "t.lance"
    return pilum.write_dataset(table, path, max_rows_per_file=250)


COLUMNS = {"integer": ["i", "j", "k"], "float": ["f", "g"], "text": ["s", "t"], "date": ["d"], "time": ["ts"]}


class Predicates:
    """Makes predicates that mean the same in both dialects."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)

    def literal(self, kind: str) -> str:
        choose = self.choose
        if choose.random() < 0.05:
            return "null"
        if kind == "integer":
            return str(choose.choice([one for one in INTEGERS if one < 128]))
        if kind == "float":
            value = choose.choice(FLOATS)
            return f"cast('{value}' as double)" if not math.isfinite(value) or value == 1e300 else repr(value)
        if kind == "text":
            return "'" + choose.choice(TEXTS).replace("'", "''") + "'"
        if kind == "date":
            return f"date '{choose.choice(DATES)}'"
        return f"timestamp '{choose.choice(TIMES)}'"

    def value(self, kind: str, depth: int = 0) -> str:
        """An expression of a kind."""
        choose = self.choose
        column = choose.choice(COLUMNS[kind])
        if depth > 1 or choose.random() < 0.55:
            return column
        inner = self.value(kind, depth + 1)
        if kind == "integer":
            column = choose.choice(["j", "k"])
            return choose.choice(
                [
                    f"(cast({inner} as bigint) + {choose.randint(-3, 3)})",
                    f"(cast({inner} as bigint) * {choose.randint(-3, 3)})",
                    f"(cast({inner} as bigint) - {column})",
                    f"(cast({inner} as bigint) % {choose.choice([2, 3, 7])})",
                    f"abs(cast({inner} as bigint))",
                    f"coalesce({inner}, {choose.randint(-3, 3)})",
                    f"cast({choose.choice(['k', 'b'])} as int)",
                    f"(case when {self.predicate(2)} then {inner} else {column} end)",
                    f"nullif({inner}, {choose.randint(-3, 3)})",
                ]
            )
        if kind == "float":
            return choose.choice(
                [
                    f"(cast({inner} as double) + 0.5)",
                    f"(cast({inner} as double) * 1.25)",
                    f"(cast({inner} as double) / 2.0)",
                    f"abs({inner})",
                    f"(- {inner})",
                    f"coalesce(cast({inner} as double), 0.5)",
                    "cast(i as double)",
                    f"floor({inner})",
                    f"ceil({inner})",
                ]
            )
        if kind == "text":
            return choose.choice(
                [
                    f"lower({inner})",
                    f"upper({inner})",
                    f"concat({inner}, 'x')",
                    f"({inner} || t)",
                    f"coalesce({inner}, '?')",
                    f"substr({inner}, 1, 2)",
                    f"replace({inner}, 'a', 'ä')",
                    f"trim({inner})",
                    f"ltrim({inner})",
                ]
            )
        return f"coalesce({inner}, {self.literal(kind)})"

    def leaf(self, depth: int) -> str:
        choose = self.choose
        if choose.random() < 0.12:
            return choose.choice(["b", "not b", "b is true", "b is not false", "b = true", "b is null"])
        kind = choose.choice(list(COLUMNS))
        left = self.value(kind, depth)
        shape = choose.randrange(9)
        negated = choose.choice(["", "not "])
        if shape == 0:
            return f"{left} is {negated}null"
        if shape == 1:
            items = ", ".join(self.literal(kind) for _ in range(choose.randint(1, 4)))
            return f"{left} {negated}in ({items})"
        if shape == 2:
            return f"{left} {negated}between {self.literal(kind)} and {self.literal(kind)}"
        if shape == 3:
            return f"{left} is {negated}distinct from {self.value(kind, depth)}"
        if shape == 4 and kind == "text":
            pattern = "".join(
                choose.choice(["a", "b", "%", "_", "ä", "日", "é"]) for _ in range(choose.randint(0, 3))
            )
            return f"{left} {negated}{choose.choice(['like', 'like', 'ilike'])} '{pattern}'"
        if shape == 5 and kind == "text":
            return choose.choice(
                [
                    f"length({left}) {choose.choice(['<', '=', '>='])} {choose.randint(0, 3)}",
                    f"starts_with({left}, {self.literal('text')})",
                    f"contains({left}, 'a')",
                    f"strpos({left}, 'b') > 1",
                ]
            )
        if shape == 6 and kind == "float":
            return f"isnan({left})"
        if shape == 6 and kind in ("date", "time"):
            return (
                f"extract({choose.choice(['year', 'month', 'day'])} from {left}) "
                f"{choose.choice(['=', '<', '>'])} {choose.choice([2, 29, 31, 1970])}"
            )
        operator = choose.choice(["=", "!=", "<>", "<", "<=", ">", ">="])
        right = self.literal(kind) if choose.random() < 0.6 else self.value(kind, depth)
        if choose.random() < 0.1:
            left, right = right, left
        return f"{left} {operator} {right}"

    def predicate(self, depth: int = 0) -> str:
        """A predicate."""
        choose = self.choose
        roll = choose.random()
        if depth > 2 or roll < 0.4:
            return self.leaf(depth)
        if roll < 0.5:
            return f"not ({self.predicate(depth + 1)})"
        if roll < 0.58:
            word = choose.choice(["true", "false", "not true", "not false", "null", "not null"])
            return f"({self.predicate(depth + 1)}) is {word}"
        several = [f"({self.predicate(depth + 1)})" for _ in range(choose.randint(2, 3))]
        return choose.choice([" and ", " or "]).join(several)


def test_same_rows(ds: pilum.LanceDataset, table: pa.Table) -> None:
    connection = duckdb.connect()
    connection.register("t", table)
    make = Predicates(4)
    matched = 0
    for _ in range(EXAMPLES):
        text = make.predicate()
        wanted = [
            row[0] for row in connection.execute(f"select id from t where {text} order by id").fetchall()
        ]
        got = ds.to_table(columns=["id"], filter=text)["id"].to_pylist()
        assert got == wanted, text
        matched += 0 < len(wanted) < ROWS
    assert matched > EXAMPLES // 4
