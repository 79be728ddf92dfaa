"""An object file made ready for memory: its sections back to back, and the places where addresses have to be filled in.

    section | section | …         code and constants, each at its alignment
    fixups                        place, number of a name (-1: this image itself), what to add

LLVM makes object files for code that may lie anywhere: every reference is a whole address (``R_X86_64_64``), so
linking is adding.  Object files of other systems and processors, and those with anything else in them, stay as they
are and are loaded by LLVM (`loader`), which costs 46 MiB and 25 ms once.
"""

from __future__ import annotations

import struct
import sys

from pilum.native.code import Code

__all__ = ["link"]

_ELF = b"\x7fELF\x02\x01\x01"
_X86_64 = 62
_ADDRESS = 1  # R_X86_64_64
_PROGRAM, _SYMBOLS, _ADDENDS = 1, 2, 4  # types of sections
_WRITE, _ALLOCATED = 0x1, 0x2
_UNWIND = 0x70000001


def link(code: Code) -> Code | None:
    """The image of an object file; None if this module cannot make one."""
    content, entry = code.content, str(code.entry)
    if sys.platform != "linux" or content[:7] != _ELF or struct.unpack_from("<H", content, 18)[0] != _X86_64:
        return None
    (table,) = struct.unpack_from("<Q", content, 40)
    (count,) = struct.unpack_from("<H", content, 60)
    # name, type, flags, address, offset, size, link, info, alignment, size of an entry
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, table + 64 * k) for k in range(count)]

    image = bytearray()
    begins: dict[int, int] = {}
    for number, (_, kind, flags, _, offset, size, _, _, alignment, _) in enumerate(sections):
        if not flags & _ALLOCATED or not size or kind == _UNWIND:
            continue
        if kind != _PROGRAM or flags & _WRITE:
            return None  # variables
        image += bytes(-len(image) % max(alignment, 1))
        begins[number] = len(image)
        image += content[offset : offset + size]
    return _resolve(content, sections, image, begins, entry)


def _resolve(
    content: bytes, sections: list[tuple[int, ...]], image: bytearray, begins: dict[int, int], entry: str
) -> Code | None:
    names: list[str] = []
    fixups: list[tuple[int, int, int]] = []
    (symbols,) = [one for one in sections if one[1] == _SYMBOLS]
    strings = sections[symbols[6]][4]

    def symbol(number: int) -> tuple[str, int, int]:
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", content, symbols[4] + 24 * number)
        return content[strings + name : content.index(b"\0", strings + name)].decode(), section, value

    for _, kind, _, _, offset, size, _, target, _, _ in sections:
        if kind != _ADDENDS or target not in begins:
            continue
        for at in range(offset, offset + size, 24):
            place, info, addend = struct.unpack_from("<QQq", content, at)
            name, section, value = symbol(info >> 32)
            if info & 0xFFFFFFFF != _ADDRESS or (section and section not in begins):
                return None
            place += begins[target]
            if section:
                fixups.append((place, -1, begins[section] + value + addend))
            else:
                if name not in names:
                    names.append(name)
                fixups.append((place, names.index(name), addend))
    for number in range(symbols[5] // 24):
        name, section, value = symbol(number)
        if name == entry and section in begins:
            return Code(bytes(image), begins[section] + value, names, fixups)
    return None
