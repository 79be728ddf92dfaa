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
