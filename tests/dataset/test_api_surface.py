"""The shape of the public API: what importing costs, types, and the arguments of the reference."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pilum
import pilum.aio
from pilum.dataset.unbuilt import UnbuiltDataset
from tests.support import REPOSITORY

HEAVY = ["google.protobuf", "numba", "sqlglot", "pyarrow.compute", "pyarrow.dataset", "pandas", "asyncio"]


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_is_cheap() -> None:
    done = python(f"import sys, pilum; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_opening_and_reading_load_no_more_than_they_need(tmp_path: Path) -> None:
    code = (
        "import sys, pilum, pyarrow as pa\n"
        f"ds = pilum.write_dataset(pa.table({{'a': [1, 2, 3]}}), {str(tmp_path / 't.lance')!r})\n"
        "ds = pilum.dataset(ds.uri)\n"
        "assert ds.head(2).num_rows == 2 and ds.take([1]).num_rows == 1 and len(ds.versions()) == 1\n"
        "print([name for name in ('numba', 'sqlglot', 'pyarrow.dataset') if name in sys.modules])\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    for module in (pilum, pilum.aio):
        assert sorted(module.__all__) == sorted(set(module.__all__))
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert inspect.getdoc(value), name
                for method, function in vars(value).items() if inspect.isclass(value) else ():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        assert inspect.getdoc(function), f"{name}.{method}"


@pytest.mark.parametrize("kind", ["LanceDataset", "LanceFragment", "LanceScanner"])
def test_both_doors_have_the_same_calls(kind: str) -> None:
    door, twin = getattr(pilum, kind), getattr(pilum.aio, kind)
    elsewhere = {
        # Functions of `pilum.aio`, or faces of calls that are there under another name.
        "LanceDataset": {"commit", "commit_batch", "drop", "to_pandas", "aio", "of", "own_class", "poses_as", "optimize",
                         "replace_schema_metadata", "replace_field_metadata", "new_file_session",
                         "storage_options_accessor"},
        "LanceFragment": {"create", "create_from_file", "of", "own_class", "poses_as", "to_pandas", "aio", "dataset"},
        "LanceScanner": {"to_pandas", "request", "to_reader", "own_class", "poses_as", "scan_batches", "take", "from_dataset",
                         "from_fragment", "from_batches"},
    }  # fmt: skip
    missing = {name for name in dir(door) if not name.startswith("_")} - set(dir(twin)) - elsewhere[kind]
    assert not missing


# Arguments that mean something only inside the reference.
INTERNAL = {"kwargs", "kargs", "args", "self", "ignore_deletions", "_inner_reader", "_inner_writer"}


def accepts(function: Any, name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


@pytest.mark.interop
@pytest.mark.parametrize("kind", ["LanceDataset", "LanceFragment", "LanceScanner"])
def test_methods_take_the_arguments_of_the_reference(kind: str) -> None:
    lance = pytest.importorskip("lance")
    theirs, ours = getattr(lance, kind), getattr(pilum, kind)
    unbuilt = {*vars(UnbuiltDataset)}
    missing = []
    for name, value in vars(theirs).items():
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if (
            not inspect.isfunction(function)
            or (name.startswith("_") and name != "__init__")
            or name in unbuilt
        ):
            continue
        if name == "__init__" and kind != "LanceDataset":
            continue  # made by the dataset
        mine = getattr(ours, name)
        wanted = [one for one in inspect.signature(function).parameters if one not in INTERNAL]
        missing += [f"{name}({one})" for one in wanted if not accepts(mine, one)]
    assert not missing


@pytest.mark.interop
def test_functions_take_the_arguments_of_the_reference() -> None:
    lance = pytest.importorskip("lance")
    from lance.fragment import write_fragments

    for theirs, ours in (
        (lance.dataset, pilum.dataset),
        (lance.write_dataset, pilum.write_dataset),
        (write_fragments, pilum.write_fragments),
    ):
        given = inspect.signature(theirs).parameters
        assert all(accepts(ours, name) for name in given if name not in INTERNAL), theirs
        positional = [one.name for one in given.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
        mine = [one.name for one in inspect.signature(ours).parameters.values()]
        assert mine[: len(positional)] == positional


PROGRAM = """
import datetime
import pilum
import pyarrow as pa

def program(uri: str) -> int:
    ds = pilum.write_dataset(pa.table({"a": [1]}), uri, mode="overwrite", max_rows_per_file=10)
    ds.tags.create("t", 1)
    tags: dict[str, dict[str, object]] = dict(ds.tags.list())
    old: pilum.LanceDataset = ds.checkout_version(("main", 1))
    made = pilum.write_fragments(pa.table({"a": [2]}), ds)
    assert isinstance(made, list)
    one: pilum.FragmentMetadata = made[0]
    new = pilum.LanceDataset.commit(ds, pilum.LanceOperation.Append([one]), read_version=ds.version)
    stats: pilum.CleanupStats = new.cleanup_old_versions(datetime.timedelta(days=1), retain_versions=3)
    transaction = new.read_transaction(1)
    if transaction is not None:
        print(transaction.operation, transaction.uuid.upper())
    fragment = new.get_fragment(0)
    deleted: str | None = None if fragment is None else fragment.deletion_file()
    for number in new.fragment_ids():
        print(number + 1, tags, deleted, old.uri)
    return stats.old_versions + new.count_rows("a > 1")
"""


@pytest.mark.slow
def test_a_typed_program_checks(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file",
            str(REPOSITORY / "pyproject.toml"),
            str(program),
        ],
        cwd=REPOSITORY,
        env={"MYPYPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    wrong = program.with_name("wrong.py")
    wrong.write_text(PROGRAM.replace('ds.tags.create("t", 1)', 'ds.tags.create("t", 1.5)'))
    done = subprocess.run([*done.args[:-1], str(wrong)], cwd=REPOSITORY, env={"MYPYPATH": str(REPOSITORY / "src")},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "error" in done.stdout
