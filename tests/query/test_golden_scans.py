"""All scans and takes of the golden set: the rows, columns and types of the reference."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import pilum
from tests.support import GOLDEN, expected_table

pytestmark = pytest.mark.golden

_AREA = GOLDEN / "api"


@cache
def _golden() -> dict[str, list[dict[str, Any]]]:
    path = _AREA / "scans.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _cases(kind: str) -> list[Any]:
    return [pytest.param(case, id=case["case"]) for case in _golden().get("scans", []) if kind in case]


def _assert_same(got: pa.Table, expected: pa.Table) -> None:
    assert got.schema.names == expected.schema.names
    assert [field.type for field in got.schema] == [field.type for field in expected.schema]
    for name in expected.schema.names:
        ours, theirs = got.column(name).combine_chunks(), expected.column(name).combine_chunks()
        if name == "_distance":
            assert len(ours) == len(theirs)
            worst = pc.max(pc.abs(pc.subtract(ours, theirs))).as_py() or 0.0
            assert worst <= 1e-5 * max(1.0, pc.max(pc.abs(theirs)).as_py() or 0.0)
        else:
            assert ours.to_pylist() == theirs.to_pylist(), name


@pytest.fixture(scope="module")
def deleted() -> pilum.LanceDataset:
    return pilum.dataset(_AREA / "deleted.lance")


@pytest.mark.parametrize("case", _cases("kwargs"))
def test_scan(deleted: pilum.LanceDataset, case: dict[str, Any]) -> None:
    expected = expected_table(_AREA / case["result"])
    got = deleted.to_table(**case["kwargs"])
    if case["case"] == "order":
        # Which of equal rows comes first is not defined by the reference; here it is the one stored first.
        assert got["g"].to_pylist() == expected["g"].to_pylist()
        by_id = [("id", "ascending")]
        _assert_same(got.sort_by(by_id), expected.sort_by(by_id))
        return
    _assert_same(got, expected)
    batches = list(deleted.to_batches(**case["kwargs"]))
    if "filter" not in case["kwargs"]:  # filtered batches are not joined again
        assert [batch.num_rows for batch in batches] == case["batch_rows"]
    if batches:
        _assert_same(pa.Table.from_batches(batches), expected)


@pytest.mark.parametrize("case", _cases("take"))
def test_take(deleted: pilum.LanceDataset, case: dict[str, Any]) -> None:
    got = deleted.take(case["take"], columns=case["columns"])
    _assert_same(got, expected_table(_AREA / case["result"]))


@pytest.mark.parametrize("case", _golden().get("batches", []), ids=str)
def test_batch_sizes(deleted: pilum.LanceDataset, case: dict[str, Any]) -> None:
    options = {name: value for name, value in case.items() if name != "batch_rows"}
    sizes = [batch.num_rows for batch in deleted.to_batches(**options)]
    if "filter" in case:
        # The reference filters batches it has cut; here rows are cut after the filter, so batches are fuller.
        assert sum(sizes) == sum(case["batch_rows"])
        assert max(sizes) <= case["batch_size"]
    else:
        assert sizes == case["batch_rows"]
