"""How long ago the ledger's wall-clock times were, on a clock that nobody can set."""

import math
from typing import Final

# A clock that is corrected by less than this has not been set.
_TOLERATED_S: Final = 60.0


class Ages:
    """Ages of a few named times; each is read on the wall clock once, when it is first seen, and then keeps growing.

    The wall clock may be set while we run: that must neither hold a batch open for a year nor close all at once.

    Example:
        >>> ages = Ages()
        >>> ages.of("opened", 1000.0, wall_s=1003.0, steady_s=50.0)
        3.0
        >>> ages.of("opened", 1000.0, wall_s=-3e7, steady_s=52.0)
        5.0
    """

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, float]] = {}

    def of(self, name: str, mark_s: float, *, wall_s: float, steady_s: float) -> float:
        """Seconds since `mark_s`; infinite for a time in the future, which only a clock set back can explain.

        Args:
            name: of the time; a new `mark_s` under the same name replaces the old.
            mark_s: Unix seconds.
            wall_s: Unix seconds now.
            steady_s: monotonic seconds now.
        """
        known = self._began.get(name)
        if known is None or known[0] != mark_s:
            age = wall_s - mark_s
            if age < 0:
                age = 0.0 if age > -_TOLERATED_S else math.inf
            known = self._began[name] = (mark_s, steady_s - age)
        return steady_s - known[1]
