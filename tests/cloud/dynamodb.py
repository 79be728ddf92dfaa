"""As much of DynamoDB as holds the owners of versions, in a thread of this process.

Conditions are checked and items changed under one lock, as the real one promises for a single item.  A test can
spoil answers, before or after what was asked for is done.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TABLE = "commits"
Key = tuple[str, int]

# Told of every request: the operation, and what would be answered (None: nothing is done yet).  Returns an answer
# of its own, (status, name of the error); LOST for no answer; or None.
Spoil = Callable[[str, Any], Any]
LOST = object()


class DynamoDB:
    """A running server.

    Attributes:
        url: its address.
        items: what is in the table.
        log: names of the operations that were asked for.
        spoil: see `Spoil`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.items: dict[Key, dict[str, Any]] = {}
        self.log: list[str] = []
        self.credentials: list[str] = []
        self.spoil: Spoil = lambda operation, answer: None
        self._lock = threading.Lock()

    def path(self, base: str, version: int) -> str | None:
        item = self.items.get((base, version))
        return None if item is None else item["path"]["S"]

    def answer(self, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if operation == "BatchWriteItem":
            assert set(body["RequestItems"]) == {TABLE}
        elif body["TableName"] != TABLE:
            return _error("ResourceNotFoundException")
        with self._lock:
            found: tuple[int, dict[str, Any]] = getattr(self, f"_{operation}")(body)
        return found

    def _DescribeTable(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        names = [("base_uri", "HASH", "S"), ("version", "RANGE", "N")]
        return 200, {
            "Table": {
                "TableName": TABLE,
                "TableStatus": "ACTIVE",
                "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind, _ in names],
                "AttributeDefinitions": [
                    {"AttributeName": name, "AttributeType": kind} for name, _, kind in names
                ],
            }
        }

    def _PutItem(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        key = _key(body["Item"])
        for condition in _plain(body, "ConditionExpression").split(" AND "):
            function, name = re.fullmatch(r"(attribute_(?:not_)?exists)\((\w+)\)", condition).groups()  # type: ignore[union-attr]
            assert name in ("base_uri", "version")
            if (key in self.items) != (function == "attribute_exists"):
                return _error("ConditionalCheckFailedException")
        self.items[key] = body["Item"]
        return 200, {}

    def _GetItem(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert body["ConsistentRead"]
        item = self.items.get(_key(body["Key"]))
        return 200, {} if item is None else {"Item": item}

    def _Query(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert body["ConsistentRead"]
        values = body["ExpressionAttributeValues"]
        found = sorted(self.items)
        for condition in _plain(body, "KeyConditionExpression").split(" AND "):
            name, sign, value = condition.split()
            if name == "base_uri" and sign == "=":
                found = [key for key in found if key[0] == values[value]["S"]]
            else:
                assert (name, sign) == ("version", "<")
                found = [key for key in found if key[1] < int(values[value]["N"])]
        if not body.get("ScanIndexForward", True):
            found.reverse()
        found = found[: body.get("Limit", 1000)]
        items = [self.items[key] for key in found]
        if "ProjectionExpression" in body:
            names = _plain(body, "ProjectionExpression").split(", ")
            items = [{name: item[name] for name in names} for item in items]
        return 200, {"Items": items, "Count": len(items), "ScannedCount": len(items)}

    def _BatchWriteItem(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        requests = body["RequestItems"][TABLE]
        assert len(requests) <= 25
        for request in requests:
            self.items.pop(_key(request["DeleteRequest"]["Key"]), None)
        return 200, {"UnprocessedItems": {}}


def _key(item: dict[str, Any]) -> Key:
    return item["base_uri"]["S"], int(item["version"]["N"])


def _plain(body: dict[str, Any], what: str) -> str:
    text: str = body[what]
    for short, name in body.get("ExpressionAttributeNames", {}).items():
        text = text.replace(short, name)
    return text


def _error(name: str, status: int = 400) -> tuple[int, dict[str, Any]]:
    return status, {"__type": f"com.amazonaws.dynamodb.v20120810#{name}", "message": name}


@contextmanager
def running() -> Iterator[DynamoDB]:
    """A server for the time of the block."""
    database = DynamoDB()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operation = self.headers["X-Amz-Target"].partition(".")[2]
            database.log.append(operation)
            database.credentials.append(
                self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
            )
            spoiled = database.spoil(operation, None)
            answer = None
            if spoiled is None:
                answer = database.answer(operation, body)
                spoiled = database.spoil(operation, answer)
            if spoiled is LOST:
                self.close_connection = True
                return
            status, content = answer if spoiled is None else _error(spoiled[1], spoiled[0])  # type: ignore[misc]
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    database.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield database
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
