"""A user whose systemctl and Termux:API note how they are called, and systemd's own judgement of what is installed."""

import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import forked
import pytest

SERVICES = Path(str(files("firmware_configs"))) / "services"
ANALYZE = shutil.which("systemd-analyze")
NEEDS_ANALYZE = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed: tools/test")
CONFIG = 'device = "pi-7"\ntask = "{task}"\ndirectory = "state"\n[data]\nsource = "windows.npz"\n'


def write(path: Path, task: str = "har") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG.format(task=task))
    return path


class Home:
    """A user whose systemctl, journalctl and Termux:API note how they are called."""

    def __init__(self, folder: Path, module: str = "edgeclient.cli") -> None:
        self.folder, self.module = folder, module
        self.config = write(folder / "device.toml")
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("systemctl", "journalctl", "tail", "termux-job-scheduler"):
            self.program(name, f'echo "{name} $*" >>{self.calls}\n')

    def program(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}")
        (self.bin / name).chmod(0o700)

    def call(self, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "HOME": str(self.folder), "PATH": path or f"{self.bin}:{os.environ['PATH']}"}
        env.pop("XDG_CONFIG_HOME", None)
        return forked.run([self.module, *arguments], cwd=self.folder, env=env)

    def ok(self, *arguments: str) -> str:
        answered = self.call(*arguments)
        assert answered.returncode == 0, answered.stderr
        return answered.stdout

    def refused(self, *arguments: str, path: str | None = None) -> str:
        answered = self.call(*arguments, path=path)
        assert answered.returncode != 0, answered.stdout
        assert len(answered.stderr.splitlines()) == 1, answered.stderr
        return answered.stderr

    def called(self) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.folder))
            for top in (".config", ".termux")
            for path in (self.folder / top).rglob("*")
            if path.is_file()
        }


def analyze(*arguments: str | Path, units: Path, user: bool = False) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:", "XDG_RUNTIME_DIR": str(units), "HOME": str(units)}
    command = [ANALYZE, *(("--user",) if user else ()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
