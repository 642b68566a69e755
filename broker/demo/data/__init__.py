"""The demo's data: exercises recorded by a smartwatch (README.md), cut into windows of two seconds."""

from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np

from edgeclient.compress.arrays import F32, I64, Array

WINDOW: Final = 100
STEP: Final = 50
AXES: Final = 6
CLASSES: Final = 7
# Person and side of every device; two people are nobody's, and are the test.
DEVICES: Final = [(person, side) for person in range(1, 9) for side in (0, 1)]
HELD_OUT: Final = (9, 10)
# Mean and spread of each axis over people 1 to 8, rounded: acceleration in g, angular velocity in rad/s.
MEAN: Final = (-0.01, 0.38, -0.14, 0.02, 0.0, 0.01)
SPREAD: Final = (0.93, 0.5, 0.55, 1.01, 2.56, 1.09)


def device_windows(person: int, side: int) -> tuple[F32, I64]:
    """What one wrist recorded: windows (m, 600), 100 samples of 6 axes each, and exercises (m,) 0..6.

    Example:
        >>> x, labels = device_windows(1, 0)
        >>> x.shape[1], int(labels.max())
        (600, 6)
    """
    return _windows(lambda p, s: p == person and s == side)


def held_out_windows() -> tuple[F32, I64]:
    """The same of the people who are on no device."""
    return _windows(lambda p, _: p in HELD_OUT)


def bundle_bytes() -> bytes:
    """The training bundle."""
    return (files(__package__) / "watch-har.bundle").read_bytes()


def _windows(wanted: Any) -> tuple[F32, I64]:
    """Windows never cross the border of a recording."""
    samples, lengths, exercise, person, side = _recordings()
    ends = np.cumsum(lengths)
    x, labels = [], []
    for i in range(len(lengths)):
        if wanted(int(person[i]), int(side[i])):
            recording = samples[ends[i] - lengths[i] : ends[i]]
            cut = np.lib.stride_tricks.sliding_window_view(recording, WINDOW, axis=0)[::STEP]  # (m, axes, 100)
            x.append(cut.transpose(0, 2, 1).reshape(-1, WINDOW * AXES))
            labels += [int(exercise[i])] * len(x[-1])
    return np.ascontiguousarray(np.concatenate(x), np.float32), np.array(labels, np.int64)


@cache
def _recordings() -> tuple[Array, ...]:
    with (files(__package__) / "watch_har.npz").open("rb") as file, np.load(file, allow_pickle=False) as saved:
        return tuple(saved[name] for name in ("samples", "length", "exercise", "person", "side"))
