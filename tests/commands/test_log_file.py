"""A log that stays bounded while its writer runs, whoever writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What a command with --log-file does; 1 << 16 lines in its place would take too long.
PROGRAM = """
import logging, os, sys
from pathlib import Path
from edgeclient.logs import output
from edgeclient.logs.bounded import LogFile
logging.getLogger().addHandler(LogFile(Path(sys.argv[1]), 2000))
output.configure("text", "info")
for number in range(200):
    logging.getLogger("edgeclient").info("line %d", number)
    os.write(2, b"a library says something\\n")
    print("and so do we", flush=True)
raise ValueError("the end")
"""


@pytest.mark.case("fleet 52")
def test_a_log_begins_anew_while_it_runs(tmp_path: Path) -> None:
    log = tmp_path / "state" / "edgeclient.log"
    done = subprocess.run([sys.executable, "-c", PROGRAM, log], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert sorted(each.name for each in log.parent.iterdir()) == ["edgeclient.log", "edgeclient.log.1"]
    newest, before = log.read_text(), log.with_name("edgeclient.log.1").read_text()
    assert newest.endswith("ValueError: the end\n")  # of Python itself
    said = (before + newest).splitlines()
    numbers = [int(line.rpartition(" ")[2]) for line in said if " INFO line " in line]
    assert numbers == list(range(numbers[0], 200))
    assert said.count("a library says something") in {len(numbers), len(numbers) + 1}
    assert max(len(newest), len(before)) < 2500
    assert log.stat().st_mode & 0o777 == 0o600


def test_errors_of_a_command_go_there(tmp_path: Path) -> None:
    log = tmp_path / "edgeclient.log"
    log.write_bytes(b"x" * 1_000_000)
    command = [sys.executable, "-m", "edgeclient.cli", "run", "gone.toml", "--log-file", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert log.read_text() == "edgeclient: gone.toml: No such file or directory\n"
    assert log.with_name("edgeclient.log.1").stat().st_size == 1_000_000
    command[-1] = os.fspath(tmp_path / "edgeclient.log" / "no" / "folder")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n"), "Not a directory" in done.stderr) == (1, 1, True), done.stderr
