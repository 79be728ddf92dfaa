"""Feature flags: what a version of a table asks of its readers and writers.

Implements spec/table.md, section 6.  A manifest carries two 64-bit words with common bit numbers.  A reader
refuses a version whose reader word has a bit it does not implement, a writer refuses to commit on top of a
version whose writer word has one; both refusals name the flags.  Both words are computed anew with every
commit from what the manifest contains, except for the sticky bits, which are carried over.
"""

from __future__ import annotations

from pilum.errors import CorruptFileError, UnsupportedError

__all__ = [
    "BASE_PATHS",
    "COVERING_FIELDS",
    "DELETION_FILES",
    "FLAG_NAMES",
    "MIXED_FILE_VERSIONS",
    "READABLE",
    "STABLE_ROW_IDS",
    "STICKY",
    "TABLE_CONFIG",
    "TRANSACTION_FILES_DISABLED",
    "V2_FORMAT",
    "WRITABLE",
    "check_readable",
    "check_writable",
    "compute_flags",
    "flag_names",
]

DELETION_FILES = 1
STABLE_ROW_IDS = 2
V2_FORMAT = 4
TABLE_CONFIG = 8
BASE_PATHS = 16
TRANSACTION_FILES_DISABLED = 32
DATA_OVERLAYS = 64
COVERING_FIELDS = 128
MIXED_FILE_VERSIONS = 256
FRAGMENT_REUSE_WITH_STABLE_IDS = 512
TAGGED_FRAGMENT_REUSE = 1024
FRAGMENT_TREE = 4096
MANAGED_BLOBS = 16384
NON_REUSABLE_FIELD_IDS = 32768
ZONE_WRITE_SEED = 65536

FLAG_NAMES: dict[int, str] = {
    DELETION_FILES: "deletion files",
    STABLE_ROW_IDS: "stable row ids",
    V2_FORMAT: "v2 file format",
    TABLE_CONFIG: "table config",
    BASE_PATHS: "base paths",
    TRANSACTION_FILES_DISABLED: "transaction files disabled",
    DATA_OVERLAYS: "data overlay files",
    COVERING_FIELDS: "covering index fields",
    MIXED_FILE_VERSIONS: "mixed data file versions",
    FRAGMENT_REUSE_WITH_STABLE_IDS: "fragment reuse index with stable row ids",
    TAGGED_FRAGMENT_REUSE: "tagged fragment reuse transitions",
    FRAGMENT_TREE: "fragment tree",
    MANAGED_BLOBS: "managed blobs",
    NON_REUSABLE_FIELD_IDS: "non-reusable field ids",
    ZONE_WRITE_SEED: "zone write seed",
}

_COMMON = DELETION_FILES | STABLE_ROW_IDS | V2_FORMAT | TABLE_CONFIG | BASE_PATHS | TRANSACTION_FILES_DISABLED
# Each data file names its own version, so a mixed table can be read, and added to in the version of the table.
# Columns that an index carries along matter to commits: new values of one end its coverage (`indices`).
READABLE = _COMMON | MIXED_FILE_VERSIONS | COVERING_FIELDS
WRITABLE = READABLE
STICKY = STABLE_ROW_IDS | TRANSACTION_FILES_DISABLED | MIXED_FILE_VERSIONS

# Flags whose meaning holds only when both words agree.
_PAIRED = MIXED_FILE_VERSIONS


def flag_names(word: int) -> str:
    """The set flags of a word in words: ``"fragment tree (4096), unknown flag 1048576"``."""
    bits = [1 << position for position in range(word.bit_length()) if word >> position & 1]
    return ", ".join(
        f"{FLAG_NAMES[bit]} ({bit})" if bit in FLAG_NAMES else f"unknown flag {bit}" for bit in bits
    )


def check_readable(reader_flags: int, writer_flags: int, where: str) -> None:
    """Refuse a version that needs something this reader does not implement.

    Raises:
        UnsupportedError: a reader flag is not implemented; the message names it.
        CorruptFileError: the two words contradict each other.
    """
    missing = reader_flags & ~READABLE
    if missing:
        raise UnsupportedError(
            f"this version of pilum cannot read {where}: it needs {flag_names(missing)}; a newer pilum may"
        )
    if (reader_flags ^ writer_flags) & _PAIRED:
        raise CorruptFileError(
            f"{where} sets {flag_names((reader_flags ^ writer_flags) & _PAIRED)} in only one of its two flag words"
        )


def check_writable(writer_flags: int, where: str) -> None:
    """Refuse to commit on top of a version that needs something this writer does not implement.

    Raises:
        UnsupportedError: a writer flag is not implemented; the message names it.
    """
    missing = writer_flags & ~WRITABLE
    if missing:
        raise UnsupportedError(
            f"this version of pilum can read {where} but not write to it: "
            f"it needs {flag_names(missing)}; a newer pilum may"
        )


def compute_flags(
    *, previous: int, deletion_files: bool, config: bool, base_paths: bool, covering_fields: bool = False
) -> tuple[int, int]:
    """The flag words of a new version.

    Args:
        previous: writer word of the version it builds on (for the sticky bits).
        deletion_files: some fragment has a deletion file.
        config: the table config is not empty.
        base_paths: the list of base paths is not empty.
        covering_fields: some index carries columns along.

    Returns:
        The reader word and the writer word.
    """
    sticky = previous & STICKY
    common = sticky & ~TRANSACTION_FILES_DISABLED
    common |= DELETION_FILES if deletion_files else 0
    common |= BASE_PATHS if base_paths else 0
    common |= COVERING_FIELDS if covering_fields else 0
    return common, common | (sticky & TRANSACTION_FILES_DISABLED) | (TABLE_CONFIG if config else 0)
