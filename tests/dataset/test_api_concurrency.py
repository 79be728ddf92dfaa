"""Eight processes write to one table, four with pilum and four with the reference, while both read.

Rows come and go in batches of ten with one number, so a reader that sees another count saw half a commit.  Writers
log what they committed; at the end the history must hold each of it exactly once.  ``PILUM_SOAK`` says for how many
seconds they run (5 by default).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pilum
from tests.support import REPOSITORY

lance = pytest.importorskip("lance")
pytestmark = [pytest.mark.interop, pytest.mark.slow]

SECONDS = float(os.environ.get("PILUM_SOAK", "5"))
BATCH = 10

WRITER = """
import json, random, sys, time
import pyarrow as pa
engine, uri, worker, log = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
lance = __import__(engine)
rng = random.Random(time.time_ns())
mine, number = [], time.time_ns() // 1000 % 10**11 * 100 + worker
out = open(log, "a")
print("ready", flush=True)
deadline = float(sys.stdin.readline())
while time.time() < deadline:
    kind = rng.choice(["append", "append", "append", "delete", "update", "config"])
    number += 100
    try:
        if kind == "append":
            rows = pa.table({"batch": pa.array([number] * 10, pa.int64()), "row": range(10)})
            lance.write_dataset(rows, uri, mode="append")
            mine.append(number)
            done = number
        elif kind == "delete" and mine:
            done = rng.choice(mine)
            lance.dataset(uri).delete(f"batch = {done}")
            mine.remove(done)
        elif kind == "update" and mine:
            done = rng.choice(mine)
            lance.dataset(uri).update({"row": "row + 100"}, where=f"batch = {done}")
        elif kind == "config":
            done = number
            lance.dataset(uri).update_config({f"worker {worker}": str(number)})
        else:
            continue
    except OSError as error:
        text = str(error).lower()
        if "conflict" in text or "concurrent" in text or "retry" in text or "faster" in text:
            continue
        raise
    out.write(json.dumps([kind, done, worker]) + "\\n")
    out.flush()
"""


class Crew:
    """The writers of a table."""

    def __init__(self, uri: Path, folder: Path) -> None:
        self.uri, self.folder = uri, folder
        self.workers = {number: self.start(number) for number in range(8)}
        for process in self.workers.values():
            assert process.stdout is not None
            process.stdout.readline()
        self.deadline = time.time() + SECONDS
        for process in self.workers.values():
            self.release(process)

    def release(self, process: subprocess.Popen[str]) -> None:
        """Let a writer begin."""
        assert process.stdin is not None
        process.stdin.write(f"{self.deadline}\n")
        process.stdin.flush()

    def start(self, number: int) -> subprocess.Popen[str]:
        engine = "pilum" if number % 2 else "lance"
        return subprocess.Popen(
            [sys.executable, "-c", WRITER, engine, str(self.uri), str(number), str(self.folder / f"{number}.log")],
            env={"PYTHONPATH": str(REPOSITORY / "src"), "RAYON_NUM_THREADS": "1", "LANCE_CPU_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def kill_one(self, rng: random.Random) -> None:
        number = rng.randrange(8)
        process = self.workers[number]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.workers[number] = self.start(number)
        self.release(self.workers[number])

    def finish(self) -> None:
        for number, process in self.workers.items():
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, f"writer {number}: {errors}"

    def committed(self) -> list[tuple[str, int, int]]:
        """What the writers say they committed; a line that was cut off by a kill counts as unknown."""
        entries = []
        for path in self.folder.glob("*.log"):
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    kind, number, worker = json.loads(line)
                    entries.append((kind, number, worker))
        return entries


def check_reader(ds: Any) -> None:
    """A reader sees whole batches, and as many rows as the manifest says."""
    table = ds.to_table()
    counts = Counter(table["batch"].to_pylist())
    assert set(counts.values()) <= {BATCH}, [entry for entry in counts.items() if entry[1] != BATCH]
    assert table.num_rows == ds.count_rows()


def run(tmp_path: Path, *, kill: bool) -> tuple[Crew, pilum.LanceDataset]:
    uri = tmp_path / "t.lance"
    schema = pa.schema([("batch", pa.int64()), ("row", pa.int64())])
    pilum.write_dataset(pa.table({"batch": [0] * BATCH, "row": range(BATCH)}, schema=schema), uri)
    folder = tmp_path / "logs"
    folder.mkdir()
    crew = Crew(uri, folder)
    rng = random.Random(5)
    last = 0
    while time.time() < crew.deadline:
        for engine in (pilum, lance):
            ds = engine.dataset(str(uri))
            assert ds.version >= last
            last = ds.version
            check_reader(ds)
        if kill:
            crew.kill_one(rng)
            time.sleep(rng.random())
    crew.finish()
    return crew, pilum.dataset(uri)


def check_rows(ds: pilum.LanceDataset, committed: list[tuple[str, int, int]]) -> set[int]:
    """No row is lost or doubled; returns the batches nobody told about."""
    appended = {number for kind, number, _ in committed if kind == "append"}
    deleted = {number for kind, number, _ in committed if kind == "delete"}
    found = set(ds.to_table()["batch"].to_pylist())
    check_reader(ds)
    check_reader(lance.dataset(ds.uri))
    assert not found & deleted
    return ((appended - deleted) - found) | (found - appended - {0})


@pytest.mark.parametrize("kill", [False, True], ids=["steady", "killed"])
def test_both_engines_write_at_once(tmp_path: Path, kill: bool) -> None:
    crew, ds = run(tmp_path, kill=kill)
    committed = crew.committed()
    assert len(committed) > 10
    ds.validate()
    unknown = check_rows(ds, committed)
    kinds = Counter(kind for kind, _, _ in committed)
    history = [ds.read_transaction(one["version"]) for one in ds.version_refs()]
    assert [one["version"] for one in ds.version_refs()] == list(range(1, ds.version + 1))
    assert all(one is not None for one in history)
    assert len({one.uuid for one in history if one is not None}) == len(history)
    names = Counter(type(one.operation).__name__ for one in history[1:] if one is not None)
    logged = {"Append": kinds["append"], "Delete": kinds["delete"], "UpdateConfig": kinds["config"],
              "Update": kinds["update"]}  # fmt: skip
    written = Counter(
        int(number)
        for one in history
        if one is not None and isinstance(one.operation, pilum.LanceOperation.UpdateConfig)
        for number in one.operation.config_updates.updates.values()
    )
    assert {number for kind, number, _ in committed if kind == "config"} <= written.keys()
    assert set(written.values()) == {1}
    if kill:
        # A killed writer may have committed what it could not log, and nothing else is different.
        assert all(names[name] >= count for name, count in logged.items())
    else:
        assert not unknown
        assert dict(names) == {name: count for name, count in logged.items() if count}
        config = ds.config()
        for worker in range(8):
            last = [number for kind, number, one in committed if kind == "config" and one == worker]
            assert config.get(f"worker {worker}") == (str(last[-1]) if last else None)
