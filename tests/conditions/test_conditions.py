"""What a board tells: files fed as trees, commands as scripts; always an answer, never an error."""

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgeclient.conditions.board import Board, Observed

OF_NOTHING = Observed(on_battery=False)


def seen(root: Path) -> Observed:
    """What a tree tells; the disk is a real one, and not asked for here."""
    return replace(Board(root / "nowhere", root).observe(), free_disk_bytes=None)


@pytest.fixture(autouse=True)
def only_these_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's is found."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def command(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / "bin" / name
    path.write_text("#!/bin/sh\nPATH=/usr/bin:/bin\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def supply(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n")


def load(root: Path, text: str) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/loadavg").write_text(text)


def test_a_board_that_tells_nothing_is_on_mains(tmp_path: Path) -> None:
    assert seen(tmp_path) == OF_NOTHING


@pytest.mark.parametrize(
    ("status", "on_battery"),
    [("Discharging", True), ("Charging", False), ("Full", False), ("Not charging", False), ("Unknown", None)],
)
def test_battery_states(tmp_path: Path, status: str, on_battery: bool | None) -> None:
    supply(tmp_path, "AC", type="Mains", online="1")
    supply(tmp_path, "BAT0", type="Battery", status=status, capacity="41")
    assert seen(tmp_path) == replace(OF_NOTHING, on_battery=on_battery, battery_percent=41)


def test_the_battery_of_a_mouse_is_not_ours(tmp_path: Path) -> None:
    supply(tmp_path, "hid-mouse", type="Battery", scope="Device", status="Discharging", capacity="3")
    assert seen(tmp_path) == OF_NOTHING


@pytest.mark.parametrize("capacity", ["", "many", "-5", "²", "4.5"])
def test_a_charge_that_is_no_number_is_unknown(tmp_path: Path, capacity: str) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", capacity=capacity)
    assert seen(tmp_path) == replace(OF_NOTHING, on_battery=True)


def test_files_that_are_missing_or_garbage_are_unknown(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery")
    (tmp_path / "sys/class/power_supply/BAT0/capacity").write_bytes(b"\xff\xfe")
    assert seen(tmp_path) == replace(OF_NOTHING, on_battery=None)


@pytest.mark.parametrize("text", ["", " ", "much 1 2", "\x00"])
def test_a_load_that_is_no_number_is_unknown(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)
    assert seen(tmp_path).load_per_core is None


def test_load_is_per_core(tmp_path: Path) -> None:
    load(tmp_path, "0.00 9 9 1/2 3")
    assert seen(tmp_path).load_per_core == 0
    load(tmp_path, "100000.0 0 0 1/2 3")
    per_core = seen(tmp_path).load_per_core
    assert per_core is not None
    assert 0 < per_core <= 100_000


def test_a_tree_that_cannot_be_read_is_never_an_error() -> None:
    """Android answers EACCES where others answer ENOENT; a name that is too long is another such error."""
    assert seen(Path("/" + "x" * 300)) == OF_NOTHING


def test_this_machine() -> None:
    assert Board().observe().load_per_core is not None


# Heat and work


def test_the_hottest_zone_that_makes_sense(tmp_path: Path) -> None:
    for zone, text in enumerate(["48312", "71200", "-273150", "999000", "hot"]):
        write(tmp_path, f"sys/class/thermal/thermal_zone{zone}/temp", text)
    assert seen(tmp_path).temperature_c == 71.2


@pytest.mark.parametrize(
    ("answer", "throttled"),
    [
        ("throttled=0x0", False), ("throttled=0x50000", False), ("throttled=0x50005", True), ("throttled=0x8", True),
        ("throttled=", None), ("error 1", None), ("", None),
    ],
)  # fmt: skip
def test_what_the_firmware_says(tmp_path: Path, answer: str, throttled: bool | None) -> None:
    command(tmp_path, "vcgencmd", f'[ "$1" = get_throttled ] && echo "{answer}"')
    assert seen(tmp_path).throttled is throttled


def test_under_voltage_needs_no_command(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/hwmon/hwmon2/name", "rpi_volt")
    write(tmp_path, "sys/class/hwmon/hwmon2/in0_lcrit_alarm", "1")
    assert seen(tmp_path).throttled is True


@pytest.mark.parametrize(
    ("text", "pressure"),
    [
        ("some avg10=12.50 avg60=1.00 avg300=0.10 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 12.5),
        ("full avg10=1.00 total=0\n", None), ("some avg10=much\n", None), ("some\n", None), ("", None),
    ],
)  # fmt: skip
def test_pressure(tmp_path: Path, text: str, pressure: float | None) -> None:
    write(tmp_path, "proc/pressure/cpu", text)
    assert seen(tmp_path).pressure == pressure


# Phones


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ('{"plugged": "UNPLUGGED", "percentage": 71, "temperature": 36.5}', (True, 71, 36.5)),
        ('{"plugged": "PLUGGED_USB", "percentage": 12}', (False, 12, None)),
        ('{"percentage": "many"}', (None, None, None)),
        ('{"API_ERROR": "no"}', (None, None, None)),
        ("[]", (False, None, None)),
        ("not json", (False, None, None)),
    ],
)
def test_termux_battery(tmp_path: Path, answer: str, wanted: tuple[bool | None, int | None, float | None]) -> None:
    command(tmp_path, "termux-battery-status", f"echo '{answer}'")
    made = seen(tmp_path)
    assert (made.on_battery, made.battery_percent, made.battery_temperature_c) == wanted


def test_a_command_that_hangs_is_left_alone(tmp_path: Path) -> None:
    """Termux:API hangs without its app: two seconds once, not at every look."""
    command(tmp_path, "termux-battery-status", 'echo x >> "$0.calls"; exec sleep 60')
    board = Board(tmp_path / "nowhere", tmp_path)
    began = time.monotonic()
    for _ in range(5):
        assert board.observe().on_battery is False
    assert (tmp_path / "bin/termux-battery-status.calls").read_text() == "x\n"
    assert time.monotonic() - began < 30


def test_a_command_that_fails_is_unknown(tmp_path: Path) -> None:
    command(tmp_path, "vcgencmd", "echo throttled=0x5; exit 3")
    assert seen(tmp_path).throttled is None
    (tmp_path / "bin/vcgencmd").write_text("no script")
    assert seen(tmp_path).throttled is None


# Network

HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def route(root: Path, *interfaces: str) -> None:
    lines = "".join(f"{name}\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" for name in interfaces)
    write(root, "proc/net/route", HEAD + lines)


@pytest.mark.parametrize(
    ("interface", "network"),
    [("eth0", "ethernet"), ("end0", "ethernet"), ("wlan0", "wifi"), ("wlp3s0", "wifi"), ("wwan0", "cellular"),
     ("ppp0", "cellular"), ("rmnet_data0", "cellular"), ("usb0", "cellular")],
)  # fmt: skip
def test_kinds_of_network(tmp_path: Path, interface: str, network: str) -> None:
    route(tmp_path, interface)
    assert seen(tmp_path).network == network


def test_a_wireless_interface_by_its_folder(tmp_path: Path) -> None:
    route(tmp_path, "home")
    (tmp_path / "sys/class/net/home/wireless").mkdir(parents=True)
    assert seen(tmp_path).network == "wifi"


def test_no_default_route_is_no_network(tmp_path: Path) -> None:
    write(tmp_path, "proc/net/route", HEAD + "eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n")
    assert seen(tmp_path).network == "none"


def test_a_mobile_network_without_ipv4_is_no_free_one(tmp_path: Path) -> None:
    write(tmp_path, "proc/net/route", HEAD)
    none = "0" * 32
    unreachable = f"{none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo\n"
    way = f"{none} 00 {none} 00 fe80{'0' * 27}1 00000400 00000003 00000000 00000003 rmnet_data0\n"
    write(tmp_path, "proc/net/ipv6_route", unreachable)
    assert seen(tmp_path).network == "none"
    write(tmp_path, "proc/net/ipv6_route", unreachable + way)
    assert (seen(tmp_path).network, seen(tmp_path).metered) == ("cellular", True)
    write(tmp_path, "proc/net/ipv6_route", f"junk\n{none} 00\n")
    assert seen(tmp_path).network == "none"


@pytest.mark.parametrize("text", ["", "junk", HEAD + "a b\n", HEAD + "eth0\t00000000\tx\tzz\t0\n"])
def test_a_route_table_that_makes_no_sense(tmp_path: Path, text: str) -> None:
    write(tmp_path, "proc/net/route", text)
    assert seen(tmp_path).network in {None, "none"}


@pytest.mark.parametrize(
    ("answer", "metered"),
    [("yes", True), ("yes (guessed)", True), ("no", False), ("no (guessed)", False), ("unknown", None), ("", None)],
)
def test_what_networkmanager_says(tmp_path: Path, answer: str, metered: bool | None) -> None:
    route(tmp_path, "wlan0")
    command(tmp_path, "nmcli", f'[ "$6" = wlan0 ] && echo "GENERAL.METERED:{answer}"')
    assert seen(tmp_path).metered is metered


def test_a_modem_costs_unless_somebody_knows_better(tmp_path: Path) -> None:
    route(tmp_path, "wwan0")
    assert seen(tmp_path).metered is True
    command(tmp_path, "nmcli", "echo GENERAL.METERED:no")
    assert seen(tmp_path).metered is False


def test_free_disk(tmp_path: Path) -> None:
    assert Board(tmp_path, tmp_path).observe().free_disk_bytes == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.5
    )
