"""Queries: what to read, which rows, in which form.

A filter or a computed column (`pilum.query.binding`) is parsed once, bound to a schema and evaluated batch by batch
with whole-array kernels.  A `ScanRequest` is planned against a `Snapshot` of a table into a `Scan` (filtered read),
a `Search` (nearest neighbours) or a take of rows by position; running one yields record batches, and `explain` and
`analyze` show the plan as text.  Nothing is imported here: the modules are the doors.  Those named below are imported
when a query needs them (`pilum.imports.late`): a filter binds with a few hundred functions, and its text is parsed by
sqlglot, whose import takes 100 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports

if not TYPE_CHECKING:
    __getattr__, __dir__ = imports.late(
        __name__,
        {
            "alike": (),
            "arrow_expressions": (),
            "binding": (),
            "explain": (),
            "fragment_batch": (),
            "fragment_rows": (),
            "metrics": (),
            "pruning": (),
            "request_plan": (),
            "search": (),
            "sql_parser": (),
            "vector_column": (),
            "waterfall": (),
        },
    )
