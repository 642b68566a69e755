"""The main job as a user runs it: real broker, real processes, real kills."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_lines import edgebroker

KEYS = {
    "accuracy_before", "accuracy_after", "majority_baseline", "versions", "devices", "frames_applied", "frames_lost",
    "frames_doubled", "law_holds", "uplink_bytes", "dense_bytes", "reduction", "downlink_bytes",
    "first_fetch_bytes", "receipt_bytes", "status_bytes", "socket_bytes", "total_reduction", "steady_reduction",
    "kills", "seconds",
}  # fmt: skip


def _command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "broker.cli", "demo", "--out", str(out), *options]


def _run(out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(_command(out, *options), capture_output=True, text=True, check=False, timeout=100)
    assert "Traceback" not in done.stderr, done.stderr
    assert (out / "report.json").exists(), done.stdout + done.stderr
    return done.returncode, json.loads((out / "report.json").read_text()), done.stdout


def test_the_loop_learns_and_nothing_is_lost(tmp_path: Path) -> None:
    code, report, said = _run(tmp_path / "out", "--seconds", "15", "--devices", "6", "--seed", "3")
    assert code == 0, said
    assert report.keys() >= KEYS
    assert (report["frames_lost"], report["frames_doubled"], report["law_holds"]) == (0, 0, True)
    assert report["kills"] == 2
    assert re.search(r"^watch it live: http://127\.0\.0\.1:\d+$", said, re.MULTILINE)
    assert "Traceback" not in (tmp_path / "out/logs/aggregator.log").read_text()
    assert report["versions"] >= 4
    assert report["versions_remade"] == report["versions"]
    assert report["accuracy_after"] > report["accuracy_before"] + 0.1
    assert report["reduction"] >= 150
    assert report["first_fetch_bytes"] + report["receipt_bytes"] < report["downlink_bytes"] < report["socket_bytes"]
    assert 1 < report["total_reduction"] < report["reduction"]
    assert "times fewer" in said
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<svg") == 3
    assert "http-equiv" not in page
    assert "src=" not in page
    words = re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL).replace(str(tmp_path), "")
    assert not re.search(r"[{}]|[a-z]_[a-z]", words), "keys are no words"

    (command,) = re.findall(r"<code>edgebroker (export .*?)</code>", page)
    done = edgebroker(*shlex.split(command), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "answers differ by" in done.stdout
    assert (tmp_path / "learnt.onnx").stat().st_size > 4 * report["parameters"]


@pytest.mark.parametrize("promise", ["drop", "double", "residual"])
def test_sabotage_is_noticed(promise: str, tmp_path: Path) -> None:
    options = ["--seconds", "9", "--devices", "3", "--no-web", "--sabotage", promise]
    code, report, said = _run(tmp_path / "out", *options)
    assert code == 1
    assert "http://" not in said
    assert not report["law_holds"] or report["frames_lost"] or report["frames_doubled"]
    assert f"--sabotage {promise} asked for" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_orphans(number: signal.Signals, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        _command(tmp_path / "out", "--seconds", "60", "--devices", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert demo.stderr is not None
    with demo.stderr:
        # Broker, aggregator, its evaluator, two devices.
        until_s = time.monotonic() + 40
        while len(family := _descendants(demo.pid)) < 5:
            assert demo.poll() is None, demo.stderr.read()
            assert time.monotonic() < until_s, family
        demo.send_signal(number)
        code = demo.wait(30)
        assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
        while alive := [pid for pid in family if _is_alive(pid)]:
            assert time.monotonic() < until_s + 20, alive
        assert b"Traceback" not in demo.stderr.read()


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
