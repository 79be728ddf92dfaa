"""From the address of an object store to a `RemoteStore`.

```
s3://bucket/folder      Amazon S3 and what speaks its protocol            az://container/folder
gs://bucket/folder      Google Cloud Storage                              abfss://container@account.host/folder
http(s)://host/folder   any web server: reading

s3+ddb://bucket/folder?ddbTableName=T           Amazon S3, with the owners of versions in a table of DynamoDB
```

Datasets of one bucket that are opened with equal options share one `Bucket`, and with it connections, credentials
and the number of requests in flight.  A few buckets are kept when nobody uses them, because opening a connection
anew costs more than a request.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote

from pilum import imports
from pilum.errors import InvalidInputError
from pilum.io.base_options import unscoped
from pilum.io.cached import with_cache
from pilum.io.credentials import RenewableCredentials, fetch_options
from pilum.io.dynamodb import DynamoTable, VersionItems
from pilum.io.forking import on_fork
from pilum.io.obstore_client import ObstoreClient, load_obstore, retry_config
from pilum.io.region import bucket_region
from pilum.io.remote import Bucket, RemoteStore
from pilum.io.retry import RetryPolicy
from pilum.io.storage_options import ClientSettings, client_settings, parse_bool
from pilum.io.store import Store

__all__ = ["SCHEMES", "Options", "remote_store"]

Options = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None

SCHEMES: Mapping[str, str] = {
    "s3": "s3", "s3a": "s3", "s3+ddb": "s3", "gs": "google", "az": "azure", "abfs": "azure", "abfss": "azure", "adl": "azure",
    "http": "http", "https": "http",
}  # fmt: skip

_KEPT = 8
_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_", "OBJECT_STORE_", "LANCE_IO_", "HTTP", "NO_PROXY")
_kept: OrderedDict[Any, tuple[Bucket, DynamoTable | None]] = OrderedDict()
_lock = threading.Lock()


@on_fork
def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _kept.clear()


class _Place(NamedTuple):
    """Where an address leads: kind of store, bucket (or container, or host), key of the folder, options it implies,
    table of DynamoDB.
    """

    kind: str
    root: str
    folder: str
    implied: dict[str, str]
    table: str | None = None


_DDB = "s3+ddb"
_QUERY = re.compile(r"(.*)\?ddbTableName=([A-Za-z0-9_.\-]+)")


def _place(uri: str) -> _Place:
    # What follows a question mark or a hash is part of a key, as object stores see it.
    scheme, _, rest = uri.partition("://")
    if scheme.lower() == _DDB:
        found = _QUERY.fullmatch(uri)
        if found is None:
            raise InvalidInputError(
                f"{uri}: the address must end in the table of DynamoDB: s3+ddb://bucket/folder?ddbTableName=name"
            )
        return _place("s3" + found[1][len(_DDB) :])._replace(table=found[2])
    authority, _, path = rest.partition("/")
    kind = SCHEMES[scheme.lower()]
    folder = unquote(path).strip("/")
    if not authority:
        raise InvalidInputError(f"{uri}: the address names no bucket: {scheme}://bucket/folder")
    if kind == "http":
        return _Place(kind, f"{scheme}://{authority}", folder, {})
    container, at, host = authority.partition("@")
    if kind == "azure" and at:
        implied = {"account_name": host.split(".")[0]}
        if ".fabric.microsoft.com" in host:
            implied["use_fabric_endpoint"] = "true"
        return _Place(kind, container, folder, implied)
    return _Place(kind, authority, folder, {})


def remote_store(uri: str, options: Options) -> Store:
    """The store at an address of one of `SCHEMES`.

    Args:
        uri: the address; the part after the bucket is percent-decoded once.
        options: storage options, or a function that returns them and is asked again when they expire.

    Raises:
        InvalidInputError: the address or an option cannot be.
        StoreError: obstore is not installed.
    """
    place = _place(uri)
    bucket, table = _bucket(place, options)
    query = "" if table is None else f"?ddbTableName={table.name}"
    store = RemoteStore(
        uri.removesuffix(query),
        bucket,
        place.folder,
        (_reopen, (uri, options)),
        lambda other: _elsewhere(place, other, options),
        query,
        None if table is None else VersionItems(table, place.folder),
    )
    store.lists = place.kind != "http"
    return with_cache(store, store.bucket.cache)


def _reopen(uri: str, options: Options) -> Store:
    return remote_store(uri, options)


def _elsewhere(place: _Place, uri: str, options: Options) -> Store:
    from pilum.io.locate import store_for

    scheme = uri.partition("://")[0].lower()
    if scheme == _DDB and place.table is not None and _QUERY.fullmatch(uri) is None:
        uri = f"{uri}?ddbTableName={place.table}"
    return store_for(uri, options if SCHEMES.get(scheme) == place.kind else None)


def _bucket(place: _Place, options: Options) -> tuple[Bucket, DynamoTable | None]:
    try:
        given = frozenset(options.items()) if isinstance(options, Mapping) else options
        key = (place.kind, place.root, place.table, tuple(place.implied.items()), given, _environment())
        hash(key)
    except TypeError:  # an option that cannot be compared
        return _open(place, options)
    with _lock:
        found = _kept.get(key)
        if found is None:
            found = _kept[key] = _open(place, options)
        _kept.move_to_end(key)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return found


def _environment() -> frozenset[tuple[str, str]]:
    """What the client libraries, and we, read from the environment."""
    return frozenset(item for item in os.environ.items() if item[0].startswith(_VARIABLES))


def _open(place: _Place, options: Options) -> tuple[Bucket, DynamoTable | None]:
    load_obstore()
    stores = imports.load("obstore.store")
    provider: Any = None
    if options is None or isinstance(options, Mapping):
        given = dict(options or {})
    else:
        provider, given = options, fetch_options(options)
    given = unscoped(given)
    own_provider = given.pop("credential_provider", None)
    settings = client_settings(place.kind, {**place.implied, **given})
    if place.kind == "s3" and (region := bucket_region(place.root, settings.config)) is not None:
        settings.config["region"] = region
    static = {} if place.table is None else _dynamodb_settings(settings, given)
    arguments: dict[str, Any] = {}
    credentials = None
    if own_provider is not None:
        arguments["credential_provider"] = own_provider
        _drop_credentials(settings)
    elif provider is not None and place.kind in _CREDENTIALS:
        convert, needed = _CREDENTIALS[place.kind]
        if any(name in settings.config for name in needed):
            credentials = RenewableCredentials(provider, _converter(place.kind, convert), given)
            arguments["credential_provider"] = credentials
            _drop_credentials(settings)

    def make(**retrying: Any) -> Any:
        client = {
            name: timedelta(seconds=value) if isinstance(value, float) else value
            for name, value in settings.http.items()
        }
        if settings.headers:
            client["default_headers"] = settings.headers
        if place.kind == "http":
            return stores.HTTPStore(place.root, client_options=client, **retrying)
        kind = {"s3": stores.S3Store, "google": stores.GCSStore, "azure": stores.AzureStore}[place.kind]
        return kind(place.root, config=settings.config, client_options=client, **retrying, **arguments)

    policy: RetryPolicy = settings.policy
    try:
        store = make(retry_config=retry_config(0, policy.deadline))
        uploader = make(retry_config=retry_config(policy.max_retries, policy.deadline))
    except Exception as error:
        message = str(error).partition("\n\nDebug source")[0]
        raise InvalidInputError(f"{place.root}: the storage options cannot be used: {message}") from error
    # S3 Express lists in no order.
    ordered = not parse_bool("s3_express", settings.config.get("s3_express", "false"))
    client = ObstoreClient(store, uploader, credentials, ordered=ordered and place.kind != "http")
    bucket = Bucket(client, policy, settings.parallelism, settings.cache)
    if place.table is None:
        return bucket, None
    given_credentials = own_provider if credentials is None else credentials
    if given_credentials is not None:
        static = {name: value for name, value in static.items() if name not in _STATIC}
    return bucket, DynamoTable(
        place.table, static, policy, settings.http["timeout"], given_credentials, client.renew
    )


# what botocore calls a credential -> what we do
_STATIC = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def _dynamodb_settings(settings: ClientSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of a bucket mean for the table beside it; what they leave open botocore finds out."""
    config = settings.config
    region = config.get("region") or config.get("default_region")
    found = {theirs: config[ours] for theirs, ours in _STATIC.items() if ours in config}
    if region:
        found["region_name"] = region
    for name, value in given.items():
        if str(name).strip().lower() == "dynamodb_endpoint":
            found["endpoint_url"] = str(value)
    if parse_bool("skip_signature", config.get("skip_signature", "false")):
        return {**found, "skip_signature": True}
    return found


# -- credentials ---------------------------------------------------------------------------------------


def _s3(config: Mapping[str, str]) -> dict[str, Any]:
    return {
        "access_key_id": config.get("access_key_id", ""),
        "secret_access_key": config.get("secret_access_key", ""),
        "token": config.get("session_token"),
    }


def _google(config: Mapping[str, str]) -> dict[str, Any]:
    return {"token": config.get("bearer_token", "")}


def _azure(config: Mapping[str, str]) -> dict[str, Any]:
    if "sas_key" in config:
        return {"sas_token": config["sas_key"]}
    if "token" in config:
        return {"token": config["token"]}
    return {"access_key": config.get("account_key", "")}


# kind of store -> (its credential from the store's options, options of which one must be there)
_CREDENTIALS: Mapping[str, tuple[Callable[[Mapping[str, str]], dict[str, Any]], tuple[str, ...]]] = {
    "s3": (_s3, ("access_key_id",)),
    "google": (_google, ("bearer_token",)),
    "azure": (_azure, ("sas_key", "token", "account_key")),
}


def _converter(
    kind: str, convert: Callable[[Mapping[str, str]], dict[str, Any]]
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda options: convert(client_settings(kind, unscoped(options)).config)


def _drop_credentials(settings: ClientSettings) -> None:
    """What a provider will say must not be fixed beside it."""
    for name in (
        "access_key_id", "secret_access_key", "session_token", "bearer_token", "sas_key", "token", "account_key",
    ):  # fmt: skip
        settings.config.pop(name, None)
