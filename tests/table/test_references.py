"""Tags, branches, clones, base paths, naming schemes: golden files, round trips, and the reference as a reader."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pilum.errors import AlreadyExistsError, CorruptFileError, InvalidInputError, NotFoundError
from pilum.io import LocalStore, MemoryStore, Store
from pilum.table import (
    Append,
    BasePath,
    Branch,
    DataFile,
    Delete,
    Location,
    NamingScheme,
    Overwrite,
    Tag,
    UpdateBases,
    branch_store,
    commit,
    create_branch,
    create_tag,
    data_file_location,
    deep_clone,
    delete_branch,
    delete_tag,
    describe_versions,
    find_versions,
    folder_of,
    get_branch,
    get_tag,
    index_location,
    latest_version,
    list_branches,
    list_tags,
    list_versions,
    load_manifest,
    main_store,
    migrate_names_to_v2,
    open_location,
    read_deletions,
    read_transactions,
    resolve,
    shallow_clone,
    summarize,
    update_tag,
    version_at,
    write_deletions,
)
from pilum.table.fragment_codec import encode_fragment
from pilum.table.history import count_encoded
from pilum.table.naming import DETACHED_BIT, VERSION_HINT
from pilum.table.refs import decode_branch, decode_tag, encode_branch, encode_tag
from tests.support import GOLDEN, expected_table
from tests.table.tables import SCHEMA, copy_golden, drive, fragment, memory_table

TABLES = GOLDEN / "table"


@pytest.fixture(params=["memory", "local"])
def main(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A table with versions 1 and 2."""
    store = MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "t.lance")
    memory_table(2, store=store)
    drive(commit(store, Append((fragment(),)), read_version=1))
    return store


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.golden
def test_golden_reference_files() -> None:
    refs = TABLES / "tags_branches.lance" / "_refs"
    for path in [*refs.glob("tags/*.json"), *refs.glob("branches/*.json")]:
        data = path.read_bytes()
        if path.parent.name == "tags":
            assert encode_tag(decode_tag(data, "t")) == data
        else:
            assert encode_branch(decode_branch(data, "t")) == data
    store = LocalStore(TABLES / "tags_branches.lance")
    tags, branches = drive(list_tags(store)), drive(list_branches(store))
    assert {name: (tag.branch, tag.version) for name, tag in tags.items()} == {
        "t1": (None, 1),
        "latest-ok": (None, 1),
        "bt": ("dev/x", 3),
    }
    assert branches["exp"].parent_branch == "dev/x"
    assert branches["exp"].descends_from(branches["dev/x"])
    assert not branches["dev/x"].descends_from(branches["exp"])
    found = drive(resolve(store, ("dev/x", None)))
    assert (found.branch, found.version) == ("dev/x", 4)
    manifest = drive(load_manifest(found.store, found.version))
    assert manifest.branch == "dev/x"
    assert main_store(found.store, manifest.branch).uri == store.uri
    assert drive(resolve(store, "bt"))[1:] == ("dev/x", 3)
    assert drive(resolve(store, 1, current="exp"))[1:] == ("exp", 1)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"version": "1"}', '{"version": 1, "createdAt": "x"}', '{"version": 1, "branch": 3}',
     '{"version": 1, "metadata": []}', '{"version": -1}'],
)  # fmt: skip
def test_damaged_reference_files(text: str) -> None:
    with pytest.raises(CorruptFileError, match=r"x\.json"):
        decode_tag(text.encode(), "x.json")


def test_sparse_reference_files() -> None:
    assert decode_tag(b'{"version": 3, "branch": null}', "t") == Tag(None, 3)
    assert (
        decode_tag(b'{"version": 3, "createdAt": "1970-01-01T00:00:01.5Z"}', "t").created_at_ns
        == 1_500_000_000
    )
    old = decode_branch(b'{"parentVersion": 4, "createAt": 9}', "t")
    assert old.lineage == ((4, f"{9:032x}"),)
    with pytest.raises(CorruptFileError, match="identifier"):
        decode_branch(b'{"parentVersion": 4, "identifier": 3}', "t")


@pytest.mark.parametrize("name", ["", "a b", ".a", "a.", "a..b", "a.lock", "a/b", "ä/"])
def test_tag_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(repr(name))):
        drive(get_tag(MemoryStore(), name))


@pytest.mark.parametrize("name", ["", "main", "/a", "a/", "a//b", "a/../b", "..", "a\\b", "a b", "x.lock"])
def test_branch_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="branch name"):
        drive(get_branch(MemoryStore(), name))


# -- tags and branches ---------------------------------------------------------------------------------


def test_the_life_of_a_tag(main: Store) -> None:
    tag = drive(create_tag(main, "ä-1.0_x", None, 1))
    assert drive(get_tag(main, "ä-1.0_x")) == tag
    with pytest.raises(AlreadyExistsError, match="already exists"):
        drive(create_tag(main, "ä-1.0_x", "main", 2))
    with pytest.raises(NotFoundError, match="main:9 does not exist"):
        drive(create_tag(main, "b", None, 9))
    moved = drive(update_tag(main, "ä-1.0_x", None, 2))
    assert (moved.version, moved.created_at_ns) == (2, tag.created_at_ns)
    drive(delete_tag(main, "ä-1.0_x"))
    for call in (get_tag, delete_tag):
        with pytest.raises(NotFoundError, match="does not exist"):
            drive(call(main, "ä-1.0_x"))
    with pytest.raises(NotFoundError):
        drive(update_tag(main, "ä-1.0_x", None, 1))
    assert drive(list_tags(main)) == {}


def test_the_life_of_a_branch(main: Store) -> None:
    first = drive(create_branch(main, "dev/x", None, 1))
    assert (first.version, first.branch) == (1, "dev/x")
    dev = branch_store(main, "dev/x")
    assert dev.uri == f"{main.uri}/tree/dev/x"
    second = drive(commit(dev, Append((fragment(),)), read_version=1))
    assert (second.version, second.branch) == (2, "dev/x")
    assert drive(list_versions(dev)) == [1, 2]
    assert drive(list_versions(main)) == [1, 2]
    drive(create_branch(main, "exp", "dev/x", 2))
    branches = drive(list_branches(main))
    assert branches["exp"].lineage[:1] == branches["dev/x"].lineage
    exp = drive(load_manifest(branch_store(main, "exp"), 2))
    # One file from main, by way of two bases, and one of dev/x.
    places = [data_file_location(branch_store(main, "exp").uri, exp, f.files[0]).uri for f in exp.fragments]
    assert places == [main.uri, main.uri, dev.uri]
    with pytest.raises(AlreadyExistsError, match="branch exp already exists"):
        drive(create_branch(main, "exp", None, 1))
    with pytest.raises(NotFoundError, match="branch nope"):
        drive(create_branch(main, "other", "nope", 1))
    with pytest.raises(InvalidInputError, match="branch exp was made from"):
        drive(delete_branch(main, "dev/x"))
    drive(create_tag(main, "t", "exp", 2))
    with pytest.raises(InvalidInputError, match="tag t names"):
        drive(delete_branch(main, "exp"))
    drive(delete_tag(main, "t"))
    drive(delete_branch(main, "exp"))
    with pytest.raises(NotFoundError, match="branch exp does not exist"):
        drive(delete_branch(main, "exp"))
    assert list(drive(list_branches(main))) == ["dev/x"]
    assert drive(load_manifest(dev, 2)).num_rows == 9


def test_a_branch_leaves_nested_ones_alone(main: Store) -> None:
    drive(create_branch(main, "a", None, 1))
    drive(create_branch(main, "a/b", None, 1))
    drive(delete_branch(main, "a"))
    assert drive(load_manifest(branch_store(main, "a/b"), 1)).branch == "a/b"
    assert not [one for one in drive(main.list("tree")) if not one.path.startswith("tree/a/b/")]


def test_an_unfinished_branch(main: Store) -> None:
    drive(create_branch(main, "dev", None, 1))
    drive(main.delete("_refs/branches/dev.json"))
    with pytest.raises(AlreadyExistsError, match="unfinished"):
        drive(create_branch(main, "dev", None, 2))
    assert drive(create_branch(main, "dev", None, 1)).branch == "dev"
    drive(main.delete("_refs/branches/dev.json"))
    drive(delete_branch(main, "dev"))
    drive(create_branch(main, "dev", None, 2))


def test_deletions_on_a_branch_stay_there(main: Store) -> None:
    table = drive(load_manifest(main, 2))
    file = drive(write_deletions(main, table.fragments[0], [0], 2))
    drive(commit(main, Delete((replace(table.fragments[0], deletion_file=file),), ()), read_version=2))
    drive(create_branch(main, "dev", None, 3))
    dev = branch_store(main, "dev")
    table = drive(load_manifest(dev, 3))
    one = table.fragments[0]
    assert one.deletion_file is not None
    assert one.deletion_file.base_id == 0
    assert drive(read_deletions(dev, one, bases=table.base_paths)).tolist() == [0]
    both = []
    for offset in (1, 2):
        file = drive(write_deletions(dev, one, [0, offset], 3))
        both.append(Delete((replace(one, deletion_file=file),), ()))
    with pytest.raises(NotFoundError):
        drive(main.head(f"_deletions/0-3-{file.id}.arrow"))
    for delete in both:  # the second one reads all three vectors, in two places, and empties the fragment
        table = drive(commit(dev, delete, read_version=3))
    assert [f.id for f in table.fragments] == [1, 2]


# -- clones --------------------------------------------------------------------------------------------


def test_shallow_clones(main: Store) -> None:
    target = MemoryStore()
    clone = drive(shallow_clone(main, 2, target))
    assert (clone.version, clone.branch) == (2, None)
    assert clone.base_paths == (BasePath(0, main.uri, True),)
    assert data_file_location("x", clone, clone.fragments[0].files[0]).uri == main.uri
    again = drive(shallow_clone(target, 2, MemoryStore()))
    assert [base.id for base in again.base_paths] == [0, 1]
    with pytest.raises(AlreadyExistsError, match="already exists"):
        drive(shallow_clone(main, 2, target))
    with pytest.raises(NotFoundError):
        drive(shallow_clone(main, 7, MemoryStore()))


@pytest.mark.golden
@pytest.mark.interop
@pytest.mark.parametrize("case", ["del_array", "index_meta", "old_cols_6_0_1", "stable_update", "evolve"])
@pytest.mark.parametrize("deep", [False, True])
def test_the_reference_reads_our_clones(case: str, deep: bool, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    source = LocalStore(copy_golden(f"{case}.lance", tmp_path))
    target = LocalStore(tmp_path / "clone.lance")
    version = drive(latest_version(source))
    clone = drive((deep_clone if deep else shallow_clone)(source, version, target))
    if deep:
        assert clone.base_paths == ()
        os.rename(source.uri, source.uri + ".gone")
    table = lance.dataset(target.uri)
    assert table.version == version
    assert table.to_table().equals(expected_table(TABLES / f"{case}.arrow"))


@pytest.mark.golden
@pytest.mark.interop
def test_branches_and_tags_of_each_other(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    path = tmp_path / "t.lance"
    table = lance.write_dataset(pa.table({"a": [1, 2, 3]}), path)
    store = LocalStore(path)
    drive(create_branch(store, "ours/x", None, 1))
    drive(create_tag(store, "ours", "ours/x", 1))
    theirs = table.create_branch("theirs", ("ours/x", None))
    lance.write_dataset(pa.table({"a": [4]}), theirs.uri, mode="append")
    table.tags.create("theirs", ("theirs", 2))
    assert set(table.branches.list()) == {"ours/x", "theirs"} == set(drive(list_branches(store)))
    assert table.checkout_version("ours").to_table()["a"].to_pylist() == [1, 2, 3]
    assert drive(resolve(store, "theirs"))[1:] == ("theirs", 2)
    assert drive(load_manifest(branch_store(store, "theirs"), 2)).num_rows == 4
    with pytest.raises(InvalidInputError, match="theirs was made from"):
        drive(delete_branch(store, "ours/x"))
    with pytest.raises(OSError, match="can not delete"):
        table.branches.delete("ours/x")


# -- places --------------------------------------------------------------------------------------------


@pytest.mark.golden
def test_golden_base_paths() -> None:
    store = LocalStore(TABLES / "multi_base.lance")
    manifest = drive(load_manifest(store, drive(latest_version(store))))
    places = {data_file_location(store.uri, manifest, one.files[0]) for one in manifest.fragments}
    for place in places:
        moved = place.uri.replace("/tmp/pilum-golden/table", str(TABLES))
        assert (Path(moved) / place.key).exists()
    assert len({place.uri for place in places}) == 3


def test_places_of_the_specification() -> None:
    _, manifest = memory_table()
    bases = (BasePath(0, "/root", is_dataset_root=True), BasePath(4, "s3://b/plain/"))
    manifest = replace(manifest, base_paths=bases)

    def place(base_id: int | None) -> Location:
        return data_file_location("r", manifest, DataFile("x.lance", (0,), (0,), base_id=base_id))

    assert place(None) == ("r", "data/x.lance")
    assert place(0) == ("/root", "data/x.lance")
    assert place(4) == ("s3://b/plain", "x.lance")
    with pytest.raises(CorruptFileError, match="base path 7"):
        place(7)


@pytest.mark.golden
def test_index_folders() -> None:
    store = LocalStore(TABLES / "clone_shallow.lance")
    manifest = drive(load_manifest(store, 3))
    place = index_location(store.uri, manifest, manifest.indices[0])
    assert place == (
        "/tmp/pilum-golden/table/clone_src.lance",
        "_indices/ccf39345-0716-4a6c-9f42-d20a31cd661e",
    )


def test_bases_are_assigned_ids() -> None:
    store, _ = memory_table()
    table = drive(
        commit(store, UpdateBases((BasePath(0, "/a", name="a"), BasePath(0, "/b"))), read_version=1)
    )
    assert [base.id for base in table.base_paths] == [1, 2]
    assert table.reader_flags & table.writer_flags & 16
    for again in (BasePath(0, "/a"), BasePath(0, "/c", name="a"), BasePath(2, "/d")):
        with pytest.raises(InvalidInputError, match="base path"):
            drive(commit(store, UpdateBases((again,)), read_version=2))


def test_folders_of_stores() -> None:
    store = MemoryStore()
    one = folder_of(folder_of(store, "a"), "b/c/")
    assert folder_of(store, "") is store
    drive(one.put("x/y", b"hello"))
    assert bytes(drive(store.get_all("a/b/c/x/y"))) == b"hello"
    assert [info.path for info in drive(one.list("x"))] == ["x/y"]
    assert [info.path for info in drive(one.list(""))] == ["x/y"]
    assert drive(one.head("x/y"))[:2] == ("x/y", 5)
    assert [bytes(part) for part in drive(one.get_ranges("x/y", [(0, 1), (4, 5)]))] == [b"h", b"o"]
    assert bytes(drive(one.get_tail("x/y", 2))[0]) == b"lo"
    assert open_location(one, store.uri) is store
    assert open_location(one, f"{store.uri}/z").uri == f"{store.uri}/z"
    assert open_location(one, "/elsewhere").uri == "/elsewhere"
    drive(one.delete("x/y"))
    assert drive(store.list("")) == []


# -- versions ------------------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.interop
@pytest.mark.parametrize(
    "case", ["history", "v1_names", "del_array", "old_6_0_1", "stable_update", "frag_reuse"]
)
def test_versions_are_described_as_by_the_reference(case: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    path = copy_golden(f"{case}.lance", tmp_path)
    ours = drive(describe_versions(LocalStore(path)))
    theirs = lance.dataset(path).versions()
    assert [one.version for one in ours] == [one["version"] for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert {key: str(value) for key, value in one.summary.items()} == other["metadata"]
        assert one.timestamp_ns / 1e9 == pytest.approx(other["timestamp"].timestamp(), abs=2e-6, rel=0)
    store = LocalStore(path)
    assert drive(version_at(store, ours[-2].timestamp_ns)) == ours[-2].version
    with pytest.raises(NotFoundError, match="as old as"):
        drive(version_at(store, ours[0].timestamp_ns - 1))
    made = drive(read_transactions(store, [one.version for one in ours]))
    assert [one.uuid for one in made if one] == [
        one.uuid for one in reversed(lance.dataset(path).get_transactions(100)) if one
    ]


def test_long_manifests_are_read_in_two_requests() -> None:
    store, _ = memory_table(2000)
    (info,) = drive(describe_versions(store))
    assert info.summary["total_fragments"] == 2000
    assert info.summary["total_rows"] == 6000


@pytest.mark.golden
@pytest.mark.parametrize("case", ["index_meta", "old_cols_6_0_1", "del_array", "data_replace", "empty"])
def test_totals_of_fragments_that_are_not_decoded(case: str) -> None:
    store = LocalStore(TABLES / f"{case}.lance")
    manifest = drive(load_manifest(store, drive(latest_version(store))))
    encoded = [encode_fragment(one) for one in manifest.fragments]
    assert count_encoded(encoded, "t") == summarize(manifest)
    with pytest.raises(CorruptFileError, match="x: a fragment cannot be decoded"):
        count_encoded([b"\xff"], "x")


@pytest.mark.golden
@pytest.mark.interop
@pytest.mark.parametrize("interrupted", [False, True])
def test_migration_to_v2_names(interrupted: bool, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    path = copy_golden("v1_names.lance", tmp_path)
    store = LocalStore(path)
    if interrupted:
        os.rename(path / "_versions" / "1.manifest", path / "_versions" / f"{2**64 - 2:020d}.manifest")
        os.link(path / "_versions" / "2.manifest", path / "_versions" / f"{2**64 - 3:020d}.manifest")
        with pytest.raises(CorruptFileError, match="both naming schemes"):
            drive(find_versions(store))
    assert drive(migrate_names_to_v2(store)) == 12 - interrupted
    assert drive(migrate_names_to_v2(store)) == 0
    versions, scheme, _ = drive(find_versions(store))
    assert (versions, scheme) == (list(range(1, 13)), NamingScheme.V2)
    assert lance.dataset(path).to_table().equals(expected_table(TABLES / "v1_names.arrow"))
    drive(commit(store, Append(()), read_version=12))
    assert lance.dataset(path).version == 13


def test_v1_names_are_kept() -> None:
    store = MemoryStore()
    drive(commit(store, Overwrite((), SCHEMA), read_version=None, naming=NamingScheme.V1))
    drive(commit(store, Append((fragment(),)), read_version=1))
    assert [one.path for one in drive(store.list("_versions"))] == [
        "_versions/1.manifest",
        "_versions/2.manifest",
    ]
    with pytest.raises(InvalidInputError, match="migrate"):
        drive(commit(store, Append(()), read_version=1, detached=True))


@pytest.mark.interop
def test_detached_versions(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    path = tmp_path / "t.lance"
    lance.write_dataset(pa.table({"a": [1, 2, 3]}), path)
    store = LocalStore(path)
    made = drive(commit(store, Delete((), (0,)), read_version=1, detached=True))
    assert made.version & DETACHED_BIT
    assert drive(list_versions(store)) == [1]
    assert drive(find_versions(store)).detached == [made.version]
    table = lance.dataset(path)
    assert table.count_rows() == 3
    assert table.checkout_version(made.version).count_rows() == 0
    more = drive(commit(store, Append(()), read_version=made.version, detached=True))
    assert more.fragments == ()
    with pytest.raises(InvalidInputError, match="no base for the history"):
        drive(commit(store, Append(()), read_version=made.version))
    with pytest.raises(InvalidInputError, match="first version"):
        drive(commit(MemoryStore(), Append(()), read_version=None, detached=True))


@pytest.fixture
def no_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANCE_USE_VERSION_HINT", "False")


def test_the_hint_follows_commits(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    memory_table(store=store)
    drive(commit(store, Append(()), read_version=1))
    assert bytes(drive(store.get_all(VERSION_HINT))) == b'{"version":2}'
    drive(store.put(VERSION_HINT, b"nonsense"))
    assert drive(latest_version(store)) == 2


@pytest.mark.usefixtures("no_hint")
def test_the_hint_can_be_switched_off(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    memory_table(store=store)
    with pytest.raises(NotFoundError):
        drive(store.head(VERSION_HINT))


def test_branch_values() -> None:
    assert not Branch(None, 1).descends_from(Branch(None, 1))
