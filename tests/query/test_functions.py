"""Scalar functions: values written down, values of the reference, slices and empty batches."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pilum.errors import CorruptFileError, ExecutionError, InvalidInputError, PilumError, UnsupportedError
from pilum.query.binding import parse_filter, parse_projection
from pilum.query.functions import function_names
from pilum.query.type_names import parse_type, type_name
from pilum.schema import Schema
from pilum.schema.jsonb import read_jsonb

D = datetime.date
T = datetime.datetime
X = decimal.Decimal
NAN, INF = math.nan, math.inf
TABLE = pa.table(
    {
        "id": pa.array(range(8), pa.int64()),
        "i8": pa.array([-128, 127, 0, 1, -1, None, 5, 7], pa.int8()),
        "i": pa.array([-7, 7, 0, 3, None, -(2**31), 2**31 - 1, 10], pa.int32()),
        "l": pa.array([1, -5, None, 2**53 + 1, 0, 7, -9, 2**62], pa.int64()),
        "u": pa.array([0, 1, 255, None, 7, 9, 3, 2], pa.uint8()),
        "u64": pa.array([0, 2**64 - 1, 5, None, 1, 2, 3, 9], pa.uint64()),
        "f": pa.array([1.5, -2.5, NAN, None, 0.0, -0.0, INF, 2.675], pa.float64()),
        "f32": pa.array([1.1, NAN, -0.0, None, -INF, 2.5, 3.5, 1e10], pa.float32()),
        "s": pa.array(["Hello wörld", "", "  pad ", None, "a,b,c", "ABC_%", "ß straße", "fig"]),
        "s2": pa.array(["l", "", "a", None, ",", "B", "s", None]),
        "b": pa.array([True, False, None, True, False, None, True, False]),
        "d": pa.array(
            [D(2024, 2, 29), D(1969, 12, 31), None, D(2000, 1, 1), D(1970, 1, 1), D(2023, 7, 4), D(1900, 3, 1), D(2038, 1, 19)]
        ),
        "ts": pa.array(
            [T(2024, 2, 29, 13, 45, 59, 123456), T(1969, 12, 31, 23, 59, 59, 999999), None, T(2000, 1, 1), T(1970, 1, 1),
             T(2023, 7, 4, 1, 2, 3), T(1900, 3, 1, 5), T(2038, 1, 19, 3, 14, 7)],
            pa.timestamp("us"),
        ),
        "li": pa.array([[1, 2, 3], [], None, [None, 1], [3, 3, 1], [2], [5, None, 5], [9]], pa.list_(pa.int64())),
        "ls": pa.array([["a", "b"], [], None, [None, "a"], ["b", "b"], ["z"], ["A"], ["fig"]]),
        "dec": pa.array(
            [X(text) if text else None for text in ["1.50", "-2.25", "", "0.00", "99.99", "3.00", "-0.01", "12345.67"]],
            pa.decimal128(10, 2),
        ),
        "bin": pa.array([b"ab", b"", None, b"\xff", b"\0", b"x", b"yz", b"q"]),
        "st": pa.array([{"x": 1}, None, {"x": None}, {"x": 4}, {"x": 5}, {"x": 6}, {"x": 7}, {"x": 8}]),
    }
)  # fmt: skip
BATCH = TABLE.combine_chunks().to_batches()[0]
STORED = Schema.from_arrow(TABLE.schema)

# The reference gives the same values and types for all of these.
SHARED = """
lower(s) | upper(s) | length(s) | octet_length(s) | bit_length(s) | ascii(s) | chr(id + 65) | concat(s, '-', s2)
concat(s, id) | concat_ws('-', s, s2, 'x') | contains(s, 'a') | contains(s, s2) | starts_with(s, 'H')
starts_with(s, s2) | ends_with(s, s2) | strpos(s, 'r') | strpos(s, s2) | lpad(s, 4, 'xy') | lpad(s, 12, 'xy')
lpad(s, 12) | rpad(s, 12, 'xy') | ltrim(s) | rtrim(s) | btrim(s) | btrim(s, 'aH') | repeat(s, 2)
replace(s, 'l', 'LL') | replace(s, s2, '#') | reverse(s) | split_part(s, ',', 2) | split_part(s, ',', -1)
initcap(s) | translate(s, 'lo', 'x') | to_hex(i) | to_hex(l) | levenshtein(s, s2) | find_in_set(s2, s)
sha256(s) | encode(s, 'hex') | encode(s, 'base64') | regexp_like(s, '[a-c]') | regexp_like(s, 'HELLO', 'i')
regexp_match(s, '([a-z])(o|,)') | regexp_match(s, 'l+') | regexp_replace(s, '([a-z])l', '[$1]')
regexp_replace(s, 'L', 'x', 'gi') | regexp_count(s, 'l') | regexp_instr(s, 'l') | regexp_instr(s, 'r')
contains_tokens(s, 'straße') | coalesce(s, s2, 'none') | coalesce(i, 5) | coalesce(i, l) | nullif(s, 'fig')
ifnull(f, 1) | nvl(f32, 1.5) | nvl2(i, s, 'x') | greatest(i, 3) | greatest(f, 0.0) | least(f, f32)
greatest(s, s2) | is_valid(i) | abs(i8 + 1) | abs(f) | abs(dec) | round(f) | round(f, 2) | round(f32) | round(i)
round(l, -1) | sqrt(f) | sqrt(i) | power(i8, 2) | power(f, 2) | power(2, f) | exp(f32) | ln(f) | log(f)
log(2, f) | log10(f32) | log2(f) | signum(f) | signum(i) | trunc(f) | trunc(f, 1) | isnan(f) | isnan(f32)
iszero(f) | nanvl(f, 9.5) | cbrt(f) | sin(f) | atan2(f, 1.0) | degrees(f) | gcd(i, 4) | coalesce(ceil(f), 0)
coalesce(floor(f32), 0) | coalesce(ceil(i), 0) | date_part('year', d) | date_part('month', ts)
date_part('day', ts) | date_part('hour', ts) | date_part('minute', ts) | date_part('second', ts)
date_part('millisecond', ts) | date_part('microsecond', ts) | date_part('week', d) | date_part('dow', d)
date_part('doy', d) | date_part('quarter', ts) | date_part('epoch', ts) | date_part('epoch', d)
date_part('isodow', d) | date_part('hour', d) | date_trunc('month', d) | date_trunc('week', d)
date_trunc('hour', ts) | date_trunc('quarter', ts) | date_trunc('second', ts) | date_trunc('millisecond', ts)
date_bin(interval '1 day', ts) | date_bin(interval '15 minutes', ts) | to_date(ts) | to_timestamp(id)
date_bin(interval '1 hour', ts, timestamp '2000-01-01 00:30:00') | to_timestamp_millis(id)
to_timestamp_seconds(id) | to_char(ts, '%Y-%m-%d %H:%M:%S') | to_char(d, '%d.%m.%y %A %B %j')
make_date(2020, 2, id + 1) | array_has(li, 3) | array_has(ls, s2) | array_has_any(li, [1, 9])
array_has_all(li, [1, 3]) | array_has_any(ls, ['a', 'z']) | array_has_any(li, []) | array_has_all(li, [])
array_has_any(li, li) | array_length(li) | cardinality(li) | array_element(li, 1) | array_element(li, -1)
array_position(li, 1) | array_max(li) | array_min(li) | array_min(ls) | empty(li) | array_distinct(li)
array_sort(li) | array_except(li, [1]) | array_intersect(li, [3, 1]) | array_union(li, [1]) | array_remove(li, 3)
array_append(li, 4) | array_concat(li, [1]) | array_slice(li, 1, 2) | array_slice(li, -2, -1)
array_to_string(li, ',') | array_to_string(ls, '-', '*') | array_reverse(li) | make_array(i, 5)
make_array(s, s2) | range(id) | flatten(li) | list_has(li, 1) | named_struct('a', i, 'b', s) | struct(i, s)
arrow_cast(i, 'Float64') | arrow_cast(ts, 'Timestamp(ns)') | arrow_typeof(dec) | arrow_typeof(ts)
arrow_typeof(li) | cast(f32 as string) | cast(f as string) | cast(ts as string) | cast(dec as string)
cast(li as string) | cast(dec as double) | cast(dec as int) | try_cast(f as int) | try_cast(l as int)
try_cast(i as tinyint) | try_cast(s as boolean) | try_cast(s as date) | try_cast(bin as string) | i + l
i8 + i8 | i8 + u | u64 + i | u64 + 1 | i * 2 | i / 2 | i % 3 | f % 2 | f / 0 | f + f32 | f32 + i | l + i8 | dec + 1
dec * dec | dec / 3 | dec % 2 | dec + f | -i8 | i << 2 | i >> 1 | d - date '2024-01-01' | s || s2 | s || i
i = l | u64 > i | f = f32 | f > f32 | f <= f32 | s < s2 | d = ts | ts > d | i in (l, 7) | f in (1.5, 0.0)
f32 in (2.5, 0.0) | s ilike '%Ö%' | s ilike 'SS %' | s like s2 | li = [1,2,3] | li <> [2] | li[-1] | li[0]
i is distinct from 3 | f is distinct from f32 | coalesce(case when i > 0 then 'p' when i < 0 then 'n' end, 'z')
coalesce(trim(s), 'x') | coalesce(overlay(s placing 'X' from 2 for 1), '')
"""
EXPRESSIONS = [text.strip() for line in SHARED.strip().split("\n") for text in line.split(" | ")]


def values(text: str, batch: Any = BATCH) -> Any:
    (bound,) = parse_projection({"x": text}, STORED)
    result = bound.evaluate(batch)
    assert result.type == bound.type
    assert len(result) == batch.num_rows
    return result


def _comparable(value: Any) -> Any:
    """Floats to twelve digits: the two libraries' logarithms differ in the last."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else float(f"{value:.12g}")
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return value


@pytest.mark.interop
def test_the_reference_computes_the_same(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    dataset = lance.write_dataset(TABLE, str(tmp_path / "functions.lance"))
    different = []
    for text in EXPRESSIONS:
        wanted = dataset.to_table(columns={"x": text})["x"].combine_chunks()
        found = values(text)
        if found.type != wanted.type or _comparable(found.to_pylist()) != _comparable(wanted.to_pylist()):
            different.append((text, found, wanted))
    assert not different


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_slices_give_slices(text: str) -> None:
    whole = _comparable(values(text).to_pylist())
    for start, length in ((0, 0), (2, 1), (3, 4)):
        part = values(text, BATCH.slice(start, length))
        assert _comparable(part.to_pylist()) == whole[start : start + length]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("decode('616263', 'hex')", b"abc"),
        ("decode('YWI', 'base64')", b"ab"),
        ("md5('a')", "0cc175b9c0f1b6a831c399e269772661"),
        ("left('abc', -1)", "ab"),
        ("right('abc', -1)", "bc"),
        ("substr('abcdef', 0, 3)", "ab"),
        ("round(2.5)", 3.0),
        ("round(-2.5)", -3.0),
        ("trunc(-2.7)", -2.0),
        ("log(100)", 2.0),
        ("array_distance([1.0, 2.0], [4.0, 6.0])", 5.0),
        ("range(1, 10, 4)", [1, 5, 9]),
        ("to_date('2024-01-05')", D(2024, 1, 5)),
        ("to_timestamp_micros('2024-01-05T01:02:03.5')", T(2024, 1, 5, 1, 2, 3, 500000)),
        ("to_timestamp_micros('2024-01-05T01:02:03+02:00')", T(2024, 1, 4, 23, 2, 3)),
        ("regexp_replace('abc', '(b)', '[$1]\\1')", "a[b]bc"),
        ("regexp_match('ab12', '([a-z]+)(?:[0-9])([)0-9])')", ["ab", "2"]),
        ("greatest(null, 3, 1)", 3),
        ('json_extract(\'{"a":[1,{"b":"x"}]}\', \'$.a[1].b\')', '"x"'),
        ("json_extract('{\"a\":[1,2]}', '$.a[*]')", "[1,2]"),
        ("json_extract('{\"a b\":1}', '$[\"a b\"]')", "1"),
        ("json_get_bool('{\"a\":1}', 'a')", True),
        ("json_get_float('{\"a\":\"1.5\"}', 'a')", 1.5),
        ("json_array_length('{\"a\":[1,2]}', '$.a')", 2),
        ("cast('yes' as boolean)", True),
        ("cast(1e15 as string)", "1000000000000000.0"),
        ("cast(1e16 as string)", "1e16"),
        ("cast(0.00001 as string)", "0.00001"),
        ("cast(1e-7 as string)", "1e-7"),
        ("cast(-123.25 as string)", "-123.25"),
        ("arrow_typeof(arrow_cast(1, 'Decimal128(5, 1)'))", "Decimal128(5, 1)"),
        ("current_date = now()::date", True),
    ],
)
def test_constants(text: str, value: Any) -> None:
    assert values(text, BATCH.slice(0, 1)).to_pylist() == [value]


def test_volatile_functions_differ_from_row_to_row() -> None:
    assert len(set(values("uuid()").to_pylist())) == BATCH.num_rows
    numbers = values("random()").to_pylist()
    assert len(set(numbers)) == BATCH.num_rows
    assert all(0 <= number < 1 for number in numbers)
    assert parse_filter("random() < 2", STORED).evaluate(BATCH).to_pylist() == [True] * 8


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("make_date(2024, 13, 1)", ExecutionError, "month must be in 1..12"),
        ("i / 0", ExecutionError, "divide by zero"),
        ("cast(s as int)", ExecutionError, "cannot evaluate"),
        ("abs(i8)", ExecutionError, "overflow"),
        ("split_part(s, ',', 0)", ExecutionError, "counts from 1"),
        ("json_extract(s, '$.a')", ExecutionError, "not a JSON document"),
        ("json_extract(s, 'a')", InvalidInputError, "is not a path"),
        ("date_part('decade', d)", InvalidInputError, "no part 'decade'"),
        ("date_trunc('fortnight', d)", InvalidInputError, "no unit 'fortnight'"),
        ("regexp_like(s, s2)", UnsupportedError, "must be constant"),
        ("regexp_like(s, 'a', 'q')", InvalidInputError, "unknown flag 'q'"),
        ("array_has(s, 'a')", InvalidInputError, "array_has needs a list, not string"),
        ("array_has(li, 'a')", InvalidInputError, "not an item of"),
        ("sqrt(s)", InvalidInputError, "sqrt needs a number, not string"),
        ("lower(bin)", InvalidInputError, "lower needs text, not binary"),
        ("get_field(st, 'y')", InvalidInputError, "no field named 'y'"),
        ("coalesce(s, d, li)", InvalidInputError, "no common type"),
        ("encode(s, 'rot13')", InvalidInputError, "'rot13'"),
        ("make_array(1, 'x', true)", InvalidInputError, "a list cannot hold both"),
        ("arrow_cast(i, 'Int65')", UnsupportedError, "the type 'Int65'"),
        ("avg(i)", UnsupportedError, "aggregate"),
    ],
)
def test_errors(text: str, error: type[PilumError], words: str) -> None:
    with pytest.raises(error) as caught:
        values(text)
    assert words in str(caught.value)


def test_every_name_of_the_specification_is_there() -> None:
    wanted = """coalesce nullif ifnull nvl nvl2 greatest least is_valid lower upper length char_length character_length
    octet_length bit_length ascii chr concat concat_ws contains starts_with ends_with strpos left right lpad ltrim btrim
    repeat replace reverse split_part initcap translate to_hex levenshtein find_in_set md5 sha256 encode uuid regexp_like
    regexp_match regexp_replace regexp_count regexp_instr abs round sqrt power pow exp ln log log10 signum trunc pi random
    isnan iszero nanvl date_part date_trunc date_bin to_date to_timestamp to_timestamp_micros to_char make_date now
    current_date current_timestamp array_has array_contains list_contains array_has_any list_has_any array_has_all
    array_length cardinality array_element array_position array_max array_min empty array_empty array_distinct array_sort
    array_except array_intersect array_remove array_append array_slice array_to_string flatten array_distance make_array
    range get_field struct named_struct row arrow_cast arrow_typeof contains_tokens json_extract json_exists json_get
    json_get_string json_get_int json_get_float json_get_bool json_array_contains json_array_length"""
    assert set(wanted.split()) <= set(function_names())


@pytest.mark.parametrize(
    "type_",
    [
        pa.int8(), pa.uint64(), pa.float16(), pa.string(), pa.large_binary(), pa.date64(), pa.null(),
        pa.timestamp("us"), pa.timestamp("ns", "Europe/Berlin"), pa.time32("s"), pa.time64("ns"),
        pa.duration("ms"), pa.decimal128(10, 2), pa.decimal256(60, 3), pa.binary(4),
    ],
)  # fmt: skip
def test_type_names_round_trip(type_: pa.DataType) -> None:
    assert parse_type(type_name(type_)) == type_


# --- JSONB ---------------------------------------------------------------------------------------------------

# {"a": 1, "arr": [1, 2], "n": {"k": "banana"}, "t": false}, as the reference stores it
_DOCUMENT = bytes.fromhex(
    "40000004100000011000000310000001100000012000000250000010500000133000000061617272"
    "6e745001800000022000000220000002500150024000000110000001100000066b62616e616e61"
)


def test_jsonb() -> None:
    assert read_jsonb(_DOCUMENT) == {"a": 1, "arr": [1, 2], "n": {"k": "banana"}, "t": False}
    for number, digits in (
        (-300, "40fed4"),
        (0, "00"),
        (1.5, "603ff8000000000000"),
        (2**63, "508000000000000000"),
    ):
        data = bytes.fromhex(digits)
        scalar = (0x20000000).to_bytes(4, "big") + (0x20000000 | len(data)).to_bytes(4, "big") + data
        assert read_jsonb(scalar) == number
    assert read_jsonb(bytes.fromhex("2000000000000000")) is None


def test_json_functions_read_jsonb() -> None:
    field = pa.field("j", pa.large_binary(), metadata={"ARROW:extension:name": "lance.json"})
    schema = Schema.from_arrow(pa.schema([field]))
    batch = pa.record_batch([pa.array([_DOCUMENT, None], pa.large_binary())], schema=pa.schema([field]))
    for text, wanted in (
        ("json_get_int(j, 'a') = 1", [True, None]),
        ("json_extract(j, '$.n') = '{\"k\":\"banana\"}'", [True, None]),
        ("json_array_contains(j, '$.arr', 2)", [True, None]),
        ("j is null", [False, True]),
    ):
        assert parse_filter(text, schema).evaluate(batch).to_pylist() == wanted


def test_damaged_jsonb_is_refused() -> None:
    for position in range(len(_DOCUMENT)):
        with pytest.raises(CorruptFileError):
            read_jsonb(_DOCUMENT[:position])
        for value in (0, 0x40, 0x7F, 0x80, 0xFF):
            damaged = _DOCUMENT[:position] + bytes([value]) + _DOCUMENT[position + 1 :]
            try:
                json.dumps(read_jsonb(damaged))
            except (CorruptFileError, UnsupportedError):
                pass
    nested = b""
    for _ in range(300):
        nested = bytes.fromhex("80000001") + (0x50000000 | len(nested)).to_bytes(4, "big") + nested
    with pytest.raises(CorruptFileError, match="nested"):
        read_jsonb(nested)
