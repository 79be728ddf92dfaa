"""The options of object stores, by the names that users of Lance know (spec/read-path.md, section 17).

One flat mapping of strings holds everything: where the store is and who asks (``aws_endpoint``,
``google_service_account``, ``azure_storage_account_name`` ...), how its HTTP client behaves (``timeout``,
``allow_http``, ``proxy_url`` ...) and how requests are retried (``client_max_retries`` ...).  Here it is sorted
into those three; ``cache_dir`` and ``cache_bytes`` say where and how much of it is kept on disk.  Names are not case-sensitive; names that mean nothing to the store are ignored, because
programs pass one mapping to several libraries.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pilum.errors import InvalidInputError
from pilum.io.cached import CacheSettings
from pilum.io.retry import RetryPolicy

__all__ = ["ClientSettings", "cache_settings", "client_settings", "parse_bool", "parse_seconds", "parse_size"]

_S3 = {
    "access_key_id", "secret_access_key", "region", "default_region", "bucket", "endpoint", "session_token",
    "imdsv1_fallback", "virtual_hosted_style_request", "unsigned_payload", "checksum_algorithm",
    "metadata_endpoint", "container_credentials_relative_uri", "container_credentials_full_uri",
    "container_authorization_token_file", "web_identity_token_file", "role_arn", "role_session_name",
    "endpoint_url_sts", "copy_if_not_exists", "conditional_put", "skip_signature", "disable_tagging",
    "s3_express", "request_payer", "server_side_encryption", "sse_kms_key_id", "sse_bucket_key_enabled",
    "sse_customer_key_base64", "disable_bulk_delete", "aws_endpoint_url_s3",
}  # fmt: skip
_AZURE = {
    "account_name", "account_key", "client_id", "client_secret", "tenant_id", "authority_host", "sas_key",
    "token", "use_emulator", "use_fabric_endpoint", "endpoint", "msi_endpoint", "object_id", "msi_resource_id",
    "federated_token_file", "use_azure_cli", "skip_signature", "disable_tagging",
}  # fmt: skip
_GOOGLE = {
    "service_account", "service_account_key", "application_credentials", "bearer_token", "skip_signature",
    "base_url",
}  # fmt: skip

# scheme -> (prefixes of its option names, names, other names of the same)
_NAMES: Mapping[str, tuple[tuple[str, ...], set[str], Mapping[str, str]]] = {
    "s3": (
        ("aws_",),
        _S3,
        {
            "token": "session_token", "endpoint_url": "endpoint", "endpoint_url_s3": "aws_endpoint_url_s3",
            "checksum": "checksum_algorithm", "sts_endpoint": "endpoint_url_sts",
        },
    ),
    "azure": (
        ("azure_storage_", "azure_"),
        _AZURE,
        {
            "access_key": "account_key", "master_key": "account_key", "sas_token": "sas_key",
            "bearer_token": "token", "authority_id": "tenant_id", "identity_endpoint": "msi_endpoint",
        },
    ),
    "google": (
        ("google_",),
        _GOOGLE,
        {
            "service_account_path": "service_account", "storage_token": "bearer_token", "token": "bearer_token",
            "endpoint": "base_url",
        },
    ),
    "http": ((), set(), {}),
}  # fmt: skip

_HTTP_CLIENT = {
    "allow_invalid_certificates", "connect_timeout", "default_content_type", "http1_only", "http2_only",
    "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle",
    "pool_idle_timeout", "pool_max_idle_per_host", "proxy_url", "proxy_ca_certificate", "proxy_excludes",
    "randomize_addresses", "read_timeout", "root_certificate", "timeout", "user_agent",
}  # fmt: skip
_SWITCHES = {
    "allow_invalid_certificates", "http1_only", "http2_only", "http2_keep_alive_while_idle",
    "randomize_addresses",
}  # fmt: skip

_UNITS = {
    "ns": 1e-9, "nsec": 1e-9, "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "millis": 1e-3,
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "": 1.0,
    "m": 60.0, "min": 60.0, "minute": 60.0, "minutes": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0,
    "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?")
_CACHE_BYTES = 10 << 30

# A body that brings nothing for so long is asked for again from where it stopped.
_STALL = 10.0
_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Options sorted by who needs them.

    Attributes:
        config: of the store: address and credentials.
        http: of its HTTP client; times in seconds.
        headers: sent with every request.
        policy: of retrying.
        parallelism: requests in flight at most; None: the store finds out.
        cache: where to keep immutable files on disk; None: nowhere.
    """

    config: dict[str, str]
    http: dict[str, Any]
    headers: dict[str, str]
    policy: RetryPolicy
    parallelism: int | None = None
    cache: CacheSettings | None = None


def parse_bool(name: str, value: Any) -> bool:
    """A switch.

    Raises:
        InvalidInputError: neither true nor false.
    """
    text = str(value).strip().lower()
    if text in ("1", "true", "on", "yes", "y"):
        return True
    if text in ("0", "false", "off", "no", "n", ""):
        return False
    raise InvalidInputError(f"storage option {name} must be true or false, got {value!r}")


def parse_seconds(name: str, value: Any) -> float:
    """A time: a number of seconds, or with units, such as ``30s``, ``500ms`` or ``1m 30s``.

    Raises:
        InvalidInputError: it is not one.
    """
    text = str(value).strip().lower()
    total, at = 0.0, 0
    while at < len(text):
        found = _SPAN.match(text, at)
        if found is None or found[2] not in _UNITS:
            raise InvalidInputError(f"storage option {name} must be a time such as 30s, got {value!r}")
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if not text:
        raise InvalidInputError(f"storage option {name} must be a time such as 30s, got an empty text")
    return total


def _count(name: str, value: Any) -> int:
    try:
        number = int(str(value).strip())
    except ValueError:
        number = -1
    if number < 0:
        raise InvalidInputError(f"storage option {name} must be a number of at least 0, got {value!r}")
    return number


def client_settings(scheme: str, options: Mapping[str, Any]) -> ClientSettings:
    """Sort the options of a store.

    Args:
        scheme: ``s3``, ``azure``, ``google`` or ``http``.
        options: as the user gave them; values are strings, or what has a fitting text.

    Raises:
        InvalidInputError: an option has a value that cannot be.
    """
    given = {str(name).strip().lower(): value for name, value in options.items() if value is not None}
    prefixes, names, aliases = _NAMES[scheme]
    config: dict[str, str] = {}
    http: dict[str, Any] = {"timeout": _TIMEOUT, "connect_timeout": 5.0}
    headers: dict[str, str] = {}
    for name, value in given.items():
        if name.startswith("headers."):
            headers[name.removeprefix("headers.")] = str(value)
        elif "allow_http" in name or name == "azure_storage_use_http":
            http["allow_http"] = parse_bool(name, value)
        elif name in _HTTP_CLIENT:
            if name in _SWITCHES:
                http[name] = parse_bool(name, value)
            elif name.endswith(("timeout", "interval")):
                http[name] = parse_seconds(name, value)
            else:
                http[name] = value if isinstance(value, bytes) else str(value)
        else:
            short = next((name.removeprefix(one) for one in prefixes if name.startswith(one)), name)
            short = aliases.get(short, short)
            if short in names or name in names:
                config[short if short in names else name] = _text(value)
    if "allow_http" not in http:
        for variable in ("AWS_ALLOW_HTTP", "AZURE_STORAGE_ALLOW_HTTP", "AZURE_STORAGE_USE_HTTP"):
            if os.environ.get(variable):
                http["allow_http"] = parse_bool(variable, os.environ[variable])
    http.setdefault("read_timeout", min(_STALL, http["timeout"]))
    return ClientSettings(config, http, headers, _policy(given), _parallelism(given), _cache(given))


def cache_settings(options: Mapping[str, Any] | None) -> CacheSettings | None:
    """Where a mapping of storage options wants immutable files to be kept on disk (`pilum.io.cached`); None: nowhere.

    Raises:
        InvalidInputError: an option has a value that cannot be.
    """
    return _cache({str(name).strip().lower(): value for name, value in (options or {}).items()})


def _cache(given: Mapping[str, Any]) -> CacheSettings | None:
    directory, size = given.get("cache_dir"), given.get("cache_bytes")
    capacity = _CACHE_BYTES if size is None else parse_size("cache_bytes", size)
    if directory is None or not os.fspath(directory):
        return None
    return CacheSettings(os.fsdecode(directory), capacity) if capacity else None


def parse_size(name: str, value: Any) -> int:
    """A number of bytes, or with a unit, such as ``500MB`` or ``20GiB``.

    Raises:
        InvalidInputError: it is not one.
    """
    found = _SIZE.fullmatch(str(value).strip().lower())
    if found is None:
        raise InvalidInputError(f"storage option {name} must be a size such as 20GiB, got {value!r}")
    power = " kmgt".index(found[2] or " ")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parallelism(given: Mapping[str, Any]) -> int | None:
    value = given.get("io_parallelism")
    return None if value is None else max(1, _count("io_parallelism", value))


def _policy(given: Mapping[str, Any]) -> RetryPolicy:
    standard = RetryPolicy()
    retries = os.environ.get("OBJECT_STORE_CLIENT_MAX_RETRIES") or given.get("client_max_retries")
    deadline = os.environ.get("OBJECT_STORE_CLIENT_RETRY_TIMEOUT") or given.get("client_retry_timeout")
    hedge = given.get("hedge_after")
    return RetryPolicy(
        max_retries=standard.max_retries if retries is None else _count("client_max_retries", retries),
        deadline=standard.deadline if deadline is None else parse_seconds("client_retry_timeout", deadline),
        hedge_after=None if hedge is None else parse_seconds("hedge_after", hedge),
    )
