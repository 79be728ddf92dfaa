"""What benchmarks share: an engine in a process of its own, and the clock of those that measure in one process.

An engine reads a job from its standard input, one JSON line, and writes its answer, one JSON line.  Both engines are
started once and take turns, so that neither is measured beside the imports or the memory of the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


class Engine:
    """A worker process.

    Args:
        script: the benchmark, started again as a worker.
        arguments: what makes it one.
    """

    def __init__(self, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LANCE_LOG": "error"},
        )

    def ask(self, job: Any) -> Any:
        """Run one job in the worker."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next line that the worker writes."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of an engine ended")
        return json.loads(line)

    def close(self) -> None:
        """Stop the worker."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Clock:
    """Seconds of the wall, or of the processor where other work runs beside."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = time.perf_counter

    def add_option(self, parser: argparse.ArgumentParser) -> None:
        """The option that chooses."""
        parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")

    def choose(self, arguments: argparse.Namespace) -> None:
        """Take what the option says."""
        self.now = time.process_time if arguments.clock == "cpu" else time.perf_counter
