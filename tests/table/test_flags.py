"""Feature flags: what is refused, by which name, and what a commit sets."""

from __future__ import annotations

import pytest

from pilum.errors import CorruptFileError, UnsupportedError
from pilum.table import flags


@pytest.mark.parametrize("bit", [1, 2, 4, 8, 16, 32, 128])
def test_supported_flags(bit: int) -> None:
    flags.check_readable(bit, 0, "t")
    flags.check_writable(bit, "t")


@pytest.mark.parametrize("bit", [64, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 1 << 20, 1 << 63])
def test_unsupported_flags_are_named(bit: int) -> None:
    expected = flags.FLAG_NAMES.get(bit, "unknown flag")
    for check in (lambda: flags.check_readable(bit, 0, "t"), lambda: flags.check_writable(bit, "t")):
        with pytest.raises(UnsupportedError, match=f"{expected}.*{bit}"):
            check()
    flags.check_readable(0, bit, "t")  # a writer flag does not keep anyone from reading


def test_mixed_file_versions_hold_for_both_words() -> None:
    flags.check_readable(256, 256, "t")
    flags.check_writable(256, "t")
    with pytest.raises(CorruptFileError, match="only one"):
        flags.check_readable(256, 0, "t")


def test_words_of_a_new_version() -> None:
    def words(previous: int = 0, **present: bool) -> tuple[int, int]:
        given = {"deletion_files": False, "config": False, "base_paths": False, **present}
        return flags.compute_flags(previous=previous, **given)

    assert words() == (0, 0)
    assert words(deletion_files=True) == (1, 1)
    assert words(config=True) == (0, 8)
    assert words(base_paths=True) == (16, 16)
    assert words(previous=2 | 1 | 8) == (2, 2)  # stable row ids stay, the others follow the content
    assert words(previous=32) == (0, 32)
    assert words(previous=256) == (256, 256)
    assert words(covering_fields=True) == (128, 128)
    assert words(previous=128) == (0, 0)
