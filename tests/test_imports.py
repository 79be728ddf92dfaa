"""Late imports and forks: a child never meets a half-imported module."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pilum
from pilum import imports

CODE = """
import os, sys, threading, time
import pilum.imports as imports
import logging

# A module whose import takes a while, begun in another thread.
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "slow_module":
            return None
        from importlib.machinery import ModuleSpec
        return ModuleSpec(name, self)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        begun.set()
        time.sleep(0.3)
        logging.getLogger("slow_module")  # needs a lock that a fork takes, too
        module.value = 42

begun = threading.Event()
sys.meta_path.insert(0, Finder())
thread = threading.Thread(target=imports.load, args=("slow_module",))
thread.start()
begun.wait()
pid = os.fork()
if pid == 0:
    os._exit(0 if imports.load("slow_module").value == 42 else 1)
thread.join()
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        sys.exit(status)
    time.sleep(0.01)
os.kill(pid, 9)
sys.exit(99)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_waits_for_an_import() -> None:
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(CODE)], check=False, timeout=60)
    assert found.returncode == 0


ALLOCATORS = """
import os, sys, threading
import pilum, pyarrow as pa

if pa.default_memory_pool().backend_name != "mimalloc":
    sys.exit(0)
kept = pa.nulls(100_000, pa.int64())  # the parent's memory is freed by the child

def forked(expected):
    pid = os.fork()
    if pid == 0:
        global kept
        right = pa.default_memory_pool().backend_name == expected
        whole = pa.concat_arrays([kept, kept])
        kept = None
        os._exit(0 if right and len(whole) == 200_000 else 1)
    return os.waitpid(pid, 0)[1]

alone = forked("mimalloc")
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
beside = forked("system")
stop.set()
thread.join()
sys.exit(0 if alone == beside == 0 and pa.default_memory_pool().backend_name == "mimalloc" else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_parent_with_threads_does_not_use_the_allocator_that_may_be_locked() -> None:
    found = subprocess.run([sys.executable, "-c", ALLOCATORS], check=False, timeout=60)
    assert found.returncode == 0


CIRCLE = """
import sys, threading
import pilum.imports as imports
from importlib.machinery import ModuleSpec

# `outer` is imported without a guard and asks for a late module on its way, while another thread, which imports
# late, waits for `outer`.
class Finder:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name in ("outer", "needs_outer", "third") else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        if module.__name__ == "outer":
            begun.set()
            inside.wait(20)
            imports.load("third")
        elif module.__name__ == "needs_outer":
            inside.set()
            import outer

begun, inside = threading.Event(), threading.Event()
sys.meta_path.insert(0, Finder())
def import_outer():
    import outer
first = threading.Thread(target=import_outer, daemon=True)
first.start()
begun.wait()
second = threading.Thread(target=imports.load, args=("needs_outer",), daemon=True)
second.start()
for one in first, second:
    one.join(20)
sys.exit(99 if first.is_alive() or second.is_alive() else 0)
"""


def test_late_imports_do_not_wait_for_each_other() -> None:
    found = subprocess.run([sys.executable, "-c", CIRCLE], check=False, timeout=60)
    assert found.returncode == 0


HALF = """
import sys, threading
import pilum.imports as imports
from importlib.machinery import ModuleSpec

# A module that asks for itself on its way is not complete for others yet.
class Finder:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == "asks" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        imports.load("asks")
        asked.set()
        waiting.wait(20)
        module.value = 42

asked, waiting = threading.Event(), threading.Event()
sys.meta_path.insert(0, Finder())
first = threading.Thread(target=imports.load, args=("asks",))
first.start()
asked.wait()
threading.Timer(0.2, waiting.set).start()
sys.exit(0 if imports.load("asks").value == 42 else 1)
"""


def test_a_module_that_asks_for_itself_is_not_complete_for_other_threads() -> None:
    found = subprocess.run([sys.executable, "-c", HALF], check=False, timeout=60)
    assert found.returncode == 0


# Made beforehand, so that a process that reads has only read.
TABLE = """
import pyarrow as pa, numpy as np, pilum, sys
vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2000, dtype=np.float32)), 4)
rows = {"id": np.arange(500), "name": [f"row {i % 7}" for i in range(500)], "price": np.linspace(0, 1, 500),
        "ok": [None if i % 5 == 0 else i % 2 == 0 for i in range(500)], "vec": vectors}
ds = pilum.write_dataset(pa.table(rows), sys.argv[1], max_rows_per_file=100)
ds.delete("id = 7")
"""

WATCHED = """
import sys
import pilum, pilum.imports
import numpy as np, pyarrow as pa

class Watch:
    found = []
    def find_spec(self, name, path=None, target=None):
        if not pilum.imports.guarded():
            self.found.append(name)

sys.meta_path.insert(0, Watch())
uri, copy = sys.argv[1:3]
QUERY = np.ones(4, np.float32)
"""

# Arrow imports pandas for none of these.
OPERATIONS = {
    "open": "pilum.dataset(uri)",
    "scan": "pilum.dataset(uri).to_table()",
    "batches": "list(pilum.dataset(uri).to_batches(columns=['name'], batch_size=30))",
    "head": "pilum.dataset(uri).head(3)",
    "take": "pilum.dataset(uri).take([400, 3, 3, 120], columns=['name', 'vec'])",
    "search": "pilum.dataset(uri).to_table(nearest={'column': 'vec', 'q': QUERY, 'k': 3})",
    "filtered search": "pilum.dataset(uri).to_table(nearest={'column': 'vec', 'q': QUERY, 'k': 3}, filter='id > 3')",
    "filter": "pilum.dataset(uri).to_table(filter=\"id < 30 AND (name = 'row 3' OR price > 0.5) AND ok IS NOT NULL\")",
    "filter in": "pilum.dataset(uri).to_table(filter=\"id IN (1, 2, 7) AND name IN ('row 1', 'row 2')\")",
    "filter like": "pilum.dataset(uri).to_table(filter=\"name LIKE 'row%' AND NOT ok\")",
    "filter between": "pilum.dataset(uri).to_table(filter='id + 1 BETWEEN 3 AND 40 AND price * 2 < 0.7')",
    "count": "pilum.dataset(uri).count_rows()",
    "count filtered": "pilum.dataset(uri).count_rows('id >= 100')",
    "order": "pilum.dataset(uri).to_table(order_by=['name', 'price'], limit=10)",
    "row ids": "pilum.dataset(uri).to_table(columns=['id'], with_row_id=True, with_row_address=True, offset=3, limit=9)",
    "create": "pilum.write_dataset(pilum.dataset(uri).to_table(), copy, mode='create')",
    "overwrite": "pilum.write_dataset(pilum.dataset(uri).to_table(), uri, mode='overwrite')",
    "append": "pilum.write_dataset(pilum.dataset(uri).to_table(), uri, mode='append')",
    "delete": "pilum.dataset(uri).delete('id < 40')",
    "explain": "print(pilum.dataset(uri).scanner(filter='id > 3').explain_plan(True), file=sys.stderr)",
    "analyze": "pilum.dataset(uri).scanner(filter='id > 3').analyze_plan()",
    "sample": "pilum.dataset(uri).sample(5)",
    "fragments": "[one.count_rows() for one in pilum.dataset(uri).get_fragments()]",
    "fragment": "pilum.dataset(uri).get_fragment(1).metadata.to_json()",
    "drop": "pilum.dataset(uri).drop_columns(['ok'])",
    "rename": "pilum.dataset(uri).alter_columns({'path': 'name', 'name': 'text'})",
    "add nulls": "pilum.dataset(uri).add_columns(pa.schema([pa.field('more', pa.int64())]))",
    "tag": "ds = pilum.dataset(uri); ds.tags.create('one', 1); ds.checkout_version('one')",
    "branch": "pilum.dataset(uri).create_branch('side')",
    "restore": "ds = pilum.dataset(uri); ds.checkout_version(1).restore()",
    "config": "pilum.dataset(uri).update_config({'a': 'b'})",
    "auto cleanup": (
        "pilum.dataset(uri).update_config({'lance.auto_cleanup.interval': '1', "
        "'lance.auto_cleanup.older_than': '0s'}); pilum.dataset(uri).delete('id < 40')"
    ),
    "format 2.0": (
        "pilum.write_dataset(pilum.dataset(uri).to_table(), copy, data_storage_version='2.0'); "
        "pilum.dataset(copy).to_table()"
    ),
    "validate": "pilum.dataset(uri).validate()",
    "clone": "pilum.dataset(uri).shallow_clone(copy, 1)",
    "transaction": "pilum.dataset(uri).read_transaction(1)",
    "statistics": "pilum.dataset(uri).stats.dataset_stats()",
    "commit": "ds = pilum.dataset(uri); pilum.LanceDataset.commit(uri, pilum.LanceOperation.Delete([], [0], 'id < 100'), read_version=ds.version)",
}
# These hand Python values to Arrow.
CONVERTING = {
    "rows": "pilum.write_dataset([{'a': 1, 'b': 'x'}, {'a': 2, 'b': None}], copy)",
    "columns": "pilum.write_dataset({'a': [1, 2], 'b': ['x', None]}, copy)",
    "function": "pilum.dataset(uri).to_table(filter=\"upper(name) = 'ROW 3' OR abs(price) > 2\")",
    "null in a list": "pilum.dataset(uri).to_table(filter='id IN (1, NULL)')",
    "moment": "pilum.dataset(uri).to_table(filter=\"id > 3 OR timestamp '2024-01-01 10:00:00' > now()\")",
    "expression": "pilum.dataset(uri).to_table(columns={'twice': 'id * 2', 'size': 'length(name)'})",
    "versions": "pilum.dataset(uri).versions()",
    "update": "pilum.dataset(uri).update({'price': '1.0'}, where='id = 3')",
    "add columns": "pilum.dataset(uri).add_columns({'twice': 'id * 2'})",
    "merge": "ds = pilum.dataset(uri); ds.merge(ds.to_table(columns={'id': 'id', 'z': 'price'}), 'id')",
    "cleanup": "import datetime; pilum.dataset(uri).cleanup_old_versions(datetime.timedelta(0))",
    "html": "pilum.dataset(uri)._repr_html_()",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, written by another process."""
    path = tmp_path_factory.mktemp("imports") / "t.lance"
    subprocess.run([sys.executable, "-c", TABLE, str(path)], check=True)
    return path


def watched(table: Path, tmp_path: Path, operation: str) -> dict[str, list[str]]:
    """What a process of its own imported for an operation, unguarded and of what costs much."""
    uri, copy = str(tmp_path / "t.lance"), str(tmp_path / "copy.lance")
    shutil.copytree(table, uri)
    heavy = "[one for one in ('pandas', 'numpy.ma', 'importlib.metadata') if one in sys.modules]"
    told = (
        f"found = {{'unguarded': list(Watch.found), 'heavy': {heavy}}}; import json; print(json.dumps(found))"
    )
    code = f"{WATCHED}\n{operation}\n{told}"
    found = subprocess.run(
        [sys.executable, "-c", code, uri, copy], check=True, capture_output=True, text=True
    )
    result: dict[str, list[str]] = json.loads(found.stdout)
    return result


@pytest.mark.parametrize("name", OPERATIONS)
def test_reading_and_writing_import_beside_no_fork_and_no_pandas(
    table: Path, tmp_path: Path, name: str
) -> None:
    found = watched(table, tmp_path, OPERATIONS[name])
    assert found["unguarded"] == []
    assert not {"pandas", "numpy.ma"} & set(found["heavy"])


@pytest.mark.parametrize("name", CONVERTING)
def test_what_converts_python_values_imports_beside_no_fork(table: Path, tmp_path: Path, name: str) -> None:
    assert watched(table, tmp_path, CONVERTING[name])["unguarded"] == []


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, pilum; print([name for name in ('numba', 'sqlglot', 'asyncio') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_opening_and_reading_the_first_rows_imports_nothing_that_writes_searches_or_explains(
    table: Path,
) -> None:
    code = (
        "import sys, pilum; pilum.dataset(sys.argv[1]).head(3);"
        "print(*[name for name in sys.modules if name.startswith('pilum.')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(table)], check=True, capture_output=True, text=True
    )
    loaded = set(found.stdout.split())
    assert {"pilum.dataset.core", "pilum.table.versions", "pilum.file.reader"} <= loaded
    writing = {
        "pilum.dataset.writing",
        "pilum.table.committing",
        "pilum.table.operations",
        "pilum.file.writer",
    }
    others = {
        "pilum.encoding.selection", "pilum.query.binding", "pilum.query.search", "pilum.query.explain",
        "pilum.table.maintenance", "pilum.dataset.fragments",
    }  # fmt: skip
    assert not loaded & (writing | others)


ROOT = Path(pilum.__file__).parent


def late_packages() -> list[str]:
    """The packages that import late, by their dotted names."""
    return sorted(
        ".".join(path.parent.relative_to(ROOT.parent).parts)
        for path in ROOT.rglob("__init__.py")
        if "imports.late(" in path.read_text()
    )


@pytest.mark.parametrize("package", late_packages())
def test_a_package_finds_what_it_tells_type_checkers(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    (branch,) = [one for one in tree.body if isinstance(one, ast.If)]
    told = {
        f"{one.module}.{alias.name}"
        for one in branch.body
        if isinstance(one, ast.ImportFrom)
        for alias in one.names
    }
    (table,) = [one for one in ast.walk(branch) if isinstance(one, ast.Dict)]
    modules: dict[str, tuple[str, ...]] = ast.literal_eval(table)
    assert {f"{package}.{place}.{name}" for place, names in modules.items() for name in names} == told
    for place, names in modules.items():
        for name in names:
            assert getattr(module, name) is getattr(importlib.import_module(f"{package}.{place}"), name)
    if branch.body and told:
        assert {name for names in modules.values() for name in names} <= set(module.__all__)
        assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", late_packages())
def test_no_exported_name_is_that_of_a_module(package: str) -> None:
    # Python puts a module into its package when it is imported, over whatever had its name.
    module = importlib.import_module(package)
    assert module.__file__ is not None
    beside = {path.stem for path in Path(module.__file__).parent.iterdir()}
    exported = set(getattr(module, "__all__", ())) - {
        "dataset"
    }  # the function; the folder is imported before
    assert not exported & beside


def test_a_late_module_is_imported_when_something_is_asked_of_it() -> None:
    code = """if True:
        import sys
        from pilum.table import committing
        assert "pilum.table.committing" not in sys.modules and "late" in repr(committing)
        assert callable(committing.commit)
        module = sys.modules["pilum.table.committing"]
        module.commit = 1
        assert committing.commit == 1  # what is put into the module later is found, too
        try:
            committing.unknown
        except AttributeError as error:
            assert "unknown" in str(error)
        else:
            sys.exit(1)
        from pilum.table import committing as again
        assert again is module
        import pilum.table
        try:
            pilum.table.unknown
        except AttributeError as error:
            assert "pilum.table" in str(error) and "unknown" in str(error)
        else:
            sys.exit(1)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_pilum_are_all_there() -> None:
    code = """if True:
        import pilum
        assert set(pilum.__all__) <= set(dir(pilum))
        from pilum import *
        assert callable(dataset) and callable(pilum.dataset) and LanceOperation is pilum.LanceOperation
        import pilum.dataset.writing, pilum.table.committing
        assert callable(pilum.dataset) and callable(pilum.table.commit)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
    assert pickle.loads(pickle.dumps(pilum.LanceOperation)) is pilum.LanceOperation


def test_guards_nest() -> None:
    assert not imports.guarded()
    with imports.guard():
        with imports.guard():
            assert imports.guarded()
        assert imports.guarded()
    assert not imports.guarded()
