"""The examples of a device. Here they are made up, so that all of this runs at once; put your sensor in its place.

device.toml names a function of this file, `my_data.py:examples`. Functions return (x, labels), or yield such batches.
"""

import secrets
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

RESTING, WALKING, SHAKING = 0, 1, 2


def examples(seed: int = 1, count: int = 300) -> tuple[F32, I64]:
    """All examples at once; the same ones whenever it is called.

    Args:
        seed: of what this device saw; every device has another one, in [data.options].
        count: how many.

    Returns:
        x, float32 (count, 3, 32): windows of an accelerometer in g; labels, int64 (count,): see above.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return np.stack([window(int(label), rng) for label in labels]), labels


def stream() -> Iterator[tuple[F32, I64]]:
    """What came since the last call, in batches, for `replay_examples` in [data]: ends when there is nothing new."""
    yield examples(seed=secrets.randbelow(2**31), count=20)


def window(label: int, rng: np.random.Generator) -> F32:
    """One second and a third of an activity at 24 Hz, float32 (3, 32)."""
    time_s = np.arange(32) / 24
    hertz, strength_g = {RESTING: (0.0, 0.0), WALKING: (2.0, 0.4), SHAKING: (5.0, 0.9)}[label]
    hertz, strength_g = hertz * rng.uniform(0.9, 1.1), strength_g * rng.uniform(0.7, 1.3)
    axes = rng.normal(0, 1, (3, 1))
    axes /= np.linalg.norm(axes)
    moved = strength_g * axes * np.sin(2 * np.pi * (hertz * time_s + rng.uniform()))
    return (moved + rng.normal(0, 0.15, (3, 32))).astype(np.float32)
