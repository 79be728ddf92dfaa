"""Array encodings of format 2.0, each from bytes in memory: whole, by ranges, by rows, and damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum.encoding.v2_0 import ArrayRead, PageBuffers
from pilum.encoding.v2_0.arrays import open_array
from pilum.encoding.v2_0.encode import encode_rows
from pilum.encoding.v2_0.values import to_array
from pilum.errors import CorruptFileError, UnsupportedError
from pilum.proto import array_encodings_pb2 as pb
from pilum.schema import Schema


class Page:
    """An encoding and its buffers as one piece of bytes, with an odd byte before each buffer."""

    def __init__(self, message: Any, buffers: list[Any], kind: Any, count: int) -> None:
        self.data = b""
        ranges = []
        for buffer in buffers:
            self.data += b"?"
            raw = (
                bytes(np.ascontiguousarray(buffer).view(np.uint8))
                if isinstance(buffer, np.ndarray)
                else buffer
            )
            ranges.append((len(self.data), len(self.data) + len(raw)))
            self.data += raw
        self.kind, self.rounds = kind, 0
        self.decoder = open_array(message, PageBuffers(tuple(ranges)), count, kind)

    def read(self, rows: Any) -> Any:
        read: Any = self.decoder.schedule(rows)
        self.rounds = 0
        bytes_ = np.frombuffer(self.data, np.uint8)
        while isinstance(read, ArrayRead):
            assert all(0 <= low <= high <= len(self.data) for low, high in read.ranges)
            read = read.decode([bytes_[low:high] for low, high in read.ranges])
            self.rounds += 1
        return to_array(read, self.kind)


def check(page: Page, expected: Any) -> None:
    """The page holds these values, whichever of them are asked for."""
    rows = len(expected)
    assert page.read(range(rows)).to_pylist() == expected.to_pylist()
    rng = np.random.default_rng(rows)
    for _ in range(10):
        low = int(rng.integers(0, rows))
        high = int(rng.integers(low, rows)) + 1
        assert page.read(range(low, high)).to_pylist() == expected.slice(low, high - low).to_pylist()
        picked = np.unique(rng.integers(0, rows, 5))
        assert page.read(picked).to_pylist() == expected.take(pa.array(picked)).to_pylist()


def flat(bits: int, index: int = 0, **options: Any) -> Any:
    return pb.ArrayEncoding(
        flat=pb.Flat(bits_per_value=bits, buffer=pb.Buffer(buffer_index=index), **options)
    )


def no_nulls(values: Any) -> Any:
    return pb.ArrayEncoding(nullable=pb.Nullable(no_nulls=pb.Nullable.NoNull(values=values)))


def round_trip(array: Any, metadata: dict[str, str] | None = None) -> Page:
    """A page as the writer makes it."""
    (field,) = Schema.from_arrow(pa.schema([pa.field("x", array.type, metadata=metadata)])).fields
    (page,) = encode_rows(field, array)
    message = pb.ArrayEncoding.FromString(page.layout)
    return Page(message, [np.asarray(buffer) for buffer in page.buffers], array.type, len(array))


def test_flat_and_an_empty_buffer_message() -> None:
    values = np.arange(100, dtype=np.int32)
    message = pb.ArrayEncoding.FromString(bytes.fromhex("0a0408201200"))  # flat { bits 32, buffer {} }
    check(Page(message, [values], pa.int32(), 100), pa.array(values))


def test_bits_anywhere() -> None:
    values = np.random.default_rng(0).random(1000) < 0.5
    check(Page(flat(1), [np.packbits(values, bitorder="little")], pa.bool_(), 1000), pa.array(values))


@pytest.mark.parametrize("scheme", ["zstd", "lz4", "none"])
def test_compressed_buffers_are_read_whole(scheme: str) -> None:
    from pilum.encoding.codecs.general import compress

    values = np.arange(3000, dtype=np.int64)
    data = values.view(np.uint8)
    packed = bytes(data) if scheme == "none" else compress({"lz4": 1, "zstd": 2}[scheme], data)
    page = Page(flat(64, compression=pb.Compression(scheme=scheme)), [packed], pa.int64(), 3000)
    check(page, pa.array(values))


def test_a_bare_zstd_frame() -> None:
    values = np.arange(300, dtype=np.int64)
    frame = pa.Codec("zstd").compress(values.tobytes(), asbytes=True)
    check(
        Page(flat(64, compression=pb.Compression(scheme="zstd")), [frame], pa.int64(), 300), pa.array(values)
    )


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None, 3], pa.int16()),
        pa.array([None, None], pa.float64()),
        pa.array([[1, None], None, [3, 4]], pa.list_(pa.int8(), 2)),
        pa.array([[True, False, None], [None, True, True], None] * 9, pa.list_(pa.bool_(), 3)),
        pa.array([[[1, None], [3, 4]], None, [None, [7, 8]]], pa.list_(pa.list_(pa.int32(), 2), 2)),
        pa.array(["a", "", None, "ccc"]),
        pa.array([None, None], pa.large_string()),
        pa.array([b"", b"\x00", None], pa.binary()),
        pa.array([f"value {i % 7}" if i % 5 else None for i in range(300)]),
        pa.array([f"a longer value {i}" for i in range(3000)]),
        pa.array(["x", None, "y", "x"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), pa.array(["p", None, "q"])),
        pa.array([b"abc", None, b"def"], pa.binary(3)),
        pa.nulls(5),
    ],
    ids=lambda array: str(array.type),
)
def test_what_the_writer_makes(array: Any) -> None:
    check(round_trip(array), array)


def test_strings_take_one_round_when_that_is_enough() -> None:
    page = round_trip(pa.array([f"a longer value {i}" for i in range(3000)]))
    for rows, rounds in ((range(3000), 1), (range(5, 2000), 2), (np.array([0, 2999]), 2)):
        page.read(rows)
        assert page.rounds == rounds
    few = round_trip(pa.array([f"value {i}" for i in range(200)]))
    few.read(range(3, 5))
    assert few.rounds == 1
    packed = round_trip(
        pa.array([f"a longer value {i}" for i in range(3000)]), {"lance-encoding:compression": "zstd"}
    )
    packed.read(range(3, 5))
    assert packed.rounds == 1


def test_a_larger_adjustment_and_nulls_that_own_bytes() -> None:
    indices = np.array([2, 3 + 1000, 4 + 1000, 6], np.uint64)
    message = pb.ArrayEncoding(
        binary=pb.Binary(indices=no_nulls(flat(64)), bytes=no_nulls(flat(8, 1)), null_adjustment=1000)
    )
    page = Page(message, [indices, b"abcdef"], pa.string(), 4)
    check(page, pa.array(["ab", None, None, "ef"]))


def test_items_of_a_dictionary_are_kept() -> None:
    page = round_trip(pa.array([f"value {i % 7}" for i in range(300)]))
    first = page.decoder.schedule(range(3))
    page.read(range(3))
    second = page.decoder.schedule(range(3))
    assert len(second.ranges) < len(first.ranges)


def test_pages_with_validity_on_the_indices() -> None:
    dictionary = pb.Dictionary(
        indices=pb.ArrayEncoding(
            nullable=pb.Nullable(some_nulls=pb.Nullable.SomeNull(validity=flat(1), values=flat(8, 1)))
        ),
        items=no_nulls(flat(32, 2)),
        num_dictionary_items=2,
    )
    buffers = [np.array([0b101], np.uint8), np.array([0, 77, 1], np.uint8), np.array([10, 20], np.int32)]
    page = Page(pb.ArrayEncoding(dictionary=dictionary), buffers, pa.dictionary(pa.int8(), pa.int32()), 3)
    check(page, pa.array([10, None, 20], pa.int32()))


@settings(deadline=None)
@given(st.integers(1, 31), st.booleans(), st.integers(1, 700), st.integers(0, 1000))
def test_bitpacked(width: int, signed: bool, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = (-(1 << (width - 1)), 1 << (width - 1)) if signed else (0, 1 << width)
    values = rng.integers(low, high, count).astype(np.int32)
    bits = np.unpackbits(values.view(np.uint8).reshape(count, 4), axis=1, bitorder="little")[:, :width]
    packed = np.packbits(bits.reshape(-1), bitorder="little")
    message = pb.Bitpacked(
        compressed_bits_per_value=width, uncompressed_bits_per_value=32, buffer=pb.Buffer(), signed=signed
    )
    check(Page(pb.ArrayEncoding(bitpacked=message), [packed], pa.int32(), count), pa.array(values))


@settings(deadline=None)
@given(st.sampled_from([8, 16, 32, 64]), st.integers(1, 3000), st.data())
def test_bitpacked_for_non_negative(bits: int, count: int, data: st.DataObject) -> None:
    from pilum.encoding.kernels import bitpacking

    width = data.draw(st.integers(1, min(bits, 40)))
    groups = -(-count // 1024)
    values = np.zeros(groups * 1024, f"<u{bits // 8}")
    values[:count] = np.random.default_rng(count).integers(0, 1 << width, count, dtype=np.uint64)
    packed, _ = bitpacking.pack(values.view(np.uint8), np.full(groups, width), bits)
    message = pb.BitpackedForNonNeg(
        compressed_bits_per_value=width, uncompressed_bits_per_value=bits, buffer=pb.Buffer()
    )
    kind = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[bits]
    page = Page(pb.ArrayEncoding(bitpacked_for_non_neg=message), [packed], kind, count)
    check(page, pa.array(values[:count]))


@pytest.mark.parametrize("bits", [8, 24])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary(), pa.binary(3)], ids=str)
def test_fixed_size_binary(bits: int, kind: Any) -> None:
    message = pb.FixedSizeBinary(bytes=flat(bits), byte_width=3)
    page = Page(pb.ArrayEncoding(fixed_size_binary=message), [b"abcdefghi"], kind, 3)
    check(page, pa.array([b"abc", b"def", b"ghi"], pa.binary(3)).cast(pa.binary()).cast(kind))


# --------------------------------------------------------------------------- damage


BAD = {
    "bits": (flat(12), [b"x" * 99], pa.int16()),
    "width": (flat(32), [b"x" * 99], pa.int64()),
    "short": (flat(64), [b"x" * 20], pa.int64()),
    "no such buffer": (flat(64, 3), [b"x" * 99], pa.int64()),
    "no buffer": (pb.ArrayEncoding(flat=pb.Flat(bits_per_value=64)), [b"x" * 99], pa.int64()),
    "not a list": (pb.ArrayEncoding(list=pb.List()), [], pa.int64()),
    "not a string": (pb.ArrayEncoding(binary=pb.Binary(indices=flat(64), bytes=flat(8, 1))), [b"x" * 99] * 2, pa.int64()),
    "dimension": (pb.ArrayEncoding(fixed_size_list=pb.FixedSizeList(dimension=3, items=flat(8))), [b"x" * 99], pa.list_(pa.int8(), 2)),
    "nullable": (pb.ArrayEncoding(nullable=pb.Nullable()), [], pa.int8()),
    "packed width": (pb.ArrayEncoding(bitpacked=pb.Bitpacked(compressed_bits_per_value=9, uncompressed_bits_per_value=8, buffer=pb.Buffer())), [b"x" * 99], pa.int8()),
    "nulls": (pb.ArrayEncoding(dictionary=pb.Dictionary(indices=flat(8), items=pb.ArrayEncoding(nullable=pb.Nullable(all_nulls=pb.Nullable.AllNull())), num_dictionary_items=1 << 31)), [b"x" * 99], pa.string()),
    "symbols": (pb.ArrayEncoding(fsst=pb.Fsst(binary=pb.ArrayEncoding(binary=pb.Binary(indices=flat(64), bytes=flat(8, 1))), symbol_table=b"abc")), [b"x" * 99] * 2, pa.string()),
}  # fmt: skip


@pytest.mark.fault
@pytest.mark.parametrize("name", BAD)
def test_contradictions(name: str) -> None:
    message, buffers, kind = BAD[name]
    with pytest.raises(CorruptFileError):
        Page(message, list(buffers), kind, 4)


@pytest.mark.fault
def test_what_is_not_part_of_the_format() -> None:
    with pytest.raises(UnsupportedError):
        Page(pb.ArrayEncoding(), [], pa.int8(), 1)
    with pytest.raises(UnsupportedError, match="gzip"):
        Page(flat(8, compression=pb.Compression(scheme="gzip")), [b"x"], pa.int8(), 1)
    file_buffer = pb.ArrayEncoding(
        flat=pb.Flat(bits_per_value=8, buffer=pb.Buffer(buffer_type=pb.Buffer.FILE))
    )
    with pytest.raises(UnsupportedError):
        Page(file_buffer, [b"x"], pa.int8(), 1)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("indices", "what"),
    [([3, 2, 6], "decrease"), ([1, 2, 60], "only 6"), ([1, 2, 1 << 63], "decrease|only"), ([1, 1 << 40, 6], "decrease|only")],
)  # fmt: skip
def test_damaged_ends(indices: list[int], what: str) -> None:
    message = pb.ArrayEncoding(
        binary=pb.Binary(indices=no_nulls(flat(64)), bytes=flat(8, 1), null_adjustment=1 << 62)
    )
    page = Page(message, [np.array(indices, np.uint64), b"abcdef"], pa.string(), 3)
    for rows in (range(3), np.array([1, 2])):
        with pytest.raises(CorruptFileError, match=what):
            page.read(rows)


@pytest.mark.fault
def test_damaged_dictionaries_and_text() -> None:
    message = pb.Dictionary(indices=flat(8), items=no_nulls(flat(32, 1)), num_dictionary_items=2)
    page = Page(
        pb.ArrayEncoding(dictionary=message),
        [np.array([0, 2], np.uint8), np.array([1, 2], np.int32)],
        pa.dictionary(pa.int8(), pa.int32()),
        2,
    )
    with pytest.raises(CorruptFileError, match="dictionary index 2"):
        page.read(range(2))
    text = pb.ArrayEncoding(binary=pb.Binary(indices=flat(64), bytes=flat(8, 1), null_adjustment=99))
    with pytest.raises(CorruptFileError, match="UTF-8"):
        Page(text, [np.array([2], np.uint64), b"\xff\xfe"], pa.string(), 1).read(range(1))
