"""What a query over a network says about itself: requests, bytes, retries, rounds and the first byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.io import run, store_for
from tests.cloud.server import BUCKET, Server, spoiled

Handler = Callable[[Any], Awaitable[Any]]


def table(rows: int) -> pa.Table:
    return pa.table({"id": np.arange(rows), "text": [f"row {i}" for i in range(rows)]})


def value(text: str, name: str) -> float:
    """A number of the first line of an analysed plan."""
    return float(text.partition("\n")[0].partition(f"{name}=")[2].split(",")[0].removesuffix(" ms"))


def test_an_analysed_plan(server: Server, uri: str) -> None:
    pilum.write_dataset(table(100), uri, max_rows_per_file=20, storage_options=server.options)
    ds = pilum.dataset(uri, storage_options=server.options)
    with server.conditions(latency_ms=80), server.counted() as found:
        text = ds.scanner(columns=["id"]).analyze_plan()
    assert value(text, "requests") == found["by_kind"]["get"] == 5
    assert value(text, "bytes_read") == found["bytes_out"]
    assert value(text, "rounds") == 1
    assert value(text, "retries") == 0
    assert 80 <= value(text, "first_byte") <= value(text, "elapsed")
    assert "rounds=1]" in text
    two = pilum.dataset(uri, storage_options=server.options).scanner(filter="id < 50 and text > 'row 2'")
    step = next(line for line in two.analyze_plan().splitlines() if "LanceRead" in line)
    assert int(step.rpartition("rounds=")[2].rstrip("]")) >= 1
    again = ds.scanner(columns=["id"]).analyze_plan()
    assert value(again, "requests") == 0
    assert "first_byte" not in again  # nothing was asked for


def test_retries_are_told_for_each_query(uri: str) -> None:
    refused: set[str] = set()

    async def spoil(request: Any, handler: Handler) -> Any:
        from aiohttp import web

        if request.method == "GET" and request.path.endswith(".lance") and request.path not in refused:
            refused.add(request.path)
            return web.Response(status=503, text="<Code>SlowDown</Code>")
        return await handler(request)

    with spoiled(spoil) as server:
        pilum.write_dataset(table(100), uri, max_rows_per_file=20, storage_options=server.options)
        ds = pilum.dataset(uri, storage_options=server.options)
        seen: list[Any] = []
        scanner = ds.scanner(columns=["id"], scan_stats_callback=seen.append)
        text = scanner.analyze_plan()
        assert value(text, "retries") == 5
        assert "fragment 0 and 4 more: output_rows=100, requests=5" in text
        assert text.count("retries=5") == 3  # of the query, of its step, and of the fragments
        assert ds.aio.store.stats.retries == 5
        scanner.to_table()
        assert seen[0].all_counts["retries"] == 0


def test_a_waterfall_shows_waiting_and_retries(server: Server, uri: str, tmp_path: Path) -> None:
    noise = pa.table({"x": np.random.default_rng(0).standard_normal(300_000)})
    pilum.write_dataset(noise, uri, max_rows_per_file=150_000, storage_options=server.options)
    ds = pilum.dataset(uri, storage_options=server.options)
    with server.conditions(latency_ms=60, mbps=100):
        fall = ds.scanner().waterfall()
    assert all(bar.first_byte is not None and bar.start < bar.waited < bar.end for bar in fall.bars)
    assert fall.first_byte is not None
    assert fall.first_byte >= 0.06
    assert "first byte after" in str(fall)
    assert "░█" in str(fall)
    fall.save(tmp_path / "w.svg")
    assert (tmp_path / "w.svg").read_text().count("<path") == len(fall.bars)


def test_ranges_are_the_same_when_they_are_traced(server: Server, uri: str) -> None:
    store = store_for(uri, server.options)
    run(store.put("a", b"0123456789"), suspends=True)
    with pilum.trace() as log:
        assert bytes(run(store.get("a", 2, 5), suspends=True)) == b"234"
        with pytest.raises(OSError, match=r"bytes 5\.\.20, got 5 of 15"):
            run(store.get("a", 5, 20), suspends=True)
        with pytest.raises(OSError, match="ends before the range"):
            run(store.get("a", 15, 20), suspends=True)
    (request,) = log.requests
    assert (request.path, request.start, request.end) == ("a", 2, 5)
    assert request.first_byte is not None
    assert request.started <= request.first_byte <= request.finished
    with server.counted() as found:
        run(store_for(f"s3://{BUCKET}", server.options).list("nothing"), suspends=True)
    assert found["by_kind"] == {"list": 1}


def test_spans_tell_retries_and_the_cache(
    server: Server, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda *args: provider.get_tracer(*args))
    options = {**server.options, "cache_dir": str(tmp_path / "cache"), "client_max_retries": "30"}
    pilum.write_dataset(table(200), uri, max_rows_per_file=5, storage_options=options)

    def scan() -> tuple[Any, list[Any]]:
        ds = pilum.dataset(uri, storage_options=options)
        exporter.clear()
        assert ds.to_table().num_rows == 200
        *children, query = exporter.get_finished_spans()
        assert query.name == "pilum.scan"
        return query.attributes, children

    with server.conditions(fail_rate=0.4), server.counted() as found:
        first, requests = scan()
    lost = sum("data/" in one["key"] for one in found["log"]) - 40
    assert lost > 0
    assert first["pilum.retries"] == lost == sum(one.attributes.get("pilum.retries", 0) for one in requests)
    assert (first["pilum.requests"], first["pilum.cache.hits"]) == (40, 0)
    assert {one.name for one in requests} == {"pilum.get"}
    assert all([event.name for event in one.events] == ["first byte"] for one in requests)
    assert all(one.kind is trace.SpanKind.CLIENT for one in requests)
    second, reads = scan()
    assert (second["pilum.requests"], second["pilum.cache.hits"]) == (0, 40)
    assert second["pilum.cache.bytes"] == first["pilum.bytes_read"]
    assert [one.name for one in reads] == ["pilum.cache"] * 40
    exporter.clear()
    pilum.dataset(uri, storage_options=options).insert(table(3))
    commit = exporter.get_finished_spans()[-1]
    assert commit.name == "pilum.commit"
    assert commit.attributes["pilum.version"] == 2
    assert commit.attributes["pilum.bytes_written"] > 0
    exporter.shutdown()
