"""What the board says about itself and its network: three-valued, cheap, never an error."""

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from edgeclient.conditions.readings import Commands, folders, integer, searched, text

Network: TypeAlias = Literal["none", "ethernet", "wifi", "cellular"]

LOCK: Final = "lock"  # file in the device's directory that a process holds as long as it lives
_ROUTE_UP: Final = 1
_MODEMS: Final = ("wwan", "ppp", "rmnet")
# get_throttled: under-voltage, frequency capped, throttled, soft temperature limit, at this moment.
_THROTTLED_NOW: Final = 0xF


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
        read_only: whether nothing can be written there.
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
    read_only: bool | None = None


def read_only(directory: Path) -> bool:
    """Whether nothing can be written to the disk of a device's directory.

    A card that fails is mounted so by the kernel, and since Linux 6.15 only an attempt to write shows it.
    """
    try:
        os.close(os.open(directory / LOCK, os.O_WRONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno == errno.EROFS
    return False


class Board:
    """Reads conditions, again and again, from the files under `root`, with a steady clock.

    `directory` is where the store is; `hanging` are commands that have not ended in time.

    Example:
        >>> Board(Path("/"), root=Path("/nonexistent")).observe().on_battery
        False
    """

    def __init__(
        self, directory: Path = Path(), root: Path = Path("/"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._root = root
        self._commands = Commands(clock)
        self.hanging = self._commands.hanging

    def observe(self) -> Observed:
        """The conditions now; a board without a power supply entry is on mains."""
        battery = self._phone_battery() or self._battery()
        network, interface = _default_route(self._root)
        load = searched(self._root / "proc/loadavg", r"^([0-9]+\.?[0-9]*)(?!\S)")
        free_disk_bytes, read_only = self._disk()
        free_kib = searched(self._root / "proc/meminfo", r"^MemAvailable: *([0-9]+) kB$")
        return Observed(
            on_battery=battery[0],
            battery_percent=battery[1],
            load_per_core=None if load is None else load / (os.cpu_count() or 1),
            free_bytes=None if free_kib is None else int(free_kib) << 10,
            pressure=searched(self._root / "proc/pressure/cpu", r"^some .*?avg10=([0-9]+\.?[0-9]*)(?!\S)"),
            temperature_c=self._temperature_c(),
            battery_temperature_c=battery[2],
            throttled=self._throttled(),
            network=network,
            metered=_metered(interface, self._commands),
            free_disk_bytes=free_disk_bytes,
            read_only=read_only,
        )

    # Power

    def _battery(self) -> tuple[bool | None, int | None, float | None]:
        on_battery: bool | None = False
        percent: int | None = None
        degrees: float | None = None
        for supply in folders(self._root / "sys/class/power_supply"):
            if text(supply / "type") == "Battery" and text(supply / "scope") != "Device":
                status = text(supply / "status")
                on_battery = None if status in {None, "Unknown"} else status == "Discharging"
                share = searched(supply / "capacity", r"\A([0-9]+)\Z")
                percent = None if share is None else min(100, int(share))
                tenths = searched(supply / "temp", r"\A(-?[0-9]+)\Z")
                degrees = None if tenths is None else tenths / 10
        return on_battery, percent, degrees

    def _phone_battery(self) -> tuple[bool | None, int | None, float | None] | None:
        """Termux:API, where Android forbids the files."""
        answer = self._commands.ask("termux-battery-status")
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
        zones = folders(self._root / "sys/class/thermal")
        told = [searched(zone / "temp", r"\A([0-9]+)\Z") for zone in zones]
        # Some zones tell nonsense while their sensor sleeps.
        return max((value / 1000 for value in told if value is not None and 0 < value < 150_000), default=None)

    def _throttled(self) -> bool | None:
        for monitor in folders(self._root / "sys/class/hwmon"):
            if text(monitor / "name") == "rpi_volt" and text(monitor / "in0_lcrit_alarm") == "1":
                return True
        _, _, bits = (self._commands.ask("vcgencmd", "get_throttled") or "").strip().partition("=0x")
        told = integer(bits, 16)
        return None if told is None else bool(told & _THROTTLED_NOW)

    def _disk(self) -> tuple[int | None, bool | None]:
        try:
            told = os.statvfs(self._directory)
        except OSError:
            return None, None
        return told.f_bavail * told.f_frsize, read_only(self._directory)


def _default_route(root: Path) -> tuple[Network | None, str]:
    """Kind and name of the interface of the default route; None where the files do not tell."""
    four, six = text(root / "proc/net/route"), text(root / "proc/net/ipv6_route")
    if four is None and six is None:
        return None, ""
    routes = [line.split() for line in (four or "").splitlines()[1:]]
    up = [each[0] for each in routes if each[1:2] == ["00000000"] and _is_up(each[3])]
    if not up:  # mobile networks without IPv4
        routes = sorted((line.split() for line in (six or "").splitlines()), key=lambda each: each[5:6])
        ours = [each for each in routes if len(each) > 9 and each[:2] == ["0" * 32, "00"] and each[9] != "lo"]
        up = [each[9] for each in ours if _is_up(each[8])]
    if not up:
        return "none", ""
    interface = up[0]
    if interface.startswith((*_MODEMS, "usb")):
        return "cellular", interface
    wireless = (root / "sys/class/net" / interface / "wireless").exists()
    return ("wifi" if wireless or interface.startswith("wl") else "ethernet"), interface


def _metered(interface: str, commands: Commands) -> bool | None:
    """NetworkManager's word: yes and its guess of yes count as yes; a modem without NetworkManager is metered."""
    if not interface:
        return None
    answer = (commands.ask("nmcli", "-t", "-f", "GENERAL.METERED", "device", "show", interface) or "").strip()
    word = answer.partition(":")[2]
    if word and not word.startswith("unknown"):
        return word.startswith("yes")
    return True if interface.startswith(_MODEMS) else None


def _is_up(flags: str) -> bool:
    return bool((integer(flags, 16) or 0) & _ROUTE_UP)
