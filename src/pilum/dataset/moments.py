"""Moments in time as users give them, in nanoseconds since the epoch."""

from __future__ import annotations

import datetime
from typing import Any

from pilum import imports
from pilum.errors import InvalidInputError

__all__ = ["nanoseconds_of", "sanitize_ts", "td_to_micros"]


def sanitize_ts(ts: Any) -> datetime.datetime:
    """A moment as a `datetime`.

    Args:
        ts: a `datetime` or pandas timestamp, or text in ISO form (``2024-01-31 12:00``); without time zone it is
            local time.

    Raises:
        InvalidInputError: text that is no moment.
        TypeError: something else.
    """
    if isinstance(ts, str):
        try:
            return datetime.datetime.fromisoformat(ts.strip())
        except ValueError:
            pass
        try:
            pandas = imports.load("pandas")
        except ImportError:
            raise InvalidInputError(f"{ts!r} is no timestamp in ISO form") from None
        try:
            parsed: datetime.datetime = pandas.to_datetime(ts).to_pydatetime()
        except ValueError as error:
            raise InvalidInputError(f"{ts!r} is no timestamp: {error}") from error
        return parsed
    if hasattr(ts, "to_pydatetime"):
        converted: datetime.datetime = ts.to_pydatetime()
        return converted
    if isinstance(ts, datetime.datetime):
        return ts
    raise TypeError(f"expected a datetime or text, got {type(ts).__name__}")


def nanoseconds_of(ts: Any) -> int:
    """A moment in nanoseconds since the epoch; local time without a time zone."""
    moment = sanitize_ts(ts)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def td_to_micros(td: datetime.timedelta) -> int:
    """A duration in microseconds."""
    return td // datetime.timedelta(microseconds=1)
