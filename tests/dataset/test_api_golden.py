"""Tables of the reference through the public API: content, metadata and history; then both engines go on with them."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum
from tests.support import GOLDEN, expected_table

lance = pytest.importorskip("lance")
pytestmark = [pytest.mark.golden, pytest.mark.interop]

TABLES = GOLDEN / "table"
# Data overlays are not supported, and must not be ignored.
REFUSED = {"overlay"}
# Files of the oldest format and of unstable ones are read, not written.
READ_ONLY = {"fmt_legacy", "fmt_2_3"}
CASES = sorted(path.stem for path in TABLES.glob("*.arrow") if (TABLES / f"{path.stem}.lance").is_dir())


def copied(case: str, tmp_path: Path) -> str:
    """A copy of a golden table whose base paths, which are absolute, lead into the copy."""
    target = tmp_path / "table"
    target.mkdir()
    for source in TABLES.glob(f"{case}*"):
        if source.is_dir():
            shutil.copytree(source, target / source.name)
    if case in ("clone_shallow", "multi_base", "tags_branches"):
        place = Path("/tmp/pilum-golden/table")
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(TABLES, place)
    return str(target / f"{case}.lance")


def plain(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def same_rows(one: pa.Table, other: pa.Table) -> None:
    assert one.schema.equals(other.schema, check_metadata=False)
    # NaN is not equal to itself, so its text is compared.
    assert one.num_rows == other.num_rows
    assert repr(plain(one)) == repr(plain(other))


def same_versions(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine["version"], mine["metadata"]) == (other["version"], other["metadata"])
        # The reference goes through a float of seconds, whose last microsecond is not certain.
        assert abs(mine["timestamp"] - other["timestamp"]) <= datetime.timedelta(microseconds=1)


def shown(transaction: Any) -> Any:
    if transaction is None:
        return None
    return (type(transaction.operation).__name__, transaction.read_version, transaction.uuid,
            dict(transaction.transaction_properties or {}))  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
def test_content_metadata_and_history(case: str, tmp_path: Path) -> None:
    uri = copied(case, tmp_path)
    ours, theirs = pilum.dataset(uri), lance.dataset(uri)
    same_rows(ours.to_table(), theirs.to_table())
    same_rows(ours.to_table(), expected_table(TABLES / f"{case}.arrow"))
    for name in ("version", "latest_version", "data_storage_version", "max_field_id", "has_stable_row_ids",
                 "has_index", "metadata", "schema_metadata"):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.schema.equals(theirs.schema, check_metadata=True)
    assert ours.config() == theirs.config()
    assert list(ours.fragment_ids()) == list(theirs.fragment_ids())
    assert ours.stats.dataset_stats() == theirs.stats.dataset_stats()
    same_versions(ours.versions(), theirs.versions())
    same_versions([ours.get_version()], [theirs.get_version()])
    assert ours.tags.list() == theirs.tags.list()
    assert ours.branches.list() == theirs.branches.list()
    assert sorted(one.name for one in ours.describe_indices()) == sorted(
        one.name for one in theirs.describe_indices()
    )
    assert {key: (one.path, one.name, one.is_dataset_root) for key, one in ours.base_paths().items()} == {
        key: (one.path, one.name, one.is_dataset_root) for key, one in theirs.base_paths().items()
    }
    for mine, other in zip(ours.get_fragments(), theirs.get_fragments(), strict=True):
        assert mine.fragment_id == other.fragment_id
        assert mine.count_rows() == other.count_rows()
        assert mine.deletion_file() == other.deletion_file()
        ours_json, theirs_json = mine.metadata.to_json(), json.loads(json.dumps(other.metadata.to_json()))
        assert ours_json == theirs_json
        assert pilum.FragmentMetadata.from_json(json.dumps(theirs_json)) == mine.metadata
    for row in range(0, ours.count_rows(), max(1, ours.count_rows() // 7)):
        same_rows(ours.take([row]), theirs.take([row]))
    found = ours.to_table(with_row_id=True, with_row_address=True)
    same_rows(found, theirs.to_table(with_row_id=True, with_row_address=True))
    for version in ours.version_refs():
        number = version["version"]
        try:
            transaction = theirs.read_transaction(number)
        except TypeError:  # the reference stumbles over rewritten indices
            assert ours.read_transaction(number).operation.rewritten_indices
        else:
            assert shown(ours.read_transaction(number)) == shown(transaction)
        try:
            expected = theirs.checkout_version(number).to_table()
        except (OSError, ValueError):
            continue  # cleaned up since
        same_rows(ours.checkout_version(number).to_table(), expected)


@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED | READ_ONLY])
def test_the_reference_reads_what_pilum_makes_of_it(case: str, tmp_path: Path) -> None:
    uri = copied(case, tmp_path)
    ours = pilum.dataset(uri)
    before = ours.to_table()
    ours.update_config({"pilum": "was here"})
    if before.num_rows:
        ours.insert(before.slice(0, 2))
        address = ours.to_table(columns=[], with_row_address=True)["_rowaddr"][0].as_py()
        ours.delete(f"_rowaddr = {address}")
    ours.validate()
    theirs = lance.dataset(uri)
    assert theirs.version == ours.version
    assert theirs.config()["pilum"] == "was here"
    same_rows(theirs.to_table(), ours.to_table())
    expected = [*plain(before), *plain(before.slice(0, 2))][1:]
    assert repr(plain(ours.to_table())) == repr(expected)
    theirs.validate()
    kinds = [type(one.operation).__name__ for one in theirs.get_transactions(3)]
    assert kinds == (["Delete", "Append", "UpdateConfig"] if before.num_rows else kinds)
    # And on: the reference writes, pilum reads.
    if before.num_rows:
        theirs.delete("false")
        lance.write_dataset(before.slice(0, 1), uri, mode="append")
        ours.checkout_latest()
        same_rows(ours.to_table(), lance.dataset(uri).to_table())


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_refused(case: str, tmp_path: Path) -> None:
    with pytest.raises(pilum.UnsupportedError):
        pilum.dataset(copied(case, tmp_path))


def test_branches_and_tags_of_the_reference(tmp_path: Path) -> None:
    uri = copied("tags_branches", tmp_path)
    ours, theirs = pilum.dataset(uri), lance.dataset(uri)
    for name in ours.tags.list():
        same_rows(ours.checkout_version(name).to_table(), theirs.checkout_version(name).to_table())
    for name in ours.branches.list():
        mine, other = ours.checkout_version((name, None)), theirs.checkout_version((name, None))
        assert (mine.version, mine.uri) == (other.version, other.uri)
        same_rows(mine.to_table(), other.to_table())
        mine.insert(mine.to_table().slice(0, 1))
        other.checkout_latest()
        same_rows(mine.to_table(), other.to_table())
