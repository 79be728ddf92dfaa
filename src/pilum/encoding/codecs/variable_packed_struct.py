"""VariablePackedStruct: packed structs with members of any width (`spec/compression.md`, section 4.14).

Only in full-zip pages, whose length prefix says how long a row is.  Since format 2.2::

    row     for each member, in order:  fixed      bits_per_value / 8 bytes
                                        variable   length, bits_per_length / 8 bytes | as many bytes
    null    no bytes at all

Each member has a codec of its own, which sees the values of that member only: a null struct gives it zeros, or
an empty value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding.blocks import Block, Bytes, Offsets, StructBlock, VariableBlock
from pilum.encoding.codecs.base import CE, Codec, EncodeOptions, FixedValues, Ints, Values
from pilum.encoding.kernels import ranges
from pilum.errors import CorruptFileError, InvalidInputError

__all__ = ["CODEC"]

_MAX_I32 = 2**31 - 1
_MAX_BITS = 1 << 34
_MAX_MEMBERS = 1 << 16


class VariablePackedStructCodec(Codec):
    name = "variable_packed_struct"

    def decode_values(self, ce: CE, values: Values) -> Block:
        from pilum.encoding import registry

        if not isinstance(values, VariableBlock):
            raise CorruptFileError("codec variable_packed_struct over fixed-width full-zip values")
        fields = ce.variable_packed_struct.fields
        if not 0 < len(fields) <= _MAX_MEMBERS:
            raise CorruptFileError(f"packed struct of {len(fields)} members")
        rows = _Rows(values)
        children = []
        for field in fields:
            if not field.HasField("value"):
                raise CorruptFileError("a member of a packed struct has no codec")
            layout = field.WhichOneof("layout")
            if layout == "bits_per_value":
                bits = int(field.bits_per_value)
                if not bits or bits % 8 or bits > _MAX_BITS:
                    raise CorruptFileError(f"member of a packed struct of {bits} bits")
                part: Values = rows.take_fixed(bits // 8)
            elif layout == "bits_per_length" and field.bits_per_length in (32, 64):
                part = rows.take_variable(int(field.bits_per_length) // 8)
            else:
                raise CorruptFileError("a member of a packed struct has no width")
            child = registry.decode_values(field.value, part)
            if child.count != values.count:
                raise CorruptFileError(f"member of {child.count} values in {values.count} packed structs")
            children.append(child)
        rows.check_end()
        return StructBlock(tuple(children), values.count)

    def encode_values(self, block: Block, options: EncodeOptions) -> tuple[Values, CE]:
        from pilum.encoding import registry
        from pilum.proto import encodings_pb2

        if not isinstance(block, StructBlock):
            raise InvalidInputError("codec variable_packed_struct takes structs")
        members = options.members or (options,) * len(block.children)
        message = encodings_pb2.VariablePackedStruct()
        parts: list[tuple[Values, int]] = []
        sizes = np.zeros(block.count, np.int64)
        for child, wish in zip(block.children, members, strict=True):
            values, ce = registry.encode_values(child, wish)
            field = message.fields.add(value=ce)
            prefix = 0
            if isinstance(values, VariableBlock):
                field.bits_per_length = values.offset_bits
                prefix = values.offset_bits // 8
                sizes += np.diff(values.offsets)
            else:
                field.bits_per_value = 8 * values.width
                prefix = values.width
            sizes += prefix
            parts.append((values, prefix))
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        at = ends - sizes
        out = np.empty(total, np.uint8)
        for values, prefix in parts:
            at = _put(values, prefix, out, at)
        narrow = total <= _MAX_I32
        offsets: Offsets = np.zeros(len(ends) + 1, np.int32) if narrow else np.zeros(len(ends) + 1, np.int64)
        offsets[1:] = ends
        rows = VariableBlock(32 if narrow else 64, offsets, out, block.count)
        return rows, encodings_pb2.CompressiveEncoding(variable_packed_struct=message)


def _put(values: Values, prefix: int, out: Bytes, at: Ints) -> Ints:
    """Write the values of one member at ``at`` of each row; returns where the next member goes."""
    if isinstance(values, FixedValues):
        starts = np.arange(values.count) * values.width
        widths = np.full(values.count, values.width, np.int64)
        ranges.scatter(np.ascontiguousarray(values.data), starts, widths, out, at)
        return at + values.width
    lengths = np.diff(values.offsets).astype(np.int64)
    out[at[:, None] + np.arange(prefix)] = lengths.astype(f"<u{prefix}").view(np.uint8).reshape(-1, prefix)
    at = at + prefix
    ranges.scatter(np.ascontiguousarray(values.data), values.offsets[:-1], lengths, out, at)
    return at + lengths


class _Rows:
    """Rows being consumed from the left, all of them abreast; empty ones are null structs."""

    __slots__ = ("_at", "_count", "_data", "_ends", "_stored")

    def __init__(self, values: VariableBlock) -> None:
        starts = values.offsets[:-1].astype(np.int64)
        ends = values.offsets[1:].astype(np.int64)
        self._data, self._count = np.ascontiguousarray(values.data), values.count
        filled = np.flatnonzero(ends > starts)
        self._stored = None if len(filled) == values.count else filled
        self._at: Ints = starts[filled]
        self._ends: Ints = ends[filled]

    def _advance(self, sizes: Any) -> Ints:
        """Where ``sizes`` bytes of each row begin; they lie inside the rows."""
        at = self._at
        if bool((sizes > self._ends - at).any()):
            raise CorruptFileError("a packed struct is shorter than its members")
        self._at = at + sizes
        return at

    def take_fixed(self, width: int) -> FixedValues:
        at = self._advance(width)
        data = ranges.gather(self._data, at, np.full(len(at), width, np.int64))
        if self._stored is not None:
            if self._count * width > 64 * max(1 << 20, len(self._data)):
                raise CorruptFileError(f"{self._count} packed structs with a member of {width} bytes")
            grid = np.zeros((self._count, width), np.uint8)
            grid[self._stored] = data.reshape(-1, width)
            data = grid.reshape(-1)
        return FixedValues(width, data, self._count)

    def take_variable(self, prefix: int) -> VariableBlock:
        at = self._advance(prefix)
        raw: npt.NDArray[Any] = self._data[at[:, None] + np.arange(prefix)].view(f"<u{prefix}").reshape(-1)
        if len(raw) and int(raw.max()) > len(self._data):
            raise CorruptFileError(f"a member of a packed struct has {int(raw.max())} bytes")
        lengths = raw.astype(np.int64)
        data = ranges.gather(self._data, self._advance(lengths), lengths)
        sizes = lengths
        if self._stored is not None:
            sizes = np.zeros(self._count, np.int64)
            sizes[self._stored] = lengths
        wide = prefix == 8 or len(data) > _MAX_I32
        offsets: Offsets = (
            np.zeros(self._count + 1, np.int64) if wide else np.zeros(self._count + 1, np.int32)
        )
        np.cumsum(sizes, out=offsets[1:])
        return VariableBlock(64 if wide else 32, offsets, data, self._count)

    def check_end(self) -> None:
        if bool((self._at != self._ends).any()):
            raise CorruptFileError("a packed struct is longer than its members")


CODEC = VariablePackedStructCodec()
