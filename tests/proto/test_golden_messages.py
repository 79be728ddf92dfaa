"""Every message in the golden files parses with our `.proto` files and leaves no unknown field."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import any_pb2, unknown_fields
from google.protobuf.message import Message

from pilum.proto import encodings_pb2, file_pb2, table_pb2
from tests.support import GOLDEN, REPOSITORY, all_data_files

DATA_FILES = all_data_files()
MANIFESTS = sorted(GOLDEN.rglob("*.manifest"))
TRANSACTIONS = sorted(GOLDEN.rglob("*.txn"))


# storage_class, written by old releases only and without meaning since.
RESERVED = {("Field", 11)}


def unknown_paths(message: Message, path: str = "") -> list[str]:
    """Paths of unknown fields in ``message``, recursively."""
    where = path or type(message).__name__
    found = [
        f"{where}.{one.field_number}"
        for one in unknown_fields.UnknownFieldSet(message)
        if (message.DESCRIPTOR.name, one.field_number) not in RESERVED
    ]
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            children = [one for one in value.values() if isinstance(one, Message)]
        elif isinstance(value, Message):
            children = [value]
        else:
            children = list(value)
        for child in children:
            found += unknown_paths(child, f"{where}.{descriptor.name}")
    return found


def parse(kind: Any, data: bytes) -> Any:
    message = kind.FromString(data)
    assert unknown_paths(message) == []
    return message


def name_of(path: Path) -> str:
    return str(path.relative_to(GOLDEN))


@pytest.mark.golden
@pytest.mark.parametrize("path", DATA_FILES, ids=name_of)
def test_data_file(path: Path) -> None:
    data = path.read_bytes()
    _, column_table, global_table = struct.unpack_from("<QQQ", data, len(data) - 40)
    global_count, column_count, major, minor = struct.unpack_from("<IIHH", data, len(data) - 16)
    assert data[-4:] == b"LANC"
    if (major, minor) < (0, 3):
        pytest.skip("format 0.1 has another container")
    position, size = struct.unpack_from("<QQ", data, global_table)
    assert global_count >= 1
    if size:
        parse(file_pb2.FileDescriptor, data[position : position + size])
    for column in range(column_count):
        position, size = struct.unpack_from("<QQ", data, column_table + 16 * column)
        metadata = parse(file_pb2.ColumnMetadata, data[position : position + size])
        if metadata.encoding.WhichOneof("location") == "none":
            continue  # pre-release files of 2.0 (file-2.0-and-0.1.md section A.1)
        encoding = parse(any_pb2.Any, metadata.encoding.direct.encoding)
        assert encoding.type_url == "/lance.encodings.ColumnEncoding"
        parse(encodings_pb2.ColumnEncoding, encoding.value)
        for page in metadata.pages:
            assert len(page.buffer_offsets) == len(page.buffer_sizes)
            layout = parse(any_pb2.Any, page.encoding.direct.encoding)
            if layout.type_url == "/lance.encodings21.PageLayout":
                parsed = parse(encodings_pb2.PageLayout, layout.value)
                assert parsed.WhichOneof("layout")


@pytest.mark.golden
@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_manifest(path: Path) -> None:
    data = path.read_bytes()
    if path.parent.parent.name in (
        "crafted_short.lance",
        "crafted_bad_length.lance",
        "crafted_unknown_field.lance",
    ):
        pytest.skip("damaged on purpose")
    (position,) = struct.unpack_from("<q", data, len(data) - 16)

    def section(kind: Any, position: int) -> Any:
        (length,) = struct.unpack_from("<I", data, position)
        return parse(kind, data[position + 4 : position + 4 + length])

    manifest = section(table_pb2.Manifest, position)
    assert manifest.version > 0
    if manifest.HasField("index_section"):
        assert section(table_pb2.IndexSection, manifest.index_section).indices
    for name in ("transaction_section", "legacy_transaction_section"):
        if manifest.HasField(name):
            section(table_pb2.Transaction, getattr(manifest, name))
    for fragment in manifest.fragments:
        parse(table_pb2.RowIdSequence, fragment.inline_row_ids)
        parse(table_pb2.RowDatasetVersionSequence, fragment.inline_created_at_versions)
        parse(table_pb2.RowDatasetVersionSequence, fragment.inline_last_updated_at_versions)


@pytest.mark.golden
@pytest.mark.parametrize("path", TRANSACTIONS, ids=name_of)
def test_transaction(path: Path) -> None:
    transaction = parse(table_pb2.Transaction, path.read_bytes())
    assert transaction.WhichOneof("operation")
    assert transaction.uuid in path.name


def test_operation_numbers() -> None:
    numbers = {
        field.number: field.name
        for field in table_pb2.Transaction.DESCRIPTOR.oneofs_by_name["operation"].fields
    }
    assert sorted(numbers) == list(range(100, 116))
    assert numbers[100] == "append"
    assert numbers[115] == "data_overlay"


def test_explicit_presence_of_zero() -> None:
    manifest = table_pb2.Manifest(max_fragment_id=0, transaction_section=0)
    again = table_pb2.Manifest.FromString(manifest.SerializeToString())
    assert again.HasField("max_fragment_id")
    assert again.HasField("transaction_section")
    assert not again.HasField("index_section")
    assert table_pb2.DataFile(base_id=0).SerializeToString() == b"\x38\x00"


def test_worked_example_of_a_field() -> None:
    # file-container-and-structure.md section 7.1
    data = bytes.fromhex("120161 20ffffffffffffffffff01 2a05696e743332 3001 3801")
    field = parse(file_pb2.Field, data)
    assert (field.name, field.id, field.parent_id, field.logical_type, field.nullable) == (
        "a",
        0,
        -1,
        "int32",
        True,
    )
    assert field.SerializeToString(deterministic=True) == data


def test_row_id_examples() -> None:
    # table.md section 18.3
    parsed = parse(table_pb2.RowIdSequence, bytes.fromhex("0a091a07080110091a0181"))
    segment = parsed.segments[0].range_with_bitmap
    assert (segment.start, segment.end, segment.bitmap) == (1, 9, b"\x81")
    parsed = parse(table_pb2.RowIdSequence, bytes.fromhex("0a13121110e8071a0c0a0a0864120600000100 9001"))
    holes = parsed.segments[0].range_with_holes.holes.u16_array
    assert (holes.base, holes.offsets) == (100, bytes.fromhex("000001009001"))


def test_importing_the_package_loads_no_protobuf() -> None:
    code = "import sys, pilum.proto; sys.exit('google.protobuf' in sys.modules)"
    environment = {"PYTHONPATH": str(REPOSITORY / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
