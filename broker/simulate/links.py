"""When devices are there, and how fast their links and processors are, in virtual seconds. Pure functions."""

import csv
import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np

from edgeclient.compress.arrays import F64, Bools
from edgeclient.settings import ConfigError

# Of a Raspberry Pi 4's core in a training step, in small dense layers; six operations a parameter and example.
FLOPS: Final = 2e9
_STEP_FLOPS: Final = 6
_UNITS: Final = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_RATE: Final = re.compile(rf"([0-9]*\.?[0-9]+)\s*({'|'.join(_UNITS)})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Links:
    """Bits a second of devices' links, the same in both directions, spread evenly over orders of magnitude.

    Example:
        >>> Links(1e4, 1e7).rates(3, np.random.default_rng(0)).round().tolist()
        [101811.0, 8059.0, 1659.0]
    """

    slowest: float = 1e6
    fastest: float = 1e6

    @classmethod
    def of(cls, text: str) -> Self:
        """As they are written on a command line.

        Raises:
            ConfigError: they are no links.

        Example:
            >>> Links.of("10kbit..2.5Mbit"), Links.of("1Mbit")
            (Links(slowest=10000.0, fastest=2500000.0), Links(slowest=1000000.0, fastest=1000000.0))
        """
        ends = [_RATE.fullmatch(each.strip()) for each in text.split("..")]
        bits = [float(each[1]) * _UNITS[each[2].lower()] for each in ends if each]
        if not 1 <= len(bits) == len(ends) <= 2 or not 0 < bits[0] <= bits[-1]:
            raise ConfigError(
                f"links {text!r}: a rate or two are wanted, such as 10kbit..10Mbit (bit, kbit, Mbit, Gbit)"
            )
        return cls(bits[0], bits[-1])

    def rates(self, devices: int, rng: np.random.Generator) -> F64:
        """Bytes a second of each device, float64 (devices,)."""
        exponents = rng.uniform(math.log(self.slowest), math.log(self.fastest), devices)
        rates: F64 = np.exp(exponents) / 8
        return rates


@dataclass(frozen=True, slots=True)
class Availability:
    """When each device is there, over and over again.

    Attributes:
        spells: by device, (from, to) in seconds, ascending, apart, within `period_s`; a device without any is always
            there.
        period_s: after which all begins again.

    Example:
        >>> nights = Availability({0: ((0.0, 100.0),)}, 1000.0)
        >>> nights.next_s(0, 50.0), nights.next_s(0, 150.0), nights.after(0, 90.0, 20.0), nights.after(1, 90.0, 20.0)
        (50.0, 1000.0, 1010.0, 110.0)
    """

    spells: dict[int, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    period_s: float = 86_400.0

    def spell(self, device: int, now_s: float) -> tuple[float, float]:
        """From when to when it is there: now, or the next time."""
        spells = self.spells.get(device)
        if not spells:
            return 0.0, math.inf
        turns, within = divmod(now_s, self.period_s)
        at = bisect_right([end for _, end in spells], within)
        turns, at = turns + at // len(spells), at % len(spells)
        begin, end = (turns * self.period_s + each for each in spells[at])
        return begin, end

    def next_s(self, device: int, now_s: float) -> float:
        """The first moment from now on in which it is there."""
        return max(now_s, self.spell(device, now_s)[0])

    def after(self, device: int, now_s: float, seconds: float) -> float:
        """When it has been there for so many seconds from now on: what it does goes on where it was cut off."""
        while True:
            begin, end = self.spell(device, now_s)
            now_s = max(now_s, begin)
            if now_s + seconds <= end:
                return now_s + seconds
            seconds -= max(0.0, end - now_s)
            now_s = max(end, math.nextafter(now_s, math.inf))  # rounding may see the same spell again

    @classmethod
    def read(cls, lines: Iterable[str], devices: int, where: str) -> Self:
        """Of a CSV with the columns device (a number from 0), from_s and to_s; it repeats after the last to_s.

        Raises:
            ConfigError: no such table.

        Example:
            >>> Availability.read(["device,from_s,to_s", "0,0,60", "0,120,180"], 2, "trace.csv").period_s
            180.0
        """
        found: dict[int, list[tuple[float, float]]] = defaultdict(list)
        table = csv.DictReader(lines)
        for number, row in enumerate(table, 2):
            try:
                device, begin, end = int(row["device"]), float(row["from_s"]), float(row["to_s"])
            except (KeyError, TypeError, ValueError):
                raise ConfigError(f"{where}, line {number}: device,from_s,to_s are wanted, numbers each") from None
            if not (device >= 0 and 0 <= begin < end < math.inf):
                raise ConfigError(f"{where}, line {number}: a device from 0 on, and 0 <= from_s < to_s are wanted")
            found[device].append((begin, end))
        if not found:
            raise ConfigError(f"{where} has no rows: device,from_s,to_s are wanted")
        spells = {device: _joined(each) for device, each in found.items() if device < devices}
        return cls(spells, max(each[-1][1] for each in map(_joined, found.values())))


class Presence:
    """Which of many devices are there, as time goes on.

    Example:
        >>> nights = Presence(Availability({0: ((0.0, 100.0),)}, 1000.0), 2)
        >>> [nights.there(now_s).tolist() for now_s in (50.0, 500.0, 1050.0)]
        [[True, True], [False, True], [True, True]]
    """

    def __init__(self, availability: Availability, devices: int) -> None:
        self._availability = availability
        self._begin, self._end = np.zeros(devices), np.full(devices, math.inf)
        self._end[[device for device, spells in availability.spells.items() if spells]] = -math.inf

    def there(self, now_s: float) -> Bools:
        """Now, which is never earlier than before; bool (devices,)."""
        for at in np.flatnonzero(self._end <= now_s).tolist():
            self._begin[at], self._end[at] = self._availability.spell(at, now_s)
        found: Bools = self._begin <= now_s
        return found


def _joined(spells: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(spells):
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return tuple(joined)


def training_s(parameters: int, examples: int, flops: float = FLOPS) -> float:
    """How long a round takes that sees so many examples, passes counted each; dense layers, of others a guess."""
    return _STEP_FLOPS * parameters * examples / flops
