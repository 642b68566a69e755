"""A dry run: the given settings, a search for better ones, their confirmation by other judges, half of the data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias

import attrs

from broker.monitor.learning import Finding, finding
from broker.settings import Task
from broker.simulate.crew import Crew, Job, Outcome
from broker.simulate.search import (
    FAILED,
    HALF_A_POINT,
    Choice,
    Worth,
    batch,
    late_of,
    preferred,
    recommended,
)  # fmt: skip
from broker.simulate.trial import Point, Trial

_CHOOSING, _CONFIRMING = 0, 1  # which judges; the seed is another one, too
_MUCH: Final = 4  # times a difference that is none


class Step(NamedTuple):
    """One trial of a dry run.

    Attributes:
        choice: its settings.
        purpose: what it is for.
    """

    choice: Choice
    purpose: str


SEARCH, CONFIRM, HALF = "search", "confirm", "half"


@dataclass(slots=True, eq=False)
class Rehearsal:
    """What is known, more with every trial.

    Attributes:
        trial: with the settings that are there.
        densities: to try.
        outcomes: of each trial, in order.
        winner: of the search, or of the confirmation.
        top: that the search found most accurate, at any price; the data is asked about with it.
        why: in what the winner is better, see `recommended`; "" for not at all.
        stopped: somebody has had enough.
    """

    trial: Trial
    densities: Sequence[float]
    outcomes: dict[Step, Outcome] = field(default_factory=dict)
    winner: Choice | None = None
    top: Choice | None = None
    why: str = ""
    stopped: bool = False

    @property
    def given(self) -> Choice:
        """The choice that is there."""
        return choice_of(self.trial.settings)

    @property
    def near(self) -> float:
        """A difference that is none."""
        return near_of(self.outcomes)

    @property
    def best(self) -> Step:
        """The trial to show."""
        wanted = self.winner if self.why and self.winner else self.given
        steps = [Step(wanted, CONFIRM), Step(wanted, SEARCH)]
        return next((each for each in steps if each in self.outcomes), next(iter(self.outcomes)))

    @property
    def settings(self) -> Task:
        """What is recommended: the winner's, or those that are there."""
        return settings_of(self.trial.settings, self.best.choice)

    def finding(self) -> Finding | None:
        """What is wrong with how the best one learns."""
        rate, points = self.best.choice.learning_rate, self.outcomes[self.best].points
        return finding("", [(each.version, each.metrics) for each in points], rate)

    def data_gain(self) -> tuple[Worth, Worth] | None:
        """What half of each device's examples came to, and what all of them; None where nothing was learnt."""
        if self.top is None:
            return None
        half, whole = (self.outcomes.get(Step(self.top, purpose)) for purpose in (HALF, CONFIRM))
        if half is None or whole is None or half.run is None or whole.run is None:
            return None
        all_of_it = worth_of(whole, self.trial.versions)
        if not all_of_it.score > whole.curve[0] + self.near:
            return None
        return worth_of(half, self.trial.versions), all_of_it


Hears: TypeAlias = Callable[[Step, Point | Outcome], None]


def rehearse(crew: Crew, rehearsal: Rehearsal, told: Hears, *, search: bool) -> None:
    """Play what there is to find out; `told` hears of every version, and of every trial's end.

    Without a search, the settings that are there, with each of the densities, all judges and all data.

    Raises:
        ConfigError, TrainingError: nothing can be played.
    """
    given = rehearsal.given
    if not search:
        choices = [given, *(given._replace(density=each) for each in rehearsal.densities if each != given.density)]
        _play(crew, rehearsal, {Step(each, SEARCH): _job(rehearsal, each, None) for each in choices}, told)
        return
    tried: dict[Choice, Worth] = {}
    while wanted := batch(given, rehearsal.densities, tried, rehearsal.near):
        top = max(tried, key=lambda each: tried[each].score, default=None)
        known = rehearsal.outcomes[Step(top, SEARCH)] if top is not None and tried[top].whole else None
        best = known.curve if known is not None else ()
        jobs = {Step(each, SEARCH): replace(_job(rehearsal, each, _CHOOSING), best=best) for each in wanted}
        _play(crew, rehearsal, jobs, told)
        if rehearsal.stopped:
            break
        tried |= {each: worth_of(rehearsal.outcomes[Step(each, SEARCH)], rehearsal.trial.versions) for each in wanted}
    if not rehearsal.stopped:
        rehearsal.winner, rehearsal.top = preferred(tried, rehearsal.near), preferred(tried, 0.0)
        _confirm(crew, rehearsal, (rehearsal.winner, rehearsal.top), told)


def _confirm(crew: Crew, rehearsal: Rehearsal, found: tuple[Choice, Choice], told: Hears) -> None:
    """The cheap winner and the top against what was given, by other judges and another seed; the top on half of it."""
    given = rehearsal.given
    jobs = {Step(each, CONFIRM): _job(rehearsal, each, _CONFIRMING) for each in (given, *found)}
    half = replace(_job(rehearsal, found[1], _CONFIRMING), half=True)
    _play(crew, rehearsal, {**jobs, Step(found[1], HALF): half}, told)
    if rehearsal.stopped:
        return
    worth = {
        each: worth_of(rehearsal.outcomes[Step(each, CONFIRM)], rehearsal.trial.versions) for each in (given, *found)
    }
    for each in found:
        if each != given and (why := recommended(worth[each], worth[given], rehearsal.near)):
            rehearsal.winner, rehearsal.why = each, why
            return


def _play(crew: Crew, rehearsal: Rehearsal, jobs: Mapping[Step, Job], told: Hears) -> None:
    steps = list(jobs)
    outcomes = crew.play(list(jobs.values()), lambda at, point: told(steps[at], point))
    for step, outcome in zip(steps, outcomes, strict=False):  # fewer, if somebody has had enough
        rehearsal.outcomes[step] = outcome
        rehearsal.stopped |= outcome.ended == "stopped"
        told(step, outcome)


def _job(rehearsal: Rehearsal, choice: Choice, judges: int | None) -> Job:
    trial = rehearsal.trial
    seed = trial.seed + (judges == _CONFIRMING)
    return Job(replace(trial, settings=settings_of(trial.settings, choice), seed=seed), judges)


def choice_of(settings: Task) -> Choice:
    """What of the settings is searched over."""
    return Choice(*(getattr(settings.policy, name) for name in Choice._fields))


def settings_of(settings: Task, choice: Choice) -> Task:
    """Settings with another choice."""
    return attrs.evolve(settings, policy=replace(settings.policy, **choice._asdict()))


def worth_of(outcome: Outcome, versions: int) -> Worth:
    """What a trial came to."""
    seen = [each for each in outcome.points if not each.held]
    if outcome.ended == "diverged" or not seen:
        return FAILED
    last = seen[-1].version
    late = late_of([(each.version, each.metrics) for each in seen], versions if outcome.run else last)
    if outcome.run is None:
        return Worth(late, late, math.inf, whole=False)
    run = outcome.run
    avg = run.avg if run.avg is not None else -run.avg_loss
    return Worth(late, avg, run.update_bytes) if math.isfinite(late) and math.isfinite(avg) else FAILED


def near_of(outcomes: Mapping[Step, Outcome]) -> float:
    """Half a point of accuracy, or as large a part of the loss before training."""
    first = next((each.points[0].metrics for each in outcomes.values() if each.points), {})
    return HALF_A_POINT if "accuracy" in first else HALF_A_POINT * first.get("loss", 1.0)


def enough(half: Worth, whole: Worth, near: float) -> str:
    """What more data would bring, by what the second half of it has brought.

    Example:
        >>> enough(Worth(0.8, 0.8, 1), Worth(0.86, 0.84, 1), HALF_A_POINT)[:5]
        'More '
        >>> enough(Worth(0.8, 0.8, 1), Worth(0.801, 0.802, 1), HALF_A_POINT)[:7]
        'Enough:'
    """
    brought = min(whole.late - half.late, whole.avg - half.avg)
    if brought >= _MUCH * near:
        return "More data will help: the second half of each device's examples has brought much."
    if whole.score - half.score > near:
        return "More data would help a little."
    return "Enough: the second half of each device's examples has brought next to nothing; look at model or labels."
