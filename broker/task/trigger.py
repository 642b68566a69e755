"""When the batch of a task closes, by its settings and by who took part lately; and when the task rests."""

from broker.ledger.protocol import Ledger
from broker.rounds import goal
from broker.rounds.goal import Turnout
from broker.rounds.rest import rest
from broker.rounds.trigger import Buffer
from broker.settings import AUTO, Task
from broker.task.worth import best_version


def trigger(ledger: Ledger, task: str, settings: Task) -> Buffer:
    """The trigger of the batch that is open, the same until the next version: what is "auto" is worked out."""
    turnout = _turnout(ledger, task) if AUTO in {settings.goal, settings.deadline_s} else Turnout()
    wanted = goal.goal(turnout) if settings.goal == AUTO else settings.goal
    waits_s = goal.deadline_s(turnout, wanted) if settings.deadline_s == AUTO else settings.deadline_s
    return Buffer(wanted, waits_s, settings.min_interval_s)


def resting(ledger: Ledger, task: str, settings: Task) -> str:
    """Why no further version is made of it before new data comes; "" when one is."""
    if not (settings.max_versions or settings.patience):
        return ""
    versions = ledger.versions(task)
    evaluated = [each.number for each in versions if each.metrics and not each.held]
    return rest(
        newest=versions[-1].number,
        evaluated=evaluated[-1] if evaluated else None,
        best=best_version(versions),
        since=ledger.since(task),
        max_versions=settings.max_versions,
        patience=settings.patience,
    )


def _turnout(ledger: Ledger, task: str) -> Turnout:
    made = [each for each in ledger.versions(task, goal.ROUNDS + 1) if each.batch is not None]
    return Turnout.of(
        [(each.created_s, each.updates) for each in made],
        [ledger.contributors(task, each.number) for each in made[-goal.ROUNDS :]],
    )
