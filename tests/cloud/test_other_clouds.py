"""Google Cloud Storage and Azure: what is sent is what their protocols want.

The imitated S3 answers, behind a translation of the few things in which they differ; whatever else is sent is
written down and looked at.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote, unquote_plus
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

import pilum
from pilum.errors import AlreadyExistsError, StoreError
from pilum.io import run, store_for
from tests.cloud.server import spoiled

Handler = Callable[[Any], Awaitable[Any]]


def table(count: int, seed: int = 0) -> pa.Table:
    return pa.table({"id": np.arange(count) + 1000 * seed})


def _tell(request: Any, **headers: str | None) -> Any:
    """The request with some headers instead of others."""
    kept = {name: value for name, value in request.headers.items() if name.lower() not in headers}
    return request.clone(headers=kept | {name: value for name, value in headers.items() if value is not None})


def exercise(uri: str, options: dict[str, str]) -> None:
    """Write, append, read, list, refuse what exists, and a large object in parts."""
    ds = pilum.write_dataset(table(100), uri, storage_options=options, max_rows_per_file=30)
    ds.insert(table(10, 1))
    again = pilum.dataset(uri, storage_options=options)
    assert again.version == 2
    assert len(again.versions()) == 2
    assert again.to_table()["id"].to_pylist() == [*range(100), *range(1000, 1010)]
    store = store_for(uri, options)
    with pytest.raises(AlreadyExistsError):
        run(store.put("_versions/18446744073709551614.manifest", b"x", if_absent=True), suspends=True)
    data = np.random.default_rng(0).integers(0, 256, 12 << 20, dtype=np.uint8)

    async def upload() -> None:
        writer = await store.create("large")
        await writer.write([data])
        await writer.finish()

    run(upload(), suspends=True)
    assert np.array_equal(run(store.get_all("large"), suspends=True), data)
    assert run(store.get_tail("large", 5), suspends=True)[1] == len(data)
    pilum.LanceDataset.drop(uri, storage_options=options)


def test_google() -> None:
    seen: list[tuple[str, str, str]] = []

    async def spoil(request: Any, handler: Handler) -> Any:
        from aiohttp import web

        seen.append(
            (request.method, unquote_plus(request.raw_path), request.headers.get("Authorization", ""))
        )
        if request.headers.get("Authorization") != "Bearer secret":
            return web.Response(status=401)
        condition = request.headers.get("x-goog-if-generation-match")
        if condition is not None:
            assert condition == "0"
            request = _tell(request, **{"x-goog-if-generation-match": None, "If-None-Match": "*"})
        answer = await handler(request)
        if not answer.prepared:
            answer.headers["x-goog-generation"] = "1"
        return answer

    with spoiled(spoil) as server:
        options = {"google_base_url": server.url, "google_storage_token": "secret", "allow_http": "true"}
        exercise("gs://bucket/some folder/t", options)
        assert run(store_for("gs://bucket/some folder/t", options).list(""), suspends=True) == []
        with pytest.raises(StoreError, match="denied"):
            pilum.dataset("gs://bucket/t", storage_options={**options, "google_storage_token": "wrong"})
    paths = [path for _, path, _ in seen]
    assert any(path.startswith("/bucket/some folder/t/_versions/") for path in paths)
    assert any("list-type=2" in path and "prefix=some folder/t/_versions/" in path for path in paths)


def test_azure() -> None:
    seen: list[tuple[str, str, str]] = []
    blocks: dict[tuple[str, str], bytes] = {}

    async def spoil(request: Any, handler: Handler) -> Any:
        from aiohttp import web

        query = dict(request.query)
        seen.append(
            (request.method, unquote_plus(request.raw_path), request.headers.get("Authorization", ""))
        )
        if not request.headers.get("Authorization", "").startswith("SharedKey account:"):
            return web.Response(status=403, text="AuthenticationFailed")
        assert request.headers["x-ms-version"]
        if query.get("comp") == "list":
            assert query["restype"] == "container"
            return await _listing(request, handler, query)
        if query.get("comp") == "block":
            blocks[request.path, query["blockid"]] = await request.read()
            return web.Response(status=201)
        if query.get("comp") == "blocklist":
            names = [one.text or "" for one in ET.fromstring(await request.read())]
            server_store[request.path.lstrip("/")] = b"".join(blocks[request.path, name] for name in names)
            return web.Response(status=201, headers={"ETag": '"parts"'})
        if query.get("comp") == "batch":
            assert query["restype"] == "container"
            parts = re.findall(
                r"Content-ID: (\d+).*?DELETE (\S+) HTTP/1\.1", (await request.read()).decode(), re.S
            )
            for _, path in parts:
                key = unquote(path).partition("/t/")[2]
                server_store.pop(f"container/some folder/t/{key}", None)
                deleted.append(key)
            body = "".join(
                f"--x\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n"
                for number, _ in parts
            )
            return web.Response(
                status=202,
                body=f"{body}--x--\r\n".encode(),
                headers={"Content-Type": "multipart/mixed; boundary=x"},
            )
        if request.method == "PUT":
            assert request.headers["x-ms-blob-type"] == "BlockBlob"
        own = server_store.get(request.path.lstrip("/"))
        if own is not None and request.method in ("GET", "HEAD"):
            low, _, high = request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start, end = int(low or 0), int(high) + 1 if high else len(own)
            if not low:
                start, end = len(own) - int(high), len(own)
            return web.Response(
                status=206 if "Range" in request.headers else 200, body=own[start:end],
                headers={
                    "ETag": '"parts"', "Last-Modified": "Mon, 30 Nov 2026 20:00:00 GMT",
                    "Content-Range": f"bytes {start}-{end - 1}/{len(own)}",
                },
            )  # fmt: skip
        return await handler(request)

    server_store: dict[str, bytes] = {}
    deleted: list[str] = []
    options = {
        "azure_storage_account_name": "account",
        "azure_storage_account_key": "c2VjcmV0",
        "allow_http": "true",
    }
    with spoiled(spoil) as server:
        options["azure_storage_endpoint"] = server.url
        exercise("az://container/some folder/t", options)
    paths = [path for _, path, _ in seen]
    assert any(path.startswith("/container/some folder/t/_versions/") for path in paths)
    assert {"_versions/18446744073709551614.manifest", "_versions/18446744073709551613.manifest"} <= set(
        deleted
    )
    assert len(blocks) > 1
    assert any("comp=list" in path and "restype=container" in path for path in paths)


async def _listing(request: Any, handler: Handler, query: dict[str, str]) -> Any:
    """A listing in Azure's words."""
    from aiohttp import web

    wanted = {"list-type": "2", "prefix": query.get("prefix", ""), "delimiter": query.get("delimiter", "")}
    container = request.path.strip("/")
    answer = await handler(
        request.clone(rel_url=request.rel_url.with_path(f"/{container}").with_query(wanted))
    )
    found = ET.fromstring(answer.body)
    blobs = "".join(
        f"<Blob><Name>{one.findtext('Key')}</Name><Properties>"
        f"<Last-Modified>Mon, 30 Nov 2026 20:00:00 GMT</Last-Modified><Etag>x</Etag>"
        f"<Content-Type>x</Content-Type><Content-Length>{one.findtext('Size')}</Content-Length><BlobType>BlockBlob</BlobType>"
        "</Properties></Blob>"
        for one in found.iter("Contents")
    )
    prefixes = "".join(
        f"<BlobPrefix><Name>{one.findtext('Prefix')}</Name></BlobPrefix>"
        for one in found.iter("CommonPrefixes")
    )
    xml = (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>'
        f"{blobs}{prefixes}</Blobs><NextMarker/></EnumerationResults>"
    )
    return web.Response(body=xml.encode(), content_type="application/xml")


def test_the_region_of_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    from pilum.io import region

    asked: list[str] = []

    async def spoil(request: Any, handler: Handler) -> Any:
        from aiohttp import web

        assert request.method == "HEAD"
        assert "Authorization" not in request.headers
        asked.append(request.path)
        if request.path == "/nowhere":
            return web.Response(status=404)
        # As S3 answers for buckets in other regions.
        return web.Response(status=301, headers={"x-amz-bucket-region": "eu-south-2"})

    for name in (
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
    ):
        monkeypatch.delenv(name, raising=False)
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}

    def opened(bucket: str, **options: str) -> str | None:
        from pilum.io.cloud import remote_store

        store = remote_store(f"s3://{bucket}/t", {**keys, **options})
        found: str | None = store.bucket.client._store.config.get("region")  # type: ignore[attr-defined]
        return found

    with spoiled(spoil) as server:
        monkeypatch.setattr(region, "_ADDRESS", server.url)
        assert opened("there") == "eu-south-2"
        assert opened("there", timeout="9s") == "eu-south-2"
        assert asked == ["/there"]
        assert opened("nowhere") != "eu-south-2"
        assert asked == ["/there", "/nowhere"]
        assert opened("said", aws_region="us-east-2") == "us-east-2"
        assert opened("endpoint", aws_endpoint="https://example.com") != "eu-south-2"
        assert opened("usw2-az1--x-s3") != "eu-south-2"
        monkeypatch.setenv("AWS_REGION", "us-west-1")
        assert opened("environment") is None  # the client library reads it
        assert asked == ["/there", "/nowhere"]
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setattr(region, "_ADDRESS", "http://127.0.0.1:1")
    assert opened("unreachable") is None
    with spoiled(spoil) as server:
        monkeypatch.setattr(region, "_ADDRESS", server.url)
        assert opened("unreachable", timeout="9s") == "eu-south-2"
