"""The dataset that users hold: opening, writing, scanning, taking, searching, deleting, versions, commits.

`core` is the asynchronous implementation, one module for each idea below it: `scanning` and `reading`, `history`
with `references` and `delta`, `configuring`, `upkeep`, `fragments`, `committing`; `writing`, `deleting` and
`inputs` turn what users hand over into files and a commit.  `transactions`, `fragment_metadata`, `index_value`,
`lance_schema` and `upkeep_values` are the values that users hold.  `synchronous` is the door for callers without a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports

if not TYPE_CHECKING:
    __getattr__, __dir__ = imports.late(
        __name__,
        {
            "bitmap": (),
            "column_files": (),
            "committing": (),
            "deleting": (),
            "delta": (),
            "display": (),
            "fragment_metadata": (),
            "fragment_writer": (),
            "fragments": (),
            "index_value": (),
            "inputs": (),
            "lance_schema": (),
            "matching": (),
            "moments": (),
            "operations": (),
            "progress": (),
            "references": (),
            "retrying": (),
            "schema_changes": (),
            "schema_json": (),
            "targets": (),
            "transactions": (),
            "transforms": (),
            "udf": (),
            "updating": (),
            "upkeep_values": (),
            "writing": (),
        },
    )
