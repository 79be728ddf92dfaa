"""What tests of all rooms share: where the golden data is, and how to read its expectations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PILUM_SHARED", REPOSITORY.parent / "shared"))
GOLDEN = SHARED / "golden"


def golden_files(area: str, pattern: str = "*.lance") -> list[Path]:
    """Data files (or dataset folders) of one golden area, sorted; empty if the area is not there."""
    return sorted((GOLDEN / area).glob(pattern))


def all_data_files() -> list[Path]:
    """Every data file below the golden folder, those inside datasets included."""
    return sorted(path for path in GOLDEN.rglob("*.lance") if path.is_file())


def expected_table(path: Path) -> Any:
    """The `pa.Table` of an Arrow IPC file next to a golden file."""
    with pa.OSFile(os.fspath(path)) as source:
        return pa.ipc.open_file(source).read_all()
