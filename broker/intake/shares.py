"""How much of the aggregator's time each device may take: what is over it is dropped, and sent again later."""

from dataclasses import dataclass, field
from typing import Final

_SHARE: Final = 0.1  # of the time
_SAVED_S: Final = 1.0  # at most, by a device that was quiet; and owed at most
_MANY: Final = 1024  # devices that are remembered: those that took something lately


@dataclass(slots=True)
class Shares:
    """Seconds that each device has left; who has none left is not heard.

    Example:
        >>> shares = Shares()
        >>> shares.took("pi-7", 1.5, now=0.0)
        >>> shares.may("pi-7", now=1.0), shares.may("pi-8", now=1.0), shares.may("pi-7", now=9.0)
        (False, True, True)
    """

    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def may(self, device: str, *, now: float) -> bool:
        """Whether what the device sends is read."""
        return self._now(device, now) > 0

    def took(self, device: str, seconds: float, *, now: float) -> None:
        """Reading it took so long."""
        if device not in self._left and len(self._left) >= _MANY:
            del self._left[next(iter(self._left))]
        left = self._now(device, now) - seconds
        self._left.pop(device, None)  # to the end: the oldest goes first
        self._left[device] = (max(-_SAVED_S, left), now)

    def _now(self, device: str, now: float) -> float:
        left, at = self._left.get(device, (_SAVED_S, now))
        return min(_SAVED_S, left + _SHARE * (now - at))
