"""File names of a table."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilum.errors import CorruptFileError
from pilum.table.naming import (
    DETACHED_BIT,
    ManifestName,
    NamingScheme,
    data_file_name,
    deletion_file_path,
    manifest_path,
    newest_name,
    parse_manifest_name,
    read_listing,
    transaction_file_name,
)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (1, "18446744073709551614.manifest"),
        (2, "18446744073709551613.manifest"),
        (1000, "18446744073709550615.manifest"),
    ],
)
def test_v2_names_of_the_specification(version: int, name: str) -> None:
    assert manifest_path(version) == f"_versions/{name}"
    assert parse_manifest_name(name) == ManifestName(version, NamingScheme.V2)


def test_v1_and_detached_names() -> None:
    assert manifest_path(12, NamingScheme.V1) == "_versions/12.manifest"
    assert parse_manifest_name("12.manifest") == ManifestName(12, NamingScheme.V1)
    detached = DETACHED_BIT | 77
    for scheme in NamingScheme:
        assert manifest_path(detached, scheme) == f"_versions/d{detached}.manifest"
    assert parse_manifest_name(f"d{detached}.manifest") == ManifestName(detached, None)


@pytest.mark.parametrize(
    "name",
    [
        "latest_version_hint.json",
        ".tmp_9.manifest_x",
        ".manifest",
        "d5.manifest",
        "dx.manifest",
        "1.manifest-0f3d",
        "-1.manifest",
        "+1.manifest",
        "1_0.manifest",
        "٣.manifest",
        "99999999999999999999.manifest",
        "1.2.manifest",
        "notes.txt",
        "",
    ],
)
def test_other_names_are_ignored(name: str) -> None:
    assert parse_manifest_name(name) is None


@pytest.mark.property
@given(st.integers(1, (1 << 63) - 1), st.sampled_from(NamingScheme))
def test_names_round_trip(version: int, scheme: NamingScheme) -> None:
    name = manifest_path(version, scheme).removeprefix("_versions/")
    assert parse_manifest_name(name) == ManifestName(version, scheme)


@pytest.mark.property
@given(st.sets(st.integers(1, (1 << 63) - 1), min_size=1))
def test_v2_names_sort_newest_first(versions: set[int]) -> None:
    names = sorted(manifest_path(version) for version in versions)
    assert names == [manifest_path(version) for version in sorted(versions, reverse=True)]


def test_listing_sorts_numerically_and_sets_detached_versions_apart() -> None:
    listing = read_listing(["2.manifest", "10.manifest", f"d{DETACHED_BIT | 1}.manifest", "x.json"], "t")
    assert listing == ([2, 10], NamingScheme.V1, [DETACHED_BIT | 1])


NAMES = st.lists(
    st.one_of(
        st.integers(1, 1 << 40).map(lambda version: manifest_path(version).rpartition("/")[2]),
        st.integers(1, 1 << 40).map(lambda number: f"d{DETACHED_BIT | number}.manifest"),
        st.sampled_from(
            ["latest_version_hint.json", ".pilum-x.tmp", "a" * 20 + ".manifest", "!" * 20 + ".manifest"]
        ),
    )
)


@pytest.mark.property
@given(NAMES)
def test_the_newest_of_a_long_listing(names: list[str]) -> None:
    """It is found without names being taken apart, or not at all; other names do not mislead."""
    encoded = [name.encode() for name in names]
    found = newest_name(encoded)
    versions = read_listing(names, "t").versions
    if found is not None:
        assert parse_manifest_name(found) == (versions[-1], NamingScheme.V2)
    elif versions:
        assert any(name.startswith("!") for name in names)
    assert newest_name([*encoded, b"7.manifest"]) is None


def test_mixed_names_are_refused() -> None:
    with pytest.raises(CorruptFileError, match="both naming schemes"):
        read_listing(["1.manifest", "18446744073709551613.manifest"], "t")


def test_data_file_names_look_like_those_of_the_reference() -> None:
    names = {data_file_name() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"[01]{24}[0-9a-f]{26}\.lance", name) for name in names)


def test_other_paths() -> None:
    assert deletion_file_path(3, 7, 99, "bin") == "_deletions/3-7-99.bin"
    assert transaction_file_name(0, "29ac") == "0-29ac.txn"
