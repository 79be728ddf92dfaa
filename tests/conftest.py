"""Hooks and fixtures of the whole suite: golden tests need the shared folder, and say so when it is missing."""

from __future__ import annotations

import pytest

from pilum import jit
from pilum.encoding import kernels
from tests.support import GOLDEN


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if GOLDEN.is_dir():
        return
    missing = pytest.mark.skip(reason=f"no golden data at {GOLDEN}; set PILUM_SHARED to its parent folder")
    for item in items:
        if item.get_closest_marker("golden"):
            item.add_marker(missing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not GOLDEN.is_dir():
        terminalreporter.section("golden data")
        terminalreporter.line(f"SKIPPED ALL GOLDEN TESTS: no folder {GOLDEN} (set PILUM_SHARED)")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel is loaded, and used whatever the size of its input."""
    if not kernels.enabled() or not kernels.preload():
        pytest.skip("Numba is switched off or missing")
    for kernel in jit._kernels:
        monkeypatch.setattr(kernel, "small", 0)
