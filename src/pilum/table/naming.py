"""Names of the files of a table: manifests, data files, deletion files, transactions.

Implements spec/table.md, sections 2 and 4.1.  Pure: it knows strings and numbers, no store.

    _versions/18446744073709551614.manifest     version 1, V2 naming: 2^64 - 1 - version, 20 digits
    _versions/1.manifest                        version 1, V1 naming
    _versions/d9223372036854775809.manifest     a detached version (bit 63 set), outside the history
    _transactions/{read_version}-{uuid}.txn
    _deletions/{fragment}-{read_version}-{id}.arrow | .bin
    data/{24 binary digits}{26 hex digits}.lance

V2 names sort newest first in a lexicographic listing, which is what object stores return.  The scheme of a
table never changes by itself: every commit uses the one it found.
"""

from __future__ import annotations

import enum
import os
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pilum.errors import CorruptFileError

__all__ = [
    "DATA",
    "DELETIONS",
    "DETACHED_BIT",
    "INDICES",
    "TRANSACTIONS",
    "VERSIONS",
    "VERSION_HINT",
    "ManifestName",
    "NamingScheme",
    "VersionListing",
    "data_file_name",
    "deletion_file_path",
    "manifest_path",
    "new_deletion_id",
    "newest_name",
    "parse_manifest_name",
    "read_listing",
    "transaction_file_name",
]

VERSIONS = "_versions"
TRANSACTIONS = "_transactions"
DELETIONS = "_deletions"
INDICES = "_indices"
DATA = "data"
VERSION_HINT = VERSIONS + "/latest_version_hint.json"

DETACHED_BIT = 1 << 63
_MAX_U64 = (1 << 64) - 1
_SUFFIX = ".manifest"
_V2_LENGTH = 20 + len(_SUFFIX)
_V2_NAME = re.compile(r"[0-9]{20}\.manifest").fullmatch


class NamingScheme(enum.Enum):
    """How the manifests of a table are named."""

    V1 = 1
    V2 = 2


class ManifestName(NamedTuple):
    """What a manifest's file name says.  ``scheme`` is None for a detached version."""

    version: int
    scheme: NamingScheme | None


class VersionListing(NamedTuple):
    """The versions found in one listing of ``_versions/``, ascending, and the scheme of their names."""

    versions: list[int]
    scheme: NamingScheme
    detached: list[int]


def parse_manifest_name(name: str) -> ManifestName | None:
    """Recognise a file name in ``_versions/``; None for anything that is not a manifest."""
    # Nearly every name is one of these, and there may be very many.
    if len(name) == _V2_LENGTH and _V2_NAME(name):
        number = int(name[:20])
        return ManifestName(_MAX_U64 - number, NamingScheme.V2) if number <= _MAX_U64 else None
    if not name.endswith(_SUFFIX):
        return None
    digits = name[: -len(_SUFFIX)]
    detached = digits.startswith("d")
    if detached:
        digits = digits[1:]
    # isdecimal alone would let other scripts' digits through.
    if not (digits.isascii() and digits.isdecimal()):
        return None
    number = int(digits)
    if number > _MAX_U64:
        return None
    if detached:
        return ManifestName(number, None) if number & DETACHED_BIT else None
    if len(name) == _V2_LENGTH:
        return ManifestName(_MAX_U64 - number, NamingScheme.V2)
    return ManifestName(number, NamingScheme.V1)


def newest_name(names: Sequence[bytes]) -> str | None:
    """The name of the newest version of a long listing of V2 names; None where a listing must be read name by name.

    V2 names count down and all have the same length, so it is the smallest of them.
    """
    if set(map(len, names)) != {_V2_LENGTH}:
        others = [name for name in names if len(name) != _V2_LENGTH]
        names = [name for name in names if len(name) == _V2_LENGTH]
        found = [parse_manifest_name(os.fsdecode(name)) for name in others]
        if not names or any(one.scheme is NamingScheme.V1 for one in found if one is not None):
            return None
    smallest = os.fsdecode(min(names))
    return smallest if _V2_NAME(smallest) else None


def read_listing(names: Iterable[str], where: str) -> VersionListing:
    """Sort the file names of ``_versions/`` into versions.

    Args:
        names: file names without folder.
        where: address of the table, for the message.

    Raises:
        CorruptFileError: V1 and V2 names lie side by side (a migration that did not finish).
    """
    found = [one for one in map(parse_manifest_name, names) if one is not None]
    schemes = {scheme for _, scheme in found}
    if len(schemes - {None}) > 1:
        raise CorruptFileError(
            f"{where}/{VERSIONS} holds manifests of both naming schemes; finish the migration to V2 names first"
        )
    return VersionListing(
        sorted([version for version, scheme in found if scheme is not None]),
        NamingScheme.V1 if NamingScheme.V1 in schemes else NamingScheme.V2,
        sorted([version for version, scheme in found if scheme is None]),
    )


def manifest_path(version: int, scheme: NamingScheme = NamingScheme.V2) -> str:
    """Key of the manifest of a version, relative to the table's root."""
    if version & DETACHED_BIT:
        return f"{VERSIONS}/d{version}{_SUFFIX}"
    if scheme is NamingScheme.V1:
        return f"{VERSIONS}/{version}{_SUFFIX}"
    return f"{VERSIONS}/{_MAX_U64 - version:020d}{_SUFFIX}"


def data_file_name() -> str:
    """A fresh random name for a data file, as the reference forms it.

    The first three bytes of a random UUID are written as bits, so that object stores can split the key
    space early; the other thirteen follow in hex.
    """
    random = uuid.uuid4().bytes
    return f"{int.from_bytes(random[:3], 'big'):024b}{random[3:].hex()}.lance"


def new_deletion_id() -> int:
    """A random u64 that makes the name of a deletion file unique."""
    return int.from_bytes(os.urandom(8))


def deletion_file_path(fragment_id: int, read_version: int, file_id: int, suffix: str) -> str:
    """Key of a deletion file; ``suffix`` is ``arrow`` or ``bin``."""
    return f"{DELETIONS}/{fragment_id}-{read_version}-{file_id}.{suffix}"


def transaction_file_name(read_version: int, transaction_uuid: str) -> str:
    """Name of a transaction file inside ``_transactions/``."""
    return f"{read_version}-{transaction_uuid}.txn"
