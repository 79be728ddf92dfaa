"""How a dataset shows itself in a notebook; from its manifest alone."""

from __future__ import annotations

import datetime
from html import escape

from pilum.table import Manifest

__all__ = ["as_html"]

# Columns of a wide table that are shown.
_COLUMNS = 50


def as_html(uri: str, manifest: Manifest) -> str:
    """A small HTML table: address, version, rows, size on disk, and the columns with their types."""
    fragments = manifest.fragments
    size = sum(file.size for fragment in fragments for file in fragment.files)
    deleted = sum(fragment.num_deleted_rows for fragment in fragments)
    moment = datetime.datetime.fromtimestamp(manifest.timestamp_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    facts = [
        (
            "version",
            f"{manifest.version} of {moment}" + (f", branch {manifest.branch}" if manifest.branch else ""),
        ),
        ("rows", f"{manifest.num_rows:,}" + (f" and {deleted:,} deleted" if deleted else "")),
        ("fragments", f"{len(fragments):,}"),
        ("size", _bytes(size)),
        ("format", ".".join(map(str, manifest.data_version))),
    ]
    columns = [
        (field.name, str(field.arrow_type) + ("" if field.nullable else " not null"))
        for field in manifest.schema.fields[:_COLUMNS]
    ]
    if len(manifest.schema.fields) > _COLUMNS:
        columns.append(("…", f"{len(manifest.schema.fields) - _COLUMNS} more columns"))
    return (
        f"<div><strong>LanceDataset</strong> <code>{escape(uri)}</code>"
        f"<table>{_rows(facts)}</table>"
        f"<table><thead><tr><th>column</th><th>type</th></tr></thead>{_rows(columns)}</table></div>"
    )


def _rows(pairs: list[tuple[str, str]]) -> str:
    return "".join(f"<tr><td>{escape(one)}</td><td>{escape(other)}</td></tr>" for one, other in pairs)


def _bytes(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
