"""Codecs: the specification's examples, round trips of random values, hostile input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum.encoding import registry, selection
from pilum.encoding.arrow_blocks import from_arrow, to_arrow
from pilum.encoding.blocks import Block, FixedBlock, FslBlock, VariableBlock
from pilum.encoding.codecs.flat import flat_ce, values_per_chunk
from pilum.encoding.registry import ChunkSet, EncodeOptions, FixedValues, MiniBlockEncoded
from pilum.errors import CorruptFileError, InvalidInputError, PilumError, UnsupportedError
from pilum.proto import encodings_pb2 as pb

V22, V21 = EncodeOptions(), EncodeOptions(version=(2, 1))


def text(data: Any) -> str:
    return bytes(data).hex()


def raw(hexed: str) -> Any:
    return np.frombuffer(bytes.fromhex(hexed), np.uint8)


def chunk_sets(encoded: MiniBlockEncoded) -> list[ChunkSet]:
    return [ChunkSet(b, np.cumsum(s) - s, s) for b, s in zip(encoded.buffers, encoded.sizes, strict=True)]


def scattered(encoded: MiniBlockEncoded, seed: int) -> tuple[list[ChunkSet], Any]:
    """The chunks of a page in another order, with gaps: as in a page, or after a take."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(encoded.counts))
    sets = []
    for whole in chunk_sets(encoded):
        pieces, starts, at = [], np.zeros(len(order), np.int64), 0
        for c in order:
            gap = int(rng.integers(0, 3)) * (8 if seed % 2 else 1)
            pieces += [np.full(gap, 0xFE, np.uint8), whole.chunk(int(c))]
            starts[c] = at + gap
            at += gap + int(whole.sizes[c])
        data = np.concatenate([*pieces, np.zeros(0, np.uint8)])
        sets.append(ChunkSet(data, starts[order], whole.sizes[order]))
    return sets, order


def one(data: Any) -> ChunkSet:
    return ChunkSet(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))


def words(values: Any, bits: int) -> FixedBlock:
    array = np.asarray(values, f"<u{bits // 8}")
    return FixedBlock(bits, array.view(np.uint8), len(array))


def decode_all(encoded: MiniBlockEncoded) -> Block:
    return registry.decode_miniblock(encoded.ce, chunk_sets(encoded), encoded.counts)


# --------------------------------------------------------------------------- worked examples


def test_flat_example() -> None:
    encoded = registry.encode_miniblock(from_arrow(pa.array([1, -2, 3], pa.int32())), V22)
    assert text(encoded.buffers[0]) == "01000000feffffff03000000"
    assert encoded.ce == flat_ce(32)
    bits = registry.encode_miniblock(
        from_arrow(pa.array([1, 0, 1, 1, 0, 0, 0, 1, 1, 0]).cast(pa.bool_())), V22
    )
    assert text(bits.buffers[0]) == "8d01"


def test_variable_examples() -> None:
    encoded = registry.encode_miniblock(from_arrow(pa.array(["ab", "", "cde"])), V22)
    assert encoded.ce.SerializeToString().hex() == "12060a040a020820"
    assert text(encoded.buffers[0]) == "10000000120000001200000015000000" + "6162636465" + "484848"
    block = from_arrow(pa.array(["aa", "bcd"]))
    data, ce = registry.encode_block(block, V22)
    assert text(data) == "2000000014000000" + "000000000200000005000000" + "6161626364"
    assert to_arrow(registry.decode_block(ce, data, 2), pa.string()).to_pylist() == ["aa", "bcd"]


def test_old_variable_block_header() -> None:
    body = "000000000200000005000000" + "6161626364"
    old = raw("20" + "02000000" + "15000000" + body)
    ce = registry.encode_block(from_arrow(pa.array(["a"])), V22)[1]
    assert to_arrow(registry.decode_block(ce, old, 2), pa.string()).to_pylist() == ["aa", "bcd"]
    wide = raw(
        "40"
        + "0200000000000000"
        + "2900000000000000"
        + "00" * 8
        + "02"
        + "00" * 7
        + "05"
        + "00" * 7
        + "6161626364"
    )
    with pytest.raises(CorruptFileError):  # byte 1..3 = 02 00 00: old form, 17 + 24 = 41 = 0x29
        registry.decode_block(ce, wide, 3)
    block = registry.decode_block(ce, wide, 2)
    assert isinstance(block, VariableBlock)
    assert block.offset_bits == 64


def test_inline_bitpacking_example() -> None:
    block = words(np.arange(120) % 2, 32)
    encoded = registry.codec("inline_bitpacking").encode_miniblock(block, V22)
    assert text(encoded.buffers[0]) == "01000000" + "0000000001010101" * 12 + "0000000001010100" * 4
    assert np.array_equal(decode_all(encoded).data, block.data)  # type: ignore[union-attr]


@pytest.mark.parametrize(("count", "size"), [(1084, 248), (1088, 256), (1300, 256)])
def test_out_of_line_sizes(count: int, size: int) -> None:
    levels = (np.arange(count) % 2).astype(np.uint16)
    encoded = registry.encode_levels(levels, np.array([count]), V21)
    assert encoded.ce.WhichOneof("compression") == "out_of_line_bitpacking"
    assert encoded.sizes.tolist() == [size]
    decoded = registry.decode_block(encoded.ce, encoded.data, count)
    assert isinstance(decoded, FixedBlock)
    assert np.array_equal(decoded.words(), levels)


def test_fixed_size_list_examples() -> None:
    block = from_arrow(pa.array([[1, 2, None], [4, 5, None]], pa.list_(pa.int16(), 3)))
    encoded = registry.encode_miniblock(block, V22)
    assert [text(b) for b in encoded.buffers] == ["1b", "010002000000040005000000"]
    values, ce = registry.encode_values(block, V22)
    assert isinstance(values, FixedValues)
    assert values.width == 7
    assert text(values.data) == "03010002000000" + "03040005000000"
    # the reference leaves garbage in the unused bits of the first byte
    garbage = FixedValues(7, raw("1b010002000000" + "03040005000000"), 2)
    back = to_arrow(registry.decode_values(ce, garbage), pa.list_(pa.int16(), 3))
    assert back.to_pylist() == [[1, 2, None], [4, 5, None]]


def test_full_zip_lists_without_any_item() -> None:
    constant = pb.CompressiveEncoding(constant=pb.Constant())
    ce = pb.CompressiveEncoding(
        fixed_size_list=pb.FixedSizeList(items_per_value=10, has_validity=True, values=constant)
    )
    block = registry.decode_values(ce, FixedValues(2, np.zeros(6, np.uint8), 3))
    assert to_arrow(block, pa.list_(pa.int8(), 10)).to_pylist() == [[None] * 10] * 3


# --------------------------------------------------------------------------- writer's rules


def test_flat_chunk_sizes() -> None:
    sizes = {1: 4096, 2: 2048, 3: 2048, 4: 1024, 8: 512, 16: 256, 32: 128, 4092: 2}
    assert {width: values_per_chunk(width) for width in sizes} == sizes
    with pytest.raises(InvalidInputError):
        values_per_chunk(4093)
    encoded = registry.encode_miniblock(FixedBlock(1, np.zeros(1250, np.uint8), 10_000), V22)
    assert encoded.counts.tolist() == [4096, 4096, 1808]


@pytest.mark.parametrize(
    ("values", "bits", "name"),
    [
        (np.arange(3), 32, "flat"),
        (np.arange(1000) % 100, 32, "inline_bitpacking"),
        ([-1, *range(999)], 64, "flat"),
        (np.linspace(0, 1, 3000, dtype=np.float32).view(np.uint32), 32, "inline_bitpacking"),
    ],
)
def test_selection_of_fixed_width(values: Any, bits: int, name: str) -> None:
    block = words(np.asarray(values).astype(np.int64), bits)
    encoded = registry.encode_miniblock(block, V21)
    assert encoded.ce.WhichOneof("compression") == name
    plain = registry.encode_miniblock(block, EncodeOptions(compression="none"))
    assert plain.ce.WhichOneof("compression") == "flat"


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (20, "flat"),
        (64, "flat"),
        (65, "inline_bitpacking"),
        (1024, "inline_bitpacking"),
        (1025, "out_of_line_bitpacking"),
    ],
)
def test_selection_of_levels(count: int, name: str) -> None:
    levels = (np.arange(count) % 2).astype(np.uint16)
    encoded = registry.encode_levels(levels, np.array([count]), V21)
    assert encoded.ce.WhichOneof("compression") == name


def test_options_from_metadata() -> None:
    options = EncodeOptions.from_environment((2, 1)).of_field(
        {
            "lance-encoding:compression": "ZSTD",
            "lance-encoding:compression-level": "7",
            "lance-encoding:minichunk-size": "65536",
            "lance-encoding:bss": "maybe",
            "lance-encoding:rle-threshold": "many",
        }
    )
    assert options == EncodeOptions((2, 1), "zstd", 7)
    assert (
        EncodeOptions.from_environment().of_field({"lance-encoding:minichunk-size": "65536"}).minichunk_size
        == 65536
    )


# --------------------------------------------------------------------------- round trips

COUNTS = st.integers(1, 5000)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([8, 16, 32, 64]),
    count=COUNTS,
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(["flat", "inline_bitpacking"]),
)
@pytest.mark.property
def test_fixed_width_round_trip(bits: int, count: int, seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    values = (
        rng.integers(0, 2**64, count, dtype=np.uint64)
        >> rng.integers(0, 64, count // 700 + 1, dtype=np.uint64)[np.arange(count) // 700]
    )
    block = words(values.astype(f"<u{bits // 8}"), bits)
    encoded = registry.codec(name).encode_miniblock(block, V22)
    assert sum(encoded.counts) == count
    assert np.array_equal(decode_all(encoded).data, block.data)  # type: ignore[union-attr]
    sets, order = scattered(encoded, seed)
    shuffled = registry.decode_miniblock(encoded.ce, sets, encoded.counts[order])
    ends = np.cumsum(encoded.counts)
    expected = np.concatenate([block.words()[ends[c] - encoded.counts[c] : ends[c]] for c in order])
    assert isinstance(shuffled, FixedBlock)
    assert np.array_equal(shuffled.words(), expected)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.binary(max_size=40), min_size=1, max_size=60),
    repeat=st.integers(1, 60),
    large=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.property
def test_variable_round_trip(values: list[bytes], repeat: int, large: bool, seed: int) -> None:
    array = pa.array(values * repeat, pa.large_binary() if large else pa.binary())
    block = from_arrow(array)
    encoded = registry.codec("variable").encode_miniblock(block, V22)
    assert to_arrow(decode_all(encoded), array.type).equals(array)
    sets, order = scattered(encoded, seed)
    shuffled = to_arrow(registry.decode_miniblock(encoded.ce, sets, encoded.counts[order]), array.type)
    ends = np.cumsum(encoded.counts)
    expected = pa.concat_arrays(
        [array.slice(int(ends[c] - encoded.counts[c]), int(encoded.counts[c])) for c in order]
    )
    assert shuffled.equals(expected)
    data, ce = registry.codec("variable").encode_block(block, V22)
    assert to_arrow(registry.decode_block(ce, data, len(array)), array.type).equals(array)
    zipped, ce = registry.encode_values(block, V22)
    assert to_arrow(registry.decode_values(ce, zipped), array.type).equals(array)


@st.composite
def list_arrays(draw: st.DrawFn) -> pa.Array:
    kind = draw(st.sampled_from([pa.int8(), pa.float32(), pa.bool_(), pa.binary(3)]))
    depth = draw(st.integers(1, 3))
    rows, dims = draw(st.integers(1, 300)), [draw(st.integers(1, 5)) for _ in range(depth)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nulls = [draw(st.booleans()) for _ in range(depth)]
    count = rows * int(np.prod(dims))
    if pa.types.is_fixed_size_binary(kind):
        items = [bytes(rng.integers(0, 256, 3, dtype=np.uint8)) for _ in range(count)]
    else:
        items = pa.array(rng.integers(0, 2, count)).cast(kind).to_pylist()
    for layer in range(depth - 1, -1, -1):
        mask = rng.random(count) < (0.3 if nulls[layer] else 0)
        values = pa.array(items, kind) if layer == depth - 1 else items
        if layer == depth - 1:
            items = pa.array([None if m else v for m, v in zip(mask, values.to_pylist(), strict=True)], kind)
        elif mask.any():
            items = pa.FixedSizeListArray.from_arrays(items.values, items.type.list_size, mask=pa.array(mask))
        count //= dims[layer]
        items = pa.FixedSizeListArray.from_arrays(items, dims[layer])
    return items


@settings(max_examples=60, deadline=None)
@given(array=list_arrays(), seed=st.integers(0, 2**32 - 1))
@pytest.mark.property
def test_fixed_size_list_round_trip(array: pa.Array, seed: int) -> None:
    block = from_arrow(array)
    encoded = registry.encode_miniblock(block, V22)
    assert to_arrow(decode_all(encoded), array.type).to_pylist() == array.to_pylist()
    sets, order = scattered(encoded, seed)
    assert registry.decode_miniblock(encoded.ce, sets, encoded.counts[order]).count == len(array)
    try:
        values, ce = registry.encode_values(block, V22)
    except InvalidInputError:
        return  # rows that are not whole bytes
    assert to_arrow(registry.decode_values(ce, values), array.type).to_pylist() == array.to_pylist()


@settings(max_examples=80, deadline=None)
@given(
    counts=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    top=st.sampled_from([1, 3, 200, 65535]),
    version=st.sampled_from([V21, V22]),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.property
def test_levels_round_trip(counts: list[int], top: int, version: EncodeOptions, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cuts = np.array(counts, np.int64)
    levels = rng.integers(0, top + 1, int(cuts.sum())).astype(np.uint16)
    encoded = registry.encode_levels(levels, cuts, version)
    chunks = ChunkSet(encoded.data, np.cumsum(encoded.sizes) - encoded.sizes, encoded.sizes)
    decoded = registry.decode_blocks(encoded.ce, chunks, cuts)
    assert np.array_equal(decoded.words(), levels)
    for c in range(len(cuts)):  # one by one gives the same
        block = registry.decode_block(encoded.ce, chunks.chunk(c), int(cuts[c]))
        at = int(cuts[:c].sum())
        assert isinstance(block, FixedBlock)
        assert np.array_equal(block.words(), levels[at : at + int(cuts[c])])


def test_out_of_line_with_a_packed_tail_that_could_be_raw() -> None:
    levels = (np.arange(1034) % 4).astype(np.uint16)
    from pilum.encoding.kernels import bitpacking

    padded = np.concatenate([levels, np.zeros(1014, np.uint16)])
    packed, _ = bitpacking.pack(padded.view(np.uint8), np.array([2, 2]), 16)
    message = pb.OutOfLineBitpacking(uncompressed_bits_per_value=16, values=flat_ce(2))
    ce = pb.CompressiveEncoding(out_of_line_bitpacking=message)
    block = registry.decode_block(ce, packed, 1034)
    assert isinstance(block, FixedBlock)
    assert np.array_equal(block.words(), levels)


def test_odd_chunks_are_readable() -> None:
    """Chunks of 2 booleans, a chunk without values, an uneven bit-packed page."""
    data = np.array([0b10, 0b01, 0b11], np.uint8)
    chunks = ChunkSet(data, np.arange(3), np.ones(3, np.int64))
    block = registry.decode_miniblock(flat_ce(1), [chunks], np.array([2, 2, 1]))
    assert to_arrow(block, pa.bool_()).to_pylist() == [False, True, True, False, True]
    inline = registry.codec("inline_bitpacking")
    counts = np.array([16, 0, 1024, 512, 3])
    values = np.arange(counts.sum()) % 300
    encoded = inline.encode_blocks(words(values, 16), counts, V22)
    chunks = ChunkSet(encoded.data, np.cumsum(encoded.sizes) - encoded.sizes, encoded.sizes)
    decoded = inline.decode_miniblock(encoded.ce, [chunks], counts)
    assert np.array_equal(decoded.data, words(values, 16).data)  # type: ignore[union-attr]


# --------------------------------------------------------------------------- hostile input


def test_an_unregistered_codec_is_named() -> None:
    with pytest.raises(UnsupportedError, match="no_such_codec"):
        registry.codec("no_such_codec")
    with pytest.raises(CorruptFileError):
        registry.decode_block(pb.CompressiveEncoding(), np.zeros(1, np.uint8), 1)
    ce = pb.CompressiveEncoding(constant=pb.Constant())
    with pytest.raises(UnsupportedError, match="mini-block"):
        registry.decode_miniblock(ce, [one(np.zeros(8, np.uint8))], np.array([1]))


@pytest.mark.fault
@pytest.mark.parametrize(
    "ce",
    [
        pb.CompressiveEncoding(flat=pb.Flat(bits_per_value=0)),
        pb.CompressiveEncoding(flat=pb.Flat(bits_per_value=2**60)),
        pb.CompressiveEncoding(flat=pb.Flat(bits_per_value=32, data=pb.BufferCompression(scheme=1))),
        pb.CompressiveEncoding(variable=pb.Variable()),
        pb.CompressiveEncoding(variable=pb.Variable(offsets=flat_ce(16))),
        pb.CompressiveEncoding(
            variable=pb.Variable(offsets=flat_ce(32), values=pb.BufferCompression(scheme=1))
        ),
        pb.CompressiveEncoding(inline_bitpacking=pb.InlineBitpacking(uncompressed_bits_per_value=24)),
        pb.CompressiveEncoding(inline_bitpacking=pb.InlineBitpacking(uncompressed_bits_per_value=0)),
        pb.CompressiveEncoding(out_of_line_bitpacking=pb.OutOfLineBitpacking(uncompressed_bits_per_value=16)),
        pb.CompressiveEncoding(fixed_size_list=pb.FixedSizeList(items_per_value=4)),
        pb.CompressiveEncoding(fixed_size_list=pb.FixedSizeList(items_per_value=0, values=flat_ce(8))),
        pb.CompressiveEncoding(fixed_size_list=pb.FixedSizeList(items_per_value=2**62, values=flat_ce(8))),
    ],
    ids=str,
)
def test_impossible_descriptions_are_refused(ce: Any) -> None:
    data = np.zeros(64, np.uint8)
    for decode in (
        lambda: registry.decode_miniblock(ce, [one(data)], np.array([4])),
        lambda: registry.decode_block(ce, data, 4),
        lambda: registry.decode_values(ce, FixedValues(8, data, 8)),
    ):
        with pytest.raises((CorruptFileError, UnsupportedError)):
            decode()


@pytest.mark.fault
def test_counts_that_the_bytes_cannot_hold() -> None:
    data = np.zeros(40, np.uint8)
    for count in (11, 2**31, 2**40, 2**62):
        with pytest.raises(CorruptFileError):
            registry.decode_block(flat_ce(32), data, count)
        variable = registry.encode_block(from_arrow(pa.array(["a"])), V22)[1]
        with pytest.raises(CorruptFileError):
            registry.decode_block(variable, data, count)
    with pytest.raises(CorruptFileError):
        registry.decode_miniblock(flat_ce(32), [one(data)], np.array([11]))
    with pytest.raises(CorruptFileError):
        registry.decode_miniblock(flat_ce(32), [one(data), one(data)], np.array([1]))


@pytest.mark.fault
@pytest.mark.parametrize(
    "chunk",
    [
        "08000000 0a000000",  # the last offset leaves the buffer
        "08000000 07000000",  # decreasing
        "04000000 08000000",  # bytes start inside the offsets
        "08000000",  # one offset for one value
        "08000000 08000000 61",  # not a multiple of the offset width
        "08000000 ffffffff",
    ],
)
def test_bad_variable_chunks(chunk: str) -> None:
    ce = registry.encode_miniblock(from_arrow(pa.array(["a"])), V22).ce
    with pytest.raises(CorruptFileError):
        registry.decode_miniblock(ce, [one(raw(chunk))], np.array([1]))


@pytest.mark.fault
def test_huge_64_bit_offsets_do_not_wrap() -> None:
    offsets = np.array([40, 2**63 + 5, 2**64 - 1, 42, 42], np.uint64)
    data = np.concatenate([offsets.view(np.uint8), np.zeros(8, np.uint8)])
    ce = registry.encode_miniblock(from_arrow(pa.array(["a"], pa.large_string())), V22).ce
    with pytest.raises(CorruptFileError):
        registry.decode_miniblock(ce, [one(data)], np.array([4]))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("payload", "count"), [("21000000", 1), ("01000000", 5), ("00", 1), ("00000000", 1025), ("", 2)]
)
def test_bad_bitpacked_chunks(payload: str, count: int) -> None:
    ce = pb.CompressiveEncoding(inline_bitpacking=pb.InlineBitpacking(uncompressed_bits_per_value=32))
    with pytest.raises(CorruptFileError):
        registry.decode_miniblock(ce, [one(raw(payload))], np.array([count]))


def _samples() -> list[MiniBlockEncoded]:
    arrays = [
        pa.array(["ab", "", "cdé" * 9] * 300),
        pa.array(np.arange(3000) % 77),
        pa.array([[1, 2, None], [4, 5, None]] * 200, pa.list_(pa.int16(), 3)),
        pa.array([True, False, True] * 1500),
    ]
    return [registry.encode_miniblock(from_arrow(array), V22) for array in arrays]


@pytest.mark.fault
@pytest.mark.parametrize("sample", range(4))
def test_flipped_bytes_give_an_error_or_values(sample: int) -> None:
    encoded = _samples()[sample]
    rng = np.random.default_rng(sample)
    for _ in range(150):
        sets = chunk_sets(encoded)
        victim = sets[int(rng.integers(len(sets)))]
        victim.data = victim.data.copy()
        victim.data[rng.integers(len(victim.data), size=3)] = rng.integers(0, 256, 3)
        if rng.random() < 0.3:
            victim.sizes = victim.sizes.copy()
            victim.sizes[-1] = rng.integers(0, victim.sizes[-1] + 1)
        try:
            block = registry.decode_miniblock(encoded.ce, sets, encoded.counts)
        except PilumError:
            continue
        assert block.count == int(encoded.counts.sum())


@settings(max_examples=150, deadline=None)
@given(tree=st.binary(max_size=24), data=st.binary(max_size=64), count=st.integers(0, 2**50))
@pytest.mark.fault
def test_random_descriptions(tree: bytes, data: bytes, count: int) -> None:
    ce = pb.CompressiveEncoding()
    try:
        ce.ParseFromString(tree)
    except Exception:
        return
    buffer = np.frombuffer(data, np.uint8)
    for decode in (
        lambda: registry.decode_block(ce, buffer, count),
        lambda: registry.decode_miniblock(ce, [one(buffer)] * registry.num_buffers(ce), np.array([count])),
        lambda: registry.decode_values(ce, FixedValues(len(buffer), buffer, 1)),
    ):
        try:
            decode()
        except PilumError:
            continue


def test_longest_value() -> None:
    assert selection.longest_value(from_arrow(pa.array(["a", "abc"]))) == 3
    assert selection.longest_value(FixedBlock(1, np.zeros(1, np.uint8), 8)) == 0
    lists = from_arrow(pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)))
    assert isinstance(lists, FslBlock)
    assert selection.longest_value(lists) == 8
