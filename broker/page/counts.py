"""The watch behind the web page: counts for Prometheus, and keeps besides what only people want to see."""

from collections import Counter
from collections.abc import Callable

from broker.monitor.metrics import Metrics
from broker.monitor.presence import MAX_DEVICES
from broker.monitor.roster import Roster


class Shown(Metrics):
    """What the page shows beside the ledger, all of it since the start of the aggregator.

    Args:
        disk: see Metrics.

    Attributes:
        roster: devices by their own words.
        verdicts: answers of the ledger by (task, verdict, reason).
        unreadable: messages that were dropped, by reason.
        upload_bytes: everything that has come on `up`, resends included.

    Example:
        >>> shown = Shown(disk=lambda: (0, 0))
        >>> shown.task("har", 4000)
        >>> shown.answered("har", "refused", "stale"); shown.kept("har", "pi-7", 10)
        >>> shown.verdicts, shown.density("har", "pi-7"), shown.dense_bytes("har")
        (Counter({('har', 'refused', 'stale'): 1}), 0.01, 4000)
    """

    def __init__(self, disk: Callable[[], tuple[int, int]]) -> None:
        super().__init__(disk)
        self.roster = Roster()
        self.verdicts = Counter[tuple[str, str, str]]()
        self.unreadable = Counter[str]()
        self.upload_bytes = 0
        self._sizes: dict[str, int] = {}
        self._kept: dict[tuple[str, str], int] = {}

    def dense_bytes(self, task: str) -> int:
        """What an update of the task would take as dense float32."""
        return self._sizes.get(task, 0)

    def density(self, task: str, device: str) -> float | None:
        """The fraction of the coordinates that the device's last update kept; None before the first."""
        entries = self._kept.get((task, device))
        return None if entries is None else min(1.0, entries / max(1, self._sizes[task] // 4))

    def task(self, task: str, dense_bytes: int) -> None:
        """See Watch."""
        super().task(task, dense_bytes)
        self._sizes[task] = dense_bytes

    def connected(self, *, up: bool) -> None:
        """See Watch."""
        super().connected(up=up)
        if up:
            self.roster.connected()

    def _hear(self, topic: str, payload: bytes) -> None:
        super()._hear(topic, payload)
        self.roster.hear(topic, payload)

    def uploaded(self, size: int) -> None:
        """See Watch."""
        super().uploaded(size)
        self.upload_bytes += size

    def rejected(self, reason: str) -> None:
        """See Watch."""
        super().rejected(reason)
        self.unreadable[reason] += 1

    def answered(self, task: str, verdict: str, reason: str) -> None:
        """See Watch."""
        super().answered(task, verdict, reason)
        self.verdicts[task, str(verdict), reason] += 1

    def kept(self, task: str, device: str, entries: int) -> None:
        """See Watch."""
        if len(self._kept) < MAX_DEVICES or (task, device) in self._kept:
            self._kept[task, device] = entries
