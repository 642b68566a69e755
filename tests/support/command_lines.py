"""The two commands as people type them, each in a process of its own."""

import subprocess
from pathlib import Path

import forked


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
    done = forked.run([module, *arguments], cwd=folder, timeout_s=timeout_s)
    assert "Traceback" not in done.stderr, done.stderr
    return done
