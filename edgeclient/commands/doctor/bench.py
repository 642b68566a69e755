"""Short measurements of the device's own work: selection, codecs, a training step. Medians of turns."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import lgamma, log
from statistics import median
from typing import Final

import numpy as np

from edgeclient.bundle.manifest import read_manifest
from edgeclient.compress.arrays import F32
from edgeclient.compress.quantise import quantise
from edgeclient.compress.select import KERNEL, select
from edgeclient.compress.update import SparseUpdate, add
from edgeclient.models.slots import Models
from edgeclient.settings import Device
from edgeclient.train.compiled import Statistics
from edgeclient.train.local import open_measured
from edgeclient.train.trainer import Plan
from edgeclient.train.trainers import open_trainer
from edgeclient.wire import frame
from edgeclient.wire.frame import codes, context, rice
from edgeclient.wire.limits import MAX_FRAME_BYTES
from edgeclient.wire.reader import Reader

SIZES: Final = (100_000, 1_000_000, 10_000_000)
DENSITY: Final = 0.01
# Four vectors of float32, and as much again for whoever else runs there.
_BYTES_PER_PARAMETER: Final = 32
# Rounds before the first measured one: the residual and with it the threshold grow like the root of the round.
_ROUNDS: Final = 6
_TURNS: Final = 5
_TURN_S: Final = 0.002
_SLACK: Final = 1 << 16
_CODED: Final = 4_000_000
# Positions of a square tensor for the context coder; the definition in plain Python takes 20 us for each.
_SIDE: Final = 512
_SIDE_IN_PYTHON: Final = 64
_TRAIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A number, its unit, and what it is of."""

    name: str
    value: float
    unit: str


class Rounds:
    """Selection in the steady state: fresh noise every round, and the residual that the rounds before have left.

    Args:
        n: parameters.
        k: entries a round.
        rng: makes the noise once; a round's delta begins somewhere else in it.
    """

    def __init__(self, n: int, k: int, rng: np.random.Generator) -> None:
        self.n, self.k = n, k
        self._rng = rng
        self._noise = rng.standard_normal(n + _SLACK, dtype=np.float32)
        self.residual, self.out = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self.threshold = 0.0

    def delta(self) -> F32:
        """The next round's, (n,)."""
        first = 16 * int(self._rng.integers(_SLACK // 16))
        return self._noise[first : first + self.n]

    def round(self, delta: F32) -> float:
        """Seconds of the sweep; what follows it in a round is not measured."""
        began = time.perf_counter()
        made = select(self.out, self.k, total_of=(delta, self.residual), last_threshold=self.threshold)
        seconds = time.perf_counter() - began
        assert made is not None
        step = np.float32(made.threshold)
        self.out[made.indices] = made.values - step * np.rint(made.values / step)
        self.residual, self.out, self.threshold = self.out, self.residual, made.threshold
        return seconds


def in_turns(contenders: Mapping[str, Callable[[], float]], turns: int, repeats: int = 1) -> dict[str, list[float]]:
    """Seconds by name and turn; every turn is the median of some repeats after one that is not counted.

    The first of each turn finds the caches as the contender before it left them, the others as it did itself.

    Example:
        >>> in_turns({"a": lambda: 1.0, "b": lambda: 2.0}, turns=2)
        {'a': [1.0, 1.0], 'b': [2.0, 2.0]}
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, run in contenders.items():
            run()
            seconds[name].append(median(run() for _ in range(repeats)))
    return seconds


def seconds_of(run: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def uniform(n: int, k: int, rng: np.random.Generator) -> SparseUpdate:
    """About k entries anywhere; magnitudes up to 1.2 times the least, as error feedback leaves them; on a step grid."""
    indices = np.sort(rng.integers(0, n, k))
    indices = indices[np.diff(indices, prepend=-1) > 0]
    numbers = (rng.uniform(1, 1.2, indices.size) * rng.choice([-1, 1], indices.size)).astype(np.float32)
    return SparseUpdate(n, indices, quantise(numbers, 16.0))


def sizes(free_bytes: int | None) -> tuple[int, ...]:
    """Parameters of the vectors that fit; the smaller two where the board does not tell its free memory."""
    return tuple(n for n in SIZES if n <= SIZES[1] or (free_bytes or 0) >= n * _BYTES_PER_PARAMETER)


def selection(n: int) -> Iterator[Measured]:
    """Add and exact top-k at density 1 %, beside the in-place add of as many numbers."""
    rounds = Rounds(n, round(n * DENSITY), np.random.default_rng(0))
    warm = [rounds.round(rounds.delta()) for _ in range(_ROUNDS)]
    spare = np.zeros(n, np.float32)
    seconds = in_turns(
        {
            "add": lambda: seconds_of(partial(np.add, rounds.delta(), spare, out=spare)),
            "select": lambda: rounds.round(rounds.delta()),
        },
        _TURNS,
        max(1, int(_TURN_S / median(warm[1:]))),
    )
    name = f"selection, {n:,} parameters ({KERNEL.backend(n)})"
    yield Measured(name, 1e9 * median(seconds["select"]) / n, "ns each")
    over = median(one / other for one, other in zip(seconds["select"], seconds["add"], strict=True))
    yield Measured(name, over, "× the in-place add")


def codecs() -> Iterator[Measured]:
    """Rice codes and whole frames of a uniform mask at density 1 %, and the context coder."""
    rng = np.random.default_rng(0)
    update = uniform(_CODED, round(_CODED * DENSITY), rng)
    indices, k = update.indices, update.indices.size
    dense, ones = np.zeros(_CODED, np.float32), np.ones(k, np.float32)
    code, _ = codes.best(indices)
    pool = rice.encode([(indices, code)])
    sets = [codes.Set(k, _CODED, code)]
    side = _SIDE if context.KERNEL.backend(_SIDE**2) == "numba" else _SIDE_IN_PYTHON
    chosen = np.flatnonzero(rng.random(side * side) < DENSITY)
    signs, levels = rng.random(chosen.size) < 0.5, np.zeros(chosen.size, np.uint8)
    stream = context.encode(side, side, chosen, signs, levels)
    taken = in_turns(
        {
            "rice encode": lambda: seconds_of(lambda: rice.encode([(indices, codes.best(indices)[0])])),
            "rice decode": lambda: seconds_of(lambda: add(dense, rice.decode(Reader(pool), sets)[0], ones)),
            "context encode": lambda: seconds_of(lambda: context.encode(side, side, chosen, signs, levels)),
            "context decode": lambda: seconds_of(lambda: context.decode(stream, side, side, chosen.size)),
        },
        _TURNS if side == _SIDE else 1,
    )
    seconds = {name: median(each) for name, each in taken.items()}
    using = rice.KERNEL.backend(k)
    yield Measured(f"Rice coder ({using}), encoding", k / seconds["rice encode"] / 1e6, "M entries/s")
    yield Measured(f"Rice coder ({using}), decoding and adding", k / seconds["rice decode"] / 1e6, "M entries/s")
    coder = f"context coder ({context.KERNEL.backend(side**2)})"
    yield Measured(f"{coder}, encoding", side**2 / seconds["context encode"] / 1e6, "M positions/s")
    yield Measured(f"{coder}, decoding", side**2 / seconds["context decode"] / 1e6, "M positions/s")
    yield Measured("positions, uniform mask", 8 * len(pool) / k, "bits per entry")
    floor = (lgamma(_CODED + 1) - lgamma(k + 1) - lgamma(_CODED - k + 1)) / log(2)
    yield Measured("positions, least possible", floor / k, "bits per entry")
    frames = frame.encode_update(update, frame.Origin("bench", "doctor", bytes(4), 0, 0, 1), MAX_FRAME_BYTES)
    yield Measured("whole frames, uniform mask", 8 * sum(map(len, frames)) / k, "bits per entry")


def training(settings: Device) -> Iterator[Measured]:
    """Examples a second of the device's own model on its own data, for at most 2 s; nothing without a model.

    Raises:
        TrainingError, DataError: training would fail, too.
    """
    directory = settings.models
    model = Models(directory).active() if directory.is_dir() else None
    if model is None:
        return
    manifest = read_manifest(model.bundle_directory)
    own, policy = settings.training, model.announcement.policy
    trainer = open_trainer(model.bundle_directory, own.runtime, own.threads)
    local_data = open_measured(settings.data, manifest, directory=settings.directory, device=settings.device)
    plan = Plan(policy.learning_rate, 1, policy.batch_size, micro_batch=own.max_batch, max_seconds=_TRAIN_S)
    statistics = Statistics(model.bundle_directory).load()
    began = time.perf_counter()
    made = trainer.train(model.parameters, local_data, plan, np.random.default_rng(0), statistics)
    seconds = time.perf_counter() - began
    yield Measured(f"training {settings.task}", made.num_examples / seconds, "examples/s")
