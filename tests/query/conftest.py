"""One dataset, opened by both engines: a module of tests says where it lies (fixture ``uri``)."""

from __future__ import annotations

from typing import Any

import pytest

import pilum


@pytest.fixture(scope="module")
def ds(uri: str) -> pilum.LanceDataset:
    return pilum.dataset(uri)


@pytest.fixture(scope="module")
def reference(uri: str) -> Any:
    import lance

    return lance.dataset(uri)
