"""Data blocks: Arrow both ways, slices, takes, concatenation, and refusal of what does not fit."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum.encoding.arrow_blocks import from_arrow, to_arrow
from pilum.encoding.blocks import (
    FixedBlock,
    FslBlock,
    NullBlock,
    VariableBlock,
    concat_blocks,
    pack_bits,
    slice_block,
    take_block,
    unpack_bits,
)
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

DAY = datetime.date(2024, 2, 29)
TYPES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.bool_(), [True, False, None] * 11),
    (pa.int8(), [1, None, -128, 127]),
    (pa.uint16(), [1, None, 65535]),
    (pa.int32(), [1, None, -(2**31)]),
    (pa.uint64(), [1, None, 2**64 - 1]),
    (pa.float16(), [np.float16(1.5), None, np.float16(-0.0)]),
    (pa.float32(), [1.5, None, -0.0]),
    (pa.float64(), [1.5, None, float("inf")]),
    (pa.date32(), [DAY, None]),
    (pa.date64(), [DAY, None]),
    (pa.time32("s"), [1, None]),
    (pa.time64("us"), [1, None]),
    (pa.timestamp("us", "UTC"), [1, None]),
    (pa.duration("ns"), [1, None]),
    (pa.decimal128(30, 2), [decimal.Decimal("1.25"), None]),
    (pa.decimal256(60, 2), [decimal.Decimal("-1.25"), None]),
    (pa.binary(3), [b"abc", None, b"xyz"]),
    (pa.string(), ["", "ab", None, "grün", "x" * 300]),
    (pa.binary(), [b"", b"\xff\xfe", None]),
    (pa.large_string(), ["", "ab", None]),
    (pa.large_binary(), [b"", b"\xff", None]),
    (pa.list_(pa.float32(), 2), [[1, 2], None, [None, 4], [5, 6]]),
    (pa.list_(pa.bool_(), 3), [[True, None, False], [True, True, True], None]),
    (pa.list_(pa.list_(pa.int16(), 2), 2), [[[1, 2], [3, None]], None, [None, [5, 6]]]),
    (pa.list_(pa.binary(2), 2), [[b"ab", b"cd"], [None, b"ef"]]),
]
ARRAYS = [pa.array(values * 5, kind) for kind, values in TYPES]
NAMES = [str(kind) for kind, _ in TYPES]


def validity_of(array: pa.Array) -> Any:
    return np.array([value is not None for value in array.to_pylist()], np.bool_)


def same(array: pa.Array, expected: list[Any]) -> None:
    array.validate(full=True)
    assert array.to_pylist() == expected


@pytest.mark.parametrize("array", ARRAYS, ids=NAMES)
def test_arrow_round_trip_of_slices(array: pa.Array) -> None:
    for part in (array, array.slice(1), array.slice(3, 5), array.slice(2, 0)):
        block = from_arrow(part)
        assert block.count == len(part)
        same(to_arrow(block, array.type, validity_of(part)), part.to_pylist())


@pytest.mark.parametrize("array", ARRAYS, ids=NAMES)
def test_slice_take_concat(array: pa.Array) -> None:
    block, valid, values = from_arrow(array), validity_of(array), array.to_pylist()
    part = slice_block(block, 3, 4)
    same(to_arrow(part, array.type, valid[3:7]), values[3:7])
    rows = np.array([0, 4, 4, len(array) - 1, 1], np.int64)
    same(to_arrow(take_block(block, rows), array.type, valid[rows]), [values[i] for i in rows])
    joined = concat_blocks([part, block, slice_block(block, 1, 0), slice_block(block, 1, 2)])
    everything = np.concatenate([valid[3:7], valid, valid[1:3]])
    same(to_arrow(joined, array.type, everything), values[3:7] + values + values[1:3])


def test_no_copy_of_fixed_and_variable_values() -> None:
    numbers = pa.array(range(1000), pa.int64())
    back = to_arrow(from_arrow(numbers), pa.int64())
    assert back.buffers()[1].address == numbers.buffers()[1].address
    texts = pa.array(["a", "bc"])
    back = to_arrow(from_arrow(texts), pa.string())
    assert [b.address for b in back.buffers()[1:]] == [b.address for b in texts.buffers()[1:]]


def test_unaligned_values_are_copied() -> None:
    raw = np.zeros(81, np.uint8)
    raw[1:9] = 1
    array = to_arrow(FixedBlock(64, raw[1:], 10), pa.int64())
    assert array.buffers()[1].address % 8 == 0
    assert array[0].as_py() == 0x0101010101010101


def test_items_of_null_rows_are_not_null_items() -> None:
    array = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    assert array.values.null_count == 2
    block = from_arrow(array)
    assert isinstance(block, FslBlock)
    assert block.validity is None


def test_byte_booleans_and_null_blocks() -> None:
    assert to_arrow(FixedBlock(8, np.array([0, 1, 2], np.uint8), 3), pa.bool_()).to_pylist() == [
        False,
        True,
        True,
    ]
    lists = FslBlock(2, np.zeros(1, np.uint8), NullBlock(4), 2)
    assert to_arrow(lists, pa.list_(pa.int8(), 2)).to_pylist() == [[None, None]] * 2
    with_values = from_arrow(pa.array([[1, 2]], pa.list_(pa.int8(), 2)))
    joined = concat_blocks([lists, with_values])
    assert to_arrow(joined, pa.list_(pa.int8(), 2)).to_pylist() == [[None, None]] * 2 + [[1, 2]]
    assert to_arrow(NullBlock(2), pa.string()).to_pylist() == [None, None]


def test_views_and_extension_types() -> None:
    view = pa.array(["a", None, "a string longer than twelve bytes"], pa.string_view())
    assert to_arrow(from_arrow(view), pa.string(), validity_of(view)).to_pylist() == view.to_pylist()
    kind = pa.uuid()
    ids = pa.ExtensionArray.from_storage(kind, pa.array([b"0" * 16, None], pa.binary(16)))
    back = to_arrow(from_arrow(ids), kind, np.array([True, False]))
    assert back.type == kind
    assert back.equals(ids)


def test_bits_at_any_offset() -> None:
    bits = np.random.default_rng(0).random(100) < 0.5
    packed = pack_bits(bits)
    for start in (0, 1, 7, 8, 63):
        assert np.array_equal(unpack_bits(packed, 30, start), bits[start : start + 30])


@pytest.mark.fault
def test_what_contradicts_the_type_is_refused() -> None:
    two = np.zeros(2, np.uint8)
    with pytest.raises(CorruptFileError):
        to_arrow(FixedBlock(16, two, 1), pa.int32())
    with pytest.raises(CorruptFileError):
        to_arrow(FixedBlock(16, two, 2), pa.int16())
    with pytest.raises(CorruptFileError):
        to_arrow(FixedBlock(16, two, 1), pa.string())
    with pytest.raises(CorruptFileError):
        to_arrow(VariableBlock(32, np.array([0, 2], np.int32), two, 1), pa.int16())
    with pytest.raises(CorruptFileError):
        to_arrow(FslBlock(2, None, FixedBlock(8, two, 2), 1), pa.list_(pa.int8(), 3))
    with pytest.raises(CorruptFileError):
        to_arrow(FslBlock(2, None, FixedBlock(8, two, 2), 2), pa.list_(pa.int8(), 2))
    with pytest.raises(UnsupportedError):
        from_arrow(pa.array([[1]]))


@pytest.mark.fault
@pytest.mark.parametrize("offsets", [[0, 3], [1, 2], [0, 2, 1], [0, -1, 2], [0]])
def test_bad_offsets_are_refused(offsets: list[int]) -> None:
    block = VariableBlock(32, np.array(offsets, np.int32), np.zeros(2, np.uint8), max(1, len(offsets) - 1))
    with pytest.raises(CorruptFileError):
        to_arrow(block, pa.binary())


@pytest.mark.fault
def test_invalid_utf8_is_refused() -> None:
    data = np.frombuffer("aü".encode(), np.uint8)
    assert to_arrow(VariableBlock(32, np.array([0, 3], np.int32), data, 1), pa.string()).to_pylist() == ["aü"]
    split = VariableBlock(32, np.array([0, 2, 3], np.int32), data, 2)
    with pytest.raises(CorruptFileError, match="UTF-8"):
        to_arrow(split, pa.string())
    assert to_arrow(split, pa.binary()).to_pylist() == [b"a\xc3", b"\xbc"]


def test_more_than_two_gigabytes_of_strings_says_what_to_do() -> None:
    huge = np.broadcast_to(np.zeros(1, np.uint8), (2**31 + 1,))
    block = VariableBlock(64, np.array([0, 2**31 + 1], np.int64), huge, 1)
    with pytest.raises(InvalidInputError, match="smaller batches"):
        to_arrow(block, pa.binary())
