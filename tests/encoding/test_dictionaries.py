"""When the values of a page become a dictionary, and what a sample of long values says about that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum.encoding import dictionaries
from pilum.encoding.arrow_blocks import from_arrow
from pilum.encoding.blocks import VariableBlock
from pilum.encoding.options import EncodeOptions

ROWS = 5000


def block(values: list[bytes]) -> Any:
    found = from_arrow(pa.array(values, pa.binary()))
    assert isinstance(found, VariableBlock)
    return found


def long(heads: Any, tails: Any) -> list[bytes]:
    return [b"%08d" % head + bytes(150) + b"%08d" % tail for head, tail in zip(heads, tails, strict=True)]


@pytest.mark.parametrize(
    ("heads", "tails", "expected"),
    [(ROWS, 1, None), (1, ROWS, None), (20, 1, 20), (1, 20, 20), (20, 20, 20)],
)
def test_long_values(heads: int, tails: int, expected: int | None) -> None:
    number = np.arange(ROWS)
    found = dictionaries.dictionary_of(block(long(number % heads, number % tails)), EncodeOptions())
    assert (None if found is None else found.items.count) == expected


def test_beginnings_never_show_more_than_the_values() -> None:
    """Equal values have equal beginnings, whatever follows them in the page; different lengths are different."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        values = [bytes(rng.integers(0, 2, rng.integers(0, 20)).tolist()) for _ in range(300)]
        values += values[:100]
        shown = dictionaries._beginnings(block(values), np.arange(len(values))).data.reshape(len(values), -1)
        heads = {(value[: dictionaries._BEGINNING], len(value)) for value in values}
        assert len({row.tobytes() for row in shown}) == len(heads)
