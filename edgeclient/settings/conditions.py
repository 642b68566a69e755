"""The table [conditions]: when training and sending would disturb the owner."""

from typing import Annotated, Any, Literal

import attrs

from edgeclient.settings.keys import PRESETS, ruled
from edgeclient.wire.fields import integer, number, pattern


def _by_preset(eager: float | str, balanced: float | str, frugal: float | str) -> Any:
    """A knob whose default is that of the preset."""
    defaults = {"eager": eager, "balanced": balanced, "frugal": frugal}
    made = attrs.Factory(lambda made: defaults[made.preset], takes_self=True)
    return attrs.field(default=made, metadata={PRESETS: defaults})


@attrs.frozen(field_transformer=ruled)
class Conditions:
    """When training and sending would disturb the owner.

    Example:
        >>> Conditions("frugal", max_battery_c=0).max_temperature_c
        70.0
    """

    preset: Annotated[
        Literal["eager", "balanced", "frugal"],
        "eager cares for power and heat alone, balanced stays out of the way, frugal trains on a charger only and never"
        " sends over a metered link; what is given below takes the preset's place, and 0 switches a limit off",
    ] = "balanced"
    train_on_battery: Annotated[bool, "whether a board without a charger trains"] = _by_preset(
        eager=True, balanced=True, frugal=False
    )
    min_battery_percent: Annotated[
        int,
        integer(0, 100),
        "on battery, training and sending wait below this charge; boards without a battery are on mains",
    ] = _by_preset(30, 30, 50)  # 30, as Android's federated compute has it
    max_battery_c: Annotated[float, number(0, 100), "training stops when the battery is hotter"] = _by_preset(
        38.0, 38.0, 35.0
    )
    max_temperature_c: Annotated[float, number(0, 150), "training stops when the board is hotter"] = _by_preset(
        82.0, 75.0, 70.0
    )
    max_pressure: Annotated[
        float, number(0, 100), "percent of time in which something waits for a core (PSI), above which training waits"
    ] = _by_preset(0.0, 40.0, 15.0)
    max_load: Annotated[
        float, number(0, 1000), "1-minute load average per core likewise, where the kernel tells no pressure"
    ] = _by_preset(0.0, 1.5, 0.7)
    metered: Annotated[
        Literal["yes", "late", "no"],
        "over links that cost: send always, when frames have waited for metered_after_s, or never",
    ] = _by_preset("yes", "late", "no")
    train_metered: Annotated[bool, "whether training goes on while its update could not leave for free"] = _by_preset(
        eager=True, balanced=False, frugal=False
    )
    metered_after_s: Annotated[float, number(0, 1e8), "see metered"] = 6 * 3600.0
    metered_day_bytes: Annotated[
        int, integer(0, 1 << 50), "sent and received a day over links that cost, models and statuses included"
    ] = _by_preset(1 << 40, 1 << 20, 1 << 20)
    metered_month_bytes: Annotated[int, integer(0, 1 << 50), "the same a month"] = _by_preset(
        1 << 40, 20 << 20, 20 << 20
    )
    quiet: Annotated[
        str,
        pattern(r"(([01]\d|2[0-3]):[0-5]\d(-(?!$)|$)){2}|", "22:00-07:00"),
        "nothing is trained, sent or fetched then, by local time; the connection stays: keep-alive, HELLO, statuses",
    ] = ""
    min_free_disk_bytes: Annotated[int, integer(0, 1 << 50), "with less free on the disk, nothing is trained"] = (
        64 << 20
    )
    max_written_bytes_per_day: Annotated[
        int,
        integer(0, 1 << 50),
        "SD cards wear: a round writes 2.1 times the model, its frames four times; beyond it rounds come more slowly;"
        " 0: no limit",
    ] = 4 << 30
