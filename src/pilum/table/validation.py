"""Checking a version: the manifest against itself and against the files it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing

from pilum.errors import CorruptFileError, PilumError
from pilum.io import Store, current_runtime
from pilum.table.deletions import read_deletions
from pilum.table.files import INDEX_FILE, TRANSACTION_FILE, files_of
from pilum.table.indices import covered_fragments, is_system_index
from pilum.table.lineage import created_versions, fragment_row_ids, updated_versions
from pilum.table.locations import index_location, open_location
from pilum.table.model import Fragment, Manifest
from pilum.table.naming import manifest_path
from pilum.table.row_id_index import load_row_id_index

__all__ = ["find_problems", "validate"]

_WINDOW = 64


async def validate(
    store: Store, manifest: Manifest, *, open_base: Callable[[Store, str], Store] = open_location
) -> None:
    """Check a version and all files it names; data files are looked for, not read.

    Raises:
        CorruptFileError: something is wrong; the message says everything that was found.
    """
    problems = await find_problems(store, manifest, open_base=open_base)
    if problems:
        raise CorruptFileError(f"{store.uri}, version {manifest.version}: {'; '.join(problems)}")


async def find_problems(
    store: Store, manifest: Manifest, *, open_base: Callable[[Store, str], Store] = open_location
) -> list[str]:
    """What is wrong with a version, in words; empty for a good one.

    Args:
        store: the table's store.
        manifest: the version.
        open_base: opens the address of a base path.
    """
    problems = list(_contradictions(manifest))
    problems += await _missing_files(store, manifest, open_base)
    problems += await _bad_deletions(store, manifest)
    if manifest.uses_stable_row_ids and not problems:
        problems += [text for one in manifest.fragments if (text := _bad_row_ids(one, manifest))]
        if not problems:
            try:
                await load_row_id_index(store, manifest)
            except PilumError as error:
                problems.append(str(error))
    return problems


def _contradictions(manifest: Manifest) -> Iterator[str]:
    highest = manifest.max_fragment_id
    columns = {field.id for field in manifest.schema.walk()}
    required = {leaf.id for leaf in manifest.schema.leaves() if not leaf.nullable and leaf.parent_id == -1}
    for fragment in manifest.fragments:
        if highest is None or fragment.id > highest:
            yield f"fragment {fragment.id} is above the highest id {highest}"
        fields = Counter(one for file in fragment.files for one in file.fields if one >= 0)
        twice = [one for one, count in fields.items() if count > 1]
        if twice:
            yield f"field {twice[0]} is in two files of fragment {fragment.id}"
        if required - fields.keys():
            yield f"fragment {fragment.id} has no values for the required field {min(required - fields.keys())}"
    uuids = Counter(index.uuid for index in manifest.indices)
    for index in manifest.indices:
        if uuids[index.uuid] > 1:
            yield f"two index entries have the uuid of {index.name}"
        if not is_system_index(index) and not columns.issuperset(index.fields):
            yield f"index {index.name} is on a field that the schema does not have"
        try:
            covered_fragments(index)
        except CorruptFileError as error:
            yield str(error)


async def _missing_files(
    store: Store, manifest: Manifest, open_base: Callable[[Store, str], Store]
) -> list[str]:
    try:
        files = list(files_of(store.uri, manifest, manifest_path(manifest.version)))
    except CorruptFileError as error:
        return [str(error)]
    # A transaction file may be gone: the manifest has a copy.  A system index needs no folder.
    optional = {
        index_location(store.uri, manifest, one).key + "/" for one in manifest.indices if is_system_index(one)
    }
    files = [one for one in files[1:] if one.kind != TRANSACTION_FILE and one.path not in optional]
    places = {one.uri: open_base(store, one.uri) for one in files}
    listed: dict[tuple[str, str], dict[str, int]] = {}
    for uri, folder in sorted({(one.uri, _folder(one.path)) for one in files}):
        listed[uri, folder] = {info.path: info.size for info in await places[uri].list(folder)}
    problems = []
    for one in files:
        found = listed[one.uri, _folder(one.path)]
        if one.path.endswith("/"):
            if one.kind != INDEX_FILE or not any(path.startswith(one.path) for path in found):
                problems.append(f"{one.uri}/{one.path} is missing")
        elif one.path not in found:
            problems.append(f"{one.kind} {one.uri}/{one.path} is missing")
        elif one.size and found[one.path] != one.size:
            problems.append(
                f"{one.kind} {one.uri}/{one.path} has {found[one.path]} bytes, the manifest says {one.size}"
            )
    return problems


def _folder(path: str) -> str:
    return path.rpartition("/")[0].partition("/")[0]


async def _bad_deletions(store: Store, manifest: Manifest) -> list[str]:
    async def check(fragment: Fragment) -> str | None:
        try:
            await read_deletions(store, fragment, bases=manifest.base_paths)
        except PilumError as error:
            return str(error)
        return None

    fragments = [one for one in manifest.fragments if one.deletion_file is not None]
    problems = []
    stream = current_runtime().map_ordered(check, fragments, window=_WINDOW, suspends=store.suspends)
    async with aclosing(stream):
        async for problem in stream:
            if problem is not None:
                problems.append(problem)
    return problems


def _bad_row_ids(fragment: Fragment, manifest: Manifest) -> str | None:
    try:
        ids = fragment_row_ids(fragment)
        created_versions(fragment)
        updated_versions(fragment)
    except PilumError as error:
        return str(error)
    if len(ids) and int((ids.starts + (ids.lengths - 1).astype("u8")).max()) >= manifest.next_row_id:
        return (
            f"fragment {fragment.id} has a row id that is not given out yet ({manifest.next_row_id} is next)"
        )
    return None
