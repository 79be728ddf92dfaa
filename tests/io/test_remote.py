"""Options of object stores, retrying, limits, and a remote store over a client in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from pilum.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StoreError, UnsupportedError
from pilum.io import store_for, trace
from pilum.io.client import Entries, Entry, Opened
from pilum.io.limits import AdaptiveLimit
from pilum.io.remote import Bucket, RemoteStore
from pilum.io.retry import Failure, Health, Kind, RetryPolicy
from pilum.io.storage_options import client_settings, parse_seconds

# -- options ---------------------------------------------------------------------------------------------


def test_names_that_users_of_lance_know() -> None:
    found = client_settings(
        "s3",
        {
            "AWS_Access_Key_Id": "k",
            "secret_access_key": "s",
            "aws_endpoint": "http://h",
            "region": "r",
            "token": "t",
            "aws_virtual_hosted_style_request": False,
            "allow_http": "True",
            "timeout": "2m",
            "connect_timeout": "250ms",
            "client_max_retries": "4",
            "client_retry_timeout": 9,
            "headers.X-Mine": "yes",
            "unknown": "ignored",
            "google_service_account": "of another store",
        },
    )
    assert found.config == {
        "access_key_id": "k",
        "secret_access_key": "s",
        "endpoint": "http://h",
        "region": "r",
        "session_token": "t",
        "virtual_hosted_style_request": "false",
    }
    assert found.http["allow_http"] is True
    assert (found.http["timeout"], found.http["connect_timeout"]) == (120, 0.25)
    assert found.headers == {"x-mine": "yes"}
    assert (found.policy.max_retries, found.policy.deadline) == (4, 9)
    azure = client_settings(
        "azure", {"azure_storage_account_name": "a", "account_key": "k", "azure_storage_sas_token": "x"}
    )
    assert azure.config == {"account_name": "a", "account_key": "k", "sas_key": "x"}
    assert client_settings("google", {"google_storage_token": "t"}).config == {"bearer_token": "t"}


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("OBJECT_STORE_CLIENT_MAX_RETRIES", "2")
    found = client_settings("s3", {"client_max_retries": "9"})
    assert found.http["allow_http"] is True
    assert found.policy.max_retries == 2


@pytest.mark.parametrize(
    "options",
    [{"timeout": "soon"}, {"allow_http": "maybe"}, {"client_max_retries": "-1"}, {"hedge_after": ""}],
)
def test_values_that_cannot_be(options: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        client_settings("s3", options)


def test_times() -> None:
    assert parse_seconds("x", "1m 30s") == 90
    assert parse_seconds("x", 5) == 5
    assert parse_seconds("x", "1.5") == 1.5


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("gs://bucket", "gs://bucket"),
        ("az://container/a", "az://container/a"),
        (
            "abfss://container@account.dfs.core.windows.net/a",
            "abfss://container@account.dfs.core.windows.net/a",
        ),
        ("https://host/a", "https://host/a"),
    ],
)
def test_addresses(uri: str, shown: str) -> None:
    pytest.importorskip("obstore")
    options = {
        "aws_region": "r",
        "account_name": "n",
        "skip_signature": "true",
        "google_skip_signature": "true",
    }
    store = store_for(uri, options)
    assert store.suspends
    assert store.uri == shown
    assert store_for(uri, options)._scheduler is store._scheduler  # one bucket, one set of connections


# -- limits ----------------------------------------------------------------------------------------------


def test_a_limit_shrinks_when_many_are_refused_and_not_when_few_are() -> None:
    limit = AdaptiveLimit(start=64, least=4)
    for number in range(4000):
        limit.answered(8, throttled=number % 30 == 0)
    assert limit.value == 64
    for number in range(4000):
        limit.answered(8, throttled=number % 5 == 0)
    assert limit.value == 4


def test_a_limit_grows_while_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("pilum.io.limits.monotonic", lambda: now)
    limit = AdaptiveLimit(start=16, least=4, most=200)
    for _ in range(5000):
        now += 0.03 / min(limit.value, 80)  # a store that serves 80 at once
        limit.answered(limit.value, throttled=False)
    assert 60 <= limit.value <= 130


def test_a_limit_grows_in_spite_of_accidents_and_not_on_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("pilum.io.limits.monotonic", lambda: now)
    limit = AdaptiveLimit(start=16, least=4, most=200)
    for number in range(5000):
        now += 0.03 / min(limit.value, 80)
        limit.answered(limit.value, throttled=number % 20 == 0)
    assert 60 <= limit.value <= 130
    # This one serves 40 in the time and refuses the rest at once: more requests bring more refusals alone.
    limit = AdaptiveLimit(start=40, least=4, most=200)
    served = 0.0
    for _ in range(20000):
        now += 0.03 / limit.value
        served += min(1.0, 40 / limit.value)
        accepted = served >= 1.0
        served -= accepted
        limit.answered(limit.value, throttled=not accepted)
    assert limit.value <= 60


# -- pauses ----------------------------------------------------------------------------------------------


def test_pauses_are_short_where_failures_are_rare() -> None:
    health = Health()
    for number in range(1000):
        health.answered(failed=number % 14 == 0)
        assert health.well
    policy = RetryPolicy()
    assert all(policy.pause(1, well=True) <= 0.005 and policy.pause(3, well=True) <= 0.02 for _ in range(50))
    assert all(0.025 <= policy.pause(1) <= 0.05 for _ in range(50))
    # What fails again and again is no accident.
    assert all(policy.pause(attempt, well=True) >= 0.2 for attempt in range(4, 10))
    failures = 0
    while health.well:
        health.answered(failed=True)
        failures += 1
    assert failures <= 16
    for number in range(1000):
        health.answered(failed=number % 4 == 0)
    assert not health.well


def test_a_store_that_refuses_everybody_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many requests that are refused at once, few come back soon."""
    store, client = memory(first_pause=0.05, max_retries=2)
    client.objects["t/a"] = b"0123456789"
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> None:
        client.failures = [Kind.THROTTLED] * 1000
        sleeping = asyncio.sleep
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await asyncio.gather(*(store.get("a", 0, 2) for _ in range(100)), return_exceptions=True)
        monkeypatch.setattr(asyncio, "sleep", sleeping)

    asyncio.run(main())
    assert len(pauses) == 200
    assert 1 <= sum(seconds < 0.025 for seconds in pauses) <= 16


# -- a store over a client in memory ---------------------------------------------------------------------


class Memory:
    """A client that keeps objects in a dictionary and fails as told.

    Attributes:
        failures: what to raise before the next requests, by their kind; None lets one pass.
        lost: answers to puts that get lost, after the put.
        stuck: whether reads wait until this is False.
        flying, most: reads that have not ended, now and at most.
        stuck: whether `get` waits until this is False.
        flying, most: calls of `get` that have not ended, now and at most.
    """

    ordered = True
    repeats = False

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failures: list[Kind | None] = []
        self.lost = 0
        self.break_at: list[int] = []
        self.requests = 0
        self.renewed = 0
        self.honest = True
        self.stuck = False
        self.flying = self.most = 0

    def _begin(self) -> None:
        self.requests += 1
        kind = self.failures.pop(0) if self.failures else None
        if kind is not None:
            raise _Fails(kind)

    def _object(self, key: str) -> bytes:
        if key not in self.objects:
            raise _Fails(Kind.MISSING)
        return self.objects[key]

    async def get(self, key: str, start: int, end: int) -> Any:
        self._begin()
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(0)
            while self.stuck:  # noqa: ASYNC110 - the test switches it off
                await asyncio.sleep(0.001)
            return self._object(key)[start:end]
        finally:
            self.flying -= 1

    def begin(self, key: str, start: int, end: int) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self.get(key, start, end))

    async def get_all(self, key: str) -> Any:
        self._begin()
        return self._object(key)

    async def get_tail(self, key: str, nbytes: int) -> tuple[Any, int]:
        self._begin()
        data = self._object(key)
        return data[-nbytes:], len(data)

    async def open(self, key: str, start: int, end: int, etag: str | None) -> Opened:
        self._begin()
        data = self._object(key)

        async def chunks() -> AsyncIterator[Any]:
            stop = self.break_at.pop(0) if self.break_at else end
            for at in range(start, min(stop, end, len(data)), 100_000):
                yield data[at : min(at + 100_000, stop, end)]
            if stop < end:
                raise _Fails(Kind.BROKEN)

        return Opened(start, min(end, len(data)), len(data), str(hash(data)), chunks())

    async def head(self, key: str) -> Entry:
        self._begin()
        return Entry(key, len(self._object(key)), 1.0)

    async def list(self, prefix: str) -> Entries:
        self._begin()
        return [Entry(key, len(data), 1.0) for key, data in self.objects.items() if key.startswith(prefix)]

    async def list_folder(self, prefix: str) -> Entries:
        return [entry for entry in await self.list(prefix) if "/" not in entry.key[len(prefix) :]]

    async def first_page(self, prefix: str) -> Entries:
        return sorted(await self.list(prefix))[:1000]

    async def put(self, key: str, data: memoryview, *, if_absent: bool) -> None:
        self._begin()
        if if_absent and key in self.objects and self.honest:
            raise _Fails(Kind.EXISTS)
        self.objects[key] = bytes(data)
        if self.lost:
            self.lost -= 1
            raise _Fails(Kind.BROKEN)

    async def upload(self, key: str, parts: AsyncIterator[bytes], part_size: int, parallel: int) -> None:
        self.objects[key] = b"".join([part async for part in parts])

    async def delete(self, keys: Sequence[str]) -> None:
        self._begin()
        for key in keys:
            self.objects.pop(key, None)

    def explain(self, error: Exception) -> Failure:
        return Failure(error.kind if isinstance(error, _Fails) else Kind.FINAL, str(error))

    def renew(self) -> bool:
        self.renewed += 1
        return True


class _Fails(Exception):
    def __init__(self, kind: Kind) -> None:
        super().__init__(kind.value)
        self.kind = kind


def memory(parallelism: int | None = None, **policy: Any) -> tuple[RemoteStore, Memory]:
    client = Memory()
    quick = RetryPolicy(**{"first_pause": 0.001, "deadline": 5.0, **policy})
    return RemoteStore("mem://b/t", Bucket(client, quick, parallelism), "t", ()), client


def test_attempts_are_bounded_and_some_failures_are_final() -> None:
    store, client = memory(max_retries=3)
    client.objects["t/a"] = b"0123456789"

    async def main() -> None:
        client.failures = [Kind.THROTTLED, Kind.BROKEN, Kind.BROKEN]
        assert bytes(await store.get("a", 2, 4)) == b"23"
        assert store.bucket.retries == 3
        client.failures = [Kind.BROKEN] * 9
        client.requests = 0
        with pytest.raises(StoreError, match=r"mem://b/t/a: bytes 2\.\.4: broken \(4 attempts"):
            await store.get("a", 2, 4)
        assert client.requests == 4
        client.failures = [Kind.FINAL]
        with pytest.raises(StoreError, match=r"final$"):
            await store.get("a", 2, 4)
        client.failures = [Kind.DENIED]
        assert bytes(await store.get_all("a")) == b"0123456789"
        assert client.renewed == 1

    asyncio.run(main())


def test_a_long_body_is_resumed_and_its_progress_counts() -> None:
    store, client = memory(max_retries=1)
    data = bytes(range(256)) * 8000
    client.objects["t/a"] = data
    client.break_at = [
        300_000,
        500_000,
        900_000,
        1_200_000,
    ]  # more than one retry each, were there no progress

    async def main() -> None:
        assert bytes(await store.get("a", 7, len(data))) == data[7:]
        assert client.requests == 5
        with pytest.raises(StoreError, match=f"got {len(data)} of {1 << 40}"):
            await store.get("a", 0, 1 << 40)  # no memory is asked for what is not there

    asyncio.run(main())


def test_the_answer_to_a_conditional_put_is_lost() -> None:
    store, client = memory()

    async def main() -> None:
        client.lost = 1
        await store.put("a", b"mine", if_absent=True)
        before = client.requests
        with pytest.raises(AlreadyExistsError) as raised:
            await store.put("a", b"mine", if_absent=True)
        # Answered at the first attempt: somebody else's, and nothing needs to be read to know that.
        assert (raised.value.certain, client.requests) == (True, before + 1)
        client.failures = [Kind.BROKEN]
        with pytest.raises(AlreadyExistsError) as raised:
            await store.put("a", b"other", if_absent=True)
        assert raised.value.certain
        # Gone when it is looked at after an attempt that got no answer: it may have been ours.
        client.failures = [Kind.BROKEN, None, Kind.MISSING]
        with pytest.raises(AlreadyExistsError) as raised:
            await store.put("a", b"mine", if_absent=True)
        assert not raised.value.certain
        # A client that may ask twice on its own leaves it open.
        client.repeats = True
        with pytest.raises(AlreadyExistsError) as raised:
            await store.put("a", b"mine", if_absent=True)
        assert not raised.value.certain

    asyncio.run(main())


def test_the_self_test_runs_once() -> None:
    store, client = memory()

    async def main() -> None:
        await store.check_put_if_absent()
        await asyncio.sleep(0.01)
        assert client.requests == 3
        assert client.objects == {}
        await store.check_put_if_absent()
        assert client.requests == 3
        lying, client_of_it = memory()
        client_of_it.honest = False
        for _ in range(2):
            with pytest.raises(UnsupportedError, match="commit_lock"):
                await lying.check_put_if_absent()

    asyncio.run(main())


def test_paths_that_lead_out() -> None:
    store, _ = memory()
    with pytest.raises(InvalidInputError, match="leads out"):
        asyncio.run(store.get("data/../../x", 0, 1))


def test_retries_belong_to_the_request_that_needed_them() -> None:
    store, client = memory(max_retries=2, hedge_after=30.0)
    client.objects = {"t/a": b"0123456789", "t/long": bytes(2 << 20)}

    async def main() -> None:
        client.failures = [Kind.BROKEN, Kind.THROTTLED]
        with trace() as log:
            await store.get("a", 2, 4)
            await store.get("a", 4, 6)
            client.failures = [None, Kind.BROKEN]
            await store.put("b", b"x")
            await store.head("b")
            client.break_at = [1 << 20]
            await store.get("long", 0, 2 << 20)
            client.failures = [Kind.BROKEN] * 3
            with pytest.raises(StoreError):
                await store.get("a", 0, 1)
        assert [(one.kind, one.retries) for one in log.requests] == [
            ("get", 2), ("get", 0), ("put", 0), ("head", 1), ("get", 1),
        ]  # fmt: skip
        assert log.requests[-1].first_byte is not None
        assert log.requests[0].first_byte is None  # this client does not tell
        assert store.stats.retries == 4 + 3
        assert store.stats.snapshot().read_iops == 3

    asyncio.run(main())


# -- many small reads at once (`pilum.io.burst`) ---------------------------------------------------------


def burst(count: int, **policy: Any) -> tuple[RemoteStore, Memory, list[tuple[str, int, int]]]:
    store, client = memory(**policy)
    client.objects = {f"t/{number}": bytes([number] * 10) for number in range(count)}
    return store, client, [(str(number), 2, 5) for number in range(count)]


def idle(store: RemoteStore) -> bool:
    """Whether the store's slots and its share of the bytes in flight have all been given back."""
    queue = store.bucket.scheduler.queue()
    return (store.bucket.in_flight, queue.running, queue.share.in_flight) == (0, 0, 0)


def test_many_reads_come_in_order_and_failures_are_repeated() -> None:
    store, client, wanted = burst(40, parallelism=4, max_retries=2)

    async def main() -> None:
        client.failures = [None, Kind.THROTTLED, Kind.DENIED, None, Kind.BROKEN]
        found = await store.get_many([*wanted, ("7", 3, 3)])
        assert [bytes(one) for one in found] == [bytes([number] * 3) for number in range(40)] + [b""]
        assert (client.requests, client.renewed, store.bucket.retries) == (43, 1, 2)
        assert store.stats.snapshot()[:2] == (40, 120)
        assert store.stats.retries == 2
        assert idle(store)
        await store.get_many(wanted)
        assert client.most == 4
        client.failures = [Kind.BROKEN] * 99
        client.requests = 0
        with pytest.raises(StoreError, match=r"mem://b/t/\d: bytes 2\.\.5: broken \(3 attempts"):
            await store.get_many(wanted[:2])
        assert client.requests <= 6
        assert idle(store)

    asyncio.run(main())


def test_the_first_of_many_reads_that_fails_ends_the_others() -> None:
    store, client, wanted = burst(10, parallelism=3)
    del client.objects["t/1"]

    async def main() -> None:
        with pytest.raises(NotFoundError, match=r"mem://b/t/1: bytes 2\.\.5: there is no such object"):
            await store.get_many(wanted)
        assert client.requests < 10
        assert idle(store)
        assert client.flying == 0
        with pytest.raises(StoreError, match=r"mem://b/t/2: asked for bytes 2\.\.50, got 8 of 48 bytes"):
            await store.get_many([("2", 2, 50), ("3", 0, 1)])
        with pytest.raises(InvalidInputError, match="leads out"):
            await store.get_many([("../x", 0, 1), ("3", 0, 1)])
        assert idle(store)

    asyncio.run(main())


@pytest.mark.parametrize("when", ["begun", "queued", "pausing"])
def test_many_reads_are_cancelled(when: str) -> None:
    store, client, wanted = burst(10, parallelism=3, first_pause=30.0, deadline=100.0)

    async def main() -> None:
        client.stuck = True
        client.failures = [Kind.BROKEN] * 3 if when == "pausing" else []
        first = asyncio.create_task(store.get_many(wanted[:3])) if when == "queued" else None
        call = asyncio.create_task(store.get_many(wanted))
        for _ in range(10):
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        if first is not None:
            assert client.flying == 3
            client.stuck = False
            assert len(await first) == 3
        assert client.flying == 0
        assert idle(store)
        client.stuck = False
        assert len(await store.get_many(wanted)) == 10

    asyncio.run(main())


def test_reads_that_are_never_answered_have_a_deadline() -> None:
    store, client, wanted = burst(5, parallelism=2, deadline=0.05)

    async def main() -> None:
        client.stuck = True
        with pytest.raises(StoreError, match=r"mem://b/t/0: bytes 2\.\.5: no answer; given up after 0.05 s"):
            await store.get_many(wanted)
        assert client.requests == 2  # an attempt that takes all the time is not repeated
        assert client.flying == 0
        assert idle(store)

    asyncio.run(main())


def test_reads_are_the_same_with_and_without_a_trace() -> None:
    store, client, wanted = burst(12)

    async def main() -> None:
        quiet = await store.get_many(wanted)
        with trace() as log:
            traced = await store.get_many(wanted)
        assert [bytes(one) for one in quiet] == [bytes(one) for one in traced]
        assert len(log.requests) == 12
        assert client.requests == 24
        assert store.stats.snapshot()[:2] == (24, 72)

    asyncio.run(main())
