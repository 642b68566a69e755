"""How many entries an update keeps: density, a budget in bytes, a steady threshold, and what the device can do.

Pure functions; the agent keeps a `Pace` from round to round.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edgeclient.compress.arrays import F32, I64
from edgeclient.compress.select import top_k

# While a model is young, everything moves: four times the density for the first versions (Deep Gradient Compression,
# 1712.01887, warms up over four epochs).
WARM_UP: Final = 4
# A steady threshold sends more after much was learnt and less after little, within these bounds of the target.
SWING: Final = 4
# How fast the threshold follows the magnitude at the target.
_FOLLOW: Final = 0.2
# How fast the cost of an entry follows the last update; until one was made, that of uniform positions at 0.1 %.
_LEARN: Final = 0.3
_FIRST_BITS: Final = 13.0
# Header, directory and checksum of a frame.
_HEAD_BYTES: Final = 48
# Candidates, indices, values and levels while an update is made: 80 bytes measured for each entry, twice that granted.
_ENTRY_BYTES: Final = 160
_LEAST_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Pace:
    """What earlier rounds teach the next.

    Attributes:
        bits_per_entry: of whole frames, a running average; 0 before the first update.
        threshold: magnitude from which entries are sent where the task asks for a steady one; 0 before the first.
        selected: magnitude of the smallest entry that was last selected; makes the next selection faster.
        residual_norm: of what the last round left unsent; None before it, or where it is beyond numbers.
    """

    bits_per_entry: float = 0.0
    threshold: float = 0.0
    selected: float = 0.0
    residual_norm: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds an update, whatever the task asks for.

    Attributes:
        max_density: what the device's owner grants, warm-up included.
        budget_bytes: all frames of an update together, 0 for no limit.
        share: of the local steps that the task asked for, how many this device does in its time. Whoever learns less
            sends less, down to a quarter.
        free_bytes: memory there is; None if unknown.
    """

    max_density: float = 1.0
    budget_bytes: int = 0
    share: float = 1.0
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """How many entries to send.

    Attributes:
        entries: as many, unless a threshold decides; 0 sends nothing.
        least: at least so many, if they are not zero.
        most: never more.
        threshold: entries from this magnitude on, between `least` and `most` of them; 0: exactly `entries`.
    """

    entries: int
    least: int
    most: int
    threshold: float = 0.0


def target(
    n: int,
    density: float,
    pace: Pace,
    limits: Limits = Limits(),
    *,
    steady: bool = False,
    warm_up: bool = False,
) -> Target:
    """Decide how many of n entries the next update keeps.

    Args:
        n: size of the vector.
        density: fraction that the task asks for.
        pace: from earlier rounds.
        limits: see Limits.
        steady: whether a threshold decides, rather than a number. A constant threshold is optimal for the error over
            a whole run (Sahu et al., 2108.00951).
        warm_up: the model is young.

    Example:
        >>> target(1_000_000, 0.01, Pace())
        Target(entries=10000, least=10000, most=10000, threshold=0.0)
        >>> target(1_000_000, 0.01, Pace(bits_per_entry=8.0), Limits(budget_bytes=4096))
        Target(entries=4048, least=4048, most=4048, threshold=0.0)
        >>> target(1_000_000, 0.01, Pace(threshold=0.5), steady=True)
        Target(entries=10000, least=2500, most=40000, threshold=0.5)
    """
    bounds = [n * limits.max_density]
    if limits.budget_bytes:
        bounds.append(8 * max(0, limits.budget_bytes - _HEAD_BYTES) / (pace.bits_per_entry or _FIRST_BITS))
    if limits.free_bytes is not None:
        bounds.append(limits.free_bytes / _ENTRY_BYTES)
    limit = max(1, math.floor(min(bounds)))
    wanted = n * density * (WARM_UP if warm_up else 1) * max(_LEAST_SHARE, min(1.0, limits.share))
    entries = max(1, min(limit, math.ceil(wanted)))
    if not (steady and pace.threshold):
        return Target(entries, entries, entries)
    return Target(entries, max(1, entries // SWING), min(limit, SWING * entries, n), pace.threshold)


def chosen(values: F32, target: Target) -> I64:
    """Which of the `target.most` largest values (k,) are sent: their positions, ascending.

    Example:
        >>> chosen(np.array([3, -2, 1, 5], np.float32), Target(2, 1, 4, threshold=1.5))
        array([0, 1, 3])
    """
    if not target.threshold:
        return top_k(values, target.entries)
    above = np.flatnonzero(np.abs(values) >= np.float32(target.threshold))
    return above if above.size >= target.least else top_k(values, target.least)


def learnt(pace: Pace, target: Target, values: F32, *, entries: int, frame_bytes: int) -> Pace:
    """The pace after an update.

    Args:
        pace: before it.
        target: what was aimed at.
        values: the largest compensated values (k,), at most `target.most`, sent or not.
        entries: how many were sent.
        frame_bytes: their frames together.

    Example:
        >>> pace = learnt(Pace(), Target(2, 2, 2), np.array([3, 4], np.float32), entries=2, frame_bytes=3)
        >>> pace.bits_per_entry, pace.threshold
        (12.0, 3.0)
    """
    if not entries or not values.size:
        return pace
    bits = 8 * frame_bytes / entries
    known = min(target.entries, values.size)
    magnitude = float(np.partition(np.abs(values), values.size - known)[values.size - known])
    return replace(
        pace,
        bits_per_entry=pace.bits_per_entry + _LEARN * (bits - pace.bits_per_entry) if pace.bits_per_entry else bits,
        threshold=pace.threshold + _FOLLOW * (magnitude - pace.threshold) if pace.threshold else magnitude,
    )


def within_budget(entries: int, frame_bytes: int, budget_bytes: int) -> int:
    """How many of `entries` to keep when their frames came out larger than the budget; `entries` if they fit.

    Example:
        >>> within_budget(1000, 1100, 1200), within_budget(1000, 1100, 1000)
        (1000, 886)
    """
    if not budget_bytes or frame_bytes <= budget_bytes:
        return entries
    room = max(0, budget_bytes - _HEAD_BYTES) / max(1, frame_bytes - _HEAD_BYTES)
    return min(entries - 1, math.floor(entries * room * 0.98))
