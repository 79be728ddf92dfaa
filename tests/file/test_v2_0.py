"""Format 2.0: golden files read whole, by ranges and by rows; random data to and from the reference; damaged files."""

from __future__ import annotations

import os
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
from hypothesis import HealthCheck, given, settings

from pilum.errors import InvalidInputError, PilumError, UnsupportedError
from pilum.file import FileReader
from pilum.file.generic import GenericReader
from pilum.file.open import open_file
from pilum.file.v2_0 import FileReader20
from pilum.io import LocalStore, MemoryStore
from pilum.schema import Schema
from tests.file.files import assert_same, drive, write_memory
from tests.file.test_faults import mutate, put
from tests.strategies import random_array, types
from tests.support import GOLDEN, expected_table

EXAMPLES = int(os.environ.get("PILUM_EXAMPLES", "40"))
MUTATIONS = int(os.environ.get("PILUM_MUTATIONS", "60"))
RELAXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FILES = [
    path
    for path in [*sorted(GOLDEN.glob("legacy/*.lance")), GOLDEN / "structure" / "mapping_2_0.lance"]
    if path.is_file()
]


def open_local(path: Path) -> GenericReader:
    return drive(open_file(LocalStore(path.parent), path.name))


def check(found: pa.RecordBatch, expected: pa.Table, where: str = "") -> None:
    for name in expected.column_names:
        assert_same(found.column(name), expected[name], f"{name} {where}")


def check_selections(reader: GenericReader, expected: pa.Table, seed: int) -> None:
    rng = random.Random(seed)
    assert reader.num_rows == expected.num_rows
    check(drive(reader.read_batch()), expected)
    rows = expected.num_rows
    for _ in range(6 if rows else 0):
        low = rng.randrange(rows)
        high = rng.randrange(low, rows) + 1
        check(drive(reader.read_batch(range(low, high))), expected.slice(low, high - low), f"{low}:{high}")
        picked = sorted(rng.sample(range(rows), min(rows, rng.choice([1, 5, 40]))))
        check(drive(reader.read_batch(picked)), expected.take(picked), f"{picked}")


# --------------------------------------------------------------------------- golden


@pytest.mark.golden
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    reader = open_local(path)
    assert isinstance(reader, FileReader20)
    check_selections(reader, expected_table(path.with_suffix(".arrow")), 7)


@pytest.mark.golden
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_columns_alone_and_as_streams(path: Path) -> None:
    expected = expected_table(path.with_suffix(".arrow"))
    reader = open_local(path)

    async def stream(name: str) -> list[pa.RecordBatch]:
        return [batch async for batch in await reader.read_stream_projected(None, 3, None, [name])]

    async def tasks(name: str) -> list[pa.RecordBatch]:
        return [await task async for task in await reader.read_tasks(None, 3, [name])]

    for name in expected.column_names:
        for read in (stream, tasks):
            batches = drive(read(name))
            assert all(batch.num_rows == 3 for batch in batches[:-1])
            if batches:
                found = pa.chunked_array([batch.column(0) for batch in batches])
                assert_same(found, expected[name], name)


@pytest.mark.golden
def test_readers_of_later_formats_refuse() -> None:
    path = GOLDEN / "legacy" / "c20_bare_flat.lance"
    with pytest.raises(UnsupportedError, match=r"2\.0"):
        drive(FileReader.open(LocalStore(path.parent), path.name))


@pytest.mark.golden
def test_metadata_is_read_once_per_session() -> None:
    from pilum.file import Session

    path = GOLDEN / "legacy" / "f20_multipage_dict.lance"
    cache = Session().cache
    store = LocalStore(path.parent)
    first = drive(open_file(store, path.name, cache=cache))
    before = store.stats.snapshot()
    second = drive(open_file(store, path.name, cache=cache))
    assert store.stats.snapshot() == before
    assert second.num_rows == first.num_rows


# --------------------------------------------------------------------------- random data


def has(kind: Any, what: Any) -> bool:
    """Whether a type is, or contains, something."""
    if what(kind):
        return True
    return any(has(kind.field(i).type, what) for i in range(kind.num_fields))


def has_only_strings(kind: Any) -> bool:
    """Whether all leaves of the type are strings or binary."""
    if pa.types.is_fixed_size_list(kind) or not kind.num_fields:
        return bool(
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
        )
    return all(has_only_strings(kind.field(i).type) for i in range(kind.num_fields))


def storable(kind: Any) -> bool:
    return not has(kind, pa.types.is_map)


def without_struct_nulls(array: Any) -> Any:
    """The array with every struct valid, which is all that 2.0 can store."""
    kind = array.type
    if pa.types.is_struct(kind):
        members = [without_struct_nulls(array.field(i)) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(members, fields=list(kind))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        array = array.take(pa.array(np.arange(len(array))))
        maker = pa.ListArray if pa.types.is_list(kind) else pa.LargeListArray
        mask = array.is_null() if array.null_count else None
        return maker.from_arrays(array.offsets, without_struct_nulls(array.values), type=kind, mask=mask)
    return array


KINDS = st.one_of(
    types(2, lists=True).filter(storable),
    st.just(pa.null()),
    st.sampled_from([pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int16(), pa.int64())]),
)


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 1500, fixed_nulls: bool = True) -> list[pa.RecordBatch]:
    kinds = draw(st.lists(KINDS, min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.sampled_from([0, 1, 2, 7, 100, 1025, max_rows]))
        nulls = draw(st.sampled_from([0.0, 0.1, 1.0]))
        columns = []
        for kind in kinds:
            if pa.types.is_null(kind):
                columns.append(pa.nulls(rows))
            elif pa.types.is_dictionary(kind):
                values = [
                    None if fixed_nulls and rng.random() < nulls else int(k)
                    for k in rng.integers(0, 40, rows)
                ]
                array = pa.array(values, pa.int64()).cast(kind.value_type).dictionary_encode()
                columns.append(array.cast(kind))
            else:
                before = int(rng.integers(0, 3))
                share = nulls if fixed_nulls or has_only_strings(kind) else 0.0
                array = without_struct_nulls(random_array(kind, rows + before, rng, share))
                columns.append(array.slice(before))
        found.append(pa.RecordBatch.from_arrays(columns, names=[f"c{i}" for i in range(len(kinds))]))
    return found


def joined(batches: list[pa.RecordBatch]) -> pa.Table:
    """One table without offsets into longer arrays: Arrow's own take is wrong for such nested fixed-size lists."""
    return without_offsets(pa.Table.from_batches(batches).unify_dictionaries())


def without_offsets(table: pa.Table) -> pa.Table:
    """A copy of the table whose arrays begin at 0."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    options = pa.ipc.IpcReadOptions(ensure_alignment=pa.ipc.Alignment.At64Byte)  # the reference insists on it
    return pa.ipc.open_stream(sink.getvalue(), options=options).read_all()


def decoded(column: Any) -> Any:
    """The column without dictionaries: Arrow cannot join those of the reference, which have null items."""
    if not pa.types.is_dictionary(column.type):
        return column
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)


@pytest.mark.property
@RELAXED
@given(tables(), st.sampled_from([1 << 9, 1 << 13, 8 << 20]), st.integers(0, 1000))
def test_pilum_reads_what_pilum_writes(data: list[Any], page_bytes: int, seed: int) -> None:
    store, path = write_memory(data, version=(2, 0), page_bytes=page_bytes)
    check_selections(drive(open_file(store, path)), joined(data), seed)


@pytest.mark.property
@pytest.mark.interop
@RELAXED
@given(tables(), st.sampled_from([1 << 12, 8 << 20]))
def test_the_reference_reads_what_pilum_writes(data: list[Any], page_bytes: int) -> None:
    lance_file = pytest.importorskip("lance.file")
    expected = joined(data)
    with tempfile.TemporaryDirectory() as folder:
        write_memory(data, version=(2, 0), page_bytes=page_bytes, store=LocalStore(folder), path="f.lance")
        reader = lance_file.LanceFileReader(str(Path(folder) / "f.lance"))
        assert reader.num_rows() == expected.num_rows
        found = reader.read_all().to_table()
        for name in expected.column_names:
            assert_same(decoded(found[name]), expected[name], name)
        if expected.num_rows > 1:
            picked = sorted(random.Random(0).sample(range(expected.num_rows), min(expected.num_rows, 9)))
            taken = reader.take_rows(picked).to_table()
            for name in expected.column_names:
                assert_same(decoded(taken[name]), expected[name].take(picked), name)


@pytest.mark.property
@pytest.mark.interop
@RELAXED
@given(tables(), st.sampled_from([None, 64, 4096]), st.integers(0, 1000))
def test_pilum_reads_what_the_reference_writes(data: list[Any], cache_bytes: int | None, seed: int) -> None:
    lance_file = pytest.importorskip("lance.file")
    expected = joined(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.lance"
        with lance_file.LanceFileWriter(
            str(path), expected.schema, version="2.0", data_cache_bytes=cache_bytes
        ) as writer:
            for batch in data:
                # The reference panics on some slices; it is given whole arrays.
                for copy in without_offsets(pa.Table.from_batches([batch])).to_batches():
                    writer.write_batch(copy)
        check_selections(open_local(path), expected, seed)


# --------------------------------------------------------------------------- writing


def write_local(batch: pa.RecordBatch, folder: Path) -> Path:
    write_memory([batch], version=(2, 0), store=LocalStore(folder), path="f.lance")
    return folder / "f.lance"


@pytest.mark.interop
def test_dictionaries_packed_structs_and_compression(tmp_path: Path) -> None:
    lance_file = pytest.importorskip("lance.file")
    rows = 500
    packed = pa.struct(
        [pa.field("a", pa.int8(), False), pa.field("v", pa.list_(pa.float32(), 2), False), pa.field("d", pa.float64(), False)]
    )  # fmt: skip
    schema = pa.schema(
        [
            pa.field("few", pa.string()),
            pa.field("many", pa.string()),
            pa.field("zstd", pa.binary(), metadata={"lance-encoding:compression": "zstd"}),
            pa.field("lz4", pa.large_string(), metadata={"lance-encoding:compression": "lz4"}),
            pa.field("p", packed, False, metadata={"packed": "true"}),
        ]
    )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2 * rows), pa.float32()), 2)
    columns = [
        pa.array([None if i % 7 == 0 else f"value {i % 20}" for i in range(rows)]),
        pa.array([None if i % 7 == 0 else f"value {i}" for i in range(rows)]),
        pa.array([b"abc" * (i % 9) for i in range(rows)]),
        pa.array([None if i % 3 else "x" * i for i in range(rows)], pa.large_string()),
        pa.StructArray.from_arrays(
            [pa.array(np.arange(rows) % 100, pa.int8()), vectors, pa.array(np.arange(rows) / 3)], fields=list(packed)
        ),
    ]  # fmt: skip
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    path = write_local(batch, tmp_path)
    expected = pa.Table.from_batches([batch])
    found = lance_file.LanceFileReader(str(path)).read_all().to_table()
    for name in schema.names:
        assert_same(found[name], expected[name], name)
    check_selections(open_local(path), expected, 3)
    assert path.stat().st_size < sum(column.nbytes for column in columns)


@pytest.mark.interop
@pytest.mark.parametrize("rows", [200, 20_000])
@pytest.mark.parametrize("scheme", ["fsst", "zstd", "lz4", None])
def test_sizes_are_those_of_the_reference(rows: int, scheme: str | None, tmp_path: Path) -> None:
    lance_file = pytest.importorskip("lance.file")
    metadata = None if scheme is None else {"lance-encoding:compression": scheme}
    schema = pa.schema(
        [
            pa.field("s", pa.string(), metadata=metadata),
            pa.field("b", pa.binary(), metadata=metadata),
            pa.field("l", pa.list_(pa.field("item", pa.string(), metadata=metadata))),
            pa.field("i", pa.int32()),
        ]
    )
    rng = random.Random(1)
    words = ["lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit"]
    texts = [None if n % 9 == 0 else " ".join(rng.choices(words, k=6)) + f" {n}" for n in range(rows)]
    lists = [[text] if text else None for text in texts]
    table = pa.table(
        [
            pa.array(texts),
            pa.array(texts).cast(pa.binary()),
            pa.array(lists, schema.field("l").type),
            pa.array(range(rows), pa.int32()),
        ],
        schema=schema,
    )
    path = write_local(table.combine_chunks().to_batches()[0], tmp_path)
    theirs = tmp_path / "theirs.lance"
    with lance_file.LanceFileWriter(str(theirs), schema, version="2.0") as writer:
        writer.write_batch(table)
    assert path.stat().st_size <= 1.05 * theirs.stat().st_size
    found = lance_file.LanceFileReader(str(path)).read_all().to_table()
    for name in schema.names:
        assert_same(found[name], table[name], name)
    check_selections(open_local(path), table, 5)
    check_selections(open_local(theirs), table, 6)


@pytest.mark.interop
def test_blobs(tmp_path: Path) -> None:
    lance_file = pytest.importorskip("lance.file")
    schema = pa.schema([pa.field("b", pa.large_binary(), metadata={"lance-encoding:blob": "true"})])
    values = [b"abc", None, b"", b"x" * 1000, b"end"]
    batch = pa.RecordBatch.from_arrays([pa.array(values, pa.large_binary())], schema=schema)
    path = write_local(batch, tmp_path)
    reader = open_local(path)
    assert drive(reader.read_batch()).column(0).to_pylist() == values
    assert drive(reader.read_batch([1, 3])).column(0).to_pylist() == [None, values[3]]
    assert lance_file.LanceFileReader(str(path)).read_all().to_table()["b"].to_pylist() == values


def test_what_the_format_cannot_hold() -> None:
    nulls = pa.array([{"a": 1}, None], pa.struct([("a", pa.int32())]))
    with pytest.raises(InvalidInputError, match="nulls of structs"):
        write_memory([pa.record_batch({"s": nulls})], version=(2, 0))
    with pytest.raises(UnsupportedError, match="map"):
        write_memory([pa.record_batch({"m": pa.array([], pa.map_(pa.string(), pa.int8()))})], version=(2, 0))
    full = pa.DictionaryArray.from_arrays(
        pa.array([*range(128), None], pa.int8()), pa.array([str(i) for i in range(128)])
    )
    with pytest.raises(InvalidInputError, match="wider index"):
        write_memory([pa.record_batch({"d": full})], version=(2, 0))


def test_a_list_of_nothing_but_empty_lists() -> None:
    batch = pa.record_batch({"l": pa.array([[], None, []], pa.list_(pa.struct([("x", pa.string())])))})
    store, path = write_memory([batch], version=(2, 0))
    assert drive(drive(open_file(store, path)).read_batch()).column(0).to_pylist() == [[], None, []]


def test_ranges_of_strings_need_two_rounds_and_whole_pages_one() -> None:
    batch = pa.record_batch({"s": [f"some longer text {i}" for i in range(10_000)]})
    store, path = write_memory([batch], version=(2, 0))
    reader = drive(open_file(store, path))
    resolved = drive(reader.initialise())
    plan = reader.schedule(resolved, range(10_000))
    assert len(plan.reads[0].ranges) == 2
    assert len(reader.schedule(resolved, range(10, 9000)).reads[0].ranges) == 1


def test_projection_and_errors() -> None:
    batch = pa.record_batch({"a": [1, 2, 3], "s": pa.array([{"x": 1, "y": "a"}] * 3)})
    store, path = write_memory([batch], version=(2, 0))
    reader = drive(open_file(store, path))
    assert drive(reader.read_batch(projection=["s.y"])).to_pylist() == [{"s": {"y": "a"}}] * 3
    with pytest.raises(InvalidInputError, match="no column"):
        drive(reader.read_batch(projection=["b"]))
    with pytest.raises(InvalidInputError, match="out of range"):
        drive(reader.read_batch([3]))
    other = Schema.from_arrow(pa.schema([("z", pa.int8())]), first_id=50)
    with pytest.raises(InvalidInputError, match="holds no column"):
        drive(reader.read_batch(projection=other))
    decoded = drive(reader.read_decoded(0, 2))
    assert [leaf[0].num_rows for leaf in decoded] == [2, 2, 2]


# --------------------------------------------------------------------------- damage


def whole(batch: pa.RecordBatch) -> None:
    """The batch is safe to use; values may be wrong, their bytes carry no checksum."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        domains = ("does not fit in precision", "acceptable range", "whole number of days")
        if not any(text in str(error) for text in domains):
            raise


@pytest.mark.golden
@pytest.mark.fault
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_mutated_golden_files(path: Path) -> None:
    data, expected = path.read_bytes(), expected_table(path.with_suffix(".arrow"))
    rng = random.Random(path.stem)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(3 * MUTATIONS):
        started = time.process_time()
        store = put(mutate(data, rng))
        try:
            reader = drive(open_file(store, "f"))
            rows = reader.num_rows
            batches = [drive(reader.read_batch()) if rows < 1 << 20 else drive(reader.read_batch(range(10)))]
            if rows:
                batches.append(drive(reader.read_batch([0, rows - 1] if rows > 1 else [0])))
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
    if path.read_bytes()[-8:-4] in (b"\x00\x00\x03\x00", b"\x02\x00\x00\x00")
]


@pytest.mark.golden
@pytest.mark.fault
@pytest.mark.parametrize("path", INSIDE, ids=lambda path: f"{path.parent.parent.stem}-{path.stem[:6]}")
def test_mutated_data_files_of_tables(path: Path) -> None:
    """Strings of every kind, compression, FSST, blobs, packed structs and old encodings are only found in tables."""
    data = path.read_bytes()
    rng = random.Random(path.stem)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTATIONS):
        started = time.process_time()
        store = put(mutate(data, rng))
        try:
            reader = drive(open_file(store, "f"))
            rows = min(reader.num_rows, 5000)
            batches = [drive(reader.read_batch(range(rows)))]
            if rows > 2:
                batches.append(drive(reader.read_batch([0, rows // 2, rows - 1])))
        except (PilumError, NotImplementedError):
            pass
        else:
            for batch in batches:
                whole(batch)
        assert time.process_time() - started < 5, f"mutation {number} took too long"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 << 10, f"{grown >> 10} MiB more memory"


@pytest.mark.fault
def test_every_bit_of_the_metadata() -> None:
    batch = pa.record_batch(
        {
            "i": pa.array([1, None, 3], pa.int32()),
            "s": ["a", "", None],
            "l": pa.array([[1], None, [2, 3]], pa.list_(pa.int16())),
            "d": pa.array(["x", "y", None]).dictionary_encode(),
        }
    )
    store, path = write_memory([batch], version=(2, 0))
    data = bytes(drive(store.get_all(path)))
    reader = drive(FileReader20.open(store, path))
    for at in range(reader.metadata.buffers[0][0], len(data)):
        for bit in (0, 3, 7):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            try:
                opened = drive(open_file(put(bytes(damaged)), "f"))
                found = drive(opened.read_batch(range(min(opened.num_rows, 100))))
            except (PilumError, NotImplementedError):
                continue
            whole(found)


@pytest.mark.fault
def test_the_error_names_file_column_and_page() -> None:
    batch = pa.record_batch({"s": [f"text {i}" for i in range(200)]})
    store, path = write_memory([batch], version=(2, 0))
    data = bytearray(drive(store.get_all(path)))
    data[8:16] = bytes(8)
    with pytest.raises(PilumError) as caught:
        drive(drive(open_file(put(bytes(data)), "f")).read_batch())
    for part in ("decrease", "page 0", "file f", "'s'"):
        assert part in str(caught.value)


def test_stores_in_memory_and_bodies() -> None:
    batch = pa.record_batch({"a": [1, 2, 3]})
    store, path = write_memory([batch], version=(2, 0))
    size = drive(store.head(path)).size
    reader = drive(open_file(store, path, size=size, whole=True))
    assert reader.body is not None
    assert drive(reader.with_body(None).read_batch()).equals(drive(reader.read_batch()))
    assert isinstance(store, MemoryStore)
