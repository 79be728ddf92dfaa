"""Nullable: which values of an array are null (`spec/file-2.0-and-0.1.md`, A.4).

    no_nulls      values
    some_nulls    validity (a bitmap, 1 = valid) beside values whose null slots hold anything
    all_nulls     nothing at all

Around an encoding that marks nulls itself (``binary``, ``dictionary``) ``some_nulls`` alone decides.
"""

from __future__ import annotations

from typing import Any

from pilum.encoding.blocks import FixedBlock, NullBlock, unpack_bits
from pilum.encoding.page import Rows
from pilum.encoding.v2_0.reads import ArrayDecoder, ArrayRead, Values, done, join
from pilum.errors import CorruptFileError

__all__ = ["AllNullsDecoder", "SomeNullsDecoder", "inside_no_nulls"]


class AllNullsDecoder(ArrayDecoder):
    """Nulls without anything stored."""

    __slots__ = ()

    def __init__(self, count: int) -> None:
        self.count = count

    def schedule(self, rows: Rows) -> ArrayRead:
        return done(Values(NullBlock(len(rows))))


class SomeNullsDecoder(ArrayDecoder):
    """A bitmap beside the values."""

    __slots__ = ("validity", "values")

    def __init__(self, validity: ArrayDecoder, values: ArrayDecoder) -> None:
        self.validity, self.values = validity, values
        self.count = values.count

    def schedule(self, rows: Rows) -> ArrayRead:
        return join([self.validity.schedule(rows), self.values.schedule(rows)], _with_validity)


def _with_validity(parts: list[Any]) -> Values:
    marks, values = parts
    block = marks.block
    if not isinstance(block, FixedBlock) or block.bits != 1:
        raise CorruptFileError("the validity of an array is not a bitmap")
    valid = unpack_bits(block.data, block.count)
    return Values(values.block, None if valid.all() else valid, values.dictionary)


def inside_no_nulls(message: Any) -> Any:
    """The array encoding inside any ``nullable.no_nulls`` wrappers."""
    while (
        message.WhichOneof("array_encoding") == "nullable"
        and message.nullable.WhichOneof("nullability") == "no_nulls"
    ):
        message = message.nullable.no_nulls.values
    return message
