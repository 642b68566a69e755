"""Which tensors of a model must stay in their domain: running statistics by themselves, others as their user asks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import numpy as np

from edgeclient.bundle.domain import Bounds
from edgeclient.compile.errors import CompileError
from edgeclient.compress.quantise import bfloat16_down, bfloat16_up
from edgeclient.wire.errors import WireError

_ASKED: Final = re.compile(r"(?P<pattern>.+?)=(?P<low>[^:=]*):(?P<high>[^:=]*)")


def bounds_of(
    names: Sequence[str], asked: Mapping[str, Bounds], variances: Iterable[str], means: Iterable[str]
) -> dict[str, Bounds]:
    """The bounds of those of `names` that have some.

    Args:
        names: of everything in the flat vector.
        asked: by pattern; of several that fit, the last counts.
        variances: running ones, at least 0; the same as `means`, which are only finite, if they are in the vector.
        means: running ones.

    Raises:
        CompileError: a pattern fits no tensor.

    Example:
        >>> bounds_of(["w", "bn.mean", "bn.var"], {"w": Bounds(high=1.0)}, ["bn.var"], ["bn.mean"])["bn.var"]
        Bounds(low=0.0, high=None)
    """
    found = {**dict.fromkeys(means, Bounds()), **dict.fromkeys(variances, Bounds(low=0.0))}
    for pattern, bounds in asked.items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise CompileError(f"--bounds {pattern}: no tensor is called so: there are {', '.join(names[:12])}")
        found |= dict.fromkeys(fitting, bounds)
    return {name: found[name] for name in names if name in found}


def parsed(text: str) -> tuple[str, Bounds]:
    """The pattern and bounds of PATTERN=LOW:HIGH; an empty side is open, numbers are rounded inwards to bfloat16.

    Raises:
        ValueError: it is not of this form, or nothing lies between.

    Example:
        >>> parsed("*scale=0:1.001")
        ('*scale', Bounds(low=0.0, high=1.0))
    """
    said = _ASKED.fullmatch(text)
    form = "PATTERN=LOW:HIGH is wanted, such as '*scale=0:1', or '*scale=0:' for no upper bound"
    if said is None:
        raise ValueError(form)
    try:
        low = _rounded(float(said["low"]), up=True) if said["low"] else None
        high = _rounded(float(said["high"]), up=False) if said["high"] else None
        return said["pattern"], Bounds(low, high)
    except WireError as error:
        raise ValueError(error.detail) from None
    except ValueError:
        raise ValueError(form) from None


def _rounded(bound: float, *, up: bool) -> float:
    away = up == (bound > 0)
    magnitude = bfloat16_up(abs(bound)) if away else bfloat16_down(np.float32(abs(bound)))
    return float(np.copysign(magnitude, bound)) + 0.0  # -0.0 is written as 0.0
