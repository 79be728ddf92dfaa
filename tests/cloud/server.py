"""The imitated S3 of the shared folder, as a process for load and as a thread whose answers a test can spoil."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support import SHARED

SCRIPT = SHARED / "tools" / "slow_s3.py"
BUCKET = "b"


def _options(url: str) -> dict[str, str]:
    return {
        "aws_endpoint": url,
        "aws_region": "us-east-1",
        "allow_http": "true",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "aws_virtual_hosted_style_request": "false",
    }


class Server:
    """A running server.

    Attributes:
        url: its address.
        options: storage options that lead to it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.options = _options(url)

    def post(self, what: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/_{what}", method="POST")).read()

    def configure(self, **conditions: float) -> None:
        standard = {"latency_ms": 0, "jitter_ms": 0, "mbps": 0, "fail_rate": 0, "reset_rate": 0}
        self.post("config?" + "&".join(f"{name}={value}" for name, value in (standard | conditions).items()))

    @contextmanager
    def conditions(self, **conditions: float) -> Iterator[None]:
        self.configure(**conditions)
        try:
            yield
        finally:
            self.configure()

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(urllib.request.urlopen(f"{self.url}/_stats").read())
        return found

    def log(self) -> list[dict[str, Any]]:
        text = urllib.request.urlopen(f"{self.url}/_log").read().decode()
        return [json.loads(line) for line in text.splitlines()]

    @contextmanager
    def counted(self) -> Iterator[dict[str, Any]]:
        """Statistics of the requests made in the block, filled in when it ends."""
        found: dict[str, Any] = {}
        self.post("reset")
        yield found
        found.update(self.stats())
        found["log"] = self.log()


@contextmanager
def process() -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(SCRIPT), "--port", str(port), "--bucket", BUCKET]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    server = Server(f"http://127.0.0.1:{port}")
    try:
        for _ in range(600):
            try:
                server.stats()
                break
            except OSError:
                time.sleep(0.1)
        yield server
    finally:
        running.kill()  # asked to end, it would wait for requests that a test has left without an answer
        running.wait()


Handler = Callable[[Any], Awaitable[Any]]
Spoil = Callable[[Any, Handler], Awaitable[Any]]


@contextmanager
def spoiled(spoil: Spoil) -> Iterator[Server]:
    """A server in a thread of this process.

    Args:
        spoil: gets every request of the store and what would answer it, and answers.
    """
    from aiohttp import web

    spec = importlib.util.spec_from_file_location("slow_s3", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    port: list[int] = []
    stop = asyncio.Event()

    async def main() -> None:
        app = module.make_app(module.S3())

        @web.middleware
        async def middleware(request: Any, handler: Handler) -> Any:
            if request.path.startswith("/_"):
                return await handler(request)
            return await spoil(request, handler)

        app.middlewares.append(middleware)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(runner.addresses[0][1])
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield Server(f"http://127.0.0.1:{port[0]}")
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
