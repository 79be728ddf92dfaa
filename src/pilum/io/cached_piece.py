"""One piece of a remote object in a file of its own, with checksums.

```
magic    8       b"PILUMX1\\n"
digest  16       of the object's address
start    8       position of the piece in the object, bytes
length   8       of the piece, bytes
sums     4 × n   CRC-32 of each 64 KiB of the piece; the last one may be shorter
check    4       CRC-32 of everything above
data
```

Numbers are little-endian.  A part of a piece is read with the chunks it lies in, so a row of a long piece costs 64 KiB
and not all of it.  Anything that is not as it was written is `DamagedError`: cut short, flipped, or another piece.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np

from pilum.io.buffers import Bytes, allocate
from pilum.io.ranges import Range, assemble, merge_ranges

__all__ = ["DamagedError", "piece_size", "read_piece", "write_piece"]

_MAGIC = b"PILUMX1\n"
_HEAD = struct.Struct("<8s16sQQ")
_CHECK = struct.Struct("<I")
_CHUNK = 64 << 10


class DamagedError(Exception):
    """A file is not what was written."""


def _head_size(length: int) -> int:
    return _HEAD.size + 4 * -(-length // _CHUNK) + _CHECK.size


def piece_size(length: int) -> int:
    """Bytes of the file of a piece of ``length`` bytes."""
    return _head_size(length) + length


def write_piece(file: BinaryIO, digest: bytes, start: int, data: Bytes) -> None:
    """Write a piece to the begin of a file.

    Args:
        file: open for writing.
        digest: 16 bytes that stand for the object.
        start: position in the object.
        data: the bytes, not empty.

    Raises:
        OSError: it could not be written; a part of it may be there.
    """
    view = memoryview(data)  # type: ignore[arg-type]
    sums = [crc32(view[at : at + _CHUNK]) for at in range(0, len(view), _CHUNK)]
    head = _HEAD.pack(_MAGIC, digest, start, len(view)) + np.array(sums, "<u4").tobytes()
    file.write(head + _CHECK.pack(crc32(head)))
    file.write(view)


def read_piece(path: str, digest: bytes, start: int, end: int, wanted: Sequence[Range]) -> list[Bytes]:
    """Some ranges of the object that lie in a piece.

    Args:
        path: the file.
        digest: of the object.
        start, end: what the piece is to hold.
        wanted: ranges of the object within it, not empty.

    Raises:
        DamagedError: the file is not what was written, or holds another piece.
        OSError: it could not be read.
    """
    size = _head_size(end - start)
    with open(path, "rb", buffering=0) as file:
        head = file.read(size)
        if len(head) != size or crc32(head[: -_CHECK.size]) != _CHECK.unpack(head[-_CHECK.size :])[0]:
            raise DamagedError("its head is damaged")
        if _HEAD.unpack_from(head) != (_MAGIC, digest, start, end - start):
            raise DamagedError("it holds another piece")
        sums = np.frombuffer(head, "<u4", (len(head) - _HEAD.size - _CHECK.size) // 4, _HEAD.size).tolist()
        spans = merge_ranges(
            [_chunks_around(low - start, high - start, end - start) for low, high in wanted], 0
        )
        buffers = [_read_span(file, size, low, high, sums) for low, high in spans]
    return assemble([(low - start, high - start) for low, high in wanted], spans, buffers)


def _chunks_around(low: int, high: int, length: int) -> Range:
    return low // _CHUNK * _CHUNK, min(-(-high // _CHUNK) * _CHUNK, length)


def _read_span(file: Any, base: int, low: int, high: int, sums: list[int]) -> Bytes:
    data = allocate(high - low)
    view = memoryview(data)  # type: ignore[arg-type]
    file.seek(base + low)
    done = 0
    while done < len(view):
        more = file.readinto(view[done:])
        if not more:
            raise DamagedError("it was cut short")
        done += more
    for at in range(0, len(view), _CHUNK):
        if crc32(view[at : at + _CHUNK]) != sums[(low + at) // _CHUNK]:
            raise DamagedError(f"its bytes from {low + at} on are damaged")
    return data
