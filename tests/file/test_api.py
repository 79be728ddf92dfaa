"""The public file API beside the reference's: the same calls, the same answers, errors of the same classes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum
import pilum.aio
from pilum.file.api import stable_version

TABLE = pa.table({"a": pa.array(range(5000)), "b": [None if i % 3 else f"b{i}" for i in range(5000)]})


def reference() -> Any:
    return pytest.importorskip("lance.file")


@pytest.fixture(params=["pilum", "reference"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Every test of this file runs with both, so what it says is true of both."""
    return pilum if request.param == "pilum" else reference()


def write(engine: Any, path: Path, table: pa.Table = TABLE, **options: Any) -> None:
    with engine.LanceFileWriter(str(path), **options) as writer:
        writer.write_batch(table)


@pytest.mark.interop
def test_reading(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    write(engine, path)
    reader = engine.LanceFileReader(str(path))
    assert reader.num_rows() == 5000
    assert reader.read_all().to_table().equals(TABLE)
    sizes = [batch.num_rows for batch in reader.read_all(batch_size=1500).to_batches()]
    assert sizes == [1500, 1500, 1500, 500]
    assert reader.read_range(10, 20).to_table().equals(TABLE.slice(10, 20))
    assert reader.read_range(7, 0).to_table().num_rows == 0
    assert reader.take_rows([1, 2, 4999]).to_table().equals(TABLE.take([1, 2, 4999]))
    assert reader.take_rows([3, 4]).to_table().equals(TABLE.slice(3, 2))
    assert reader.take_rows([]).to_table().schema == TABLE.schema
    only = engine.LanceFileReader(str(path), columns=["b"])
    assert only.read_all().to_table().equals(TABLE.select(["b"]))


@pytest.mark.interop
def test_reading_errors(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    write(engine, path)
    reader = engine.LanceFileReader(str(path))
    for wrong in ([2, 1], [1, 1], [5000]):
        with pytest.raises(ValueError, match=r"."):
            reader.take_rows(wrong).to_table()
    with pytest.raises(ValueError, match=r"."):
        reader.read_range(4999, 2).to_table()
    with pytest.raises(ValueError, match="buffer"):
        reader.read_global_buffer(7)
    with pytest.raises(OSError, match="zz"):
        engine.LanceFileReader(str(path), columns=["zz"])
    with pytest.raises(ValueError, match=r"."):
        engine.LanceFileReader(str(tmp_path / "nope.lance"))
    (tmp_path / "junk").write_bytes(b"junk" * 50)
    with pytest.raises(OSError, match=r"."):
        engine.LanceFileReader(str(tmp_path / "junk"))


@pytest.mark.interop
def test_writing(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    writer = engine.LanceFileWriter(str(path))
    writer.write_batch(TABLE.slice(0, 10))
    assert writer.add_global_buffer(b"first") == 1
    writer.write_batch(TABLE.slice(10, 10).to_batches()[0])
    assert writer.add_global_buffer(b"second") == 2
    writer.add_schema_metadata("k", "v")
    assert writer.close() == 20
    assert writer.close() is None
    reader = engine.LanceFileReader(str(path))
    assert [reader.read_global_buffer(index) for index in (1, 2)] == [b"first", b"second"]
    found = reader.read_all().to_table()
    assert found.schema.metadata == {b"k": b"v"}
    assert found.replace_schema_metadata().equals(TABLE.slice(0, 20))


@pytest.mark.interop
def test_a_file_without_rows(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    with engine.LanceFileWriter(str(path), TABLE.schema):
        pass
    reader = engine.LanceFileReader(str(path))
    assert reader.num_rows() == 0
    assert reader.read_all().to_table().schema == TABLE.schema


@pytest.mark.interop
def test_writing_errors(engine: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "a.lance")
    with pytest.raises(ValueError, match=r"."):
        engine.LanceFileWriter(path).close()
    with pytest.raises(ValueError, match="9"):
        engine.LanceFileWriter(path, TABLE.schema, version="9.9")
    for version in ("0.1", "legacy"):
        with pytest.raises(NotImplementedError):
            engine.LanceFileWriter(path, TABLE.schema, version=version)
    writer = engine.LanceFileWriter(path)
    writer.write_batch(TABLE)
    with pytest.raises(ValueError, match="a"):
        writer.write_batch(pa.table({"zz": [1]}))


@pytest.mark.interop
@pytest.mark.parametrize("version", ["2.1", "2.2", "stable"])
def test_versions(engine: Any, version: str, tmp_path: Path) -> None:
    write(engine, tmp_path / "a.lance", version=version)
    metadata = engine.LanceFileReader(str(tmp_path / "a.lance")).metadata()
    assert metadata.major_version == 2
    assert metadata.minor_version == (1 if version == "2.1" else 2)


@pytest.mark.interop
def test_metadata_is_that_of_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    write(reference(), path)
    ours = pilum.LanceFileReader(str(path)).metadata()
    theirs = reference().LanceFileReader(str(path)).metadata()
    assert ours.schema == theirs.schema
    for name in (
        "num_rows", "num_data_bytes", "num_column_metadata_bytes", "num_global_buffer_bytes", "major_version", "minor_version",
    ):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    shape = [(b.position, b.size) for b in theirs.global_buffers]
    assert [(b.position, b.size) for b in ours.global_buffers] == shape
    for left, right in zip(ours.columns, theirs.columns, strict=True):
        assert left.column_buffers == []
        for page, other in zip(left.pages, right.pages, strict=True):
            assert [(b.position, b.size) for b in page.buffers] == [
                (b.position, b.size) for b in other.buffers
            ]
            assert "mini_block_layout" in page.encoding
    ours_statistics = pilum.LanceFileReader(str(path)).file_statistics()
    theirs_statistics = reference().LanceFileReader(str(path)).file_statistics()
    assert [(c.num_pages, c.size_bytes) for c in ours_statistics.columns] == [
        (c.num_pages, c.size_bytes) for c in theirs_statistics.columns
    ]


@pytest.mark.interop
def test_sessions(engine: Any, tmp_path: Path) -> None:
    session = engine.LanceFileSession(str(tmp_path / "base"))
    with session.open_writer("sub/a.lance") as writer:
        writer.write_batch(TABLE)
    with session.open_writer("b.lance", schema=TABLE.schema, version="2.1") as writer:
        writer.write_batch(TABLE)
    assert session.contains("b.lance")
    assert not session.contains("c.lance")
    assert sorted(session.list()) == ["b.lance", "sub/a.lance"]
    assert session.list("sub") == ["sub/a.lance"]
    listed = session.list_with_delimiter()
    assert (listed.common_prefixes, listed.objects) == (["sub"], ["b.lance"])
    assert session.open_reader("sub/a.lance", columns=["a"]).read_all().to_table().equals(TABLE.select(["a"]))
    size = (tmp_path / "base" / "b.lance").stat().st_size
    assert session.read_range("b.lance", size - 4, 4) == b"LANC"
    session.download_file("b.lance", tmp_path / "copy")
    session.upload_file(tmp_path / "copy", "d/e.lance")
    assert (tmp_path / "base" / "d" / "e.lance").read_bytes() == (tmp_path / "copy").read_bytes()
    session.delete_file("b.lance")
    assert not session.contains("b.lance")
    with pytest.raises(OSError, match=r"."):
        session.delete_file("b.lance")


def test_what_the_reference_does_worse(tmp_path: Path) -> None:
    """Calls that end in a panic there."""
    writer = pilum.LanceFileWriter(str(tmp_path / "a.lance"))
    writer.write_batch(TABLE)
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write_batch(TABLE)
    with pytest.raises(ValueError, match="closed"):
        writer.add_global_buffer(b"x")
    with pytest.raises(NotImplementedError, match=r"2\.3"):
        pilum.LanceFileWriter(str(tmp_path / "b.lance"), TABLE.schema, version="next")
    with pytest.raises(ValueError, match="name a file"):
        pilum.LanceFileReader(str(tmp_path) + "/")
    assert stable_version() == "2.2"


def test_a_block_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> None:
        with pilum.LanceFileWriter(str(tmp_path / "a.lance")) as writer:
            writer.write_batch(TABLE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert list(tmp_path.iterdir()) == []


def test_columns_are_matched_by_name(tmp_path: Path) -> None:
    with pilum.LanceFileWriter(str(tmp_path / "a.lance"), TABLE.schema) as writer:
        writer.add_global_buffer(b"early")
        writer.write_batch(TABLE.select(["b", "a"]))
    assert pilum.LanceFileReader(str(tmp_path / "a.lance")).read_all().to_table().equals(TABLE)


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
def test_extension_types_come_back(version: str, tmp_path: Path) -> None:
    table = pa.table({"u": pa.array([b"0" * 16, b"1" * 16], pa.uuid())})
    with pilum.LanceFileWriter(str(tmp_path / "a.lance"), version=version) as writer:
        writer.write_batch(table)
    reader = pilum.LanceFileReader(str(tmp_path / "a.lance"))
    assert reader.schema.field("u").type == pa.uuid()
    assert reader.read_all().to_table().equals(table)
    assert reader.metadata().minor_version == int(version[-1])


def test_small_caches_make_many_pages(tmp_path: Path) -> None:
    for options in ({"data_cache_bytes": 8000}, {"max_page_bytes": 4000}):
        with pilum.LanceFileWriter(str(tmp_path / "a.lance"), TABLE.schema, **options) as writer:
            writer.write_batch(TABLE)
        reader = pilum.LanceFileReader(str(tmp_path / "a.lance"))
        assert reader.file_statistics().columns[0].num_pages == 10
        assert reader.read_all().to_table().equals(TABLE)


def test_asynchronous() -> None:
    async def main() -> None:
        async with await pilum.aio.LanceFileWriter.open("memory://file-api/a.lance") as writer:
            await writer.write_batch(TABLE)
        session = pilum.aio.LanceFileSession("memory://file-api")
        reader = await session.open_reader("a.lance")
        assert (await (await reader.read_all()).to_table()).equals(TABLE)
        results = await reader.read_range(0, 2000, batch_size=500)
        assert [batch.num_rows async for batch in results.to_batches()] == [500] * 4
        assert (await reader.metadata()).num_rows == 5000
        assert await session.list() == ["a.lance"]

    asyncio.run(main())
