"""Format 0.1: golden files read whole, by ranges and by rows; random data from the reference; damaged files."""

from __future__ import annotations

import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from pilum.errors import CorruptFileError, InvalidInputError, PilumError, StoreError, UnsupportedError
from pilum.file import FileReader
from pilum.file.generic import GenericReader
from pilum.file.open import open_file
from pilum.file.v0_1 import FileReader01
from pilum.io import LocalStore
from pilum.schema import Schema
from tests.file.files import assert_same, drive
from tests.file.test_faults import mutate, put
from tests.file.test_v2_0 import MUTATIONS, RELAXED, check_selections, tables, whole, without_offsets
from tests.support import GOLDEN, expected_table


def single_files() -> list[Path]:
    """The data files of golden tables that consist of one file without deletions."""
    found = []
    for folder in sorted(GOLDEN.glob("legacy/[vh]01_*.lance")):
        files = sorted(folder.glob("data/*.lance"))
        if len(files) == 1 and not (folder / "_deletions").exists():
            found.append(files[0])
    return found


FILES = single_files()


def name_of(path: Path) -> str:
    return path.parent.parent.stem


def expectation(path: Path) -> pa.Table:
    return expected_table(path.parent.parent.with_suffix(".arrow"))


def open_local(path: Path) -> GenericReader:
    return drive(open_file(LocalStore(path.parent), path.name))


# --------------------------------------------------------------------------- golden


@pytest.mark.golden
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_golden(path: Path) -> None:
    reader = open_local(path)
    assert isinstance(reader, FileReader01)
    for seed in range(5):
        check_selections(reader, expectation(path), seed)


@pytest.mark.golden
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_golden_columns_alone_and_as_streams(path: Path) -> None:
    expected = expectation(path)
    reader = open_local(path)

    async def stream(name: str) -> list[pa.RecordBatch]:
        return [batch async for batch in await reader.read_stream_projected(None, 3, None, [name])]

    for name in expected.column_names:
        batches = drive(stream(name))
        assert all(batch.num_rows == 3 for batch in batches[:-1])
        assert_same(pa.chunked_array([batch.column(0) for batch in batches]), expected[name], name)


@pytest.mark.golden
def test_the_page_table_begins_with_the_first_field_of_the_file() -> None:
    folder = GOLDEN / "legacy" / "v01_evolved.lance"
    expected = expected_table(folder.with_suffix(".arrow"))
    seen = set()
    for path in sorted(folder.glob("data/*.lance")):
        batch = drive(open_local(path).read_batch())
        for name in batch.schema.names:
            if name in expected.column_names:
                assert_same(batch.column(name), expected[name], name)
                seen.add(name)
    assert seen == set(expected.column_names)


@pytest.mark.golden
def test_dictionaries_are_the_files_own() -> None:
    folder = GOLDEN / "legacy" / "v01_dict.lance"
    expected = expected_table(folder.with_suffix(".arrow"))
    rows = [drive(open_local(path).read_batch()) for path in folder.glob("data/*.lance")]
    rows.sort(key=lambda batch: -batch.num_rows)
    for name in expected.column_names:
        decoded = pa.chunked_array([batch.column(name).dictionary_decode() for batch in rows])
        assert_same(decoded, expected[name], name)


@pytest.mark.golden
def test_statistics() -> None:
    (path,) = (GOLDEN / "legacy" / "v01_stats.lance").glob("data/*.lance")
    expected = expected_table(GOLDEN / "legacy" / "v01_stats.stats.arrow")
    reader = open_local(path)
    assert isinstance(reader, FileReader01)
    found = drive(reader.statistics())
    assert found.num_rows == len(reader.metadata.offsets) - 1
    assert found.schema.names == expected.column_names
    for name in expected.column_names:
        for member in ("null_count", "min_value", "max_value"):
            assert_same(found.column(name).field(member), expected[name].combine_chunks().field(member), name)


@pytest.mark.golden
def test_nullability_is_that_of_the_schema_that_reads() -> None:
    (path,) = (GOLDEN / "legacy" / "v01_strings.lance").glob("data/*.lance")
    store = LocalStore(path.parent)
    own = drive(open_file(store, path.name)).schema
    names = [field.name for field in own.fields if field.logical_type == "string"]
    strict = Schema.from_arrow(
        pa.schema([field.to_arrow().with_nullable(False) for field in own.fields if field.name in names])
    )
    by_name = {field.name: field for field in own.fields}
    ids = tuple(
        type(field)(by_name[field.name].id, field.name, field.logical_type, False) for field in strict.fields
    )
    batch = drive(drive(open_file(store, path.name, schema=Schema(ids, {}))).read_batch())
    for name in names:
        assert batch.column(name).null_count == 0


@pytest.mark.golden
def test_a_projection_of_a_struct_and_absent_columns() -> None:
    (path,) = (GOLDEN / "legacy" / "v01_structs.lance").glob("data/*.lance")
    reader = open_local(path)
    expected = expectation(path)
    found = drive(reader.read_batch(projection=["st.a"])).column(0)
    assert_same(found.field(0), expected["st"].combine_chunks().field("a"))
    absent = Schema.from_arrow(pa.schema([("z", pa.int8())]), first_id=500)
    with pytest.raises(InvalidInputError, match="holds no column"):
        drive(reader.read_batch(projection=absent))
    with pytest.raises(InvalidInputError, match="out of range"):
        drive(reader.read_batch([reader.num_rows]))
    with pytest.raises(UnsupportedError, match="0\\.1"):
        drive(FileReader.open(LocalStore(path.parent), path.name))


# --------------------------------------------------------------------------- random data


def as_stored(array: Any, nullable: bool = True) -> Any:
    """What format 0.1 gives back for an array (B.4), as far as it does not depend on bytes under nulls."""
    kind = array.type
    types = pa.types
    if types.is_null(kind) or types.is_dictionary(kind):
        return array
    if types.is_struct(kind):
        members = [as_stored(array.field(i)) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(members, fields=list(kind))
    if types.is_list(kind) or types.is_large_list(kind):
        maker = pa.ListArray if types.is_list(kind) else pa.LargeListArray
        offsets = np.concatenate([[0], np.cumsum(array.value_lengths().fill_null(0).to_numpy())])
        return maker.from_arrays(
            pa.array(offsets, pa.int32() if types.is_list(kind) else pa.int64()), as_stored(array.flatten()), type=kind
        )  # fmt: skip
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    ):
        empty = pa.compute.equal(pa.compute.binary_length(array), 0)
        return pa.compute.if_else(empty, pa.scalar(None, kind), array)
    return array


def full(data: list[pa.RecordBatch]) -> bool:
    """Whether no fixed-width value is null: what stands in such slots is up to the writer."""
    return all(_full(column) for batch in data for column in batch.columns)


def _full(array: Any) -> bool:
    kind = array.type
    types = pa.types
    if types.is_struct(kind):
        return all(_full(array.field(i)) for i in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind):
        return _full(array.flatten())
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    ):
        return True
    if types.is_fixed_size_list(kind):
        return array.null_count == 0 and _full(array.flatten())
    return array.null_count == 0 or types.is_null(kind)


@pytest.mark.property
@pytest.mark.interop
@RELAXED
@given(tables(max_rows=700, fixed_nulls=False), st.sampled_from([1, 7, 100, 1024]), st.integers(0, 1000))
def test_pilum_reads_what_the_reference_writes(data: list[Any], group: int, seed: int) -> None:
    lance = pytest.importorskip("lance")
    assert full(data)
    table = without_offsets(pa.Table.from_batches(data).unify_dictionaries())
    if not table.num_rows or all(pa.types.is_null(field.type) for field in table.schema):
        return
    with tempfile.TemporaryDirectory() as folder:
        lance.write_dataset(table, folder, data_storage_version="legacy", max_rows_per_group=group)
        (path,) = Path(folder).glob("data/*.lance")
        columns = [as_stored(column.combine_chunks()) for column in table.columns]
        expected = pa.table(dict(zip(table.column_names, columns, strict=True)))
        check_selections(open_local(path), without_offsets(expected), seed)


# --------------------------------------------------------------------------- damage


@pytest.mark.golden
@pytest.mark.fault
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_mutated_golden_files(path: Path) -> None:
    data, expected = path.read_bytes(), expectation(path)
    rng = random.Random(name_of(path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(3 * MUTATIONS):
        started = time.process_time()
        store = put(mutate(data, rng))
        try:
            reader = drive(open_file(store, "f"))
            rows = reader.num_rows
            batches = [drive(reader.read_batch() if rows < 1 << 20 else reader.read_batch(range(10)))]
            if rows:
                batches.append(drive(reader.read_batch([0, rows - 1] if rows > 1 else [0])))
            drive(reader.statistics() if isinstance(reader, FileReader01) else reader.initialise())
        except (PilumError, NotImplementedError):
            pass
        else:
            for batch in batches:
                whole(batch)
            if rows == expected.num_rows and batches[0].schema.names == expected.column_names:
                assert batches[0].num_rows == rows
        assert time.process_time() - started < 5, f"mutation {number} took too long"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 << 10, f"{grown >> 10} MiB more memory"


INSIDE = [
    path
    for path in sorted(GOLDEN.glob("legacy/*.lance/data/*.lance"))
    if path not in FILES and path.read_bytes()[-8:-4] in (b"\0\0\0\0", b"\0\0\1\0", b"\0\0\2\0")
]


@pytest.mark.golden
@pytest.mark.fault
@pytest.mark.parametrize("path", INSIDE, ids=lambda path: f"{name_of(path)}-{path.stem[:6]}")
def test_mutated_data_files_of_tables(path: Path) -> None:
    """Dictionaries, dropped and added columns, footers of the earliest releases."""
    data = path.read_bytes()
    rng = random.Random(path.stem)
    for number in range(MUTATIONS):
        started = time.process_time()
        try:
            reader = drive(open_file(put(mutate(data, rng)), "f"))
            rows = min(reader.num_rows, 5000)
            batches = [drive(reader.read_batch(range(rows)))]
            if rows > 2:
                batches.append(drive(reader.read_batch([0, rows // 2, rows - 1])))
            if isinstance(reader, FileReader01):
                drive(reader.statistics())
        except (PilumError, NotImplementedError):
            pass
        else:
            for batch in batches:
                whole(batch)
        assert time.process_time() - started < 5, f"mutation {number} took too long"


@pytest.mark.golden
@pytest.mark.fault
def test_every_truncation_is_an_error() -> None:
    (path,) = (GOLDEN / "legacy" / "v01_tiny_list.lance").glob("data/*.lance")
    data = path.read_bytes()
    for size in range(len(data)):
        with pytest.raises((CorruptFileError, StoreError)):
            drive(FileReader01.open(put(data[:size]), "f"))


@pytest.mark.golden
@pytest.mark.fault
def test_the_error_names_file_and_column() -> None:
    (path,) = (GOLDEN / "legacy" / "v01_tiny_list.lance").glob("data/*.lance")
    data = bytearray(path.read_bytes())
    data[4:8] = b"\xff\xff\xff\x7f"
    with pytest.raises(CorruptFileError) as caught:
        drive(drive(FileReader01.open(put(bytes(data)), "f")).read_batch())
    for part in ("offsets of lists", "file f", "'a'"):
        assert part in str(caught.value)
