"""Whether to train or to send now, or what to wait for: a pure function with its reason."""

from dataclasses import dataclass

from edgeclient.uplink.conditions import Observed


@dataclass(frozen=True, slots=True)
class Limits:
    """What the owner grants: see the settings of the same names."""

    max_load: float
    min_battery_percent: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What may happen now; `because` says in plain words why something may not."""

    train: bool
    send: bool
    because: str


def decide(observed: Observed, limits: Limits, *, new_version: bool, wear_wait_s: float = 0.0) -> Decision:
    """Decide from what was observed.

    Unknown conditions count as good: a board that tells nothing is a board on mains.

    Args:
        observed: the conditions.
        limits: what the owner grants.
        new_version: there is a version to train from.
        wear_wait_s: until the card may be written to again.

    Example:
        >>> decide(Observed(True, 20, 0.1), Limits(1.5, 30), new_version=True)
        Decision(train=False, send=False, because='battery at 20 %, needs 30 % or a charger')
    """
    low = observed.battery_percent is not None and observed.battery_percent < limits.min_battery_percent
    if observed.on_battery and low:
        needed = limits.min_battery_percent
        return Decision(False, False, f"battery at {observed.battery_percent} %, needs {needed} % or a charger")
    if limits.max_load and observed.load_per_core is not None and observed.load_per_core > limits.max_load:
        load = f"load {observed.load_per_core:.1f} per core is over {limits.max_load:.1f}"
        return Decision(False, True, f"{load}: training waits")
    if not new_version:
        return Decision(False, True, "trained on this version: waiting for the next")
    if wear_wait_s > 0:
        return Decision(False, True, f"spares the card: the next round begins in {wear_wait_s / 60:.0f} min")
    return Decision(True, True, "training")
