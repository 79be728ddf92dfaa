"""Every golden file of formats 2.1 and 2.2: full content, random ranges, random takes.

`NOT_YET` names the cases that need what is not built, with the reason; each is an expected failure, so the list
cannot outlive its truth.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from pilum.file import FileReader
from pilum.io import LocalStore
from tests.file.files import assert_same, drive, expectation, golden_case_files, open_local

pytestmark = pytest.mark.golden


NOT_YET: dict[str, str] = {}

CASES = [
    pytest.param(
        path,
        id=path.stem,
        marks=[pytest.mark.xfail(reason=NOT_YET[path.stem], strict=True)] if path.stem in NOT_YET else [],
    )
    for path in golden_case_files()
]


@pytest.mark.parametrize("path", CASES)
def test_full_content_ranges_and_takes(path: Path) -> None:
    reader, expected = open_local(path), expectation(path)
    rng = random.Random(path.stem)
    assert reader.num_rows == expected.num_rows
    assert reader.schema.names == expected.column_names
    rows = expected.num_rows
    selections: list[object] = [None]
    for _ in range(6 if rows else 0):
        low = rng.randrange(rows)
        selections.append(range(low, rng.randrange(low, min(rows, low + 3000)) + 1))
        picked = rng.sample(range(rows), min(rows, rng.choice([1, 2, 7, 60])))
        selections.append(np.array(sorted(picked), dtype=np.int64))
    for selection in selections:
        batch = drive(reader.read_batch(selection))
        for name, column in zip(expected.column_names, batch.columns, strict=True):
            if selection is None:
                wanted = expected[name]
            elif isinstance(selection, range):
                wanted = expected[name].slice(selection.start, len(selection))
            else:
                wanted = expected[name].take(selection)
            assert_same(column, wanted, f"{name} {selection}")


@pytest.mark.parametrize("path", CASES)
def test_each_column_alone(path: Path) -> None:
    reader, expected = open_local(path), expectation(path)
    for name in expected.column_names[:20]:
        batch = drive(reader.read_batch(None, [name]))
        assert_same(batch.column(0), expected[name], name)


@pytest.mark.parametrize("tag", ["2_1", "2_2"])
def test_global_buffers_and_schema_metadata(tag: str) -> None:
    from tests.support import GOLDEN

    reader = open_local(GOLDEN / "structure" / f"globals_{tag}.lance")
    assert [drive(reader.read_global_buffer(index)) for index in (1, 2)] == [b"hello", b"z" * 100]
    assert dict(reader.schema.metadata) == {"k": "v"}
    with pytest.raises(ValueError, match="global buffer 3"):
        drive(reader.read_global_buffer(3))


@pytest.mark.parametrize("tag", ["2_1", "2_2"])
def test_one_column_of_a_wide_file(tag: str) -> None:
    from tests.support import GOLDEN

    path = GOLDEN / "structure" / f"wide_{tag}.lance"
    expected = expectation(path)
    name = expected.column_names[170]
    store = LocalStore(path.parent)
    full = drive(FileReader.open(store, path.name))
    reader = drive(FileReader.open(store, path.name, schema=full.schema.project([name])))
    assert_same(drive(reader.read_batch()).column(0), expected[name])
