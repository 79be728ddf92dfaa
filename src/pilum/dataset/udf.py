"""User-defined functions over batches, and their checkpoints (spec/api.md, section 1).

A function takes a record batch and returns one with the new columns, row by row.  With a checkpoint file, an SQLite
database, every finished batch is kept there: a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pilum import imports
from pilum.errors import InvalidInputError

__all__ = ["BatchUDF", "BatchUDFCheckpoint", "batch_udf"]

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (fragment_id INT, batch_index INT, result BLOB, PRIMARY KEY (fragment_id, batch_index));
CREATE TABLE IF NOT EXISTS fragments (fragment_id INT PRIMARY KEY, data TEXT);
"""


class BatchUDF:
    """A function from record batches to record batches.

    Args:
        func: takes a batch, returns a batch (or a pandas frame) with as many rows and only the new columns.
        output_schema: schema of the new columns; by default that of the first result.
        checkpoint_file: SQLite file with finished batches.
    """

    def __init__(
        self,
        func: Callable[[pa.RecordBatch], Any],
        output_schema: pa.Schema | None = None,
        checkpoint_file: str | Path | None = None,
    ) -> None:
        self.func = func
        self.output_schema = output_schema
        self.cache = None if checkpoint_file is None else BatchUDFCheckpoint(checkpoint_file)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The new columns of some rows.

        Raises:
            InvalidInputError: the function returned something else, or another number of rows.
        """
        result = self.func(batch)
        if not isinstance(result, pa.RecordBatch):
            result = _as_batch(result)
        if self.output_schema is not None and not result.schema.equals(self.output_schema):
            raise InvalidInputError(
                f"the function returned columns {result.schema.to_string()}, its output_schema is "
                f"{self.output_schema.to_string()}"
            )
        if result.num_rows != batch.num_rows:
            raise InvalidInputError(f"the function returned {result.num_rows} rows for {batch.num_rows}")
        return result

    def at(self, fragment_id: int, batch_index: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The new columns of a batch of a fragment, from the checkpoint where they are there."""
        if self.cache is None:
            return self(batch)
        info = BatchUDFCheckpoint.BatchInfo(fragment_id, batch_index)
        found = self.cache.get_batch(info)
        if found is None or found.num_rows != batch.num_rows:
            found = self(batch)
            self.cache.insert_batch(info, found)
        return found


def _as_batch(result: Any) -> pa.RecordBatch:
    if isinstance(result, pa.Table):
        batches = result.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=result.schema)
    if type(result).__module__.partition(".")[0] == "pandas":
        return pa.RecordBatch.from_pandas(result, preserve_index=False)
    raise InvalidInputError(f"the function must return a RecordBatch, not {type(result).__name__}")


def batch_udf(
    output_schema: pa.Schema | None = None, checkpoint_file: str | Path | None = None
) -> Callable[[Callable[[pa.RecordBatch], Any]], BatchUDF]:
    """Mark a function for `LanceDataset.add_columns`.

    Args:
        output_schema: schema of the new columns; by default that of the first result.
        checkpoint_file: SQLite file with finished batches, so that a later run goes on.

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1, 2]}), "memory://doc-udf")
        >>> @pilum.batch_udf()
        ... def twice(batch):
        ...     return pa.record_batch({"b": [2 * one for one in batch["a"].to_pylist()]})
        >>> ds.add_columns(twice)
        >>> ds.to_table().to_pydict()
        {'a': [1, 2], 'b': [2, 4]}
    """

    def mark(func: Callable[[pa.RecordBatch], Any]) -> BatchUDF:
        return BatchUDF(func, output_schema, checkpoint_file)

    return mark


class BatchUDFCheckpoint:
    """Finished batches of a user-defined function, in an SQLite file."""

    class BatchInfo(NamedTuple):
        """A batch: its fragment, and its number within it."""

        fragment_id: int
        batch_index: int

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._database: Any = imports.load("sqlite3").connect(path, check_same_thread=False)
        self._database.executescript(_TABLES)

    def cleanup(self) -> None:
        """Close and remove the file."""
        self._database.close()
        Path(self.path).unlink()

    def get_batch(self, info: BatchInfo) -> pa.RecordBatch | None:
        """The result of a batch, None when it is not there."""
        found = self._one("SELECT result FROM batches WHERE fragment_id = ? AND batch_index = ?", info)
        if found is None:
            return None
        with pa.ipc.open_stream(found) as stream:
            return stream.read_next_batch()

    def insert_batch(self, info: BatchInfo, batch: pa.RecordBatch) -> None:
        """Keep the result of a batch."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", (*info, sink.getvalue().to_pybytes())
            )

    def get_fragment(self, fragment_id: int) -> str | None:
        """What was kept about a fragment that is finished."""
        found: str | None = self._one("SELECT data FROM fragments WHERE fragment_id = ?", (fragment_id,))
        return found

    def insert_fragment(self, fragment_id: int, fragment: str) -> None:
        """Keep the description of a finished fragment; its batches are not needed any more."""
        with self._database:
            self._database.execute("INSERT OR REPLACE INTO fragments VALUES (?, ?)", (fragment_id, fragment))
            self._database.execute("DELETE FROM batches WHERE fragment_id = ?", (fragment_id,))

    def _one(self, query: str, values: Any) -> Any:
        found = self._database.execute(query, tuple(values)).fetchone()
        return None if found is None else found[0]
