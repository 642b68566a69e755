"""Whether the default learning rate kills a model, tried on a few random examples."""

import time
from typing import Final

import numpy as np

from edgeclient.compile.bundle import Compiled
from edgeclient.compile.verify import Arrays, random_batch, without_dropout
from edgeclient.compress.arrays import F32
from edgeclient.train import runtime
from edgeclient.train.optimiser import stepper
from edgeclient.wire.announcement import Policy

_STEPS: Final = 20
# On so few examples a sound rate makes the loss smaller; one that is a little large lets it jump.
_FACTOR: Final = 3.0
_SLACK: Final = 1.0
_SMALLEST: Final = 1e-6
_PATIENCE_S: Final = 10.0


def killing_rate(made: Compiled, seed: int = 0) -> str:
    """A line where the learning rate that tasks have by default makes the loss explode; "" where it does not."""
    rate = Policy().learning_rate
    until_s = time.monotonic() + _PATIENCE_S
    first, last = _losses(made, rate, seed, until_s)
    if not _exploded(first, last):
        return ""
    lower = rate
    while lower > _SMALLEST and _exploded(*_losses(made, lower, seed, until_s)):
        lower /= 10
    return (
        f"with the default learning rate of {rate:g} the loss on random numbers goes from {first:.3g} to {last:.3g}:"
        f" give the task a smaller one ([policy] learning_rate, {lower:.0e} held here), or scale the inputs"
    )


def _exploded(first: float, last: float) -> bool:
    return np.isfinite(first) and not last <= _FACTOR * first + _SLACK


def _losses(made: Compiled, rate: float, seed: int, until_s: float) -> tuple[float, float]:
    """Before the first and after the last step; they end when the time is over."""
    graph, trained = without_dropout(made.training), made.manifest.trained
    batch = random_batch(made.manifest, graph, np.random.default_rng(seed))
    session = runtime.load().InferenceSession(graph.SerializeToString(), runtime.session_options(1))
    reads = {each.name for each in session.get_inputs()}
    names = ["loss", *(f"{each.name}_grad" for each in trained)]
    weights: F32 = np.concatenate([made.parameters[each.name].ravel() for each in trained])
    optimiser, losses = stepper(made.manifest.optimiser, weights.size), list[float]()
    ends = np.cumsum([each.size for each in trained])[:-1]
    with np.errstate(all="ignore"):
        while len(losses) <= _STEPS and (len(losses) < 2 or time.monotonic() < until_s):
            parts = [part.reshape(each.shape) for part, each in zip(np.split(weights, ends), trained, strict=True)]
            now: Arrays = {**made.parameters, **dict(zip((each.name for each in trained), parts, strict=True)), **batch}
            loss, *gradients = session.run(names, {name: value for name, value in now.items() if name in reads})
            losses.append(float(loss))
            if not np.isfinite(loss):
                break
            optimiser.step(weights, np.concatenate([each.ravel() for each in gradients]), rate)
    return losses[0], losses[-1]
