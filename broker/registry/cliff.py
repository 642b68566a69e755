"""Whether a version has fallen off a cliff, by what its evaluation says beside those before it. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

# So many versions before it, held back ones included: data that has changed for good is the new measure once most of
# them show it.
WINDOW: Final = 20
_FEWEST: Final = 3
# Versions of a fleet whose devices differ move by 2 to 10 points (measured, 100 clients of two classes each), and by
# more while they are young; broken ones fall to chance. Both must be so: loss alone also rises with certainty.
_ACCURACY: Final = 0.7  # of the best
_LOSS: Final = 1.5  # of the median
_LOSS_ALONE: Final = 10.0  # of the median, where there is no accuracy


def fallen(metrics: Mapping[str, float], before: Sequence[Mapping[str, float]]) -> str:
    """Why a version with these metrics is held back; "" if it is not, or says nothing.

    Args:
        metrics: what it is worth.
        before: of the versions before it, oldest first; the last 20 that are evaluated count.

    Example:
        >>> past = [{"loss": 0.5, "accuracy": 0.8}] * 3
        >>> fallen({"loss": 2.5, "accuracy": 0.12}, past)
        'its accuracy fell to 0.12, from 0.8, and its loss rose to 2.5, from 0.5'
        >>> fallen({"loss": 0.7, "accuracy": 0.6}, past), fallen({"loss": math.nan}, [])
        ('', 'its loss on evaluation is no number')
    """
    loss, accuracy = metrics.get("loss"), metrics.get("accuracy")
    if loss is None:
        return ""
    if not math.isfinite(loss):
        return "its loss on evaluation is no number"
    known = [each for each in before if math.isfinite(each.get("loss", math.nan))][-WINDOW:]
    if len(known) < _FEWEST:
        return ""
    usual = median(each["loss"] for each in known)
    rose = f"its loss rose to {loss:.3g}, from {usual:.3g}"
    if accuracy is None:
        return rose if loss > _LOSS_ALONE * usual else ""
    best = max(each.get("accuracy", 0.0) for each in known)
    if accuracy < _ACCURACY * best and loss > _LOSS * usual:
        return f"its accuracy fell to {accuracy:.3g}, from {best:.3g}, and {rose}"
    return ""
