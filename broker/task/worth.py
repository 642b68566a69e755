"""What the versions of a task are worth, of those that the fleet sees."""

from collections.abc import Iterable

from broker.ledger.rows import Version
from broker.registry.best import best


def best_version(versions: Iterable[Version]) -> int | None:
    """The number of the best; None: none is evaluated."""
    return best((each.number, each.metrics) for each in versions if not each.held)
