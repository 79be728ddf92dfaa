"""Writing rows into a table: data files first, then one commit.

```
input ─► batches ─► FileWriter (one file per max_rows_per_file rows) ─► fragments ─► commit(Append | Overwrite)
```

Files go to the folder of the table, or to base paths in turns (`targets`).

Nothing that a published manifest refers to is incomplete: every data file is closed before the commit, and on disk
before the manifest has its name.  When writing or committing fails for certain, the new data files are removed and the old version
stays what it was; a killed process leaves unreferenced files that cleanup finds later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as default_of
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from pilum.dataset import targets
from pilum.dataset.fragment_writer import FragmentWriter, Place, remove_fragments
from pilum.dataset.inputs import InputStream, cut_batches
from pilum.dataset.matching import check_schema, matching_schema
from pilum.errors import (
    AlreadyExistsError,
    CommitConflictError,
    InvalidInputError,
    NotFoundError,
    StoreError,
    UnsupportedError,
)
from pilum.io import Store
from pilum.io.postponed import PostponingStore
from pilum.io.runtime import cancel_and_wait
from pilum.schema import Schema
from pilum.table import (
    Append,
    CommitLock,
    Fragment,
    Manifest,
    NamingScheme,
    Operation,
    Overwrite,
    commit,
    known,
    latest_version,
    load_again,
    load_manifest,
)

if TYPE_CHECKING:
    from pilum.dataset.targets import Targets

__all__ = ["Prepared", "WriteOptions", "append_version", "prepare", "write", "write_fragments"]

_VERSIONS: Mapping[str, tuple[int, int]] = {"stable": (2, 2), "2.2": (2, 2), "2.1": (2, 1), "2.0": (2, 0)}

# Rows that are kept to be written twice, and the format they are written in when the table's is not known yet.
_FEW_BYTES = 4 << 20
_GUESSED_VERSION = (2, 2)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of a write, as users of Lance know them (spec/api.md, section 3).

    Attributes:
        mode: ``create``, ``append`` or ``overwrite``.
        max_rows_per_file: rows of a fragment at most.
        max_bytes_per_file: size of a data file, checked between batches.
        data_storage_version: file format; None for that of the table, or the stable one.
        properties: entries of the transaction.
        commit_lock: held while the version is published.
        stable_row_ids: rows of a new table keep their ids when they move.
        naming: how a new table names its manifests.
        config: entries of the config of a new table.
        progress: told about every fragment: ``begin`` and ``complete``, awaitable or not.
        page_bytes: bytes of a page at most; None for the writer's own limit.
        targets: base paths of a new table and places to write to; None for the table's own folder.
    """

    mode: str = "create"
    max_rows_per_file: int = 1 << 20
    max_bytes_per_file: int = 90 << 30
    data_storage_version: str | None = None
    properties: Mapping[str, str] | None = None
    commit_lock: CommitLock | None = None
    stable_row_ids: bool = False
    naming: NamingScheme = NamingScheme.V2
    config: Mapping[str, str] = default_of(default_factory=dict)
    progress: Any = None
    page_bytes: int | None = None
    targets: Targets | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("create", "append", "overwrite"):
            raise InvalidInputError(f"mode must be create, append or overwrite, got {self.mode!r}")
        for name in ("max_rows_per_file", "max_bytes_per_file"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)}")
        version = self.data_storage_version
        if version is not None and version not in _VERSIONS:
            known = ", ".join(_VERSIONS)
            if version in ("next", "2.3", "legacy", "0.1"):
                raise UnsupportedError(
                    f"data_storage_version {version!r} cannot be written; use one of {known}"
                )
            raise InvalidInputError(f"unknown data_storage_version {version!r}; use one of {known}")


class Prepared(NamedTuple):
    """Data files that are written and not committed.

    Attributes:
        operation: what a commit would do with them.
        read_version: version it was computed on; None when the table is new.
        fragments: the new fragments.
        places: where their files are.
        base: that version, where a commit need not read it again.
    """

    operation: Operation
    read_version: int | None
    fragments: list[Fragment]
    places: list[Place]
    base: Awaitable[Manifest] | None = None


async def write(
    store: Store, data: InputStream, options: WriteOptions, base: Manifest | None = None
) -> Manifest:
    """Write ``data`` as a new version and return its manifest.

    Args:
        store: the table's store.
        data: the rows.
        options: how to write them.
        base: a version of the table that is at hand; by default, and without a network, the newest is looked for.

    Raises:
        AlreadyExistsError: ``mode="create"`` and the dataset exists.
        InvalidInputError: the rows do not fit the schema.
        CommitConflictError: another writer's commit cannot be combined with this one.
    """
    if store.suspends and base is None and options.mode == "append" and options.targets is None:
        data, small = _peek(data)
        if small is not None:
            written = await _append_by_guess(store, small, options)
            if written is not None:
                return written
    into = PostponingStore(store)
    try:
        prepared = await prepare(store, data, options, into=into, current=base)
        return await _commit(store, prepared, options, into.settle, into)
    finally:
        await into.stop()


class _WrongGuess(Exception):
    """The table is not what its new rows look like."""


_CERTAIN = (CommitConflictError, AlreadyExistsError, InvalidInputError, UnsupportedError)


async def _commit(
    store: Store,
    prepared: Prepared,
    options: WriteOptions,
    before: Callable[[], Awaitable[None]],
    into: PostponingStore,
) -> Manifest:
    complete = False

    async def first() -> None:
        nonlocal complete
        await before()
        complete = True

    try:
        return await commit(
            store,
            prepared.operation,
            read_version=prepared.read_version,
            properties=options.properties,
            commit_lock=options.commit_lock,
            stable_row_ids=options.stable_row_ids,
            naming=options.naming,
            base=prepared.base,
            before=first,
            into=into,
        )
    except _WrongGuess:
        raise
    except Exception as error:
        # Nothing is published before the files are complete, and these errors say that it certainly did not
        # happen; after any other one it may have.
        if not complete or isinstance(error, _CERTAIN):
            await into.stop()
            await remove_fragments(prepared.places, prepared.fragments)
        raise


def _peek(data: InputStream) -> tuple[InputStream, list[pa.RecordBatch] | None]:
    """The same rows, and all of them if they are few."""
    taken: list[pa.RecordBatch] = []
    size = 0
    for batch in data.batches:
        taken.append(batch)
        size += batch.nbytes
        if size > _FEW_BYTES:
            return InputStream(data.schema, chain(taken, data.batches)), None
    return InputStream(data.schema, iter(taken)), taken


async def _append_by_guess(
    store: Store, batches: list[pa.RecordBatch], options: WriteOptions
) -> Manifest | None:
    """Append a few rows in three round trips instead of four.

    What the table looks like is only known when its manifest is here.  Meanwhile the rows are written as if the
    table had just their schema, which it mostly has; if it does not, the file is thrown away.

    Returns:
        The new version; None if there is no table or the guess was wrong: then nothing has happened.
    """
    import asyncio

    try:
        version = await latest_version(store)
    except NotFoundError:
        return None
    if not batches:
        return None
    rows = batches[0].schema
    check_schema(rows)
    guess = Schema.from_arrow(rows)
    base = asyncio.ensure_future(load_manifest(store, version))
    into = PostponingStore(store)
    places = [Place(into)]
    fragments: list[Fragment] = []

    async def before() -> None:
        current = await base
        if (
            current.data_version != _GUESSED_VERSION
            or options.data_storage_version not in (None, *_names_of(_GUESSED_VERSION))
            or matching_schema(current.schema, rows).fields != guess.fields
        ):
            raise _WrongGuess
        await into.settle()

    try:
        await asyncio.sleep(0)  # the request goes out before this thread is busy with encoding
        fragments = await write_fragments(places, iter(batches), guess, _GUESSED_VERSION, options)
        prepared = Prepared(Append(tuple(fragments)), version, fragments, places, base)
        return await _commit(store, prepared, options, before, into)
    except (_WrongGuess, NotFoundError):
        # NotFoundError: the version was removed since it was listed.
        with contextlib.suppress(StoreError):
            await into.settle()
        await remove_fragments(places, fragments)
        return None
    finally:
        await into.stop()
        await cancel_and_wait([base])


def _names_of(version: tuple[int, int]) -> list[str]:
    return [name for name, numbers in _VERSIONS.items() if numbers == version]


async def prepare(
    store: Store,
    data: InputStream,
    options: WriteOptions,
    *,
    into: PostponingStore | None = None,
    current: Manifest | None = None,
) -> Prepared:
    """Write the data files of ``data`` and say what a commit would do with them.

    Args:
        store: the table's store.
        data: the rows.
        options: how to write them.
        into: where the files are created, if not in the store itself.
        current: the newest version, as far as is known.

    Raises:
        AlreadyExistsError, InvalidInputError: as `write`.
    """
    if current is None or not store.suspends or options.targets is not None:
        # Base paths may have been added since.
        current = await _current(store, current)
    if current is not None and options.mode == "create":
        raise AlreadyExistsError(
            f"dataset already exists: {store.uri}; use mode='append' or mode='overwrite'"
        )
    check_schema(data.schema)
    appending = current is not None and options.mode == "append"
    if appending:
        assert current is not None
        schema = matching_schema(current.schema, data.schema)
        version = append_version(current, options)
    else:
        schema = Schema.from_arrow(data.schema)
        version = _VERSIONS[options.data_storage_version or "stable"]
    elsewhere = options.targets
    if elsewhere is None:
        places = [Place(into or store)]
    else:
        places = targets.open_places(store, current, elsewhere, into)
    fragments = await write_fragments(places, data.batches, schema, version, options)
    read_version = None if current is None else current.version
    base = None if current is None else known(store, current)
    if appending:
        return Prepared(Append(tuple(fragments)), read_version, fragments, places, base)
    config = {} if current is not None else options.config
    initial = () if elsewhere is None else elsewhere.initial
    operation = Overwrite(tuple(fragments), schema, version, config, initial)
    return Prepared(operation, read_version, fragments, places, base)


async def write_fragments(
    places: list[Place],
    batches: Iterator[pa.RecordBatch],
    schema: Schema,
    version: tuple[int, int],
    options: WriteOptions,
) -> list[Fragment]:
    """Write data files without committing; each becomes a fragment whose id the commit assigns."""
    writer = FragmentWriter(
        places,
        schema,
        version,
        max_rows=options.max_rows_per_file,
        max_bytes=options.max_bytes_per_file,
        page_bytes=options.page_bytes,
        progress=options.progress,
    )
    try:
        for batch in cut_batches(batches):
            await writer.write(batch)
        return await writer.finish()
    except BaseException:
        await writer.abort()
        raise


async def _current(store: Store, seen: Manifest | None) -> Manifest | None:
    """The newest version, which may be the one that was seen."""
    try:
        version = await latest_version(store)
        if seen is not None and seen.version == version:
            return await load_again(store, seen)
        return await load_manifest(store, version, lazy=True)
    except NotFoundError:
        return None


def append_version(current: Manifest, options: WriteOptions) -> tuple[int, int]:
    """The file format of new files of a table.

    Raises:
        UnsupportedError: it is not written any more.
        InvalidInputError: another one is asked for.
    """
    wanted = options.data_storage_version
    if current.data_version not in _VERSIONS.values():
        version = ".".join(map(str, current.data_version))
        raise UnsupportedError(
            f"cannot append to a dataset of file version {version}, which is not written any more; rewrite the "
            "dataset first: write_dataset(dataset, uri, mode='overwrite', data_storage_version='stable')"
        )
    if wanted is not None and _VERSIONS[wanted] != current.data_version:
        raise InvalidInputError(
            f"the dataset has file version {'.'.join(map(str, current.data_version))}, cannot append {wanted}"
        )
    return current.data_version
