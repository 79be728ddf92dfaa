"""One server for the session, and a place of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.cloud.server import BUCKET, SCRIPT, Server, process

pytest.importorskip("obstore")
pytest.importorskip("aiohttp")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _running() -> Iterator[Server]:
    if not SCRIPT.is_file():
        pytest.skip(f"no {SCRIPT}; set PILUM_SHARED")
    with process() as server:
        yield server


@pytest.fixture
def server(_running: Server) -> Server:
    """The server without faults or latency."""
    _running.configure()
    return _running


@pytest.fixture
def uri() -> str:
    """Address of a table that is not there yet."""
    return f"s3://{BUCKET}/table {next(_numbers)}"
