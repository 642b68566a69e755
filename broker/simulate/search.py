"""Which settings to try next, and which to recommend: pure decisions over what trials came to.

One knob after the other, learning rate first, since it matters most; every trial has the same devices, orders and
judges, so that differences are of the settings. Nothing is decided by a single evaluation: see `measures`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from broker.monitor import measures

EPOCHS: Final = (1, 2, 4)
DENSITIES: Final = (0.01, 0.0025, 0.05)
_STEP: Final = 3.0  # between learning rates
_FIRST: Final = (1, _STEP, 1 / _STEP, _STEP**2)
_RATES: Final = 7  # tried at most
HALF_A_POINT: Final = 0.005
_SAVES: Final = 0.9  # of the bytes: less is no reason to choose another setting
# What share of the best one's gain a trial must have reached, at shares of the versions, to go on.
_RUNGS: Final = ((0.25, 0.4), (0.5, 0.75), (0.75, 0.9))
_LATELY: Final = 0.1  # of the versions, over which a gain is a mean


class Choice(NamedTuple):
    """What is searched over; names as in a task's policy."""

    learning_rate: float
    local_epochs: int
    density: float


class Worth(NamedTuple):
    """What a trial came to; the higher the better.

    Attributes:
        late, avg: accuracies, or losses with a minus; see `measures`.
        update_bytes: of an update, mean.
        whole: it ran to its end.
    """

    late: float
    avg: float
    update_bytes: float
    whole: bool = True

    @property
    def score(self) -> float:
        """Of both measures."""
        return (self.late + self.avg) / 2


FAILED: Final = Worth(-math.inf, -math.inf, math.inf)


def batch(start: Choice, densities: Sequence[float], tried: Mapping[Choice, Worth], near: float) -> list[Choice]:
    """What is tried next, all at once; nothing when the search has ended.

    Args:
        start: settings that are there.
        densities: to try.
        tried: what came out.
        near: a difference that is none, such as half a point.

    Example:
        >>> start = Choice(0.1, 1, 0.01)
        >>> [each.learning_rate for each in batch(start, DENSITIES, {}, HALF_A_POINT)]
        [0.1, 0.3, 0.0333, 0.9]
        >>> tried = {start._replace(learning_rate=rate): Worth(rate, rate, 100) for rate in (0.1, 0.3, 0.0333, 0.9)}
        >>> [each.learning_rate for each in batch(start, DENSITIES, tried, HALF_A_POINT)]
        [2.7]
    """
    rates = [each for each in tried if each[1:] == start[1:]]
    first = [start._replace(learning_rate=_rounded(start.learning_rate * by)) for by in _FIRST]
    if new := [each for each in first if each not in tried]:
        return new
    # Of rates, the higher score decides: they cost the same bytes.
    best = max(rates, key=lambda each: tried[each].score)
    if not math.isfinite(tried[best].score):
        return [best._replace(learning_rate=_rounded(min(rates)[0] / _STEP**3))] if len(rates) < _RATES else []
    if len(rates) < _RATES:
        if best == max(rates):
            return [best._replace(learning_rate=_rounded(best.learning_rate * _STEP))]
        if best == min(rates):
            return [best._replace(learning_rate=_rounded(best.learning_rate / _STEP))]
    for knob, values in (("local_epochs", EPOCHS), ("density", densities)):
        line = [best, *(_changed(best, knob, value) for value in values if value != getattr(best, knob))]
        if new := [each for each in line if each not in tried]:
            return new
        best = preferred({each: tried[each] for each in line}, near)
    return []


def preferred(tried: Mapping[Choice, Worth], near: float) -> Choice:
    """The best; of those that are as good on both measures, one of fewer bytes.

    Example:
        >>> preferred({Choice(0.1, 4, 0.05): Worth(0.902, 0.91, 400), Choice(0.1, 4, 0.01): Worth(0.9, 0.909, 90),
        ...            Choice(0.1, 4, 0.0025): Worth(0.85, 0.88, 40)}, HALF_A_POINT).density
        0.01
    """
    whole = {choice: worth for choice, worth in tried.items() if worth.whole} or dict(tried)
    top = max(whole.values(), key=lambda worth: worth.score)
    good = {
        choice: worth for choice, worth in whole.items()
        if worth == top or (worth.late >= top.late - near and worth.avg >= top.avg - near)
    }  # fmt: skip
    fewest = min(worth.update_bytes for worth in good.values())
    good = {choice: worth for choice, worth in good.items() if worth.update_bytes * _SAVES <= fewest}
    return max(good, key=lambda choice: good[choice].score)


def recommended(winner: Worth, given: Worth, near: float) -> str:
    """In what the winner is better than what was given, judged anew; "" when it is not.

    Example:
        >>> recommended(Worth(0.9, 0.91, 100), Worth(0.8, 0.92, 100), HALF_A_POINT)
        ''
        >>> recommended(Worth(0.9, 0.91, 50), Worth(0.901, 0.91, 100), HALF_A_POINT)
        'bytes'
    """
    if not winner.whole or not math.isfinite(winner.score):
        return ""
    if winner.late > given.late and winner.avg > given.avg:
        return "worth"
    as_good = winner.late >= given.late - near and winner.avg >= given.avg - near
    return "bytes" if as_good and winner.update_bytes <= _SAVES * given.update_bytes else ""


def hopeless(curve: Sequence[float], best: Sequence[float], versions: int) -> bool:
    """Whether a trial need not go on: it has learnt far less than the best one had by then.

    Args:
        curve: worth of each version so far, from version 0 on; the higher the better.
        best: of the best trial, whole.
        versions: that are wanted.

    Example:
        >>> best = [version / 20 for version in range(21)]
        >>> hopeless([0.0] * 4, best, 20), hopeless([0.0] * 6, best, 20), hopeless(best[:6], best, 20)
        (False, True, False)
    """
    at = len(curve) - 1
    share = next((share for rung, share in _RUNGS if at == math.ceil(rung * versions)), None)
    if share is None or len(best) < len(curve):
        return False
    lately = slice(-max(1, round(_LATELY * versions)), None)
    gain, theirs = (_mean(each[: at + 1][lately]) - each[0] for each in (curve, best))
    return not gain >= share * theirs


def curve_of(points: Iterator[tuple[int, Mapping[str, float]]]) -> list[float]:
    """Worth of each version: accuracy, or else the loss with a minus.

    Example:
        >>> curve_of(iter([(0, {"loss": 2.0}), (1, {"loss": 1.0})]))
        [-2.0, -1.0]
    """
    return [metrics.get("accuracy", -metrics["loss"]) for _, metrics in points if "loss" in metrics]


def late_of(points: Sequence[tuple[int, Mapping[str, float]]], versions: int) -> float:
    """`measures.late` of that."""
    found = measures.late(
        [(number, each.get("accuracy", -each["loss"])) for number, each in points if "loss" in each], versions
    )
    return -math.inf if found is None or math.isnan(found) else found


def _changed(choice: Choice, knob: str, value: Any) -> Choice:
    return choice._replace(**{knob: value})


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
