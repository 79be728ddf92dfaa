"""General: LZ4 or ZSTD around another codec (`spec/compression.md`, section 4.11).

    LZ4   u32 uncompressed size | one raw LZ4 block
    ZSTD  u64 uncompressed size | one zstd frame          (bare frames without size exist)

    M  buffer 0 of each chunk is compressed, chunk by chunk; other buffers stay
    V  each value is compressed on its own
    B  the serialisation of the inner codec as a whole

The compressors are those of pyarrow, but for many zstd frames at once (`kernels/zstd.py`).  Sizes are
attacker-controlled: one is believed only if the bytes that are there could yield it, and a result of another size is
an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import turns
from pilum.encoding import selection
from pilum.encoding.blocks import Block, Bytes, FixedBlock, VariableBlock
from pilum.encoding.codecs.base import (
    CE,
    BlocksEncoded,
    ChunkSet,
    Codec,
    EncodeOptions,
    Ints,
    MiniBlockEncoded,
    Values,
    variant,
)
from pilum.encoding.kernels import lz4, ranges, zstd
from pilum.encoding.kernels.memory import empty
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError

__all__ = ["CODEC", "compress", "decompress"]

_LZ4, _ZSTD = 1, 2
_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_SIZE = 1 << 31  # of one buffer, as in the chunk header
_MIN_BUFFER = 4096  # the reference's writer leaves smaller page-wide buffers alone
_MAX_TOTAL = 8 << 30  # of everything that one read decompresses
_NESTED = 4
_LEVEL = 3  # of zstd, unless another is asked for
_FEW_FRAMES = 4  # up to so many are decompressed one by one


class GeneralCodec(Codec):
    name = "general"

    def _parts(self, ce: CE) -> tuple[int, CE]:
        message, depth = ce.general, 0
        if not message.HasField("compression") or not message.HasField("values"):
            raise CorruptFileError("codec general needs a compression and a child")
        child = message.values
        while child.WhichOneof("compression") == "general":
            depth += 1
            child = child.general.values
            if depth > _NESTED:
                raise CorruptFileError(f"codec general is nested more than {_NESTED} times")
        scheme = int(message.compression.scheme)
        if scheme == 0:
            raise CorruptFileError("codec general without a compression scheme")
        if scheme not in (_LZ4, _ZSTD):
            raise UnsupportedError(f"compression scheme {scheme} is not supported")
        return scheme, message.values

    def num_buffers(self, ce: CE) -> int:
        from pilum.encoding import registry

        return registry.num_buffers(self._parts(ce)[1])

    def decode_miniblock(self, ce: CE, buffers: list[ChunkSet], counts: Ints) -> Block:
        from pilum.encoding import registry

        scheme, child = self._parts(ce)
        if not buffers:
            raise CorruptFileError("codec general around a codec without buffers")
        # strings with their 32-bit offsets are multiples of 4 bytes: they need no padding, that is no copy
        align = 4 if variant(child) in ("variable", "fsst") else 8
        plain = _decompress_chunks(scheme, buffers[0], align)
        return registry.decode_miniblock(child, [plain, *buffers[1:]], counts)

    def decode_values(self, ce: CE, values: Values) -> Block:
        from pilum.encoding import registry

        scheme, child = self._parts(ce)
        if not isinstance(values, VariableBlock):
            raise CorruptFileError("codec general over fixed-width full-zip values")
        starts = values.offsets[:-1].astype(np.int64)
        chunks = ChunkSet(values.data, starts, values.offsets[1:] - starts)
        plain = _decompress_chunks(scheme, chunks, align=1)
        offsets = np.concatenate([plain.starts, [len(plain.data)]])
        bits = values.offset_bits
        if bits == 32 and len(plain.data) < _MAX_SIZE:
            offsets = offsets.astype(np.int32)
        return registry.decode_values(child, VariableBlock(bits, offsets, plain.data, values.count))

    def decode_block(self, ce: CE, data: Bytes, count: int) -> Block:
        from pilum.encoding import registry

        scheme, child = self._parts(ce)
        return registry.decode_block(child, decompress(scheme, data), count)

    def decode_blocks(self, ce: CE, chunks: ChunkSet, counts: Ints) -> FixedBlock:
        from pilum.encoding import registry

        scheme, child = self._parts(ce)
        return registry.decode_blocks(child, _decompress_chunks(scheme, chunks), counts)

    def encode_miniblock(self, block: Block, options: EncodeOptions) -> MiniBlockEncoded:
        inner = selection.plain_miniblock(block, options).encode_miniblock(block, options)
        first = inner.buffers[0]
        if len(first) < _MIN_BUFFER:
            return inner
        data, sizes = _compress_chunks(options, first, inner.sizes[0])
        if len(data) >= len(first):
            return inner
        ce = _wrap(inner.ce, options)
        return MiniBlockEncoded([data, *inner.buffers[1:]], [sizes, *inner.sizes[1:]], inner.counts, ce)

    def encode_values(self, block: Block, options: EncodeOptions) -> tuple[Values, CE]:
        # always zstd: the reference cannot read LZ4 per value when there are nulls
        level = options.compression_level if options.compression == "zstd" else 0
        options = EncodeOptions(options.version, compression="zstd", compression_level=level)
        values, ce = selection.plain_values(block, options).encode_values(block, options)
        if not isinstance(values, VariableBlock):
            raise InvalidInputError("codec general stores byte strings only in full-zip")
        data, sizes = _compress_chunks(options, values.data, np.diff(values.offsets).astype(np.int64))
        offsets: Any = np.concatenate([[0], np.cumsum(sizes)])
        if values.offset_bits == 32:
            if len(data) >= _MAX_SIZE:
                raise InvalidInputError("a page of strings exceeds 2 GiB")
            offsets = offsets.astype(np.int32)
        return VariableBlock(values.offset_bits, offsets, data, values.count), _wrap(ce, options)

    def encode_block(self, block: Block, options: EncodeOptions) -> tuple[Bytes, CE]:
        data, ce = selection.plain_block(block, options).encode_block(block, options)
        options = _block_options(options)
        packed = np.frombuffer(compress(_scheme(options), data, options.compression_level), np.uint8)
        return packed, _wrap(ce, options)

    def encode_blocks(self, block: FixedBlock, counts: Ints, options: EncodeOptions) -> BlocksEncoded:
        inner = selection.plain_block(block, options).encode_blocks(block, counts, options)
        options = _block_options(options)
        data, sizes = _compress_chunks(options, inner.data, inner.sizes)
        return BlocksEncoded(data, sizes, _wrap(inner.ce, options))


def decompress(scheme: int, data: Bytes) -> Bytes:
    """One payload of `General`; an empty one is empty."""
    one = ChunkSet(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))
    return _decompress_chunks(scheme, one, align=1).data


def compress(scheme: int, data: Bytes, level: int | None = None) -> bytes:
    """The payload of `General` for ``data``."""
    return _pack(np.ascontiguousarray(data), *_compressor(scheme, level))


def _compressor(scheme: int, level: int | None) -> tuple[Any, int]:
    """Arrow's codec, and how many bytes the size before each payload takes."""
    return (pa.Codec("lz4_raw"), 4) if scheme == _LZ4 else (pa.Codec("zstd", level or _LEVEL), 8)


def _pack(data: Bytes, codec: Any, prefix: int) -> bytes:
    packed: bytes = len(data).to_bytes(prefix, "little") + codec.compress(data, asbytes=True)
    return packed


def _decompress_zstd(frame: Bytes, claimed: int | None) -> Bytes:
    """A zstd frame of ``claimed`` bytes, or of the size in its own header."""
    stated = _frame_size(frame)
    size = stated if claimed is None else claimed
    if claimed is not None and stated is not None and stated != claimed:
        raise CorruptFileError(f"zstd payload claims {claimed} bytes, its frame {stated}")
    # a block of 4 bytes yields 128 KiB at most
    if size is not None and (size > (len(frame) // 4 + 1) << 17 or size >= _MAX_SIZE):
        raise CorruptFileError(f"zstd payload of {len(frame)} bytes claims {size} bytes")
    try:
        if stated is not None:  # zstd itself verifies that the frame yields it
            plain = pa.Codec("zstd").decompress(np.ascontiguousarray(frame), stated) if stated else b""
        else:
            most = (len(frame) // 4 + 1) << 17 if size is None else size
            with pa.input_stream(pa.py_buffer(np.ascontiguousarray(frame)), compression="zstd") as stream:
                plain = stream.read(min(most, _MAX_SIZE) + 1)
    except (OSError, pa.ArrowException) as error:
        raise CorruptFileError(f"zstd payload is corrupt: {error}") from None
    if size is not None and len(plain) != size:
        raise CorruptFileError(f"zstd payload yields {len(plain)} bytes instead of {size}")
    return np.frombuffer(plain, np.uint8)


def _frame_size(frame: Bytes) -> int | None:
    """The content size in a zstd frame header, if it has one."""
    head = frame[:18].tobytes()
    if head[:4] != _MAGIC or len(head) < 6:
        raise CorruptFileError("zstd payload does not start with a frame")
    descriptor = head[4]
    single = descriptor >> 5 & 1
    width = (single, 2, 4, 8)[descriptor >> 6]
    if not width:
        return None
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    if len(head) < at + width:
        raise CorruptFileError("zstd payload ends inside its frame header")
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)


def _decompress_chunks(scheme: int, chunks: ChunkSet, align: int = 8) -> ChunkSet:
    """Every chunk decompressed, back to back (each starts on a boundary of ``align`` bytes); empty ones are empty."""
    return (_lz4_chunks if scheme == _LZ4 else _zstd_chunks)(chunks, align)


def _placed(sizes: Ints, align: int) -> tuple[Ints, int]:
    """Where results of these sizes begin, and how many bytes they take together."""
    padded = (sizes + align - 1) // align * align
    ends = np.cumsum(padded)
    return ends - padded, int(ends[-1]) if len(ends) else 0


def _prefixes(chunks: ChunkSet, used: Ints, width: int) -> npt.NDArray[np.uint64]:
    """The numbers of ``width`` bytes that some chunks begin with."""
    raw = chunks.data[chunks.starts[used][:, None] + np.arange(width)]
    found: npt.NDArray[np.uint64] = raw.view(f"<u{width}").reshape(-1).astype(np.uint64)
    return found


def _lz4_chunks(chunks: ChunkSet, align: int) -> ChunkSet:
    used = np.flatnonzero(chunks.sizes)
    bodies = chunks.sizes[used] - 4
    if bool((bodies < 0).any()):
        raise CorruptFileError(f"LZ4 payload of {int(bodies.min()) + 4} bytes")
    claimed = _prefixes(chunks, used, 4).astype(np.int64)
    # a byte of LZ4 yields 255 bytes at most
    wrong = (claimed > 255 * bodies) | (claimed >= _MAX_SIZE)
    if bool(wrong.any()):
        at = int(np.flatnonzero(wrong)[0])
        raise CorruptFileError(f"LZ4 payload of {int(bodies[at])} bytes claims {int(claimed[at])} bytes")
    sizes = np.zeros(len(chunks), np.int64)
    sizes[used] = claimed
    starts, total = _placed(sizes, align)
    if total > _MAX_TOTAL:
        raise InvalidInputError(f"compressed values expand to {total} bytes; read fewer rows at once")
    out = empty(total, np.uint8)
    begins = chunks.starts[used] + 4
    data = np.ascontiguousarray(chunks.data)
    bad = lz4.decompress(data, begins, begins + bodies, out, starts[used], claimed)
    if bad >= 0:
        raise CorruptFileError(
            f"LZ4 payload of {int(bodies[bad])} bytes does not yield the {int(claimed[bad])} bytes that it claims"
        )
    return ChunkSet(out, starts, sizes)


def _zstd_chunks(chunks: ChunkSet, align: int) -> ChunkSet:
    if len(chunks) > _FEW_FRAMES:
        found = _zstd_run(chunks, align)
        if found is not None:
            return found
    plain = [_decompress_payload(chunks.chunk(c)) for c in range(len(chunks))]
    if len(plain) == 1:
        return ChunkSet(plain[0], np.zeros(1, np.int64), np.array([len(plain[0])], np.int64))
    sizes = np.array([len(part) for part in plain], np.int64)
    starts, total = _placed(sizes, align)
    out = np.empty(total, np.uint8)
    for part, start in zip(plain, starts.tolist(), strict=True):
        out[start : start + len(part)] = part
    return ChunkSet(out, starts, sizes)


def _zstd_run(chunks: ChunkSet, align: int) -> ChunkSet | None:
    """Frames that all state their size, back to back: one call instead of one per chunk.

    zstd verifies that each frame yields what its header states.  None when a payload has another form.
    """
    used = np.flatnonzero(chunks.sizes)
    bodies = chunks.sizes[used] - 8
    if not len(used) or int(bodies.min()) < 9:
        return None
    claimed = _prefixes(chunks, used, 8)
    begins = chunks.starts[used] + 8
    head = chunks.data[begins[:, None] + np.arange(9)]
    descriptor = head[:, 4].astype(np.int64)
    # the reference's frames: a single segment, no checksum, no dictionary, sizes of 1, 2 or 4 bytes
    width = descriptor >> 6
    if bool((head[:, :4] != np.frombuffer(_MAGIC, np.uint8)).any()) or bool(
        ((descriptor & 0x3F) != 0x20).any()
    ):
        return None
    stated = head[:, 5].astype(np.uint64)
    for number in range(1, 4):
        inside = (width == 2) if number > 1 else (width == 1) | (width == 2)
        stated |= np.where(
            inside, head[:, 5 + number].astype(np.uint64) << np.uint64(8 * number), np.uint64(0)
        )
    stated += np.where(width == 1, np.uint64(256), np.uint64(0))
    room = (bodies.astype(np.uint64) // np.uint64(4) + np.uint64(1)) << np.uint64(17)
    if bool((width == 3).any()) or bool(
        ((stated != claimed) | (stated > room) | (stated >= _MAX_SIZE)).any()
    ):
        return None  # the long way says what is wrong
    total = int(stated.sum())
    if total > _MAX_TOTAL:
        raise InvalidInputError(f"compressed values expand to {total} bytes; read fewer rows at once")
    frames = np.ascontiguousarray(ranges.gather(chunks.data, begins, bodies))
    had = turns.leave() if total >= turns.LONG_KERNEL else False
    try:
        # zstd takes any number of frames in one call, for which it makes one context, and needs no window of its own
        plain = np.frombuffer(pa.Codec("zstd").decompress(frames, total) if total else b"", np.uint8)
    except (OSError, pa.ArrowException) as error:
        raise CorruptFileError(f"zstd payload is corrupt: {error}") from None
    finally:
        turns.resume(had)
    if len(plain) != total:
        raise CorruptFileError(f"zstd payloads yield {len(plain)} bytes instead of {total}")
    found = stated.astype(np.int64)
    sizes = np.zeros(len(chunks), np.int64)
    sizes[used] = found
    starts, padded = _placed(sizes, align)
    if padded != total:
        out = empty(padded, np.uint8)
        ranges.scatter(plain, np.cumsum(found) - found, found, out, starts[used])
        plain = out
    return ChunkSet(plain, starts, sizes)


def _decompress_payload(data: Bytes) -> Bytes:
    """One zstd payload, with or without the size in front."""
    if not len(data):
        return data
    head = data[:8].tobytes()
    if len(data) < 8 or (head[:4] == _MAGIC and not head[4] & 0x10):
        return _decompress_zstd(data, None)
    return _decompress_zstd(data[8:], int.from_bytes(head, "little"))


def _compress_chunks(options: EncodeOptions, data: Bytes, sizes: Ints) -> tuple[Bytes, Ints]:
    scheme, level = _scheme(options), options.compression_level
    if scheme == _ZSTD:
        found = zstd.compress(data, sizes, level or _LEVEL)
        if found is not None:
            return found
    ends = np.cumsum(sizes)
    pieces = zip((ends - sizes).tolist(), ends.tolist(), strict=True)
    data, compressor = np.ascontiguousarray(data), _compressor(scheme, level)
    packed = [_pack(data[a:b], *compressor) if b > a else b"" for a, b in pieces]
    return np.frombuffer(b"".join(packed), np.uint8), np.array([len(p) for p in packed], np.int64)


def _scheme(options: EncodeOptions) -> int:
    schemes = {"lz4": _LZ4, "zstd": _ZSTD}
    if options.compression not in schemes:
        raise InvalidInputError(f"unknown compression {options.compression!r}; use zstd, lz4, fsst or none")
    return schemes[options.compression]


def _block_options(options: EncodeOptions) -> EncodeOptions:
    """A large block is compressed with zstd even when nobody asked (section 6.3)."""
    if options.compression in ("lz4", "zstd"):
        return options
    return EncodeOptions(options.version, compression="zstd", compression_level=0)


def _wrap(ce: CE, options: EncodeOptions) -> CE:
    from pilum.proto import encodings_pb2

    scheme: Any = _scheme(options)
    compression = encodings_pb2.BufferCompression(scheme=scheme, level=options.compression_level)
    message = encodings_pb2.General(compression=compression, values=ce)
    return encodings_pb2.CompressiveEncoding(general=message)


CODEC = GeneralCodec()
