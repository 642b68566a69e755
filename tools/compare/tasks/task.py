"""One federated task, and what all of them are made with."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from edgeclient.bundle import archive
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32, I64, Array
from edgeclient.wire.announcement import Policy


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What devices learn together.

    Attributes:
        name: as in tables and on the command line.
        bundle: the training bundle, whose own parameters are zero; `start` draws them.
        examples: all that any device has, arrays in the model's order, labels last.
        test: what no device has, likewise.
        split: of a seed, the places in `examples` of each device's own.
        start: of a seed, version 0, float32 (n,).
        policy: how devices train: learning rate, batch size, epochs; its density is what top-k keeps here.
        cohort: devices in a round.
        versions: rounds of the full comparison.
        rate: what the policy's learning rate is multiplied by in the round that begins from a version.
        optimum: parameters of the least loss over all examples, float32 (n,), where they are known.
    """

    name: str
    bundle: bytes
    examples: tuple[Array, ...]
    test: tuple[Array, ...]
    split: Callable[[int], list[I64]]
    start: Callable[[int], F32]
    policy: Policy
    cohort: int
    versions: int
    rate: Callable[[int], float] = lambda _: 1.0
    optimum: F32 | None = None


def path_of(name: str) -> Path:
    """Where the bundle of a task lies: gzip of it, for it holds mostly zeros."""
    return Path(__file__).with_name(f"{name}.bundle.gz")


@cache
def bundle_of(name: str) -> bytes:
    """The training bundle of a task, made by `python -m tools.bundles NAME`."""
    return gzip.decompress(path_of(name).read_bytes())


def layout_of(name: str) -> Layout:
    """The layout of its parameters."""
    return archive.decode(bundle_of(name)).manifest.layout


def he_start(layout: Layout, seed: int) -> F32:
    """Matrices from N(0, 2 ÷ rows) as in He et al. (1502.01852), biases zero; float32 (n,).

    Example:
        >>> start = he_start(layout_of("watch-har"), seed=0)
        >>> start.shape, round(float(start[:153600].std() ** 2 * 600), 1)
        ((187655,), 2.0)
    """
    rng = generator(seed, "start")
    start = np.zeros(layout.size, np.float32)
    for each in layout.parameters:
        if len(each.shape) > 1:
            start[layout.slices[each.name]] = rng.normal(0, np.sqrt(2 / each.shape[0]), each.size)
    return start


def generator(seed: int, of: str) -> np.random.Generator:
    """A generator for one purpose of a run, so that drawing more for one moves no other."""
    return np.random.default_rng([seed, *of.encode()])
