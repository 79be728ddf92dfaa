"""Forks, threads, other processes, and writers killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pilum
from tests.support import REPOSITORY

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ROWS, DIMENSION = 2000, 16


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal(ROWS * DIMENSION).astype(np.float32)
    table = pa.table(
        {
            "id": np.arange(ROWS),
            "name": [f"row {i}" for i in range(ROWS)],
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(matrix), DIMENSION),
        }
    )
    path = tmp_path_factory.mktemp("fork") / "t.lance"
    pilum.write_dataset(table, path, max_rows_per_file=100)
    return str(path)


def work(uri: str) -> None:
    """Open, scan with a filter, take and search; raises when an answer is wrong."""
    ds = pilum.dataset(uri)
    assert ds.to_table(columns=["id"], filter="id >= 1990")["id"].to_pylist() == list(range(1990, 2000))
    assert ds.take([5, 1999], columns=["name"])["name"].to_pylist() == ["row 5", "row 1999"]
    query = ds.take([77], columns=["vec"])["vec"][0].as_py()
    found = ds.to_table(columns=["id"], nearest={"column": "vec", "q": query, "k": 3})
    assert found["id"][0].as_py() == 77


def child(uri: str) -> int:
    """Fork, work in the child; the process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work(uri)
            code = 0
        finally:
            os._exit(code)
    return pid


def outcome(pid: int, seconds: float = 30.0) -> str:
    """``ok``, ``failed`` or ``hung`` (and killed)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return "ok" if status == 0 else f"failed {status}"
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


@pytest.mark.slow
def test_two_hundred_forks_of_an_idle_parent(uri: str) -> None:
    work(uri)
    assert {outcome(child(uri)) for _ in range(200)} == {"ok"}


def fork_while_reading(uri: str) -> None:
    """Fork fifty times while eight threads read; raises unless every child and every thread gave right answers."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                work(uri)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        outcomes = {outcome(child(uri)) for _ in range(50)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert outcomes == {"ok"}, outcomes
    assert errors == []


@pytest.mark.slow
def test_fifty_forks_of_a_parent_with_eight_reading_threads(uri: str) -> None:
    # In a process of its own: a coverage tracer has locks that do not survive a fork beside other threads.
    code = "import sys; from tests.dataset.test_processes import fork_while_reading; fork_while_reading(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, uri], cwd=REPOSITORY, check=True, timeout=900)


def test_eight_threads_share_one_dataset(uri: str) -> None:
    ds = pilum.dataset(uri)
    results: list[bool] = []

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(10):
            low = rng.randrange(ROWS - 50)
            got = ds.to_table(columns=["id"], filter=f"id >= {low} AND id < {low + 50}")["id"].to_pylist()
            results.append(got == list(range(low, low + 50)))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80


def _count_in_other_process(data: bytes) -> int:
    return int(pickle.loads(data).count_rows("id < 10"))


def test_a_pickled_dataset_works_in_another_process(uri: str) -> None:
    data = pickle.dumps(pilum.dataset(uri))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_count_in_other_process, (data,)) == 10


def test_no_thread_outlives_a_query(uri: str) -> None:
    before = set(threading.enumerate())
    work(uri)
    assert set(threading.enumerate()) <= before


WRITER = """
import sys, pyarrow as pa, pilum
uri = sys.argv[1]
step = 0
while True:
    step += 1
    rows = pa.table({"step": [step] * 1000, "text": ["x" * 40] * 1000})
    pilum.write_dataset(rows, uri, mode="append", max_rows_per_file=250)
    if step % 3 == 0:
        pilum.dataset(uri).delete(f"step = {step - 1}")
    if step == 1:
        print("ready", flush=True)  # everything is imported: from here on it only writes
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_readable_version(tmp_path: Path) -> None:
    uri = tmp_path / "t.lance"
    pilum.write_dataset(pa.table({"step": [0] * 1000, "text": ["x" * 40] * 1000}), uri)
    rng = random.Random(11)
    version = 1
    # One process is killed after a random delay and the next one carries on, fifty times; starting one
    # takes most of the time, so two run side by side (they also race for versions).
    for _ in range(25):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(uri)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in writers:
            time.sleep(rng.random() * 0.08)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        ds = pilum.dataset(uri)
        assert ds.version >= version
        version = ds.version
        counts: dict[int, int] = {}
        for step in ds.to_table(columns=["step"])["step"].to_pylist():
            counts[step] = counts.get(step, 0) + 1
        assert all(count % 1000 == 0 for count in counts.values()), counts
        assert counts[0] == 1000
    assert version > 1
