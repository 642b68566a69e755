"""Children end when they are told to, and when we end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker.processes import children

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)",
]
# A parent that starts a child, says its pid and waits to be killed.
PARENT = """
import sys, time
from pathlib import Path
from broker.processes import children
child = children.spawn(sys.argv[2:], log=Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(300)
"""


def wait_for(text: str, log: Path) -> None:
    until_s = time.monotonic() + 20
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < until_s, f"no {text!r} in {log}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_end_asks_first(tmp_path: Path) -> None:
    process = children.spawn(SLEEP, log=tmp_path / "log")
    wait_for("up", tmp_path / "log")
    children.end(process)
    assert process.returncode == -signal.SIGTERM
    children.end(process)
    assert process.returncode == -signal.SIGTERM


def test_end_kills_who_does_not_listen(tmp_path: Path) -> None:
    process = children.spawn(STUBBORN, log=tmp_path / "log")
    wait_for("up", tmp_path / "log")
    children.end(process, grace_s=0.2)
    assert process.returncode == -signal.SIGKILL


def test_one_grace_time_for_all(tmp_path: Path) -> None:
    logs = [tmp_path / str(number) for number in range(4)]
    processes = [children.spawn(STUBBORN, log=log) for log in logs]
    for log in logs:
        wait_for("up", log)
    begun_s = time.monotonic()
    children.end_all(iter(processes), grace_s=1.0)
    assert 1.0 <= time.monotonic() - begun_s < 3.0
    assert {process.returncode for process in processes} == {-signal.SIGKILL}


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_child_dies_with_its_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), *STUBBORN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for("up", tmp_path / "log")
        assert is_alive(child)
        parent.kill()
    until_s = time.monotonic() + 20
    while is_alive(child):
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_child_leads_a_session_of_its_own(tmp_path: Path) -> None:
    process = children.spawn(SLEEP, log=tmp_path / "log")
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        children.end(process)


def test_output_and_errors_are_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "made" / "log"
    for number in range(2):
        program = f"import os; os.write(1, b'out{number} '); os.write(2, b'err{number} ')"
        assert children.spawn([sys.executable, "-c", program], log=log).wait(20) == 0
    assert log.read_text() == "out0 err0 out1 err1 "


def test_pipes_carry_input_and_output(tmp_path: Path) -> None:
    program = "import sys; sys.stdout.write(sys.stdin.readline().upper()); sys.stdout.flush(); sys.stdin.read()"
    process = children.spawn([sys.executable, "-c", program], log=tmp_path / "log", pipes=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"HELLO\n"
    children.end(process)
    assert process.stdin.closed
    assert process.stdout.closed


def test_a_child_inherits_the_named_descriptors_alone(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        program = f"import os; os.write({write}, b'x')"
        command = [sys.executable, "-c", program]
        assert children.spawn(command, log=tmp_path / "log").wait(20) != 0
        assert children.spawn(command, log=tmp_path / "log", keep=[write]).wait(20) == 0
        assert os.read(read, 2) == b"x"
    finally:
        os.close(read)
        os.close(write)


def test_the_environment_is_the_given_one(tmp_path: Path) -> None:
    program = "import os; print(os.environ.get('GIVEN'), os.environ.get('HOME'))"
    assert children.spawn([sys.executable, "-c", program], log=tmp_path / "log", env={"GIVEN": "1"}).wait(20) == 0
    assert (tmp_path / "log").read_text() == "1 None\n"
