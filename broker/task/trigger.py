"""When the batch of a task closes, by its settings and by who took part lately."""

from broker.ledger.protocol import Ledger
from broker.rounds import goal
from broker.rounds.goal import Turnout
from broker.rounds.trigger import Buffer
from broker.settings import AUTO, Task


def trigger(ledger: Ledger, task: str, settings: Task) -> Buffer:
    """The trigger of the batch that is open, the same until the next version: what is "auto" is worked out."""
    turnout = _turnout(ledger, task) if AUTO in {settings.goal, settings.deadline_s} else Turnout()
    wanted = goal.goal(turnout) if settings.goal == AUTO else settings.goal
    waits_s = goal.deadline_s(turnout, wanted) if settings.deadline_s == AUTO else settings.deadline_s
    return Buffer(wanted, waits_s, settings.min_interval_s)


def _turnout(ledger: Ledger, task: str) -> Turnout:
    made = [each for each in ledger.versions(task, goal.ROUNDS + 1) if each.batch is not None]
    return Turnout.of(
        [(each.created_s, each.updates) for each in made],
        [ledger.contributors(task, each.number) for each in made[-goal.ROUNDS :]],
    )
