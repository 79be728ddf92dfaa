"""Mini-block pages: golden files, the worked examples, round trips and damaged pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum.encoding import miniblock
from pilum.encoding.blocks import FixedBlock, VariableBlock
from pilum.encoding.codecs.flat import flat_ce
from pilum.encoding.miniblock_chunks import framing
from pilum.encoding.page import Decoded, EncodedPage, LeafRows, PageSource
from pilum.encoding.registry import EncodeOptions
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.proto import encodings_pb2
from tests.encoding import pages
from tests.encoding.leaf_rows import FLAT_LAYERS, LIST_LAYERS, leaf_rows, random_block, random_rows
from tests.support import golden_files

FILES = [path for area in ("structure", "compression") for path in golden_files(area) if path.is_file()]


@pytest.mark.golden
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_pages(path: Path) -> None:
    found = list(pages.golden_pages(path, "mini_block_layout"))
    columns = pages.leaf_columns(pages.expectation(path))
    for golden in found:
        try:
            page = pages.opened(miniblock.decoder, golden.source, golden.version, golden.data)
        except UnsupportedError as error:
            pytest.skip(str(error))
        whole = pages.read(page, golden.data, range(page.num_rows))
        pages.check_shape(whole)
        expected = pages.leaf_of(columns[golden.column], golden.row, page.num_rows)
        assert pages.same_array(pages.leaf_array(whole, expected.type), expected), f"column {golden.column}"
        for rows in pages.some_rows(page.num_rows, golden.column):
            some = pages.read(page, golden.data, rows)
            pages.check_shape(some)
            pages.assert_same(some, pages.select(whole, rows))


@given(
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 300), min_size=2, max_size=4),
    st.integers(0, 400),
)
def test_one_chunk_is_put_together_as_several_are(
    has_rep: bool, has_def: bool, large: bool, sizes: list[int], levels: int
) -> None:
    rng = np.random.default_rng(sum(sizes))
    pieces = [rng.integers(0, 255, size, np.uint8) for size in sizes]
    frame = framing(has_rep, has_def, len(sizes) - has_rep - has_def, large)
    one, total = frame.assemble(np.array([levels]), [(data, np.array([len(data)])) for data in pieces])
    two, totals = frame.assemble(
        np.array([levels, levels]),
        [(np.concatenate([data, data]), np.array([len(data), len(data)])) for data in pieces],
    )
    assert totals.tolist() == [*total.tolist(), *total.tolist()]
    assert one.tobytes() * 2 == two.tobytes()


def test_one_chunk_of_too_many_levels() -> None:
    part = (np.zeros(8, np.uint8), np.array([8]))
    with pytest.raises(InvalidInputError, match="70000 level entries"):
        framing(False, True, 1, True).assemble(np.array([70_000]), [part, part])


# --------------------------------------------------------------------------- worked examples


def integers(
    large: bool, buffers: list[str], length: int, **fields: Any
) -> tuple[PageSource, Any, tuple[int, int]]:
    """A page of int32 values from hex buffers."""
    layout = encodings_pb2.PageLayout(
        mini_block_layout=encodings_pb2.MiniBlockLayout(
            value_compression=flat_ce(32), num_buffers=1, has_large_chunk=large, **fields
        )
    )
    plain = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in buffers]
    source, data = pages.place(EncodedPage(plain, layout.SerializeToString(), length))
    return source, data, (2, 2) if large else (2, 1)


CHUNK_71 = "01000000 02000000 03000000 fefefefe"
LEVELS_72 = "0100 0000 0000 0100 0100 0100 0000 0100   0000 0000 0000 0200 0300 0000 0100 0000"
VALUES_72 = "01000000 02000000 03000000 04000000 00000000 05000000"
LISTS_72 = LeafRows(
    FixedBlock(32, np.array([1, 2, 3, 4, 0, 5], "<i4").view(np.uint8), 6),
    np.array([1, 0, 0, 1, 1, 1, 0, 1], np.uint16),
    np.array([0, 0, 0, 2, 3, 0, 1, 0], np.uint16),
    (3, 6),
    5,
)


@pytest.mark.parametrize(
    ("large", "words", "chunk"),
    [(False, "2000", "0000 0c00 fefefefe"), (True, "20000000", "0000 0c000000 fefe")],
)
def test_example_of_three_integers(large: bool, words: str, chunk: str) -> None:
    buffers = [words, chunk + CHUNK_71]
    source, data, version = integers(large, buffers, 3, layers=[1], num_items=3)
    page = pages.opened(miniblock.decoder, source, version, data)
    whole = pages.read(page, data, range(3))
    assert whole.rep is whole.definition is None
    assert isinstance(whole.block, FixedBlock)
    assert whole.block.words().tolist() == [1, 2, 3]
    assert page.schedule(range(3)).ranges == [(source.offsets[1], source.offsets[1] + 24)]
    encoded = miniblock.encode(
        LeafRows(whole.block, None, None, (1,), 3), EncodeOptions(version, compression="none")
    )
    assert [buffer.tobytes() for buffer in encoded.buffers] == [bytes.fromhex(text) for text in buffers]
    assert encoded.layout == source.layout.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("large", "words", "header"),
    [(False, "7000", "0800 1000 1000 1800"), (True, "80000000", "0800 1000 1000 18000000 fefefefefefe")],
)
def test_example_of_lists(large: bool, words: str, header: str) -> None:
    buffers = [words, header + LEVELS_72 + VALUES_72, "0500000000000000 0000000000000000"]
    flat = flat_ce(16)
    fields = {"rep_compression": flat, "def_compression": flat, "repetition_index_depth": 1}
    source, data, version = integers(large, buffers, 5, layers=[3, 6], num_items=6, **fields)
    page = pages.opened(miniblock.decoder, source, version, data)
    whole = pages.read(page, data, range(5))
    pages.assert_same(whole, Decoded(LISTS_72.block, LISTS_72.rep, LISTS_72.definition, (3, 6), 5))
    for rows in pages.some_rows(5, 1):
        pages.assert_same(pages.read(page, data, rows), pages.select(whole, rows))
    encoded = miniblock.encode(LISTS_72, EncodeOptions(version))
    source, data = pages.place(encoded)
    again = pages.read(pages.opened(miniblock.decoder, source, version, data), data, range(5))
    pages.assert_same(again, whole)
    assert encoded.buffers[2].tobytes() == bytes.fromhex(buffers[2])


# --------------------------------------------------------------------------- round trips


@pytest.mark.property
@settings(deadline=None, max_examples=150)
@given(
    rows=leaf_rows(FLAT_LAYERS + LIST_LAYERS),
    version=st.sampled_from([(2, 1), (2, 2)]),
    compression=st.sampled_from([None, None, "none", "zstd", "lz4"]),
    max_values=st.sampled_from([2, 8, 64, 4096]),
    seed=st.integers(0, 1000),
)
def test_round_trip(
    rows: LeafRows, version: tuple[int, int], compression: str | None, max_values: int, seed: int
) -> None:
    options = EncodeOptions(version, compression, max_values=max(8, max_values), minichunk_size=256)
    encoded = miniblock.encode(rows, options)
    source, data = pages.place(encoded)
    page = pages.opened(miniblock.decoder, source, version, data)
    stored = rows.definition if rows.definition is not None and rows.definition.any() else None
    expected = Decoded(rows.block, rows.rep, stored, rows.layers, rows.num_rows)
    for wanted in pages.some_rows(rows.num_rows, seed, 4):
        found = pages.read(page, data, wanted)
        pages.check_shape(found)
        pages.assert_same(found, pages.select(expected, wanted))


def test_limits_of_the_encoder() -> None:
    empty = FixedBlock(8, np.empty(0, np.uint8), 0)
    with pytest.raises(InvalidInputError, match="without values"):
        miniblock.encode(LeafRows(empty, None, None, (1,), 0), EncodeOptions())
    wide = LeafRows(random_block(np.random.default_rng(0), "text32", 2), None, None, (1,), 2)
    assert isinstance(wide.block, VariableBlock)
    wide.block = VariableBlock(32, np.array([0, 20000, 40000], np.int32), np.zeros(40000, np.uint8), 2)
    with pytest.raises(InvalidInputError, match="limit of 32768"):
        miniblock.encode(wide, EncodeOptions((2, 1)))
    miniblock.encode(wide, EncodeOptions((2, 2)))
    rep = np.ones(70001, np.uint16)
    definition = np.full(70001, 1, np.uint16)
    definition[0] = 0
    sparse = LeafRows(random_block(np.random.default_rng(0), "bits32", 1), rep, definition, (1, 5), 70001)
    with pytest.raises(InvalidInputError, match="65535 at most"):
        miniblock.encode(sparse, EncodeOptions())


# --------------------------------------------------------------------------- what is asked for


def many_chunks(version: tuple[int, int] = (2, 2)) -> tuple[PageSource, Any, Any]:
    """5000 random int64 values: chunks of 512, of 4104 bytes."""
    rng = np.random.default_rng(1)
    block = FixedBlock(64, rng.integers(0, 256, 40000, np.uint8), 5000)
    rows = LeafRows(block, None, None, (1,), 5000)
    source, data = pages.place(miniblock.encode(rows, EncodeOptions(version, compression="none")))
    return source, data, pages.opened(miniblock.decoder, source, version, data)


def test_reads_only_the_chunks_of_the_rows() -> None:
    source, _, page = many_chunks()
    start, chunk = source.offsets[1], 4104
    assert page.metadata_ranges() == [(source.offsets[0], source.offsets[0] + 40)]

    def chunks(rows: Any) -> list[tuple[int, ...]]:
        return [tuple((edge - start) // chunk for edge in part) for part in page.schedule(rows).ranges]

    assert page.schedule(range(5000)).ranges == [(start, start + source.sizes[1])]
    assert chunks(range(512)) == [(0, 1)]
    assert chunks(range(511, 513)) == [(0, 2)]
    assert chunks(range(512, 1024)) == [(1, 2)]
    assert chunks(np.array([0, 511])) == [(0, 1)]
    assert chunks(np.array([0, 512, 1100])) == [(0, 3)]
    assert chunks(np.array([0, 600, 2048, 4999])) == [(0, 2), (4, 5), (9, 9)]
    assert page.schedule(np.array([0, 4999])).ranges[1][1] == start + source.sizes[1]
    assert page.schedule(range(7, 7)).ranges == []


def test_a_row_is_read_through_its_last_chunk() -> None:
    """Rows of 1, 3000, 1, 1 items in chunks of 512: the long row spans six chunks."""
    lengths = [1, 3000, 1, 1]
    rep = np.zeros(3003, np.uint16)
    rep[np.cumsum([0, *lengths[:-1]])] = 1
    values = np.random.default_rng(0).integers(0, 256, 3003 * 8, np.uint8)
    rows = LeafRows(FixedBlock(64, values, 3003), rep, None, (1, 2), 4)
    source, data = pages.place(miniblock.encode(rows, EncodeOptions((2, 2), compression="none")))
    page = pages.opened(miniblock.decoder, source, (2, 2), data)
    whole = pages.read(page, data, range(4))
    first, last = page.schedule(range(4)).ranges[0]
    size = (page.schedule(range(1)).ranges[0][1]) - first
    assert page.schedule(range(1)).ranges == [(first, first + size)]
    assert page.schedule(range(1, 2)).ranges == [(first, last)]
    assert page.schedule(range(2, 4)).ranges[0][0] > first + 4 * size
    for wanted in (range(1), range(1, 2), range(2, 3), range(2, 4), np.array([0, 2]), np.array([1, 3])):
        pages.assert_same(pages.read(page, data, wanted), pages.select(whole, wanted))


# --------------------------------------------------------------------------- damaged pages


def pages_to_damage() -> list[tuple[PageSource, Any, tuple[int, int]]]:
    rng = np.random.default_rng(5)
    found = []
    for version in ((2, 1), (2, 2)):
        for layers in ((1,), (3,), (3, 6), (3, 6, 6)):
            for kind in ("bits1", "small64", "bits64", "text32", "fsl_validity"):
                rows = random_rows(rng, layers, kind, 300)
                options = EncodeOptions(version, max_values=64, minichunk_size=256)
                found.append((*pages.place(miniblock.encode(rows, options)), version))
    return found


def survives(source: PageSource, data: Any, version: tuple[int, int], wanted: list[Any]) -> int:
    """Read a damaged page: an error of ours, or a result of the right shape."""
    errors = 0
    try:
        page = pages.opened(miniblock.decoder, source, version, data)
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
@pytest.mark.parametrize("number", range(40))
def test_damaged_bytes(number: int) -> None:
    source, data, version = pages_to_damage()[number]
    rng = np.random.default_rng(number)
    length = source.length
    wanted: list[Any] = [
        range(length),
        range(length // 3, length // 2),
        np.array([0, 1, length // 2, length - 1]),
    ]
    assert survives(source, data, version, wanted) == 0
    words, body = (source.offsets[k] for k in (0, 1))
    chunks = data[words : words + source.sizes[0]].view("<u4" if version >= (2, 2) else "<u2")
    starts = np.cumsum([0, *(8 * ((chunks.astype(int) >> 4) + 1)).tolist()])[:-1]
    errors = 0
    for _ in range(60):
        damaged = data.copy()
        where = rng.choice(["words", "header", "index", "any"])
        if where == "words":
            at = words + int(rng.integers(source.sizes[0]))
        elif where == "header":
            at = body + int(rng.choice(starts)) + int(rng.integers(16))
        elif where == "index":
            at = source.offsets[-1] + int(rng.integers(source.sizes[-1]))
        else:
            at = 64 + int(rng.integers(len(data) - 64))
        damaged[at] = rng.choice([0, 1, 255, damaged[at] ^ 1, rng.integers(256)])
        errors += survives(source, damaged, version, wanted)
    assert errors


@pytest.mark.fault
@pytest.mark.parametrize(
    "field", ["num_items", "num_buffers", "num_dictionary_items", "repetition_index_depth"]
)
def test_impossible_numbers_in_the_layout(field: str) -> None:
    for source, data, version in pages_to_damage()[::7]:
        for value in (0, 1, 2, 2**31, 2**32 - 1, 2**63):
            if field == "repetition_index_depth" and value > 2**32 - 1:
                continue
            layout = encodings_pb2.PageLayout()
            layout.CopyFrom(source.layout)
            setattr(layout.mini_block_layout, field, value)
            changed = PageSource(source.offsets, source.sizes, source.length, layout)
            survives(changed, data, version, [range(source.length), range(1)])


def test_contradictions_are_named() -> None:
    source, data, _ = many_chunks()
    with pytest.raises(CorruptFileError, match="large chunks in a file of version"):
        miniblock.decoder(source, (2, 1))
    for change, problem in [
        ({"length": 4999}, "4999 rows has 5000 items"),
        ({"sizes": source.sizes[:1]}, "1 buffers instead of 2"),
    ]:
        values = {"offsets": source.offsets, "sizes": source.sizes, "length": 5000, "layout": source.layout}
        with pytest.raises(CorruptFileError, match=problem):
            miniblock.decoder(PageSource(**{**values, **change}), (2, 2))
    page = miniblock.decoder(source, (2, 2))
    with pytest.raises(RuntimeError, match="initialise"):
        page.schedule(range(1))
    words = data[source.offsets[0] : source.offsets[0] + 40].view("<u4").copy()
    for change, problem in [(words >> 4 << 4, "does not say how many"), (words + 16, "bytes in a buffer")]:
        with pytest.raises(CorruptFileError, match=problem):
            page.initialise([change.view(np.uint8)])
    with pytest.raises(CorruptFileError, match="were read where"):
        page.initialise([words.view(np.uint8)[:-4]])
    page.initialise([words.view(np.uint8)])
    with pytest.raises(CorruptFileError, match="were read where"):
        page.schedule(range(5)).decode([data[:8]])


AGAIN = ("deep_mini", "doc_example", "flat", "longlist", "nested_2_1", "nested_2_2", "split", "types")


@pytest.mark.golden
@pytest.mark.parametrize("path", [p for p in FILES if p.stem.startswith(AGAIN)], ids=lambda path: path.stem)
def test_encoding_again_gives_the_same_bytes(path: Path) -> None:
    same = 0
    for golden in pages.golden_pages(path, "mini_block_layout"):
        layout = golden.source.layout
        if layout.mini_block_layout.HasField("dictionary") or golden.version > (2, 2):
            continue
        page = pages.opened(miniblock.decoder, golden.source, golden.version, golden.data)
        whole = pages.read(page, golden.data, range(page.num_rows))
        rows = LeafRows(whole.block, whole.rep, whole.definition, whole.layers, whole.num_rows)
        encoded = miniblock.encode(rows, EncodeOptions(golden.version))
        if encoded.layout != layout.SerializeToString(deterministic=True):
            continue  # another codec was asked for by the field
        for number, buffer in enumerate(encoded.buffers):
            start = golden.source.offsets[number]
            original = golden.data[start : start + golden.source.sizes[number]]
            assert np.array_equal(buffer, original), f"column {golden.column}, buffer {number}"
        same += 1
    assert same
