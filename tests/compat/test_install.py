"""Programs written for the reference, run once with it and once with pilum in its place: the same output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

pytest.importorskip("lance")
pytestmark = pytest.mark.interop

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
INSTALL = "import pilum; pilum.install_as_lance()\n"


def run(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin", "TZ": "UTC"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_gives_the_same_output(program: Path, tmp_path: Path) -> None:
    code = program.read_text()
    results = []
    for name, prefix in (("reference", ""), ("pilum", INSTALL)):
        folder = tmp_path / name
        folder.mkdir()
        done = run(prefix + code, folder)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        results.append(done.stdout)
    assert results[1] == results[0]
    assert len(results[0].splitlines()) > 5


def test_modules_are_pilum(tmp_path: Path) -> None:
    code = INSTALL + (
        "import lance, lance.dataset, lance.fragment, lance.file, importlib.util, pilum\n"
        "from lance.dataset import LanceDataset, LanceOperation\n"
        "from lance import dataset\n"
        "assert lance.dataset is pilum.dataset is dataset, lance.dataset\n"
        "assert lance.LanceDataset is pilum.LanceDataset is LanceDataset\n"
        "assert importlib.util.find_spec('lance').origin == 'pilum'\n"
        "assert importlib.util.find_spec('lance.torch.data') is not None\n"
        "pilum.install_as_lance()\n"
        "try:\n    import lance.nonsense\nexcept ModuleNotFoundError as error:\n    print(error.name)\n"
        "try:\n    from lance import nonsense\nexcept ImportError:\n    print('no name')\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["lance.nonsense", "no name"]


def test_every_name_of_the_catalogue_resolves(tmp_path: Path) -> None:
    code = INSTALL + (
        "import importlib\n"
        "from pilum.compat.catalogue import MODULES\n"
        "for module, names in MODULES.items():\n"
        "    for name in names:\n"
        "        getattr(importlib.import_module(module), name)\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_public_name_of_the_reference_is_there(tmp_path: Path) -> None:
    listing = (
        "import importlib, inspect, json, lance\n"
        "found = {}\n"
        "for name in ('', '.dataset', '.fragment', '.file', '.blob', '.query', '.progress', '.schema', '.udf',\n"
        "             '.util', '.bitmap', '.commit', '.optimize', '.sampler', '.indices', '.tracing', '.log'):\n"
        "    module = importlib.import_module('lance' + name)\n"
        "    own = getattr(module, '__all__', None) or [key for key, value in vars(module).items()\n"
        "        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__]\n"
        "    found[module.__name__] = [key for key in own if not key.startswith('_')]\n"
        "for kind in ('LanceDataset', 'LanceFragment', 'LanceScanner'):\n"
        "    found[kind] = [key for key in vars(getattr(lance, kind)) if not key.startswith('_')]\n"
        "print(json.dumps(found))\n"
    )
    reference = run(listing, tmp_path)
    assert reference.returncode == 0, reference.stderr
    check = INSTALL + (
        "import importlib, json, sys, lance\n"
        "missing = []\n"
        "for owner, names in json.loads(sys.argv[1]).items():\n"
        "    owner = importlib.import_module(owner) if owner.startswith('lance') else getattr(lance, owner)\n"
        "    missing += [f'{owner.__name__}.{name}' for name in names if not hasattr(owner, name)]\n"
        "print(missing)\n"
    )
    done = run(check, tmp_path, reference.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_what_is_not_built_says_so(tmp_path: Path) -> None:
    code = INSTALL + (
        "import lance, pyarrow as pa\n"
        "from lance.query import MatchQuery, Occur\n"
        "ds = lance.write_dataset(pa.table({'a': [1]}), 'memory://unbuilt')\n"
        "calls = [lambda: MatchQuery('a', 'b'), lambda: Occur.MUST, lambda: lance.BlobFile(None),\n"
        "         lambda: ds.create_scalar_index('a', 'BTREE'), lambda: ds.merge_insert('a'),\n"
        "         lambda: ds.optimize.compact_files(), lambda: ds.take_blobs('a', [0]),\n"
        "         lambda: ds.scanner(full_text_query='x')]\n"
        "for call in calls:\n"
        "    try:\n        call()\n"
        "    except NotImplementedError as error:\n        print(error)\n"
        "assert not isinstance(ds, lance.MergeInsertBuilder)\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 8
    for line, feature in zip(
        lines,
        ["full text", "full text", "blobs", "indices", "merge", "compaction", "blobs", "full text"],
        strict=True,
    ):
        assert feature in line


def test_it_refuses_beside_the_real_one(tmp_path: Path) -> None:
    done = run("import lance, pilum\npilum.install_as_lance()", tmp_path)
    assert done.returncode != 0
    assert "RuntimeError: lance is imported already" in done.stderr
    assert "before anything imports it" in done.stderr
