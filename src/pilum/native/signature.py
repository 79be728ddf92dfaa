"""The notation of kernels' signatures: ``"i8(r.u1, r.i8, u1[2], =i4)"``.

i8 u1 f4 …      a C-contiguous array of that element, one-dimensional; ``u1[2]`` has two dimensions
r.i8            one that is only read: it may be read-only, and unaligned
=i8             a scalar
void, i8 …      the result, before the parenthesis
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TYPES", "Argument", "Prototype", "parse", "parse_prototype"]

TYPES = {
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64", "i4": "int32", "i8": "int64",
    "f4": "float32", "f8": "float64", "p": "intp",
}  # fmt: skip
"""What NumPy and Numba call each element; ``p`` is a pointer, in the prototypes of C functions only."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: an array, or a scalar (``ndim`` 0)."""

    element: str
    ndim: int
    readonly: bool

    def __str__(self) -> str:
        name = TYPES[self.element]
        if not self.ndim:
            return f"a number that fits {name}"
        kind = "an array" if self.readonly else "a writable, aligned array"
        return f"{kind} of {name}, C-contiguous, with {self.ndim} dimension{'s'[: self.ndim - 1]}"


@dataclass(frozen=True, slots=True)
class Prototype:
    """A C function: its name, what it returns and what it takes."""

    name: str
    result: str
    arguments: tuple[str, ...]


def parse(text: str) -> tuple[str, tuple[Argument, ...]]:
    """The result of a signature, ``void`` for none, and its arguments."""
    result, arguments = text.rstrip(")").split("(")
    return result, tuple(_argument(part.strip()) for part in arguments.split(",") if part.strip())


def parse_prototype(text: str) -> Prototype:
    """A C function from its prototype, e.g. ``"i4 open(p, i4)"``."""
    head, arguments = text.rstrip(")").split("(")
    result, name = head.split()
    return Prototype(name, result, tuple(part.strip() for part in arguments.split(",") if part.strip()))


def _argument(part: str) -> Argument:
    if part.startswith("="):
        return Argument(part[1:], 0, True)
    readonly = part.startswith("r.")
    part = part.removeprefix("r.")
    ndim = 1
    if part.endswith("]"):
        part, ndim = part[:-3], int(part[-2])
    return Argument(part, ndim, readonly)
