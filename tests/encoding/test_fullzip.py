"""Full-zip pages: golden files, the worked examples, round trips and damaged pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum import jit
from pilum.encoding import fullzip, fullzip_index, kernels
from pilum.encoding.blocks import Block, FixedBlock, FslBlock, NullBlock, VariableBlock
from pilum.encoding.codecs.flat import flat_ce
from pilum.encoding.codecs.variable import variable_ce
from pilum.encoding.kernels import unzip
from pilum.encoding.page import Decoded, EncodedPage, LeafRows, PageSource
from pilum.encoding.registry import EncodeOptions
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.proto import encodings_pb2
from tests.encoding import pages
from tests.encoding.leaf_rows import FLAT_LAYERS, LIST_LAYERS, leaf_rows, random_block, random_rows, shred
from tests.support import golden_files

VERSION = (2, 2)
FILES = [path for area in ("structure", "compression") for path in golden_files(area) if path.is_file()]


@pytest.mark.golden
@pytest.mark.parametrize("large_index", [False, True], ids=["index kept", "index read"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_pages(path: Path, large_index: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large_index:
        monkeypatch.setattr(fullzip_index, "CACHED_INDEX", 0)
    columns = pages.leaf_columns(pages.expectation(path))
    for golden in pages.golden_pages(path, "full_zip_layout"):
        try:
            page = fullzip.decoder(golden.source, golden.version)
        except UnsupportedError as error:
            pytest.skip(str(error))
        page = pages.opened(fullzip.decoder, golden.source, golden.version, golden.data)
        whole = pages.read(page, golden.data, range(page.num_rows))
        pages.check_shape(whole)
        expected = pages.leaf_of(columns[golden.column], golden.row, page.num_rows)
        assert pages.same_array(pages.leaf_array(whole, expected.type), expected), f"column {golden.column}"
        for rows in pages.some_rows(page.num_rows, golden.column):
            some = pages.read(page, golden.data, rows)
            pages.check_shape(some)
            pages.assert_same(some, pages.select(whole, rows))


# --------------------------------------------------------------------------- worked examples


def made_of(buffers: list[str], length: int, **fields: Any) -> tuple[PageSource, Any]:
    layout = encodings_pb2.PageLayout(full_zip_layout=encodings_pb2.FullZipLayout(**fields))
    plain = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in buffers]
    return pages.place(EncodedPage(plain, layout.SerializeToString(deterministic=True), length))


def check_example(source: PageSource, data: Any, buffers: list[str], expected: LeafRows) -> None:
    whole = Decoded(expected.block, expected.rep, expected.definition, expected.layers, expected.num_rows)
    page = pages.opened(fullzip.decoder, source, VERSION, data)
    for rows in pages.some_rows(expected.num_rows, 1):
        pages.assert_same(pages.read(page, data, rows), pages.select(whole, rows))
    encoded = fullzip.encode(expected, EncodeOptions(VERSION))
    assert [buffer.tobytes() for buffer in encoded.buffers] == [bytes.fromhex(text) for text in buffers]
    assert encoded.layout == source.layout.SerializeToString(deterministic=True)


def test_example_of_strings() -> None:
    buffers = [
        "00 05000000 68656c6c6f  01  00 00000000  00 01000000 77  00 03000000 78797a",
        "00 0a 0b 10 16 1e",
    ]
    fields = {"bits_def": 1, "bits_per_offset": 32, "num_items": 5, "num_visible_items": 5, "layers": [3]}
    source, data = made_of(buffers, 5, value_compression=variable_ce(32), **fields)
    strings = VariableBlock(
        32, np.array([0, 5, 5, 5, 6, 9], np.int32), np.frombuffer(b"hellowxyz", np.uint8), 5
    )
    definition = np.array([0, 1, 0, 0, 0], np.uint16)
    check_example(source, data, buffers, LeafRows(strings, None, definition, (3,), 5))


def test_example_of_lists() -> None:
    buffers = ["04 0100  01 0000  07  06  04 0700", "00 06 07 08 0b"]
    fields = {"bits_rep": 1, "bits_def": 2, "bits_per_value": 16, "num_items": 5, "num_visible_items": 3}
    source, data = made_of(buffers, 4, value_compression=flat_ce(16), layers=[3, 6], **fields)
    values = FixedBlock(16, np.array([1, 0, 7], "<i2").view(np.uint8), 3)
    rep, definition = np.array([1, 0, 1, 1, 1], np.uint16), np.array([0, 1, 3, 2, 0], np.uint16)
    check_example(source, data, buffers, LeafRows(values, rep, definition, (3, 6), 4))


def test_vectors_are_not_copied() -> None:
    values = np.random.default_rng(0).random((500, 128), np.float32)
    block = FslBlock(128, None, FixedBlock(32, values.view(np.uint8).reshape(-1), 64000), 500)
    source, data = pages.place(fullzip.encode(LeafRows(block, None, None, (1,), 500), EncodeOptions(VERSION)))
    assert source.sizes == (500 * 512,)
    page = fullzip.decoder(source, VERSION)
    assert page.initialised
    assert page.metadata_ranges() == []
    found = pages.read(page, data, range(10, 20))
    assert isinstance(found.block, FslBlock)
    assert isinstance(found.block.child, FixedBlock)
    assert np.shares_memory(found.block.child.data, data)
    assert np.array_equal(found.block.child.data.view(np.float32).reshape(10, 128), values[10:20])


# --------------------------------------------------------------------------- round trips


@pytest.mark.property
@settings(deadline=None, max_examples=150)
@given(
    rows=leaf_rows(FLAT_LAYERS + LIST_LAYERS),
    compression=st.sampled_from([None, "none", "zstd"]),
    kept=st.booleans(),
    numba=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_round_trip(rows: LeafRows, compression: str | None, kept: bool, numba: bool, seed: int) -> None:
    encoded = fullzip.encode(rows, EncodeOptions(VERSION, compression))
    source, data = pages.place(encoded)
    stored = rows.definition if rows.definition is not None and rows.definition.any() else None
    expected = Decoded(widened(rows.block), rows.rep, stored, rows.layers, rows.num_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fullzip_index, "CACHED_INDEX", 1 << 20 if kept else 0)
        patch.setattr(unzip._WALK, "small", 0)
        patch.setattr(jit, "switched_on", numba and kernels.enabled())
        if numba:
            unzip._WALK.load()
        page = pages.opened(fullzip.decoder, source, VERSION, data)
        assert bool(page.metadata_ranges()) == (kept and len(source.sizes) == 2)
        for wanted in pages.some_rows(rows.num_rows, seed, 4):
            found = pages.read(page, data, wanted)
            pages.check_shape(found)
            pages.assert_same(found, pages.select(expected, wanted))


def widened(block: Block) -> Block:
    """Full-zip stores a boolean as a byte."""
    if isinstance(block, FixedBlock) and block.bits == 1:
        bits = np.unpackbits(block.data, count=block.count, bitorder="little")
        return FixedBlock(8, bits, block.count)
    return block


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_every_width_of_the_index(width: int) -> None:
    rows = random_rows(np.random.default_rng(1), (3,), "text32", 12)
    source, data = pages.place(fullzip.encode(rows, EncodeOptions(VERSION)))
    values, index = pages.fetch(data, [(o, o + s) for o, s in zip(source.offsets, source.sizes, strict=True)])
    encoded = EncodedPage(
        [values, index.astype(f"<u{width}").view(np.uint8)], source.layout.SerializeToString(), 12
    )
    source, data = pages.place(encoded)
    page = pages.opened(fullzip.decoder, source, VERSION, data)
    expected = Decoded(rows.block, None, rows.definition, (3,), 12)
    for wanted in pages.some_rows(12, 3):
        pages.assert_same(pages.read(page, data, wanted), pages.select(expected, wanted))


def test_control_words_of_four_bytes() -> None:
    """300 lists deep: no schema, but the layout can say it."""
    layers = (3, *[6] * 140)
    rep = np.array([140, 7, 140, 140], np.uint16)
    definition = np.array([0, 1, 281, 2], np.uint16)
    rows = LeafRows(random_block(np.random.default_rng(0), "bits32", 2), rep, definition, layers, 3)
    source, data = pages.place(fullzip.encode(rows, EncodeOptions(VERSION)))
    assert source.sizes[0] == 4 * 4 + 2 * 4
    page = pages.opened(fullzip.decoder, source, VERSION, data)
    expected = Decoded(rows.block, rep, definition, layers, 3)
    for wanted in pages.some_rows(3, 3):
        pages.assert_same(pages.read(page, data, wanted), pages.select(expected, wanted))


def test_limits_of_the_encoder() -> None:
    for block in (NullBlock(3), FixedBlock(8, np.empty(0, np.uint8), 0)):
        with pytest.raises(InvalidInputError, match="without values"):
            fullzip.encode(LeafRows(block, None, None, (1,), block.count), EncodeOptions())


# --------------------------------------------------------------------------- what is asked for


def test_one_range_per_run_of_rows() -> None:
    block = FixedBlock(256, np.random.default_rng(0).integers(0, 256, 3200, np.uint8), 100)
    source, _ = pages.place(fullzip.encode(LeafRows(block, None, None, (1,), 100), EncodeOptions(VERSION)))
    page, at = fullzip.decoder(source, VERSION), source.offsets[0]
    assert page.schedule(range(100)).ranges == [(at, at + 3200)]
    assert page.schedule(range(3, 5)).ranges == [(at + 96, at + 160)]
    assert page.schedule(np.array([3, 4, 5])).ranges == [(at + 96, at + 192)]
    assert page.schedule(np.array([3, 4, 9])).ranges == [(at + 96, at + 160), (at + 288, at + 320)]
    assert page.schedule(range(5, 5)).ranges == []
    assert page.schedule(np.array([], np.int64)).ranges == []


@pytest.mark.parametrize("kept", [True, False])
def test_ranges_with_an_index(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(fullzip_index, "CACHED_INDEX", 10)
    rows = random_rows(np.random.default_rng(2), (3,), "text32", 40)
    source, data = pages.place(fullzip.encode(rows, EncodeOptions(VERSION)))
    (values, index), (size, index_size) = source.offsets, source.sizes
    width = index_size // 41
    edges = values + data[index : index + index_size].view(f"<u{width}").astype(int)
    page = pages.opened(fullzip.decoder, source, VERSION, data)
    taken = np.array([0, 7, 8, 39])
    expected = [(edges[0], edges[1]), (edges[7], edges[9]), (edges[39], edges[40])]
    if kept:
        assert page.metadata_ranges() == [(index, index + index_size)]
        assert page.schedule(taken).ranges == expected
        assert page.schedule(range(40)).ranges == [(values, values + size)]
        return
    assert page.metadata_ranges() == []
    assert page.schedule(range(40)).ranges == [(values, values + size), (index, index + index_size)]
    look_up = page.schedule(taken)
    assert look_up.ranges == [(index + a * width, index + b * width) for a, b in [(0, 2), (7, 10), (39, 41)]]
    second: Any = look_up.decode(pages.fetch(data, look_up.ranges))
    assert second.ranges == expected
    look_up = page.schedule(range(7, 9))
    assert look_up.ranges == [(index + 7 * width, index + 10 * width)]
    second = look_up.decode(pages.fetch(data, look_up.ranges))
    assert second.ranges == [(edges[7], edges[9])]


# --------------------------------------------------------------------------- the kernel and its twin


@pytest.mark.parametrize("layers", [(1,), (3,), (3, 6), (1, 6), (3, 6, 6), (3, 1, 6, 3)])
@pytest.mark.parametrize("prefix", [0, 4, 8])
@pytest.mark.parametrize("rows", [1, 5, 31, 33, 400])
def test_kernel_equals_twin(layers: tuple[int, ...], prefix: int, rows: int) -> None:
    if not kernels.enabled() or unzip._WALK.load() is None:
        pytest.skip("Numba is switched off or missing")
    rng = np.random.default_rng(rows)
    rep, definition = shred(rng, layers, rows)
    if rows == 5 and rep is not None:  # rows of very different lengths
        rep = np.concatenate([rep, np.zeros(100, np.uint16)])
        definition = np.concatenate([definition, np.zeros(100, np.uint16)])
    kind = {0: "bits24", 4: "text32", 8: "text64"}[prefix]
    limit = fullzip.levels.visible_limit(layers)
    visible = len(definition) if limit is None else int((definition <= limit).sum())
    if not visible:
        return
    block = random_block(rng, kind, visible)
    source, data = pages.place(
        fullzip.encode(LeafRows(block, rep, definition, layers, rows), EncodeOptions())
    )
    if len(source.sizes) == 1:
        return
    page: Any = pages.opened(fullzip.decoder, source, VERSION, data)
    plain, edges, shape = data[64 : 64 + source.sizes[0]], page._index.astype(np.int64), page._shape
    compiled = unzip._WALK.compiled
    for _ in range(30):
        ways = [
            unzip._walk(compiled, plain, edges, shape),
            unzip._walk(unzip.walk_numba, plain.data, edges.tolist(), shape),
            unzip.unzip_numpy(plain, edges, shape),
        ]
        if isinstance(ways[0], int):  # which of several problems is found first may differ
            assert all(isinstance(way, int) for way in ways)
        else:
            for way in ways[1:]:
                assert not isinstance(way, int)
                for name in ("rep", "definition", "starts", "sizes"):
                    mine, other = getattr(way, name), getattr(ways[0], name)
                    assert mine.dtype == other.dtype
                    assert np.array_equal(mine, other), name
        plain = plain.copy()
        plain[rng.integers(len(plain))] = rng.choice([0, 1, 2, 4, 255])


# --------------------------------------------------------------------------- damaged pages


def survives(source: PageSource, data: Any, wanted: list[Any]) -> int:
    """Read a damaged page: an error of ours, or a result of the right shape."""
    errors = 0
    try:
        page = pages.opened(fullzip.decoder, source, VERSION, data)
    except (CorruptFileError, UnsupportedError):
        return 1
    for rows in wanted:
        try:
            found = pages.read(page, data, rows)
        except (CorruptFileError, UnsupportedError, InvalidInputError):
            errors += 1
            continue
        pages.check_shape(found)
    return errors


@pytest.mark.fault
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("layers", [(1,), (3,), (3, 6), (3, 6, 6)])
@pytest.mark.parametrize("kind", ["bits32", "fsl_validity", "text32", "text64"])
def test_damaged_bytes(
    kept: bool, layers: tuple[int, ...], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(fullzip_index, "CACHED_INDEX", 0)
    rng = np.random.default_rng(8)
    rows = random_rows(rng, layers, kind, 60)
    source, data = pages.place(fullzip.encode(rows, EncodeOptions(VERSION)))
    wanted: list[Any] = [range(60), range(20, 30), np.array([0, 1, 30, 59]), np.array([4])]
    assert survives(source, data, wanted) == 0
    errors = 0
    for _ in range(150):
        damaged = data.copy()
        number = int(rng.integers(len(source.sizes)))
        at = source.offsets[number] + int(rng.integers(source.sizes[number]))
        damaged[at] = rng.choice([0, 1, 255, damaged[at] ^ 1, rng.integers(256)])
        errors += survives(source, damaged, wanted)
    assert errors or len(source.sizes) == 1


@pytest.mark.fault
def test_a_damaged_layout() -> None:
    rng = np.random.default_rng(9)
    for layers in ((3,), (3, 6)):
        for kind in ("bits32", "fsl", "text32"):
            source, data = pages.place(
                fullzip.encode(random_rows(rng, layers, kind, 30), EncodeOptions(VERSION))
            )
            for field in ("bits_rep", "bits_def", "bits_per_value", "bits_per_offset", "num_items"):
                for value in (0, 1, 2, 7, 8, 16, 17, 32, 64, 2**32 - 1):
                    layout = encodings_pb2.PageLayout()
                    layout.CopyFrom(source.layout)
                    setattr(layout.full_zip_layout, field, value)
                    changed = PageSource(source.offsets, source.sizes, source.length, layout)
                    survives(changed, data, [range(30), np.array([3, 9])])
            for length in (0, 1, 29, 31, 2**62):
                changed = PageSource(source.offsets, source.sizes, length, source.layout)
                with pytest.raises(CorruptFileError):
                    pages.opened(fullzip.decoder, changed, VERSION, data)


def test_an_index_that_lies_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(np.random.default_rng(2), (3,), "text32", 40)
    source, data = pages.place(fullzip.encode(rows, EncodeOptions(VERSION)))
    index = slice(source.offsets[1], source.offsets[1] + source.sizes[1])
    numbers = data[index].view(f"<u{source.sizes[1] // 41}")
    for change in (numbers[::-1], numbers // 2, np.maximum(numbers, numbers[3])):
        damaged = data.copy()
        damaged[index] = change.astype(numbers.dtype).view(np.uint8)
        with pytest.raises(CorruptFileError, match="must rise from"):
            pages.opened(fullzip.decoder, source, VERSION, damaged)
        with monkeypatch.context() as patch:
            patch.setattr(fullzip_index, "CACHED_INDEX", 0)
            page = pages.opened(fullzip.decoder, source, VERSION, damaged)
            with pytest.raises(CorruptFileError, match="rise"):
                pages.read(page, damaged, range(40))
