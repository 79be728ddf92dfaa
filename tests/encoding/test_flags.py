"""Numbers of the flags that are set: the same with the kernel and without."""

from __future__ import annotations

import numpy as np
import pytest

from pilum.encoding.kernels.flags import _POSITIONS, positions


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 64, 1000, 12_345])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.6, 1.0])
def test_positions(rows: int, share: float, compiled: None) -> None:
    mask = np.random.default_rng(rows).random(rows) < share
    for one in (mask, mask[3:], mask[:-3], mask[::2]):
        found = positions(one, int(np.count_nonzero(one)))
        assert found.dtype == np.int64
        assert np.array_equal(found, np.flatnonzero(one))


def test_a_wrong_count_is_no_overflow(compiled: None) -> None:
    assert _POSITIONS.compiled is not None
    flags = np.ones(800, np.uint8)
    found = np.full(20, -7)
    assert _POSITIONS.compiled(flags.view(np.uint64), flags[:0], found[:18]) == -1
    assert found[18:].tolist() == [-7, -7]
