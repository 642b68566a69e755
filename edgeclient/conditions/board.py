"""What the board says about itself: three-valued, cheap, never an error.

Files are read under a root that tests may choose; commands are found by name, end after two seconds, and one that hangs
is left alone for five minutes.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

Network: TypeAlias = Literal["none", "ethernet", "wifi", "cellular"]

_COMMAND_S: Final = 2.0
_LEFT_ALONE_S: Final = 300.0
# A command costs 10 to 50 ms and a process; a round of training asks every second.
_FRESH_S: Final = 0.8
# get_throttled: under-voltage, frequency capped, throttled, soft temperature limit, at this moment.
_THROTTLED_NOW: Final = 0xF
_ROUTE_UP: Final = 1


@dataclass(frozen=True, slots=True)
class Observed:
    """Conditions at one moment; None where the board does not tell.

    Attributes:
        on_battery: running from a battery that is not charging.
        battery_percent: charge, 0..100.
        load_per_core: 1-minute load average over the number of cores.
        free_bytes: memory that programs can still take.
        pressure: share of the last ten seconds in which something waited for a core, in percent (PSI "some").
        temperature_c: of the hottest part that tells.
        battery_temperature_c: of the battery.
        throttled: under-voltage, capped, throttled or at the soft temperature limit, now (Raspberry Pi).
        network: what carries the default route.
        metered: whether bytes on it cost.
        free_disk_bytes: where the store is.
    """

    on_battery: bool | None = None
    battery_percent: int | None = None
    load_per_core: float | None = None
    free_bytes: int | None = None
    pressure: float | None = None
    temperature_c: float | None = None
    battery_temperature_c: float | None = None
    throttled: bool | None = None
    network: Network | None = None
    metered: bool | None = None
    free_disk_bytes: int | None = None


class Board:
    """Reads conditions, again and again.

    Args:
        directory: where the store is.
        root: of the files that are read.
        clock: steady seconds.

    Attributes:
        hanging: commands that have not ended in time.

    Example:
        >>> Board(Path("/"), root=Path("/nonexistent")).observe().on_battery
        False
    """

    def __init__(
        self, directory: Path = Path(), root: Path = Path("/"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._root = root
        self._clock = clock
        self.hanging: set[str] = set()
        self._answers: dict[tuple[str, ...], tuple[float, str | None]] = {}

    def observe(self) -> Observed:
        """The conditions now; a board without a power supply entry is on mains."""
        battery = self._phone_battery() or self._battery()
        network, interface = self._network()
        return Observed(
            on_battery=battery[0],
            battery_percent=battery[1],
            load_per_core=self._load_per_core(),
            free_bytes=self._free_bytes(),
            pressure=self._pressure(),
            temperature_c=self._temperature_c(),
            battery_temperature_c=battery[2],
            throttled=self._throttled(),
            network=network,
            metered=self._metered(interface),
            free_disk_bytes=self._free_disk_bytes(),
        )

    # Power

    def _battery(self) -> tuple[bool | None, int | None, float | None]:
        on_battery: bool | None = False
        percent: int | None = None
        degrees: float | None = None
        for supply in _folders(self._root / "sys/class/power_supply"):
            if _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device":
                status = _text(supply / "status")
                on_battery = None if status in {None, "Unknown"} else status == "Discharging"
                capacity = _text(supply / "capacity")
                percent = min(100, int(capacity)) if capacity is not None and capacity.isdecimal() else None
                tenths = _number(supply / "temp")
                degrees = None if tenths is None else tenths / 10
        return on_battery, percent, degrees

    def _phone_battery(self) -> tuple[bool | None, int | None, float | None] | None:
        """Termux:API, where Android forbids the files."""
        answer = self._ask("termux-battery-status")
        try:
            told = json.loads(answer) if answer else None
        except ValueError:
            return None
        if not isinstance(told, dict):
            return None
        plugged, percent, degrees = told.get("plugged"), told.get("percentage"), told.get("temperature")
        return (
            plugged == "UNPLUGGED" if isinstance(plugged, str) else None,
            min(max(percent, 0), 100) if isinstance(percent, int) else None,
            float(degrees) if isinstance(degrees, int | float) else None,
        )

    # Heat and work

    def _temperature_c(self) -> float | None:
        zones = _folders(self._root / "sys/class/thermal")
        known = [value for zone in zones if (value := _number(zone / "temp")) is not None]
        # Some zones tell nonsense while their sensor sleeps.
        sane = [value / 1000 for value in known if 0 < value < 150_000]
        return max(sane, default=None)

    def _throttled(self) -> bool | None:
        for monitor in _folders(self._root / "sys/class/hwmon"):
            if _text(monitor / "name") == "rpi_volt" and _text(monitor / "in0_lcrit_alarm") == "1":
                return True
        _, _, bits = (self._ask("vcgencmd", "get_throttled") or "").strip().partition("=0x")
        try:
            return bool(int(bits, 16) & _THROTTLED_NOW)
        except ValueError:
            return None

    def _load_per_core(self) -> float | None:
        text = _text(self._root / "proc/loadavg")
        try:
            return float(text.split()[0]) / (os.cpu_count() or 1) if text else None
        except (ValueError, IndexError):
            return None

    def _pressure(self) -> float | None:
        for line in (_text(self._root / "proc/pressure/cpu") or "").splitlines():
            kind, *fields = line.split()
            values = dict(field.partition("=")[::2] for field in fields)
            try:
                if kind == "some":
                    return float(values["avg10"])
            except (KeyError, ValueError):
                return None
        return None

    def _free_bytes(self) -> int | None:
        for line in (_text(self._root / "proc/meminfo") or "").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable" and value.removesuffix("kB").strip().isdecimal():
                return int(value.removesuffix("kB")) << 10
        return None

    def _free_disk_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(self._directory).free
        except OSError:
            return None

    # Network

    def _network(self) -> tuple[Network | None, str]:
        """Kind and name of the interface of the default route."""
        four, six = _text(self._root / "proc/net/route"), _text(self._root / "proc/net/ipv6_route")
        if four is None and six is None:
            return None, ""
        routes = [line.split() for line in (four or "").splitlines()[1:]]
        up = [each[0] for each in routes if each[1:2] == ["00000000"] and _hexadecimal(each[3]) & _ROUTE_UP]
        if not up:  # mobile networks without IPv4
            routes = sorted((line.split() for line in (six or "").splitlines()), key=lambda each: each[5:6])
            up = [
                each[9]
                for each in routes
                if len(each) > 9
                and each[:2] == ["0" * 32, "00"]
                and _hexadecimal(each[8]) & _ROUTE_UP
                and each[9] != "lo"
            ]
        if not up:
            return "none", ""
        interface = up[0]
        if interface.startswith(("wwan", "ppp", "rmnet", "usb")):
            return "cellular", interface
        wireless = (self._root / "sys/class/net" / interface / "wireless").exists()
        return ("wifi" if wireless or interface.startswith("wl") else "ethernet"), interface

    def _metered(self, interface: str) -> bool | None:
        """NetworkManager's word: yes and its guess of yes count as yes; a modem without NetworkManager is metered."""
        if not interface:
            return None
        answer = (self._ask("nmcli", "-t", "-f", "GENERAL.METERED", "device", "show", interface) or "").strip()
        _, found, word = answer.partition(":")
        if found and word and not word.startswith("unknown"):
            return word.startswith("yes")
        return True if interface.startswith(("wwan", "ppp", "rmnet")) else None

    def _ask(self, *command: str) -> str | None:
        """What a command says; None when it is not there, fails or hangs."""
        now = self._clock()
        until_s, answer = self._answers.get(command, (-1.0, None))
        if now < until_s:
            return answer
        path = shutil.which(command[0])
        fresh_s = _FRESH_S
        answer = None
        if path is None:
            fresh_s = _LEFT_ALONE_S
        else:
            try:
                answer = _output([path, *command[1:]])
            except (OSError, ValueError):
                fresh_s = _LEFT_ALONE_S
            except subprocess.TimeoutExpired:
                fresh_s = _LEFT_ALONE_S
                self.hanging.add(command[0])
        self._answers[command] = now + fresh_s, answer
        return answer


def _output(command: list[str]) -> str | None:
    """What it says; None when it fails. Raises TimeoutExpired, and then nothing of it runs on.

    Termux:API's commands are scripts: killed alone, each would leave the process that hangs.
    """
    with subprocess.Popen(  # noqa: S603 (fixed names, no shell)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=_COMMAND_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return said if process.returncode == 0 else None


def observe(root: Path = Path("/")) -> Observed:
    """The conditions now, once."""
    return Board(root=root).observe()


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _number(path: Path) -> int | None:
    text = _text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
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
