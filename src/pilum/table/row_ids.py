"""Row-id sequences: which stable row ids the rows of a fragment have (spec/table.md, sections 5.5 and 12.3).

A sequence lists one id for every physical row, deleted rows included.  On disk it is a list of segments:

    range               start, end                        ids start .. end - 1
    range_with_holes    start, end, holes                 the range without some values
    range_with_bitmap   start, end, bitmap                start + i where bit i is set, least significant first
    sorted_array, array base + u16 or u32 offsets, or u64 values

In memory every kind is the same: runs of consecutive ids.  Appending makes one run of a whole fragment, so
cutting, masking and looking up cost in the number of runs, not of rows.  Sizes in the bytes are not trusted: a
few bytes can claim 2^64 rows, and nothing is expanded before the length is known to be right.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum import distinct
from pilum.errors import CorruptFileError
from pilum.proto.lazy import table_pb2 as pb
from pilum.proto.lazy import wire

__all__ = ["MAX_ROWS", "RowIdSequence", "decode_row_ids", "encode_row_ids", "segment_length"]

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

# Offsets in a fragment are u32.
MAX_ROWS = 1 << 32
_ONE = np.uint64(1)
_MAX_U64 = (1 << 64) - 1


@dataclass(frozen=True, eq=False)
class RowIdSequence:
    """Row ids of consecutive rows, as runs of consecutive ids.

    Attributes:
        starts: uint64, first id of each run.
        lengths: int64, ids in each run; none is 0.
    """

    starts: U64
    lengths: I64

    @classmethod
    def of_range(cls, start: int, end: int) -> RowIdSequence:
        """The ids ``start .. end - 1``."""
        return cls._joined(np.array([start], np.uint64), np.array([end - start], np.int64))

    @classmethod
    def of_array(cls, values: Any) -> RowIdSequence:
        """The given ids (uint64), in their order."""
        ids = np.asarray(values, dtype=np.uint64)
        if not len(ids):
            return cls(np.empty(0, np.uint64), np.empty(0, np.int64))
        # The largest id has no successor: 0 behind it begins a new run.
        follows = (ids[1:] == ids[:-1] + _ONE) & (ids[:-1] != np.uint64(_MAX_U64))
        first = np.concatenate([[0], np.flatnonzero(~follows) + 1])
        return cls(ids[first], np.diff(np.append(first, len(ids))).astype(np.int64))

    @classmethod
    def concatenate(cls, sequences: Iterable[RowIdSequence]) -> RowIdSequence:
        """One sequence after the other; runs that touch are joined."""
        parts = list(sequences)
        starts = np.concatenate([np.empty(0, np.uint64), *(one.starts for one in parts)])
        lengths = np.concatenate([np.empty(0, np.int64), *(one.lengths for one in parts)])
        return cls._joined(starts, lengths)

    @classmethod
    def _joined(cls, starts: U64, lengths: I64) -> RowIdSequence:
        filled = lengths > 0
        if not filled.all():
            starts, lengths = starts[filled], lengths[filled]
        if len(starts) > 1:
            last = starts + (lengths.astype(np.uint64) - _ONE)
            touches = (last[:-1] + _ONE == starts[1:]) & (last[:-1] != np.uint64(_MAX_U64))
            if touches.any():
                first = np.concatenate([[0], np.flatnonzero(~touches) + 1])
                starts, lengths = starts[first], np.add.reduceat(lengths, first)
        return cls(starts, lengths)

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowIdSequence):
            return NotImplemented
        return np.array_equal(self.starts, other.starts) and np.array_equal(self.lengths, other.lengths)

    __hash__ = None  # type: ignore[assignment]

    @property
    def offsets(self) -> I64:
        """int64, position of the first row of each run."""
        # Not a `cached_property`: in Python 3.11 that has a lock, which a fork leaves locked.
        found: I64 | None = self.__dict__.get("_offsets")
        if found is None:
            found = self.__dict__["_offsets"] = np.cumsum(self.lengths) - self.lengths
        return found

    def to_array(self) -> U64:
        """All ids in order, uint64; 8 bytes for every row."""
        # Wraps around zero where positions exceed ids, and back.
        first: U64 = self.starts - self.offsets.astype(np.uint64)
        ids: U64 = np.repeat(first, self.lengths)
        ids += np.arange(len(self), dtype=np.uint64)
        return ids

    def take(self, offsets: Any) -> U64:
        """The ids at some positions, uint64.

        Args:
            offsets: integers below ``len(self)``, any order.
        """
        wanted = np.asarray(offsets, dtype=np.int64)
        run = np.searchsorted(self.offsets, wanted, side="right") - 1
        return self.starts[run] + (wanted - self.offsets[run]).astype(np.uint64)

    def slice(self, start: int, stop: int) -> RowIdSequence:
        """The rows ``start .. stop - 1``."""
        low = np.clip(start - self.offsets, 0, self.lengths)
        high = np.clip(stop - self.offsets, 0, self.lengths)
        return self._joined(self.starts + low.astype(np.uint64), high - low)

    def without(self, deleted: Any) -> RowIdSequence:
        """The rows that are not deleted.

        Args:
            deleted: strictly ascending offsets.
        """
        starts, lengths, _ = self.live_runs(deleted)
        return self._joined(starts, lengths)

    def live_runs(self, deleted: Any) -> tuple[U64, I64, I64]:
        """Runs cut at deleted rows: first ids, lengths and positions of the first rows.

        Args:
            deleted: strictly ascending offsets.
        """
        gone = np.asarray(deleted, dtype=np.int64)
        gone = gone[gone < len(self)]
        if not len(gone):
            return self.starts, self.lengths, self.offsets
        # Between two cuts all rows are in one run, and all or none are deleted.
        cuts = distinct.unique(np.concatenate([self.offsets, gone, gone + 1]))
        ends = np.append(cuts[1:], len(self))
        place = np.minimum(np.searchsorted(gone, cuts), len(gone) - 1)
        kept = (gone[place] != cuts) & (ends > cuts)
        cuts, ends = cuts[kept], ends[kept]
        run = np.searchsorted(self.offsets, cuts, side="right") - 1
        starts = self.starts[run] + (cuts - self.offsets[run]).astype(np.uint64)
        return starts, ends - cuts, cuts


# -- decoding ------------------------------------------------------------------------------------------


def decode_row_ids(data: bytes, where: str, *, rows: int | None = None) -> RowIdSequence:
    """Decode a ``RowIdSequence`` message.

    Args:
        data: the message.
        where: what it belongs to, for messages.
        rows: how many ids it must hold, None when that is not known.

    Raises:
        CorruptFileError: the bytes contradict the format, or the number of ids is wrong.
    """
    try:
        message = pb.RowIdSequence.FromString(data)
    except wire.DecodeError as error:
        raise CorruptFileError(f"{where}: the row ids cannot be decoded: {error}") from error
    parts = []
    total = 0
    limit = MAX_ROWS if rows is None else rows
    for segment in message.segments:
        starts, lengths = _decode_segment(segment, f"{where}: row ids")
        total += int(lengths.sum())
        if total > limit:
            raise CorruptFileError(f"{where}: at least {total} row ids for {limit} rows")
        parts.append(RowIdSequence(starts, lengths))
    if rows is not None and total != rows:
        raise CorruptFileError(f"{where}: {total} row ids for {rows} rows")
    return RowIdSequence.concatenate(parts)


def segment_length(segment: pb.U64Segment, where: str) -> int:
    """How many values a segment has."""
    return int(_decode_segment(segment, where)[1].sum())


def _decode_segment(segment: pb.U64Segment, where: str) -> tuple[U64, I64]:
    """The runs of a segment."""
    kind = segment.WhichOneof("segment")
    if kind == "range":
        start, length = _bounds(segment.range, where)
        return np.array([start], np.uint64), np.array([length], np.int64)
    if kind == "range_with_holes":
        return _without_holes(segment.range_with_holes, where)
    if kind == "range_with_bitmap":
        return _set_bits(segment.range_with_bitmap, where)
    if kind in ("sorted_array", "array"):
        values = _decode_array(getattr(segment, kind), where)
        if kind == "sorted_array" and np.any(values[1:] < values[:-1]):
            raise CorruptFileError(f"{where}: a sorted array that descends")
        sequence = RowIdSequence.of_array(values)
        return sequence.starts, sequence.lengths
    raise CorruptFileError(f"{where}: a segment of an unknown kind")


def _bounds(segment: Any, where: str) -> tuple[int, int]:
    """Start and length of a range."""
    length = segment.end - segment.start
    if length < 0:
        raise CorruptFileError(f"{where}: a range from {segment.start} back to {segment.end}")
    if length > MAX_ROWS and not isinstance(segment, pb.U64Segment.RangeWithHoles):
        raise CorruptFileError(f"{where}: a range of {length} values; a fragment has at most {MAX_ROWS} rows")
    return segment.start, length


def _without_holes(segment: pb.U64Segment.RangeWithHoles, where: str) -> tuple[U64, I64]:
    start, length = _bounds(segment, where)
    holes = _decode_array(segment.holes, where)
    if np.any(holes[1:] <= holes[:-1]):
        raise CorruptFileError(f"{where}: the holes of a range do not ascend")
    if len(holes) and not (start <= int(holes[0]) and int(holes[-1]) < segment.end):
        raise CorruptFileError(f"{where}: a hole outside its range {start}..{segment.end}")
    if length - len(holes) > MAX_ROWS:
        raise CorruptFileError(f"{where}: a range of {length} values; a fragment has at most {MAX_ROWS} rows")
    starts = np.append(np.uint64(start), holes + _ONE)
    ends = np.append(holes, np.uint64(segment.end))
    lengths = ends - starts
    filled = lengths > 0
    return starts[filled], lengths[filled].astype(np.int64)


def _set_bits(segment: pb.U64Segment.RangeWithBitmap, where: str) -> tuple[U64, I64]:
    start, length = _bounds(segment, where)
    if len(segment.bitmap) != (length + 7) // 8:
        raise CorruptFileError(f"{where}: a bitmap of {len(segment.bitmap)} bytes for {length} values")
    bits = np.unpackbits(np.frombuffer(segment.bitmap, np.uint8), bitorder="little")
    if bits[length:].any():
        raise CorruptFileError(f"{where}: a bitmap with bits behind the end of its range")
    edges = np.flatnonzero(np.diff(bits[:length], prepend=np.uint8(0), append=np.uint8(0)))
    first, end = edges[::2], edges[1::2]
    return np.uint64(start) + first.astype(np.uint64), (end - first).astype(np.int64)


_WIDTHS = {"u16_array": ("offsets", "<u2"), "u32_array": ("offsets", "<u4"), "u64_array": ("values", "<u8")}


def _decode_array(array: pb.EncodedU64Array, where: str) -> U64:
    kind = array.WhichOneof("array")
    if kind is None:
        raise CorruptFileError(f"{where}: an array without values")
    member = getattr(array, kind)
    name, dtype = _WIDTHS[kind]
    data = getattr(member, name)
    if len(data) % np.dtype(dtype).itemsize:
        raise CorruptFileError(f"{where}: {len(data)} bytes are no whole number of {kind} entries")
    values = np.frombuffer(data, dtype).astype(np.uint64)
    if kind == "u64_array":
        return values
    if len(values) and member.base + int(values.max()) > _MAX_U64:
        raise CorruptFileError(f"{where}: an array whose values exceed 64 bits")
    return values + np.uint64(member.base)


# -- encoding ------------------------------------------------------------------------------------------


def encode_row_ids(sequence: RowIdSequence) -> bytes:
    """Encode a sequence: as ranges where that is shortest, else as one segment of the smallest kind."""
    message = pb.RowIdSequence()
    runs, count = len(sequence.starts), len(sequence)
    last = sequence.starts + (sequence.lengths.astype(np.uint64) - _ONE)
    if runs and int(last.max()) == _MAX_U64:
        # The end of a range is exclusive, so no range holds the largest id.
        _encode_array(message.segments.add().array, sequence.to_array())
        return message.SerializeToString()
    if runs <= 1:
        start = int(sequence.starts[0]) if runs else 0
        _encode_range(message.segments.add(), start, start + count)
        return message.SerializeToString()
    ends = last + _ONE
    first, end = int(sequence.starts[0]), int(ends[-1])
    slots = end - first
    sizes: dict[str, int] = {"array": 24 + 8 * count}
    if bool(np.all(last[:-1] < sequence.starts[1:])):
        sizes = {
            "range_with_holes": 24 + 4 * (slots - count),
            "range_with_bitmap": 24 + (slots + 7) // 8,
            "sorted_array": 24 + 2 * count,
        }
    smallest = min(sizes, key=lambda kind: sizes[kind])
    if 24 * runs < sizes[smallest]:
        # Fragments cut out of a few others: their ranges behind each other.
        for start, length in zip(sequence.starts.tolist(), sequence.lengths.tolist(), strict=True):
            _encode_range(message.segments.add(), start, start + length)
        return message.SerializeToString()
    segment = message.segments.add()
    if smallest == "range_with_holes":
        segment.range_with_holes.start, segment.range_with_holes.end = first, end
        gaps = (sequence.starts[1:] - ends[:-1]).astype(np.int64)
        _encode_array(segment.range_with_holes.holes, RowIdSequence(ends[:-1], gaps).to_array())
    elif smallest == "range_with_bitmap":
        bits = np.zeros(slots, np.uint8)
        bits[(sequence.to_array() - sequence.starts[0]).astype(np.int64)] = 1
        segment.range_with_bitmap.start, segment.range_with_bitmap.end = first, end
        segment.range_with_bitmap.bitmap = np.packbits(bits, bitorder="little").tobytes()
    else:
        _encode_array(getattr(segment, smallest), sequence.to_array())
    return message.SerializeToString()


def _encode_range(segment: pb.U64Segment, start: int, end: int) -> None:
    # Also when both ends are 0: the range must be there as a set member of its one-of.
    segment.range.SetInParent()
    segment.range.start, segment.range.end = start, end


def _encode_array(array: pb.EncodedU64Array, values: U64) -> None:
    base = int(values.min()) if len(values) else 0
    spread = int(values.max()) - base if len(values) else _MAX_U64
    if spread <= 0xFFFF:
        array.u16_array.base = base
        array.u16_array.offsets = (values - np.uint64(base)).astype("<u2").tobytes()
    elif spread <= 0xFFFFFFFF:
        array.u32_array.base = base
        array.u32_array.offsets = (values - np.uint64(base)).astype("<u4").tobytes()
    else:
        array.u64_array.values = values.astype("<u8").tobytes()
