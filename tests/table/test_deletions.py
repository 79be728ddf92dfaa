"""Deletion vectors and Roaring bitmaps: golden bytes, an independent library, and damaged files."""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pyroaring import BitMap

from pilum.errors import CorruptFileError, InvalidInputError
from pilum.io import LocalStore, MemoryStore
from pilum.table import DeletionFile, Fragment, latest_version, load_manifest, read_deletions, write_deletions
from pilum.table.deletions import decode_deletions, encode_deletions
from pilum.table.model import ARROW_ARRAY, BITMAP
from pilum.table.roaring import decode_roaring, encode_roaring
from tests.support import GOLDEN
from tests.table.tables import drive, fragment

SPARSE = st.lists(st.integers(0, (1 << 32) - 1), max_size=50)
RANGES = st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 90_000)), max_size=3)


def sorted_offsets(values: Any) -> np.ndarray:
    return np.unique(np.asarray(values, dtype=np.uint32))


def test_bytes_of_the_specification() -> None:
    expected = bytes.fromhex("3a300000 01000000 0000 0100 10000000 0200 0700")
    assert encode_roaring(sorted_offsets([2, 7])) == expected
    assert decode_roaring(expected, "t").tolist() == [2, 7]
    assert decode_roaring(bytes.fromhex("3a300000 01000000 0000 0000 10000000 0100"), "t").tolist() == [1]


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(SPARSE, RANGES)
def test_roaring_against_another_implementation(sparse: list[int], ranges: list[tuple[int, int]]) -> None:
    values = sorted_offsets([*sparse, *(i for start, length in ranges for i in range(start, start + length))])
    ours, theirs = encode_roaring(values), BitMap(values.tolist(), optimize=False)
    assert ours == theirs.serialize()
    assert np.array_equal(decode_roaring(ours, "t"), values)
    theirs.run_optimize()
    assert np.array_equal(decode_roaring(theirs.serialize(), "t"), values)


@pytest.mark.fault
@pytest.mark.parametrize("values", [[], [2, 7], range(10_000), [*range(5), 70_000, 1 << 31]])
@pytest.mark.parametrize("with_runs", [False, True])
def test_damaged_bitmaps(values: Any, with_runs: bool) -> None:
    source = BitMap(values, optimize=False)
    if with_runs:
        source.run_optimize()
    data = source.serialize()
    for cut in {*range(min(len(data), 60)), len(data) - 1}:
        if cut < len(data):
            with pytest.raises(CorruptFileError, match="Roaring"):
                decode_roaring(data[:cut], "t")
    rng = random.Random(1)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            result = decode_roaring(bytes(damaged), "t")
        except CorruptFileError:
            continue
        assert np.all(result[1:] > result[:-1])


@pytest.mark.golden
@pytest.mark.parametrize(
    "case", ["del_array", "del_bitmap", "del_rebase", "upd_rows", "old_6_0_1", "stable_update"]
)
def test_golden_deletion_files(case: str) -> None:
    store = LocalStore(GOLDEN / "table" / f"{case}.lance")
    manifest = drive(load_manifest(store, drive(latest_version(store))))
    found = [one for one in manifest.fragments if one.deletion_file is not None]
    assert found
    for one in found:
        assert one.deletion_file is not None
        offsets = drive(read_deletions(store, one))
        assert len(offsets) == one.deletion_file.num_deleted_rows
        assert one.num_rows == one.physical_rows - len(offsets)


@pytest.mark.parametrize(("count", "file_type"), [(1, ARROW_ARRAY), (4999, ARROW_ARRAY), (5000, BITMAP)])
def test_written_vectors_are_read_back(count: int, file_type: int) -> None:
    store, one = MemoryStore(), fragment(rows=10_000, fragment_id=4)
    offsets = random.Random(2).sample(range(10_000), count)
    file = drive(write_deletions(store, one, offsets, 9))
    assert (file.file_type, file.read_version, file.num_deleted_rows) == (file_type, 9, count)
    deleted = Fragment(4, one.files, one.physical_rows, file)
    assert drive(read_deletions(store, deleted)).tolist() == sorted(offsets)
    assert deleted.num_rows == 10_000 - count


def test_a_fragment_without_deletions() -> None:
    assert drive(read_deletions(MemoryStore(), fragment())).tolist() == []


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([], "write no deletion file"), ([3], "has 3 rows"), ([0, 1, 2], "remove the fragment")],
)
def test_vectors_that_must_not_be_written(offsets: list[int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        drive(write_deletions(MemoryStore(), fragment(rows=3), offsets, 1))


def ipc(batches: list[Any], schema: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def rows(values: list[int | None], name: str = "row_id", kind: Any = None) -> Any:
    return pa.record_batch([pa.array(values, kind or pa.uint32())], [name])


@pytest.mark.fault
@pytest.mark.parametrize(
    "batches",
    [
        [],
        [rows([1]), rows([2])],
        [rows([1], "id")],
        [rows([1], kind=pa.uint64())],
        [rows([1, None])],
        [rows([1, 1])],
    ],
)
def test_arrow_files_of_the_wrong_form(batches: list[Any]) -> None:
    data = ipc(batches, batches[0].schema if batches else pa.schema([("row_id", pa.uint32())]))
    with pytest.raises(CorruptFileError, match=r"x\.arrow"):
        decode_deletions(data, ARROW_ARRAY, "x.arrow")


@pytest.mark.fault
def test_damaged_arrow_files() -> None:
    data = encode_deletions(np.arange(100, dtype=np.uint32), ARROW_ARRAY)
    rng = random.Random(3)
    for cut in range(0, len(data), 7):
        with pytest.raises(CorruptFileError):
            decode_deletions(data[:cut], ARROW_ARRAY, "x.arrow")
    messages = []
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            decode_deletions(bytes(damaged), ARROW_ARRAY, "x.arrow")
        except CorruptFileError as error:
            messages.append(str(error))
    assert messages
    assert all("x.arrow" in message for message in messages)


@pytest.mark.fault
def test_contradictions_with_the_manifest() -> None:
    store, one = MemoryStore(), fragment(rows=10)
    file = drive(write_deletions(store, one, [8, 9], 1))
    with pytest.raises(CorruptFileError, match=r"row 9 is deleted.*8 rows"):
        drive(read_deletions(store, Fragment(0, one.files, 8, file)))
    wrong_count = DeletionFile(file.file_type, file.read_version, file.id, 3)
    with pytest.raises(CorruptFileError, match="holds 2 deletions, the manifest says 3"):
        drive(read_deletions(store, Fragment(0, one.files, 10, wrong_count)))
    elsewhere = DeletionFile(file.file_type, file.read_version, file.id, 2, base_id=0)
    with pytest.raises(CorruptFileError, match="base path 0"):
        drive(read_deletions(store, Fragment(0, one.files, 10, elsewhere)))


def test_uncompressed_and_lz4_files_are_readable() -> None:
    for compression in (None, "lz4", "zstd"):
        sink = pa.BufferOutputStream()
        batch = rows([7, 2, 5])
        with pa.ipc.new_file(
            sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
        ) as writer:
            writer.write_batch(batch)
        assert decode_deletions(sink.getvalue().to_pybytes(), ARROW_ARRAY, "x").tolist() == [2, 5, 7]
