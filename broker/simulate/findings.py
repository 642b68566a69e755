"""What a dry run says in the end: text for people, JSON, the settings as TOML."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker.monitor.text import age, counted, size
from broker.settings import Task, differences
from broker.simulate.crew import Outcome
from broker.simulate.rehearsal import CONFIRM, Rehearsal, Step, enough, worth_of
from broker.simulate.search import Worth

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def told(rehearsal: Rehearsal) -> Iterator[str]:
    """Lines for people."""
    best = rehearsal.outcomes[rehearsal.best]
    if rehearsal.stopped:
        yield "stopped: this is what is known so far"
    yield from _figures(best)
    if (wrong := rehearsal.finding()) is not None:
        yield f"{wrong.kind}: {wrong.text}"
    elif best.ended == "diverged":
        yield f"diverged: {best.why}"
    if rehearsal.winner is None:
        yield from _leader(rehearsal)
        return
    yield _verdict(rehearsal)
    if (gain := rehearsal.data_gain()) is not None:
        half, whole = gain
        yield (
            f"is the data enough? with half of it {_measures(half)}, with all {_measures(whole)}:"
            f" {enough(half, whole, rehearsal.near)}"
        )


def document(rehearsal: Rehearsal) -> dict[str, Any]:
    """Everything, for programs."""
    gain = rehearsal.data_gain()
    found = {
        "trials": [_trial(rehearsal, step) for step in rehearsal.outcomes],
        "given": rehearsal.given._asdict(),
        "winner": None if rehearsal.winner is None else rehearsal.winner._asdict(),
        "recommended": rehearsal.best.choice._asdict(),
        "better_in": rehearsal.why or None,
        "finding": None if (wrong := rehearsal.finding()) is None else wrong._asdict(),
        "data": None if gain is None else {
            "half": gain[0]._asdict(), "all": gain[1]._asdict(), "says": enough(*gain, rehearsal.near)
        },
        "stopped": rehearsal.stopped,
        "settings": toml(rehearsal.settings),
    }  # fmt: skip
    return {name: _finite(value) for name, value in found.items()}


def _finite(value: Any) -> Any:
    """What JSON has no number for is null: the loss of what diverged."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def toml(settings: Task) -> str:
    """Every key that is not as it is by default; `edgebroker task add --settings` reads it.

    Example:
        >>> from edgeclient.wire.announcement import Policy
        >>> print(toml(Task(goal=8, policy=Policy(density=0.0025))), end="")
        goal = 8
        policy.density = 0.0025
    """
    lines = []
    for key, _, value in differences(Task(), settings):
        table, _, name = key.partition(".")
        place = f"{table}.{name if _BARE.fullmatch(name) else json.dumps(name)}" if name else table
        lines.append(f"{place} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)


def _leader(rehearsal: Rehearsal) -> Iterator[str]:
    """Of a search that was stopped, or of several densities."""
    worth = {step: worth_of(each, rehearsal.trial.versions) for step, each in rehearsal.outcomes.items()}
    whole = {step: each for step, each in worth.items() if each.whole}
    if len(whole) > 1:
        step = max(whole, key=lambda each: whole[each].score)
        named = ", ".join(f"{name} = {value:g}" for name, value in step.choice._asdict().items())
        yield f"highest so far, not confirmed: {named}: {_measures(whole[step])}"


def _verdict(rehearsal: Rehearsal) -> str:
    assert rehearsal.winner is not None
    given, winner = (
        worth_of(rehearsal.outcomes[Step(each, CONFIRM)], rehearsal.trial.versions)
        if Step(each, CONFIRM) in rehearsal.outcomes
        else None
        for each in (rehearsal.given, rehearsal.winner)
    )
    if given is None or winner is None:
        return "not confirmed: the search has ended before"
    if not rehearsal.why:
        tried = counted(len({step.choice for step in rehearsal.outcomes}), "setting")
        return f"the settings you have are best, of {tried}: {_measures(given)} on examples that did not choose"
    changed = ", ".join(
        f"{name} = {new:g} (was {old:g})"
        for name, old, new in zip(rehearsal.given._fields, rehearsal.given, rehearsal.winner, strict=True)
        if old != new
    )
    better = "better" if rehearsal.why == "worth" else "as good for fewer bytes"
    now, before = size(winner.update_bytes), size(given.update_bytes)
    return (
        f"{better}: {changed}: {_measures(winner)} instead of {_measures(given)} on examples that did not choose, with"
        f" another seed; {now} an update{'' if now == before else f' instead of {before}'}"
    )


def _measures(worth: Worth) -> str:
    return f"{abs(worth.late):.3f} late, {abs(worth.avg):.3f} avg"


def _figures(outcome: Outcome) -> Iterator[str]:
    if not outcome.points:
        return
    last, run = outcome.points[-1], outcome.run
    worth = ", ".join(f"{name} {last.metrics[name]:.3f}" for name in ("accuracy", "loss") if name in last.metrics)
    yield f"version {last.version} after {age(last.time_s)} of the fleet's time: {worth or 'not evaluated'}"
    if run is None:
        return
    if run.late is not None and run.avg is not None:
        yield f"late {run.late:.3f} (mean of the last fifth), avg {run.avg:.3f} (the mean of their parameters)"
    cost = run.cost
    yield (
        f"up {size(cost.uplink_bytes)}, {cost.reduction:.0f} times fewer than dense float32;"
        f" {size(run.update_bytes)} an update"
    )
    yield (
        f"down {size(cost.downlink_bytes)}, of which {size(cost.first_fetch_bytes)} are the first fetch; both"
        f" {size(cost.socket_bytes)}, {cost.total_reduction:.1f} times fewer than dense"
    )
    yield (
        f"processor time here: {run.train_s:.1f} s of devices to train, {run.send_s:.1f} s to pack,"
        f" {run.server_s:.1f} s of the aggregator"
    )
    if run.refused:
        refused = ", ".join(f"{count} {reason}" for reason, count in run.refused.items())
        yield f"refused frames, which devices send again: {refused}"


def _trial(rehearsal: Rehearsal, step: Step) -> dict[str, Any]:
    outcome = rehearsal.outcomes[step]
    worth = worth_of(outcome, rehearsal.trial.versions)
    figures: Mapping[str, Any] = {} if outcome.run is None else outcome.run.as_json()
    return {
        "purpose": step.purpose,
        **step.choice._asdict(),
        "ended": outcome.ended or None,
        "score": worth.score,
        **figures,
    }
