"""Codecs against bytes of the reference: the mini-block pages of the golden files, without lists and structs.

A deliberately small reader (footer, pages, chunk headers in plain Python) feeds the codecs, so
that they are tested alone; the page layouts and the file reader have their own golden tests.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from pilum.encoding import registry
from pilum.encoding.arrow_blocks import from_arrow, to_arrow
from pilum.encoding.blocks import FixedBlock, take_block
from pilum.encoding.registry import ChunkSet, EncodeOptions
from pilum.proto import container_pb2, encodings_pb2
from tests.support import expected_table, golden_files

pytestmark = pytest.mark.golden

CASES = {
    *(
        "bitpack_u8",
        "bitpack_u16",
        "bitpack_u32",
        "bitpack_u64",
        "flat_types",
        "fsl",
        "variable",
        "rle",
        "general",
    ),
    *("variable_big_chunks", "rle_overflow", "general_rle", "dictionary", "fsst", "fsst_off"),
    *("crafted_bool_bytes", "crafted_def_flat", "crafted_def_general", "crafted_def_ool_packed_tail"),
    *(
        "crafted_def_ool_raw_tail",
        "crafted_dict_old_header",
        "crafted_dict_u8_index",
        "crafted_general_twice",
    ),
    *("crafted_one_big_chunk", "crafted_rle_overflow", "crafted_uneven_chunks", "crafted_variable_gap"),
    *("crafted_zstd_raw_frame", "crafted_fsst_tiny_table", "crafted_general_fsst"),
}
FILES = [
    path
    for path in golden_files("compression")
    if path.stem.rpartition("-")[0] in CASES and path.stem.endswith(("2.1", "2.2"))
]


class MiniPage:
    """One mini-block page, taken apart."""

    def __init__(self, data: bytes, page: Any, layout: Any) -> None:
        self.layout = layout
        large = layout.has_large_chunk
        self.buffers = [
            np.frombuffer(data, np.uint8, size, offset)
            for offset, size in zip(page.buffer_offsets, page.buffer_sizes, strict=True)
        ]
        words = self.buffers[0].view("<u4" if large else "<u2").astype(np.int64)
        sizes = 8 * ((words >> 4) + 1)
        self.counts = np.left_shift(1, words & 15)
        self.counts[-1] = layout.num_items - self.counts[:-1].sum()
        body = self.buffers[1]
        assert sizes.sum() == len(body)
        has_def = layout.HasField("def_compression")
        levels: list[list[int]] = []
        values: list[list[list[int]]] = [[] for _ in range(layout.num_buffers)]
        self.num_levels = []
        for start in (np.cumsum(sizes) - sizes).tolist():
            at = start + 2
            self.num_levels.append(struct.unpack_from("<H", body, start)[0])
            lengths = []
            if has_def:
                lengths.append(struct.unpack_from("<H", body, at)[0])
                at += 2
            for _ in range(layout.num_buffers):
                lengths.append(struct.unpack_from("<I" if large else "<H", body, at)[0])
                at += 4 if large else 2
            at = (at + 7) // 8 * 8
            for position, length in enumerate(lengths):
                where = levels if has_def and position == 0 else values[position - has_def]
                where.append([at, length])
                at = (at + length + 7) // 8 * 8
        self.values = [self._chunks(part) for part in values]
        self.levels = self._chunks(levels) if has_def else None

    def _chunks(self, pairs: list[list[int]]) -> ChunkSet:
        table = np.array(pairs, np.int64).reshape(-1, 2)
        return ChunkSet(self.buffers[1], table[:, 0].copy(), table[:, 1].copy())

    def validity(self) -> Any:
        if self.levels is None:
            return None
        counts = np.array(self.num_levels, np.int64)
        levels = registry.decode_blocks(self.layout.def_compression, self.levels, counts)
        return levels.words() == 0

    def block(self) -> Any:
        block = registry.decode_miniblock(self.layout.value_compression, self.values, self.counts)
        if not self.layout.HasField("dictionary"):
            return block
        assert isinstance(block, FixedBlock)
        words = registry.decode_block(
            self.layout.dictionary, self.buffers[2], self.layout.num_dictionary_items
        )
        rows = block.words().astype(np.int64)
        return take_block(words, np.where(rows < words.count, rows, 0))


def mini_pages(path: Path) -> list[tuple[int, MiniPage]]:
    """The mini-block pages of a file with their column numbers."""
    data = path.read_bytes()
    _, table, _, _, columns, _, _, magic = struct.unpack("<QQQIIHH4s", data[-40:])
    assert magic == b"LANC"
    pages = []
    for column in range(columns):
        offset, size = struct.unpack_from("<QQ", data, table + 16 * column)
        metadata = container_pb2.ColumnMetadata.FromString(data[offset : offset + size])
        for page in metadata.pages:
            any_bytes = page.encoding.direct.encoding
            layout = encodings_pb2.PageLayout.FromString(AnyMessage.FromString(any_bytes).value)
            if layout.WhichOneof("layout") == "mini_block_layout":
                pages.append((column, MiniPage(data, page, layout.mini_block_layout)))
    return pages


def expected_columns(path: Path) -> list[Any]:
    table = expected_table(path.with_name(path.stem.rpartition("-")[0] + ".arrow"))
    return [column.combine_chunks() for column in table.columns]


def plain(array: Any) -> Any:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_values_of_golden_pages(path: Path) -> None:
    columns = expected_columns(path)
    checked = 0
    for number, page in mini_pages(path):
        if page.layout.repetition_index_depth:
            continue
        expected = plain(columns[number])
        block = page.block()
        found = to_arrow(block, expected.type, page.validity())
        found.validate(full=True)
        same = found.equals(expected)
        if not same and pa.types.is_floating(expected.type):  # random bits: NaNs, which equal nothing
            same = np.array_equal(from_arrow(found).data, from_arrow(expected).data)  # type: ignore[union-attr]
        assert same, f"column {number}"
        checked += 1
    assert checked


@pytest.mark.parametrize("path", [p for p in FILES if "bitpack" in p.stem or "flat_types" in p.stem], ids=str)
def test_encoding_again_gives_the_same_bytes(path: Path) -> None:
    version = (2, 1) if path.stem.endswith("2.1") else (2, 2)
    for number, page in mini_pages(path):
        encoded = registry.encode_miniblock(page.block(), EncodeOptions(version))
        assert encoded.ce == page.layout.value_compression, f"column {number}"
        assert encoded.counts.tolist() == page.counts.tolist()
        for buffer, sizes, original in zip(encoded.buffers, encoded.sizes, page.values, strict=True):
            assert sizes.tolist() == original.sizes.tolist()
            joined = np.concatenate([original.chunk(c) for c in range(len(original))])
            assert np.array_equal(buffer, joined), f"column {number}"
