"""`Bitmap`: a set of unsigned 32-bit integers, such as the ids of fragments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet
from typing import Any

__all__ = ["Bitmap"]

_MAX = (1 << 32) - 1


class Bitmap(MutableSet[int]):
    """A set of integers from 0 to 2**32 - 1 with the methods of `set`, iterated in ascending order.

    Args:
        values: the first members.

    Raises:
        TypeError: a member is not an integer.
        OverflowError: a member is out of range.
    """

    __slots__ = ("_members",)

    def __init__(self, values: Iterable[int] | None = None) -> None:
        self._members = {_checked(one) for one in values or ()}

    def __contains__(self, value: object) -> bool:
        return value in self._members

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def add(self, value: int) -> None:
        """Put a member in."""
        self._members.add(_checked(value))

    def discard(self, value: int) -> None:
        """Take a member out, if it is there."""
        self._members.discard(value)

    def update(self, values: Iterable[int]) -> None:
        """Put all of some members in."""
        self._members.update(_checked(one) for one in values)

    def union(self, other: Iterable[int]) -> Bitmap:
        """Members of either."""
        return Bitmap([*self._members, *other])

    def intersection(self, other: Iterable[int]) -> Bitmap:
        """Members of both."""
        return Bitmap(self._members.intersection(other))

    def difference(self, other: Iterable[int]) -> Bitmap:
        """Members of this one only."""
        return Bitmap(self._members.difference(other))

    def symmetric_difference(self, other: Iterable[int]) -> Bitmap:
        """Members of exactly one of the two."""
        return Bitmap(self._members.symmetric_difference(other))

    def issubset(self, other: Iterable[int]) -> bool:
        """Whether all members are in the other one."""
        return self._members.issubset(other)

    def issuperset(self, other: Iterable[int]) -> bool:
        """Whether all members of the other one are here."""
        return self._members.issuperset(other)

    def copy(self) -> Bitmap:
        """An independent set with the same members."""
        return Bitmap(self._members)

    def __reduce__(self) -> tuple[Any, ...]:
        return Bitmap, (sorted(self._members),)

    def __repr__(self) -> str:
        return f"Bitmap({{{', '.join(map(str, self))}}})"


def _checked(value: Any) -> int:
    number = value.__index__() if hasattr(value, "__index__") else None
    if number is None:
        raise TypeError(f"members are integers, got {type(value).__name__}")
    if not 0 <= number <= _MAX:
        raise OverflowError(f"members are from 0 to {_MAX}, got {number}")
    return int(number)
