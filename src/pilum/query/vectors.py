"""Small tools for kernels that Arrow does not have: broadcasting, and Python functions per distinct value.

Kernels receive arrays and scalars (constants); at least one is an array.  A function that only exists in Python
runs once per distinct value of a column, not once per row: filters mostly meet few distinct values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays

__all__ = ["as_array", "broadcast", "mask_to_array", "per_distinct", "validity"]


def as_array(value: Any, length: int) -> Any:
    """A scalar repeated ``length`` times; arrays are returned as they are."""
    if not isinstance(value, pa.Scalar):
        return value
    # pa.repeat refuses to repeat a list 0 times.
    return pa.repeat(value, length) if length else arrays.empty(value.type)


def broadcast(*values: Any) -> list[Any]:
    """All operands as arrays of the length of the first array among them (1 when there is none)."""
    length = next((len(value) for value in values if not isinstance(value, pa.Scalar)), 1)
    return [as_array(value, length) for value in values]


def validity(array: Any) -> npt.NDArray[np.bool_]:
    """True where the array is not null."""
    return arrays.valid(array)


def mask_to_array(values: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_]) -> Any:
    """A boolean array that is null where ``valid`` is False."""
    return arrays.from_numpy(values, mask=~valid)


def per_distinct(
    function: Callable[..., Any], type_: pa.DataType, *values: Any, null_in: bool = False
) -> Any:
    """Apply a Python function to every distinct combination of its operands.

    A null operand gives null without a call, unless ``null_in``: then the function sees None.
    """
    arrays.prepare()  # what the function returns may be anything
    columns = [value for value in values if not isinstance(value, pa.Scalar)]
    if not columns:
        return per_distinct(function, type_, *broadcast(*values), null_in=null_in)

    def call(operands: tuple[Any, ...]) -> Any:
        return None if not null_in and any(operand is None for operand in operands) else function(*operands)

    constants = [value.as_py() if isinstance(value, pa.Scalar) else None for value in values]
    if len(columns) == 1 and not pa.types.is_nested(columns[0].type):
        position = next(index for index, value in enumerate(values) if not isinstance(value, pa.Scalar))
        encoded = pc.dictionary_encode(columns[0], null_encoding="encode")
        results = []
        for item in encoded.dictionary.to_pylist():
            constants[position] = item
            results.append(call(tuple(constants)))
        return pc.take(arrays.from_python(results, type_), encoded.indices)
    rows = [
        [constant] * len(columns[0]) if isinstance(value, pa.Scalar) else value.to_pylist()
        for value, constant in zip(values, constants, strict=True)
    ]
    memory: dict[Any, Any] = {}
    results = []
    for operands in zip(*rows, strict=True):
        try:
            if operands not in memory:
                memory[operands] = call(operands)
            results.append(memory[operands])
        except TypeError:  # lists and structs are not hashable
            results.append(call(operands))
    return arrays.from_python(results, type_)
