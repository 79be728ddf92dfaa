"""Run lengths, byte-stream split and general compression: examples, round trips, hostile input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum import jit
from pilum.encoding import kernels, registry
from pilum.encoding.arrow_blocks import from_arrow, to_arrow
from pilum.encoding.blocks import FixedBlock, VariableBlock
from pilum.encoding.codecs.flat import flat_ce
from pilum.encoding.codecs.general import compress, decompress
from pilum.encoding.codecs.variable import variable_ce
from pilum.encoding.kernels import zstd
from pilum.encoding.registry import ChunkSet, EncodeOptions, MiniBlockEncoded
from pilum.errors import CorruptFileError, InvalidInputError, PilumError, UnsupportedError
from pilum.proto import encodings_pb2 as pb

V22, V21 = EncodeOptions(), EncodeOptions(version=(2, 1))
LZ4, ZSTD = 1, 2


def raw(hexed: str) -> Any:
    return np.frombuffer(bytes.fromhex(hexed), np.uint8)


def words(values: Any, bits: int) -> FixedBlock:
    array = np.asarray(values).astype(f"<u{bits // 8}")
    return FixedBlock(bits, array.view(np.uint8), len(array))


def one(data: Any) -> ChunkSet:
    return ChunkSet(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))


def chunk_sets(encoded: MiniBlockEncoded) -> list[ChunkSet]:
    return [ChunkSet(b, np.cumsum(s) - s, s) for b, s in zip(encoded.buffers, encoded.sizes, strict=True)]


def decode_all(encoded: MiniBlockEncoded) -> Any:
    return registry.decode_miniblock(encoded.ce, chunk_sets(encoded), encoded.counts)


def name_of(ce: Any) -> str:
    """``general(flat)`` and the like."""
    name: str = ce.WhichOneof("compression")
    return f"general({name_of(ce.general.values)})" if name == "general" else name


def rle_ce(values: int = 32, lengths: int = 8) -> Any:
    return pb.CompressiveEncoding(rle=pb.Rle(values=flat_ce(values), run_lengths=flat_ce(lengths)))


def general_ce(scheme: int, child: Any) -> Any:
    general = pb.General(compression=pb.BufferCompression(scheme=scheme), values=child)
    return pb.CompressiveEncoding(general=general)


# --------------------------------------------------------------------------- run lengths


def test_rle_examples() -> None:
    block = words([7] * 300 + [9] * 5, 32)
    encoded = registry.encode_miniblock(block, V22)
    assert encoded.ce == rle_ce()
    assert [bytes(b).hex() for b in encoded.buffers] == ["070000000700000009000000", "ff2d05"]
    assert np.array_equal(decode_all(encoded).data, block.data)
    levels = np.repeat([1, 0], 40).astype(np.uint16)
    data = raw("0400000000000000" + "01000000" + "2828")
    decoded = registry.decode_block(rle_ce(16), data, 80)
    assert isinstance(decoded, FixedBlock)
    assert np.array_equal(decoded.words(), levels)
    encoded_levels = registry.encode_levels(levels, np.array([80]), V22)
    assert bytes(encoded_levels.data) == bytes(data)
    assert encoded_levels.ce == rle_ce(16)
    assert name_of(registry.encode_levels(levels, np.array([80]), V21).ce) == "inline_bitpacking"


def test_an_overshooting_run_is_cut() -> None:
    values = np.array([1, 2, 2, 3], "<u4").view(np.uint8)
    lengths = np.array([3, 4, 1, 9], np.uint8)
    sets = [
        ChunkSet(values, np.array([0, 8]), np.array([8, 8])),
        ChunkSet(lengths, np.array([0, 2]), np.array([2, 2])),
    ]
    block = registry.decode_miniblock(rle_ce(), sets, np.array([4, 5]))
    assert isinstance(block, FixedBlock)
    assert block.words().tolist() == [1, 1, 1, 2, 2, 3, 3, 3, 3]
    # a run that lies wholly behind the end of its chunk
    block = registry.decode_miniblock(rle_ce(), sets, np.array([2, 1]))
    assert isinstance(block, FixedBlock)
    assert block.words().tolist() == [1, 1, 2]


def test_wide_run_lengths_are_readable() -> None:
    values, lengths = np.array([5, 6], "<u2").view(np.uint8), np.array([1000, 3], "<u4").view(np.uint8)
    block = registry.decode_miniblock(rle_ce(16, 32), [one(values), one(lengths)], np.array([1003]))
    assert isinstance(block, FixedBlock)
    assert block.words().tolist() == [5] * 1000 + [6] * 3


@settings(max_examples=80, deadline=None)
@given(
    bits=st.sampled_from([8, 16, 32, 64]),
    runs=st.lists(st.tuples(st.integers(0, 255), st.integers(1, 6000)), min_size=1, max_size=12),
    noise=st.integers(0, 5000),
    cuts=st.lists(st.integers(0, 5000), max_size=6),
)
@pytest.mark.property
def test_rle_round_trip(bits: int, runs: list[tuple[int, int]], noise: int, cuts: list[int]) -> None:
    parts = [np.repeat(*map(np.asarray, zip(*runs, strict=True))), np.arange(noise)]
    block = words(np.concatenate(parts), bits)
    rle = registry.codec("rle")
    encoded = rle.encode_miniblock(block, V22)
    assert int(encoded.counts.sum()) == block.count
    assert all(n & (n - 1) == 0 and n >= 2 for n in encoded.counts[:-1].tolist())
    assert int(encoded.counts.max()) <= 4096
    assert int((encoded.sizes[0] + encoded.sizes[1]).max()) <= 8186
    assert np.array_equal(decode_all(encoded).data, block.data)
    counts = np.diff(np.unique([0, block.count, *(c for c in cuts if c < block.count)]))
    counts = np.concatenate([counts, [0]])
    blocks = rle.encode_blocks(block, counts, V22)
    chunks = ChunkSet(blocks.data, np.cumsum(blocks.sizes) - blocks.sizes, blocks.sizes)
    assert np.array_equal(rle.decode_blocks(blocks.ce, chunks, counts).data, block.data)


@pytest.mark.fault
def test_bad_runs_are_refused() -> None:
    def decode(values: str, lengths: str, count: int) -> None:
        registry.decode_miniblock(rle_ce(), [one(raw(values)), one(raw(lengths))], np.array([count]))

    decode("01000000", "04", 4)
    for values, lengths, count in [
        ("01000000", "04", 5),  # too few
        ("01000000", "00", 0x10),  # a run of nothing
        ("0100000002000000", "0400", 4),
        ("01000000", "0404", 4),  # differing entry counts
        ("010000", "04", 4),
        ("", "", 4),
    ]:
        with pytest.raises(CorruptFileError):
            decode(values, lengths, count)
    for data, count in [
        ("0400000000000000" + "01000000" + "2828", 79),  # blocks do not overshoot
        ("0600000000000000" + "01000000" + "2828", 80),
        ("ffffffffffffffff" + "01000000" + "2828", 80),
        ("04000000", 80),
        ("", 80),
    ]:
        with pytest.raises(CorruptFileError):
            registry.decode_block(rle_ce(16), raw(data), count)
    with pytest.raises(CorruptFileError):
        registry.num_buffers(pb.CompressiveEncoding(rle=pb.Rle(values=flat_ce(32))))
    packed = pb.CompressiveEncoding(
        out_of_line_bitpacking=pb.OutOfLineBitpacking(uncompressed_bits_per_value=8, values=flat_ce(4))
    )
    both = pb.CompressiveEncoding(rle=pb.Rle(values=packed, run_lengths=packed))
    with pytest.raises(CorruptFileError, match="how many runs"):
        registry.decode_block(both, raw("0100000000000000" + "01" + "01"), 4)
    strings = pb.CompressiveEncoding(variable=pb.Variable(offsets=flat_ce(32)))
    with pytest.raises(UnsupportedError):
        registry.num_buffers(pb.CompressiveEncoding(rle=pb.Rle(values=strings, run_lengths=flat_ce(8))))


# --------------------------------------------------------------------------- byte-stream split


def test_byte_stream_split_example() -> None:
    block = from_arrow(pa.array([1, 2, 3, 4], pa.float32()))
    encoded = registry.codec("byte_stream_split").encode_miniblock(block, V22)
    assert bytes(encoded.buffers[0]).hex() == "0000000000000000" + "80004080" + "3f404040"
    assert decode_all(encoded).data.tobytes() == block.data.tobytes()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("count", [1, 512, 1024, 1025, 5000])
def test_byte_stream_split_round_trip(bits: int, count: int) -> None:
    block = words(np.random.default_rng(count).integers(0, 2**63, count), bits)
    encoded = registry.codec("byte_stream_split").encode_miniblock(block, V22)
    assert np.array_equal(decode_all(encoded).data, block.data)
    sets = chunk_sets(encoded)
    sets[0].sizes = sets[0].sizes - 1
    with pytest.raises(CorruptFileError):
        registry.decode_miniblock(encoded.ce, sets, encoded.counts)


# --------------------------------------------------------------------------- general


def test_general_examples() -> None:
    lz4 = raw("19000000" + "62200000001400" + "0100d002000000050000006161626364")
    zstd = raw(
        "1900000000000000" + "28b52ffd2019c90000" + "2000000014000000000000000200000005000000" + "6161626364"
    )
    for scheme, data in ((LZ4, lz4), (ZSTD, zstd)):
        block = registry.decode_block(general_ce(scheme, variable_ce(32)), data, 2)
        assert to_arrow(block, pa.string()).to_pylist() == ["aa", "bcd"]
    twice = np.frombuffer(compress(LZ4, np.frombuffer(compress(ZSTD, raw("0102")), np.uint8)), np.uint8)
    nested = general_ce(LZ4, general_ce(ZSTD, flat_ce(8)))
    assert registry.decode_block(nested, twice, 2).data.tolist() == [1, 2]  # type: ignore[union-attr]


def test_zstd_frames_without_prefix_or_size() -> None:
    plain = np.arange(100, dtype=np.uint8)
    frame = np.frombuffer(compress(ZSTD, plain), np.uint8)[8:]
    assert np.array_equal(decompress(ZSTD, frame), plain)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(plain.tobytes())
    streamed = np.frombuffer(sink.getvalue(), np.uint8)
    assert np.array_equal(decompress(ZSTD, streamed), plain)
    sized = np.concatenate([np.array([100], "<u8").view(np.uint8), streamed])
    assert np.array_equal(decompress(ZSTD, sized), plain)
    with pytest.raises(CorruptFileError):
        decompress(ZSTD, np.concatenate([np.array([101], "<u8").view(np.uint8), streamed]))
    assert len(decompress(ZSTD, plain[:0])) == 0


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000), repeat=st.integers(1, 50), scheme=st.sampled_from([LZ4, ZSTD]))
@pytest.mark.property
def test_compress_round_trip(data: bytes, repeat: int, scheme: int) -> None:
    plain = np.frombuffer(data * repeat, np.uint8)
    packed = np.frombuffer(compress(scheme, plain), np.uint8)
    assert np.array_equal(decompress(scheme, packed), plain)


def test_many_pieces_are_compressed_by_the_library() -> None:
    """What the loop over zstd's own functions writes, Arrow reads: also nothing, noise and pieces of a page."""
    if not kernels.enabled() or not kernels.preload():
        pytest.skip("Numba is switched off or missing")
    rng = np.random.default_rng(1)
    sizes = np.concatenate(
        [[0, 1, 3], rng.integers(0, 3000, 200), [0, 200_000, 1 << 18], np.zeros(3, np.int64)]
    )
    data = rng.integers(0, 4, int(sizes.sum()), dtype=np.uint8)
    data[1000:200_000] = rng.integers(0, 256, 199_000, dtype=np.uint8)
    found = zstd.compress(data, sizes, 3)
    if zstd._COMPRESS.compiled is None:
        assert found is None
        pytest.skip("there is no zstd library on this machine")
    assert found is not None
    packed, lengths = found
    assert int(lengths.sum()) == len(packed)
    assert [n > 0 for n in lengths] == [n > 0 for n in sizes]
    ends, at = np.cumsum(sizes), np.cumsum(lengths)
    for k, size in enumerate(sizes.tolist()):
        payload = packed[at[k] - lengths[k] : at[k]]
        plain = decompress(ZSTD, payload)
        assert plain.tobytes() == data[ends[k] - size : ends[k]].tobytes()
    harder = zstd.compress(data, sizes, 15)
    assert harder is not None
    assert len(harder[0]) < len(packed)


@pytest.mark.parametrize("library", ["libpilum-has-no-such.so.7", None])
def test_a_missing_library_or_function_means_no_kernel(library: str | None) -> None:
    known = len(jit._kernels)
    externals = {"c_none": "p pilum_has_no_such_function()"}
    kernel = jit.Kernel(lambda: 0, "i8(i8)", externals=externals, library=library or zstd._LIBRARY)
    try:
        assert kernel.load() is None
        assert kernel.get(1 << 30) is None
    finally:
        del jit._kernels[known:]


@pytest.mark.fault
@pytest.mark.parametrize("scheme", [LZ4, ZSTD])
def test_wrong_sizes_are_refused(scheme: int) -> None:
    packed = np.frombuffer(compress(scheme, np.zeros(1000, np.uint8)), np.uint8)
    for wrong in (0, 999, 1001, 2**31 - 1):
        prefix = np.array([wrong], "<u4" if scheme == LZ4 else "<u8").view(np.uint8)
        with pytest.raises(CorruptFileError):
            decompress(scheme, np.concatenate([prefix, packed[len(prefix) :]]))
    with pytest.raises(CorruptFileError):
        decompress(scheme, packed[:-1])
    with pytest.raises(CorruptFileError):
        decompress(scheme, packed[:3])
    for scheme_number, error in ((0, CorruptFileError), (3, UnsupportedError)):
        with pytest.raises(error):
            registry.decode_block(general_ce(scheme_number, flat_ce(8)), packed, 1000)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("kind", ["int64", "float32", "string", "runs"])
def test_requested_compression(compression: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    array = {
        "int64": pa.array(rng.integers(0, 50, 5000)),
        "float32": pa.array(rng.integers(0, 50, 5000).astype(np.float32)),
        "string": pa.array([f"value number {i % 7}" for i in range(5000)]),
        "runs": pa.array(np.repeat(np.arange(5000) % 11, 20).astype(np.uint16)),
    }[kind]
    options = EncodeOptions(compression=compression, compression_level=5 if compression == "zstd" else None)
    encoded = registry.encode_miniblock(from_arrow(array), options)
    inner = {"string": "variable", "runs": "rle"}.get(kind, "byte_stream_split")
    assert name_of(encoded.ce) == f"general({inner})"
    assert to_arrow(decode_all(encoded), array.type).equals(array)


def test_small_pages_are_not_compressed() -> None:
    encoded = registry.encode_miniblock(from_arrow(pa.array(range(100))), EncodeOptions(compression="lz4"))
    assert name_of(encoded.ce) == "byte_stream_split"
    with pytest.raises(InvalidInputError, match="brotli"):
        registry.encode_miniblock(from_arrow(pa.array(range(100))), EncodeOptions(compression="brotli"))


def test_compressed_full_zip_values() -> None:
    array = pa.array(["x" * 5000, "", "yz" * 20_000], pa.large_string())
    for compression in (None, "zstd", "lz4"):
        values, ce = registry.encode_values(from_arrow(array), EncodeOptions(compression=compression))
        assert name_of(ce) == "general(variable)"
        assert ce.general.compression.scheme == ZSTD
        assert isinstance(values, VariableBlock)
        assert len(values.data) < 1000
        assert to_arrow(registry.decode_values(ce, values), array.type).equals(array)
    values, ce = registry.encode_values(from_arrow(array), EncodeOptions(compression="none"))
    assert name_of(ce) == "variable"


def test_dictionary_values_as_blocks() -> None:
    names = from_arrow(pa.array([f"name {i}" for i in range(200)]))
    for version, compression, expected in [
        ((2, 2), "lz4", "general(variable)"),
        ((2, 2), "zstd", "general(variable)"),
        ((2, 2), "none", "variable"),
        ((2, 1), "lz4", "variable"),
    ]:
        data, ce = registry.encode_block(names, EncodeOptions(version, compression))
        assert name_of(ce) == expected
        block = registry.decode_block(ce, data, 200)
        assert to_arrow(block, pa.string())[199].as_py() == "name 199"
    numbers = words(np.random.default_rng(0).integers(0, 2**63, 5000), 64)
    data, ce = registry.encode_block(numbers, V22)
    assert name_of(ce) in ("general(flat)", "out_of_line_bitpacking")


@pytest.mark.fault
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_flipped_bytes_in_compressed_chunks(compression: str) -> None:
    array = pa.array([f"value number {i % 7}" for i in range(2000)])
    encoded = registry.encode_miniblock(from_arrow(array), EncodeOptions(compression=compression))
    rng = np.random.default_rng(0)
    for _ in range(150):
        sets = chunk_sets(encoded)
        sets[0].data = sets[0].data.copy()
        sets[0].data[rng.integers(len(sets[0].data), size=2)] = rng.integers(0, 256, 2)
        try:
            block = registry.decode_miniblock(encoded.ce, sets, encoded.counts)
            to_arrow(block, array.type)
        except PilumError:
            continue
        assert block.count == 2000
