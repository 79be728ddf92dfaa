"""Manifest files: golden tables field by field, serialisation, and damaged bytes."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilum.errors import CorruptFileError, PilumError, UnsupportedError
from pilum.io import LocalStore
from pilum.proto import table_pb2 as pb
from pilum.table import Manifest, codec, find_versions, latest_version, load_manifest
from pilum.table.codec import split_manifest
from pilum.table.fragment_codec import decode_fragment, decode_fragments, encode_fragment
from pilum.table.manifest_file import parse_manifest_file, serialize_manifest_file
from pilum.table.model import DataFile, DeletionFile, Fragment
from pilum.table.transaction import decode_transaction, encode_transaction
from tests.support import GOLDEN
from tests.table.tables import SCHEMA, drive, fragment

TABLES = GOLDEN / "table"
MANIFESTS = sorted(TABLES.glob("*.lance/**/*.manifest"))

# What must be refused, and how the message says it (README of the golden tables).
REFUSED = {
    "crafted_bad_length": (CorruptFileError, "claims 233 bytes, 232 are there"),
    "crafted_bad_magic": (CorruptFileError, "LANX"),
    "crafted_format_99": (CorruptFileError, "'9.9'"),
    "crafted_mixed_names": (CorruptFileError, "both naming schemes"),
    "crafted_reader_flag_20": (UnsupportedError, "unknown flag 1048576"),
    "crafted_short": (CorruptFileError, "10 bytes"),
    "crafted_stable_flag_no_ids": (CorruptFileError, "stable row ids"),
    "crafted_tree_flag": (UnsupportedError, "fragment tree"),
    "crafted_wrong_file_version": (CorruptFileError, "version 2.2, the table has 2.1"),
    "overlay": (UnsupportedError, "data overlay files"),
}


def message_of(data: bytes) -> codec.ManifestMessage:
    """The manifest message of a file, without the section offsets, which depend on the layout."""
    (offset,) = struct.unpack_from("<q", data, len(data) - 16)
    parts = split_manifest(data[offset + 4 : -16], "t")
    for name in ("legacy_transaction_section", "transaction_section", "index_section"):
        parts.message.ClearField(name)
    return parts


@pytest.mark.golden
@pytest.mark.parametrize(
    "case", sorted({path.name.removesuffix(".lance") for path in TABLES.glob("*.lance")})
)
def test_golden_tables_open_or_are_refused(case: str) -> None:
    store = LocalStore(TABLES / f"{case}.lance")

    async def newest() -> Manifest:
        return await load_manifest(store, await latest_version(store))

    if case in REFUSED:
        kind, text = REFUSED[case]
        with pytest.raises(kind, match=text) as raised:
            drive(newest())
        assert f"{case}.lance/_versions" in str(raised.value)
    else:
        manifest = drive(newest())
        assert manifest.fragments or case in ("empty",)


@pytest.mark.golden
@pytest.mark.parametrize("path", MANIFESTS, ids=[f"{p.parent.parent.name}-{p.stem[-8:]}" for p in MANIFESTS])
def test_golden_manifests_survive_a_rewrite(path: Path) -> None:
    data = path.read_bytes()
    try:
        manifest, transaction = parse_manifest_file(data, str(path))
    except PilumError:
        assert path.parent.parent.name.removesuffix(".lance") in REFUSED
        return
    again = serialize_manifest_file(manifest, transaction)
    assert parse_manifest_file(again, "again") == (manifest, transaction)
    assert message_of(again) == message_of(data)
    # Nor is anything lost when every fragment and the schema are encoded anew.
    fresh = replace(
        manifest, fragments=tuple(replace(one) for one in manifest.fragments), stored_schema=None, indices=()
    )
    assert all(not one.encoded for one in fresh.fragments)
    rewritten = message_of(serialize_manifest_file(fresh, None))
    original = message_of(data)
    assert [pb.DataFragment.FromString(one) for one in rewritten.fragments] == [
        pb.DataFragment.FromString(one) for one in original.fragments
    ]
    if manifest.data_version != (0, 1):  # whose dictionaries lie in the manifest file
        assert rewritten.message == original.message


def plain(value: Any) -> Any:
    """Values of the golden description in the form of ours: hex strings to bytes."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) and "hex" in value else value


def described() -> list[Any]:
    result = []
    for path in sorted(TABLES.glob("*.meta.json")):
        case = path.name.removesuffix(".meta.json").split(".")[0]
        for name, entry in json.loads(path.read_text()).items():
            if name.endswith(".manifest") and isinstance(entry, dict) and "manifest" in entry:
                result.append(
                    pytest.param(path.name, case, name, entry, id=f"{path.name[:-10]}-{name[-16:-9]}")
                )
    return result


@pytest.mark.golden
@pytest.mark.parametrize(("meta", "case", "name", "entry"), described())
def test_golden_manifests_mean_what_is_described(
    meta: str, case: str, name: str, entry: dict[str, Any]
) -> None:
    if case in REFUSED:
        return
    folder = TABLES / f"{case}.lance"
    found = list(folder.glob(f"**/{name}"))
    if meta == f"{case}.meta.json":
        path = folder / "_versions" / name
    else:
        branch = meta.removesuffix(".meta.json").removeprefix(f"{case}.").replace("_", "/")
        path = folder / "tree" / branch / "_versions" / name
    assert path in found
    manifest, transaction = parse_manifest_file(path.read_bytes(), str(path))
    wanted = entry["manifest"]
    assert manifest.version == wanted["version"]
    assert manifest.reader_flags == wanted.get("reader_feature_flags", 0)
    assert manifest.writer_flags == wanted.get("writer_feature_flags", 0)
    assert manifest.max_fragment_id == wanted.get("max_fragment_id")
    assert manifest.next_row_id == wanted.get("next_row_id", 0)
    assert manifest.config == wanted.get("config", {})
    assert manifest.table_metadata == wanted.get("table_metadata", {})
    assert manifest.branch == wanted.get("branch")
    assert manifest.transaction_file == wanted.get("transaction_file", "")
    assert ".".join(map(str, manifest.data_version)) == wanted["data_format"]["version"]
    stamp = wanted["timestamp"]
    assert manifest.timestamp_ns == stamp["seconds"] * 1_000_000_000 + stamp.get("nanos", 0)
    assert [(f.id, f.name, f.logical_type, f.parent_id) for f in manifest.schema.walk()] == [
        (f.get("id", 0), f["name"], f["logical_type"], f.get("parent_id", 0))
        for f in wanted.get("fields", [])
    ]
    assert [(b.id, b.path, b.is_dataset_root, b.name) for b in manifest.base_paths] == [
        (b.get("id", 0), b["path"], b.get("is_dataset_root", False), b.get("name"))
        for b in wanted.get("base_paths", [])
    ]
    assert len(manifest.fragments) == len(wanted.get("fragments", []))
    for one, expected in zip(manifest.fragments, wanted.get("fragments", []), strict=True):
        assert_fragment(one, expected)
    indices = (entry.get("indices") or {}).get("indices", [])
    assert [one.name for one in manifest.indices] == [one["name"] for one in indices]
    if entry.get("transaction"):
        assert transaction is not None
        decoded = decode_transaction(transaction, "t")
        assert decoded.uuid == entry["transaction"]["uuid"]
        assert decoded.read_version == entry["transaction"].get("read_version", 0)


def assert_fragment(one: Fragment, expected: dict[str, Any]) -> None:
    assert one.id == expected.get("id", 0)
    assert one.physical_rows == expected.get("physical_rows", 0)
    files = [
        DataFile(
            file["path"],
            tuple(file.get("fields", [])),
            tuple(file.get("column_indices", [])),
            (file.get("file_major_version", 0), file.get("file_minor_version", 0)),
            file.get("file_size_bytes", 0),
            file.get("base_id"),
        )
        for file in expected.get("files", [])
    ]
    assert list(one.files) == files
    deletion = expected.get("deletion_file")
    if deletion is None:
        assert one.deletion_file is None
    else:
        kind = deletion.get("file_type", 0)
        assert one.deletion_file == DeletionFile(
            {"ARROW_ARRAY": 0, "BITMAP": 1}.get(kind, kind),
            deletion.get("read_version", 0),
            deletion.get("id", 0),
            deletion.get("num_deleted_rows", 0),
            deletion.get("base_id"),
        )
    row_ids = plain(expected.get("inline_row_ids"))
    if isinstance(row_ids, bytes):
        assert one.row_ids == row_ids


@pytest.mark.golden
def test_golden_transactions_survive_a_rewrite() -> None:
    kinds = set()
    for path in sorted(TABLES.glob("*.lance/_transactions/*.txn")):
        data = path.read_bytes()
        transaction = decode_transaction(data, str(path))
        message = pb.Transaction.FromString(data)
        assert pb.Transaction.FromString(encode_transaction(transaction)) == message
        assert transaction.file_name == path.name
        kinds.add(message.WhichOneof("operation"))
    assert {"append", "delete", "overwrite", "restore", "update", "rewrite", "merge"} <= kinds


@pytest.mark.golden
def test_v1_names_and_stray_files() -> None:
    v1 = drive(find_versions(LocalStore(TABLES / "v1_names.lance")))
    assert v1.versions == list(range(1, 13))
    assert drive(latest_version(LocalStore(TABLES / "crafted_tmp_and_hint.lance"))) == 1
    detached = LocalStore(TABLES / "detached.lance")
    listing = drive(find_versions(detached))
    assert listing.versions == [1]
    assert drive(load_manifest(detached, listing.detached[0])).version == listing.detached[0]


def test_bytes_of_the_worked_example() -> None:
    manifest = Manifest(version=1, schema=SCHEMA)
    data = serialize_manifest_file(manifest, b"\x12\x01x")
    assert data[:7] == b"\x03\x00\x00\x00\x12\x01x"
    assert data[-16:] == struct.pack("<q", 7) + b"\x00\x00\x02\x00LANC"
    parsed, transaction = parse_manifest_file(data, "t")
    assert transaction == b"\x12\x01x"
    assert parsed == manifest


def test_large_transactions_are_left_out() -> None:
    data = serialize_manifest_file(Manifest(version=1, schema=SCHEMA), bytes((20 << 20) + 1))
    assert len(data) < 1000
    assert parse_manifest_file(data, "t").transaction is None


def tables(count: int) -> Manifest:
    fragments = tuple(replace(fragment(), id=index) for index in range(count))
    return Manifest(version=5, schema=SCHEMA, fragments=fragments)


def test_many_fragments_are_decoded_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_EAGER_FRAGMENTS", 10)
    manifest = tables(11)
    parsed = parse_manifest_file(serialize_manifest_file(manifest, None), "t").manifest
    assert parsed.pending is not None
    assert parsed.num_rows == 33
    assert parsed.pending is None
    assert parsed == manifest
    broken = parse_manifest_file(
        serialize_manifest_file(replace(manifest, fragments=manifest.fragments[::-1]), None), "x.manifest"
    ).manifest
    for _ in range(2):
        with pytest.raises(CorruptFileError, match=r"x\.manifest.*ascend"):
            _ = broken.fragments
    with pytest.raises(AttributeError, match="nothing"):
        _ = parsed.nothing


FRAGMENTS = [
    Fragment(0, (DataFile("a.lance", (0, 1), (0, 1), (2, 2), 7),), 10),
    Fragment(1, (), 10),
    Fragment(2, (DataFile("a.lance", (), (), (2, 2), 0),), 0),
    Fragment(
        3, (DataFile("a.lance", (0,), (0,), (2, 2), 7), DataFile("b.lance", (-2, 1), (-1, 0), (2, 2), 7)), 10
    ),
    Fragment(4, (DataFile("a.lance", (300,), (0,), (2, 2), 7, base_id=0),), 10, DeletionFile(1, 2, 3, 4, 0)),
    Fragment(
        5, (DataFile("ä.lance", (0,), (0,), (2, 1), 7),), 10, DeletionFile(0, 2, 3, 4), b"r", b"c", b"u"
    ),
    Fragment(6, (DataFile("a.lance", (0,), (0,), (2, 2), 7),), 10, extra=b"\x78\x05"),
]


@pytest.mark.parametrize("chosen", [FRAGMENTS, *([one] for one in FRAGMENTS)], ids=str)
def test_fragments_round_trip_by_every_way_of_decoding(chosen: list[Fragment]) -> None:
    encoded = [encode_fragment(one) for one in chosen]
    assert decode_fragments(encoded, "t") == tuple(chosen)
    assert [decode_fragment(pb.DataFragment.FromString(one)) for one in encoded] == chosen
    unusual = [
        one + b"\x08\x00\x08" + bytes([number.id]) for one, number in zip(encoded, chosen, strict=True)
    ]
    assert decode_fragments(unusual, "t") == tuple(chosen)


def test_unpacked_numbers_are_understood() -> None:
    data = bytes.fromhex("1209 0a0161 1000 1001 1800 1801".replace(" ", ""))
    data = b"\x12" + bytes([len(data) - 2]) + data[2:]
    (one,) = decode_fragments([data], "t")
    assert (one.files[0].fields, one.files[0].column_indices) == ((0, 1), (0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": (DataFile("a", (0,), (0,), (2, 1), 1),)}, "version 2.1, the table has 2.2"),
        ({"files": (DataFile("a", (0,), (0,), (7, 1), 1),)}, "unknown data file version 7.1"),
        ({"files": (DataFile("a", (0, 1), (0,), (2, 2), 1),)}, "2 fields but only 1 column"),
        ({"deletion_file": DeletionFile(0, 1, 1, 11)}, "11 deleted of 3 rows"),
        ({"id": 1 << 32}, "fit 32 bits"),
    ],
)
def test_rules_about_fragments(change: dict[str, Any], message: str) -> None:
    manifest = replace(tables(1), fragments=(replace(fragment(), **change),))
    with pytest.raises(CorruptFileError, match=f"x.manifest.*{message}"):
        parse_manifest_file(serialize_manifest_file(manifest, None), "x.manifest")


@pytest.mark.fault
@pytest.mark.golden
@pytest.mark.parametrize("case", ["index_meta", "del_array", "stable_update", "metadata", "multi_base"])
def test_damaged_manifests(case: str) -> None:
    path = max(
        (TABLES / f"{case}.lance" / "_versions").glob("*.manifest"), key=lambda one: one.stat().st_size
    )
    data = path.read_bytes()
    rng = random.Random(4)
    damaged = [data[:cut] for cut in range(0, len(data), 11)]
    for _ in range(400):
        mutated = bytearray(data)
        mutated[rng.randrange(len(data))] = rng.randrange(256)
        damaged.append(bytes(mutated))
    refusals = []
    for one in damaged:
        try:
            parsed, transaction = parse_manifest_file(one, "x.manifest")
            _ = parsed.fragments
            if transaction is not None:
                decode_transaction(transaction, "x.manifest")
        except PilumError as error:
            refusals.append(str(error))
    assert all("x.manifest" in message for message in refusals)
    assert len(refusals) > len(data) // 11
