"""Arrow arrays of NumPy arrays and of plain Python values, and back, with nothing imported on the way.

`pa.array`, `pa.scalar` and `to_numpy` begin with a look for pandas: where it is installed they import it (0.5 s), even
for an array of integers, and a child that is forked meanwhile hangs (see `pilum.imports`).  What queries and
writes convert has few types; it is made here of buffers, which are shared and not copied.  Any other value goes to
Arrow, which has then imported all it wants beside no fork.  The same holds for ``pyarrow.compute`` (50 ms), which the methods
of arrays import when they are called: `compute`, `take`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import imports

__all__ = [
    "compute",
    "empty",
    "empty_batch",
    "filled",
    "from_numpy",
    "from_python",
    "prepare",
    "scalar",
    "take",
    "to_numpy",
    "valid",
]

types = pa.types

_DTYPES: dict[pa.DataType, np.dtype[Any]] = {
    pa.int8(): np.dtype(np.int8),
    pa.int16(): np.dtype(np.int16),
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.uint8(): np.dtype(np.uint8),
    pa.uint16(): np.dtype(np.uint16),
    pa.uint32(): np.dtype(np.uint32),
    pa.uint64(): np.dtype(np.uint64),
    pa.float16(): np.dtype(np.float16),
    pa.float32(): np.dtype(np.float32),
    pa.float64(): np.dtype(np.float64),
    pa.bool_(): np.dtype(np.bool_),
}
_TYPES = {dtype: kind for kind, dtype in _DTYPES.items()}
_STRING, _LARGE_STRING = pa.string(), pa.large_string()
_OF_PYTHON = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: _STRING}

_prepared = False


def compute() -> Any:
    """The module ``pyarrow.compute``; methods of arrays that use it are safe beside forks from here on."""
    return imports.load("pyarrow.compute")


def prepare() -> None:
    """Let Arrow import what it converts Python values with, so that it is there before the next fork."""
    global _prepared
    if not _prepared:
        with imports.guard():
            compute()
            pa.scalar(0)
            pa.scalar(0, pa.timestamp("ns", "UTC")).as_py()
        _prepared = True


# -- to Arrow ------------------------------------------------------------------------------------------


def from_numpy(
    values: npt.NDArray[Any], type_: pa.DataType | None = None, mask: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    """As `pa.array` of a one-dimensional array: its memory is shared where it has the layout of Arrow.

    Args:
        values: the values.
        type_: of the result, by default that of the values.
        mask: True where the result is null.
    """
    kind = _TYPES.get(values.dtype) if type_ is None else type_
    if kind is None or values.ndim != 1 or _DTYPES.get(kind) != values.dtype or not values.dtype.isnative:
        prepare()
        return pa.array(values, type_, mask=mask)
    data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else values
    if not (data.flags.c_contiguous and data.flags.aligned):
        data = data.copy()
    bitmap, nulls = None, 0
    if mask is not None and (nulls := int(np.count_nonzero(mask))):
        bitmap = pa.py_buffer(np.packbits(~mask, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [bitmap, pa.py_buffer(data)], nulls)


def empty(type_: pa.DataType) -> pa.Array:
    """An array of no values."""
    return pa.nulls(0, type_)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A batch of no rows."""
    return pa.RecordBatch.from_arrays([empty(field.type) for field in schema], schema=schema)


def scalar(value: Any, type_: pa.DataType | None = None) -> pa.Scalar:
    """As `pa.scalar`.

    Raises:
        pa.ArrowInvalid, OverflowError: the value does not fit the type.
    """
    if value is None:
        return pa.nulls(1, type_ or pa.null())[0]
    found = _plain([value], _OF_PYTHON.get(type(value)) if type_ is None else type_)
    if found is None:
        prepare()
        return pa.scalar(value, type_)
    return found[0]


def from_python(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """As `pa.array` of Python values, None for null.

    Raises:
        pa.ArrowInvalid, OverflowError: a value does not fit the type.
    """
    found = _plain(values, type_)
    if found is None:
        prepare()
        found = pa.array(values, type_)
    return found


def _plain(values: Sequence[Any], type_: pa.DataType | None) -> pa.Array | None:
    """An array of booleans, numbers or strings; None when that is not what these values are."""
    kinds = {type(value) for value in values}
    if type_ is None or type(None) in kinds:
        return None
    dtype = _DTYPES.get(type_)
    if dtype is None:
        if type_ not in (_STRING, _LARGE_STRING) or kinds - {str}:
            return None
        try:
            texts = [value.encode() for value in values]
        except UnicodeEncodeError:
            return None
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        if type_ == _STRING:
            if ends[-1] >= 1 << 31:
                return None
            ends = ends.astype(np.int32)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
        return pa.Array.from_buffers(type_, len(texts), buffers, 0)
    if dtype.kind == "b":
        fits = not kinds - {bool, np.bool_}
    elif dtype.kind == "f":
        fits = not kinds - {float, dtype.type}
    else:
        fits = not kinds - {int} and (
            not values or (min(values) >= np.iinfo(dtype).min and max(values) <= np.iinfo(dtype).max)
        )
    return from_numpy(np.array(values, dtype), type_) if fits else None


# -- from Arrow ----------------------------------------------------------------------------------------


def to_numpy(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """As ``to_numpy(zero_copy_only=False)``: numbers without nulls are shared (read-only), others copied.

    Nulls are NaN, for which integers become doubles.
    """
    if isinstance(array, pa.ChunkedArray):
        array = (
            array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks or [empty(array.type)])
        )
    dtype = _DTYPES.get(array.type)
    if dtype is None or (dtype.kind == "b" and array.null_count):
        prepare()
        result: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return result
    buffer, count = array.buffers()[1], len(array)
    if not count or buffer is None:
        return np.zeros(count, dtype)
    if dtype.kind == "b":
        return _bits(buffer, array.offset, count)
    values = np.frombuffer(buffer, dtype, count, array.offset * dtype.itemsize)
    if array.null_count:
        values = values.astype(dtype if dtype.kind == "f" else np.float64)
        values[~valid(array)] = np.nan
    else:
        values.flags.writeable = False
    return values


def filled(array: pa.Array) -> npt.NDArray[Any]:
    """As `to_numpy`, but nulls are 0 (False) and the type stays."""
    if not array.null_count:
        return to_numpy(array)
    if array.type not in _DTYPES:
        return to_numpy(compute().fill_null(array, scalar(0, array.type)))
    whole = pa.Array.from_buffers(array.type, len(array), [None, array.buffers()[1]], 0, array.offset)
    return np.where(valid(array), to_numpy(whole), _DTYPES[array.type].type(0))


def valid(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """True where the array is not null, as ``is_valid``."""
    if isinstance(array, pa.ChunkedArray):
        parts = [valid(chunk) for chunk in array.chunks]
        return np.concatenate(parts) if parts else np.ones(0, np.bool_)
    if isinstance(array.type, pa.BaseExtensionType):
        return valid(array.storage)
    kind, count = array.type, len(array)
    if types.is_null(kind):
        return np.zeros(count, np.bool_)
    if types.is_union(kind) or types.is_run_end_encoded(kind) or types.is_dictionary(kind):
        prepare()
        mask: npt.NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
        return mask
    if not array.null_count:
        return np.ones(count, np.bool_)
    return _bits(array.buffers()[0], array.offset, count)


def _bits(buffer: pa.Buffer, offset: int, count: int) -> npt.NDArray[np.bool_]:
    first = offset // 8
    data = np.frombuffer(buffer, np.uint8)[first : (offset + count + 7) // 8]
    return np.unpackbits(data, count=offset - 8 * first + count, bitorder="little")[
        offset - 8 * first :
    ].view(np.bool_)


# -- kernels that need an array of indices -------------------------------------------------------------


def take(values: Any, indices: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> Any:
    """Rows of an array, a batch or a table by number.

    Args:
        values: what to take from.
        indices: positions, any order.
        mask: True where the result is null.
    """
    compute()
    return values.take(from_numpy(indices, mask=mask))
