"""The evaluator's child: what it prints besides its answers, and how far it may stay behind."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.registry.evaluator import Evaluated, Evaluator

# What a data source may print: words, and JSON that is no answer.
CHATTY = """
import json, sys
print("loading data ...", flush=True)
for line in sys.stdin:
    print("42\\nnull\\n[]\\n[[1, 2]]\\ncaf\\xe9", flush=True)
    print(json.dumps({"accuracy": int(line) / 10, "what": "words"}), flush=True)
"""
SILENT = "import time; time.sleep(600)"


@contextmanager
def evaluator(program: str, woken: threading.Semaphore) -> Iterator[Evaluator]:
    """One whose child is another program."""
    command, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        try:
            yield Evaluator(Path("bundle"), "data", {}, lambda _: child, woken.release)
        finally:
            child.kill()


def test_what_the_data_source_prints_is_no_answer() -> None:
    woken = threading.Semaphore(0)
    with evaluator(CHATTY, woken) as made:
        for version in (3, 4):
            made.submit(version, Path(str(version)))
            assert woken.acquire(timeout=30)
        assert made.results() == [Evaluated(3, {"accuracy": 0.3}), Evaluated(4, {"accuracy": 0.4})]


def test_a_slow_child_is_waited_for_once_until_it_has_caught_up() -> None:
    woken = threading.Semaphore(0)
    with evaluator(CHATTY, woken) as made:
        made._submitted.put(1)
        assert made.awaits(0.0, 60.0)
        assert not made.awaits(60.0, 60.0)
        made._submitted.put(2)
        assert not made.awaits(0.0, 60.0)  # behind
        made._submitted.get()
        assert made.awaits(0.0, 60.0)
        made.process.kill()
        made.process.wait()
        assert not made.awaits(0.0, 60.0)


def test_a_child_that_reads_nothing_does_not_hold_up_the_caller() -> None:
    """The pipe to it holds 64 KiB; the requests of this test are 2 MB."""
    with evaluator(SILENT, threading.Semaphore(0)) as made:
        parameters = Path("/" + "a" * 200)

        def submit() -> None:
            for version in range(10_000):
                made.submit(version, parameters)

        caller = threading.Thread(target=submit, daemon=True)
        caller.start()
        caller.join(20)
        assert not caller.is_alive()
        assert made.results() == []


def test_a_child_that_ends_is_told_and_so_is_a_version_that_cannot_be_evaluated() -> None:
    woken = threading.Semaphore(0)
    with evaluator('print(input() and \'{"error": "not finite"}\')', woken) as made:
        made.submit(3, Path("3"))
        assert woken.acquire(timeout=30)
        made.process.wait(30)
        made._thread.join(30)
        for version in (4, 5):
            made.submit(version, Path(str(version)))
        until_s = time.monotonic() + 30
        found: list[Evaluated] = []
        while len(found) < 2:
            assert time.monotonic() < until_s
            found += made.results()
    assert found[0] == Evaluated(3, {}, "not finite")
    assert (len(found), found[1].version) == (2, 4)
    assert "the evaluator has ended, see evaluate.log" in found[1].error


def test_one_that_is_closed_ends_without_a_word() -> None:
    with evaluator(CHATTY, threading.Semaphore(0)) as made:
        made.close()
        assert made.process.wait(30) == 0
        assert made.results() == []
