"""Blobs as users hand them over, beside the reference's."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest

import pilum.blob
from pilum.schema import Schema, prepared_field, with_extensions


@pytest.fixture(params=["pilum", "reference"])
def blob(request: pytest.FixtureRequest) -> Any:
    """Every test that takes it runs with both, so what it says is true of both."""
    return pilum.blob if request.param == "pilum" else pytest.importorskip("lance.blob")


@pytest.mark.interop
def test_blobs(blob: Any) -> None:
    assert repr(blob.Blob(b"x")) == "Blob(data=b'x', uri=None, position=None, size=None)"
    assert blob.Blob.from_bytes(memoryview(b"x")) == blob.Blob(data=b"x")
    assert blob.Blob.from_uri("u", 1, 2) == blob.Blob(None, "u", 1, 2)
    assert blob.Blob.empty().data == b""
    for wrong in (
        (), (b"x", "u"), (None, ""), (None, "u", 1), (None, "u", None, 1), (None, "u", 0, 0), (b"x", None, 1, 2),
        (None, None, 1, 2),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            blob.Blob(*wrong)
    with pytest.raises(AttributeError):
        blob.Blob(b"x").data = b"y"


@pytest.mark.interop
def test_arrays(blob: Any) -> None:
    values = [
        b"abc",
        None,
        blob.Blob.empty(),
        "u",
        blob.Blob.from_uri("x", 1, 2),
        bytearray(b"q"),
        memoryview(b"z"),
    ]
    array = blob.blob_array(values)
    assert isinstance(array, blob.BlobArray)
    assert array.type == blob.BlobType()
    assert array.type.extension_name == "lance.blob.v2"
    assert array.storage.type == pa.struct(
        [("data", pa.large_binary()), ("uri", pa.string()), ("position", pa.uint64()), ("size", pa.uint64())]
    )
    names = ("data", "uri", "position", "size")
    assert [one and tuple(one[name] for name in names) for one in array.storage.to_pylist()] == [
        (b"abc", None, None, None),
        None,
        (b"", None, None, None),
        (None, "u", None, None),
        (None, "x", 1, 2),
        (b"q", None, None, None),
        (b"z", None, None, None),
    ]
    assert len(blob.BlobArray.from_pylist([])) == 0
    for wrong in ([5], [[1]], b"abc", [pa.scalar(b"x")], None):
        with pytest.raises(TypeError):
            blob.blob_array(wrong)
    with pytest.raises(ValueError, match="empty"):
        blob.blob_array([""])
    for position, size in ((-1, 2), (1, -2)):
        with pytest.raises(ValueError, match="negative"):
            blob.Blob.from_uri("x", position, size)


@pytest.mark.interop
def test_fields(blob: Any) -> None:
    assert blob.blob_field("x") == pa.field("x", blob.BlobType())
    assert not blob.blob_field("x", nullable=False).nullable
    field = blob.blob_field(
        "x", inline_size_threshold=0, dedicated_size_threshold=10, pack_file_size_threshold=2**64 - 1
    )
    assert field.metadata == {
        b"lance-encoding:blob-inline-size-threshold": b"0",
        b"lance-encoding:blob-dedicated-size-threshold": b"10",
        b"lance-encoding:blob-pack-file-size-threshold": b"18446744073709551615",
    }
    for name, least in (("inline", 0), ("dedicated", 1), ("pack_file", 1)):
        for wrong in (True, 1.5, "1"):
            with pytest.raises(TypeError, match="must be an int"):
                blob.blob_field("x", **{f"{name}_size_threshold": wrong})
        for bad in (least - 1, 2**64):
            with pytest.raises((ValueError, OverflowError), match=name):
                blob.blob_field("x", **{f"{name}_size_threshold": bad})


@pytest.mark.interop
def test_the_type_comes_from_what_arrow_stores(blob: Any) -> None:
    minimal = pa.struct([("data", pa.large_binary()), ("uri", pa.string())])
    make = blob.BlobType.__arrow_ext_deserialize__
    assert make(minimal, b"").storage_type == minimal
    assert make(blob.BlobType().storage_type, b"") == blob.BlobType()
    for wrong in (pa.int8(), pa.struct([("kind", pa.uint8())])):
        with pytest.raises(TypeError):
            make(wrong, b"")
    assert pickle.loads(pickle.dumps(blob.BlobType())) == blob.BlobType()


def test_a_schema_of_blobs() -> None:
    """Types that are defined in Python have no hash."""
    schema = Schema.from_arrow(pa.schema([pilum.blob.blob_field("x"), pa.field("i", pa.int8())]))
    assert [field.id for field in schema.walk()] == [0, 1, 2, 3, 4, 5]
    assert schema.fields[0].metadata == {
        "ARROW:extension:name": "lance.blob.v2",
        "ARROW:extension:metadata": "",
    }
    assert [member.name for member in schema.fields[0].children] == ["data", "uri", "position", "size"]


def test_a_name_that_stands_for_something_else() -> None:
    """A file may have any struct under the name of a registered type."""
    schema = pa.schema([prepared_field("x")])
    assert with_extensions(schema) is schema
    found = with_extensions(Schema.from_arrow(pa.schema([pilum.blob.blob_field("x")])).to_arrow())
    assert found.field("x").type.extension_name == "lance.blob.v2"
