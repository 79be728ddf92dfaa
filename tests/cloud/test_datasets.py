"""Datasets on an object store: both engines read what either writes, in few requests and round trips."""

from __future__ import annotations

import asyncio
import pickle
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pilum
import pilum.aio
from pilum.errors import AlreadyExistsError
from pilum.io import Store, run, store_for
from tests.cloud.server import BUCKET, Server

lance = pytest.importorskip("lance")
pytestmark = pytest.mark.interop

DIMENSION = 16


def rows(count: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    values = pa.array(rng.standard_normal(count * DIMENSION).astype(np.float32))
    return pa.table(
        {
            "id": np.arange(count) + 1000 * seed,
            "text": [f"row {i} of {seed}" for i in range(count)],
            "vec": pa.FixedSizeListArray.from_arrays(values, DIMENSION),
        }
    )


def in_small_files(server: Server, uri: str, fragments: int = 30, each: int = 20) -> pa.Table:
    table = rows(fragments * each)
    lance.write_dataset(table, uri, max_rows_per_file=each, storage_options=server.options)
    return table


def test_both_engines_read_what_either_writes(server: Server, uri: str) -> None:
    options = server.options
    pilum.write_dataset(rows(100), uri, storage_options=options, max_rows_per_file=30)
    lance.write_dataset(rows(50, 1), uri, mode="append", storage_options=options)
    ds = pilum.write_dataset(rows(20, 2), uri, mode="append", storage_options=options)
    ds.delete("id >= 1000 and id < 1010")
    expected = pa.concat_tables([rows(100), rows(50, 1).slice(10), rows(20, 2)])
    for engine in (pilum, lance):
        opened = engine.dataset(uri, storage_options=options)
        assert opened.version == 4
        assert opened.to_table().equals(expected)
        assert opened.take([0, 99, 100, 159])["id"].to_pylist() == [0, 99, 1010, 2019]
        assert opened.to_table(filter="id = 2003")["text"].to_pylist() == ["row 3 of 2"]
        assert len(opened.versions()) == 4
        assert engine.dataset(uri, version=1, storage_options=options).count_rows() == 100


def test_the_asynchronous_api(server: Server, uri: str) -> None:
    async def main() -> None:
        await pilum.aio.write_dataset(rows(100), uri, storage_options=server.options)
        ds = await pilum.aio.dataset(uri, storage_options=server.options)
        assert (await ds.to_table()).equals(rows(100))
        assert await ds.count_rows() == 100

    asyncio.run(main())


def test_tags_branches_cleanup_and_drop(server: Server, uri: str) -> None:
    options = server.options
    ds = pilum.write_dataset(rows(10), uri, storage_options=options)
    ds.insert(rows(10, 1))
    ds.tags.create("first", 1)
    assert pilum.dataset(uri, version="first", storage_options=options).count_rows() == 10
    branch = ds.create_branch("side")
    branch.insert(rows(5, 2))
    assert branch.count_rows() == 25
    assert lance.dataset(uri, storage_options=options).checkout_version(("side", None)).count_rows() == 25
    # A branch that is opened by its own address finds the main one with the same options.
    again = pilum.dataset(f"{uri}/tree/side", storage_options=options)
    assert set(again.tags.list()) == {"first"}
    ds.delete("id < 5")
    ds.tags.delete("first")
    ds.branches.delete("side")
    assert ds.cleanup_old_versions(timedelta(0)).old_versions == 2
    assert lance.dataset(uri, storage_options=options).count_rows() == 15
    pilum.LanceDataset.drop(uri, storage_options=options)
    with pytest.raises(ValueError, match="no dataset"):
        pilum.dataset(uri, storage_options=options)
    assert not [
        one for one in server_keys(server) if one.startswith(uri.removeprefix(f"s3://{BUCKET}/") + "/")
    ]


def server_keys(server: Server) -> list[str]:
    import obstore
    from obstore.store import S3Store

    store = S3Store(BUCKET, config={k: v for k, v in server.options.items() if k != "allow_http"},
                    client_options={"allow_http": True})  # fmt: skip
    return [meta["path"] for meta in obstore.list(store).collect()]


def test_files_alone(server: Server, uri: str, tmp_path: Path) -> None:
    options = server.options
    from pilum.file.synchronous import LanceFileReader, LanceFileSession, LanceFileWriter

    with LanceFileWriter(f"{uri}/a.lance", storage_options=options) as writer:
        writer.write_batch(rows(100))
    assert LanceFileReader(f"{uri}/a.lance", storage_options=options).read_all().to_table().equals(rows(100))
    session = LanceFileSession(uri, options)
    assert session.list() == ["a.lance"]
    (tmp_path / "local").write_bytes(b"hello")
    session.upload_file(str(tmp_path / "local"), "copy")
    session.download_file("copy", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"hello"
    session.delete_file("copy")
    assert not session.contains("copy")


def test_a_handle_is_pickled(server: Server, uri: str) -> None:
    ds = pilum.write_dataset(rows(10), uri, storage_options=server.options)
    assert pickle.loads(pickle.dumps(ds)).to_table().equals(rows(10))


def test_settings_from_the_environment(server: Server, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.options.items():
        monkeypatch.setenv("AWS_ALLOW_HTTP" if name == "allow_http" else name.upper(), value)
    pilum.write_dataset(rows(10), uri)
    assert pilum.dataset(uri).to_table().equals(rows(10))
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OBJECT_STORE_CLIENT_MAX_RETRIES", "0")
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1"):
        pilum.dataset(uri)


def test_tables_on_a_web_server(server: Server, uri: str, tmp_path: Path) -> None:
    ds = pilum.write_dataset(rows(10), tmp_path / "t")
    ds.insert(rows(10, 1))
    server.post(f"load?bucket={BUCKET}&prefix=web&path={tmp_path / 't'}")
    address, options = f"{server.url}/{BUCKET}/web", {"allow_http": "true"}
    assert pilum.dataset(address, storage_options=options).count_rows() == 20
    assert pilum.dataset(address, version=1, storage_options=options).to_table().equals(rows(10))
    with pytest.raises(ValueError, match="say which version"):
        pilum.dataset(f"{server.url}/{BUCKET}/nothing", storage_options=options)


# -- requests and rounds ---------------------------------------------------------------------------------
# Rounds are counted with a latency that is long beside what the machine does between two requests.


def test_opening_takes_two_rounds(server: Server, uri: str) -> None:
    in_small_files(server, uri)
    with server.conditions(latency_ms=50), server.counted() as found:
        ds = pilum.dataset(uri, storage_options=server.options)
    assert found["by_kind"] == {"get": 1, "list": 1}
    with server.counted() as found:
        ds.checkout_version(1)
    assert found["requests"] <= 1


def test_small_files_are_one_request_each_and_none_the_second_time(server: Server, uri: str) -> None:
    table = in_small_files(server, uri)
    ds = pilum.dataset(uri, storage_options=server.options)
    query = {"column": "vec", "q": table["vec"][77].as_py(), "k": 3}
    with server.conditions(latency_ms=100), server.counted() as found:
        assert ds.to_table(nearest=query, columns=["id"])["id"][0].as_py() == 77
    assert found["by_kind"] == {"get": 30}
    assert found["rounds"] <= 2
    with server.counted() as found:
        assert ds.to_table(filter="id = 5")["text"].to_pylist() == ["row 5 of 0"]
        assert ds.to_table().equals(table)
        assert ds.take([3, 500]).equals(table.take([3, 500]))
    assert found["requests"] == 0
    assert ds.session().files.nbytes > 0
    fresh = pilum.dataset(uri, storage_options=server.options)
    with server.counted() as found:
        assert fresh.to_table(columns=["id"], filter="text like 'row 1%'").num_rows == 111
    assert found["by_kind"] == {"get": 30}


def test_large_files_take_two_rounds(server: Server, uri: str) -> None:
    table = pa.table({"id": np.arange(120_000), "noise": np.random.default_rng(0).standard_normal(120_000)})
    table = table.append_column("more", table["noise"])
    pilum.write_dataset(table, uri, max_rows_per_file=60_000, storage_options=server.options)
    ds = pilum.dataset(uri, storage_options=server.options)
    with server.conditions(latency_ms=100), server.counted() as found:
        assert ds.to_table(columns=["id"])["id"].equals(table["id"])
    assert found["by_kind"] == {"get": 4}  # the tail of each file, then its pages with their metadata
    assert found["rounds"] == 2


def test_versions_take_three_rounds(server: Server, uri: str) -> None:
    ds = pilum.write_dataset(rows(2), uri, storage_options=server.options)
    for number in range(20):
        ds.insert(rows(2, number))
    with server.conditions(latency_ms=100), server.counted() as found:
        assert [one["version"] for one in ds.versions()] == list(range(1, 22))
    assert found["by_kind"] == {"get": 21, "list": 1}
    assert found["rounds"] <= 3


def test_an_append_takes_three_rounds(server: Server, uri: str) -> None:
    pilum.write_dataset(rows(10), uri, storage_options=server.options)
    with server.conditions(latency_ms=150), server.counted() as found:
        ds = pilum.write_dataset(rows(10, 1), uri, mode="append", storage_options=server.options)
    assert found["by_kind"] == {"get": 1, "list": 2, "put": 3}
    assert found["rounds"] <= 3
    with server.conditions(latency_ms=150), server.counted() as found:
        ds.insert(rows(10, 2))
    assert found["by_kind"] == {"list": 1, "put": 3}
    assert found["rounds"] <= 2
    assert lance.dataset(uri, storage_options=server.options).count_rows() == 30


@pytest.mark.parametrize("what", ["order", "type", "subset", "version"])
def test_an_append_that_guesses_wrong(server: Server, uri: str, what: str) -> None:
    table = rows(10)
    version = "2.1" if what == "version" else "2.2"
    pilum.write_dataset(table, uri, storage_options=server.options, data_storage_version=version)
    more = rows(10, 1)
    if what == "order":
        more = more.select(["vec", "id", "text"])
    elif what == "subset":
        more = more.select(["id", "text"])
    elif what == "type":
        more = more.append_column("surplus", more["id"])
        with pytest.raises(ValueError, match="no column 'surplus'"):
            pilum.write_dataset(more, uri, mode="append", storage_options=server.options)
    if what != "type":
        ds = pilum.write_dataset(more, uri, mode="append", storage_options=server.options)
        assert ds.to_table()["id"].to_pylist() == [*range(10), *range(1000, 1010)]
        assert lance.dataset(uri, storage_options=server.options).count_rows() == 20
    prefix = uri.removeprefix(f"s3://{BUCKET}/") + "/"
    files = [key for key in server_keys(server) if key.startswith(prefix + "data/")]
    assert len(files) == (1 if what == "type" else 2)


def test_creating_where_a_table_is(server: Server, uri: str) -> None:
    pilum.write_dataset(rows(10), uri, storage_options=server.options)
    with pytest.raises(OSError, match="already exists"):
        pilum.write_dataset(rows(10), uri, storage_options=server.options)
    assert pilum.dataset(uri, storage_options=server.options).version == 1


# -- stores that the caller made -------------------------------------------------------------------------


def test_stores_of_obstore(server: Server, uri: str) -> None:
    from obstore.store import MemoryStore, S3Store

    config = {k: v for k, v in server.options.items() if k != "allow_http"}
    prefix = uri.removeprefix(f"s3://{BUCKET}/")
    store = S3Store(BUCKET, prefix=prefix, config=config, client_options={"allow_http": True})
    ds = pilum.write_dataset(rows(10), store)
    ds.insert(rows(10, 1))
    assert pilum.dataset(store).uri == uri
    assert lance.dataset(uri, storage_options=server.options).count_rows() == 20
    assert pickle.loads(pickle.dumps(ds)).count_rows() == 20
    memory = MemoryStore()
    pilum.write_dataset(rows(10), memory).delete("id < 3")
    assert pilum.dataset(memory).count_rows() == 7


def test_folders_of_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    for filesystem, folder in (
        (fsspec.filesystem("memory"), "/a/table"),
        (fsspec.filesystem("file"), str(tmp_path / "t")),
    ):
        mapper = filesystem.get_mapper(folder)
        ds = pilum.write_dataset(rows(10), mapper)
        ds.insert(rows(10, 1))
        ds.delete("id < 3")
        opened = pilum.dataset(mapper)
        assert opened.count_rows() == 17
        assert len(opened.versions()) == 3
        with pytest.raises(OSError, match="already exists"):
            pilum.write_dataset(rows(1), mapper)
    assert lance.dataset(str(tmp_path / "t")).count_rows() == 17


def test_whose_object_it_is_where_others_may_have_asked_twice(
    server: Server, uri: str, tmp_path: Path
) -> None:
    """A store that the caller made may retry by itself: only ours knows that it asked once."""
    from obstore.store import MemoryStore

    fsspec = pytest.importorskip("fsspec")
    mapper = fsspec.filesystem("file").get_mapper(str(tmp_path / "t"))

    async def put_twice(store: Store) -> bool:
        await store.put("x", b"one", if_absent=True)
        with pytest.raises(AlreadyExistsError) as raised:
            await store.put("x", b"two", if_absent=True)
        return raised.value.certain

    found = [
        run(put_twice(store), suspends=store.suspends)
        for store in (
            store_for(uri, server.options), store_for(MemoryStore()), store_for(mapper),
            store_for(str(tmp_path / "u")), store_for("memory://asked-twice"),
        )
    ]  # fmt: skip
    assert found == [True, False, False, True, True]


def test_what_is_no_store() -> None:
    with pytest.raises(ValueError, match="not by dict"):
        pilum.dataset({})
