"""FSST: the specification's example, both kernels, hostile input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum.encoding import kernels, registry
from pilum.encoding.arrow_blocks import from_arrow, to_arrow
from pilum.encoding.codecs.variable import variable_ce
from pilum.encoding.kernels import fsst, fsst_encode
from pilum.encoding.registry import ChunkSet, EncodeOptions
from pilum.errors import CorruptFileError, PilumError
from pilum.proto import encodings_pb2 as pb


def table_of(symbols: list[bytes], switch: int = 1) -> bytes:
    head = bytes([len(symbols), 0, 0, switch]) + b"TSSF"
    body = b"".join(s.ljust(8, b"\xaa") for s in symbols) + bytes(map(len, symbols))
    return (head + body).ljust(2312, b"\0")


def fsst_ce(table: bytes, bits: int = 32) -> Any:
    return pb.CompressiveEncoding(fsst=pb.Fsst(symbol_table=table, values=variable_ce(bits)))


def decode(codes: list[bytes], table: bytes) -> list[bytes]:
    encoded = registry.codec("variable").encode_miniblock(
        from_arrow(pa.array(codes, pa.binary())), EncodeOptions()
    )
    sizes = encoded.sizes[0]
    chunks = ChunkSet(encoded.buffers[0], np.cumsum(sizes) - sizes, sizes)
    block = registry.decode_miniblock(fsst_ce(table), [chunks], encoded.counts)
    values: list[bytes] = to_arrow(block, pa.binary()).to_pylist()
    zipped = from_arrow(pa.array(codes, pa.binary()))
    again = to_arrow(registry.decode_values(fsst_ce(table), zipped), pa.binary())  # type: ignore[arg-type]
    assert again.to_pylist() == values
    return values


def test_example() -> None:
    table = table_of([b"s1", b"s", b"2"])
    assert decode([b"\0\2", b"\1\xff\x37", b"", b"\xff\xff\xff\x41"], table) == [b"s12", b"s7", b"", b"\xffA"]
    assert decode([b"\0\2", b"\xff"], table_of([], switch=0)) == [b"\0\2", b"\xff"]


def test_both_kernels_agree() -> None:
    if not kernels.enabled() or not kernels.preload():
        pytest.skip("Numba is switched off or missing")
    rng = np.random.default_rng(0)
    symbols = rng.integers(0, 256, 8 * 255, dtype=np.uint8)
    lengths = rng.integers(1, 9, 255).astype(np.uint8)
    refused = 0
    for trial in range(30):
        parts = []
        for size in rng.integers(0, 40, 300):
            codes = rng.choice([1, 2, 200, 254, 255], size).astype(np.uint8)
            value = b"".join(bytes([c, rng.integers(250, 256)]) if c == 255 else bytes([c]) for c in codes)
            parts.append(value)
        offsets = np.cumsum([0, *map(len, parts)]).astype(np.int32 if trial % 2 else np.int64)
        data = np.frombuffer(b"".join(parts), np.uint8)
        if trial % 3 == 0:  # a value that ends in an escape, anywhere
            offsets[int(rng.integers(1, 300))] -= 1
            offsets[:] = np.maximum.accumulate(offsets)
        fast = fsst.expand(data, offsets, symbols, lengths)
        sizes = np.concatenate([lengths, [0]]).astype(np.int64)
        slow = fsst.expand_numpy(data, offsets, np.concatenate([symbols, np.zeros(8, np.uint8)]), sizes)
        refused += slow is None
        if fast is None or slow is None:
            assert fast is slow
            continue
        assert fast[1].dtype == offsets.dtype
        assert np.array_equal(fast[0], slow[0])
        assert np.array_equal(fast[1], slow[1])
    assert 0 < refused < 10


def test_codes_that_yield_more_than_a_sample_of_them_says() -> None:
    if not kernels.enabled() or not kernels.preload():
        pytest.skip("Numba is switched off or missing")
    codes = np.ones(1 << 17, np.uint8)
    codes[:: 1 + len(codes) // fsst._SAMPLED] = 0  # the codes that are looked at
    offsets = np.array([0, 1000, len(codes)], np.int64)
    symbols = np.frombuffer(b"a" + bytes(7) + b"12345678", np.uint8)
    found = fsst.expand(codes, offsets, symbols, np.array([1, 8], np.uint8))
    assert found is not None
    expected = b"".join(b"12345678" if code else b"a" for code in codes.tolist())
    assert found[0].tobytes() == expected
    assert int(found[1][-1]) == len(expected)


def test_both_kernels_compress_alike() -> None:
    if not kernels.enabled() or not kernels.preload():
        pytest.skip("Numba is switched off or missing")
    rng = np.random.default_rng(5)
    for trial in range(40):
        count = int(rng.integers(0, 9)) if trial % 2 else 700
        sizes = rng.integers(0, 30, count) if trial % 3 else rng.integers(0, 2, count) * 3000
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        # few different bytes, so that symbols of all lengths come about; and bytes that have no symbol
        data = rng.choice(np.array([0, 1, 97, 98, 255], np.uint8), int(offsets[-1]) + trial % 5)
        noise = rng.random(len(data)) < 0.1
        data[noise] = rng.integers(0, 256, int(noise.sum()))
        table = (
            fsst_encode.train(data, offsets) if offsets[-1] else fsst_encode.make_table(*fsst_encode._EMPTY)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fsst_encode._COMPRESS, "small", 0)
            fast, ends = fsst_encode.compress(np.tile(data, 2), offsets, table)
            patch.setattr(fsst_encode._COMPRESS, "small", 1 << 40)
            slow, expected = fsst_encode.compress(data, offsets, table)
        assert np.array_equal(fast, slow)
        assert np.array_equal(ends, expected)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.binary(max_size=20), min_size=1, max_size=30), repeat=st.sampled_from([1, 200]))
@pytest.mark.property
def test_greedy_encoding_round_trips(values: list[bytes], repeat: int) -> None:
    symbols = [b"\0", b"\0\0", b"ab", b"\xff", b"12345678"]

    def encode(value: bytes) -> bytes:
        out, at = bytearray(), 0
        while at < len(value):
            best = max((s for s in symbols if value.startswith(s, at)), key=len, default=None)
            if best is None:
                out += bytes([255, value[at]])
                at += 1
            else:
                out.append(symbols.index(best))
                at += len(best)
        return bytes(out)

    assert decode([encode(v) for v in values] * repeat, table_of(symbols)) == values * repeat


@pytest.mark.fault
def test_bad_codes_and_tables() -> None:
    good = table_of([b"s1", b"s", b"2"])
    for repeat in (1, 3000):
        for codes in ([b"\3"], [b"\0\xff"], [b"\xff", b"\1"], [b"\1", b"\xff\xff\xff"]):
            with pytest.raises(CorruptFileError):
                decode([b"\0"] * repeat + codes, good)
    zero = bytearray(good)
    zero[8 + 24] = 0
    nine = bytearray(good)
    nine[8 + 24] = 9
    for table in (good[:-1], b"", good[:4] + b"FSST" + good[8:], bytes(zero), bytes(nine)):
        with pytest.raises(CorruptFileError):
            decode([b"\0"], table)
    with pytest.raises(CorruptFileError):
        registry.num_buffers(pb.CompressiveEncoding(fsst=pb.Fsst(symbol_table=good)))


@pytest.mark.fault
def test_random_codes_give_an_error_or_values() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        count = int(rng.integers(0, 256))
        table = bytes([count, 0, 0, 1]) + b"TSSF" + rng.integers(0, 10, 2304, dtype=np.uint8).tobytes()
        try:
            decode([rng.integers(0, 256, 20, dtype=np.uint8).tobytes()], table)
        except PilumError:
            continue
