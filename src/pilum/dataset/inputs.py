"""What a user hands to a writer, as one Arrow schema and a stream of record batches.

Accepted are the forms of the API specification (section 3, "ReaderLike"): Arrow tables, batches and
readers, any object with ``__arrow_c_stream__``, pandas and polars frames, a dictionary of columns, a list
of dictionaries, iterators of record batches with a schema, pyarrow datasets and scanners, and pilum's own
datasets and scanners (duck-typed through ``to_reader``).

Nothing here touches a store; conversion is lazy where the input is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError

__all__ = ["InputStream", "read_input"]

# A batch above this many bytes is cut before it reaches the writer, so that no 32-bit offset overflows
# and memory stays bounded by the page size rather than by the caller's batch.
_MAX_BATCH_BYTES = 1 << 30


class InputStream(NamedTuple):
    """A schema and the batches that follow it, each with exactly that schema."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def read_input(data: Any, schema: pa.Schema | None = None) -> InputStream:
    """Turn any accepted input into an `InputStream`.

    Args:
        data: see the module docstring.
        schema: required for iterators of batches and for empty lists; for dictionaries, lists of
            dictionaries and pandas frames it fixes the types.  Arrow tables and readers keep their own.

    Raises:
        TypeError: ``data`` is not something that can hold rows.
        InvalidInputError: a needed schema is missing, or a value does not convert.
    """
    if data is None or isinstance(data, (bool, int, float)):
        raise TypeError(f"cannot write data of type {type(data).__name__}")
    if isinstance(data, pa.RecordBatch):
        return InputStream(data.schema, iter([data]))
    if isinstance(data, pa.Table):
        return InputStream(data.schema, iter(data.to_batches()))
    if isinstance(data, pa.RecordBatchReader):
        return InputStream(data.schema, iter(data))
    if isinstance(data, Mapping):
        return _of_table(_converted(pa.Table.from_pydict, dict(data), schema))
    if isinstance(data, list):
        return _of_list(data, schema)
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    if kind == "pandas.DataFrame":
        # One thread: pyarrow's converter would otherwise start a pool of its own.
        arrays.prepare()
        table = pa.Table.from_pandas(data, schema=schema, preserve_index=False, nthreads=1)
        return _of_table(table.replace_schema_metadata(None))
    if kind == "polars.DataFrame":
        return _of_table(data.to_arrow())
    if hasattr(data, "to_reader"):
        return read_input(data.to_reader(), schema)
    if hasattr(data, "scanner"):
        return read_input(data.scanner().to_reader(), schema)
    if hasattr(data, "__arrow_c_stream__"):
        return read_input(pa.RecordBatchReader.from_stream(data), schema)
    if hasattr(data, "__arrow_c_array__"):
        return read_input(pa.record_batch(data), schema)
    if isinstance(data, Iterable):
        return _of_iterable(iter(data), schema)
    raise TypeError(f"cannot write data of type {type(data).__name__}")


def _of_table(table: pa.Table) -> InputStream:
    return InputStream(table.schema, iter(table.to_batches()))


def _of_list(data: list[Any], schema: pa.Schema | None) -> InputStream:
    if not data:
        if schema is None:
            raise InvalidInputError("an empty list needs a schema: pass schema=")
        return InputStream(schema, iter(()))
    if isinstance(data[0], Mapping):
        return _of_table(_converted(pa.Table.from_pylist, data, schema))
    if isinstance(data[0], pa.RecordBatch) and schema is None:
        schema = data[0].schema
    return _of_iterable(iter(data), schema)


def _converted(convert: Any, data: Any, schema: pa.Schema | None) -> pa.Table:
    arrays.prepare()
    try:
        return convert(data, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, KeyError) as error:
        raise InvalidInputError(f"the data does not convert to Arrow: {error}") from error


def _of_iterable(batches: Iterator[Any], schema: pa.Schema | None) -> InputStream:
    if schema is None:
        raise InvalidInputError("an iterator of record batches needs a schema: pass schema=")
    return InputStream(schema, _cast_all(batches, schema))


def _cast_all(batches: Iterator[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if not isinstance(batch, pa.RecordBatch):
            raise InvalidInputError(
                f"expected record batches, the iterator gave {type(batch).__name__}; "
                "use Table.to_batches() to turn a table into batches"
            )
        if batch.schema.equals(schema):
            yield batch
            continue
        try:
            arrays.compute()
            yield batch.select(schema.names).cast(schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError) as error:
            raise InvalidInputError(f"a batch does not have the schema that was given: {error}") from error


def cut_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows with no batch above 1 GiB (a single larger row passes whole)."""
    for batch in batches:
        size = batch.nbytes
        if size <= _MAX_BATCH_BYTES or batch.num_rows <= 1:
            yield batch
            continue
        rows = max(1, batch.num_rows * _MAX_BATCH_BYTES // size)
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)
