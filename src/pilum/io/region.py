"""The region of an Amazon S3 bucket, when nobody says it (spec/read-path.md, section 2.1).

A request that is signed for another region is refused, but S3 tells anybody in which one a bucket is: by a header of
the answer to ``HEAD /bucket``, whatever that answer is.  It is asked once for each bucket, without credentials, while
a store is opened, and only where neither the options nor the environment name a region or another endpoint: a
deployment that says where it is pays nothing, and needs no way to the public address of S3.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import lru_cache

__all__ = ["bucket_region"]

_ADDRESS = "https://s3.amazonaws.com"
_HEADER = "x-amz-bucket-region"
# The caller waits, perhaps on an event loop.
_TIMEOUT = 3.0
_VARIABLES = (
    "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
)  # fmt: skip
_OPTIONS = ("region", "default_region", "endpoint", "aws_endpoint_url_s3", "s3_express")
# No access points, and no directory buckets, whose names say where they are.
_NAME = re.compile(r"(?!.*--x-s3$)[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")


def bucket_region(bucket: str, config: Mapping[str, str]) -> str | None:
    """The region of a bucket; None where it is said already, or S3 cannot be asked.

    Args:
        bucket: its name.
        config: options of the store (`ClientSettings.config`).
    """
    if any(config.get(name) for name in _OPTIONS) or any(os.environ.get(name) for name in _VARIABLES):
        return None
    try:
        return _asked(bucket) if _NAME.fullmatch(bucket) else None
    except OSError:  # no way to S3: not remembered
        return None


@lru_cache(maxsize=256)
def _asked(bucket: str) -> str | None:
    request = urllib.request.Request(f"{_ADDRESS}/{bucket}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            found = answer.headers.get(_HEADER)
    except urllib.error.HTTPError as refused:
        found = refused.headers.get(_HEADER)
    return None if found is None else str(found)
