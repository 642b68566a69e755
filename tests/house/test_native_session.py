"""One summary for two environments: a nested pytest whose .venv-native is a script that marks its Python as native."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parents[1] / "support"
CONFTEST: Final = """
import pytest
pytest_plugins = ["native_session"]
@pytest.hookimpl(tryfirst=True)
def pytest_configure():
    import native_session
    native_session.has_training = lambda: {has_training}
    native_session.has_wheel = lambda: {has_wheel}
@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    import native_session
    native_session.SILENCE_S = {silence_s}
"""
# What only the native Python may import.
NATIVE: Final = "import os, signal, pathlib, pytest\nassert os.environ['NATIVE']\n"
MANY: Final = """
def test_passes(): pass
def test_fails():
    print("what it printed")
    answer = 41
    assert answer == 42
@pytest.mark.parametrize("text", ["a b", "x::y", "[z]"])
def test_each(text): assert text
@pytest.mark.skip(reason="not today")
def test_skips(): pass
@pytest.mark.xfail
def test_xfails(): assert False
@pytest.fixture
def broken(): raise OSError("no such luck")
def test_has_no_chance(broken): pass
@pytest.fixture
def untidy():
    yield
    raise OSError("left behind")
def test_leaves_a_mess(untidy): pass
class TestGroup:
    @pytest.mark.slow
    def test_within(self): pass
def test_parts(subtests):
    with subtests.test("first part"): assert 1 == 2
    with subtests.test("second part"): pass
"""


class Project:
    """A small project with a plain and a native environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write(
            "pytest.ini",
            "[pytest]\naddopts = --strict-markers -ra -p pytest_timeout\nfilterwarnings = error\nmarkers = slow\n",
        )
        self.write(".venv-native/bin/python", f'#!/bin/sh\nNATIVE=1 exec "{sys.executable}" "$@"\n')
        (root / ".venv-native/bin/python").chmod(0o755)
        self.conftest()
        self.write("tests/test_plain.py", "def test_here(): pass\n")

    def write(self, name: str, content: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(content)

    def native(self, content: str, name: str = "test_native.py") -> None:
        self.write(f"tests/native/{name}", NATIVE + content)

    def meet(self) -> None:
        """The plain test waits for a native one, which writes hello to the pipe `meet`."""
        os.mkfifo(self.root / "meet")
        self.write(
            "tests/test_plain.py",
            "import pathlib\ndef test_reads(): assert pathlib.Path('meet').read_text() == 'hello'\n",
        )

    def conftest(self, *, has_training: bool = False, has_wheel: bool = True, silence_s: float = 60.0) -> None:
        self.write(
            "tests/conftest.py",
            CONFTEST.format(has_training=has_training, has_wheel=has_wheel, silence_s=silence_s),
        )

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *(arguments or ("tests",))],
            cwd=self.root,
            env=clean | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[Counter[str], str]:
        """The counts of the one summary, and all output."""
        process = self.start(*arguments, **environment)
        said, _ = process.communicate()
        summary = said.splitlines()[-1]
        return Counter({name: int(count) for count, name in re.findall(r"(\d+) ([a-z]+)", summary)}), said


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_every_outcome_is_counted_and_shown_once(project: Project) -> None:
    project.native(MANY)
    project.native("pytest.skip('no such board', allow_module_level=True)\n", "test_skipped_file.py")
    counts, said = project.run("tests", "--durations=1")
    expected = {"passed": 1 + 1 + 3 + 1 + 1, "failed": 3, "skipped": 2, "xfailed": 1, "errors": 2}
    assert {name: counts[name] for name in expected} == expected, said
    assert "answer = 41" in said  # the whole traceback, with what was captured
    assert said.count("what it printed") == 2  # the line of source, and the output
    assert "OSError: no such luck" in said
    assert "OSError: left behind" in said
    assert "[first part]" in said
    assert "not today" in said
    assert "no such board" in said
    assert said.index("tests/test_plain.py .") < said.index("tests/native/test_native.py .")


def test_selection(project: Project) -> None:
    project.native(MANY)
    project.native("def test_other(): pathlib.Path('other').touch()\n", "test_other.py")

    def counts(*arguments: str) -> dict[str, int]:
        return dict(project.run(*arguments)[0])

    file = "tests/native/test_native.py"
    assert counts(f"{file}::test_each[x::y]", f"{file}::test_passes", "tests/test_plain.py") == {"passed": 3}
    assert counts(f"{file}::TestGroup::test_within", f"{file}::test_each") == {"passed": 4}
    assert counts("tests", "-k", "each or here") == {"passed": 4, "deselected": 9}
    assert counts("tests", "-m", "slow") == {"passed": 1, "deselected": 12}
    assert not (project.root / "other").exists()  # only what is wanted runs
    assert counts("tests", "-x") == {"passed": 2, "failed": 1}
    assert counts("tests/test_plain.py", "tests/native/test_other.py", "--collect-only") == {"tests": 2}


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "Segmentation fault"),
        ("os.write(2, b'a last word'); os._exit(3)", "exit code 3"),
        ("os._exit(0)", "exit code 0"),
    ],
)
def test_a_crash_fails_what_was_not_reported(project: Project, end: str, said: str) -> None:
    project.native(f"def test_before(): pass\ndef test_crashes(): {end}\ndef test_after(): pass\n")
    counts, output = project.run()
    assert counts == {"passed": 2, "failed": 2}, output
    assert said in output
    assert ("a last word" in output) == ("a last word" in end)
    assert "FAILED tests/native/test_native.py::test_after" in output


def test_a_crash_after_the_last_report_is_an_error(project: Project) -> None:
    project.native("import atexit\ndef test_passes(): atexit.register(os._exit, 7)\n")
    counts, output = project.run()
    assert (counts["passed"], counts["error"]) == (2, 1), output
    assert "exit code 7" in output


@pytest.mark.parametrize("content", ["import no_such_module\n", "os.kill(os.getpid(), signal.SIGSEGV)\n"])
def test_what_cannot_be_collected_is_an_error(project: Project, content: str) -> None:
    project.native(content)
    counts, output = project.run()
    assert counts == {"error": 1}, output
    assert "No module named 'no_such_module'" in output or "Segmentation fault" in output


def test_both_run_at_once(project: Project) -> None:
    project.meet()
    project.native("def test_writes(): pathlib.Path('meet').write_text('hello')\n")
    assert project.run()[0] == {"passed": 2}


def test_one_of_several_workers_replays(project: Project) -> None:
    conftest = project.root / "tests/conftest.py"
    conftest.write_text(conftest.read_text().replace('"native_session"]', '"native_session", "workers"]'))
    project.native(
        "def test_runs():\n    with open('runs', 'a') as file: file.write('once')\ndef test_passes(): pass\n"
    )
    project.native(MANY, "test_more.py")
    counts, output = project.run("tests", "-p", "xdist", "-n", "2", "--no-loadscope-reorder")
    assert {name: counts[name] for name in ("passed", "failed", "errors")} == {"passed": 9, "failed": 3, "errors": 2}, (
        output
    )
    assert (project.root / "runs").read_text() == "once"


def test_waiting_is_not_timed_but_running_is(project: Project) -> None:
    project.native(
        "def wait(): signal.sigtimedwait([], 1.0)\n"
        "@pytest.mark.timeout(0)\ndef test_may_be_slow(): wait()\n"
        "@pytest.mark.timeout(0.1)\ndef test_may_not(): wait()\n"
    )
    counts, output = project.run("tests/native", "-o", "timeout=0.5")
    assert counts == {"passed": 1, "failed": 1}, output
    assert "Timeout (>0.1s)" in output


def test_silence_is_ended_and_shows_where(project: Project) -> None:
    project.meet()
    project.conftest(silence_s=0.2)
    project.native(
        "def test_hangs():\n    pathlib.Path('meet').write_text('hello')\n    signal.sigwait([signal.SIGUSR1])\n"
    )
    counts, output = project.run()
    assert counts == {"passed": 1, "failed": 1}, output
    assert re.search(r"Aborted.*in test_hangs", output, re.DOTALL), output


def test_ctrl_c_ends_the_other(project: Project) -> None:
    os.mkfifo(project.root / "pid")
    project.native(
        "def test_hangs():\n"
        "    pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "    signal.sigwait([signal.SIGUSR1])\n"
    )
    process = project.start("tests/native")
    pid = int((project.root / "pid").read_text())
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("has_wheel", [True, False])
def test_without_the_other_environment(project: Project, has_wheel: bool) -> None:
    project.native(MANY)
    project.native(MANY, "test_more.py")
    project.conftest(has_wheel=has_wheel)
    (project.root / ".venv-native/bin/python").unlink()
    counts, output = project.run()
    assert counts == {"passed": 1, "failed" if has_wheel else "skipped": 1}, output
    reason = "run tools/test once" if has_wheel else "no .venv-native: ORT training exists for"
    assert f"\ntests/native: {reason}" in output
    assert reason in output.partition("short test summary")[2]


def test_in_the_native_environment_nothing_is_special(project: Project) -> None:
    project.native("def test_is_here(): assert 'test_native' in __import__('sys').modules\n")
    project.conftest(has_training=True)
    (project.root / ".venv-native/bin/python").unlink()
    counts, output = project.run(NATIVE="1")
    assert counts == {"passed": 2}, output
    assert "tests/native:" not in output
