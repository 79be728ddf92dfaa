"""JSONB: bytes that the reference writes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pilum
from pilum.errors import InvalidInputError
from pilum.schema.jsonb import jsonb_of_text, read_jsonb, write_jsonb

DOCUMENTS = [
    "1", "-1", "0", "-0", "127", "128", "-128", "-129", "255", "256", "65535", "65536", "-32768", "-32769",
    "4294967295", "4294967296", "-2147483648", "-2147483649", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "-9223372036854775808", "-9223372036854775809", "1.5", "1e3", "1.0", "-0.0", "1e400",
    "-1e400", "1E5", '"x"', '""', "null", "true", "false", "[]", "{}", " [1 , 2 ] ", '{"b":1,"aa":2,"a":3}', "NaN",
    '{"\u00e9":"\u00df\\u00e9","aa":[{}],"b":{"c":null}}', "123456789012345678901234567890", "[[],[[]]]",
    '"\\ud83d\\ude42"', "", '{"a":{"b":[1,2.5,"x",true,null]}}',
]  # fmt: skip
WRONG = ["{", "nope", "[1 2]", '{"a":1} x', '{"a":1,"a":2}', '"\\x"', '"\\ud800"', "[" * 200 + "]" * 200]


def column(values: list[Any]) -> Any:
    return pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(values, pa.string()))


@pytest.mark.interop
@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_the_bytes_are_those_of_the_reference(tmp_path: Path, version: str) -> None:
    lance = pytest.importorskip("lance.file")
    rows = pa.record_batch({"j": column([*DOCUMENTS, None])})
    with lance.LanceFileWriter(str(tmp_path / "theirs.lance"), rows.schema, version=version) as writer:
        writer.write_batch(rows)
    with pilum.LanceFileWriter(str(tmp_path / "ours.lance"), rows.schema, version=version) as ours:
        ours.write_batch(rows)
    expected = lance.LanceFileReader(str(tmp_path / "theirs.lance")).read_all().to_table()
    assert lance.LanceFileReader(str(tmp_path / "ours.lance")).read_all().to_table() == expected
    assert pilum.LanceFileReader(str(tmp_path / "ours.lance")).read_all().to_table() == expected


@pytest.mark.interop
def test_tables_and_members_of_structs(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    documents = ['{"a":1}', None, '{"a":2}']
    rows = pa.table({"j": column(documents), "n": [1, 2, 3]})
    pilum.write_dataset(rows, str(tmp_path / "t"))
    theirs = lance.dataset(str(tmp_path / "t"))
    assert theirs.to_table().column("j").to_pylist() == documents
    assert theirs.to_table(filter="json_get_int(j, 'a') = 1").column("n").to_pylist() == [1]
    struct = pa.StructArray.from_arrays([column(documents)], ["j"])
    with pilum.LanceFileWriter(str(tmp_path / "s.lance")) as writer:
        writer.write_batch(pa.record_batch({"s": struct}))
    found = pilum.LanceFileReader(str(tmp_path / "s.lance")).read_all().to_table().column("s").to_pylist()
    assert [None if row["j"] is None else read_jsonb(row["j"]) for row in found] == [
        {"a": 1},
        None,
        {"a": 2},
    ]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        write_jsonb(text)
    with pytest.raises(InvalidInputError, match="column 'j', row 1 "):
        jsonb_of_text(column(["1", text]), "j")


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(TREES)
@pytest.mark.property
def test_round_trip(document: Any) -> None:
    assert read_jsonb(write_jsonb(json.dumps(document))) == document
