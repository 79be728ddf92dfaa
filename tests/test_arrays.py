"""Arrays made of buffers are what Arrow's own conversions make."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum import arrays

NUMBERS = [
    pa.int8(),
    pa.uint16(),
    pa.int32(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
]


def column(kind: pa.DataType, nulls: bool) -> pa.Array:
    values: list[Any] = [bool(i % 3) if kind == pa.bool_() else i % 100 for i in range(77)]
    if pa.types.is_float16(kind):
        values = [np.float16(value) for value in values]
    if nulls:
        values[::4] = [None] * len(values[::4])
    return pa.array(values, kind)


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize(("start", "length"), [(0, 77), (3, 50), (8, 8), (13, 0)])
def test_numbers_to_numpy(kind: pa.DataType, nulls: bool, start: int, length: int) -> None:
    array = column(kind, nulls).slice(start, length)
    expected = array.to_numpy(zero_copy_only=False)
    found = arrays.to_numpy(array)
    np.testing.assert_array_equal(found, expected)
    # Arrow makes an object of each boolean of no rows only where there are nulls.
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(arrays.valid(array), array.is_valid().to_numpy(zero_copy_only=False))
    filled = arrays.filled(array)
    assert pa.array(filled, kind).equals(array.fill_null(pa.scalar(0, pa.int8()).cast(kind)))
    chunks = pa.chunked_array([array, array], kind)
    np.testing.assert_array_equal(arrays.to_numpy(chunks), chunks.to_numpy())


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
def test_numbers_from_numpy(kind: pa.DataType) -> None:
    values = column(kind, False).to_numpy(zero_copy_only=False)
    mask = np.arange(len(values)) % 3 == 0
    for one, hidden in ((values, mask), (values[::2], None), (values[5:9], mask[5:9]), (values[:0], None)):
        found = arrays.from_numpy(one, mask=hidden)
        found.validate(full=True)
        assert found.equals(pa.array(one, kind, mask=hidden))
        assert arrays.from_numpy(one, kind, hidden).equals(found)


def test_what_is_not_of_the_wanted_type_goes_to_arrow() -> None:
    values = np.arange(5, dtype=np.int32)
    assert arrays.from_numpy(values, pa.int64()).equals(pa.array(values, pa.int64()))
    with pytest.raises(pa.ArrowNotImplementedError):  # Arrow swaps no bytes, nor do we
        arrays.from_numpy(values.astype(">i4"))
    texts = np.array(["a", "b"])
    assert arrays.from_numpy(texts).equals(pa.array(texts))
    unaligned = np.frombuffer(b"\0" + values.tobytes(), np.int32, offset=1)
    assert arrays.from_numpy(unaligned).equals(pa.array(values))


def test_memory_is_shared_and_not_to_be_written() -> None:
    values = np.arange(10)
    array = arrays.from_numpy(values)
    assert array.buffers()[1].address == values.ctypes.data
    back = arrays.to_numpy(array.slice(2))
    assert np.shares_memory(back, values)
    assert not back.flags.writeable


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None), (None, pa.list_(pa.int8())), (True, None), (3, None), (-(1 << 63), None), (1.5, None), ("é", None),
        ("", pa.string()), ("x", pa.large_string()), (3, pa.uint8()), (2, pa.float64()), (np.float32(0.1), pa.float32()),
        (b"x", None), (Decimal("1.50"), None), (Decimal("1.5"), pa.decimal128(9, 3)), ([1, 2], pa.list_(pa.int64())),
        (0, pa.timestamp("us")), (float("inf"), pa.float32()),
    ],
)  # fmt: skip
def test_scalars(value: Any, kind: pa.DataType | None) -> None:
    found, expected = arrays.scalar(value, kind), pa.scalar(value, kind)
    assert found.type == expected.type
    assert found.equals(expected)


@pytest.mark.parametrize(
    ("value", "kind"), [(256, pa.uint8()), (-1, pa.uint64()), (1 << 63, None), ("\ud800", None)]
)
def test_scalars_that_do_not_fit(value: Any, kind: pa.DataType | None) -> None:
    with pytest.raises((pa.ArrowInvalid, OverflowError, UnicodeEncodeError)) as expected:
        pa.scalar(value, kind)
    with pytest.raises(expected.type):
        arrays.scalar(value, kind)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], pa.string()), ([], pa.int8()), (["a", "", "bé"], pa.string()), (["a", None], pa.large_string()),
        ([1, 2], pa.int16()), ([1, None], pa.int16()), ([1, 2.5], pa.float32()), ([True, False], pa.bool_()),
        ([np.int64(3), 4], pa.int64()), ([[1], []], pa.list_(pa.int8())),
    ],
)  # fmt: skip
def test_lists_of_values(values: list[Any], kind: pa.DataType) -> None:
    found = arrays.from_python(values, kind)
    found.validate(full=True)
    assert found.equals(pa.array(values, kind))


def test_validity_of_nested_and_encoded_arrays() -> None:
    for array in (
        pa.array([[1], None, []]),
        pa.array([{"a": 1}, None]),
        pa.nulls(3),
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None])),
        pa.array([1, None], pa.bool8().storage_type).cast(pa.bool8()),
        pa.array(["a", None, "b"], pa.string_view()),
    ):
        for part in (array, array.slice(1)):
            np.testing.assert_array_equal(arrays.valid(part), part.is_valid().to_numpy(zero_copy_only=False))


def test_take() -> None:
    batch = pa.record_batch({"a": [1, 2, 3], "b": ["x", None, "z"]})
    assert arrays.take(batch, np.array([2, 0, 0])).equals(batch.take(pa.array([2, 0, 0])))
    expected = pa.array([3, None])
    assert arrays.take(batch["a"], np.array([2, 1]), np.array([False, True])).equals(expected)
    assert arrays.empty_batch(batch.schema).equals(batch.slice(0, 0))
