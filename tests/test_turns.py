"""The turn that worker threads take: one at a time, given up for long work, never lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from pilum import turns


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    yield
    turns.stop()


def test_one_thread_at_a_time() -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            turns.start()
            inside += 1
            most = max(most, inside)
            inside -= 1
            turns.stop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_long_work_lets_others_in() -> None:
    turns.start()
    had = turns.leave()
    assert had
    entered = threading.Event()

    def other() -> None:
        turns.start()
        entered.set()
        turns.stop()

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(10)
    thread.join()
    turns.resume(had)
    assert turns.leave()


def test_threads_without_the_turn_are_not_concerned() -> None:
    assert turns.leave() is False
    turns.resume(False)
    turns.stop()
    turns.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        turns.start()
        holding.set()
        done.wait(30)
        turns.stop()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(10)
    pid = os.fork()
    if pid == 0:
        turns.start()
        turns.stop()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    done.set()
    thread.join()
    assert status == 0
