"""What the board says about itself: three-valued, cheap, never an error.

Readers take the file-system root as an argument, so that tests feed them trees.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Observed:
    """Conditions at one moment; None where the board does not tell.

    Attributes:
        on_battery: running from a battery that is not charging.
        battery_percent: charge, 0..100.
        load_per_core: 1-minute load average over the number of cores.
        free_bytes: memory that programs can still take.
    """

    on_battery: bool | None
    battery_percent: int | None
    load_per_core: float | None
    free_bytes: int | None = None


def observe(root: Path = Path("/")) -> Observed:
    """Read the conditions; a board without a power supply entry is on mains."""
    on_battery: bool | None = False
    percent: int | None = None
    for supply in _folders(root / "sys/class/power_supply"):
        if _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device":
            status = _text(supply / "status")
            on_battery = None if status in {None, "Unknown"} else status == "Discharging"
            capacity = _text(supply / "capacity")
            percent = int(capacity) if capacity is not None and capacity.isdecimal() else None
    return Observed(on_battery, percent, _load_per_core(root), _free_bytes(root))


def _load_per_core(root: Path) -> float | None:
    text = _text(root / "proc/loadavg")
    try:
        return float(text.split()[0]) / (os.cpu_count() or 1) if text else None
    except (ValueError, IndexError):
        return None


def _free_bytes(root: Path) -> int | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.removesuffix("kB").strip().isdecimal():
            return int(value.removesuffix("kB")) << 10
    return None


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:  # not there, or Android forbids it
        return []


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
