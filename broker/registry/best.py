"""Which version is best, by what its evaluation says."""

import math
from collections.abc import Iterable, Mapping


def merit(metrics: Mapping[str, float]) -> tuple[float, float] | None:
    """What an evaluation is worth, more being better; None when it says nothing.

    By accuracy where there is one, then by loss.

    Example:
        >>> merit({"loss": 0.5, "accuracy": 0.9}) > merit({"loss": 0.4, "accuracy": 0.8})
        True
        >>> merit({}), merit({"loss": math.nan})
        (None, None)
    """
    loss, accuracy = metrics.get("loss"), metrics.get("accuracy", -math.inf)
    if loss is None or not math.isfinite(loss) or math.isnan(accuracy):
        return None
    return accuracy, -loss


def best(evaluated: Iterable[tuple[int, Mapping[str, float]]]) -> int | None:
    """The number of the best of some versions (number, metrics), the oldest of equal ones; None: none is evaluated.

    Example:
        >>> best([(0, {"loss": 2.0}), (1, {"loss": 0.5}), (2, {"loss": math.inf}), (3, {"loss": 0.7}), (4, {})])
        1
    """
    known = [(worth, -number) for number, metrics in evaluated if (worth := merit(metrics)) is not None]
    return -max(known)[1] if known else None
