"""Late imports and forks: a child never meets a half-imported module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CODE = """
import os, sys, threading, time
import pilum.imports as imports

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
