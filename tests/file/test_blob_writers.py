"""Files of blobs beside data files: the same bytes, descriptors and errors as the reference, in both directions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pilum
import pilum.aio
import pilum.blob
from pilum.errors import InvalidInputError, StoreError, UnsupportedError
from pilum.file import blob_writers
from pilum.file.blob_writers import AsyncDedicatedBlobWriter, AsyncPackedBlobWriter
from pilum.io import MemoryStore
from pilum.io.ordered import drive

FIVE = "10100000000000000000000000000000.blob"
PILUM = SimpleNamespace(
    blob=pilum.blob, LanceFileSession=pilum.LanceFileSession, LanceFileWriter=pilum.LanceFileWriter
)


def reference() -> Any:
    file = pytest.importorskip("lance.file")
    return SimpleNamespace(
        blob=pytest.importorskip("lance.blob"),
        LanceFileSession=file.LanceFileSession,
        LanceFileWriter=file.LanceFileWriter,
    )


@pytest.fixture(params=["pilum", "reference"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Every test that takes it runs with both, so what it says is true of both."""
    return PILUM if request.param == "pilum" else reference()


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# --------------------------------------------------------------------------- writers


@pytest.mark.interop
def test_packed_blobs(engine: Any, tmp_path: Path) -> None:
    session = engine.LanceFileSession(str(tmp_path))
    writer = session.open_packed_blob_writer("data/x.lance", 5)
    assert writer.blob_id == 5
    assert writer.path == f"{tmp_path.as_posix()[1:]}/data/x/{FIVE}"
    with pytest.raises(ValueError, match="finish_array"):
        _ = writer.field
    for data in (b"hello", b"", bytearray(b"xyz"), memoryview(b"ab"), [1, 2], (3,), np.array([4, 5])):
        assert writer.write_blob(data) is None
    writer.write_blobs(pa.array([b"first", None, b""], pa.large_binary()))
    writer.write_blobs(pa.chunked_array([pa.array([b"ab", None], pa.binary()), pa.array([b"q"])]))
    writer.write_blobs(pa.array([b"abc", None, b"def"], pa.binary(3)).slice(1))
    writer.write_blobs(pa.array([b"12", b"a view that is long", None], pa.binary_view()))
    writer.write_blobs(pa.array([b"no", b"yes"]).slice(1))
    for kind in (pa.binary(), pa.binary_view(), pa.binary(2)):
        writer.write_blobs(pa.array([], kind))
    assert f"data/x/{FIVE}" not in files(tmp_path)
    column = writer.finish_array("picture")
    assert files(tmp_path) == {
        f"data/x/{FIVE}": b"helloxyzab\x01\x02\x03\x04\x05firstabqdef12a view that is longyes"
    }
    assert writer.field == pa.field("picture", column.type)
    assert writer.field.metadata == {b"ARROW:extension:name": b"lance.blob.v2"}
    sizes = [5, 0, 3, 2, 2, 1, 2, 5, None, 0, 2, None, 1, None, 3, 2, 19, None, 3]
    position, expected = 0, []
    for size in sizes:
        row = {"kind": 1, "data": None, "uri": None, "blob_id": 5, "blob_size": size, "position": position}
        expected.append(None if size is None else row)
        position += size or 0
    assert column.to_pylist() == expected
    column.validate(full=True)
    for call in (
        lambda: writer.write_blob(b"x"),
        lambda: writer.write_blobs(pa.array([b"x"])),
        lambda: writer.finish(),
        lambda: writer.finish_array("x"),
        lambda: writer.blob_id,
        lambda: writer.path,
    ):
        with pytest.raises(ValueError, match="PackedBlobWriter is already finished"):
            call()


@pytest.mark.interop
def test_dedicated_blobs(engine: Any, tmp_path: Path) -> None:
    session = engine.LanceFileSession(str(tmp_path))
    writer = session.open_dedicated_blob_writer("/a.b.lance/", 5)
    assert (writer.blob_id, writer.path) == (5, f"{tmp_path.as_posix()[1:]}/a.b/{FIVE}")
    for data in (b"abc", bytearray(b"def"), b"", [7]):
        assert writer.write(data) is None
    assert repr(writer.finish()) == "Dedicated { blob_id: 5, size: 7 }"
    assert files(tmp_path) == {f"a.b/{FIVE}": b"abcdef\x07"}
    for call in (lambda: writer.write(b"x"), lambda: writer.finish(), lambda: writer.path):
        with pytest.raises(ValueError, match="DedicatedBlobWriter is already finished"):
            call()
    # The same id again replaces the file, whatever wrote it.
    again = session.open_packed_blob_writer("a.b.lance", 5)
    assert again.finish() == []
    assert files(tmp_path) == {f"a.b/{FIVE}": b""}


@pytest.mark.interop
def test_descriptors_of_packed_blobs(engine: Any, tmp_path: Path) -> None:
    writer = engine.LanceFileSession(str(tmp_path)).open_packed_blob_writer("x.lance", 2**32 - 1)
    writer.write_blobs(pa.array([b"ab", None, b"c"]))
    found = writer.finish()
    number = 2**32 - 1
    assert [repr(one) for one in found] == [
        f"Packed {{ blob_id: {number}, offset: 0, size: 2 }}",
        "Null",
        f"Packed {{ blob_id: {number}, offset: 2, size: 1 }}",
    ]
    assert files(tmp_path) == {f"x/{'1' * 32}.blob": b"abc"}


@pytest.mark.interop
@pytest.mark.parametrize("kind", ["open_packed_blob_writer", "open_dedicated_blob_writer"])
def test_what_is_refused(engine: Any, kind: str, tmp_path: Path) -> None:
    session = engine.LanceFileSession(str(tmp_path))
    for path in ("x", "x.txt", "", "a/b"):
        with pytest.raises(ValueError, match=r"\.lance"):
            getattr(session, kind)(path, 1)
    with pytest.raises(ValueError, match="reserved"):
        getattr(session, kind)("x.lance", 0)
    for number in (-1, 2**32):
        with pytest.raises((ValueError, OverflowError)):
            getattr(session, kind)("x.lance", number)
    for wrong in (1.5, None, "1"):
        with pytest.raises(TypeError):
            getattr(session, kind)("x.lance", wrong)
    assert files(tmp_path) == {}
    writer = getattr(session, kind)("x.lance", 1)
    write = writer.write_blob if hasattr(writer, "write_blob") else writer.write
    for data in ("text", None, [1.5], 7):
        with pytest.raises(TypeError):
            write(data)
    with pytest.raises((ValueError, OverflowError)):
        write([300])
    if kind == "open_packed_blob_writer":
        for payloads in (pa.array(["text"]), pa.nulls(2), [b"x"], b"x", None):
            with pytest.raises(ValueError, match=r"(?i)binary"):
                writer.write_blobs(payloads)
        with pytest.raises(TypeError):
            writer.finish_array(None)
    write(b"still alive")
    writer.finish()
    assert [*files(tmp_path).values()] == [b"still alive"]


def test_a_data_file_without_a_name() -> None:
    with pytest.raises(InvalidInputError, match=r"\.lance"):
        pilum.LanceFileSession("memory://blobs-no-name").open_packed_blob_writer("data/.lance", 1)


KINDS = st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view()])
ROWS = st.lists(st.none() | st.binary(max_size=40), max_size=30)


@given(st.lists(st.tuples(KINDS, ROWS, st.integers(0, 5)), max_size=5), st.integers(1, 50))
def test_any_arrays(batches: list[tuple[Any, list[bytes | None], int]], gathered: int) -> None:
    store = MemoryStore("blobs-any")

    async def write() -> pa.Array:
        writer = await AsyncPackedBlobWriter.open(store, "x.lance", 1)
        for kind, rows, start in batches:
            await writer.write_blobs(pa.array(rows, kind).slice(start))
        return await writer.finish_array("x")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blob_writers, "_GATHERED", gathered)
        column = drive(write())
    data = bytes(drive(store.get_all(f"x/1{'0' * 31}.blob")))
    found = [
        None if row is None else data[row["position"] : row["position"] + row["blob_size"]]
        for row in column.to_pylist()
    ]
    expected = [row for _, rows, start in batches for row in rows[start:]]
    assert found == expected
    assert data == b"".join(row for row in expected if row)


class Recording(MemoryStore):
    """Keeps the buffers that were written, and fails at one of them or at the end."""

    def __init__(self, name: str, fails_at: int | None = None) -> None:
        super().__init__(name)
        self.written: list[Any] = []
        self.fails_at = fails_at

    async def create(self, path: str) -> Any:
        sink = await super().create(path)
        write, finish, store = sink.write, sink.finish, self

        async def recorded(buffers: Any) -> None:
            if len(store.written) == store.fails_at:
                raise StoreError("the disk is full")
            store.written += buffers
            await write(buffers)

        async def finished() -> None:
            if store.fails_at == -1:
                raise StoreError("the disk is full")
            await finish()

        sink.write, sink.finish = recorded, finished  # type: ignore[method-assign]
        return sink


def test_values_are_written_in_pieces_and_not_copied() -> None:
    store = Recording("blobs-pieces")
    values = pa.array([b"x" * (1 << 20)] * 20)

    async def write() -> None:
        writer = await AsyncPackedBlobWriter.open(store, "x.lance", 1)
        await writer.write_blobs(values)
        await writer.finish()

    drive(write())
    source = np.frombuffer(values.buffers()[2], np.uint8)
    assert [len(piece) >> 20 for piece in store.written] == [8, 8, 4]
    assert all(np.shares_memory(piece, source) for piece in store.written)


@pytest.mark.parametrize("at", [0, 1, -1])
@pytest.mark.parametrize("kind", [AsyncPackedBlobWriter, AsyncDedicatedBlobWriter])
def test_a_failure_leaves_nothing(kind: Any, at: int) -> None:
    store = Recording(f"blobs-failure-{at}-{kind.__name__}", at)

    async def write() -> None:
        writer = await kind.open(store, "x.lance", 1)
        put = writer.write_blob if kind is AsyncPackedBlobWriter else writer.write
        with pytest.raises(StoreError, match="disk is full"):  # noqa: PT012  # any of the three
            await put(b"one")
            await put(b"two")
            await writer.finish()
        with pytest.raises(InvalidInputError, match="already finished"):
            await writer.finish()

    drive(write())
    assert drive(store.list("")) == []


def test_a_writer_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    session = pilum.LanceFileSession(str(tmp_path))
    with session.open_packed_blob_writer("x.lance", 1) as packed:
        packed.write_blob(b"abc")
    with session.open_dedicated_blob_writer("x.lance", 2) as dedicated:
        dedicated.write(b"abc")
    session.open_packed_blob_writer("x.lance", 3).write_blob(b"abc")  # forgotten
    assert files(tmp_path) == {}
    with session.open_packed_blob_writer("x.lance", 4) as packed:
        packed.write_blob(b"abc")
        packed.finish()
    packed.abort()
    assert [*files(tmp_path).values()] == [b"abc"]


def test_asynchronously() -> None:
    async def main() -> None:
        session = pilum.aio.LanceFileSession("memory://blobs-aio")
        async with await session.open_packed_blob_writer("d/a.lance", 1) as packed:
            assert isinstance(packed, pilum.aio.PackedBlobWriter)
            await packed.write_blobs(pa.array([b"one", None]))
            column = await packed.finish_array("blob")
        async with await session.open_dedicated_blob_writer("d/a.lance", 2) as dedicated:
            assert isinstance(dedicated, pilum.aio.DedicatedBlobWriter)
            assert dedicated.path == f"d/a/01{'0' * 30}.blob"
            await dedicated.write(b"two")
            await dedicated.finish()
        schema = pa.schema([packed.field])
        async with await session.open_writer("d/a.lance", schema=schema) as writer:
            await writer.write_batch(pa.table([column], schema=schema))
        assert len(await session.list("d")) == 3
        table = await (await (await session.open_reader("d/a.lance")).read_all()).to_table()
        assert table["blob"].to_pylist()[1] is None

    asyncio.run(main())


# --------------------------------------------------------------------------- descriptors


def row(kind: int, **members: Any) -> dict[str, Any]:
    names = ("data", "uri", "blob_id", "blob_size", "position")
    return {"kind": kind, **{name: members.get(name) for name in names}}


@pytest.mark.interop
def test_building_descriptors(engine: Any, tmp_path: Path) -> None:
    session = engine.LanceFileSession(str(tmp_path))
    packed = session.open_packed_blob_writer("x.lance", 2)
    packed.write_blobs(pa.array([b"a", None]))
    first, null = packed.finish()
    dedicated = session.open_dedicated_blob_writer("x.lance", 3)
    dedicated.write(b"abc")
    builder = engine.blob.BlobDescriptorArrayBuilder("blob")
    builder.append(first)
    builder.append(dedicated.finish())
    builder.extend(one for one in [null, first])
    builder.append_inline(b"inline")
    builder.append_inline(bytearray())
    builder.append_null()
    builder.append_dedicated(4, 2**64 - 1)
    builder.append_managed("_blobs/x.blob", 3, 100)
    builder.append_managed("é b", 2**64 - 1, 0, base_id=2**32 - 1)
    for offsets, sizes in (
        ([0, 1], (4, 5)),
        (np.array([7]), np.array([8], np.uint32)),
        (pa.array([1, 2], pa.uint64()).slice(1), pa.chunked_array([[3]], pa.int16())),
        ([2**64 - 1], [0]),
        ([], []),
    ):
        builder.extend_packed(9, offsets, sizes)
    column = builder.finish()
    assert builder.field.name == "blob"
    assert builder.field.type == column.type
    assert builder.field.metadata == {b"ARROW:extension:name": b"lance.blob.v2"}
    assert column.to_pylist() == [
        row(1, blob_id=2, blob_size=1, position=0),
        row(2, blob_id=3, blob_size=3),
        None,
        row(1, blob_id=2, blob_size=1, position=0),
        row(0, data=b"inline"),
        row(0, data=b""),
        None,
        row(2, blob_id=4, blob_size=2**64 - 1),
        row(4, uri="_blobs/x.blob", blob_size=100, position=3),
        row(5, uri="é b", blob_id=2**32 - 1, blob_size=0, position=2**64 - 1),
        row(1, blob_id=9, blob_size=4, position=0),
        row(1, blob_id=9, blob_size=5, position=1),
        row(1, blob_id=9, blob_size=8, position=7),
        row(1, blob_id=9, blob_size=3, position=2),
        row(1, blob_id=9, blob_size=0, position=2**64 - 1),
    ]
    assert column.field("kind").null_count == 2
    column.validate(full=True)
    for call in (
        builder.finish,
        builder.append_null,
        lambda: builder.append(first),
        lambda: builder.append_inline(b"x"),
        lambda: builder.append_managed("a", 0, 1),
    ):
        with pytest.raises(ValueError, match="already finished"):
            call()
    empty = engine.blob.BlobDescriptorArrayBuilder("")
    assert empty.finish().type == column.type


@pytest.mark.interop
def test_descriptors_that_are_refused(engine: Any) -> None:
    builder = engine.blob.BlobDescriptorArrayBuilder("blob")
    wrong_types = [
        lambda: engine.blob.BlobDescriptorArrayBuilder(5),
        lambda: builder.append(None),
        lambda: builder.append(b"x"),
        lambda: builder.extend(None),
        lambda: builder.extend([5]),
        lambda: builder.append_inline("text"),
        lambda: builder.append_inline(None),
        lambda: builder.append_dedicated("1", 1),
        lambda: builder.append_managed(b"a", 0, 1),
        lambda: builder.append_managed("a", 0.5, 1),
        lambda: builder.append_managed("a", 0, 1, 3),
        lambda: builder.extend_packed(1, (one for one in [1]), [1]),
        lambda: builder.extend_packed(1, [None], [1]),
        lambda: builder.extend_packed(1, [0.5], [1]),
        lambda: builder.extend_packed(1, pa.array([None], pa.uint64()), [1]),
    ]
    for call in wrong_types:
        with pytest.raises(TypeError):
            call()
    wrong_values = [
        lambda: builder.append_dedicated(0, 1),
        lambda: builder.append_dedicated(1, -1),
        lambda: builder.append_dedicated(2**32, 1),
        lambda: builder.append_managed("a", -1, 1),
        lambda: builder.append_managed("a", 2**64 - 1, 1),
        lambda: builder.append_managed("a", 0, 1, base_id=2**32),
        lambda: builder.extend_packed(0, [0], [1]),
        lambda: builder.extend_packed(1, [0, 1], [1]),
        lambda: builder.extend_packed(1, [-1], [1]),
        lambda: builder.extend_packed(1, [2**64 - 1], [1]),
    ]
    for call in wrong_values:
        with pytest.raises((ValueError, OverflowError)):
            call()
    for path in (
        "",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a/../b",
        "..",
        ".",
        "s3://a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "\x7f",
    ):
        with pytest.raises(ValueError, match=r"."):
            builder.append_managed(path, 0, 1)
    good = ("a", "a?b", "a#b", "a%2fb", "c:/b", " ", "...", "a..", '~{|}[^]`"*', "a\x85b")
    for path in good:
        builder.append_managed(path, 0, 1)
    assert len(builder.finish()) == len(good)


def test_nothing_is_appended_when_one_descriptor_is_wrong() -> None:
    session = pilum.LanceFileSession("memory://blobs-extend")
    writer = session.open_packed_blob_writer("x.lance", 1)
    writer.write_blob(b"abc")
    builder = pilum.blob.BlobDescriptorArrayBuilder("blob")
    wrong: Any = [*writer.finish(), 5]
    with pytest.raises(TypeError, match="int"):
        builder.extend(wrong)
    assert len(builder.finish()) == 0


def test_what_descriptors_say_of_themselves() -> None:
    builder = pilum.blob.BlobDescriptorArrayBuilder("blob")
    builder.append_inline(b"abc")
    builder.append_managed("a/b", 1, 2)
    assert [repr(one) for one in builder._rows] == [
        "Inline { size: 3 }",
        "Managed { uri: 'a/b', offset: 1, size: 2, base_id: None }",
    ]


# --------------------------------------------------------------------------- columns of data files


def described(engine: Any) -> tuple[pa.Field, pa.Array]:
    """A column with blobs of every kind."""
    builder = engine.blob.BlobDescriptorArrayBuilder("blob")
    builder.append_inline(b"inl")
    builder.append_null()
    builder.append_dedicated(3, 7)
    builder.append_managed("_blobs/x.blob", 1, 2)
    builder.append_managed("_b/y", 1, 2, base_id=4)
    builder.extend_packed(2, [10], [1])
    builder.append_inline(b"")
    builder.append_inline(b"Z" * 100)
    return builder.field, builder.finish()


def columns(engine: Any) -> dict[str, tuple[pa.Field, pa.Array]]:
    field, array = described(engine)
    count = pa.array(range(8), pa.int32())
    members = [field, pa.field("i", pa.int32())]
    mask = pa.array([False, True] * 4)
    outside = pa.array(
        [{**row(3), "uri": "s3://a/b"}, row(3, uri="s3://c", blob_size=5, position=6)], array.type
    )
    sparse = pa.array([row(1), row(2, position=9), {**row(0), "kind": None}, row(0)], array.type)
    found = {
        "plain": (field, array),
        "slice": (field, array.slice(1, 5)),
        "nulls": (field, array.slice(1, 1)),
        "empty": (field, array.slice(0, 0)),
        "required": (field.with_nullable(False), array.slice(2)),
        "with metadata": (
            field.with_metadata({**field.metadata, "lance-encoding:compression": "zstd"}),
            array,
        ),
        "outside": (field, outside),
        "without members": (field, sparse),
        "members that do not count": (
            field,
            pa.array(
                [{**row(1, blob_id=1, blob_size=2, position=3), "data": b"abc", "uri": "u"}], array.type
            ),
        ),
        "in a struct": (None, pa.StructArray.from_arrays([array, count], fields=members)),
        "in a null struct": (None, pa.StructArray.from_arrays([array, count], fields=members, mask=mask)),
        "in a list": (
            None,
            pa.Array.from_buffers(
                pa.list_(field.with_name("item")),
                3,
                [None, pa.py_buffer(np.array([0, 1, 3, 8], np.int32))],
                children=[array],
            ),
        ),
    }
    return {name: (one or pa.field("x", two.type), two) for name, (one, two) in found.items()}


COLUMNS = [*columns(PILUM)]


def write(engine: Any, path: Path, field: pa.Field, array: pa.Array) -> bytes:
    schema = pa.schema([field, pa.field("after", pa.int64())])
    with engine.LanceFileWriter(str(path), schema=schema, version="2.2") as writer:
        numbers = pa.array(range(len(array)), pa.int64())
        writer.write_batch(pa.record_batch([array, numbers], schema=schema))
    return path.read_bytes()


@pytest.mark.interop
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_stored_as_the_reference_does(name: str, tmp_path: Path) -> None:
    ours = write(PILUM, tmp_path / "a.lance", *columns(PILUM)[name])
    theirs = write(reference(), tmp_path / "b.lance", *columns(reference())[name])
    assert len(ours) == len(theirs)
    tables = [pilum.LanceFileReader(tmp_path / f"{one}.lance").read_all().to_table() for one in "ab"]
    assert tables[0].schema.equals(tables[1].schema, check_metadata=True)
    assert tables[0].equals(tables[1])


def test_every_kind_as_descriptors(tmp_path: Path) -> None:
    data = write(PILUM, tmp_path / "a.lance", *described(PILUM))
    table = pilum.LanceFileReader(tmp_path / "a.lance").read_all().to_table()
    names = ("kind", "position", "size", "blob_id", "blob_uri")
    rows = [None if one is None else tuple(one[name] for name in names) for one in table["blob"].to_pylist()]
    assert rows == [
        (0, 0, 3, 0, ""),
        None,
        (2, 0, 7, 3, ""),
        (4, 1, 2, 0, "_blobs/x.blob"),
        (5, 1, 2, 4, "_b/y"),
        (1, 10, 1, 2, ""),
        (0, 64, 0, 0, ""),
        (0, 64, 100, 0, ""),
    ]
    assert data[:3] == b"inl"
    assert data[64:164] == b"Z" * 100


def test_inline_blobs_in_many_batches_and_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    schema = pa.schema([pilum.blob.BlobDescriptorArrayBuilder("blob").field])
    values = [None if i % 7 == 3 else bytes([i % 256]) * (i % 90) for i in range(3000)]
    with pilum.LanceFileWriter(path, schema=schema, max_page_bytes=4096) as writer:
        for start in range(0, 3000, 500):
            builder = pilum.blob.BlobDescriptorArrayBuilder("blob")
            for value in values[start : start + 500]:
                builder.append_null() if value is None else builder.append_inline(value)
            writer.write_batch(pa.record_batch([builder.finish()], schema=schema))
    data = path.read_bytes()
    reader = pilum.LanceFileReader(path)
    assert len(reader.metadata().columns[0].pages) > 10
    found = reader.read_all().to_table()["blob"].to_pylist()
    assert [one and data[one["position"] : one["position"] + one["size"]] for one in found] == values
    assert all(one is None or one["position"] % 64 == 0 for one in found)


@pytest.mark.interop
@pytest.mark.parametrize("writes", ["pilum", "reference"])
def test_fragments_of_blobs_are_read_by_the_reference(writes: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    engine = PILUM if writes == "pilum" else reference()
    table = pa.table({"i": pa.array([1], pa.int32()), "blob": lance.blob.blob_array([b"abc"])})
    schema = pa.schema([pa.field("i", pa.int32()), lance.blob.blob_field("blob")])
    lance.write_dataset(table.cast(schema), tmp_path, schema=schema, data_storage_version="2.2")
    session = engine.LanceFileSession(str(tmp_path))
    packed = session.open_packed_blob_writer("data/made.lance", 1)
    packed.write_blobs(pa.array([b"one", None, b"", b"three"]))
    dedicated = session.open_dedicated_blob_writer("data/made.lance", 2)
    dedicated.write(b"dedi")
    dedicated.write(b"cated")
    builder = engine.blob.BlobDescriptorArrayBuilder("blob")
    builder.extend(packed.finish())
    builder.append(dedicated.finish())
    builder.append_inline(b"inline")
    builder.append_inline(b"")
    file_schema = pa.schema([pa.field("i", pa.int32()), builder.field])
    with session.open_writer("data/made.lance", schema=file_schema, version="2.2") as writer:
        columns = [pa.array(range(7), pa.int32()), builder.finish()]
        writer.write_batch(pa.record_batch(columns, schema=file_schema))
    size = (tmp_path / "data/made.lance").stat().st_size
    file = pilum.DataFile("made.lance", [0, 1], [0, 1], 2, 2, size)
    fragment = pilum.FragmentMetadata(id=0, files=[file], physical_rows=7)
    pilum.LanceDataset.commit(tmp_path, pilum.LanceOperation.Append([fragment]), read_version=1)
    dataset = lance.dataset(tmp_path)
    expected = [b"abc", b"one", None, b"", b"three", b"dedicated", b"inline", b""]
    blobs = dataset.take_blobs("blob", indices=range(8))
    assert [None if blob is None else blob.read() for blob in blobs] == expected
    assert dataset.to_table(blob_handling="all_binary")["blob"].to_pylist() == expected


@pytest.mark.interop
def test_scans_of_a_dataset_return_descriptors(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    blobs = lance.blob.blob_array([b"abc", None, b"z" * 70_000, b"", b"q" * 5_000_000])
    numbers = pa.array(range(5), pa.int32())
    nested = pa.StructArray.from_arrays(
        [numbers, blobs], fields=[pa.field("n", pa.int32()), lance.blob.blob_field("b")]
    )
    schema = pa.schema([pa.field("s", nested.type), lance.blob.blob_field("blob"), pa.field("i", pa.int32())])
    lance.write_dataset(
        pa.table([nested, blobs, numbers], schema=schema), tmp_path, schema=schema, data_storage_version="2.2"
    )
    theirs, ours = lance.dataset(tmp_path), pilum.dataset(tmp_path)
    expected = theirs.to_table()
    assert ours.to_table().equals(expected)
    assert ours.to_table().schema.equals(expected.schema, check_metadata=True)
    assert ours.take([4, 1]).equals(theirs.take([4, 1]))
    for condition in ("blob IS NULL", "i > 2", "s.b IS NOT NULL"):
        assert ours.to_table(filter=condition).equals(theirs.to_table(filter=condition)), condition
    assert ours.to_table(columns=["i", "blob"], limit=2).equals(
        theirs.to_table(columns=["i", "blob"], limit=2)
    )
    with pytest.raises(UnsupportedError, match="reading blobs"):
        ours.to_table(blob_handling="all_binary")
    with pytest.raises(UnsupportedError, match="reading blobs"):
        ours.take_blobs("blob", indices=[0])
    with pytest.raises(InvalidInputError, match="their own file"):
        pilum.write_dataset(ours.to_table(columns=["blob"]), tmp_path / "copy")


@pytest.mark.interop
def test_rows_that_cannot_be_stored(engine: Any, tmp_path: Path) -> None:
    field, array = described(engine)
    wrong = [
        row(9),
        row(4, blob_size=1, position=1),
        row(4, uri="x", position=1),
        row(4, uri="x", blob_size=1),
        row(4, uri="x", blob_size=1, position=1, blob_id=1),
        row(5, uri="x", blob_size=1, position=1),
    ]
    for one in wrong:
        with pytest.raises(ValueError, match=r"(?i)managed blob|kind"):
            write(engine, tmp_path / "a.lance", field, pa.array([row(0, data=b"x"), one], array.type))
    stored = pa.struct(
        [("kind", pa.uint8()), ("position", pa.uint64()), ("size", pa.uint64()), ("blob_id", pa.uint32()),
         ("blob_uri", pa.string())]
    )  # fmt: skip
    for metadata in (field.metadata, {"lance-encoding:blob": "true", "lance-encoding:packed": "true"}):
        with pytest.raises(ValueError, match="descriptor"):
            write(
                engine, tmp_path / "a.lance", pa.field("blob", stored, metadata=metadata), pa.nulls(1, stored)
            )
    if engine is PILUM:  # the reference closes a file that failed
        assert files(tmp_path) == {}


def test_what_is_not_there_yet_says_so(tmp_path: Path) -> None:
    field, array = described(PILUM)
    for version in ("2.0", "2.1"):
        with pytest.raises(UnsupportedError, match=r"2\.2"):
            pilum.LanceFileWriter(tmp_path / "a.lance", schema=pa.schema([field]), version=version)
    values = pa.table({"x": pilum.blob.blob_array([b"bytes"])})
    with pytest.raises(UnsupportedError, match="not written as bytes"):
        pilum.LanceFileWriter(tmp_path / "a.lance", schema=values.schema)
    with pytest.raises(UnsupportedError, match="not written as bytes"):
        pilum.write_dataset(values, tmp_path / "dataset")
    for rows in (array, array.slice(0, 0)):
        with pytest.raises(UnsupportedError, match="commit it as a fragment"):
            pilum.write_dataset(pa.table([rows], schema=pa.schema([field])), tmp_path / "dataset")
    assert files(tmp_path) == {}
