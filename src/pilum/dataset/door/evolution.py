"""Changing rows in place and columns as a whole, synchronously."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pilum.dataset.door.base import Door

__all__ = ["EvolutionDoor"]


class EvolutionDoor(Door):
    """The calls of `pilum.LanceDataset` that update rows, and add, change and drop columns."""

    def update(
        self,
        updates: Mapping[str, str],
        where: str | Any = None,
        conflict_retries: int = 10,
        retry_timeout: datetime.timedelta = datetime.timedelta(seconds=30),
        data_storage_version: str | None = None,
    ) -> dict[str, int]:
        """Give columns of the rows that match new values; returns ``{"num_rows_updated": n}``.

        Changed rows move to new fragments and come last; with stable row ids they keep their ids.  Old and new rows
        change places in one commit.  A new version is committed also when nothing matched.

        Args:
            updates: column -> SQL expression over the columns of the row as it was.
            where: SQL text or a ``pyarrow.compute.Expression``; all rows by default.
            conflict_retries: how often to start over when others changed the same rows.
            retry_timeout: time after which it is not started over any more.
            data_storage_version: that of the dataset; another one is refused.

        Raises:
            InvalidInputError: a column is unknown, an expression is no good, or a value does not fit its column.
            CommitConflictError: others kept changing the same rows.

        Example:
            >>> import pilum, pyarrow as pa
            >>> ds = pilum.write_dataset(pa.table({"a": [1, 2], "b": ["x", "y"]}), "memory://doc-update")
            >>> ds.update({"b": "b || '!'"}, where="a = 2")
            {'num_rows_updated': 1}
            >>> ds.to_table().to_pydict()
            {'a': [1, 2], 'b': ['x', 'y!']}
        """
        coroutine = self.aio.update(
            updates,
            where,
            conflict_retries=conflict_retries,
            retry_timeout=retry_timeout,
            data_storage_version=data_storage_version,
        )
        return self._run(coroutine)

    def add_columns(
        self,
        transforms: Any,
        read_columns: Sequence[str] | None = None,
        reader_schema: pa.Schema | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Add columns to all rows; existing data files stay as they are.

        Args:
            transforms: one of

                - a dictionary, name -> SQL expression over the other columns;
                - a `BatchUDF`, or any function from a record batch to one with the new columns, as many rows;
                - rows with the new columns in the order of the table, as for `pilum.write_dataset`;
                - an Arrow field, a list of fields or a schema: columns of nulls, for which nothing is written.
            read_columns: columns that a function is given; all by default.
            reader_schema: schema of the new columns, for iterators of batches and for functions.
            batch_size: rows that a function is given at once.

        Raises:
            InvalidInputError: a column exists already, or there are more or fewer values than rows.
            CommitConflictError: others changed rows meanwhile.

        Example:
            >>> import pilum, pyarrow as pa
            >>> ds = pilum.write_dataset(pa.table({"a": [1, 2]}), "memory://doc-add-columns")
            >>> ds.add_columns({"b": "a * 10"})
            >>> ds.to_table().to_pydict()
            {'a': [1, 2], 'b': [10, 20]}
        """
        self._run(self.aio.add_columns(transforms, read_columns, reader_schema, batch_size))

    def merge(
        self, data_obj: Any, left_on: str, right_on: str | None = None, schema: pa.Schema | None = None
    ) -> None:
        """Add the columns of another table by a key; rows without a match get nulls.

        Args:
            data_obj: rows with the key and the new columns; held in memory.  Of rows with equal keys the last wins.
            left_on: key column of the dataset; ``_rowid`` and ``_rowaddr`` are possible.
            right_on: key column of the data, by default of the same name.
            schema: needed for iterators of batches.

        Raises:
            InvalidInputError: a column exists already, a key is missing, or the keys differ in type.
            CommitConflictError: others changed rows meanwhile.
        """
        self._run(self.aio.merge(data_obj, left_on, right_on, schema))

    def alter_columns(self, *alterations: Mapping[str, Any]) -> None:
        """Rename columns, change whether they allow nulls, or give them another type, all in one commit.

        Args:
            alterations: dictionaries with ``path`` (``a.b`` for a field of a struct) and any of ``name``,
                ``nullable`` and ``data_type``.  Only a new type writes data: one new file for every fragment.

        Raises:
            InvalidInputError: a column is unknown, a type cannot be reached, or a column to become required holds
                nulls.
            CommitConflictError: others changed rows meanwhile.

        Example:
            >>> import pilum, pyarrow as pa
            >>> ds = pilum.write_dataset(pa.table({"a": [1, 2]}), "memory://doc-alter")
            >>> ds.alter_columns({"path": "a", "name": "b", "data_type": pa.int32()})
            >>> ds.schema
            b: int32
        """
        self._run(self.aio.alter_columns(*alterations))

    def drop_columns(self, columns: Iterable[str]) -> None:
        """Drop columns; the values stay in their files until these are rewritten.

        Args:
            columns: names; ``a.b`` drops a field of a struct.

        Raises:
            InvalidInputError: a column is unknown, or none would be left.
        """
        self._run(self.aio.drop_columns(columns))
