"""Commits whose owner is decided by DynamoDB: races, crashes between the steps, lost answers, both engines."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.errors import CorruptFileError, InvalidInputError, NotFoundError, StoreError
from pilum.io import Store, run, store_for
from tests.cloud.dynamodb import LOST, TABLE, DynamoDB, running
from tests.cloud.server import BUCKET, Server

pytest.importorskip("botocore")
pytestmark = pytest.mark.fault

_numbers = itertools.count()


@pytest.fixture(scope="session")
def _database() -> Iterator[DynamoDB]:
    with running() as database:
        yield database


@pytest.fixture
def database(_database: DynamoDB) -> Iterator[DynamoDB]:
    """The database with what earlier tests left, and without faults."""
    _database.log.clear()
    _database.credentials.clear()
    yield _database
    _database.spoil = lambda operation, answer: None


@pytest.fixture
def options(server: Server, database: DynamoDB) -> dict[str, str]:
    return {**server.options, "dynamodb_endpoint": database.url, "client_retry_timeout": "20s"}


@pytest.fixture
def base() -> str:
    """Key of a table that is not there yet."""
    return f"owned {next(_numbers)}/table"


@pytest.fixture
def uri(base: str) -> str:
    return f"s3+ddb://{BUCKET}/{base}?ddbTableName={TABLE}"


def table(count: int, seed: int = 0) -> pa.Table:
    return pa.table({"id": np.arange(count) + 1000 * seed})


def names(uri: str, options: dict[str, str], folder: str = "_versions") -> list[str]:
    return run(store_for(uri, options).list_names(folder), suspends=True)


def ids(uri: str, options: dict[str, str]) -> list[int]:
    found: list[int] = pilum.dataset(uri, storage_options=options).to_table()["id"].to_pylist()
    return found


def test_steps_of_a_commit(uri: str, base: str, options: dict[str, str], database: DynamoDB) -> None:
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    database.log.clear()
    ds.insert(table(5, 1))
    assert database.log == ["Query", "PutItem", "PutItem"]
    assert names(uri, options) == [f"{2**64 - 1 - version}.manifest" for version in (2, 1)]
    item = database.items[base, 2]
    assert item == {
        "base_uri": {"S": base},
        "version": {"N": "2"},
        "path": {"S": f"{base}/_versions/{2**64 - 3}.manifest"},
        "size": item["size"],
        "committer": {"S": "lancedb"},
    }
    path = f"_versions/{2**64 - 3}.manifest"
    assert run(store_for(uri, options).head(path), suspends=True).size == int(item["size"]["N"])
    database.log.clear()
    assert ids(uri, options) == [*range(5), *range(1000, 1005)]
    assert database.log == ["Query"]
    assert pilum.dataset(uri, version=1, storage_options=options).count_rows() == 5
    assert pilum.dataset(ds.uri, storage_options=options).version == 2
    assert ds.uri == uri
    assert pickle.loads(pickle.dumps(ds)).count_rows() == 10


def test_a_table_that_had_no_items(uri: str, base: str, options: dict[str, str], database: DynamoDB) -> None:
    plain = uri.replace("s3+ddb", "s3").partition("?")[0]
    pilum.write_dataset(table(5), plain, storage_options=options)
    pilum.write_dataset(table(5, 1), plain, mode="append", storage_options=options)
    ds = pilum.dataset(uri, storage_options=options)
    assert ds.version == 2
    ds.insert(table(5, 2))
    assert [version for one, version in database.items if one == base] == [3]
    assert pilum.dataset(plain, storage_options=options).version == 3


@pytest.mark.parametrize("who", ["reader", "writer", "versions", "old"])
def test_a_commit_that_was_begun_is_finished(
    uri: str,
    base: str,
    options: dict[str, str],
    database: DynamoDB,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
) -> None:
    """The writer dies when its item is written."""
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    late = pilum.dataset(uri, storage_options=options)
    _dies_before_the_manifest(monkeypatch, lambda: ds.insert(table(5, 1)))
    staged = database.path(base, 2)
    assert staged is not None
    assert ".manifest-" in staged
    assert len(names(uri, options)) == 2
    if who == "reader":
        assert ids(uri, options) == [*range(5), *range(1000, 1005)]
    elif who == "writer":
        late.insert(table(5, 2))
        assert late.version == 3
        assert len(ids(uri, options)) == 15
    elif who == "versions":
        assert [one["version"] for one in late.versions()] == [1, 2]
    else:
        assert pilum.dataset(uri, version=2, storage_options=options).count_rows() == 10
    assert database.path(base, 2) == f"{base}/_versions/{2**64 - 3}.manifest"
    assert not [name for name in names(uri, options) if not name.endswith(".manifest")]


def _dies_before_the_manifest(monkeypatch: pytest.MonkeyPatch, commit: Callable[[], Any]) -> None:
    from pilum.io.remote import RemoteStore

    put = RemoteStore.put

    async def dying(self: Any, path: str, data: Any, **how: Any) -> None:
        if path.endswith(".manifest"):
            raise KeyboardInterrupt
        await put(self, path, data, **how)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteStore, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            commit()


def test_many_finish_the_same_commit(
    uri: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    _dies_before_the_manifest(monkeypatch, lambda: ds.insert(table(5, 1)))
    found = _at_once(8, lambda _: len(ids(uri, options)))
    assert found == [10] * 8
    assert len(names(uri, options)) == 2


def _at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * count
    ready = threading.Barrier(count)

    def one(number: int) -> None:
        ready.wait()
        results[number] = work(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_writers_at_once(uri: str, base: str, options: dict[str, str], database: DynamoDB) -> None:
    pilum.write_dataset(table(1), uri, storage_options=options)

    def work(number: int) -> None:
        for k in range(3):
            rows = pa.table({"id": [1000 * (number + 1) + k]})
            pilum.write_dataset(rows, uri, mode="append", storage_options=options)

    _at_once(6, work)
    assert sorted(ids(uri, options)) == [0, *(1000 * (n + 1) + k for n in range(6) for k in range(3))]
    assert [version for one, version in sorted(database.items) if one == base] == list(range(1, 20))
    # Losers leave nothing behind.
    assert len(names(uri, options)) == 19


def test_a_race_has_one_winner(uri: str, options: dict[str, str], database: DynamoDB) -> None:
    """Both have put their manifests when the first is about to own the version."""
    from pilum.errors import CommitConflictError

    pilum.write_dataset(table(5), uri, storage_options=options)
    both = threading.Barrier(2)
    put = []

    def spoil(operation: str, answer: Any) -> None:
        if operation == "PutItem" and answer is None and len(put) < 2:
            put.append(operation)
            both.wait(20)

    database.spoil = spoil

    def overwrite(number: int) -> str:
        handle = pilum.dataset(uri, version=1, storage_options=options)
        try:
            handle.update({"id": "id + 1"}, conflict_retries=0)
        except CommitConflictError:
            return "lost"
        return "won"

    assert sorted(_at_once(2, overwrite)) == ["lost", "won"]
    assert sorted(ids(uri, options)) == [1, 2, 3, 4, 5]
    assert len(names(uri, options)) == 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_lost_answers(uri: str, options: dict[str, str], database: DynamoDB, moment: str) -> None:
    lost = []

    def spoil(operation: str, answer: Any) -> Any:
        if (answer is None) == (moment == "before") and operation not in lost:
            lost.append(operation)
            return LOST
        return None

    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    for k in range(1, 4):
        lost.clear()
        database.spoil = spoil
        ds.insert(table(5, k))
        assert set(lost) >= {"Query", "PutItem"}
    assert ds.version == 4
    assert len(ids(uri, options)) == 20


def test_the_answer_is_lost_and_a_reader_finishes(
    uri: str, options: dict[str, str], database: DynamoDB
) -> None:
    """When the writer asks again, the item already has the final name."""
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    done = []

    def spoil(operation: str, answer: Any) -> Any:
        if operation == "PutItem" and answer is not None and not done:
            done.append(True)
            assert len(ids(uri, options)) == 10
            return LOST
        return None

    database.spoil = spoil
    ds.insert(table(5, 1))
    assert done
    assert ds.version == 2
    assert len(ids(uri, options)) == 10
    assert len(names(uri, options)) == 2


def test_throttled_and_failing(uri: str, options: dict[str, str], database: DynamoDB) -> None:
    rng = np.random.default_rng(0)
    errors = [(400, "ProvisionedThroughputExceededException"), (500, "InternalServerError"), LOST]

    def spoil(operation: str, answer: Any) -> Any:
        return errors[int(rng.integers(3))] if rng.random() < 0.2 else None

    database.spoil = spoil
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    for k in range(1, 6):
        ds.insert(table(5, k))
    assert ds.version == 6
    assert len(ids(uri, options)) == 30


def test_a_database_that_never_answers(uri: str, options: dict[str, str], database: DynamoDB) -> None:
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    patient = {**options, "client_max_retries": "2"}
    ds = pilum.dataset(uri, storage_options=patient)
    database.spoil = lambda operation, answer: (
        (500, "InternalServerError") if operation == "PutItem" else None
    )
    with pytest.raises(StoreError, match=rf"DynamoDB table {TABLE}: put version 2 .*3 attempts"):
        ds.insert(table(5, 1))
    database.spoil = lambda operation, answer: (500, "InternalServerError")
    with pytest.raises(StoreError, match="newest version"):
        pilum.dataset(uri, storage_options=patient)
    database.spoil = lambda operation, answer: None
    assert len(ids(uri, options)) == 5


def test_nobody_knows_who_owns_the_version(uri: str, options: dict[str, str], database: DynamoDB) -> None:
    """The item was written, and from then on nothing is answered: nothing may be removed."""
    pilum.write_dataset(table(5), uri, storage_options=options)
    ds = pilum.dataset(uri, storage_options={**options, "client_max_retries": "1"})
    put = []

    def spoil(operation: str, answer: Any) -> Any:
        if operation == "PutItem" and answer is not None:
            put.append(operation)
        return LOST if put else None

    database.spoil = spoil
    with pytest.raises(StoreError, match="status of the commit of version 2 is unknown"):
        ds.insert(table(5, 1))
    database.spoil = lambda operation, answer: None
    assert len(ids(uri, options)) == 10


def test_a_manifest_that_is_lost_or_changed(
    uri: str, base: str, options: dict[str, str], database: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    _dies_before_the_manifest(monkeypatch, lambda: ds.insert(table(5, 1)))
    staged = database.path(base, 2)
    assert staged is not None
    staged = staged.removeprefix(f"{base}/")
    store = store_for(uri, options)
    size = run(store.head(staged), suspends=True).size
    run(store.put(staged, b"short"), suspends=True)
    with pytest.raises(CorruptFileError, match=rf"has 5 bytes; the item of version 2 says {size}"):
        pilum.dataset(uri, storage_options=options)
    run(store.delete(staged), suspends=True)
    with pytest.raises(CorruptFileError, match="manifest of version 2 is lost"):
        pilum.dataset(uri, storage_options=options)


def test_names_that_count_up(uri: str, base: str, options: dict[str, str], database: DynamoDB) -> None:
    ds = pilum.write_dataset(table(5), uri, storage_options=options, enable_v2_manifest_paths=False)
    ds.insert(table(5, 1))
    assert database.path(base, 2) == f"{base}/_versions/2.manifest"
    assert len(ids(uri, options)) == 10
    ds.migrate_manifest_paths_v2()
    assert len(ids(uri, options)) == 10
    pilum.dataset(uri, storage_options=options).insert(table(5, 2))
    assert len(ids(uri, options)) == 15


def test_dropped_and_made_again(uri: str, base: str, options: dict[str, str], database: DynamoDB) -> None:
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    for version in range(100, 160):  # more than one request removes
        database.items[base, 1 << 63 | version] = {
            **database.items[base, 1],
            "version": {"N": str(1 << 63 | version)},
        }
    ds.create_branch("side").insert(table(1))
    assert (f"{base}/tree/side", 2) in database.items
    pilum.LanceDataset.drop(uri, storage_options=options)
    assert not [key for key in database.items if key[0].startswith(base)]
    with pytest.raises((NotFoundError, ValueError)):
        pilum.dataset(uri, storage_options=options)
    assert pilum.write_dataset(table(3), uri, storage_options=options).version == 1
    assert len(ids(uri, options)) == 3


def test_branches_clones_tags_and_detached_versions(
    uri: str, options: dict[str, str], database: DynamoDB
) -> None:
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    side = ds.create_branch("side")
    side.insert(table(5, 1))
    deep = side.create_branch("deep")
    deep.insert(table(5, 2))
    ds.tags.create("first", 1)
    again = pilum.dataset(uri, storage_options=options).checkout_version(("deep", None))
    assert again.count_rows() == 15
    assert len(again.to_table()) == 15
    by_address = uri.replace("?", "/tree/side?")
    assert ids(by_address, options) == [*range(5), *range(1000, 1005)]
    again = pilum.dataset(by_address, storage_options=options).checkout_version(("deep", None))
    assert again.count_rows() == 15
    clone = uri.replace("/table", "/clone")
    ds.shallow_clone(clone, "first", storage_options=options)
    assert ids(clone, options) == list(range(5))
    operation = pilum.LanceOperation.Append(pilum.write_fragments(table(2, 9), uri, storage_options=options))
    detached = pilum.LanceDataset.commit(
        uri, operation, read_version=1, detached=True, storage_options=options
    )
    assert pilum.dataset(uri, version=detached.version, storage_options=options).count_rows() == 7
    assert pilum.dataset(uri, storage_options=options).version == 1


def test_beside_a_cache_on_disk(
    uri: str, base: str, options: dict[str, str], database: DynamoDB, tmp_path: Path
) -> None:
    options = {**options, "cache_dir": str(tmp_path)}
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    ds.create_branch("side").insert(table(5, 1))
    assert ds.uri == uri
    assert {(base, 1), (f"{base}/tree/side", 2)} <= set(database.items)
    assert ids(uri.replace("?", "/tree/side?"), options) == [*range(5), *range(1000, 1005)]


def test_addresses_without_a_table(options: dict[str, str], server: Server, database: DynamoDB) -> None:
    for address in (
        f"s3+ddb://{BUCKET}/x",
        f"s3+ddb://{BUCKET}/x?ddbTableName=",
        f"s3+ddb://{BUCKET}/x?other=1",
    ):
        with pytest.raises(InvalidInputError, match="ddbTableName=name"):
            pilum.dataset(address, storage_options=options)
    with pytest.raises(StoreError, match=r"DynamoDB table none: .*ResourceNotFoundException"):
        pilum.dataset(f"s3+ddb://{BUCKET}/x?ddbTableName=none", storage_options=options)
    with pytest.raises((NotFoundError, ValueError), match="no dataset"):
        pilum.dataset(f"s3+ddb://{BUCKET}/x?ddbTableName={TABLE}", storage_options=options)


def test_credentials_that_are_renewed(uri: str, options: dict[str, str], database: DynamoDB) -> None:
    keys = ["first"]

    def provider() -> dict[str, str]:
        return {**options, "aws_access_key_id": keys[-1], "expires_at_millis": str(1 << 50)}

    ds = pilum.write_dataset(table(5), uri, storage_options=provider)
    assert set(database.credentials) == {"first"}
    refused = []

    def spoil(operation: str, answer: Any) -> Any:
        if database.credentials[-1] == "first":
            refused.append(operation)
            keys.append("second")
            return 400, "ExpiredTokenException"
        return None

    database.spoil = spoil
    ds.insert(table(5, 1))
    assert refused
    assert database.credentials[-1] == "second"
    assert len(ids(uri, options)) == 10


# -- with the reference ----------------------------------------------------------------------------------


@pytest.mark.interop
def test_both_engines(uri: str, base: str, options: dict[str, str], database: DynamoDB) -> None:
    lance = pytest.importorskip("lance")
    lance.write_dataset(table(5), uri, storage_options=options)
    pilum.write_dataset(table(5, 1), uri, mode="append", storage_options=options)
    lance.write_dataset(table(5, 2), uri, mode="append", storage_options=options)
    ds = pilum.write_dataset(table(5, 3), uri, mode="append", storage_options=options)
    side = ds.create_branch("side")
    side.insert(table(5, 4))
    side.create_branch("deep").insert(table(5, 5))
    clone = uri.replace("/table", "/clone")
    ds.shallow_clone(clone, 4, storage_options=options)
    expected = [1000 * k + j for k in range(4) for j in range(5)]
    for engine in (pilum, lance):
        opened = engine.dataset(uri, storage_options=options)
        assert opened.version == 4
        assert opened.to_table()["id"].to_pylist() == expected
        assert [one["version"] for one in opened.versions()] == [1, 2, 3, 4]
        assert engine.dataset(uri, version=2, storage_options=options).count_rows() == 10
        assert len(opened.checkout_version(("side", None)).to_table()) == 25
        assert len(opened.checkout_version(("deep", None)).to_table()) == 30
        assert engine.dataset(clone, storage_options=options).to_table()["id"].to_pylist() == expected
    assert [version for one, version in sorted(database.items) if one == base] == [1, 2, 3, 4]
    # A detached version of the reference has an item, too, but is not the newest.
    append = lance.LanceOperation.Append([])
    lance.LanceDataset.commit(uri, append, read_version=4, detached=True, storage_options=options)
    assert pilum.dataset(uri, storage_options=options).version == 4


@pytest.mark.interop
def test_the_reference_finishes_what_was_begun_here(
    uri: str, base: str, options: dict[str, str], database: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    lance = pytest.importorskip("lance")
    ds = pilum.write_dataset(table(5), uri, storage_options=options)
    _dies_before_the_manifest(monkeypatch, lambda: ds.insert(table(5, 1)))
    assert lance.dataset(uri, storage_options=options).count_rows() == 10
    assert database.path(base, 2) == f"{base}/_versions/{2**64 - 3}.manifest"
    assert len(ids(uri, options)) == 10


@pytest.mark.interop
def test_what_the_reference_began_is_finished_here(
    uri: str, base: str, options: dict[str, str], database: DynamoDB
) -> None:
    """Its commit as it is after the second step: the manifest staged, the item with that name."""
    lance = pytest.importorskip("lance")
    lance.write_dataset(table(5), uri, storage_options=options)
    lance.write_dataset(table(5, 1), uri, mode="append", storage_options=options)
    store: Store = store_for(uri, options)
    final = f"_versions/{2**64 - 3}.manifest"
    data = run(store.get_all(final), suspends=True)
    staged = final + "-0b5f2c34-4c5d-4a3c-a1f5-3e5f0d6a7b8c"
    run(store.put(staged, data), suspends=True)
    run(store.delete(final), suspends=True)
    database.items[base, 2]["path"]["S"] = f"{base}/{staged}"
    assert len(ids(uri, options)) == 10
    assert lance.dataset(uri, storage_options=options).count_rows() == 10
    assert names(uri, options) == [final.removeprefix("_versions/"), f"{2**64 - 2}.manifest"]


@pytest.mark.interop
def test_a_table_that_the_reference_dropped(uri: str, options: dict[str, str], database: DynamoDB) -> None:
    """It leaves the items."""
    lance = pytest.importorskip("lance")
    lance.write_dataset(table(5), uri, storage_options=options)
    lance.LanceDataset.drop(uri, storage_options=options)
    with pytest.raises(ValueError, match=r"an item of .*drop it once more"):
        pilum.dataset(uri, storage_options=options)
    pilum.LanceDataset.drop(uri, storage_options=options, ignore_not_found=True)
    assert pilum.write_dataset(table(3), uri, storage_options=options).version == 1
    assert lance.dataset(uri, storage_options=options).count_rows() == 3


@pytest.mark.interop
@pytest.mark.slow
def test_both_engines_write_at_once(uri: str, options: dict[str, str]) -> None:
    lance = pytest.importorskip("lance")
    pilum.write_dataset(table(1), uri, storage_options=options)

    def work(number: int) -> None:
        engine = (pilum, lance)[number % 2]
        for k in range(4):
            rows = pa.table({"id": [1000 * (number + 1) + k]})
            engine.write_dataset(rows, uri, mode="append", storage_options=options)

    _at_once(4, work)
    assert sorted(ids(uri, options)) == [0, *(1000 * (n + 1) + k for n in range(4) for k in range(4))]
