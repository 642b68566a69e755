"""Somebody clears what a task has retained on the MQTT broker: when to publish it again, without a duel."""

from typing import Final

_FIRST_S: Final = 5.0
_MOST_S: Final = 320.0


class Clearing:
    """Tasks whose announcement was cleared, each published again after ever longer pauses; no I/O, no clock.

    Example:
        >>> clearing = Clearing()
        >>> clearing.note("har"), clearing.due(now=0.0), clearing.due(now=1.0)
        (None, ['har'], [])
        >>> clearing.note("har"), clearing.due(now=4.9), clearing.due(now=5.0)
        (None, [], ['har'])
        >>> clearing.note("har"), clearing.due(now=14.9), clearing.due(now=15.0)
        (None, [], ['har'])
        >>> clearing.note("har"), clearing.due(now=1000.0)
        (None, ['har'])
        >>> clearing.note("har"), clearing.due(now=1005.0)
        (None, ['har'])
    """

    def __init__(self) -> None:
        self._noted: set[str] = set()
        self._answered: dict[str, tuple[float, float]] = {}  # when last, and the pause after that

    def note(self, task: str) -> None:
        """Its announcement was cleared."""
        self._noted.add(task)

    def due(self, *, now: float) -> list[str]:
        """Tasks to publish again now (s)."""
        found = [task for task in self._noted if now >= sum(self._answered.get(task, (now, 0.0)))]
        for task in found:
            last_s, pause_s = self._answered.get(task, (now, 0.0))
            quiet = now - last_s > 2 * _MOST_S
            self._answered[task] = now, _FIRST_S if quiet or not pause_s else min(2 * pause_s, _MOST_S)
        self._noted.difference_update(found)
        return found
