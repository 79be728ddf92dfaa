"""Helpers of the file tests: golden cases, comparison by value, files in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pilum.file import FileReader, FileWriter
from pilum.io import LocalStore, MemoryStore, Store, run
from pilum.schema import Schema
from tests.support import GOLDEN, expected_table


def drive(coroutine: Any) -> Any:
    """Run a coroutine over a store that never suspends."""
    return run(coroutine, suspends=False)


def golden_case_files(version: str = "") -> list[Path]:
    """The single data files of the areas ``structure`` and ``compression`` in formats 2.1 to 2.3."""
    found = []
    for path in sorted([*GOLDEN.glob("structure/*.lance"), *GOLDEN.glob("compression/*.lance")]):
        tag = version_of(path)
        if path.is_file() and tag in ("2.1", "2.2", "2.3") and (not version or tag == version):
            found.append(path)
    return found


def version_of(path: Path) -> str:
    """``2.1`` of ``fsl-2.1.lance`` and of ``fsl_2_1_by_6_0_1.lance``."""
    if path.parent.name == "compression":
        return path.stem.rpartition("-")[2]
    parts = path.stem.partition("_by_")[0].split("_")
    return ".".join(parts[-2:])


def expectation(path: Path) -> pa.Table:
    """The expected content of a golden file."""
    stem = path.stem.rpartition("-")[0] if path.parent.name == "compression" else path.stem
    return expected_table(path.with_name(f"{stem}.arrow"))


def open_local(path: Path, projection: Sequence[str] | None = None) -> FileReader:
    """A reader of a file on disk."""
    return drive(FileReader.open(LocalStore(path.parent), path.name))


def write_memory(
    batches: Sequence[pa.RecordBatch], *, version: tuple[int, int] = (2, 2), store: Store | None = None,
    path: str = "file.lance", **options: Any,
) -> tuple[Store, str]:  # fmt: skip
    """Write batches to a file in memory."""
    store = store or MemoryStore()

    async def write() -> None:
        writer = await FileWriter.create(
            store, path, Schema.from_arrow(batches[0].schema), version=version, **options
        )
        async with writer:
            for batch in batches:
                await writer.write(batch)

    drive(write())
    return store, path


def read_memory(
    store: Store, path: str, rows: Any = None, columns: Sequence[str] | None = None
) -> pa.RecordBatch:
    """Rows of a file."""

    async def read() -> pa.RecordBatch:
        reader = await FileReader.open(store, path)
        return await reader.read_batch(rows, columns)

    return drive(read())


def plain(array: Any) -> Any:
    """The array with chunks joined, dictionaries decoded and extension types as stored."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.array([], array.type) if array.num_chunks == 0 else array.chunk(0)
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage)
    if pa.types.is_dictionary(kind):
        return array.dictionary_decode()
    if pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_binary_view(kind):
        return array.cast(pa.binary())
    return array


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """Equality of two arrays by value; NaN equals NaN, whatever its bits in a null slot."""
    found, expected = plain(found), plain(expected)
    found.validate(full=True)
    assert len(found) == len(expected), where
    if found.type != expected.type and not pa.types.is_nested(expected.type):
        assert found.type == expected.type, f"{where}: {found.type} instead of {expected.type}"
    if found.equals(expected):
        return
    assert same_values(found, expected), f"{where}: {found.slice(0, 20)} instead of {expected.slice(0, 20)}"


def same_values(found: Any, expected: Any) -> bool:
    """Structural comparison that treats NaN as equal to itself."""
    found, expected = plain(found), plain(expected)
    if len(found) != len(expected) or found.is_null().to_pylist() != expected.is_null().to_pylist():
        return False
    kind = expected.type
    if pa.types.is_floating(kind):
        valid = expected.is_valid().to_numpy(zero_copy_only=False)
        left, right = (side.fill_null(0).to_numpy(zero_copy_only=False) for side in (found, expected))
        return bool(np.array_equal(left[valid], right[valid], equal_nan=True))
    if pa.types.is_struct(kind):
        valid = expected.is_valid()
        return all(
            same_values(found.field(i).filter(valid), expected.field(i).filter(valid))
            for i in range(kind.num_fields)
        )
    if pa.types.is_nested(kind):
        valid = expected.is_valid()
        left, right = found.filter(valid), expected.filter(valid)
        if pa.types.is_fixed_size_list(kind):
            return same_values(left.flatten(), right.flatten())
        lengths = [np.diff(side.offsets.to_numpy()).tolist() for side in (left, right)]
        if lengths[0] != lengths[1]:
            return False
        if pa.types.is_map(kind):
            return same_values(_joined(left, "keys"), _joined(right, "keys")) and same_values(
                _joined(left, "items"), _joined(right, "items")
            )
        return same_values(left.flatten(), right.flatten())
    return bool(found.equals(expected))


def _joined(maps: Any, what: str) -> Any:
    offsets = maps.offsets.to_numpy()
    return getattr(maps, what).slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
