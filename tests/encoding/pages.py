"""Pages for tests of the layouts: those of golden files, and reading some rows of any page.

A deliberately small reader: footer and column metadata in plain Python, no file module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.any_pb2 import Any as AnyMessage

from pilum.encoding import levels
from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import Block, FixedBlock, FslBlock, VariableBlock, take_block
from pilum.encoding.page import Decoded, EncodedPage, PageDecoder, PageSource, Range, Rows
from pilum.proto import container_pb2, encodings_pb2
from tests.support import expected_table

Decoder = Callable[[PageSource, tuple[int, int]], PageDecoder]


@dataclass
class GoldenPage:
    column: int
    row: int  # of the file, the first of this page
    source: PageSource
    version: tuple[int, int]
    data: Any  # of the whole file


def golden_pages(path: Path, layout_name: str) -> Iterator[GoldenPage]:
    """The pages of one layout in a file of format 2.1 or later with `PageLayout` messages."""
    data = path.read_bytes()
    _, table, _, _, columns, major, minor, magic = struct.unpack("<QQQIIHH4s", data[-40:])
    assert magic == b"LANC"
    if (major, minor) < (2, 1):
        return
    for column in range(columns):
        offset, size = struct.unpack_from("<QQ", data, table + 16 * column)
        row = 0
        for page in container_pb2.ColumnMetadata.FromString(data[offset : offset + size]).pages:
            message = AnyMessage.FromString(page.encoding.direct.encoding)
            if message.type_url.endswith("encodings21.PageLayout"):
                layout = encodings_pb2.PageLayout.FromString(message.value)
                if layout.WhichOneof("layout") == layout_name:
                    offsets, sizes = tuple(page.buffer_offsets), tuple(page.buffer_sizes)
                    source = PageSource(offsets, sizes, page.length, layout)
                    yield GoldenPage(column, row, source, (major, minor), np.frombuffer(data, np.uint8))
            row += page.length


def place(encoded: EncodedPage, lead: int = 64) -> tuple[PageSource, Any]:
    """An encoded page as it would lie in a file, and that file's bytes."""
    offsets, parts, at = [], [np.full(lead, 0x48, np.uint8)], lead
    for buffer in encoded.buffers:
        offsets.append(at)
        padding = -len(buffer) % 64
        parts += [buffer, np.full(padding, 0x48, np.uint8)]
        at += len(buffer) + padding
    layout = encodings_pb2.PageLayout.FromString(encoded.layout)
    sizes = tuple(len(buffer) for buffer in encoded.buffers)
    return PageSource(tuple(offsets), sizes, encoded.length, layout), np.concatenate(parts)


def fetch(data: Any, ranges: list[Range]) -> list[Any]:
    assert all(0 <= a <= b <= len(data) for a, b in ranges), ranges
    assert all(x[1] <= y[0] for x, y in pairwise(ranges)), ranges
    return [data[a:b] for a, b in ranges]


def opened(make: Decoder, source: PageSource, version: tuple[int, int], data: Any) -> PageDecoder:
    page = make(source, version)
    assert page.initialised or page.metadata_ranges()
    page.initialise(fetch(data, page.metadata_ranges()))
    assert page.initialised
    assert page.nbytes > 0
    return page


def read(page: PageDecoder, data: Any, rows: Rows) -> Decoded:
    result: Any = page.schedule(rows)
    rounds = 0
    while not isinstance(result, Decoded):
        result = result.decode(fetch(data, result.ranges))
        rounds += 1
    assert rounds <= 2
    assert result.num_rows == len(rows)
    return result


def check_shape(decoded: Decoded) -> None:
    """What a page promises: as many values as visible entries, rows that begin with R."""
    entries = decoded.block.count
    if decoded.definition is not None:
        assert decoded.definition.dtype == np.uint16
        entries = len(decoded.definition)
    if decoded.rep is not None:
        assert decoded.definition is None or len(decoded.rep) == entries
        entries = len(decoded.rep)
    assert levels.count_visible(decoded.definition, decoded.layers, entries) == decoded.block.count
    assert levels.count_rows(decoded.rep, decoded.layers, entries) == decoded.num_rows
    check_block(decoded.block)


def check_block(block: Block) -> None:
    if isinstance(block, FixedBlock):
        assert len(block.data) >= (block.count * block.bits + 7) // 8
    elif isinstance(block, VariableBlock):
        assert len(block.offsets) == block.count + 1
        assert block.offsets[0] == 0
        assert (np.diff(block.offsets) >= 0).all()
        assert block.offsets[-1] <= len(block.data)
    elif isinstance(block, FslBlock):
        assert block.child.count == block.count * block.dimension
        check_block(block.child)


def visible_nulls(decoded: Decoded) -> Any:
    """Which values are null."""
    if decoded.definition is None:
        return np.zeros(decoded.block.count, np.bool_)
    mask = levels.visible_mask(decoded.definition, decoded.layers)
    return (decoded.definition if mask is None else decoded.definition[mask]) > 0


def leaf_array(decoded: Decoded, kind: Any) -> Any:
    """The values as Arrow, those of invisible entries left out."""
    array = to_arrow(decoded.block, kind, ~visible_nulls(decoded))
    array.validate(full=True)
    return array


def select(decoded: Decoded, rows: Rows) -> Decoded:
    """Some rows of a whole page, the slow and obvious way: what a read of them must yield."""
    rep, definition = decoded.rep, decoded.definition
    if rep is None:
        wanted = np.asarray(rows, np.int64)
        block = take_block(decoded.block, wanted)
        return Decoded(
            block, None, None if definition is None else definition[wanted], decoded.layers, len(wanted)
        )
    row_of = np.cumsum(rep == levels.max_rep(decoded.layers)) - 1
    keep = np.isin(row_of, np.asarray(rows, np.int64))
    visible = levels.visible_mask(definition, decoded.layers)
    if visible is None:
        visible = np.ones(len(rep), np.bool_)
    values = (np.cumsum(visible) - 1)[keep & visible]
    return Decoded(
        take_block(decoded.block, values),
        rep[keep],
        None if definition is None else definition[keep],
        decoded.layers,
        len(rows),
    )


def assert_same(found: Decoded, expected: Decoded) -> None:
    """Equal levels and equal values; null values may differ."""
    assert found.layers == expected.layers
    assert found.num_rows == expected.num_rows
    for mine, other in ((found.rep, expected.rep), (found.definition, expected.definition)):
        assert (mine is None) == (other is None)
        assert mine is None or other is None or np.array_equal(mine, other)
    assert_same_values(found.block, expected.block, visible_nulls(expected))


def assert_same_values(found: Any, expected: Any, nulls: Any) -> None:
    assert type(found) is type(expected)
    assert found.count == expected.count
    if isinstance(found, FixedBlock):
        mine, other = (_fixed(block, nulls) for block in (found, expected))
        assert np.array_equal(mine, other)
    elif isinstance(found, VariableBlock):
        for k in np.flatnonzero(~nulls).tolist():
            a = found.data[found.offsets[k] : found.offsets[k + 1]]
            assert np.array_equal(a, expected.data[expected.offsets[k] : expected.offsets[k + 1]])
    elif isinstance(found, FslBlock):
        assert found.dimension == expected.dimension
        inner = np.repeat(nulls, found.dimension)
        assert (found.validity is None) == (expected.validity is None)
        if found.validity is not None:
            mine, other = (
                np.unpackbits(block.validity, count=len(inner), bitorder="little").astype(bool) | inner
                for block in (found, expected)
            )
            assert np.array_equal(mine, other)
            inner = inner | ~mine
        assert_same_values(found.child, expected.child, inner)


def _fixed(block: FixedBlock, nulls: Any) -> Any:
    if block.bits % 8:
        bits = np.unpackbits(block.data, count=block.count * block.bits, bitorder="little")
        return bits.reshape(block.count, block.bits)[~nulls]
    width = block.bits // 8
    return block.data[: block.count * width].reshape(block.count, width)[~nulls]


# --------------------------------------------------------------------------- expectations


def expectation(path: Path) -> Any:
    """The table that a golden file holds."""
    found = path.with_suffix(".arrow")
    return expected_table(
        found if found.exists() else path.with_name(path.stem.rpartition("-")[0] + ".arrow")
    )


def leaf_columns(table: Any) -> list[Any]:
    """Per column of a file of 2.1+: a function from a slice of rows to the leaf values it must hold."""
    found: list[Any] = []
    for number, field in enumerate(table.schema):
        column = table.column(number).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], field.type)
        for path in _paths(field):
            found.append((column, path))
    return found


def _paths(field: Any) -> list[tuple[int, ...]]:
    kind, metadata = field.type, field.metadata or {}
    packed = metadata.get(b"lance-encoding:packed", metadata.get(b"packed", b"")).lower() == b"true"
    if pa.types.is_struct(kind) and kind.num_fields and not packed:
        return [(k, *rest) for k in range(kind.num_fields) for rest in _paths(kind.field(k))]
    if pa.types.is_map(kind):
        return [(-1, 0, *rest) for rest in _paths(kind.key_field)] + [
            (-1, 1, *rest) for rest in _paths(kind.item_field)
        ]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [(-1, *rest) for rest in _paths(kind.value_field)]
    if pa.types.is_fixed_size_list(kind) and pa.types.is_struct(kind.value_type):
        return [(-2, *rest) for rest in _paths(kind.value_field)]
    return [()]


def leaf_of(column: tuple[Any, tuple[int, ...]], row: int, length: int) -> Any:
    """The leaf values below rows ``row .. row + length`` of a column."""
    array, path = column
    scale = 1
    for step in path:
        if step == -2:
            scale *= array.type.list_size
    array = array.slice(row // scale, length // scale)
    for step in path:
        if step == -2:  # null lists keep their slots
            size = array.type.list_size
            nulls = np.repeat(np.asarray(array.is_null()), size)
            values = array.values.slice(array.offset * size, len(array) * size)
            array = _with_nulls(values, nulls)
        elif step == -1:
            if pa.types.is_map(array.type):
                array = array.cast(pa.list_(pa.struct([array.type.key_field, array.type.item_field])))
            array = array.flatten()
        else:
            array = array.flatten()[step]
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _with_nulls(array: Any, nulls: Any) -> Any:
    index = pa.array(np.arange(len(array)), mask=nulls)
    return array.take(index)


def same_array(found: Any, expected: Any) -> bool:
    if found.equals(expected):
        return True
    if pa.types.is_floating(expected.type):  # NaNs equal nothing
        kind = {16: "<u2", 32: "<u4", 64: "<u8"}[expected.type.bit_width]
        pairs = [(np.asarray(a.fill_null(0)).view(kind), np.asarray(a.is_null())) for a in (found, expected)]
        return all(np.array_equal(x, y) for x, y in zip(*pairs, strict=True))
    return bool(found.to_pylist() == expected.to_pylist())


def some_rows(length: int, seed: int, count: int = 6) -> list[Rows]:
    """Ranges and scattered rows of a page: the ends, one, none, all, random ones."""
    rng = np.random.default_rng(seed)
    wanted: list[Rows] = [range(length), range(0), range(1), range(length - 1, length)]
    wanted += [np.array([], np.int64), np.arange(length), np.array([length - 1])]
    for _ in range(count):
        low, high = sorted(rng.integers(0, length + 1, 2).tolist())
        wanted.append(range(low, high))
        size = int(rng.integers(1, min(length, 40) + 1))
        wanted.append(np.sort(rng.choice(length, size, replace=False)).astype(np.int64))
    wanted.append(np.arange(0, length, 2))
    return wanted
