"""Tables whose data files are of format 2.0 or 0.1: golden content, ranges, rows, filters; appending and rewriting."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import pilum
from pilum.errors import CorruptFileError, InvalidInputError, NotFoundError, UnsupportedError
from pilum.file import FileWriter, Session
from pilum.io import MemoryStore
from pilum.query.fragment_reader import FragmentReader
from pilum.query.projection import resolve
from pilum.query.request import ScanRequest
from pilum.query.scan import plan_scan, scan_table
from pilum.query.snapshot import Snapshot
from pilum.query.take import take_positions
from pilum.schema import Schema
from pilum.table import DataFile, Fragment, Manifest
from tests.file.files import assert_same, drive
from tests.support import GOLDEN, expected_table

TABLES = [path for path in sorted(GOLDEN.glob("legacy/*.lance")) if path.is_dir()]
BLOBS = {"v20_blob", "h24_blob"}


def expectation(path: Path) -> pa.Table:
    if path.stem not in BLOBS:
        return expected_table(path.with_suffix(".arrow"))
    # The reference returns descriptors by default; pilum reads the bytes.
    table, found = (
        expected_table(path.with_suffix(".arrow")),
        expected_table(path.with_suffix(".bytes.arrow")),
    )
    return pa.table(
        {name: found[name] if name in found.column_names else table[name] for name in table.column_names}
    )


def check(found: pa.Table, expected: pa.Table, where: str = "") -> None:
    assert found.num_rows == expected.num_rows, where
    assert found.column_names == expected.column_names
    for name in expected.column_names:
        assert_same(found[name], expected[name], f"{name} {where}")


def writable(path: Path, folder: Path) -> str:
    """A copy of a golden table that may be changed."""
    copy = folder / path.name
    shutil.copytree(path, copy, copy_function=shutil.copyfile)
    for one in [copy, *copy.rglob("*")]:
        one.chmod(0o755 if one.is_dir() else 0o644)
    return str(copy)


@pytest.mark.golden
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_content_ranges_and_rows(path: Path) -> None:
    expected = expectation(path)
    dataset = pilum.dataset(path)
    assert dataset.count_rows() == expected.num_rows
    check(dataset.to_table(), expected)
    rng = random.Random(path.stem)
    rows = expected.num_rows
    for _ in range(8 if rows else 0):
        low = rng.randrange(rows)
        size = rng.randrange(1, rows - low + 1)
        check(dataset.to_table(offset=low, limit=size), expected.slice(low, size), f"{low}+{size}")
        picked = [rng.randrange(rows) for _ in range(rng.choice([1, 4, 30]))]
        if path.stem == "h00_0.16_wrong_version_no_fix":
            with pytest.raises(CorruptFileError, match="same id"):
                dataset.take(picked)
            continue
        check(dataset.take(picked), expected.take(picked), f"{picked}")
    names = rng.sample(expected.column_names, min(2, len(expected.column_names)))
    check(dataset.to_table(columns=names), expected.select(names))


@pytest.mark.golden
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_filters(path: Path) -> None:
    expected = expectation(path)
    dataset = pilum.dataset(path)
    for field in expected.schema:
        column = expected[field.name]
        kind = field.type
        if pa.types.is_integer(kind) and len(column):
            middle = pc.max(column).as_py()
            middle = 0 if middle is None else middle // 2
            mask = pc.greater(column, pa.scalar(middle, kind))
            check(dataset.to_table(filter=f"`{field.name}` > {middle}"), expected.filter(mask), field.name)
        elif pa.types.is_string(kind):
            check(dataset.to_table(filter=f"`{field.name}` is null"), expected.filter(pc.is_null(column)))
            check(
                dataset.to_table(filter=f"`{field.name}` is not null"), expected.filter(pc.is_valid(column))
            )


def format_of(path: Path) -> str:
    return pilum.dataset(path).data_storage_version


TABLES_20 = [path.stem for path in TABLES if format_of(path) == "2.0"]
TABLES_01 = [path.stem for path in TABLES if format_of(path) == "0.1"]


@pytest.mark.golden
@pytest.mark.interop
@pytest.mark.parametrize("stem", TABLES_20)
def test_appending_to_2_0(stem: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    path = GOLDEN / "legacy" / f"{stem}.lance"
    expected = expectation(path)
    uri = writable(path, tmp_path)
    rows = pilum.dataset(uri).to_table()
    dataset = pilum.write_dataset(rows, uri, mode="append")
    assert dataset.data_storage_version == "2.0"
    check(dataset.to_table(), pa.concat_tables([expected, expected.cast(expected.schema)]))
    seen = lance.dataset(uri)
    assert seen.data_storage_version == "2.0"
    assert seen.count_rows() == 2 * expected.num_rows
    # The reference refuses files of the earliest releases, and has descriptors in place of blobs.
    if stem not in BLOBS | {"h12_mixed", "h16_dict_validity"}:
        for name in expected.column_names:
            assert_same(seen.to_table()[name], dataset.to_table()[name], name)
    with pytest.raises(InvalidInputError, match=r"2\.0"):
        pilum.write_dataset(rows, uri, mode="append", data_storage_version="2.2")


@pytest.mark.golden
@pytest.mark.interop
@pytest.mark.parametrize("stem", TABLES_01)
def test_rewriting_0_1(stem: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    path = GOLDEN / "legacy" / f"{stem}.lance"
    expected = expectation(path)
    uri = writable(path, tmp_path)
    rows = pilum.dataset(uri).to_table()
    with pytest.raises(UnsupportedError, match="rewrite"):
        pilum.write_dataset(rows, uri, mode="append")
    if expected.num_rows and stem != "h00_0.16_wrong_version_no_fix":
        deleted = pilum.dataset(uri)
        deleted.delete(f"`{expected.column_names[0]}` is null")
        assert lance.dataset(uri).count_rows() == deleted.count_rows()
    dataset = pilum.write_dataset(rows, uri, mode="overwrite")
    assert dataset.data_storage_version == "2.2"
    check(dataset.to_table(), expected)
    check(lance.dataset(uri).to_table(), expected)
    check(pilum.write_dataset(rows, uri, mode="append").to_table(), pa.concat_tables([expected, expected]))


@pytest.mark.golden
@pytest.mark.interop
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_migration_by_copying(path: Path, tmp_path: Path) -> None:
    """The command of docs/format.md."""
    lance = pytest.importorskip("lance")
    expected = expectation(path)
    uri = str(tmp_path / "new.lance")
    dataset = pilum.write_dataset(pilum.dataset(path).scanner().to_reader(), uri)
    assert dataset.data_storage_version == "2.2"
    check(dataset.to_table(), expected)
    if path.stem not in BLOBS:
        check(lance.dataset(uri).to_table(), expected)


@pytest.mark.golden
@pytest.mark.interop
def test_new_tables_of_2_0(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    rows = pa.table({"a": range(1000), "s": [f"value {i % 30}" for i in range(1000)]})
    uri = str(tmp_path / "new")
    dataset = pilum.write_dataset(rows, uri, data_storage_version="2.0", max_rows_per_file=300)
    assert dataset.data_storage_version == "2.0"
    check(lance.dataset(uri).to_table(), rows)
    check(dataset.take([999, 0, 500]), rows.take([999, 0, 500]))
    dataset.delete("a % 2 = 0")
    check(dataset.to_table(), rows.filter(pc.equal(pc.bit_wise_and(rows["a"], 1), 1)))
    lance.write_dataset(rows, uri, mode="append")
    assert pilum.dataset(uri).count_rows() == 1500


@pytest.mark.golden
def test_counts_of_the_earliest_releases_come_from_the_files() -> None:
    dataset = pilum.dataset(GOLDEN / "legacy" / "h00_0.8.0_migrated.lance")
    assert [fragment.physical_rows for fragment in dataset.manifest.fragments] == [100, 2]
    dataset = pilum.dataset(GOLDEN / "legacy" / "h00_0.7.5_with_deletions.lance")
    assert [(one.physical_rows, one.num_deleted_rows) for one in dataset.manifest.fragments] == [(100, 10)]


@pytest.mark.golden
def test_missing_data_files_of_an_old_table(tmp_path: Path) -> None:
    uri = writable(GOLDEN / "legacy" / "h00_0.7.5_with_deletions.lance", tmp_path)
    for file in Path(uri).glob("data/*"):
        file.unlink()
    dataset: Any = pilum.dataset(uri)
    assert dataset.schema.names == ["x"]
    with pytest.raises(NotFoundError):
        pilum.dataset(writable(GOLDEN / "legacy" / "v01_tiny_i32.lance", tmp_path)).checkout_version(99)


@pytest.mark.golden
def test_a_fragment_of_files_of_all_formats() -> None:
    """One fragment, three files: 0.1, 2.0 and 2.2, and a column that no file holds."""
    (legacy,) = (GOLDEN / "legacy" / "v01_take.lance").glob("data/*.lance")
    old = expected_table(GOLDEN / "legacy" / "v01_take.arrow")
    rows = old.num_rows
    store = MemoryStore()
    drive(store.put("data/old.lance", legacy.read_bytes()))
    first = Schema.from_arrow(
        pa.schema([*old.schema, ("p", pa.string()), ("q", pa.int64()), ("z", pa.int8())])
    )
    by_name = {field.name: field for field in first.fields}
    files = [DataFile("old.lance", (0, 1, 2, 3, 4), (), (0, 2))]
    values = {"p": pa.array([f"p{i}" for i in range(rows)]), "q": pa.array(range(rows), pa.int64())}

    async def write(name: str, version: tuple[int, int]) -> DataFile:
        part = Schema((by_name[name],), {})
        async with await FileWriter.create(store, f"data/{name}.lance", part, version=version) as writer:
            await writer.write(pa.RecordBatch.from_arrays([values[name]], schema=part.to_arrow()))
        assert writer.finished is not None
        done = writer.finished
        return DataFile(f"{name}.lance", done.fields, done.column_indices, done.version, done.size)

    files += [drive(write("p", (2, 0))), drive(write("q", (2, 2)))]
    fragment = Fragment(0, tuple(files), rows)
    snapshot = Snapshot(store, Manifest(1, first, (fragment,)), Session())
    reader = drive(FragmentReader.open(snapshot, fragment, first))
    expected = old.append_column("p", values["p"]).append_column("q", values["q"])
    expected = expected.append_column("z", pa.nulls(rows, pa.int8()))
    check(pa.Table.from_batches([drive(reader.read(0, rows))]), expected)
    check(pa.Table.from_batches([drive(reader.read(90, 210))]), expected.slice(90, 120))
    offsets = np.array([0, 99, 100, 349])
    check(pa.Table.from_batches([drive(reader.take(offsets))]), expected.take(pa.array(offsets)))


@pytest.mark.golden
def test_a_table_of_fragments_of_all_formats() -> None:
    """Three fragments of 0.1, 2.0 and 2.2: scans, filters (with and without statistics) and rows across them."""
    (legacy,) = (GOLDEN / "legacy" / "v01_take.lance").glob("data/*.lance")
    old = expected_table(GOLDEN / "legacy" / "v01_take.arrow")
    schema = Schema.from_arrow(old.schema)
    store = MemoryStore()
    drive(store.put("data/old.lance", legacy.read_bytes()))
    ids = tuple(field.id for field in schema.walk())
    fragments = [Fragment(0, (DataFile("old.lance", ids, (), (0, 2)),), old.num_rows)]

    async def write(number: int, version: tuple[int, int]) -> Fragment:
        name = f"{number}.lance"
        async with await FileWriter.create(store, f"data/{name}", schema, version=version) as writer:
            for batch in old.combine_chunks().to_batches():
                await writer.write(batch)
        done = writer.finished
        assert done is not None
        file = DataFile(name, done.fields, done.column_indices, done.version, done.size)
        return Fragment(number, (file,), old.num_rows)

    fragments += [drive(write(1, (2, 0))), drive(write(2, (2, 2)))]
    snapshot = Snapshot(store, Manifest(1, schema, tuple(fragments)), Session())
    expected = pa.concat_tables([old, old, old])

    def scan(**options: Any) -> pa.Table:
        return drive(scan_table(plan_scan(snapshot, ScanRequest(**options))))

    check(scan(), expected)
    check(scan(limit=400, offset=200), expected.slice(200, 400))
    name = next(field.name for field in old.schema if pa.types.is_integer(field.type))
    middle = sorted(old[name].to_pylist())[old.num_rows // 2]
    for use_stats in (None, False):
        found = scan(filter=f"`{name}` > {middle}", use_stats=use_stats)
        check(found, expected.filter(pc.greater(expected[name], middle)))
    picked = np.array([349, 0, 350, 699, 1049, 100, 349])
    projection = resolve(schema, None)
    taken = drive(take_positions(snapshot, snapshot.manifest.fragments, picked, projection))
    check(taken, expected.take(pa.array(picked)))


@pytest.mark.interop
@pytest.mark.parametrize("version", ["legacy", "2.0"])
def test_nearest_and_filters_on_larger_tables(version: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    rng = np.random.default_rng(0)
    rows = 5000
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(rows * 8), pa.float32()), 8)
    table = pa.table({"i": range(rows), "s": [f"text {i % 97}" for i in range(rows)], "v": vectors})
    uri = str(tmp_path / "t")
    lance.write_dataset(table, uri, data_storage_version=version, max_rows_per_file=2000)
    dataset, reference = pilum.dataset(uri), lance.dataset(uri)
    check(dataset.to_table(), table)
    for text in ("i % 7 = 3 and s = 'text 5'", "i > 4990", "s like 'text 9%' and i < 100"):
        check(dataset.to_table(filter=text), reference.to_table(filter=text), text)
    query = {"column": "v", "q": np.zeros(8, np.float32), "k": 5}
    found, wanted = dataset.to_table(nearest=query), reference.to_table(nearest=query)
    assert found["i"].to_pylist() == wanted["i"].to_pylist()
    batches = list(dataset.to_batches(batch_size=700))
    assert sum(batch.num_rows for batch in batches) == rows
