"""Android: whether it ends what Termux lets run."""

import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

from edgeclient.commands.doctor.findings import Finding

# Android 12, the first that ends "phantom processes".
_FIRST_SDK: Final = 31
_SWITCH: Final = "persist.sys.fflag.override.settings_enable_monitor_phantom_procs"
_ANSWER_S: Final = 3.0


def processes() -> Iterator[Finding]:
    """What Android does with processes of the background; nothing elsewhere."""
    if shutil.which("getprop") is not None:
        yield judge_processes(_property("ro.build.version.sdk"), _property(_SWITCH))


def judge_processes(sdk: str, monitored: str) -> Finding:
    """By the two properties, as Android tells them; "" for one that is not set.

    Example:
        >>> judge_processes("30", "").level, judge_processes("34", "").level, judge_processes("34", "false").level
        ('ok', 'warn', 'ok')
    """
    if not sdk.isdigit() or int(sdk) < _FIRST_SDK or monitored == "false":
        return Finding("ok", "android", f"SDK {sdk or 'unknown'}: processes of the background are left alone")
    return Finding(
        "warn",
        "android",
        f"SDK {sdk}: it ends processes that work long in the background (phantom processes, signal 9)",
        'Developer options, "Disable child process restrictions"; see Termux in edgeclient/README.md',
    )


def _property(name: str) -> str:
    try:
        done = subprocess.run(["getprop", name], capture_output=True, text=True, check=False, timeout=_ANSWER_S)  # noqa: S603, S607 (Android's own, wherever it is)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
