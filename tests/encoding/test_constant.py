"""Constant pages: the reference's own, our own, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum.encoding import constant, structure
from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import FixedBlock
from pilum.encoding.codecs.base import EncodeOptions
from pilum.encoding.page import Decoded, EncodedPage, LeafRows, PageDecoder, PageSource, Rows
from pilum.errors import CorruptFileError, InvalidInputError, PilumError
from pilum.proto import container_pb2, encodings_pb2
from pilum.schema.field import Field, Schema
from tests.support import expected_table, golden_files

V21, V22 = (2, 1), (2, 2)


def field_of(kind: Any) -> Field:
    return Schema.from_arrow(pa.schema([pa.field("c", kind)])).fields[0]


def shred(values: Any, kind: Any) -> LeafRows:
    return structure.shred(field_of(kind), pa.array(values, kind))[0]


def source_of(page: EncodedPage) -> tuple[PageSource, bytes]:
    """The page as if it lay in a file of its own, buffers at multiples of 64."""
    data, offsets = bytearray(b"\xee" * 64), []
    for buffer in page.buffers:
        offsets.append(len(data))
        data += buffer.tobytes()
        data += bytes(-len(data) % 64)
    layout = encodings_pb2.PageLayout.FromString(page.layout)
    return PageSource(tuple(offsets), tuple(map(len, page.buffers)), page.length, layout), bytes(data)


def opened(source: PageSource, data: bytes, version: tuple[int, int]) -> PageDecoder:
    decoder = constant.decoder(source, version)
    ranges = decoder.metadata_ranges()
    assert ranges == sorted(ranges)
    if not decoder.initialised:
        decoder.initialise([np.frombuffer(data[start:end], np.uint8) for start, end in ranges])
    assert decoder.initialised
    return decoder


def read(decoder: PageDecoder, rows: Rows) -> Decoded:
    plan = decoder.schedule(rows)
    assert plan.ranges == []
    found = plan.decode([])
    assert isinstance(found, Decoded)
    return found


def encode(rows: LeafRows, version: tuple[int, int], **options: Any) -> EncodedPage | None:
    return constant.encode(rows, EncodeOptions(version), **options)


# --------------------------------------------------------------------------- files of the reference

GOLDEN = [*golden_files("structure", "constant_2_*.lance"), *golden_files("structure", "empty_struct*.lance")]


def golden_pages(path: Path) -> list[tuple[int, PageSource]]:
    """The constant pages of a file with their column numbers."""
    data = path.read_bytes()
    _, table, _, _, columns, _, _, _ = struct.unpack("<QQQIIHH4s", data[-40:])
    pages = []
    for column in range(columns):
        offset, size = struct.unpack_from("<QQ", data, table + 16 * column)
        for page in container_pb2.ColumnMetadata.FromString(data[offset : offset + size]).pages:
            message = AnyMessage.FromString(page.encoding.direct.encoding)
            layout = encodings_pb2.PageLayout.FromString(message.value)
            if layout.HasField("constant_layout"):
                source = PageSource(tuple(page.buffer_offsets), tuple(page.buffer_sizes), page.length, layout)
                pages.append((column, source))
    return pages


def leaf_fields(table: Any) -> list[tuple[Field, int]]:
    """Per file column: its top-level field, and which leaf of it."""
    schema = Schema.from_arrow(table.schema)
    return [(top, number) for top in schema.fields for number, _ in enumerate(top.leaves())]


@pytest.mark.golden
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_pages_read_and_are_written_alike(path: Path) -> None:
    version = V21 if path.stem.endswith("2_1") else V22
    data = path.read_bytes()
    table = expected_table(path.with_suffix(".arrow"))
    fields = leaf_fields(table)
    pages = golden_pages(path)
    assert pages
    for column, source in pages:
        field, number = fields[column]
        expected = table.column(field.name).combine_chunks()
        decoder = opened(source, data, version)
        whole = read(decoder, range(source.length))
        if len(list(field.leaves())) == 1:
            found = structure.assemble(field, [[whole]])
            assert found.equals(expected.cast(field.arrow_type)), field.name
            part = structure.assemble(field, [[read(decoder, range(2, 5))]])
            assert part.to_pylist() == expected.slice(2, 3).to_pylist()
            some = structure.assemble(field, [[read(decoder, np.array([0, 3, 4]))]])
            assert some.to_pylist() == expected.take(pa.array([0, 3, 4])).to_pylist()
        encoded = encode(structure.shred(field, expected)[number], version)
        assert encoded is not None
        assert encoded.length == source.length
        written = encodings_pb2.PageLayout.FromString(encoded.layout)
        assert written == source.layout, field.name
        for buffer, start, size in zip(encoded.buffers, source.offsets, source.sizes, strict=True):
            assert buffer.tobytes() == data[start : start + size], field.name


# --------------------------------------------------------------------------- our own

CASES: list[tuple[Any, list[Any]]] = [
    (pa.int32(), [7, 7, 7]),
    (pa.int32(), [None, 7, None, 7]),
    (pa.bool_(), [True, None, True]),
    (pa.bool_(), [False] * 9),
    (pa.float64(), [float("nan")] * 3),
    (pa.decimal128(5, 2), [None, 1, 1]),
    (pa.binary(3), [b"abc"] * 4),
    (pa.binary(40), [b"x" * 40] * 3),
    (pa.string(), ["hello", None, "hello"]),
    (pa.string(), ["", ""]),
    (pa.large_binary(), [b"ab", b"ab", None]),
    (pa.list_(pa.int16()), [[3, 3], None, [], [3, None], [3]]),
    (pa.list_(pa.string()), [["a"], ["a", "a"]]),
    (
        pa.struct([("s", pa.struct([("x", pa.int64())]))]),
        [{"s": {"x": 5}}, None, {"s": None}, {"s": {"x": 5}}],
    ),
]
NULLS: list[tuple[Any, list[Any]]] = [
    (pa.int32(), [None, None]),
    (pa.null(), [None] * 5),
    (pa.list_(pa.float32(), 4), [None, None]),
    (pa.struct([("x", pa.string())]), [None, {"x": None}, None]),
    (pa.list_(pa.int32()), [None, [], [None], [None, None], []]),
    (pa.list_(pa.list_(pa.string())), [[], None, [[]], [None, []]]),
    (pa.struct([]), [{}, {}]),
    (pa.list_(pa.struct([])), [[{}, {}], None, [], [{}]]),
]


@pytest.mark.parametrize(
    ("kind", "values", "version"),
    [(*case, V22) for case in CASES + NULLS] + [(*case, V21) for case in NULLS],
    ids=str,
)
def test_pages_round_trip(kind: Any, values: list[Any], version: tuple[int, int]) -> None:
    field, array = field_of(kind), pa.array(values, kind)
    page = encode(shred(values, kind), version)
    assert page is not None
    decoder = opened(*source_of(page), version)
    assert decoder.num_rows == len(values)
    assert decoder.nbytes < 2000
    count = len(values)
    picks: list[Rows] = [range(a, b) for a in range(count) for b in range(a, count + 1)]
    picks += [np.arange(0, count, 2), np.array([count - 1])]
    for rows in picks:
        back = structure.assemble(field, [[read(decoder, rows)]])
        back.validate(full=True)
        expected = array.take(pa.array(list(rows), pa.int64()))
        if not pa.types.is_floating(kind):  # NaN equals nothing
            assert back.to_pylist() == expected.to_pylist()


@pytest.mark.parametrize(("kind", "values"), CASES, ids=str)
def test_values_are_constant_only_since_2_2(kind: Any, values: list[Any]) -> None:
    rows = shred(values, kind)
    assert encode(rows, V21) is None
    page = encode(rows, V22)
    assert page is not None
    with pytest.raises(CorruptFileError, match=r"version 2\.1"):
        constant.decoder(source_of(page)[0], V21)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int32(), [7] * 100 + [8]),
        (pa.int32(), [7, None, 8]),
        (pa.bool_(), [True] * 70 + [False]),
        (pa.float64(), [0.0, -0.0]),
        (pa.binary(3), [b"abc"] * 100 + [b"abd"]),
        (pa.string(), ["ab", "ac"]),
        (pa.string(), ["ab"] * 100 + ["a"]),
        (pa.string(), ["ab", None, "b"]),
        (pa.list_(pa.int8(), 2), [[1, 1], [1, 1]]),  # fixed-size lists have no scalar form
    ],
    ids=str,
)
def test_other_pages_are_not_constant(kind: Any, values: list[Any]) -> None:
    assert encode(shred(values, kind), V22) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=6))
def test_constant_means_one_value(values: list[Any]) -> None:
    page = encode(shred(values, pa.string()), V22)
    assert (page is not None) == (len(set(values) - {None}) <= 1)


def test_a_claim_of_many_rows_costs_nothing() -> None:
    layouts = [
        encodings_pb2.ConstantLayout(layers=[3]),  # type: ignore[list-item]
        encodings_pb2.ConstantLayout(layers=[1], inline_value=b"\x07\0\0\0"),  # type: ignore[list-item]
    ]
    for layout in layouts:
        source = PageSource((), (), 1 << 60, encodings_pb2.PageLayout(constant_layout=layout))
        decoder = constant.decoder(source, V22)
        assert decoder.initialised
        assert decoder.nbytes < 2000
        found = read(decoder, range((1 << 60) - 3, 1 << 60))
        assert found.num_rows == found.block.count == 3


def test_long_strings_do_not_overflow() -> None:
    page = encode(shred(["x" * 65536] * 2, pa.string()), V22)
    assert page is not None
    source, data = source_of(page)
    many = PageSource(source.offsets, source.sizes, 1 << 40, source.layout)
    decoder = opened(many, data, V22)
    with pytest.raises(InvalidInputError, match="smaller batches"):
        read(decoder, range(1 << 20))
    assert to_arrow(read(decoder, range(3)).block, pa.string()).to_pylist() == ["x" * 65536] * 3


# --------------------------------------------------------------------------- damage


def crafted(
    layers: Any, sizes: tuple[int, ...] = (), length: int = 2, version: tuple[int, int] = V22, **fields: Any
) -> PageDecoder:
    layout = encodings_pb2.ConstantLayout(layers=layers, **fields)
    offsets = tuple(64 * i for i in range(len(sizes)))
    data = fields.pop("data", bytes(64 * len(sizes)))
    source = PageSource(offsets, sizes, length, encodings_pb2.PageLayout(constant_layout=layout))
    return opened(source, data, version)


FLAT16 = {"flat": {"bits_per_value": 16}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": []}, "no layers"),
        ({"layers": [0]}, "unknown kind 0"),
        ({"layers": [3] * 300}, "300 layers"),
        ({"layers": [1]}, r"without levels declares layers \[1\]"),
        ({"layers": [3, 3]}, r"without levels declares layers \[3, 3\]"),
        ({"layers": [3], "sizes": (1, 1, 1, 1)}, "4 buffers"),
        ({"layers": [3], "sizes": (1,), "inline_value": b"a"}, "1 buffers and an inline value"),
        ({"layers": [3], "inline_value": b"a" * 33}, "inline value of 33 bytes"),
        ({"layers": [3], "inline_value": b"a", "version": V21}, "with a value in a file of version 2.1"),
        ({"layers": [3], "sizes": (8,), "version": V21}, "with a value in a file of version 2.1"),
        (
            {"layers": [3, 3], "sizes": (0, 4), "def_compression": FLAT16, "version": V21},
            "compressed levels in a file",
        ),
        ({"layers": [1], "inline_value": b"a", "def_compression": FLAT16}, "a value and compressed levels"),
        ({"layers": [1, 2], "inline_value": b"a"}, "no repetition levels"),
        ({"layers": [1, 4], "sizes": (0, 4)}, "no repetition levels"),
        ({"layers": [3, 3], "sizes": (0, 3)}, "have 3 bytes"),
        ({"layers": [3, 3], "sizes": (0, 6)}, "3 rows instead of 2"),
        ({"layers": [3, 4], "sizes": (4, 4)}, "row begins with 1"),
        ({"layers": [3], "sizes": (8,)}, "0 Arrow buffers"),
        (
            {"layers": [3, 3], "sizes": (0, 4), "def_compression": FLAT16, "num_def_values": 1 << 40},
            "claims 1099511627776 def levels",
        ),
    ],
    ids=str,
)
def test_damage_is_reported(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CorruptFileError, match=message):
        crafted(**arguments)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\1\0\0",
        struct.pack("<II", 1, 0),
        struct.pack("<II", 1, 9) + b"abc",
        struct.pack("<II", 1, 3) + b"abcd",
        struct.pack("<III", 2, 8, 3) + struct.pack("<ii", 0, 4) + b"abc",
        struct.pack("<III", 2, 8, 3) + struct.pack("<ii", 1, 3) + b"abc",
        struct.pack("<III", 2, 4, 3) + bytes(4) + b"abc",
        struct.pack("<IIII", 3, 0, 0, 0),
        struct.pack("<II", 0x40000000, 0),
    ],
    ids=str,
)
def test_damaged_values_are_reported(value: bytes) -> None:
    layout = encodings_pb2.PageLayout(constant_layout=encodings_pb2.ConstantLayout(layers=[1]))  # type: ignore[list-item]
    with pytest.raises(CorruptFileError):
        opened(PageSource((0,), (len(value),), 2, layout), value, V22)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_gives_an_error_or_valid_arrays(data: Any) -> None:
    kind, values = data.draw(st.sampled_from(CASES + NULLS))
    version = data.draw(st.sampled_from([V21, V22]))
    page = encode(shred(values, kind), V22)
    assert page is not None
    layout = bytearray(page.layout)
    if data.draw(st.booleans()):
        layout[data.draw(st.integers(0, len(layout) - 1))] = data.draw(st.integers(0, 255))
    buffers = [buffer.copy() for buffer in page.buffers]
    for buffer in buffers:
        if len(buffer) and data.draw(st.booleans()):
            buffer[data.draw(st.integers(0, len(buffer) - 1))] = data.draw(st.integers(0, 255))
    length = page.length + data.draw(st.sampled_from([0, 0, 0, 1, -1]))
    try:
        source, content = source_of(EncodedPage(buffers, page.layout, length))
        message = encodings_pb2.PageLayout.FromString(bytes(layout))
    except Exception:  # not a protobuf message any more
        return
    if not message.HasField("constant_layout"):
        return
    source = PageSource(source.offsets, source.sizes, length, message)
    field = field_of(kind)
    try:
        back = structure.assemble(field, [[read(opened(source, content, version), range(length))]])
    except PilumError:
        return
    back.validate(full=not pa.types.is_decimal(kind))  # any bytes are a decimal, if not of this precision
    assert len(back) == length


@pytest.mark.fault
@pytest.mark.parametrize("kind", [pa.int8(), pa.bool_(), pa.string(), pa.binary(2), pa.list_(pa.int8(), 2)])
def test_values_of_no_bytes_are_those_of_one_type_only(kind: Any) -> None:
    block = FixedBlock(0, np.empty(0, np.uint8), 5)
    assert to_arrow(block, pa.binary(0)).to_pylist() == [b""] * 5
    with pytest.raises(CorruptFileError):
        to_arrow(block, kind)
