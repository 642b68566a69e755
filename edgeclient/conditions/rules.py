"""What an owner grants: presets, and what a configuration changes of them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from edgeclient.settings import Conditions

Preset: TypeAlias = Literal["eager", "balanced", "frugal"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner grants; None switches a limit off.

    Attributes:
        train_on_battery: whether a battery that is not charging may be used for training.
        min_battery_percent: below it, and not charging, nothing happens (30, as Android's federated compute has it).
        max_battery_c: training stops when the battery is hotter.
        max_temperature_c: training stops when the board is hotter.
        max_pressure: percent of time in which something waits for a core (PSI); training stops above it.
        max_load: load average per core, where there is no PSI.
        train_metered: whether training goes on while its update could not leave for free.
        metered: bytes that cost: "yes" like any other, "late" when they have waited for `metered_after_s`, "no" never.
        metered_after_s: see `metered`.
        metered_day_bytes: at most so many a day.
        metered_month_bytes: at most so many a month.
        quiet: minutes of the day, from and to, in which nothing is trained, sent or fetched; only the connection
            stays. To may be smaller than from.
        min_free_disk_bytes: below it nothing is trained.
    """

    train_on_battery: bool = True
    min_battery_percent: int = 30
    max_battery_c: float | None = 38.0
    max_temperature_c: float | None = 75.0
    max_pressure: float | None = 40.0
    max_load: float | None = 1.5
    train_metered: bool = False
    metered: Literal["yes", "late", "no"] = "late"
    metered_after_s: float = 6 * 3600.0
    metered_day_bytes: int = 1 << 20
    metered_month_bytes: int = 20 << 20
    quiet: tuple[int, int] | None = None
    min_free_disk_bytes: int = 64 << 20


BALANCED: Final = Rules()
PRESETS: Final[dict[Preset, Rules]] = {
    "eager": replace(
        BALANCED, max_temperature_c=82.0, max_pressure=None, max_load=None, train_metered=True, metered="yes",
        metered_day_bytes=1 << 40, metered_month_bytes=1 << 40,
    ),
    "balanced": BALANCED,
    "frugal": replace(
        BALANCED, train_on_battery=False, min_battery_percent=50, max_battery_c=35.0, max_temperature_c=70.0,
        max_pressure=15.0, max_load=0.7, metered="no",
    ),
}  # fmt: skip
_OFF: Final = {"max_battery_c", "max_temperature_c", "max_pressure", "max_load"}


def rules(conditions: "Conditions") -> Rules:
    """The preset of a configuration with what the owner has changed.

    Example:
        >>> from edgeclient.settings import Conditions
        >>> rules(Conditions(preset="frugal", max_load=0, quiet="22:00-07:30")).quiet
        (1320, 450)
    """
    given = {key: getattr(conditions, key) for key in Rules.__slots__ if key != "quiet"}
    changed = {key: value for key, value in given.items() if value is not None}
    off = dict.fromkeys(key for key in _OFF if changed.get(key) == 0)
    begin, _, end = conditions.quiet.partition("-")
    quiet = (_minutes(begin), _minutes(end)) if conditions.quiet else None
    return replace(PRESETS[conditions.preset], **(changed | off), quiet=quiet)


def _minutes(clock: str) -> int:
    return 60 * int(clock[:2]) + int(clock[3:])
