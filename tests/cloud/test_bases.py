"""Tables with files in several places, each with storage options of its own."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.errors import StoreError
from pilum.io.base_options import BaseOptions, unscoped
from tests.cloud.server import BUCKET, Server, spoiled

pytestmark = pytest.mark.interop


def table(count: int, seed: int = 0) -> pa.Table:
    return pa.table({"id": np.arange(count) + 1000 * seed})


@pytest.fixture(scope="module")
def other() -> Iterator[Server]:
    """A store that wants another key."""

    async def refuse(request: Any, handler: Any) -> Any:
        from aiohttp import web

        if "Credential=other/" not in request.headers.get("Authorization", ""):
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        return await handler(request)

    with spoiled(refuse) as server:
        server.options["aws_access_key_id"] = "other"
        yield server


@pytest.fixture
def parts(server: Server, other: Server, uri: str) -> tuple[str, str]:
    """Address of a table of the reference with half of its rows in another store, and of that place."""
    lance = pytest.importorskip("lance")
    place = f"s3://{BUCKET}/place {uri.rpartition(' ')[2]}"
    base = lance.DatasetBasePath(place, name="place", is_dataset_root=True)
    lance.write_dataset(
        table(5), uri, storage_options=server.options, initial_bases=[base], target_bases=["place"],
        base_store_params={place: other.options},
    )  # fmt: skip
    lance.write_dataset(table(5, 1), uri, mode="append", storage_options=server.options)
    return uri, place


def ids(*args: Any, **options: Any) -> list[int]:
    found: list[int] = pilum.dataset(*args, **options).to_table()["id"].to_pylist()
    return found


EXPECTED = [*range(5), *range(1000, 1005)]


def test_options_by_address(parts: tuple[str, str], server: Server, other: Server) -> None:
    uri, place = parts
    params = {place: other.options}
    assert ids(uri, storage_options=server.options, base_store_params=params) == EXPECTED
    ds = pilum.dataset(uri, storage_options=server.options, base_store_params=params)
    assert pickle.loads(pickle.dumps(ds)).to_table()["id"].to_pylist() == EXPECTED
    ds.delete("id = 3")
    assert ds.to_table().num_rows == 9
    operation = pilum.LanceOperation.Append(
        pilum.write_fragments(table(2, 2), uri, storage_options=server.options)
    )
    new = pilum.LanceDataset.commit(
        uri, operation, read_version=ds.version, storage_options=server.options, base_store_params=params
    )
    assert new.to_table().num_rows == 11
    # Without them the file is looked for in the store of the table.
    with pytest.raises(FileNotFoundError, match="place"):
        ids(uri, storage_options=server.options)


def test_options_by_number(parts: tuple[str, str], server: Server, other: Server) -> None:
    uri, place = parts
    scoped = {f"base_1.{name}": value for name, value in other.options.items() if name in ("aws_endpoint",)}
    with pytest.raises(StoreError, match="denied"):
        ids(uri, storage_options={**server.options, **scoped})
    scoped["base_1.AWS_ACCESS_KEY_ID"] = "other"
    options = {**server.options, **scoped, "base_2.aws_endpoint": "http://127.0.0.1:1"}
    assert ids(uri, storage_options=options) == EXPECTED
    ds = pickle.loads(pickle.dumps(pilum.dataset(uri, storage_options=options)))
    assert ds.to_table()["id"].to_pylist() == EXPECTED
    assert ids(uri, storage_options=lambda: options) == EXPECTED
    # What is said for the address counts, whatever is said for the number.
    wrong = {**options, "base_1.aws_endpoint": "http://127.0.0.1:1"}
    assert ids(uri, storage_options=wrong, base_store_params={place + "/": other.options}) == EXPECTED


def test_beside_a_cache_on_disk(
    parts: tuple[str, str], server: Server, other: Server, tmp_path: Path
) -> None:
    uri, place = parts
    options = {**server.options, "cache_dir": str(tmp_path)}
    for _ in range(2):
        ds = pilum.dataset(uri, storage_options=options, base_store_params={place: other.options})
        assert pickle.loads(pickle.dumps(ds)).to_table()["id"].to_pylist() == EXPECTED


def test_a_local_table_with_files_in_a_bucket(tmp_path: Path, other: Server) -> None:
    lance = pytest.importorskip("lance")
    place = f"s3://{BUCKET}/of a local table"
    base = lance.DatasetBasePath(place, name="place", is_dataset_root=True)
    lance.write_dataset(
        table(5), tmp_path / "t", initial_bases=[base], target_bases=["place"],
        base_store_params={place: other.options},
    )  # fmt: skip
    assert ids(tmp_path / "t", base_store_params={place: other.options}) == list(range(5))
    assert ids(tmp_path / "t", storage_options=other.options) == list(range(5))
    ds = pilum.dataset(tmp_path / "t", storage_options=other.options)
    assert ds.take([3, 1])["id"].to_pylist() == [3, 1]
    assert ds.delete("id = 2")["num_deleted_rows"] == 1
    ds.insert(table(2, 1))
    assert ds.to_table(filter="id > 2")["id"].to_pylist() == [3, 4, 1000, 1001]


def test_which_options_a_base_has() -> None:
    options = {"key": "shared", "region": "r", "base_1.Key": "one", "base_2.key": "two", "BASE_1.extra": "x"}
    assert unscoped(options) == {"key": "shared", "region": "r"}
    found = BaseOptions(options, {"s3://c/": {"key": "c"}})
    found.note([("s3://a", 1), ("s3://b/", 3), ("s3://c", 2)])
    assert found.own("s3://a/") == {"key": "one", "region": "r", "extra": "x"}
    assert found.own("s3://b") is None
    assert found.own("s3://c") == {"key": "c"}
    assert found.own("s3://d") is None


@pytest.mark.parametrize("home", ["local", "bucket"])
@pytest.mark.parametrize("given", ["address", "handle"])
def test_writing_into_several_stores(
    tmp_path: Path, server: Server, other: Server, uri: str, home: str, given: str
) -> None:
    """A table here with files in two buckets that want different keys, and on a local disk."""
    name = uri.rpartition(" ")[2]
    address = str(tmp_path / "t") if home == "local" else uri
    bases = [
        pilum.DatasetBasePath(f"s3://{BUCKET}/written {name}", "theirs", is_dataset_root=True),
        pilum.DatasetBasePath(f"s3://{BUCKET}/also {name}", "ours"),
        pilum.DatasetBasePath(str(tmp_path / "disk"), "disk"),
    ]
    known: dict[str, Any] = {
        "storage_options": server.options,
        "base_store_params": {bases[0].path: other.options},
    }
    ds = pilum.write_dataset(
        table(10), address, initial_bases=bases, target_all_bases=True, max_rows_per_file=2, **known
    )
    assert [one.data_files()[0].base_id for one in ds.get_fragments()] == [None, 1, 2, 3, None]
    assert ds.to_table()["id"].to_pylist() == list(range(10))
    assert (tmp_path / "t" / "data").exists() == (home == "local")
    into = address if given == "address" else pilum.dataset(address, **known)
    options = known if given == "address" else {}
    ds = pilum.write_dataset(table(3, 1), into, mode="append", target_bases=["theirs"], **options)
    ds = pilum.write_dataset(table(3, 2), into, mode="append", **options)
    made = pilum.write_fragments(
        table(3, 3), into, target_bases=["ours", "disk"], max_rows_per_file=2, **options
    )
    assert isinstance(made, list)
    assert [one.files[0].base_id for one in made] == [2, 3]
    append = pilum.LanceOperation.Append(made)
    ds = pilum.LanceDataset.commit(into, append, read_version=ds.version, **options)
    expected = [*range(10), *range(1000, 1003), *range(2000, 2003), *range(3000, 3003)]
    assert ids(address, **known) == expected
    ds.validate()
    lance = pytest.importorskip("lance")
    theirs = lance.dataset(address, **known)
    assert theirs.to_table()["id"].to_pylist() == expected
    lance.write_dataset(
        table(2, 4), address, mode="append", target_bases=["theirs", "ours"], max_rows_per_file=1, **known
    )
    assert ids(address, **known)[-2:] == [4000, 4001]


def test_a_base_in_a_bucket_is_added_to_a_local_table(tmp_path: Path, server: Server, other: Server) -> None:
    ds = pilum.write_dataset(table(3), tmp_path / "t")
    place = f"s3://{BUCKET}/added later"
    ds.add_bases([pilum.DatasetBasePath(place, "later")])
    ds.insert(table(2, 1), target_bases=["later"], base_store_params={place + "/": other.options})
    assert ds.to_table()["id"].to_pylist() == [0, 1, 2, 1000, 1001]
    # Options that came with a write are the handle's from then on.
    ds.insert(table(1, 2), target_bases=["later"])
    assert pickle.loads(pickle.dumps(ds)).count_rows("id >= 1000") == 3
    # Whoever writes to the local folder alone needs no keys.
    assert pilum.write_dataset(table(1, 3), tmp_path / "t", mode="append").version == 5
    assert ids(tmp_path / "t", storage_options=other.options)[-1] == 3000


def test_an_upload_to_a_base_that_fails(tmp_path: Path, server: Server) -> None:
    """The version is not published before the files in the bucket are whole; what was written is removed."""
    failing = [False]

    async def refuse(request: Any, handler: Any) -> Any:
        from aiohttp import web

        if failing[0] and request.method in ("PUT", "POST"):
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        return await handler(request)

    with spoiled(refuse) as bucket:
        place = f"s3://{BUCKET}/failing"
        ds = pilum.write_dataset(
            table(4), tmp_path / "t", storage_options=bucket.options, target_bases=["f", str(tmp_path / "t")],
            initial_bases=[pilum.DatasetBasePath(place, "f")], max_rows_per_file=1,
        )  # fmt: skip
        before = sorted((tmp_path / "t").rglob("*"))
        failing[0] = True
        with pytest.raises(StoreError, match="denied"):
            ds.insert(table(4, 1), target_all_bases=True, max_rows_per_file=1)
        failing[0] = False
        assert sorted((tmp_path / "t").rglob("*")) == before
        assert ids(tmp_path / "t", storage_options=bucket.options) == [0, 1, 2, 3]
        ds.insert(table(1, 2), target_bases=["f"])
        assert ids(tmp_path / "t", storage_options=bucket.options)[-1] == 2000
