"""Damaged files: a clear error or the right rows; never a hang, a crash, or memory beyond the file's own size."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pilum.errors import CorruptFileError, PilumError, StoreError
from pilum.file import FileReader
from pilum.io import MemoryStore
from tests.file.files import assert_same, drive, expectation, golden_case_files, same_values, write_memory
from tests.file.test_golden import NOT_YET

pytestmark = [pytest.mark.fault]

MUTATIONS = 250
PATHS = [path for path in golden_case_files() if path.stem not in NOT_YET]


def read_all(store: MemoryStore, rows: Any = None) -> pa.RecordBatch:
    async def read() -> pa.RecordBatch:
        return await (await FileReader.open(store, "f")).read_batch(rows)

    return drive(read())


def validate(batch: pa.RecordBatch) -> None:
    """Whole and safe to use; fixed-width values may have any bits (a day of 25 hours is not our business)."""
    batch.validate()
    for column in batch.columns:
        kind = column.type
        if not (pa.types.is_temporal(kind) or pa.types.is_decimal(kind)):
            column.validate(full=True)


def put(data: bytes) -> MemoryStore:
    store = MemoryStore()
    drive(store.put("f", data))
    return store


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, overwrite numbers, cut or double a piece; mostly where the metadata is."""
    damaged = bytearray(data)
    kind = rng.randrange(8)
    # Half of the damage goes to the last kilobytes, where every number counts.
    low = max(0, len(data) - 4096) if rng.random() < 0.5 else 0
    at = rng.randrange(low, len(data))
    if kind < 4:
        for _ in range(rng.choice([1, 1, 2, 8])):
            damaged[rng.randrange(low, len(data))] ^= 1 << rng.randrange(8)
    elif kind < 6:
        value = rng.choice([0, 1, 0xFF, 0x7F, 0x80])
        damaged[at : at + rng.choice([1, 2, 4, 8])] = bytes([value]) * rng.choice([1, 2, 4, 8])
    elif kind == 6:
        del damaged[at : at + rng.randrange(1, 64)]
    else:
        damaged = damaged[: rng.randrange(len(data))]
    return bytes(damaged)


@pytest.mark.golden
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_mutated_golden_files(path: Path) -> None:
    data, expected = path.read_bytes(), expectation(path)
    rng = random.Random(path.stem)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTATIONS):
        damaged = mutate(data, rng)
        started = time.monotonic()
        try:
            batch = read_all(put(damaged))
        except (PilumError, NotImplementedError):
            pass
        else:
            # Values may have changed (their bytes carry no checksum), but the shape must be whole.
            validate(batch)
            if batch.schema.names == expected.column_names:
                assert batch.num_rows == expected.num_rows or damaged != data
        assert time.monotonic() - started < 5, f"mutation {number} took too long"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 << 10, f"{grown >> 10} MiB more memory"


def sample() -> pa.RecordBatch:
    return pa.record_batch(
        {
            "number": pa.array(range(3000), pa.int64()),
            "text": [f"value {i}" if i % 5 else None for i in range(3000)],
            "long": ["x" * 400 + str(i) for i in range(3000)],
            "vector": pa.array([[float(i), 1.0, 2.0] for i in range(3000)], pa.list_(pa.float32(), 3)),
        }
    )


def test_every_truncation_is_an_error() -> None:
    store, path = write_memory([sample().slice(0, 50)])
    data = bytes(drive(store.get_all(path)))
    for size in range(0, len(data), 7):
        with pytest.raises((CorruptFileError, StoreError)):
            read_all(put(data[:size]))


def test_a_flipped_bit_in_metadata_never_changes_values_silently() -> None:
    """Each bit of the sections after the data: an error, or a batch of whole shape with the original data bytes."""
    batch = sample().slice(0, 40)
    store, path = write_memory([batch])
    data = bytes(drive(store.get_all(path)))
    reader = drive(FileReader.open(store, path))
    start = reader.metadata.buffers[0][0]
    for at in range(start, len(data)):
        for bit in (0, 3, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                found = read_all(put(bytes(damaged)))
            except (PilumError, NotImplementedError):
                continue
            validate(found)


def test_the_error_names_file_column_and_page() -> None:
    store, path = write_memory([sample()])
    reader = drive(FileReader.open(store, path))
    data = bytearray(drive(store.get_all(path)))
    # The chunk words of the first column's first page lie at offset 0.
    first = reader.metadata.projections and 0
    assert first == 0
    data[0:8] = b"\xff" * 8
    with pytest.raises(CorruptFileError) as caught:
        read_all(put(bytes(data)))
    for part in ("file f", "number", "page 0"):
        assert part in str(caught.value)


def test_a_missing_file_and_a_wrong_size() -> None:
    store, path = write_memory([sample()])
    size = drive(store.head(path)).size

    async def open_with(size: int | None, name: str = path) -> FileReader:
        return await FileReader.open(store, name, size=size)

    with pytest.raises(FileNotFoundError, match="nope"):
        drive(open_with(None, "nope"))
    for wrong in (size - 1, size + 1, 10):
        with pytest.raises((CorruptFileError, StoreError)):
            drive(open_with(wrong))
    drive(open_with(size))


def test_unmutated_files_still_read() -> None:
    batch = sample()
    store, path = write_memory([batch])
    found = read_all(put(bytes(drive(store.get_all(path)))))
    for name in batch.schema.names:
        assert_same(found.column(name), batch.column(name), name)
        assert same_values(found.column(name), batch.column(name))
