"""Every Arrow type that the format stores, both ways with the reference; and what it refuses, before a byte is written."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum.encoding import pages
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.file import FileReader, FileWriter
from pilum.io import LocalStore, MemoryStore
from pilum.proto import encodings_pb2
from pilum.schema import Schema, with_descriptors, with_extensions
from tests.file.files import assert_same, drive, open_local, read_memory, write_memory

PACKED = {"lance-encoding:packed": "true"}
BLOB = {"lance-encoding:blob": "true"}


def dictionary(key: Any, values: Any, indices: list[int | None]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(indices, key), values)


WORDS = pa.array(["a", "bb", None, "dd"])
COLUMNS: dict[str, Any] = {
    "views": pa.array(["a", None, "long enough not to be inline"] * 50, pa.string_view()),
    "binary views": pa.array([b"a", None, b"long enough not to be inline"] * 50, pa.binary_view()),
    "list of views": pa.array([["a", None], [], None], pa.list_(pa.string_view())),
    "decimal256": pa.array([Decimal("1.5"), None, Decimal("-7.25")], pa.decimal256(60, 2)),
    "negative scale": pa.array([100, None], pa.int64()).cast(pa.decimal128(19, 0)),
    "zone": pa.array([1, None, 3], pa.timestamp("us", "America/New_York")),
    "offset zone": pa.array([1, None, 3], pa.timestamp("ns", "+08:00")),
    "uuid": pa.array([b"0" * 16, None], pa.uuid()),
    "bool8": pa.array([1, None, 0], pa.bool8()),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2, 3]), pa.array([[1.0] * 6, [2.0] * 6], pa.list_(pa.float32(), 6))
    ),
    "null": pa.nulls(7),
    "map": pa.array([[("a", 1)], None, [], [("b", None), ("c", 2)]], pa.map_(pa.string(), pa.int32())),
    "fixed-size list of struct": pa.array(
        [[{"x": 1}, None], None, [{"x": None}, {"x": 4}]], pa.list_(pa.struct([("x", pa.int8())]), 2)
    ),
    "no bytes": pa.array([b"", None, b""] * 50, pa.binary(0)),
    "lists of no bytes": pa.array([[b"", None], None, [], [b""]], pa.list_(pa.binary(0))),
    "structs of no bytes": pa.array([{"x": b""}, None, {"x": None}], pa.struct({"x": pa.binary(0)})),
    "item name": pa.array([[1, 2]] * 3, pa.list_(pa.field("element", pa.int16(), False), 2)),
    "dictionary": dictionary(pa.int8(), WORDS, [0, 2, None, 1, 0]),
    "dictionary of nulls": dictionary(pa.int16(), pa.array([None], pa.string()), [0, None]),
    "unsigned keys": dictionary(pa.uint64(), WORDS, [3, 2, 1, 0]),
    "dictionary of numbers": dictionary(pa.int32(), pa.array([7, 9], pa.int64()), [0, 1, None]),
    "dictionary of booleans": dictionary(pa.int8(), pa.array([True, False]), [0, 1, None]),
    "dictionary of large binary": dictionary(pa.int8(), pa.array([b"x", b"y"], pa.large_binary()), [1, 0, 1]),
    "list of dictionary": pa.ListArray.from_arrays(
        pa.array([0, 2, 2, 3]), dictionary(pa.int8(), WORDS, [0, 1, 2])
    ),
    "struct of dictionary": pa.StructArray.from_arrays(
        [dictionary(pa.int8(), WORDS, [0, 1, 2])], ["d"], mask=pa.array([False, True, False])
    ),
}  # fmt: skip


def batch_of(array: Any, metadata: Any = None) -> pa.RecordBatch:
    field = pa.field("a", array.type, metadata=metadata)
    return pa.RecordBatch.from_arrays([array], schema=pa.schema([field]))


def reference() -> Any:
    return pytest.importorskip("lance.file")


def picked(column: Any, rows: list[int]) -> Any:
    """`take` for types that Arrow does not take from."""
    parts = [column.slice(row, 1).combine_chunks() for row in rows]
    return pa.chunked_array([chunk for part in parts for chunk in getattr(part, "chunks", [part])])


def has_width(kind: Any) -> bool:
    try:
        return bool(kind.bit_width)
    except ValueError:
        return False


def check_both_ways(batch: pa.RecordBatch, folder: Path, version: str) -> None:
    """pilum → pilum, pilum → reference, reference → pilum."""
    lance_file = reference()
    number = (2, int(version[-1]))
    store = LocalStore(str(folder))
    write_memory([batch, batch.slice(1)], version=number, store=store, path="ours.lance")
    both = pa.Table.from_batches([batch, batch.slice(1)]).column(0)
    found = read_memory(store, "ours.lance")
    values = batch.column(0)
    if "view" in str(both.type):
        both, values = both.cast(found.column(0).type), values.cast(found.column(0).type)
    assert_same(found.column(0), both)
    taken = read_memory(store, "ours.lance", [0, len(both) - 1])
    assert_same(taken.column(0), picked(both, [0, len(both) - 1]))
    theirs = lance_file.LanceFileReader(str(folder / "ours.lance")).read_all().to_table()
    assert_same(theirs.column(0), both)
    with lance_file.LanceFileWriter(str(folder / "theirs.lance"), batch.schema, version=version) as writer:
        writer.write_batch(batch)
    assert_same(drive(open_local(folder / "theirs.lance").read_batch()).column(0), values)
    assert open_local(folder / "theirs.lance").schema == open_local(folder / "ours.lance").schema


@pytest.mark.interop
@pytest.mark.parametrize("version", ["2.1", "2.2"])
@pytest.mark.parametrize("name", COLUMNS)
def test_types_both_ways(name: str, version: str, tmp_path: Path) -> None:
    array = COLUMNS[name]
    late = name == "fixed-size list of struct" or name.endswith("no bytes")
    if version == "2.1" and (pa.types.is_map(array.type) or late):
        pytest.skip("since 2.2")
    check_both_ways(batch_of(array), tmp_path, version)


@pytest.mark.interop
@pytest.mark.parametrize("version", ["2.1", "2.2"])
@pytest.mark.parametrize(
    "array",
    [
        pa.array([{"a": 1, "b": 2.5}, None, {"a": 3, "b": 4.5}]),
        pa.StructArray.from_arrays(
            [
                pa.array([1, 2], pa.timestamp("us", "UTC")),
                pa.array([Decimal(1), Decimal(2)], pa.decimal256(40, 2)),
                pa.array([b"abc", b"def"], pa.binary(3)),
            ],
            ["a", "b", "c"],
        ),
        pa.array([[{"a": 1}, None], None, [], [{"a": 5}]], pa.list_(pa.field("item", pa.struct([("a", pa.int8())])))),
        pa.array([{"a": 1, "b": "x"}, None, {"a": 3, "b": ""}] * 700),
        pa.array([{"a": "s" * 400, "b": b"x"}, {"a": "", "b": b"yy"}], pa.struct([("a", pa.large_string()), ("b", pa.binary())])),
        pa.StructArray.from_arrays(
            [pa.array([[1, None], [2, 3]], pa.list_(pa.int16(), 2)), pa.array([[True] * 8] * 2, pa.list_(pa.bool_(), 8))],
            ["v", "f"],
        ),
    ],
    ids=lambda array: str(array.type)[:40],
)  # fmt: skip
def test_packed_structs_both_ways(array: Any, version: str, tmp_path: Path) -> None:
    kind = array.type
    if pa.types.is_list(kind):
        kind = pa.list_(pa.field("item", kind.value_type, metadata=PACKED))
        array = pa.ListArray.from_arrays(array.offsets, array.values, type=kind, mask=array.is_null())
        batch = batch_of(array)
    else:
        batch = batch_of(array, PACKED)
    member = batch.schema.field(0).type
    struct = member.value_type if pa.types.is_list(member) else member
    variable = any(pa.types.is_fixed_size_list(f.type) or not has_width(f.type) for f in struct)
    if version == "2.1" and variable:
        with pytest.raises(UnsupportedError, match=r"2\.2"):
            write_memory([batch], version=(2, 1))
        return
    check_both_ways(batch, tmp_path, version)


def test_members_of_packed_structs_have_no_nulls() -> None:
    with pytest.raises(InvalidInputError, match="'a' of a packed struct has nulls"):
        write_memory([batch_of(pa.array([{"a": 1}, {"a": None}]), PACKED)])
    # below a null struct they do not matter
    array = pa.StructArray.from_arrays([pa.array([1, None])], ["a"], mask=pa.array([False, True]))
    assert array.field(0).null_count
    found = read_memory(*write_memory([batch_of(array, PACKED)]))
    assert found.column(0).to_pylist() == [{"a": 1}, None]


def test_a_member_of_a_packed_struct_brings_the_whole_struct() -> None:
    store, path = write_memory([batch_of(pa.array([{"a": 1, "b": 2}]), PACKED)])
    assert read_memory(store, path, None, ["a.b"]).column(0).to_pylist() == [{"a": 1, "b": 2}]


# --------------------------------------------------------------------------- blobs


BLOBS = pa.array([b"abc", None, b"", b"x" * 100_000, b"y", None], pa.large_binary())


@pytest.mark.interop
@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_blobs_both_ways(version: str, tmp_path: Path) -> None:
    check_both_ways(batch_of(BLOBS, BLOB), tmp_path, version)
    check_both_ways(batch_of(BLOBS.drop_null(), BLOB), tmp_path, version)
    check_both_ways(batch_of(pa.nulls(3, pa.large_binary()), BLOB), tmp_path, version)
    kind = pa.struct([pa.field("b", pa.large_binary(), metadata=BLOB), pa.field("i", pa.int32())])
    nested = pa.array([{"b": b"q", "i": 1}, None, {"b": None, "i": 3}, {"b": b"", "i": 4}], kind)
    check_both_ways(batch_of(nested), tmp_path, version)


def test_blobs_in_small_pages_and_takes() -> None:
    batches = [batch_of(part, BLOB) for part in (BLOBS, BLOBS.drop_null(), BLOBS)]
    store, path = write_memory(batches, page_bytes=32)
    expected = pa.Table.from_batches(batches).column(0)
    assert_same(read_memory(store, path).column(0), expected)
    for picked in ([0, 5, 9, 15], [1], [3, 4], range(4, 11)):
        rows = list(picked)
        assert_same(read_memory(store, path, picked).column(0), expected.take(rows))


def test_blobs_are_aligned_and_read_as_descriptors() -> None:
    store, path = write_memory([batch_of(BLOBS, BLOB)])
    data = bytes(drive(store.get_all(path)))

    async def descriptors() -> Any:
        reader = await FileReader.open(store, path)
        values = await reader.read_batch()
        found = await reader.read_batch(None, with_descriptors(reader.schema))
        assert values.equals(await reader.read_batch())
        return found.column(0)

    found = drive(descriptors())
    assert found.type == pa.struct([("position", pa.uint64()), ("size", pa.uint64())])
    for place, value in zip(found.to_pylist(), BLOBS.to_pylist(), strict=True):
        if value is None:
            assert place is None
        else:
            assert place["size"] == len(value)
            assert place["position"] % 64 == 0
            assert data[place["position"] : place["position"] + len(value)] == value


def test_taking_blobs_reads_only_them() -> None:
    from pilum.io import trace

    large = pa.array([bytes([i]) * 500_000 for i in range(20)], pa.large_binary())
    store, path = write_memory([batch_of(large, BLOB)])

    async def take() -> int:
        reader = await FileReader.open(store, path)
        await reader.initialise()
        with trace() as log:
            await reader.read_batch([3, 11])
        assert len(log.requests) <= 3
        return sum(request.end - request.start for request in log.requests)

    assert drive(take()) < 1_010_000


@pytest.mark.golden
def test_the_descriptors_of_a_blob_v2_column() -> None:
    from tests.support import GOLDEN, expected_table

    (path,) = (GOLDEN / "structure" / "blob_v2_2_2" / "data").glob("*.lance")
    expected = expected_table(GOLDEN / "structure" / "blob_v2_2_2.arrow")
    found = drive(open_local(path).read_batch())
    blob = next(c for c in found.columns if pa.types.is_struct(c.type))
    assert_same(blob, expected["descriptor"])


# --------------------------------------------------------------------------- dictionaries


def layouts(store: Any, path: str) -> list[Any]:
    """The page layouts of the first column."""
    from pilum.file.container import parse_column

    async def load() -> Any:
        return (await FileReader.open(store, path)).metadata.container

    container = drive(load())
    return [source.layout for source in parse_column(container.column_bytes(0), container.footer.size)]


def test_a_dictionary_column_keeps_its_dictionary() -> None:
    array = dictionary(pa.int8(), WORDS, [0, 2, None, 1, 0, 3])
    store, path = write_memory([batch_of(array)])
    (layout,) = layouts(store, path)
    mini = layout.mini_block_layout
    assert mini.num_dictionary_items == 3  # without the null
    assert mini.value_compression.flat.bits_per_value == 8
    found = read_memory(store, path).column(0)
    assert found.type == array.type
    assert found.dictionary.to_pylist() == ["a", "bb", "dd"]
    assert found.to_pylist() == array.to_pylist()


def test_batches_with_dictionaries_of_their_own() -> None:
    first = dictionary(pa.int8(), pa.array(["a", "b"]), [0, 1, 1])
    second = dictionary(pa.int8(), pa.array(["b", "c"]), [0, 1, None])
    store, path = write_memory([batch_of(part) for part in (first, first, second)])
    (layout,) = layouts(store, path)
    assert layout.mini_block_layout.num_dictionary_items == 3
    assert read_memory(store, path).column(0).to_pylist() == ["a", "b", "b"] * 2 + ["b", "c", None]


def test_more_entries_than_keys_begin_a_new_page() -> None:
    parts = [
        dictionary(pa.int8(), pa.array([f"{n}-{i}" for i in range(100)]), list(range(100))) for n in range(3)
    ]
    store, path = write_memory([batch_of(part) for part in parts])
    assert len(layouts(store, path)) == 3
    expected = pa.concat_arrays([part.dictionary_decode() for part in parts])
    for n in range(3):
        found = read_memory(store, path, range(100 * n, 100 * n + 100)).column(0)
        assert_same(found, expected.slice(100 * n, 100))


def test_unused_entries_of_a_slice_are_dropped() -> None:
    array = dictionary(pa.int32(), pa.array([str(i) for i in range(10_000)]), list(range(10_000))).slice(
        5000, 10
    )
    (layout,) = layouts(*write_memory([batch_of(array)]))
    assert layout.mini_block_layout.num_dictionary_items == 10


@pytest.mark.parametrize(
    ("values", "version", "expected"),
    [
        (["one value", "another one"] * 49 + ["x"], (2, 2), False),  # 99
        (["one value", "another one"] * 50, (2, 2), True),
        ([f"{i % 100:060}" for i in range(200)], (2, 2), True),
        ([f"{i % 101:060}" for i in range(200)], (2, 2), False),
        (["a", "b"] * 100, (2, 2), False),
        (["ab", "cd"] * 100, (2, 2), True),
        ([1 << 40, 1 << 50] * 200, (2, 1), False),
        ([1 << 40, 1 << 50] * 200, (2, 2), True),
        ([Decimal(1), Decimal(2)] * 200, (2, 1), True),
        ([1, 2] * 200, (2, 2), True),
    ],
    ids=str,
)  # fmt: skip
def test_plain_columns_get_a_dictionary_when_it_pays(
    values: list[Any], version: tuple[int, int], expected: bool
) -> None:
    batch = batch_of(pa.array(values))
    store, path = write_memory([batch], version=version)
    (layout,) = layouts(store, path)
    assert layout.mini_block_layout.HasField("dictionary") == expected
    assert_same(read_memory(store, path).column(0), batch.column(0))


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, "general"),
        ({"lance-encoding:dict-values-compression": "none"}, "variable"),
        ({"lance-encoding:dict-values-compression": "zstd"}, "general"),
        ({"lance-encoding:dict-divisor": "1000000"}, None),
        ({"lance-encoding:dict-size-ratio": "0.1"}, None),
    ],
    ids=str,
)
def test_dictionary_options(metadata: dict[str, str], expected: str | None) -> None:
    store, path = write_memory([batch_of(pa.array(["one value", "another one"] * 100), metadata)])
    mini = layouts(store, path)[0].mini_block_layout
    assert mini.dictionary.WhichOneof("compression") == expected


def test_dictionary_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(pa.array(["one value", "another one"] * 100))
    for name, value in [
        ("TOO_SMALL", "201"),
        ("DIVISOR", "1000"),
        ("MAX_CARDINALITY", "1"),
        ("SIZE_RATIO", "0.1"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(f"LANCE_ENCODING_DICT_{name}", value)
            assert not layouts(*write_memory([batch]))[0].mini_block_layout.HasField("dictionary")
    monkeypatch.setenv("LANCE_ENCODING_DICT_VALUES_COMPRESSION", "none")
    assert (
        layouts(*write_memory([batch]))[0].mini_block_layout.dictionary.WhichOneof("compression")
        == "variable"
    )


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("kind", "metadata", "version", "error", "message"),
    [
        (pa.run_end_encoded(pa.int32(), pa.int64()), None, (2, 2), InvalidInputError, "cannot be stored"),
        (pa.month_day_nano_interval(), None, (2, 2), InvalidInputError, "cannot be stored"),
        (pa.dense_union([pa.field("a", pa.int8())]), None, (2, 2), InvalidInputError, "cannot be stored"),
        (pa.decimal32(5, 2), None, (2, 2), InvalidInputError, "cannot be stored"),
        (pa.list_view(pa.int8()), None, (2, 2), InvalidInputError, "cannot be stored"),
        (pa.list_(pa.string(), 3), None, (2, 2), InvalidInputError, "fixed width"),
        (pa.map_(pa.string(), pa.int8(), True), None, (2, 2), InvalidInputError, "sorted"),
        (pa.list_(pa.struct([("a", pa.int8())]), 2), None, (2, 1), UnsupportedError, r"2\.2"),
        (pa.list_(pa.list_(pa.struct([("a", pa.int8())]), 2)), None, (2, 2), UnsupportedError, "nested"),
        (pa.list_(pa.struct([("a", pa.list_(pa.int8()))]), 2), None, (2, 2), UnsupportedError, "nested"),
        (pa.binary(), BLOB, (2, 2), InvalidInputError, "large_binary"),
        (pa.list_(pa.field("item", pa.large_binary(), metadata=BLOB)), None, (2, 2), UnsupportedError, "lists"),
        (pa.struct([("a", pa.bool_())]), PACKED, (2, 2), UnsupportedError, "boolean"),
        (pa.struct([("a", pa.struct([("b", pa.int8())]))]), PACKED, (2, 2), UnsupportedError, "packed"),
        (pa.struct([("a", pa.list_(pa.int8()))]), PACKED, (2, 2), UnsupportedError, "packed"),
        (pa.binary(0), None, (2, 0), UnsupportedError, r"2\.2"),
        (pa.list_(pa.struct([("a", pa.binary(0))])), None, (2, 1), UnsupportedError, r"2\.2"),
        (pa.list_(pa.binary(0), 3), None, (2, 2), UnsupportedError, "no bytes"),
        (pa.list_(pa.list_(pa.binary(0), 2), 3), None, (2, 2), UnsupportedError, "no bytes"),
        (pa.struct([("a", pa.int8()), ("b", pa.binary(0))]), PACKED, (2, 2), UnsupportedError, "no bytes"),
        (pa.int32(), None, (2, 3), UnsupportedError, r"2\.3"),
        (pa.int32(), {"lance-encoding:dict-size-ratio": "2"}, (2, 2), InvalidInputError, "ratio"),
    ],
    ids=str,
)  # fmt: skip
def test_refused_before_a_byte_is_written(
    kind: Any, metadata: Any, version: tuple[int, int], error: type[Exception], message: str
) -> None:
    store = MemoryStore()

    async def create() -> None:
        schema = Schema.from_arrow(pa.schema([pa.field("a", kind, metadata=metadata)]))
        await FileWriter.create(store, "f", schema, version=version)

    with pytest.raises(error, match=message):
        drive(create())
    with pytest.raises(FileNotFoundError):
        drive(store.head("f"))


def test_extension_types_come_back() -> None:
    for name in ("uuid", "bool8", "tensor"):
        store, path = write_memory([batch_of(COLUMNS[name])])
        found = read_memory(store, path)
        assert with_extensions(found.schema).field(0).type == COLUMNS[name].type


def test_bfloat16_lists() -> None:
    item = pa.field("item", pa.binary(2), metadata={"ARROW:extension:name": "lance.bfloat16"})
    data = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2), 8, [None, pa.py_buffer(np.arange(8, dtype=np.uint16))]
    )
    array = pa.FixedSizeListArray.from_arrays(data, type=pa.list_(item, 4))
    store, path = write_memory([batch_of(array)])
    found = read_memory(store, path).column(0)
    assert found.type.value_field.metadata[b"ARROW:extension:name"] == b"lance.bfloat16"
    assert found.to_pylist() == array.to_pylist()


def test_field_and_schema_metadata_are_kept() -> None:
    schema = pa.schema([pa.field("a", pa.int8(), metadata={"k": "v"})], metadata={"s": "t"})
    store, path = write_memory([pa.RecordBatch.from_arrays([pa.array([1], pa.int8())], schema=schema)])
    assert read_memory(store, path).schema.equals(schema, check_metadata=True)


def test_layouts_are_all_reachable() -> None:
    names = {field.name for field in encodings_pb2.PageLayout.DESCRIPTOR.fields}
    assert {"mini_block_layout", "full_zip_layout", "constant_layout", "blob_layout"} <= names & set(
        pages.LAYOUTS
    )
