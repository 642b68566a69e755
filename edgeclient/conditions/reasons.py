"""Whether to train, to send or to wait, and why: a pure function of time, conditions, queue and past."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, TypeAlias

from edgeclient.conditions.board import Observed
from edgeclient.settings import Conditions


@dataclass(frozen=True, slots=True)
class Queue:
    """What could be done.

    Attributes:
        new_version: there is a version to train from.
        due: bytes of each frame that the window would let out now, in order.
        waiting: frames that are not settled.
        oldest_s: age of the oldest of them.
    """

    new_version: bool = False
    due: Sequence[int] = ()
    waiting: int = 0
    oldest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """What was done.

    Attributes:
        metered_day_bytes: sent on metered links today.
        metered_month_bytes: this month.
        wear_wait_s: until the card may be written to again.
        paused: why everything waits, where somebody or something has said so; "" otherwise.
        link_up: whether the broker is connected.
    """

    metered_day_bytes: int = 0
    metered_month_bytes: int = 0
    wear_wait_s: float = 0.0
    paused: str = ""
    link_up: bool = True


@dataclass(frozen=True, slots=True)
class Train:
    """Train a round, as long as `hindrance` says nothing."""

    because: str = "training"
    doing: str = "training"
    forbidden: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Send:
    """Publish the first `frames` of those that are due."""

    frames: int
    because: str = "sending"
    doing: str = "sending"
    forbidden: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for now; `forbidden` if conditions or the owner want it so."""

    because: str
    doing: str
    forbidden: bool = False


class Hindrance(NamedTuple):
    """Why something may not be done, as one of wire.status.DOINGS and in plain words."""

    doing: str
    because: str


Decision: TypeAlias = Train | Send | Wait
READ_ONLY: Final = "the disk is read-only, its card may be failing: see dmesg, check or replace it, start again"


def decide(  # noqa: PLR0911 (one return a decision)
    minute: int, observed: Observed, rules: Conditions, queue: Queue, history: History
) -> Decision:
    """What to do now. Frames that may leave go first, since that is quick.

    Unknown conditions count as good: a board that tells nothing is a board on mains and a home network. `minute` is of
    the local day, 0..1439.

    Example:
        >>> low = Observed(on_battery=True, battery_percent=20)
        >>> decide(720, low, Conditions(), Queue(True), History())
        Wait(because='battery at 20 %, needs 30 % or a charger', doing='battery', forbidden=True)
        >>> decide(720, Observed(), Conditions(), Queue(due=[900, 800]), History())
        Send(frames=2, because='sending', doing='sending')
    """
    if (why := _standstill(minute, observed, rules, history)) is not None:
        return Wait(why.because, why.doing, forbidden=True)
    frames, unsent = _sendable(observed, rules, queue, history)
    if frames:
        return Send(frames)
    if queue.new_version:
        why = hindrance(observed, rules)
        if why is None and history.wear_wait_s > 0:
            minutes = history.wear_wait_s / 60
            return Wait(f"spares the card: the next round begins in {minutes:.0f} min", "wear", forbidden=True)
        if why is None:
            return Train()
        return Wait(f"{why.because}: training waits", why.doing, forbidden=True)
    if unsent is not None:
        return Wait(unsent.because, unsent.doing, forbidden=history.link_up)
    if queue.waiting:
        return Wait(f"{queue.waiting} frames await their receipt", "receipts")
    return Wait("trained on this version: waiting for the next", "next-version")


def hindrance(observed: Observed, rules: Conditions) -> Hindrance | None:  # noqa: PLR0911 (one return a reason)
    """Why training may not begin or go on, or None. Asked once a second while it runs.

    Example:
        >>> hindrance(Observed(temperature_c=81.0), Conditions())
        Hindrance(doing='heat', because='81 °C is over 75 °C')
    """
    if (why := _battery(observed, rules)) is not None:
        return why
    if observed.on_battery and not rules.train_on_battery:
        return Hindrance("charger", "on battery, and training needs a charger")
    if _over(observed.battery_temperature_c, rules.max_battery_c):
        degrees = f"{observed.battery_temperature_c:.0f} °C are over {rules.max_battery_c:.0f} °C"
        return Hindrance("heat", f"the battery's {degrees}")
    if observed.throttled:
        return Hindrance("throttled", "the board throttles: power supply or heat")
    if _over(observed.temperature_c, rules.max_temperature_c):
        return Hindrance("heat", f"{observed.temperature_c:.0f} °C is over {rules.max_temperature_c:.0f} °C")
    if observed.pressure is not None:
        if _over(observed.pressure, rules.max_pressure):
            share = f"{observed.pressure:.0f} % of the time, over {rules.max_pressure:.0f} %"
            return Hindrance("load", f"others wait for a core {share}")
    elif _over(observed.load_per_core, rules.max_load):
        return Hindrance("load", f"load {observed.load_per_core:.1f} per core is over {rules.max_load:.1f}")
    if observed.metered and not rules.train_metered:
        return Hindrance("metered", "the network is metered")
    if observed.free_disk_bytes is not None and observed.free_disk_bytes < rules.min_free_disk_bytes:
        free, needed = observed.free_disk_bytes >> 20, rules.min_free_disk_bytes >> 20
        return Hindrance("disk", f"{free} MiB are free on the disk, needs {needed}")
    return None


def no_fetch(minute: int, observed: Observed, rules: Conditions, history: History, size: int) -> Hindrance | None:
    """Why a model of `size` bytes may not be downloaded now, or None.

    Example:
        >>> no_fetch(720, Observed(metered=True), Conditions("frugal"), History(), 900)
        Hindrance(doing='metered', because='the network is metered: the model waits for another')
    """
    if (why := _standstill(minute, observed, rules, history)) is not None:
        return why
    if observed.free_disk_bytes is not None and size > observed.free_disk_bytes:
        return Hindrance("disk", f"the model's {size >> 20} MiB do not fit: {observed.free_disk_bytes >> 20} are free")
    if not observed.metered:
        return None
    if rules.metered == "no":
        return Hindrance("metered", "the network is metered: the model waits for another")
    if size > (left := _left(rules, history)):
        return Hindrance("budget", f"the model's {size} bytes are over the metered link's budget ({left} bytes left)")
    return None


def _standstill(minute: int, observed: Observed, rules: Conditions, history: History) -> Hindrance | None:
    """Why nothing at all may be done, or None."""
    if history.paused:
        return Hindrance("paused", history.paused)
    if observed.read_only:
        return Hindrance("disk", READ_ONLY)
    if _quiet(minute, rules):
        return Hindrance("quiet-hours", f"quiet hours until {rules.quiet.partition('-')[2]}")
    return _battery(observed, rules)


def _left(rules: Conditions, history: History) -> int:
    day = rules.metered_day_bytes - history.metered_day_bytes
    return max(0, min(day, rules.metered_month_bytes - history.metered_month_bytes))


def _battery(observed: Observed, rules: Conditions) -> Hindrance | None:
    low = observed.battery_percent is not None and observed.battery_percent < rules.min_battery_percent
    if observed.on_battery and low:
        needed = f"needs {rules.min_battery_percent} % or a charger"
        return Hindrance("battery", f"battery at {observed.battery_percent} %, {needed}")
    return None


def _over(value: float | None, limit: float) -> bool:
    return value is not None and 0 < limit < value


def _sendable(observed: Observed, rules: Conditions, queue: Queue, history: History) -> tuple[int, Hindrance | None]:
    """How many of the due frames may go, and why the others wait."""
    if not queue.due:
        return 0, None
    if not history.link_up:
        return 0, Hindrance("link", f"waiting for the broker with {queue.waiting} frames")
    if not observed.metered:
        return len(queue.due), None
    if rules.metered == "no":
        return 0, Hindrance("metered", f"the network is metered: {queue.waiting} frames wait for another")
    if rules.metered == "late" and queue.oldest_s < rules.metered_after_s:
        hours = (rules.metered_after_s - queue.oldest_s) / 3600
        return 0, Hindrance("metered", f"the network is metered: {queue.waiting} frames wait {hours:.1f} h for another")
    left, fit = _left(rules, history), 0
    while fit < len(queue.due) and sum(queue.due[: fit + 1]) <= left:
        fit += 1
    most = min(rules.metered_day_bytes, rules.metered_month_bytes)
    large = f"the network is metered: a frame of {queue.due[0]} bytes is over its whole budget of {most} bytes"
    used = f"the metered link's budget is used up ({left} bytes left)"
    return fit, Hindrance("budget", large if queue.due[0] > most else used)


def _quiet(minute: int, rules: Conditions) -> bool:
    """Whether these are the quiet hours."""
    if not rules.quiet:
        return False
    begin, end = (60 * int(clock[:2]) + int(clock[3:]) for clock in rules.quiet.split("-"))
    return (minute - begin) % 1440 < (end - begin) % 1440
