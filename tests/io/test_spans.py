"""Spans of queries, as an application with OpenTelemetry sees them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
import pilum.aio
from pilum.io import MemoryStore, QuerySpan, spans
from tests.io.stores import FailingStore, SuspendingStore

sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A provider for this test; the API lets a process set its own only once."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    found = export.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(trace, "get_tracer", lambda *args: provider.get_tracer(*args))
    yield found
    provider.shutdown()


def rows(count: int) -> pa.Table:
    values = pa.array(np.arange(count * 4, dtype=np.float32))
    return pa.table({"id": np.arange(count), "vec": pa.FixedSizeListArray.from_arrays(values, 4)})


def queries(exporter: Any) -> list[Any]:
    """Spans without those of requests, by the order of their end; empties the exporter."""
    found = exporter.get_finished_spans()
    exporter.clear()
    names = {"scan", "search", "take", "count", "open", "commit"}
    return [one for one in found if one.name.removeprefix("pilum.") in names]


@pytest.fixture
def ds(tmp_path: Path) -> pilum.LanceDataset:
    return pilum.write_dataset(rows(100), tmp_path / "t", max_rows_per_file=25)


def test_each_query_is_a_span(ds: pilum.LanceDataset, tmp_path: Path, exporter: Any) -> None:
    opened = pilum.dataset(tmp_path / "t")
    opened.to_table(columns=["id"])
    list(opened.to_batches(columns=["id"], filter="id < 30"))
    opened.to_table(nearest={"column": "vec", "q": [1.0, 2, 3, 4], "k": 5})
    opened.take([1, 77])
    opened.count_rows("id > 49")
    opened.insert(rows(10))
    found = queries(exporter)
    assert [
        (one.name, one.attributes.get("pilum.rows"), one.attributes["pilum.version"]) for one in found
    ] == [
        ("pilum.open", None, 1),
        ("pilum.scan", 100, 1),
        ("pilum.scan", 30, 1),
        ("pilum.search", 5, 1),
        ("pilum.take", 2, 1),
        ("pilum.count", 50, 1),
        ("pilum.commit", None, 2),
    ]
    scan = found[1]
    assert scan.attributes["db.system.name"] == "lance"
    assert scan.attributes["db.operation.name"] == "scan"
    assert scan.attributes["db.collection.name"] == opened.uri
    assert scan.attributes["pilum.requests"] > 0
    assert scan.attributes["pilum.bytes_read"] > 0
    assert scan.attributes["pilum.retries"] == 0
    assert scan.instrumentation_scope.name == "pilum"
    assert found[-1].attributes["pilum.bytes_written"] > 0
    assert all(one.start_time < one.end_time for one in found)


def test_spans_lie_within_those_of_the_application(ds: pilum.LanceDataset, exporter: Any) -> None:
    from opentelemetry import trace

    with trace.get_tracer("application").start_as_current_span("request") as outer:
        list(ds.to_batches())
        ds.take([3])

        async def main() -> None:
            await ds.aio.to_table()

        asyncio.run(main())
        assert trace.get_current_span() is outer
    found = queries(exporter)
    assert [one.name for one in found] == ["pilum.scan", "pilum.take", "pilum.scan"]
    assert {one.parent.span_id for one in found} == {outer.get_span_context().span_id}


def test_requests_over_a_network_are_spans(exporter: Any) -> None:
    store = SuspendingStore(MemoryStore(), delay=0.002)
    ds = pilum.write_dataset(rows(100), store, max_rows_per_file=25)
    exporter.clear()
    ds.to_table(columns=["id"])
    found = exporter.get_finished_spans()
    scan = found[-1]
    children = found[:-1]
    assert scan.name == "pilum.scan"
    assert [one.name for one in children] == ["pilum.get"] * scan.attributes["pilum.requests"]
    assert len(children) >= 4
    assert {one.parent.span_id for one in children} == {scan.get_span_context().span_id}
    assert all(scan.start_time <= one.start_time < one.end_time <= scan.end_time for one in children)
    assert all(one.end_time - one.start_time >= 2_000_000 for one in children)
    assert sum(one.attributes["pilum.bytes"] for one in children) == scan.attributes["pilum.bytes_read"]
    assert {one.attributes["pilum.path"].partition("/")[0] for one in children} == {"data"}
    assert [one.name for one in scan.events] == ["first byte"]
    assert scan.start_time < scan.events[0].timestamp <= scan.end_time


def test_very_many_requests_are_not_all_spans(exporter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MOST_REQUESTS", 3)
    ds = pilum.write_dataset(rows(100), SuspendingStore(MemoryStore()), max_rows_per_file=10)
    exporter.clear()
    ds.to_table()
    *children, scan = exporter.get_finished_spans()
    assert len(children) == 3
    assert scan.attributes["pilum.requests"] >= 10


def test_failures(exporter: Any) -> None:
    inner = MemoryStore()
    pilum.write_dataset(rows(100), SuspendingStore(inner), max_rows_per_file=25)
    ds = pilum.dataset(FailingStore(inner, pattern="data/"))
    exporter.clear()
    for read in (
        lambda: ds.to_table(),
        lambda: list(ds.to_batches()),
        lambda: ds.take([3]),
        lambda: ds.count_rows("id > 3"),
    ):
        with pytest.raises(OSError, match="made up"):
            read()
        (span,) = queries(exporter)
        assert span.status.status_code.name == "ERROR"
        assert "made up" in span.status.description
        assert [one.name for one in span.events if one.name != "first byte"] == ["exception"]
    with pytest.raises(ValueError, match="no dataset"):
        pilum.dataset(MemoryStore())
    (span,) = queries(exporter)
    assert (span.name, span.status.status_code.name) == ("pilum.open", "ERROR")


def test_a_stream_that_is_closed_early(ds: pilum.LanceDataset, exporter: Any) -> None:
    async def main() -> None:
        async with aclosing(await ds.aio.to_batches(batch_size=10)) as stream:
            async for _ in stream:
                break

    asyncio.run(main())
    (span,) = queries(exporter)
    assert span.attributes["pilum.rows"] == 10
    assert [one.name for one in span.events if one.name != "first byte"] == ["cancelled"]
    assert span.status.status_code.name == "UNSET"


def test_streams_do_not_hold_the_context_of_their_consumer(ds: pilum.LanceDataset, exporter: Any) -> None:
    from opentelemetry import trace

    async def main() -> None:
        streams = [await ds.aio.to_batches(batch_size=10) for _ in range(2)]
        with pilum.trace() as log:
            for stream in streams:
                assert not trace.get_current_span().is_recording()
                await anext(stream)
            before = len(log.requests)
            await ds.aio.take([3])
            assert len(log.requests) > before
        for stream in streams:
            async for _ in stream:
                pass

    asyncio.run(main())
    assert sorted(one.attributes["pilum.rows"] for one in queries(exporter)) == [1, 100, 100]


def test_a_span_that_is_sampled_out_logs_nothing(ds: pilum.LanceDataset) -> None:
    # The API's own provider: its spans record nothing.
    span = QuerySpan("scan", MemoryStore())
    assert not span.begin()
    with QuerySpan("scan", MemoryStore()) as same:
        same.rows = 1
    span.end()


ABSENT = """
import sys
import pilum, pyarrow as pa
ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://spans")
assert ds.to_table().num_rows == 3
list(ds.to_batches()); ds.take([1]); ds.count_rows("a > 1"); ds.delete("a = 1")
loaded = [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]
sys.exit(len(loaded))
"""


def test_a_program_without_telemetry_does_not_load_it() -> None:
    assert subprocess.run([sys.executable, "-c", ABSENT], check=False, timeout=60).returncode == 0


SET = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import pilum, pyarrow as pa
ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://spans")
ds.to_table()
print([one.name for one in exporter.get_finished_spans()])
"""


def test_a_program_that_sets_a_provider() -> None:
    done = subprocess.run([sys.executable, "-c", SET], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == "['pilum.commit', 'pilum.scan']"
