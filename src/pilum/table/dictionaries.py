"""Dictionaries of tables of format 0.1, whose values lie in the manifest file (`spec/file-2.0-and-0.1.md`, B.5).

``Field.dictionary`` of such a manifest is the place and the number of the values in the very same file, ahead of all
messages::

    integers            values back to back                     offset names the first
    strings, binary     bytes | int64[n + 1] positions          offset names the positions, which count from the file's start

Every version has them anew, so they are taken out of the file that is read and put into the file that is written.
Readers here use the copies in the data files; other readers refuse a table without those in the manifest.
Pure: bytes in, values out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from pilum.errors import PilumError
from pilum.schema.logical import leaf_type_of

__all__ = ["StoredDictionary", "put_dictionaries", "take_dictionaries"]


class StoredDictionary(NamedTuple):
    """The values of one dictionary field as a manifest file holds them.

    Attributes:
        field_id: of the field.
        length: number of values.
        values: their bytes.
        ends: for strings the positions, counted from the first of ``values``; None for integers.
    """

    field_id: int
    length: int
    values: bytes
    ends: tuple[int, ...] | None


def take_dictionaries(fields: Iterable[Any], data: bytes) -> tuple[StoredDictionary, ...]:
    """The dictionaries of a manifest file; those that do not lie in the file are left out.

    Args:
        fields: the ``Field`` messages of the manifest.
        data: the file.
    """
    found = []
    for message in fields:
        if message.HasField("dictionary") and message.dictionary.length > 0:
            one = _take(message, data)
            if one is not None:
                found.append(one)
    return tuple(found)


def _take(message: Any, data: bytes) -> StoredDictionary | None:
    at, length = message.dictionary.offset, message.dictionary.length
    try:
        width = _width(leaf_type_of(message.logical_type).value_type)
    except (PilumError, AttributeError):
        return None
    size = length * width if width else 8 * (length + 1)
    if not 0 <= at <= len(data) - size:
        return None
    if width:
        return StoredDictionary(message.id, length, data[at : at + size], None)
    positions = np.frombuffer(data, "<i8", length + 1, at)
    first, last = int(positions[0]), int(positions[-1])
    if first < 0 or last > len(data) or bool((positions[1:] < positions[:-1]).any()):
        return None
    return StoredDictionary(message.id, length, data[first:last], tuple((positions - first).tolist()))


def _width(kind: Any) -> int:
    """Bytes of one value, 0 for strings."""
    try:
        return int(kind.bit_width) // 8
    except ValueError:
        return 0


def put_dictionaries(
    dictionaries: Iterable[StoredDictionary], sections: bytearray
) -> dict[int, tuple[int, int]]:
    """Append the values to a manifest file that is being made.

    Returns:
        Offset and length by field id.
    """
    places = {}
    for one in dictionaries:
        start = len(sections)
        sections += one.values
        places[one.field_id] = (start, one.length)
        if one.ends is not None:
            places[one.field_id] = (len(sections), one.length)
            sections += (np.array(one.ends, "<i8") + start).tobytes()
    return places
