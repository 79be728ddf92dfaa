"""When kernels are loaded, compiled or left to NumPy, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilum import jit
from pilum.encoding import kernels
from pilum.native.symbols import SUPPORTED
from tests.native.sources import SCALED, allocating, scaled


def run(code: str, **env: str) -> str:
    """What a program printed."""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PILUM_NUMBA": "1", "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def numba() -> None:
    if not kernels.enabled():
        pytest.skip("Numba is switched off or missing")


@pytest.fixture
def kept(numba: None) -> None:
    """The machine code of every kernel is on disk."""
    if not SUPPORTED or not kernels.preload():
        pytest.skip("machine code is not kept here")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Kernels made by a test are not left behind."""
    known = len(jit._kernels)
    yield
    del jit._kernels[known:]


WORK = """
import sys
import numpy as np
from pilum.encoding.kernels import distance

def work(rows, kind="l2"):
    return distance.distances(np.ones(8), np.ones((rows, 8), np.float32), kind)

def tell():
    print(distance._SINGLE[0].compiled is not None, "numba" in sys.modules, "llvmlite" in sys.modules)
"""


def test_a_process_uses_machine_code_that_is_kept_without_numba(kept: None) -> None:
    code = "assert work(300_000).max() == 0; tell(); assert work(300_000).max() == 0; assert work(1000).max() == 0"
    llvm = sys.platform != "linux" or os.uname().machine != "x86_64"
    assert run(f"{WORK}\n{code}") == f"True False {llvm}"


def test_nothing_is_loaded_for_small_inputs(kept: None) -> None:
    loaded = "print([name for name in sys.modules if name.startswith('pilum.native.')])"
    assert run(f"{WORK}\nwork(100); tell()\n{loaded}").splitlines() == [
        "False False False",
        "['pilum.native.source']",
    ]


def test_small_inputs_add_up(kept: None) -> None:
    assert run(f"{WORK}\nfor _ in range(20): work(1000)\ntell()").split()[:2] == ["True", "False"]


def test_every_kernel_is_kept_as_machine_code(kept: None) -> None:
    code = """
import sys
from pilum import jit
from pilum.encoding import kernels
assert kernels.preload()
assert "numba" not in sys.modules
print({type(one.compiled).__name__ for one in jit._kernels if one.compiled} - {"builtin_function_or_method"} or "all")
"""
    assert run(code) == "all"


def test_all_kernels_can_be_compiled_beforehand(kept: None) -> None:
    code = "import runpy; runpy.run_module('pilum.encoding.kernels', run_name='__main__')"
    assert run(code) == "All kernels are compiled."
    assert run(code, PILUM_NUMBA="0").startswith("Not all")


def test_switched_off_means_numpy(kept: None) -> None:
    assert run(f"{WORK}\nwork(300_000); tell()", PILUM_NUMBA="0") == "False False False"


def test_only_large_inputs_are_worth_compiling_for(numba: None, tmp_path: Path) -> None:
    code = f"{WORK}\nwork(20_000); tell(); work(300_000); tell()\n"
    first, second = run(code, NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert first == "False False False"
    assert second == "True True True"
    if SUPPORTED:  # and then it is there for the next process
        assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).splitlines()[0].startswith("True False")


def test_a_missing_numba_means_numpy(tmp_path: Path) -> None:
    code = f"import sys; sys.modules['numba'] = None\n{WORK}\nassert work(300_000).max() == 0; tell()"
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).split()[0] == "False"


def test_a_missing_llvm_does_not_matter_to_images(kept: None) -> None:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("LLVM loads machine code here")
    code = f"import sys; sys.modules['llvmlite'] = None\n{WORK}\nassert work(300_000).max() == 0; tell()"
    assert run(code).split()[:2] == ["True", "False"]


def test_no_folder_for_machine_code_means_compiling_in_memory(numba: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    code = f"{WORK}\nassert work(300_000).max() == 0; tell()"
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path / "file")) == "True True True"


def test_damaged_machine_code_is_compiled_again(kept: None, tmp_path: Path) -> None:
    code = f"{WORK}\nassert work(300_000).max() == 0; tell()"
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).startswith("True True")
    (path,) = tmp_path.rglob("*.kernel")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).startswith("True True")
    assert path.read_bytes()[:12] == whole[:12]
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)).startswith("True False")


@pytest.mark.parametrize("broken", ["compile_code", "write_entry"])
def test_numba_calls_kernels_itself_where_machine_code_cannot_be_made(
    numba: None, forgotten: None, broken: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pilum.native import compiler

    def fail(*_: Any, **__: Any) -> None:
        raise AttributeError("another version of Numba")

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, broken, fail)
    kernel = jit.Kernel(scaled, SCALED)
    function = kernel.load()
    assert function is not None
    assert type(function).__name__ == "CPUDispatcher"
    out = np.empty(1)
    assert function(np.ones(1, np.int64), np.ones((1, 1), np.uint16), 1, 1.0, out) == 1001
    assert out[0] == 4.0


def test_numba_calls_kernels_that_allocate(
    numba: None, forgotten: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    function = jit.Kernel(allocating, "i8(r.u1)").load()
    assert function is not None
    assert function(np.zeros(4, np.uint8)) == 5


def test_whatever_reading_machine_code_raises_means_that_there_is_none(
    forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilum.native import cache

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(cache, "read", fail)
    monkeypatch.setattr(jit, "_numba", False)
    kernel = jit.Kernel(scaled, SCALED)
    assert kernel.get(1 << 30) is None
    assert kernel.load() is None


def test_companions_are_loaded_too(forgotten: None, kept: None) -> None:
    code = """
from pilum.encoding.kernels.pick import PICK
from pilum.encoding.kernels.locate import LOCATE
assert PICK.get(1 << 20) is not None
print(LOCATE.ready)
"""
    assert run(code) == "True"


FORKS = """
import os, threading, warnings
import numpy as np
warnings.simplefilter("ignore")
from pilum.encoding.kernels import distance
matrix = np.ones((300_000, 8), np.float32)
loader = threading.Thread(target=lambda: distance.distances(np.ones(8), matrix))
loader.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        distance.distances(np.ones(8), matrix, "dot")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
loader.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_fork_while_another_thread_loads_a_kernel(tmp_path: Path) -> None:
    run(FORKS)
    run(FORKS, NUMBA_CACHE_DIR=str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_calls_loaded_kernels_and_loads_more(kept: None) -> None:
    code = f"""{WORK}
import os
assert work(300_000).max() == 0
child = os.fork()
if child == 0:
    right = work(300_000).max() == 0 and work(300_000, "dot").max() == -7
    loaded = all(one.compiled is not None for one in (distance._SINGLE[0], distance._SINGLE[2]))
    os._exit(0 if right and loaded and "numba" not in sys.modules else 1)
print(os.waitpid(child, 0)[1])
"""
    assert run(code) == "0"


def test_every_module_with_kernels_is_known() -> None:
    """What `preload` does not know is never compiled beforehand."""
    root, folder = Path(jit.__file__).parent, Path(kernels.__file__).parent
    declaring = {
        path
        for path in root.rglob("*.py")
        if path.name != "jit.py" and re.search(r"^ *[^#\n]*\bKernel\(", path.read_text(), re.MULTILINE)
    }
    assert {path.stem for path in declaring if path.parent == folder} == set(kernels.MODULES)
    assert {path.name for path in declaring if path.parent != folder} == {"batch.py"}
