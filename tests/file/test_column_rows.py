"""Scattered rows of columns of many pages: the same with kernels and without, and damage is found page by page.

The columns are members of structs: others are read all in one go (`test_scattered`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum import jit
from pilum.encoding.column_rows import ColumnRows
from pilum.encoding.miniblock import MiniBlockDecoder
from pilum.encoding.page import PageDecoder, PageRead
from pilum.errors import CorruptFileError
from pilum.file import FileReader
from pilum.file.metadata import Column
from pilum.file.plan import ColumnRead
from pilum.io import MemoryStore
from tests.file.files import assert_same, drive, read_memory, write_memory

ROWS = 6000


def lists(items: Callable[[Any, int], list[Any]]) -> Callable[[Any], Any]:
    return lambda g: pa.array(
        [None if g.random() < 0.05 else items(g, int(g.integers(0, 4))) for _ in range(ROWS)]
    )


COLUMNS: dict[str, Callable[[Any], Any]] = {
    "integers": lambda g: pa.array(g.integers(0, 1 << 40, ROWS)),
    "nulls": lambda g: pa.array(g.integers(0, 99, ROWS), mask=g.random(ROWS) < 0.3),
    "dictionary": lambda g: pa.array(g.choice(g.integers(0, 1 << 60, 60), ROWS)),
    "words": lambda g: pa.array([f"word {k}" for k in g.integers(0, 1 << 30, ROWS).tolist()]),
    "few words": lambda g: pa.array([f"one of a few words {k}" for k in g.integers(0, 9, ROWS).tolist()]),
    "lists": lists(lambda g, size: g.integers(0, 1000, size).tolist()),
    "lists of words": lists(lambda g, size: [f"item {k}" for k in g.integers(0, 1 << 20, size).tolist()]),
    "lists of nulls": lists(lambda g, size: [None if k < 3 else k for k in g.integers(0, 9, size).tolist()]),
}


def written(name: str, pieces: int = 6) -> tuple[Any, Any, str]:
    """A column in as many pages as pieces, or about as many."""
    array = pa.StructArray.from_arrays([COLUMNS[name](np.random.default_rng(len(name)))], ["member"])
    batches = [pa.record_batch({"a": part}) for part in (array.slice(k, 500) for k in range(0, ROWS, 500))]
    store, path = write_memory(batches, page_bytes=max(1024, array.nbytes // pieces))
    return array, store, path


def scattered(seed: int, count: int) -> Any:
    return np.sort(np.random.default_rng(seed).choice(ROWS, count, replace=False))


@pytest.mark.parametrize("count", [2, 9, 60, 1500])
@pytest.mark.parametrize("name", list(COLUMNS))
def test_rows(name: str, count: int, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    array, store, path = written(name)
    rows = scattered(count, count)
    for on in (True, False):
        monkeypatch.setattr(jit, "switched_on", on)
        assert_same(read_memory(store, path, rows).column(0), array.take(pa.array(rows)))


@pytest.mark.parametrize("name", list(COLUMNS))
def test_pages_are_read_together(name: str, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page decodes chunks of its own."""
    array, store, path = written(name)
    rows = scattered(5, 12)
    reader = drive(FileReader.open(store, path))
    drive(reader.read_batch(range(ROWS)))  # every page knows its chunks now
    used = []

    def counted(self: ColumnRows, *args: Any) -> Any:
        used.append(found := decode(self, *args))
        return found

    decode = ColumnRows._decode
    monkeypatch.setattr(ColumnRows, "_decode", counted)
    monkeypatch.setattr(MiniBlockDecoder, "_decode_chunks", None)
    assert_same(drive(reader.read_batch(rows)).column(0), array.take(pa.array(rows)))
    assert len(used) == 1
    assert used[0] is not None


@pytest.mark.fault
@pytest.mark.parametrize("name", list(COLUMNS))
def test_damage(name: str, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged chunks give the right rows or an error that names the place, never others than without kernels."""
    _, store, path = written(name)
    reader = drive(FileReader.open(store, path))
    drive(reader.read_batch(range(ROWS)))
    column = next(iter(drive(reader.initialise()).columns))
    assert len(column.pages) > 1
    body = bytes(drive(store.get(path, 0, drive(store.head(path)).size)))
    rows = scattered(3, 20)
    rng = np.random.default_rng(1)
    messages: list[str] = []
    for _ in range(40):
        low, high = column.extents[int(rng.integers(len(column.pages)))]
        damaged = bytearray(body)
        at = int(rng.integers(low, high))
        damaged[at : at + 12] = rng.bytes(min(12, high - at))
        copy = MemoryStore(f"damaged-{name}-{at}")
        drive(copy.put(path, bytes(damaged)))
        outcomes = []
        for on in (True, False):
            monkeypatch.setattr(jit, "switched_on", on)
            reader = drive(FileReader.open(copy, path))
            with suppress(CorruptFileError):
                drive(reader.read_batch(range(ROWS)))
            try:
                outcomes.append(drive(reader.read_batch(rows)))
            except CorruptFileError as error:
                outcomes.append(None)
                messages.append(str(error))
        fast, plain = outcomes
        if plain is not None:
            assert fast is not None
            assert fast.equals(plain)
    assert messages or name in ("integers", "nulls")
    assert all("column a" in text or "page" in text for text in messages)


class Page(PageDecoder):
    """A page of two rows, each a chunk of 8 bytes; the bytes say which."""

    def __init__(self, place: int) -> None:
        self.num_rows, self.layers, self.place = 2, (1,), place

    def schedule(self, rows: Any) -> PageRead:
        ranges = [(self.place + 8 * int(row), self.place + 8 * int(row) + 8) for row in rows]
        return PageRead([(ranges[0][0], ranges[-1][1])] if len(ranges) == 2 else ranges, _not_decoded)


def _not_decoded(buffers: list[Any]) -> Any:
    raise AssertionError


def test_pages_may_lie_in_any_order() -> None:
    """Read one by one after all, each page gets its own chunks, wherever it lies in the file."""
    pages = [Page(200), Page(100), Page(300)]
    column = Column(0, [*pages], [(page.place, page.place + 16) for page in pages])
    rows = np.array([0, 1, 3, 4])
    ranges = [(200, 208), (208, 216), (108, 116), (300, 308)]
    chunks = [np.full(8, place // 8, np.uint8) for place, _ in ranges]
    read = ColumnRead(ranges, lambda buffers: None, column, rows)
    found = [(number, [part.tolist() for part in parts]) for number, _, parts in read.pages(chunks)]
    assert found == [(0, [[25] * 8 + [26] * 8]), (1, [[13] * 8]), (2, [[37] * 8])]
