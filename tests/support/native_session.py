"""The tests of tests/native, run by .venv-native, in the one summary of the pytest that runs here.

The ORT training package and the plain onnxruntime overwrite each other's files, so no environment can import the
tests of both. Here the files of tests/native are not imported: a second pytest, of .venv-native, collects them, waits
until this one knows which are wanted, and runs those beside it. Our items of the same node ids come last and replay
its reports, in pytest's own serialisation (as pytest-xdist does): counts, tracebacks, durations, -k, -m, -x and --lf
are as ever. Of the workers of pytest-xdist (-n) one lets the second pytest begin, and replays. In an environment that
holds the training package this plugin does nothing.

The two speak JSON lines through a socket. It says `found` for each item, or why there is none, and `done: ""`, which we
answer with the wanted node ids; then, for each of those, `report` several times and `done` with its node id.
"""

import contextlib
import itertools
import json
import os
import platform
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pytest

from broker.processes import children

FOLDER: Final = "tests/native"
PYTHON: Final = ".venv-native/bin/python"
SOCKET: Final = "EDGECLIENT_NATIVE_SOCKET"
# Over there pytest-timeout ends what hangs in Python. This ends what hangs in C, where no signal handler runs.
SILENCE_S = 300.0
_OBEYED_THERE: Final = {"skip", "skipif", "timeout", "xfail"}


def has_training() -> bool:
    """Whether this environment holds the training package."""
    try:
        return bool(metadata.version("onnxruntime-training-cpu"))
    except metadata.PackageNotFoundError:
        return False


def has_wheel() -> bool:
    """Whether a training package exists for this machine and Python."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)


def pytest_configure(config: pytest.Config) -> None:
    descriptor = os.environ.pop(SOCKET, None)
    if descriptor is not None:
        config.pluginmanager.register(Native(config, socket.socket(fileno=int(descriptor))))
    elif not has_training():
        config.pluginmanager.register(Replay(config))


class Native:
    """Over there: says what there is, runs what is wanted, says how it went."""

    def __init__(self, config: pytest.Config, peer: socket.socket) -> None:
        self._config, self._peer = config, peer
        peer.set_inheritable(False)
        config.add_cleanup(peer.close)

    def _say(self, **message: object) -> None:
        self._peer.sendall(json.dumps(message, default=str).encode() + b"\n")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self._say(found=report.nodeid, skipped=report.skipped, why=why)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            marks = sorted({mark.name for mark in item.iter_markers()} - _OBEYED_THERE)
            self._say(found=item.nodeid, location=item.location, marks=marks)
        self._say(done="")
        with self._peer.makefile("rb") as lines:
            wanted = json.loads(lines.readline() or "[]")
        found = {item.nodeid: item for item in items}
        items[:] = [found[nodeid] for nodeid in wanted]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._say(report=self._config.hook.pytest_report_to_serializable(config=self._config, report=report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._say(done=nodeid)


class NativeRun:
    """The pytest over there, as seen from here.

    Attributes:
        found: file → what was said of its items.
        reports: node id → what was reported.
        last: the node id that is run last.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.reports: defaultdict[str, list[pytest.TestReport]] = defaultdict(list)
        self.last = ""
        self._config = config
        self._done: set[str] = set()
        self._inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._folder = tempfile.TemporaryDirectory(prefix="native-session-")
        self._log = Path(self._folder.name) / "log"
        options = ["-p", "no:cacheprovider", "--continue-on-collection-errors", f"--rootdir={config.rootpath}"]
        options += [f"--tb={config.option.tbstyle}", f"--verbosity={config.option.verbose}"]
        options += ["--capture=sys"]  # what C writes before it aborts goes to the log
        self._peer, theirs = socket.socketpair()
        with theirs:
            self._process: subprocess.Popen[bytes] = children.spawn(
                [str(config.rootpath / PYTHON), "-m", "pytest", *options, str(config.rootpath / FOLDER)],
                log=self._log,
                env=os.environ | {SOCKET: str(theirs.fileno())},
                keep=[theirs.fileno()],
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        config.add_cleanup(self._end)

    def begin(self, wanted: list[str]) -> None:
        """Let it run these, while we run others."""
        self.last = wanted[-1] if wanted else ""
        with contextlib.suppress(OSError):  # dead already, which its items will say
            self._peer.sendall(json.dumps(wanted).encode() + b"\n")

    def wait_until_done(self, what: str) -> bool:
        """Waits for all that is said of an item, or at collection (""); False if it died before."""
        while what not in self._done and (message := self._hear()):
            if "found" in message:
                self.found[message["found"].partition("::")[0]].append(message)
            elif "done" in message:
                self._done.add(message["done"])
            else:
                data = message["report"]
                if isinstance(data["longrepr"], list):  # that of a skip: JSON knows no tuples, pytest wants one
                    data["longrepr"] = tuple(data["longrepr"])
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
                self.reports[report.nodeid].append(report)
        return what in self._done

    def returncode(self) -> int:
        """Waits for its end."""
        return self._process.wait(SILENCE_S)

    def obituary(self) -> str:
        """How it ended, and its last words."""
        code = self.returncode()
        how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        return f"{how}: so ended the pytest of {PYTHON}, too early\n{self._log.read_text(errors='replace')[-4000:]}"

    def _listen(self) -> None:
        with self._peer.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                self._inbox.put(line)
        self._inbox.put(b"")

    def _hear(self) -> dict[str, Any]:
        """The next message, or {} when there will be no more."""
        try:
            line = self._inbox.get(timeout=SILENCE_S)
        except queue.Empty:
            self._process.send_signal(signal.SIGABRT)  # pytest's faulthandler then writes where it hangs
            line = self._inbox.get()
        if not line.endswith(b"\n"):  # it died, perhaps within a line
            self._inbox.put(b"")
            return {}
        message: dict[str, Any] = json.loads(line)
        return message

    def _end(self) -> None:
        children.end(self._process)
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
        self._listener.join()
        self._peer.close()
        self._folder.cleanup()


RUN: Final = pytest.StashKey[NativeRun]()


class Replay:
    """Here: items that stand for theirs."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # A worker of pytest-xdist: one of them replays all, first of all, and while it waits the others run the rest.
        self._shared = hasattr(config, "workerinput")
        self._absence = "run tools/test once: it makes .venv-native"
        if (config.rootpath / PYTHON).exists():
            self._absence = ""
        elif not has_wheel():
            self._absence = "no .venv-native: ORT training exists for Python 3.11 and 3.12 on x86-64 Linux alone"

    def pytest_report_header(self) -> str:
        return f"{FOLDER}: {self._absence or f'run by {PYTHON}'}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | pytest.Item | None:
        if path != self._config.rootpath / FOLDER:
            return None
        if self._absence:
            return Absent.from_parent(parent, name=self._absence, nodeid=FOLDER, path=path)
        if RUN not in self._config.stash:
            self._config.stash[RUN] = NativeRun(self._config)
        return NativeFolder.from_parent(parent, path=path)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: isinstance(item, NativeItem) != self._shared)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if not self._shared and not self._config.option.collectonly:
            self._begin(session)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        if self._shared and isinstance(item, NativeItem) and not item.run.last:
            self._begin(item.session)

    def _begin(self, session: pytest.Session) -> None:
        if RUN in self._config.stash:
            self._config.stash[RUN].begin([item.nodeid for item in session.items if isinstance(item, NativeItem)])

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item) -> bool | None:
        """The wait for a report is not the item's time, which is limited over there: start no timer."""
        return isinstance(item, NativeItem) or None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport | None:
        if not isinstance(item, NativeItem) or call.excinfo is not None:
            return None
        reports = [report for report in item.run.reports[item.nodeid] if report.when == call.when]
        for subtest in reports[:-1]:
            item.ihook.pytest_runtest_logreport(report=subtest)
        return reports[-1] if reports else None


class NativeFolder(pytest.Directory):
    """The folder tests/native."""

    def collect(self) -> Iterator[pytest.Collector]:
        run = self.config.stash[RUN]
        if not run.wait_until_done(""):
            raise self.CollectError(run.obituary())
        for file in run.found:
            yield NativeFile.from_parent(self, path=self.config.rootpath / file)


class NativeFile(pytest.File):
    """A file in it, not imported."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        everything = self.config.stash[RUN].found[self.nodeid]
        for found in everything:
            if found.get("skipped"):
                pytest.skip(found["why"], allow_module_level=True)
            if "why" in found:
                raise self.CollectError(found["why"])
        yield from _below(self, everything)


class NativeClass(pytest.Collector):
    """A class in a file."""

    def __init__(self, *, within: list[dict[str, Any]], **rest: Any) -> None:
        super().__init__(**rest)
        self.within = within

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        yield from _below(self, self.within)


def _below(parent: pytest.Collector, found: list[dict[str, Any]]) -> Iterator[pytest.Item | pytest.Collector]:
    def name_of(each: dict[str, Any]) -> str:
        rest: str = each["found"].removeprefix(f"{parent.nodeid}::")
        return rest.partition("::")[0] if "::" in rest.partition("[")[0] else rest

    for name, group in itertools.groupby(found, name_of):
        within = list(group)
        nodeid, location, marks = within[0]["found"], within[0]["location"], within[0]["marks"]
        if nodeid != f"{parent.nodeid}::{name}":
            yield NativeClass.from_parent(parent, name=name, within=within)
            continue
        item = NativeItem.from_parent(parent, name=name, nodeid=nodeid, at=location)
        for mark in marks:
            item.add_marker(mark)
        yield item


class NativeItem(pytest.Item):
    """A test that runs over there; here its reports are waited for and replayed."""

    def __init__(self, *, at: tuple[str, int | None, str], **rest: Any) -> None:
        super().__init__(**rest)
        self.run = self.config.stash[RUN]
        self._at, self._done = at, False

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, self._at[1], self._at[2]

    def setup(self) -> None:
        self._done = self.run.wait_until_done(self.nodeid)

    def runtest(self) -> None:
        if not self._done:
            pytest.fail(self.run.obituary(), pytrace=False)

    def teardown(self) -> None:
        if self._done and self.nodeid == self.run.last and self.run.returncode() not in (0, 1):
            pytest.fail(self.run.obituary(), pytrace=False)


class Absent(pytest.Item):
    """All of tests/native, where there is no .venv-native; its name says why."""

    def runtest(self) -> None:
        if has_wheel():
            pytest.fail(self.name, pytrace=False)
        pytest.skip(self.name)
