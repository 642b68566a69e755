"""What carries the default route, and whether bytes on it cost."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

from edgeclient.conditions.readings import Commands, integer, text

Network: TypeAlias = Literal["none", "ethernet", "wifi", "cellular"]

_ROUTE_UP: Final = 1
_MODEMS: Final = ("wwan", "ppp", "rmnet")


def default_route(root: Path) -> tuple[Network | None, str]:
    """Kind and name of the interface of the default route, of the files under `root`; None where they do not tell."""
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


def metered(interface: str, commands: Commands) -> bool | None:
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
