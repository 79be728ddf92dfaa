"""Late imports and forks: a child never meets a half-imported module."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

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


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, pilum; print([name for name in ('numba', 'sqlglot', 'asyncio') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
