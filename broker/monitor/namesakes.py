"""Two boards under one id: what each uploads is counted, but people see one device. Pure rules over what was heard.

A device that begins anew never goes back to its earlier store; two boards alternate.
"""

from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Final

SAID: Final = "two boards use this id: give one of them another (device = … in its configuration)"
_MOST: Final = 50_000
_RECENT: Final = 4  # stores of a device that are remembered
_LONG_AGO_S: Final = 86_400.0


def alternated_s(stores: Sequence[tuple[float, float]]) -> float | None:
    """When two stores of a device last uploaded by turns; None if they never did.

    Args:
        stores: for each, when its first and its newest frame came.

    Example:
        >>> alternated_s([(0.0, 10.0), (11.0, 30.0)]) is None, alternated_s([(0.0, 20.0), (11.0, 30.0), (40.0, 41.0)])
        (True, 20.0)
    """
    overlaps = [min(a[1], b[1]) for a, b in combinations(stores, 2) if max(a[0], b[0]) < min(a[1], b[1])]
    return max(overlaps, default=None)


def shared(stores: Sequence[tuple[float, float]], now_s: float) -> bool:
    """Whether two boards use this id: an alternation of yesterday may have been mended.

    Example:
        >>> shared([(0.0, 20.0), (11.0, 30.0)], now_s=60.0), shared([(0.0, 20.0), (11.0, 30.0)], now_s=1e6)
        (True, False)
    """
    last_s = alternated_s(stores)
    return last_s is not None and now_s - last_s < _LONG_AGO_S


class Turns:
    """Whose turn it is, as messages come; in bounded memory, since who publishes chooses its name.

    Example:
        >>> turns = Turns()
        >>> [turns.heard("pi-7", epoch) for epoch in (1, 2, 2, 3, 2, 3)]
        [False, False, False, False, False, True]
    """

    def __init__(self) -> None:
        self._heard: dict[Hashable, tuple[tuple[int, ...], int]] = {}

    def heard(self, device: Hashable, epoch: int) -> bool:
        """A frame of this store; whether it is now clear that two take turns: a second time one comes back."""
        known = self._heard.get(device)
        if known is None:
            if len(self._heard) < _MOST:
                self._heard[device] = (epoch,), 0
            return False
        epochs, returns = known
        if epoch == epochs[0]:
            return False
        returns += epoch in epochs
        self._heard[device] = (epoch, *(each for each in epochs if each != epoch))[:_RECENT], returns
        return returns > 1
