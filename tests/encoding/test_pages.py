"""The registry of layouts, the choice of a layout, and whole columns of the reference's files."""

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

from pilum import encoding
from pilum.encoding import Decoded, EncodeOptions, LeafRows, PageSource, Rows, pages
from pilum.errors import CorruptFileError, InvalidInputError
from pilum.proto import container_pb2, encodings_pb2
from pilum.schema.field import Field, Schema
from tests.encoding.test_structure import arrays
from tests.support import expected_table, golden_files

V21, V22 = (2, 1), (2, 2)


def field_of(kind: Any) -> Field:
    return Schema.from_arrow(pa.schema([pa.field("c", kind)])).fields[0]


def read(source: PageSource, data: Any, version: tuple[int, int], rows: Rows) -> Decoded:
    def fetch(ranges: Any) -> list[Any]:
        return [data[start:end] for start, end in ranges]

    decoder = encoding.open_page(source, version)
    if not decoder.initialised:
        decoder.initialise(fetch(decoder.metadata_ranges()))
    found: Any = decoder.schedule(rows)
    while not isinstance(found, Decoded):
        found = found.decode(fetch(found.ranges))
    return found


def placed(page: encoding.EncodedPage) -> tuple[PageSource, Any]:
    offsets, parts, at = [], [], 0
    for buffer in page.buffers:
        offsets.append(at)
        parts += [buffer, np.zeros(-len(buffer) % 64, np.uint8)]
        at += len(buffer) + len(parts[-1])
    layout = encodings_pb2.PageLayout.FromString(page.layout)
    data = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return PageSource(tuple(offsets), tuple(map(len, page.buffers)), page.length, layout), data


def layout_of(rows: LeafRows, version: tuple[int, int] = V22, structural: str | None = None) -> str:
    page = encoding.encode_page(rows, options=EncodeOptions(version), structural=structural)
    return str(encodings_pb2.PageLayout.FromString(page.layout).WhichOneof("layout"))


def shred(values: Any, kind: Any) -> LeafRows:
    return encoding.shred(field_of(kind), pa.array(values, kind))[0]


# --------------------------------------------------------------------------- files of the reference

SKIPPED = ("2_0", "2_3", "blob", "packed", "wide")
GOLDEN = [
    path
    for path in golden_files("structure")
    if path.is_file() and not any(name in path.stem for name in SKIPPED)
]


def golden_columns(path: Path) -> tuple[tuple[int, int], Any, list[list[PageSource]]]:
    data = path.read_bytes()
    _, table, _, _, columns, major, minor, _ = struct.unpack("<QQQIIHH4s", data[-40:])
    found = []
    for column in range(columns):
        offset, size = struct.unpack_from("<QQ", data, table + 16 * column)
        sources = []
        for page in container_pb2.ColumnMetadata.FromString(data[offset : offset + size]).pages:
            message = AnyMessage.FromString(page.encoding.direct.encoding)
            layout = encodings_pb2.PageLayout.FromString(message.value)
            sources.append(
                PageSource(tuple(page.buffer_offsets), tuple(page.buffer_sizes), page.length, layout)
            )
        found.append(sources)
    return (major, minor), np.frombuffer(data, np.uint8), found


def rows_of_page(low: int, high: int, wanted: Any) -> np.ndarray[Any, Any]:
    picked = wanted[(wanted >= low) & (wanted < high)]
    return (picked - low).astype(np.int64)  # type: ignore[no-any-return]


def read_column(
    columns: list[list[PageSource]], factors: Any, data: Any, version: Any, wanted: Any
) -> list[list[Decoded]]:
    """The wanted rows of the leaves of one field; None means all."""
    leaves = []
    for sources, factor in zip(columns, factors, strict=True):
        low, decoded = 0, []
        for source in sources:
            rows: Rows = range(source.length)
            if wanted is not None:
                every = (wanted[:, None] * factor + np.arange(factor)).reshape(-1)
                rows = rows_of_page(low, low + source.length, every)
            low += source.length
            if len(rows):
                decoded.append(read(source, data, version, rows))
        leaves.append(decoded)
    return leaves


@pytest.mark.golden
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_columns_of_golden_files(path: Path) -> None:
    version, data, columns = golden_columns(path)
    table = expected_table(path.with_suffix(".arrow"))
    schema = Schema.from_arrow(table.schema)
    at = 0
    rng = np.random.default_rng(1)
    for field in schema.fields:
        expected = table.column(field.name)
        expected = pa.concat_arrays(expected.chunks) if expected.num_chunks else pa.nulls(0, expected.type)
        if isinstance(expected.type, pa.BaseExtensionType):
            expected = expected.storage
        factors = encoding.row_factors(field)
        leaves = columns[at : at + len(factors)]
        at += len(factors)
        array = encoding.assemble(field, read_column(leaves, factors, data, version, None))
        array.validate(full=True)
        assert array.to_pylist() == expected.to_pylist(), field.name
        if len(expected):
            wanted = np.unique(rng.integers(0, len(expected), 20))
            some = encoding.assemble(field, read_column(leaves, factors, data, version, wanted))
            assert some.to_pylist() == expected.take(pa.array(wanted)).to_pylist(), field.name
    assert at == len(columns)


# --------------------------------------------------------------------------- our own


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_columns_round_trip(data: Any) -> None:
    array = data.draw(arrays())
    version = data.draw(st.sampled_from([V21, V22]))
    structural = data.draw(st.sampled_from([None, "miniblock", "fullzip"]))
    field = field_of(array.type)
    leaves = []
    for rows in encoding.shred(field, array) if len(array) else []:
        page = encoding.encode_page(rows, options=EncodeOptions(version), structural=structural)
        leaves.append([read(*placed(page), version, range(page.length))])
    if leaves:
        back = encoding.assemble(field, leaves)
        back.validate(full=True)
        assert back.equals(array.cast(field.arrow_type))


def test_the_longest_value_decides() -> None:
    assert layout_of(shred(["a", "b"], pa.string())) == "mini_block_layout"
    assert layout_of(shred(["a", "b" * 255], pa.string())) == "mini_block_layout"
    assert layout_of(shred(["a", "b" * 256], pa.string())) == "full_zip_layout"
    assert layout_of(shred([[0.0] * 64, [1.0] * 64], pa.list_(pa.float32(), 64))) == "full_zip_layout"
    assert layout_of(shred([[0.0] * 63, [1.0] * 63], pa.list_(pa.float32(), 63))) == "mini_block_layout"


def test_constants_come_first() -> None:
    assert layout_of(shred([1, 1], pa.int32())) == "constant_layout"
    assert layout_of(shred([1, 1], pa.int32()), V21) == "mini_block_layout"
    assert layout_of(shred([None, None], pa.int32()), V21) == "constant_layout"
    assert layout_of(shred([[], None], pa.list_(pa.int32())), structural="fullzip") == "constant_layout"
    words = pa.array(["a", "a"]).dictionary_encode()
    (rows,) = encoding.shred(field_of(words.type), words)
    assert layout_of(rows) == "mini_block_layout"


def test_the_field_may_ask_for_a_layout() -> None:
    assert layout_of(shred([1, 2], pa.int32()), structural="fullzip") == "full_zip_layout"
    assert layout_of(shred([True, False], pa.bool_()), structural="FullZip") == "full_zip_layout"
    long = shred(["a", "b" * 5000], pa.string())
    assert layout_of(long, structural="miniblock") == "mini_block_layout"
    # values that no chunk of 2.1 can hold are zipped whatever the field asks for
    longer = shred(["a", "b" * 100_000], pa.string())
    assert layout_of(longer, V21, structural="miniblock") == "full_zip_layout"
    assert layout_of(longer, V22, structural="miniblock") == "mini_block_layout"
    with pytest.raises(InvalidInputError, match="unknown structural encoding"):
        layout_of(long, structural="zipped")
    with pytest.raises(InvalidInputError, match="at least one row"):
        layout_of(shred([], pa.int32()))


@pytest.mark.parametrize("version", [V21, V22])
def test_lists_with_few_values_do_not_overflow_a_chunk(version: tuple[int, int]) -> None:
    kind = pa.list_(pa.int32())
    sparse: list[Any] = [[1]] + [None] * 30_000 + [[2]] + [[]] * 40_000 + [[3, 4]]
    rows = shred(sparse, kind)
    assert layout_of(rows, version) == "full_zip_layout"
    page = encoding.encode_page(rows, options=EncodeOptions(version))
    back = encoding.assemble(field_of(kind), [[read(*placed(page), version, range(page.length))]])
    assert back.to_pylist() == sparse
    # the same share of values in every chunk is no problem
    even: list[Any] = [[i, i] if i % 2 else None for i in range(60_000)]
    rows = shred(even, kind)
    assert layout_of(rows, version) == "mini_block_layout"
    page = encoding.encode_page(rows, options=EncodeOptions(version))
    back = encoding.assemble(field_of(kind), [[read(*placed(page), version, range(page.length))]])
    assert back.to_pylist() == even


@pytest.mark.parametrize(
    ("layout", "version", "error", "message"),
    [
        (encodings_pb2.PageLayout(), V22, CorruptFileError, "names no layout"),
        (
            encodings_pb2.PageLayout(blob_layout=encodings_pb2.BlobLayout(layers=[1])),
            V22,
            CorruptFileError,
            "without an inner page",
        ),
        (
            encodings_pb2.PageLayout(sparse_layout=encodings_pb2.SparseLayout()),
            V22,
            CorruptFileError,
            "sparse page in a file of version 2.2",
        ),
        (
            encodings_pb2.PageLayout(sparse_layout=encodings_pb2.SparseLayout()),
            (2, 3),
            CorruptFileError,
            "without large chunks",
        ),
    ],
    ids=str,
)
def test_layouts_that_are_not_read(layout: Any, version: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        encoding.open_page(PageSource((), (), 1, layout), version)


def test_every_registered_layout_exists() -> None:
    fields = {field.name for field in encodings_pb2.PageLayout.DESCRIPTOR.fields}
    assert set(pages.LAYOUTS) == fields


def test_pages_of_too_many_levels_are_cut() -> None:
    """Rows of nothing but empty lists own no values, so one chunk would have to count all of them."""
    kind = pa.list_(pa.int32())
    rows = shred([[i] for i in range(5000)] + [[]] * 100_000 + [[1, 2]], kind)
    parts = encoding.cut_to_budget(rows, EncodeOptions(V22))
    assert sum(part.num_rows for part in parts) == rows.num_rows
    assert len(parts) == 5
    for part in parts:
        assert layout_of(part) != "full_zip_layout"
    dense = shred([[i, i] for i in range(100_000)] + [[]], kind)
    assert encoding.cut_to_budget(dense, EncodeOptions(V22)) == [dense]
