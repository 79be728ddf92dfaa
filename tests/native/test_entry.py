"""Machine code called from Python: values arrive and come back, and whatever does not fit is refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pilum.native.loader import load_code
from tests.native.sources import SCALED, compiled, nothing, scaled, source, sum_of_halves


@pytest.fixture(scope="module", params=["image", "object file"])
def function(request: pytest.FixtureRequest) -> Callable[..., Any]:
    one = source(scaled, SCALED)
    loaded = load_code(one, compiled(one, image=request.param == "image"))
    assert loaded is not None
    return loaded


def arguments() -> list[Any]:
    table = np.arange(6, dtype=np.uint16).reshape(2, 3)
    return [np.arange(4), table, 10, 0.5, np.empty(4)]


def test_it_computes(function: Callable[..., Any]) -> None:
    given = arguments()
    assert function(*given) == 2003
    assert given[4].tolist() == [k * 30 + 1.5 for k in range(4)]


def test_it_accepts_all_that_is_such_an_array(function: Callable[..., Any]) -> None:
    given = arguments()
    given[0].flags.writeable = False
    given[2], given[3] = np.int64(10), np.float32(0.5)
    assert function(*given) == 2003
    given[0] = np.arange(4, dtype=np.longlong)
    given[1] = np.frombuffer(b"x" + given[1].tobytes(), np.uint16, offset=1).reshape(2, 3)
    assert not given[1].flags.aligned
    given[4][:] = 0
    assert function(*given) == 2003
    assert given[4].tolist() == [k * 30 + 1.5 for k in range(4)]
    for empty in (np.empty(0, np.int64), np.arange(0)):
        assert function(empty, *given[1:]) == 2003


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class Array(np.ndarray):
    """Another class: what its memory holds is not ours to know."""


WRONG: dict[str, tuple[int, Any]] = {
    "element": (1, np.arange(4, dtype=np.int32)),
    "sign": (1, np.arange(4, dtype=np.uint64)),
    "float": (1, np.arange(4.0)),
    "moments": (1, np.zeros(4, "M8[s]")),
    "byte order": (1, np.arange(4).astype(">i8" if sys.byteorder == "little" else "<i8")),
    "steps": (1, np.arange(8)[::2]),
    "dimensions": (1, np.arange(4).reshape(2, 2)),
    "none": (1, np.array(3)),
    "list": (1, [1, 2, 3, 4]),
    "nothing": (1, None),
    "subclass": (1, np.arange(4).view(Array)),
    "class": (1, np.ndarray),
    "order": (2, np.asfortranarray(np.zeros((2, 3), np.uint16))),
    "one dimension": (2, np.zeros(6, np.uint16)),
    "too large": (3, 1 << 31),
    "too small": (3, -(1 << 31) - 1),
    "read-only output": (5, _read_only(np.empty(4))),
    "unaligned output": (5, np.frombuffer(bytearray(33), np.float64, offset=1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(function: Callable[..., Any], name: str) -> None:
    position, value = WRONG[name]
    given = arguments()
    given[position - 1] = value
    with pytest.raises(TypeError, match=rf"scaled: argument {position} must be (an? .*array|a number)"):
        function(*given)


def test_numbers_that_are_none_are_refused(function: Callable[..., Any]) -> None:
    for position, value, error in [
        (3, 1.5, TypeError), (3, "3", TypeError), (3, 1 << 70, OverflowError), (4, "x", TypeError), (4, None, TypeError),
    ]:  # fmt: skip
        given = arguments()
        given[position - 1] = value
        with pytest.raises(error):
            function(*given)


def test_minus_one_is_a_number(function: Callable[..., Any]) -> None:
    given = arguments()
    given[2:4] = -1, -1.0
    assert function(*given) == 2003
    assert given[4].tolist() == [-3.0 * k - 3 for k in range(4)]


@pytest.mark.parametrize("count", [0, 4, 6])
def test_another_number_of_arguments_is_refused(function: Callable[..., Any], count: int) -> None:
    with pytest.raises(TypeError, match="scaled: takes 5 arguments"):
        function(*[*arguments(), 1][:count])
    with pytest.raises(TypeError, match="keyword"):
        function(*arguments()[:4], out=1)


def test_results_of_every_kind() -> None:
    one = source(nothing, "void(u1)", nogil=False)
    function = load_code(one, compiled(one))
    assert function is not None
    values = np.zeros(2, np.uint8)
    before = sys.getrefcount(None)
    for _ in range(100):
        assert function(values) is None
    assert abs(sys.getrefcount(None) - before) < 50
    assert values.tolist() == [7, 0]
    one = source(sum_of_halves, "f8(r.f4, =f8)")
    function = load_code(one, compiled(one))
    assert function is not None
    assert function(np.array([4.0, 9.0], np.float32), 0.5) == 5.0


def test_arguments_are_neither_kept_nor_released(function: Callable[..., Any]) -> None:
    given = arguments()
    before = [sys.getrefcount(one) for one in given]
    for _ in range(100):
        function(*given)
    assert [sys.getrefcount(one) for one in given] == before


def test_threads_call_it_at_once(function: Callable[..., Any]) -> None:
    found: list[list[float]] = []

    def call() -> None:
        for _ in range(200):
            given = arguments()
            function(*given)
        found.append(given[4].tolist())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [[k * 30 + 1.5 for k in range(4)]] * 4
