"""The manifest file: sections, manifest, footer (spec/table.md, section 3).

    values of dictionaries           tables of format 0.1 only
    u32 length + IndexSection        when the version has indices
    u32 length + Transaction         inline copy, when at most 20 MiB
    u32 length + Manifest            its offset is in the footer
    i64 offset, u16 0, u16 2, LANC   footer, 16 bytes

All integers are little-endian.  Pure: bytes in, values out.  A file that breaks any rule is refused with
its path; the reference opens some of them through one of its code paths, which is not copied.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pilum.errors import CorruptFileError
from pilum.proto.lazy import file_pb2
from pilum.table import dictionaries
from pilum.table.codec import decode_indices, decode_manifest, encode_indices, encode_manifest, split_manifest
from pilum.table.model import IndexMetadata, Manifest

__all__ = [
    "MAX_INLINE_TRANSACTION",
    "ManifestFile",
    "manifest_section",
    "parse_manifest_file",
    "serialize_manifest_file",
]

MAGIC = b"LANC"
MAX_INLINE_TRANSACTION = 20 << 20

_FOOTER = struct.Struct("<qHH4s")
_LENGTH = struct.Struct("<I")


class ManifestFile(NamedTuple):
    """What a manifest file holds.

    Attributes:
        manifest: the decoded manifest.
        transaction: the encoded inline transaction, None when the file has none.
    """

    manifest: Manifest
    transaction: bytes | None


def parse_manifest_file(data: bytes, where: str, *, lazy: bool = False) -> ManifestFile:
    """Decode a complete manifest file.

    Args:
        data: all bytes of the file.
        where: its path, for messages.
        lazy: decode and check fragments on first use, however few there are.

    Raises:
        CorruptFileError: the bytes contradict the format.
        UnsupportedError: the version needs features that pilum does not have.
    """
    body = len(data) - _FOOTER.size
    if body < 0:
        raise CorruptFileError(f"{where}: {len(data)} bytes are too few for a manifest (its footer has 16)")
    offset, _, _, magic = _FOOTER.unpack_from(data, body)
    if magic != MAGIC:
        raise CorruptFileError(f"{where}: not a manifest, it ends in {magic!r} instead of {MAGIC!r}")
    encoded = _section(data, offset, body, "manifest", where)
    end = offset + _LENGTH.size + len(encoded)
    if end != body:
        raise CorruptFileError(f"{where}: the manifest ends at offset {end}, the footer begins at {body}")

    parts = split_manifest(encoded, where)
    indices: tuple[IndexMetadata, ...] = ()
    if parts.index_section is not None:
        indices = decode_indices(_section(data, parts.index_section, offset, "index section", where), where)
    transaction = None
    if parts.transaction_section is not None:
        transaction = _section(data, parts.transaction_section, offset, "inline transaction", where)
    manifest = decode_manifest(parts, indices, where, lazy=lazy)
    if manifest.data_version == (0, 1) and manifest.stored_schema is not None:
        stored = file_pb2.Schema.FromString(manifest.stored_schema[1])
        object.__setattr__(manifest, "dictionaries", dictionaries.take_dictionaries(stored.fields, data))
    return ManifestFile(manifest, transaction)


def manifest_section(tail: bytes, skipped: int, where: str) -> bytes | int:
    """The manifest message in the end of a manifest file.

    Args:
        tail: the last bytes of the file.
        skipped: how many bytes come before them.
        where: path of the file, for messages.

    Returns:
        The encoded message, or the offset from which bytes are missing.

    Raises:
        CorruptFileError: the bytes contradict the format.
    """
    body = len(tail) - _FOOTER.size
    if body < 0:
        raise CorruptFileError(f"{where}: {len(tail)} bytes are too few for a manifest (its footer has 16)")
    offset, _, _, magic = _FOOTER.unpack_from(tail, body)
    if magic != MAGIC:
        raise CorruptFileError(f"{where}: not a manifest, it ends in {magic!r} instead of {MAGIC!r}")
    if 0 <= offset < skipped:
        return int(offset)
    return _section(tail, offset - skipped, body, "manifest", where)


def _section(data: bytes, offset: int, limit: int, what: str, where: str) -> bytes:
    """The length-prefixed bytes at ``offset``, which must lie before ``limit``."""
    start = offset + _LENGTH.size
    if not 0 <= offset <= limit - _LENGTH.size:
        raise CorruptFileError(f"{where}: offset {offset} of the {what} lies outside the file")
    (length,) = _LENGTH.unpack_from(data, offset)
    if start + length > limit:
        raise CorruptFileError(
            f"{where}: the {what} at offset {offset} claims {length} bytes, {limit - start} are there"
        )
    return bytes(data[start : start + length])


def serialize_manifest_file(manifest: Manifest, transaction: bytes | None) -> bytes:
    """The complete bytes of a manifest file.

    Args:
        manifest: the value.
        transaction: the encoded transaction, None to leave the inline copy out.  One above 20 MiB is left
            out as well; it is found through ``manifest.transaction_file``.
    """
    sections = bytearray()

    def append(encoded: bytes) -> int:
        offset = len(sections)
        sections.extend(_LENGTH.pack(len(encoded)))
        sections.extend(encoded)
        return offset

    stored = (
        dictionaries.put_dictionaries(manifest.dictionaries, sections)
        if manifest.data_version == (0, 1)
        else {}
    )
    index_section = append(encode_indices(manifest.indices)) if manifest.indices else None
    transaction_section = None
    if transaction is not None and len(transaction) <= MAX_INLINE_TRANSACTION:
        transaction_section = append(transaction)
    offset = append(
        encode_manifest(
            manifest,
            index_section=index_section,
            transaction_section=transaction_section,
            dictionaries=stored,
        )
    )
    return bytes(sections) + _FOOTER.pack(offset, 0, 2, MAGIC)
