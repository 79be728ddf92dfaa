"""Who owns a version, kept in a table of DynamoDB (spec/table.md, section 7.3).

```
s3+ddb://bucket/folder?ddbTableName=T

base_uri (S, hash key)   version (N, range key)   path (S)                              size (N)   committer (S)
folder                   7                        folder/_versions/...608.manifest      423        lancedb
folder                   8                        folder/_versions/...607.manifest-UUID 431        lancedb
```

An item whose path ends in a UUID belongs to a commit that was begun: its manifest lies under that name and is still
to be put under its own.  What follows from that is the business of `pilum.table.external`; here are the requests.

They are made by botocore, which knows where credentials come from (environment, profiles, roles of machines and
containers), renews them, and signs.  It blocks, so a request runs on a thread of the loop's executor; there are two
or three of them in a commit and one in opening a table.  It is told not to retry, which is done as for every store
(`pilum.io.retry`).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pilum import imports
from pilum.errors import AlreadyExistsError, CorruptFileError, StoreError
from pilum.io.forking import generation, on_fork
from pilum.io.retry import Failure, Kind, RetryPolicy, retrying

__all__ = ["DynamoTable", "VersionItem", "VersionItems"]

# Numbers from here on are detached versions, outside of the history; the reference makes items for them, too.
_DETACHED = 1 << 63
_COMMITTER = "lancedb"
_NAMES = {"#u": "base_uri", "#v": "version"}
_ABSENT = "attribute_not_exists(#u) AND attribute_not_exists(#v)"
_PRESENT = "attribute_exists(#u) AND attribute_exists(#v)"
_DELETED_AT_ONCE = 25

_THROTTLED = frozenset(
    {
        "LimitExceededException", "ProvisionedThroughputExceededException", "RequestLimitExceeded",
        "ThrottlingException", "Throttling", "SlowDown",
    }
)  # fmt: skip
_DENIED = frozenset(
    {
        "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "IncompleteSignatureException",
        "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)  # fmt: skip


class VersionItem(NamedTuple):
    """What the table says about a version.

    Attributes:
        version: its number.
        path: where its manifest lies, below the folder of the dataset.
        size: bytes of the manifest; None if the item does not say.
    """

    version: int
    path: str
    size: int | None


class DynamoTable:
    """A table of DynamoDB.

    Args:
        name: of the table.
        settings: arguments of botocore's client: region, endpoint, static credentials.
        policy: how requests are retried.
        timeout: seconds to wait for one answer.
        credentials: says the credentials to use now, if they are not botocore's business; may be a coroutine
            function.
        renew: forgets credentials that were refused; whether new ones can be had.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        policy: RetryPolicy,
        timeout: float = 30.0,
        credentials: Callable[[], Any] | None = None,
        renew: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self._settings = dict(settings)
        self._policy = policy
        self._timeout = timeout
        self._credentials = credentials
        self._renew = renew
        self._made: tuple[Any, Any] | None = None  # what the client was made for, and the client

    async def request(self, operation: str, what: str, **arguments: Any) -> Any:
        """Make a request until it is answered.

        Args:
            operation: name of a method of botocore's client.
            what: the request, for the error.
            arguments: of the method, without the name of the table.

        Raises:
            AlreadyExistsError: a condition was not met.
            StoreError: DynamoDB failed, refused, or botocore is not installed.
        """
        import asyncio

        loop = asyncio.get_running_loop()

        async def attempt() -> Any:
            given: Any = None if self._credentials is None else self._credentials()
            if inspect.isawaitable(given):
                given = await given
            return await loop.run_in_executor(None, lambda: self._call(given, operation, arguments))

        def note(failure: Failure) -> bool:
            return failure.kind is Kind.DENIED and self._renew()

        return await retrying(f"DynamoDB table {self.name}: {what}", attempt, self._policy, explain, note)

    def _call(self, credentials: Any, operation: str, arguments: Mapping[str, Any]) -> Any:
        return getattr(self._client(credentials), operation)(**arguments)

    def _client(self, credentials: Any) -> Any:
        """The client for some credentials; a child of a fork must not use the connections of its parent."""
        own = credentials and {
            "aws_access_key_id": credentials["access_key_id"],
            "aws_secret_access_key": credentials["secret_access_key"],
            "aws_session_token": credentials.get("token"),
        }
        key = (own, generation())
        made = self._made
        if made is None or made[0] != key:
            with _making:
                made = self._made = (key, self._make(own or {}))
        return made[1]

    def _make(self, credentials: Mapping[str, Any]) -> Any:
        session = _load("botocore.session").get_session()
        settings = {**self._settings, **credentials}
        unsigned = settings.pop("skip_signature", False)
        settings["region_name"] = (
            settings.get("region_name") or session.get_config_variable("region") or "us-west-2"
        )
        config: dict[str, Any] = {
            "connect_timeout": 5.0,
            "read_timeout": self._timeout,
            "retries": {"total_max_attempts": 1},
        }
        if unsigned:
            config["signature_version"] = _load("botocore").UNSIGNED
        with imports.guard():  # botocore imports what it needs as it goes
            return session.create_client(
                "dynamodb", config=_load("botocore.config").Config(**config), **settings
            )


_making = threading.Lock()


@on_fork
def _forget_lock() -> None:
    global _making
    _making = threading.Lock()


def _load(name: str) -> Any:
    try:
        return imports.load(name)
    except ImportError as error:
        raise StoreError(
            "s3+ddb:// needs the package botocore: pip install 'pilum[dynamodb]', or pip install botocore"
        ) from error


def explain(error: Exception) -> Failure:
    """What an exception of botocore means."""
    message = str(error).replace("\n", " ") or type(error).__name__
    exceptions = _load("botocore.exceptions")
    if isinstance(error, exceptions.ClientError):
        answer: Any = error.response
        code = answer.get("Error", {}).get("Code", "")
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code == "ConditionalCheckFailedException":
            return Failure(Kind.EXISTS, message)
        if code in _THROTTLED or status in (429, 503):
            return Failure(Kind.THROTTLED, message)
        if code in _DENIED:
            return Failure(Kind.DENIED, message)
        return Failure(Kind.BROKEN if status >= 500 else Kind.FINAL, message)
    if isinstance(error, exceptions.HTTPClientError):
        return Failure(Kind.BROKEN, message)
    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return Failure(Kind.DENIED, message)
    return Failure(Kind.FINAL, message)


class VersionItems:
    """The items of one dataset, or of one branch.

    Args:
        table: where they are.
        base: key of its folder in the bucket, which is the ``base_uri`` of the items.
    """

    def __init__(self, table: DynamoTable, base: str) -> None:
        self._table = table
        self._base = base

    def __repr__(self) -> str:
        return f"{self._base!r} in DynamoDB table {self._table.name}"

    def below(self, folder: str) -> VersionItems:
        """The items of a dataset in a folder of this one: of a branch."""
        return VersionItems(self._table, f"{self._base}/{folder}" if self._base else folder)

    async def newest(self) -> VersionItem | None:
        """The item of the newest version, detached ones aside; None when there are no items."""
        answer = await self._request(
            "query", "newest version",
            KeyConditionExpression="#u = :u AND #v < :v",
            ExpressionAttributeNames=_NAMES,
            ExpressionAttributeValues={":u": {"S": self._base}, ":v": {"N": str(_DETACHED)}},
            ConsistentRead=True, ScanIndexForward=False, Limit=1,
        )  # fmt: skip
        return self._item(answer["Items"][0]) if answer.get("Items") else None

    async def find(self, version: int) -> VersionItem | None:
        """The item of a version; None when there is none."""
        answer = await self._request(
            "get_item", f"version {version}", Key=self._key(version), ConsistentRead=True
        )
        return self._item(answer["Item"]) if answer.get("Item") else None

    async def insert(self, item: VersionItem) -> bool:
        """Add the item of a version; False when it has one already.

        After an answer was lost, the item that is there already may be this one.
        """
        return await self._put(item, _ABSENT)

    async def replace(self, item: VersionItem) -> bool:
        """Change the item of a version; False when it has none."""
        return await self._put(item, _PRESENT)

    async def _put(self, item: VersionItem, condition: str) -> bool:
        content = {
            **self._key(item.version),
            "path": {"S": f"{self._base}/{item.path}" if self._base else item.path},
            "committer": {"S": _COMMITTER},
        }
        if item.size is not None:
            content["size"] = {"N": str(item.size)}
        try:
            await self._request(
                "put_item", f"put version {item.version}", Item=content,
                ConditionExpression=condition, ExpressionAttributeNames=_NAMES,
            )  # fmt: skip
        except AlreadyExistsError:
            return False
        return True

    async def clear(self) -> None:
        """Remove all items, those of detached versions too."""
        while True:
            found = await self._request(
                "query", "all versions",
                KeyConditionExpression="#u = :u",
                ProjectionExpression="#u, #v",
                ExpressionAttributeNames=_NAMES,
                ExpressionAttributeValues={":u": {"S": self._base}},
                ConsistentRead=True, Limit=_DELETED_AT_ONCE,
            )  # fmt: skip
            if not found.get("Items"):
                return
            # What is not done under load is found again by the next query.
            await self._table.request(
                "batch_write_item", f"remove versions of {self._base}",
                RequestItems={self._table.name: [{"DeleteRequest": {"Key": key}} for key in found["Items"]]},
            )  # fmt: skip

    async def _request(self, operation: str, what: str, **arguments: Any) -> Any:
        return await self._table.request(
            operation, f"{what} of {self._base}", TableName=self._table.name, **arguments
        )

    def _key(self, version: int) -> dict[str, dict[str, str]]:
        return {"base_uri": {"S": self._base}, "version": {"N": str(version)}}

    def _item(self, found: Mapping[str, Any]) -> VersionItem:
        try:
            path = found["path"]["S"]
            size = found.get("size")
            item = VersionItem(int(found["version"]["N"]), path, None if size is None else int(size["N"]))
        except (KeyError, TypeError, ValueError):
            raise CorruptFileError(f"{self!r}: an item is no version: {found}") from None
        prefix = f"{self._base}/" if self._base else ""
        if not path.startswith(prefix):
            raise CorruptFileError(f"{self!r}: version {item.version} lies outside, at {path}")
        return item._replace(path=path.removeprefix(prefix))
