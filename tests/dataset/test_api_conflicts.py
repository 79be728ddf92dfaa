"""Two writers, each with pilum or the reference, commit on one version: the outcome does not depend on the engines."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import pilum

lance = pytest.importorskip("lance")
pytestmark = pytest.mark.interop

ROWS = pa.table({"a": range(6), "s": list("abcdef")})


def append(engine: ModuleType, ds: Any) -> Any:
    fragment = engine.LanceFragment.create(ds.uri, pa.table({"a": [100], "s": ["new"]}))
    return engine.LanceOperation.Append([fragment])


def delete(fragment: int, predicate: str) -> Callable[[ModuleType, Any], Any]:
    def make(engine: ModuleType, ds: Any) -> Any:
        changed = ds.get_fragment(fragment).delete(predicate)
        return engine.LanceOperation.Delete([changed], [], predicate)

    return make


def drop_fragment(engine: ModuleType, ds: Any) -> Any:
    return engine.LanceOperation.Delete([], [0], "true")


def overwrite(engine: ModuleType, ds: Any) -> Any:
    schema = pa.schema([("other", pa.int64())])
    return engine.LanceOperation.Overwrite(schema, [])


def restore(engine: ModuleType, ds: Any) -> Any:
    return engine.LanceOperation.Restore(1)


def config(key: str, value: str) -> Callable[[ModuleType, Any], Any]:
    def make(engine: ModuleType, ds: Any) -> Any:
        update = engine.LanceOperation.UpdateMap({key: value})
        return engine.LanceOperation.UpdateConfig(config_updates=update)

    return make


def project(engine: ModuleType, ds: Any) -> Any:
    wide = engine.dataset(ds.uri, version=1).lance_schema
    return engine.LanceOperation.Project(wide)


def rewrite_nothing(engine: ModuleType, ds: Any) -> Any:
    old = ds.get_fragment(1).metadata
    new = engine.LanceFragment.create(ds.uri, ds.get_fragment(1).to_table())
    return engine.LanceOperation.Rewrite([engine.LanceOperation.RewriteGroup([old], [new])], [])


def update(fragment: int, predicate: str) -> Callable[[ModuleType, Any], Any]:
    def make(engine: ModuleType, ds: Any) -> Any:
        changed = ds.get_fragment(fragment).delete(predicate)
        moved = engine.LanceFragment.create(ds.uri, ds.to_table(filter=predicate))
        return engine.LanceOperation.Update(
            updated_fragments=[changed], new_fragments=[moved], update_mode="rewrite_rows"
        )

    return make


def update_column(engine: ModuleType, ds: Any) -> Any:
    rows = pa.table({"a": pa.array([4], pa.int64()), "s": ["changed"]})
    changed, fields = ds.get_fragment(1).update_columns(rows, "a")
    return engine.LanceOperation.Update(
        updated_fragments=[changed], fields_modified=fields, update_mode="rewrite_columns"
    )


def add_column(engine: ModuleType, ds: Any) -> Any:
    made = [one.merge_columns({"b": "a + 1"}) for one in ds.get_fragments()]
    return engine.LanceOperation.Merge([one for one, _ in made], made[0][1])


def replace_column(engine: ModuleType, ds: Any) -> Any:
    file = engine.LanceFragment.create(ds.uri, ds.get_fragment(0).to_table()).files[0]
    return engine.LanceOperation.DataReplacement([engine.LanceOperation.DataReplacementGroup(0, file)])


OPERATIONS: dict[str, Callable[[ModuleType, Any], Any]] = {
    "append": append,
    "delete in 0": delete(0, "a = 1"),
    "delete in 0 again": delete(0, "a = 2"),
    "delete in 1": delete(1, "a = 4"),
    "drop fragment 0": drop_fragment,
    "overwrite": overwrite,
    "restore": restore,
    "config": config("k", "1"),
    "config other key": config("other", "2"),
    "project": project,
    "rewrite 1": rewrite_nothing,
    "update in 0": update(0, "a = 1"),
    "update column in 1": update_column,
    "add column": add_column,
    "replace in 0": replace_column,
}


def attempt(folder: Path, first: tuple[ModuleType, str], second: tuple[ModuleType, str]) -> Any:
    """Both operations are computed on version 2; what becomes of the second one."""
    uri = str(folder / "t.lance")
    lance.write_dataset(ROWS, uri, max_rows_per_file=3, max_rows_per_group=3)
    lance.dataset(uri).update_config({"base": "x"})
    made = []
    for engine, name in (first, second):
        made.append((engine, OPERATIONS[name](engine, engine.dataset(uri))))
    outcomes = []
    for engine, operation in made:
        try:
            engine.LanceDataset.commit(uri, operation, read_version=2)
        except (OSError, ValueError) as error:
            conflict = type(error).__name__ == "CommitConflictError"
            outcomes.append(("conflict", error.retryable) if conflict else "error")  # type: ignore[union-attr]
        else:
            outcomes.append("committed")
    contents = []
    for engine in (pilum, lance):
        ds = engine.dataset(uri)
        rows = sorted(ds.to_table().to_pylist(), key=repr)
        contents.append((ds.version, rows, sorted(ds.config().items()), list(ds.fragment_ids())))
    assert contents[0] == contents[1]
    return outcomes, contents[0]


@pytest.mark.parametrize("first", OPERATIONS)
def test_pairs(first: str, tmp_path: Path) -> None:
    for second in OPERATIONS:
        found = {}
        for one, other in itertools.product((lance, pilum), repeat=2):
            folder = tmp_path / f"{second}-{one.__name__}-{other.__name__}".replace(" ", "-")
            folder.mkdir()
            found[one.__name__, other.__name__] = attempt(folder, (one, first), (other, second))
        expected = found.pop(("lance", "lance"))
        for engines, outcome in found.items():
            assert outcome == expected, f"{first}, then {second}, by {engines}"
