"""Fields, logical types and column numbering: golden schemas, both ways, and what is refused."""

from __future__ import annotations

import pickle
import struct
import time
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.proto import file_pb2, table_pb2
from pilum.schema import (
    Field,
    Schema,
    arrow_type_of,
    column_indices,
    logical_type_of,
    parse_file_descriptor,
    with_extensions,
)
from tests.support import GOLDEN, expected_table, golden_files

# file-container-and-structure.md section 3.2
TABLE: list[tuple[str, Any]] = [
    ("null", pa.null()),
    ("bool", pa.bool_()),
    ("int8", pa.int8()),
    ("int16", pa.int16()),
    ("int32", pa.int32()),
    ("int64", pa.int64()),
    ("uint8", pa.uint8()),
    ("uint16", pa.uint16()),
    ("uint32", pa.uint32()),
    ("uint64", pa.uint64()),
    ("halffloat", pa.float16()),
    ("float", pa.float32()),
    ("double", pa.float64()),
    ("string", pa.string()),
    ("large_string", pa.large_string()),
    ("binary", pa.binary()),
    ("large_binary", pa.large_binary()),
    ("fixed_size_binary:7", pa.binary(7)),
    ("date32:day", pa.date32()),
    ("date64:ms", pa.date64()),
    ("time32:s", pa.time32("s")),
    ("time32:ms", pa.time32("ms")),
    ("time64:us", pa.time64("us")),
    ("time64:ns", pa.time64("ns")),
    ("duration:s", pa.duration("s")),
    ("duration:ms", pa.duration("ms")),
    ("duration:us", pa.duration("us")),
    ("duration:ns", pa.duration("ns")),
    ("timestamp:s:-", pa.timestamp("s")),
    ("timestamp:ms:UTC", pa.timestamp("ms", "UTC")),
    ("timestamp:us:America/New_York", pa.timestamp("us", "America/New_York")),
    ("timestamp:ns:+08:00", pa.timestamp("ns", "+08:00")),
    ("decimal:128:10:2", pa.decimal128(10, 2)),
    ("decimal:128:5:-3", pa.decimal128(5, -3)),
    ("decimal:256:60:10", pa.decimal256(60, 10)),
    ("fixed_size_list:float:128", pa.list_(pa.float32(), 128)),
    ("fixed_size_list:bool:3", pa.list_(pa.bool_(), 3)),
    ("fixed_size_list:timestamp:ns:+08:00:2", pa.list_(pa.timestamp("ns", "+08:00"), 2)),
    ("fixed_size_list:fixed_size_list:int8:2:3", pa.list_(pa.list_(pa.int8(), 2), 3)),
    ("dict:string:int32:false", pa.dictionary(pa.int32(), pa.string())),
    ("dict:large_binary:uint8:false", pa.dictionary(pa.uint8(), pa.large_binary())),
]


@pytest.mark.parametrize(("logical", "arrow"), TABLE, ids=lambda value: str(value))
def test_table_both_ways(logical: str, arrow: Any) -> None:
    assert arrow_type_of(logical) == arrow
    assert logical_type_of(arrow) == logical


def test_read_only_spellings_and_views() -> None:
    assert arrow_type_of("json") == pa.large_binary()
    assert arrow_type_of("blob") == pa.large_binary()
    assert logical_type_of(pa.large_binary()) == "large_binary"
    assert logical_type_of(pa.string_view()) == "string"
    assert logical_type_of(pa.binary_view()) == "binary"
    # The parameters of a dictionary are parsed from the right.
    assert arrow_type_of("dict:timestamp:us:-:int32:false") == pa.dictionary(pa.int32(), pa.timestamp("us"))


@pytest.mark.parametrize(
    "logical",
    [
        "",
        "int128",
        "timestamp",
        "timestamp:us",
        "timestamp:fortnight:-",
        "decimal:64:3:1",
        "decimal:128:99:1",
        "decimal:128:ten:1",
        "fixed_size_binary:-1",
        "fixed_size_binary:x",
        "fixed_size_list:float",
        "fixed_size_list:float:0",
        "fixed_size_list:float:99999999999",
        "fixed_size_list:nothing:2",
        "dict:string",
        "list",
        "map",
        "fixed_size_list:struct:2",
        "union",
    ],
)
def test_unknown_strings(logical: str) -> None:
    with pytest.raises(UnsupportedError):
        arrow_type_of(logical)


@pytest.mark.parametrize(
    "arrow",
    [
        pa.month_day_nano_interval(),
        pa.list_view(pa.int8()),
        pa.run_end_encoded(pa.int32(), pa.int8()),
        pa.dense_union([pa.field("a", pa.int8())]),
        pa.decimal32(5, 1),
        pa.decimal64(5, 1),
        pa.map_(pa.string(), pa.int8(), keys_sorted=True),
        pa.list_(pa.int8(), 0),
        pa.list_(pa.string(), 2),
        pa.list_(pa.list_(pa.int8()), 2),
        pa.list_(pa.list_(pa.struct([("a", pa.int8())]), 2), 2),
        pa.dictionary(pa.int32(), pa.timestamp("us")),
    ],
    ids=str,
)
def test_types_that_cannot_be_stored(arrow: Any) -> None:
    schema = pa.schema([pa.field("outer", pa.struct([pa.field("inner", arrow)]))])
    with pytest.raises(InvalidInputError, match="inner"):
        Schema.from_arrow(schema)


NESTED = pa.schema(
    [
        pa.field("a", pa.int32(), nullable=False, metadata={"k": "v"}),
        pa.field(
            "s",
            pa.struct(
                [
                    pa.field("x", pa.int64()),
                    pa.field(
                        "y", pa.list_(pa.field("element", pa.string(), nullable=False, metadata={"m": "1"}))
                    ),
                ]
            ),
        ),
        pa.field("ls", pa.large_list(pa.struct([("p", pa.int8()), ("q", pa.float64())]))),
        pa.field("m", pa.map_(pa.string(), pa.list_(pa.int16()))),
        pa.field("fs", pa.list_(pa.field("item", pa.struct([("u", pa.int8()), ("v", pa.int8())])), 4)),
        pa.field("none", pa.struct([])),
        pa.field("packed", pa.struct([("f", pa.int8()), ("g", pa.int8())]), metadata={"packed": "TRUE"}),
        pa.field("blob", pa.large_binary(), metadata={"lance-encoding:blob": "true"}),
        pa.field("v", pa.list_(pa.float32(), 8)),
    ],
    metadata={"top": "meta"},
)


def flat(schema: Schema) -> list[tuple[int, int, str, str]]:
    return [(f.id, f.parent_id, f.name, f.logical_type) for f in schema.walk()]


def test_pre_order_ids_and_logical_types() -> None:
    schema = Schema.from_arrow(NESTED)
    assert flat(schema) == [
        (0, -1, "a", "int32"),
        (1, -1, "s", "struct"),
        (2, 1, "x", "int64"),
        (3, 1, "y", "list"),
        (4, 3, "element", "string"),
        (5, -1, "ls", "large_list.struct"),
        (6, 5, "item", "struct"),
        (7, 6, "p", "int8"),
        (8, 6, "q", "double"),
        (9, -1, "m", "map"),
        (10, 9, "entries", "struct"),
        (11, 10, "key", "string"),
        (12, 10, "value", "list"),
        (13, 12, "item", "int16"),
        (14, -1, "fs", "fixed_size_list:struct:4"),
        (15, 14, "item", "struct"),
        (16, 15, "u", "int8"),
        (17, 15, "v", "int8"),
        (18, -1, "none", "struct"),
        (19, -1, "packed", "struct"),
        (20, 19, "f", "int8"),
        (21, 19, "g", "int8"),
        (22, -1, "blob", "large_binary"),
        (23, -1, "v", "fixed_size_list:float:8"),
    ]
    assert schema.to_arrow().equals(NESTED, check_metadata=True)
    assert schema.max_field_id == 23
    assert Schema.from_arrow(NESTED, first_id=100).max_field_id == 123
    assert Schema.from_arrow(pa.schema([])).max_field_id == -1


def test_columns_of_both_numberings() -> None:
    schema = Schema.from_arrow(NESTED)
    leaves = {0: 0, 2: 1, 4: 2, 7: 3, 8: 4, 11: 5, 13: 6, 16: 7, 17: 8, 18: 9, 19: 10, 22: 11, 23: 12}
    assert column_indices(schema, (2, 2)) == leaves
    assert column_indices(schema, (2, 1)) == leaves
    assert [leaf.id for leaf in schema.leaves()] == list(leaves)
    plain = schema.project(["a", "s", "ls", "none", "packed", "blob", "v"])
    expected = {field: column for column, field in enumerate([0, 1, 2, 3, 4, 5, 6, 7, 8, 18, 19, 22, 23])}
    assert column_indices(plain, (2, 0)) == column_indices(plain, (0, 3)) == expected
    for unsupported in ("m", "fs"):
        with pytest.raises(UnsupportedError, match=r"2\.0"):
            column_indices(schema.project([unsupported]), (2, 0))
    with pytest.raises(UnsupportedError):
        column_indices(schema, (0, 2))


def test_proto_round_trip_and_interning() -> None:
    schema = Schema.from_arrow(NESTED)
    again = Schema.from_proto(schema.to_proto(), schema.metadata)
    assert again == schema
    data = schema.to_proto_message().SerializeToString(deterministic=True)
    assert Schema.from_proto_bytes(data) == schema
    assert Schema.from_proto_bytes(bytes(bytearray(data))) is Schema.from_proto_bytes(data)
    descriptors = [
        file_pb2.FileDescriptor(schema=schema.to_proto_message(), length=length).SerializeToString()
        for length in (5, 6)
    ]
    (one, five), (two, six) = (parse_file_descriptor(descriptor) for descriptor in descriptors)
    assert (one, five, six) == (schema, 5, 6)
    assert one is two


def test_encoding_hints_and_dictionary_message() -> None:
    schema = Schema.from_arrow(
        pa.schema(
            [
                ("i", pa.int8()),
                ("s", pa.string()),
                ("d", pa.dictionary(pa.int8(), pa.string())),
                ("t", pa.struct([("l", pa.list_(pa.int8()))])),
                ("n", pa.null()),
            ]
        )
    )
    messages = {message.name: message for message in schema.to_proto()}
    kinds = file_pb2.Field
    assert [messages[name].encoding for name in "isdtln"] == [
        kinds.PLAIN,
        kinds.VAR_BINARY,
        kinds.DICTIONARY,
        kinds.NONE,
        kinds.PLAIN,
        kinds.NONE,
    ]
    assert messages["d"].HasField("dictionary")
    assert not messages["i"].HasField("dictionary")


def test_primary_key_is_stored_twice() -> None:
    keys = {"lance-schema:unenforced-primary-key": "Yes", "lance-schema:unenforced-primary-key:position": "2"}
    schema = Schema.from_arrow(pa.schema([pa.field("id", pa.int64(), False, keys)]))
    (message,) = schema.to_proto()
    assert message.unenforced_primary_key
    assert message.unenforced_primary_key_position == 2
    message.metadata.clear()
    (field,) = Schema.from_proto([message]).fields
    assert field.metadata == {**keys, "lance-schema:unenforced-primary-key": "true"}
    # The position alone makes a key, too.
    (message,) = Schema.from_arrow(
        pa.schema([pa.field("id", pa.int64(), False, dict([keys.popitem()]))])
    ).to_proto()
    assert message.unenforced_primary_key


@pytest.mark.parametrize(
    ("arrow", "logical", "name", "payload"),
    [
        (pa.uuid(), "fixed_size_binary:16", "arrow.uuid", ""),
        (pa.bool8(), "int8", "arrow.bool8", ""),
        (
            pa.fixed_shape_tensor(pa.float32(), [2, 2]),
            "fixed_size_list:float:4",
            "arrow.fixed_shape_tensor",
            '{"shape":[2,2]}',
        ),
        (pa.json_(), "json", "lance.json", ""),
    ],
    ids=str,
)
def test_extension_types(arrow: Any, logical: str, name: str, payload: str) -> None:
    (field,) = Schema.from_arrow(pa.schema([pa.field("x", arrow, metadata={"own": "1"})])).fields
    assert field.logical_type == logical
    assert field.extension_name == name
    assert field.metadata == {"ARROW:extension:name": name, "ARROW:extension:metadata": payload, "own": "1"}
    (message,) = Schema((field,), {}).to_proto()
    assert message.extension_name == name
    assert Schema.from_proto([message]).fields == (field,)
    message.metadata.clear()
    assert Schema.from_proto([message]).fields[0].extension_name == name
    stored = Schema((field,), {}).to_arrow()
    assert stored.field("x").type == field.arrow_type
    if name.startswith("arrow."):
        assert with_extensions(stored).field("x").type == arrow


def test_bfloat16_lists() -> None:
    item = pa.field("item", pa.binary(2), metadata={"ARROW:extension:name": "lance.bfloat16"})
    (field,) = Schema.from_arrow(pa.schema([pa.field("x", pa.list_(item, 3))])).fields
    assert field.logical_type == "fixed_size_list:lance.bfloat16:3"
    assert field.arrow_type == pa.list_(pa.binary(2), 3)
    assert field.arrow_type.value_field.metadata[b"ARROW:extension:name"] == b"lance.bfloat16"
    assert logical_type_of(field.arrow_type) == field.logical_type


def test_explicit_field_ids() -> None:
    fields = [
        pa.field("a", pa.int8(), metadata={"lance:field_id": "7", "k": "v"}),
        pa.field("b", pa.struct([pa.field("c", pa.int8())])),
    ]
    schema = Schema.from_arrow(pa.schema(fields))
    assert [f.id for f in schema.walk()] == [7, 8, 9]
    assert schema.fields[0].metadata == {"k": "v"}
    twice = [fields[0], fields[0].with_name("b")]
    for bad in (twice, [pa.field("a", pa.int8(), metadata={"lance:field_id": "-2"})]):
        with pytest.raises(InvalidInputError, match="id"):
            Schema.from_arrow(pa.schema(bad))


@pytest.mark.parametrize("names", [["a", "a"], ["a.b"]])
def test_bad_names(names: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="name"):
        Schema.from_arrow(pa.schema([(name, pa.int8()) for name in names]))


def test_metadata_must_be_text() -> None:
    with pytest.raises(InvalidInputError, match="UTF-8"):
        Schema.from_arrow(pa.schema([pa.field("a", pa.int8(), metadata={"k": b"\xff"})]))


def test_paths() -> None:
    odd = pa.struct([pa.field("x.y", pa.int8()), pa.field("t`", pa.int8())])
    schema = Schema.from_arrow(pa.schema([pa.field("a", pa.int8()), pa.field("s", odd)]))
    assert schema.field("a").id == 0
    assert schema.field("s").id == 1
    assert schema.field("s.`x.y`").id == 2
    assert schema.field("`s`.`t```").id == 3
    assert schema.field_by_id(3).name == "t`"
    for bad in ("b", "s.x", "a.b", "", "s.", "s.`x", "`s`x"):
        with pytest.raises(InvalidInputError):
            schema.field(bad)
    with pytest.raises(InvalidInputError):
        schema.field_by_id(99)


def test_projection() -> None:
    schema = Schema.from_arrow(NESTED)
    assert schema.project(schema.names) is schema
    assert flat(schema.project(["v", "a"])) == [
        (23, -1, "v", "fixed_size_list:float:8"),
        (0, -1, "a", "int32"),
    ]
    assert flat(schema.project(["s.y"])) == flat(schema)[1:2] + flat(schema)[3:5]
    assert flat(schema.project(["s.y", "a", "s.x", "a"])) == [*flat(schema)[1:5], flat(schema)[0]]
    assert flat(schema.project(["ls.item.q"])) == [flat(schema)[5], flat(schema)[6], flat(schema)[8]]
    assert flat(schema.project(["m.entries.key"])) == flat(schema)[9:14]
    assert schema.project([]).fields == ()
    assert schema.project(["a"]).metadata == {"top": "meta"}
    with pytest.raises(InvalidInputError, match="nope"):
        schema.project(["nope"])


def message_of(name: str, field_id: int, parent_id: int, logical: str = "int8") -> Any:
    return file_pb2.Field(name=name, id=field_id, parent_id=parent_id, logical_type=logical)


@pytest.mark.parametrize(
    "messages",
    [
        [message_of("a", 0, 5)],
        [message_of("a", 0, -1), message_of("b", 0, -1)],
        [message_of("a", -1, -1)],
        [message_of("a", -4, -1)],
        [message_of("a", 1, 1, "struct")],
        [message_of("f", 0, -1, "struct"), *(message_of("f", i, i - 1, "struct") for i in range(1, 500))],
    ],
)
def test_damaged_field_lists(messages: list[Any]) -> None:
    with pytest.raises(CorruptFileError):
        Schema.from_proto(messages)


def test_damaged_bytes() -> None:
    with pytest.raises(CorruptFileError):
        Schema.from_proto_bytes(b"\x0a\xff")
    with pytest.raises(CorruptFileError):
        parse_file_descriptor(b"\x0a\x05abc")
    message = message_of("a", 0, -1)
    message.metadata["k"] = b"\xff"
    with pytest.raises(CorruptFileError, match="UTF-8"):
        Schema.from_proto([message])


def test_values_pickle_compare_and_hash() -> None:
    schema = Schema.from_arrow(NESTED)
    schema.leaves()
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert hash(pickle.loads(pickle.dumps(schema))) == hash(schema)
    assert len(pickle.dumps(schema.project(["a"]))) < 300
    field = Field(0, "a", "int32")
    assert (field.nullable, field.parent_id, field.arrow_type, field.is_leaf) == (True, -1, pa.int32(), True)
    with pytest.raises(AttributeError):
        field.name = "b"  # type: ignore[misc]


# ---------------------------------------------------------------- golden


def descriptor_of(path: Path) -> bytes:
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, len(data) - 24)
    position, size = struct.unpack_from("<QQ", data, table)
    return data[position : position + size]


def serialized(fields: Any) -> list[bytes]:
    # The reference writes an empty dictionary message into manifests but not into single files.
    copies = [file_pb2.Field.FromString(field.SerializeToString()) for field in fields]
    for copy in copies:
        copy.ClearField("dictionary")
    return [copy.SerializeToString(deterministic=True) for copy in copies]


GOLDEN_FILES = [path for path in golden_files("structure") if path.is_file()]


@pytest.mark.golden
@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.name)
def test_golden_schema(path: Path) -> None:
    schema, rows = parse_file_descriptor(descriptor_of(path))
    expected = expected_table(path.with_suffix(".arrow"))
    assert schema.to_arrow().remove_metadata().equals(expected.schema, check_metadata=True)
    assert rows == expected.num_rows
    # The reference wrote the ids and logical types that we would write.
    assert flat(Schema.from_arrow(expected.schema)) == flat(schema)
    data = descriptor_of(path)
    stored = file_pb2.FileDescriptor.FromString(data).schema
    assert serialized(stored.fields) == serialized(schema.to_proto())


@pytest.mark.golden
@pytest.mark.parametrize("path", GOLDEN_FILES, ids=lambda path: path.name)
def test_golden_column_count(path: Path) -> None:
    data = path.read_bytes()
    (columns,) = struct.unpack_from("<I", data, len(data) - 12)
    version = struct.unpack_from("<HH", data, len(data) - 8)
    schema, _ = parse_file_descriptor(descriptor_of(path))
    assert len(column_indices(schema, version)) == columns


@pytest.mark.golden
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("table/*/_versions/*.manifest")), ids=str)
def test_golden_manifest_columns(path: Path) -> None:
    if path.parent.parent.name.startswith("crafted_"):
        pytest.skip("damaged on purpose")
    data = path.read_bytes()
    (position,) = struct.unpack_from("<q", data, len(data) - 16)
    manifest = table_pb2.Manifest.FromString(data[position + 4 : len(data) - 16])
    schema = Schema.from_proto(manifest.fields, manifest.schema_metadata)
    assert serialized(schema.to_proto()) == serialized(manifest.fields)
    everywhere = {f.id for f in schema.walk()}
    leaves = {f.id for f in schema.leaves()}
    for fragment in manifest.fragments:
        for file in fragment.files:
            if (file.file_major_version, file.file_minor_version) >= (2, 1):
                assert set(file.fields) & everywhere <= leaves


@pytest.mark.golden
def test_blob_v2_members_without_ids() -> None:
    (path,) = GOLDEN.glob("structure/blob_v2_2_2/data/*.lance")
    schema, _ = parse_file_descriptor(descriptor_of(path))
    assert [f.name for f in schema.fields] == ["b", "i"]
    blob = schema.fields[0]
    assert blob.is_leaf
    assert [member.name for member in blob.children] == ["kind", "position", "size", "blob_id", "blob_uri"]


# ---------------------------------------------------------------- properties

names = st.text(st.characters(codec="utf-8", exclude_characters=".\0"), min_size=1, max_size=6)
leaf_types = st.sampled_from([arrow for _, arrow in TABLE])
metadata = st.none() | st.dictionaries(names, st.text(max_size=5), min_size=1, max_size=2)


def fields_of(types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def field(name: str, arrow: Any, nullable: bool, metadata: Any) -> Any:
        return pa.field(name, arrow, nullable or arrow == pa.null(), metadata)

    return st.builds(field, names, types, st.booleans(), metadata)


def nest(types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = fields_of(types)
    structs = st.lists(fields, max_size=3, unique_by=lambda one: one.name).map(pa.struct)
    return st.one_of(
        structs,
        fields.map(pa.list_),
        fields.map(pa.large_list),
        st.builds(pa.map_, types.filter(lambda one: one != pa.null()), types),
        st.builds(pa.list_, fields_of(structs), st.integers(1, 9)),
    )


arrow_schemas = st.builds(
    pa.schema,
    st.lists(
        fields_of(st.recursive(leaf_types, nest, max_leaves=6)), max_size=4, unique_by=lambda one: one.name
    ),
    metadata,
)


@pytest.mark.property
@given(arrow_schemas, st.integers(0, 1000))
def test_round_trip(arrow: Any, first_id: int) -> None:
    schema = Schema.from_arrow(arrow, first_id=first_id)
    assert schema.to_arrow().equals(arrow, check_metadata=True)
    data = schema.to_proto_message().SerializeToString(deterministic=True)
    again = Schema.from_proto_bytes(data)
    assert again == schema
    assert again.to_arrow().equals(arrow, check_metadata=True)
    ids = [f.id for f in schema.walk()]
    assert ids == list(range(first_id, first_id + len(ids)))
    assert set(column_indices(schema, (2, 2)).values()) == set(range(len(schema.leaves())))
    assert pickle.loads(pickle.dumps(schema)) == schema


@pytest.mark.property
@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    try:
        parse_file_descriptor(data)
    except (CorruptFileError, UnsupportedError):
        pass


def test_parsing_a_wide_schema_is_cheap() -> None:
    arrow = pa.schema([(f"column {i}", pa.int32() if i % 2 else pa.string()) for i in range(128)])
    message = file_pb2.FileDescriptor(schema=Schema.from_arrow(arrow).to_proto_message(), length=1)
    best = float("inf")
    for length in range(20):
        message.schema.metadata["run"] = str(length).encode()  # other bytes: not the cache
        data = message.SerializeToString()
        started = time.perf_counter()
        parse_file_descriptor(data)
        best = min(best, time.perf_counter() - started)
    assert best < 5e-3  # about 0.4 ms; generous for busy machines
