"""All filters of the golden set: the same rows as the reference, and an error where one must be."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

import pilum
from pilum.errors import PilumError
from pilum.query.binding import parse_filter
from pilum.query.expressions import to_sql
from pilum.query.sql_parser import parse_filter_text
from pilum.schema import Schema
from tests.support import GOLDEN, expected_table

pytestmark = pytest.mark.golden

# Returning rows for these would be wrong; other refusals of the reference are its own limits.
_MUST_FAIL = {"literal-type", "unknown-column", "unknown-function", "parse", "execution"}
_ROWS_PER_FRAGMENT = 10


@cache
def _cases() -> list[dict[str, Any]]:
    path = GOLDEN / "api" / "filters.json"
    cases: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    return cases


@cache
def _table() -> tuple[Schema, Any]:
    """The schema, and one batch with the system columns beside the columns."""
    table = expected_table(GOLDEN / "api" / "types.arrow").combine_chunks()
    rows = range(table.num_rows)
    addresses = pa.array(
        [(row // _ROWS_PER_FRAGMENT << 32) + row % _ROWS_PER_FRAGMENT for row in rows], pa.uint64()
    )
    batch = table.to_batches()[0]
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    first = pa.repeat(pa.scalar(1, pa.uint64()), table.num_rows)
    system = {
        "_rowid": addresses,
        "_rowaddr": addresses,
        "_rowoffset": pa.array(rows, pa.uint64()),
        "_row_created_at_version": first,
        "_row_last_updated_at_version": first,
    }
    return Schema.from_arrow(table.schema), pa.RecordBatch.from_pydict({**columns, **system})


def _accepted() -> list[Any]:
    return [pytest.param(case, id=case["filter"]) for case in _cases() if case["ok"]]


@pytest.mark.parametrize("case", _accepted())
def test_rows_are_those_of_the_reference(case: dict[str, Any]) -> None:
    schema, batch = _table()
    bound = parse_filter(case["filter"], schema)
    result = bound.evaluate(batch)
    assert len(result) == batch.num_rows
    assert batch["id"].filter(result.fill_null(False)).to_pylist() == case["ids"]
    if bound.constant is not None:
        assert result.fill_null(False).to_pylist() == [bound.constant] * batch.num_rows


@pytest.mark.parametrize("case", _accepted())
def test_only_the_named_columns_are_needed(case: dict[str, Any]) -> None:
    schema, batch = _table()
    bound = parse_filter(case["filter"], schema)
    names = list(dict.fromkeys(path.split(".")[0] for path in bound.columns))
    if names:
        assert bound.evaluate(batch.select(names)).equals(bound.evaluate(batch))


@pytest.mark.parametrize("case", _accepted())
def test_slices_give_slices(case: dict[str, Any]) -> None:
    schema, batch = _table()
    bound = parse_filter(case["filter"], schema)
    whole = bound.evaluate(batch)
    for start, length in ((0, 0), (3, 1), (5, 11)):
        assert (
            bound.evaluate(batch.slice(start, length)).to_pylist()
            == whole[start : start + length].to_pylist()
        )


@pytest.mark.parametrize("case", _accepted())
def test_canonical_text_means_the_same(case: dict[str, Any]) -> None:
    schema, batch = _table()
    bound = parse_filter(case["filter"], schema)
    again = parse_filter(str(bound), schema)
    assert again.evaluate(batch).equals(bound.evaluate(batch))
    assert to_sql(parse_filter_text(str(bound))) == str(bound)


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c["filter"]) for c in _cases() if not c["ok"] and c["category"] in _MUST_FAIL]
)
def test_errors_are_errors(case: dict[str, Any]) -> None:
    schema, batch = _table()
    with pytest.raises(PilumError):
        parse_filter(case["filter"], schema).evaluate(batch)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c["filter"]) for c in _cases() if not c["ok"] and c["category"] not in _MUST_FAIL],
)
def test_what_the_reference_lacks_is_answered_or_refused(case: dict[str, Any]) -> None:
    schema, batch = _table()
    try:
        result = parse_filter(case["filter"], schema).evaluate(batch)
    except PilumError:
        return
    assert pa.types.is_boolean(result.type)


@pytest.mark.parametrize("case", _accepted())
def test_scans_return_these_rows(case: dict[str, Any]) -> None:
    ds = _dataset()
    assert ds.to_table(columns=["id"], filter=case["filter"])["id"].to_pylist() == case["ids"]
    assert ds.count_rows(case["filter"]) == len(case["ids"])


@cache
def _dataset() -> pilum.LanceDataset:
    return pilum.dataset(GOLDEN / "api" / "types.lance")
