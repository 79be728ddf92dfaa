"""Small functions to compile, and what the tests of `pilum.native` do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pilum import jit
from pilum.native.code import Code
from pilum.native.source import Source

FACTOR = 3


def scaled(values: Any, table: Any, times: int, share: float, out: Any) -> int:
    """Fills ``out`` and returns how many rows the table has."""
    for k in range(values.size):
        out[k] = values[k] * FACTOR * times + table[table.shape[0] - 1, 0] * share
    return table.shape[0] * 1000 + table.shape[1]


def nothing(values: Any) -> None:
    values[0] = 7


def allocating(values: Any) -> int:
    space = np.zeros(values.size + 1, np.int64)
    return space.size


def sum_of_halves(values: Any, power: float) -> float:
    total = 0.0
    for k in range(values.size):
        total += values[k] ** power
    return total


def calling(text: Any) -> int:
    return c_length(text.ctypes.data)


c_length: Any = None  # exists in the compiled function only


def source(function: Callable[..., Any], signature: str, **options: Any) -> Source:
    defaults: dict[str, Any] = {
        "fastmath": False, "nogil": True, "externals": None, "library": None, "helpers": (),
    }  # fmt: skip
    return Source(function, signature, **{**defaults, **options})


SCALED = "i8(r.i8, r.u2[2], =i4, =f4, f8)"


def compiled(one: Source, *, image: bool = True) -> Code:
    """The machine code of a function, as an image or as an object file."""
    if not jit.enabled():
        pytest.skip("Numba is switched off or missing")
    from pilum.native import compiler

    code: Code | None = compiler.compile_code(one) if image else compiler.compile_object(one)
    assert code is not None
    return code
