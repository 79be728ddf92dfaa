"""Pages decoded by the compiled kernels and by NumPy: the same rows, and the same pages refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum import jit
from pilum.encoding import miniblock
from pilum.encoding.kernels import memory, utf8
from pilum.encoding.options import EncodeOptions
from pilum.encoding.page import Rows
from pilum.encoding.pages import encode_page
from pilum.encoding.structure import assemble, shred
from pilum.errors import PilumError
from pilum.file.plan import DAMAGE
from pilum.schema import Schema
from tests.encoding import pages

ROWS = 5000


def nulled(array: Any, rng: Any, share: float = 0.1) -> Any:
    return pa.array(array.to_pylist(), array.type, mask=None) if share == 0 else pa.array(
        [None if hidden else value for value, hidden in zip(array.to_pylist(), rng.random(len(array)) < share, strict=True)],
        array.type,
    )  # fmt: skip


def lists(rng: Any, items: Any, kind: Any) -> Any:
    """Lists of 0 to 5 items, some of them null."""
    values = items.to_pylist()
    rows: list[Any] = []
    at = 0
    while at < len(values):
        size = int(rng.integers(0, 6))
        rows.append(None if rng.random() < 0.1 else values[at : at + size])
        at += size
    return pa.array(rows, kind(items.type))


def words(rng: Any, count: int) -> Any:
    pool = ["", "a", "Straße", "naïve", "日本語", "🙂 smile", "plain text of some length"]
    return pa.array([pool[k] for k in rng.integers(0, len(pool), count)])


CASES: dict[str, Callable[[Any], Any]] = {
    **{
        f"packed {kind}": lambda g, kind=kind: pa.array(g.integers(0, 100, ROWS).astype(kind))
        for kind in ("u1", "u2", "i4", "i8")
    },
    "wide": lambda g: pa.array(g.integers(0, 2**63, ROWS)),
    "bits": lambda g: pa.array(g.random(ROWS) < 0.5),
    "floats, nulls": lambda g: nulled(pa.array(g.random(ROWS)), g),
    "packed, nulls": lambda g: nulled(pa.array(g.integers(0, 1000, ROWS)), g, 0.5),
    "packed, few nulls": lambda g: nulled(pa.array(g.integers(0, 1000, ROWS)), g, 0.001),
    "runs": lambda g: pa.array(np.repeat(g.integers(0, 2**31, ROWS // 40), 40).astype("i4")),
    "long runs": lambda g: pa.array(np.repeat(g.integers(0, 2**15, 5), ROWS // 5).astype("u2")),
    "dictionary": lambda g: pa.array(g.choice(g.integers(0, 2**60, 50), ROWS)),
    "dictionary, nulls": lambda g: nulled(pa.array(g.choice(g.random(20), ROWS)), g),
    "words": lambda g: words(g, ROWS),
    "words, nulls": lambda g: nulled(words(g, ROWS), g),
    "large words": lambda g: words(g, ROWS).cast(pa.large_string()),
    "names": lambda g: pa.array([f"näme {k} of {k % 7}" for k in g.permutation(ROWS).tolist()]),
    "names, nulls": lambda g: nulled(pa.array([f"name {k}" for k in g.permutation(ROWS).tolist()]), g),
    "bytes": lambda g: pa.array([g.bytes(int(n)) for n in g.integers(0, 20, ROWS)]),
    "lists": lambda g: lists(g, pa.array(g.integers(0, 1000, ROWS)), pa.list_),
    "lists, nulls": lambda g: lists(g, nulled(pa.array(g.integers(0, 1000, ROWS)), g), pa.large_list),
    "lists of words": lambda g: lists(g, words(g, ROWS), pa.list_),
    "lists of lists": lambda g: lists(g, lists(g, pa.array(g.integers(0, 1000, ROWS)), pa.list_), pa.list_),
    "long lists": lambda g: pa.array(g.integers(0, 99, (60, 900)).tolist(), pa.list_(pa.int16())),
    "no lists but some": lambda g: pa.array(
        [None] * ROWS + [[1, 2]] + [[]] * ROWS + [[3]], pa.list_(pa.int64())
    ),
    "full lists": lambda g: pa.array(g.integers(0, 9, (ROWS // 4, 4)).tolist(), pa.list_(pa.int32())),
}


def encoded(name: str, compression: str | None = None) -> tuple[Any, Any, Any, Any]:
    """A case as an array, its field, and the page of it in a file."""
    array = CASES[name](np.random.default_rng(len(name)))
    field = Schema.from_arrow(pa.schema([pa.field("a", array.type)])).fields[0]
    (leaf,) = shred(field, array)
    page = encode_page(leaf, options=EncodeOptions(version=(2, 2), compression=compression))
    source, data = pages.place(page)
    if source.layout.WhichOneof("layout") != "mini_block_layout":
        pytest.skip("another layout")
    return array, field, source, data


def some_rows(count: int) -> list[Rows]:
    rng = np.random.default_rng(count)
    found: list[Rows] = [range(count), range(count // 3, count // 2), range(7, 8), range(count - 1, count)]
    for number in (2, 40, count // 3):
        found.append(np.sort(rng.choice(count, number, replace=False)))
    return found


def outcome(source: Any, data: Any, field: Any, rows: Rows) -> Any:
    """The rows, or what is said of the page."""
    try:
        page = pages.opened(miniblock.decoder, source, (2, 2), data)
        array = assemble(field, [[pages.read(page, data, rows)]])
    except (PilumError, *DAMAGE) as error:
        return error
    array.validate(full=True)
    return array


@pytest.mark.parametrize("compression", ["none", None])
@pytest.mark.parametrize("name", list(CASES))
def test_rows(name: str, compression: str | None, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    array, field, source, data = encoded(name, compression)
    for rows in some_rows(source.length):
        wanted = array.take(pa.array(np.asarray(rows)))
        for on in (True, False):
            monkeypatch.setattr(jit, "switched_on", on)
            found = outcome(source, data, field, rows)
            assert isinstance(found, pa.Array), found
            assert found.equals(wanted)


@pytest.mark.parametrize("name", ["packed i8", "names", "lists", "lists, nulls", "lists of lists"])
def test_rows_are_picked(name: str, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are read without their chunks being decoded."""
    array, field, source, data = encoded(name)

    def decode(*_: Any) -> Any:
        raise AssertionError("chunks are decoded")

    monkeypatch.setattr(miniblock.MiniBlockDecoder, "_decode_chunks", decode)
    for rows in (range(7, 8), np.array([1, 30, source.length - 1])):
        found = outcome(source, data, field, rows)
        assert isinstance(found, pa.Array), found
        assert found.equals(array.take(pa.array(np.asarray(rows))))


@pytest.mark.fault
@pytest.mark.parametrize("name", list(CASES))
def test_damage(name: str, compiled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels find what NumPy finds.  Rows that are picked depend on fewer bytes, so they may survive more."""
    _, field, source, data = encoded(name)
    rng = np.random.default_rng(7)
    refused = 0
    body = range(source.offsets[1], source.offsets[1] + source.sizes[1])
    for trial in range(60):
        damaged = data.copy()
        if trial % 3 == 0:  # the header of the first chunk and what follows it
            places = body.start + rng.integers(0, 24, 1)
        elif trial % 3 == 1:
            places = rng.integers(body.start, body.stop, 4)
        else:
            at = int(rng.integers(body.start, body.stop))
            places = np.arange(at, min(at + 16, body.stop))
        damaged[places] = rng.integers(0, 256, len(places), np.uint8)
        whole = range(source.length)
        scattered = np.array([1, 3, source.length - 1])
        for rows in (whole, range(2, source.length - 1), scattered):
            monkeypatch.setattr(jit, "switched_on", False)
            plain = outcome(source, damaged, field, rows)
            monkeypatch.setattr(jit, "switched_on", True)
            fast = outcome(source, damaged, field, rows)
            if isinstance(plain, Exception):
                refused += 1
                if rows is not scattered:
                    assert isinstance(fast, Exception), f"{places.tolist()}: {plain}"
                    assert type(fast) is type(plain)
            else:
                assert isinstance(fast, pa.Array), f"{places.tolist()}: {fast}"
                # compared by bytes: damaged floating-point numbers may be NaN
                assert bool(fast.equals(plain)) or "double" in str(field.arrow_type)
    if name not in ("wide", "bits", "floats, nulls"):
        assert refused


def test_utf8(compiled: None) -> None:
    rng = np.random.default_rng(3)
    alphabet = [
        b"a",
        b"\x7f",
        b"\xc3\xa9",
        b"\xe2\x82\xac",
        b"\xf0\x9f\x99\x82",
        b"\xed\x9f\xbf",
        b"\xf4\x8f\xbf\xbf",
    ]
    wrong = [
        b"\x80",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
    ]
    wrong += [b"\xf5\x80\x80\x80", b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x99", b"\xe2\x82\xac\xac"]
    for trial in range(400):
        pieces = [
            alphabet[k] for k in rng.integers(0, (1, 3, 4, len(alphabet))[trial % 4], rng.integers(1, 8000))
        ]
        if trial % 2:
            pieces[int(rng.integers(len(pieces)))] = wrong[trial % len(wrong)]
        text = b"".join(pieces)
        cuts = np.sort(rng.integers(0, len(pieces) + 1, 5))
        edges = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
        offsets = np.concatenate([[0], edges[cuts], [len(text)]]).astype(np.int32 if trial % 3 else np.int64)
        if trial % 7 == 0:
            offsets[1:-1] = np.sort(rng.integers(0, len(text) + 1, 5))
        expected = True
        for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            try:
                text[low:high].decode()
            except UnicodeDecodeError:
                expected = False
        assert utf8.valid(np.frombuffer(text, np.uint8), offsets) is expected, trial


def test_utf8_of_all_pairs_and_edges(compiled: None) -> None:
    """Every two bytes, alone and after what makes the kernel look at all rules; longer ones of the bytes at limits."""
    limits = list(bytes.fromhex("00 7f 80 8f 90 9f a0 bf c1 c2 df e0 ed ef f0 f4 f5 ff"))
    cases = [bytes(pair) for pair in itertools.product(range(256), repeat=2)]
    cases += [bytes(four) for four in itertools.product(limits[10:], limits, limits[2:10], limits[2:10])]
    for case in cases:
        for text in (case, "\U0010ffff".encode() + case):
            try:
                text.decode()
            except UnicodeDecodeError:
                expected = False
            else:
                expected = True
            offsets = np.array([0, len(text)], np.int32)
            assert utf8.valid(np.frombuffer(text, np.uint8), offsets) is expected, text


def test_memory() -> None:
    for count in (0, 10, 1 << 17):
        found = memory.empty(count, np.int32)
        found[:] = 7
        assert found.dtype == np.int32
        assert len(found) == count
