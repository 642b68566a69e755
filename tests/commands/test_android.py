"""What `doctor` says of Android, with a `getprop` that answers as a phone does."""

from pathlib import Path

import pytest

from edgeclient.commands.doctor import android
from edgeclient.commands.doctor.findings import Finding


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> list[Finding]:
    (folder / "getprop").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "getprop").chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return list(android.processes())


@pytest.mark.case("fleet 52")
def test_doctor_knows_what_ends_a_phone_s_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = "persist.sys.fflag.override.settings_enable_monitor_phantom_procs"
    (found,) = asked(tmp_path, monkeypatch, "case $1 in ro.build.version.sdk) echo 34;; esac")
    assert (found.level, "phantom processes, signal 9" in found.what) == ("warn", True)
    assert "Disable child process restrictions" in found.advice
    (found,) = asked(tmp_path, monkeypatch, f"case $1 in ro.build.version.sdk) echo 34;; {switch}) echo false;; esac")
    assert found.level == "ok"
    (found,) = asked(tmp_path, monkeypatch, "case $1 in ro.build.version.sdk) echo 30;; esac")
    assert found.level == "ok"
    (found,) = asked(tmp_path, monkeypatch, "exec sleep 0; exit 1")
    assert (found.level, "unknown" in found.what) == ("ok", True)


def test_elsewhere_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(android.processes()) == []
