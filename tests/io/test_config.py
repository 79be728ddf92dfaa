"""Settings from the environment."""

from __future__ import annotations

import os

import pytest

from pilum import config
from pilum.errors import InvalidInputError

VARIABLES = {
    "LANCE_DEFAULT_FRAGMENT_READAHEAD": (config.default_fragment_readahead, None),
    "LANCE_DEFAULT_BATCH_SIZE": (config.default_batch_size, None),
    "LANCE_INLINE_SCHEDULING_THRESHOLD": (config.inline_scheduling_threshold, 16384),
    "LANCE_IO_THREADS": (lambda: config.io_parallelism(8), 8),
    "LANCE_MAX_IOP_SIZE": (config.max_request_size, 16 << 20),
    "LANCE_DEFAULT_IO_BUFFER_SIZE": (config.io_buffer_size, 256 << 20),
    "LANCE_CPU_THREADS": (
        config.cpu_threads,
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    ),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read, default = VARIABLES[name]
    monkeypatch.delenv(name, raising=False)
    if default is not None or name.startswith("LANCE_DEFAULT"):
        assert read() == default
    monkeypatch.setenv(name, "")
    assert read() == (default or read())
    monkeypatch.setenv(name, " 77 ")
    assert read() == 77
    for bad in ("many", "-1", "1.5"):
        monkeypatch.setenv(name, bad)
        with pytest.raises(InvalidInputError, match=f"{name}.*{bad}"):
            read()


def test_zero() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANCE_INLINE_SCHEDULING_THRESHOLD", "0")
        assert config.inline_scheduling_threshold() == 0
        patch.setenv("LANCE_DEFAULT_BATCH_SIZE", "0")
        with pytest.raises(InvalidInputError):
            config.default_batch_size()
