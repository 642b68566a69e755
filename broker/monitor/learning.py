"""Whether a task learns, from what its versions are worth: a pure rule, one sentence with what to do."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

KINDS: Final = ("diverged", "chance", "overfits")
_ENOUGH: Final = 10  # evaluated versions after the first, before nothing learnt is a finding
_SAME: Final = 0.98  # a loss that has fallen by less has not fallen
_CLIFF: Final = 1.5  # times the loss before training: worse than knowing nothing
_LATER: Final = 10  # evaluated versions since the lowest loss
_RISEN: Final = 1.1  # times the lowest loss
_LASTING: Final = 5  # evaluated versions in which it has: one alone may be of an odd update
_GIVEN_BACK: Final = 0.1  # of what was learnt before, too: near zero, twice the loss is nothing
_LATELY: Final = 10  # evaluated versions in which two jumps are a finding
_JUMP: Final = 0.25  # of what was learnt is given back by one version
_LEARNT: Final = 0.9  # times the first loss, before a jump means something
SAME_TIME: Final = 20  # versions within which a finding that goes and comes back is no news


WORSE: Final = 0.05  # a round made the loss on a device's held-out examples worse by more than this fraction


class Finding(NamedTuple):
    """What is wrong, in one word and in one line."""

    kind: str
    text: str


class _Worth(NamedTuple):
    version: int
    loss: float
    accuracy: float | None
    majority: float
    examples: float


def finding(task: str, versions: Sequence[tuple[int, Mapping[str, float]]], learning_rate: float) -> Finding | None:
    """The gravest thing that is wrong with how a task learns; None when nothing is, or too little is known.

    Args:
        task: its name, for the command that would help; "" of one that is not there yet.
        versions: number and metrics of each, oldest first; those without a loss tell nothing.
        learning_rate: of its devices.

    Example:
        >>> curve = [(number, {"loss": 0.7, "accuracy": 0.5, "majority": 0.5}) for number in range(20)]
        >>> finding("har", curve, 0.02).kind
        'chance'
        >>> finding("har", [(0, {"loss": 0.7}), (1, {"loss": math.inf})], 0.02).kind
        'diverged'
        >>> finding("har", [(number, {"loss": 1 / (1 + number)}) for number in range(20)], 0.02) is None
        True
    """
    worth = [_worth(number, metrics) for number, metrics in versions if "loss" in metrics]
    if len(worth) < 2:
        return None
    first, last, later = worth[0], worth[-1], worth[1:]
    slower = f"{f'edgebroker task set {task} ' if task else ''}policy.learning_rate={learning_rate / 4:.2g}"
    best = min(later, key=_finite)
    if told := _diverged(worth, best):
        return Finding("diverged", f"{told}: the learning rate is too high, try {slower}")
    if len(later) >= _ENOUGH and not any(map(_better_than_chance, later)) and _unmoved(first, later):
        many = f"after {len(later)} versions the model is no better than chance ({_chance(last)})"
        told = "do labels belong to their inputs, and is the learning rate"
        return Finding("chance", f"{many}: {told} {learning_rate:.3g} far too low or too high?")
    since = sum(each.version > best.version for each in later)
    risen = max(_RISEN * best.loss, best.loss + _GIVEN_BACK * (first.loss - best.loss))
    if since >= _LATER and all(each.loss > risen for each in later[-_LASTING:]):
        told = f"the loss was lowest in version {best.version} ({best.loss:.3g}) and has risen to {last.loss:.3g} since"
        return Finding("overfits", f"{told}: it learns examples by heart; version {best.version} is kept")
    return None


def overfitting(task: str, changes: Iterable[float | None], local_epochs: int) -> str:
    """A line when rounds make the model worse on held-out examples of most devices that have such; "" otherwise.

    Args:
        task: its name.
        changes: of the loss by the last round of each device, as fractions; None where nothing is held out.
        local_epochs: passes over the local data.

    Example:
        >>> overfitting("har", [0.2, None, 0.3, -0.1], 8)[:62]
        'the last rounds of 2 of 3 devices made the model worse on held'
        >>> overfitting("har", [0.2, -0.1, -0.1], 8), overfitting("har", [], 8)
        ('', '')
    """
    told = [change for change in changes if change is not None]
    worse = sum(change > WORSE for change in told)
    if 2 * worse <= len(told):
        return ""
    fewer = f"policy.local_epochs={local_epochs // 2}" if local_epochs > 1 else "a lower policy.learning_rate"
    return (
        f"the last rounds of {worse} of {len(told)} devices made the model worse on held-out examples: they learn their"
        f" own by heart; try edgebroker task set {task} {fewer}"
    )


def _worth(number: int, metrics: Mapping[str, float]) -> _Worth:
    examples = metrics.get("num_examples", 0.0)
    return _Worth(number, metrics["loss"], metrics.get("accuracy"), metrics.get("majority", 1.0), examples)


def _finite(worth: _Worth) -> float:
    return worth.loss if math.isfinite(worth.loss) else math.inf


def _diverged(worth: Sequence[_Worth], best: _Worth) -> str:
    """How it shows that steps are too large; "" when it does not."""
    first, before, last = worth[0], worth[-2], worth[-1]
    if not math.isfinite(last.loss):
        return f"the loss of version {last.version} is no number"
    if min(last.loss, before.loss) > _CLIFF * first.loss:
        return f"the loss has risen from {first.loss:.3g} in version {first.version} to {last.loss:.3g}"
    if len(jumps := _jumps(first, best, worth[-_LATELY - 1 :])) > 1:
        was, jump = jumps[-1]
        return f"the loss jumps up again and again (from {was.loss:.3g} to {jump.loss:.3g} in version {jump.version})"
    return ""


def _jumps(first: _Worth, best: _Worth, lately: Sequence[_Worth]) -> list[tuple[_Worth, _Worth]]:
    """Versions that gave back much of what was learnt, each behind the one before it."""
    if not best.loss < _LEARNT * first.loss:
        return []
    much = _JUMP * (first.loss - best.loss)
    return [(one, next_) for one, next_ in pairwise(lately) if _finite(next_) > max(_CLIFF * one.loss, one.loss + much)]


def _better_than_chance(worth: _Worth) -> bool:
    """By more than luck, in naming classes; of other models nothing is known."""
    if worth.accuracy is None:
        return False
    luck = 2 * math.sqrt(worth.majority * (1 - worth.majority) / max(1.0, worth.examples))
    return worth.accuracy > worth.majority + luck or worth.loss < _known(worth.majority)


def _known(majority: float) -> float:
    """The loss of who knows how common the classes are, and nothing else, is at least this."""
    rest = 1 - majority
    return -sum(share * math.log(share) for share in (majority, rest) if share > 0)


def _unmoved(first: _Worth, later: Sequence[_Worth]) -> bool:
    """Where no classes are named, chance is what the first version knew."""
    return first.accuracy is not None or min(map(_finite, later)) > _SAME * first.loss


def _chance(worth: _Worth) -> str:
    if worth.accuracy is None:
        return f"loss {worth.loss:.3g}, as before training"
    return f"accuracy {worth.accuracy:.3g}, always the commonest class: {worth.majority:.3g}"
