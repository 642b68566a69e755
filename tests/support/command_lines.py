"""The two commands as people type them, each in a process of its own."""

import subprocess
import sys
from pathlib import Path


def edgeclient(
    *arguments: str | Path, folder: Path | None = None, timeout_s: float = 100
) -> "subprocess.CompletedProcess[str]":
    return _called("edgeclient.cli", arguments, folder, timeout_s)


def edgebroker(
    *arguments: str | Path, folder: Path | None = None, timeout_s: float = 60
) -> "subprocess.CompletedProcess[str]":
    return _called("broker.cli", arguments, folder, timeout_s)


def _called(
    module: str, arguments: tuple[str | Path, ...], folder: Path | None, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert "Traceback" not in done.stderr, done.stderr
    return done
