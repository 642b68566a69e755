"""The chaos fleet's task: small enough that uploads, not model downloads, are the traffic."""

from pathlib import Path
from typing import Final

import numpy as np

from edgeclient.compress.arrays import F32, I64

FEATURES: Final = 128
CLASSES: Final = 10
EXAMPLES: Final = 64
BUNDLE: Final = Path(__file__).with_name("task.bundle")
# 1,161 of 1,290 entries as float32: a frame of 4.8 kB, and a residual that is not empty.
DENSITY: Final = 0.9


def examples(seed: int, device: int) -> tuple[F32, I64]:
    """A device's own data: features (64, 128), labels (64,).

    Example:
        >>> x, labels = examples(1, 0)
        >>> x.shape, labels.shape
        ((64, 128), (64,))
    """
    rng = np.random.default_rng([seed, device])
    x = rng.normal(0, 1, (EXAMPLES, FEATURES)).astype(np.float32)
    return x, rng.integers(0, CLASSES, EXAMPLES)
