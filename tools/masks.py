"""Captures what devices really send: residual-compensated top-k updates of federated training, in plain NumPy.

`python -m tools.masks --out DIR [--quick] [--task T] [--density D]` trains three small models with error feedback
and writes one compressed .npz per task and density: the layout, and the positions, signs and levels of updates: at
1 % those of all ten devices of five rounds, evenly spread over the training, else of two devices of the round that the
coder was tuned on and of the last. `load` reads them. Seeded: the same machine captures the same masks again.

Tasks: `fashion-mnist` and `watch-har` from ../shared/data with the splits of their READMEs; `next-word` from the
Debian packages fortunes and fortunes-min (`apt-get download`, unpacked into a temporary folder), one device a file.
"""

import argparse
import gzip
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np

from broker.demo import data as demo_data
from edgeclient.compress.arrays import F32, I64, U8, Array, Bools
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.update import SparseUpdate, StepValues
from edgeclient.wire.frame.positions import Tensors

DATA = Path(__file__).parents[2] / "shared/data"
COMMITTED = Path(__file__).parents[1] / "tests/data/masks"
DENSITIES = (0.001, 0.01, 0.05)
COHORT = 10  # devices in a round
# The round on which the coder was tuned: figures are of the others.
TUNED = {"fashion-mnist": 60, "watch-har": 60, "next-word": 30}
VOCABULARY = 6000
CONTEXT = 4  # words
PACKAGES = ("fortunes", "fortunes-min")
Examples: TypeAlias = tuple[Array, I64]


@dataclass(frozen=True, slots=True)
class Task:
    """A federated task: one (inputs, labels) pair per device, and how to train."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    devices: list[Examples]
    rate: float
    batch: int
    rounds: tuple[int, ...]  # captured
    examples: int = 1 << 30  # a device learns from at most this many in a round


@dataclass(frozen=True, slots=True)
class Captured:
    """One device's update in one round: (k,) ascending positions, signs and levels."""

    round: int
    device: int
    indices: I64
    negative: Bools
    levels: U8

    def update(self, tensors: Tensors) -> SparseUpdate:
        """The same on the wire's grid; centroids were not kept and no bit depends on them: an exponential tail's."""
        grid = np.float32(1), (np.float32(1.125), np.float32(2.5), np.float32(3.5))
        return SparseUpdate(sum(map(prod, tensors)), self.indices, StepValues(*grid, self.negative, self.levels))


def learn(parameters: list[F32], x: Array, y: I64, rate: float) -> float:
    """One SGD step of (an embedding,) ReLU layers and softmax, in place; the loss before it."""
    weights = parameters
    inputs = x
    if x.dtype == np.int64:
        weights = parameters[1:]
        inputs = parameters[0][x].reshape(len(x), -1)
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    values = [inputs]
    for w, b in layers[:-1]:
        values.append(np.maximum(values[-1] @ w + b, 0))
    w, b = layers[-1]
    error = values[-1] @ w + b
    error -= error.max(1, keepdims=True)
    np.exp(error, out=error)
    error /= error.sum(1, keepdims=True)
    rows = np.arange(len(y))
    loss = -float(np.log(error[rows, y] + 1e-12).mean())
    error[rows, y] -= 1
    error *= rate / len(y)
    for (w, b), value in zip(reversed(layers), reversed(values), strict=True):
        back = error @ w.T
        np.subtract(w, value.T @ error, out=w)
        np.subtract(b, error.sum(0), out=b)
        error = back * (value > 0) if value is not values[0] else back
    if x.dtype == np.int64:
        np.subtract.at(parameters[0], x.ravel(), error.reshape(x.size, -1))
    return loss


def capture(task: Task, density: float, *, devices: int, seed: int = 0) -> list[Captured]:
    """Train to the last of the task's rounds; the first `devices` updates of each."""
    rng = np.random.default_rng(seed)
    start = [
        rng.normal(0, 0.1 if i == 0 and _embeds(task) else np.sqrt(2 / s[0]), s) if len(s) > 1 else np.zeros(s)
        for i, s in enumerate(task.shapes)
    ]
    flat = np.concatenate([each.ravel() for each in start]).astype(np.float32)
    residuals: dict[int, F32] = {}
    captured: list[Captured] = []
    for turn in range(1, max(task.rounds) + 1):
        total = np.zeros(flat.size, np.float64)
        cohort = rng.permutation(len(task.devices))[:COHORT]
        kept: list[Captured] = []
        losses = []
        for device in cohort.tolist():
            local = flat.copy()
            losses += list(_epoch(task, _views(local, task.shapes), device, rng))
            residual = residuals.get(device, np.zeros_like(flat))
            k = round(density * flat.size)
            update, residuals[device] = compress_with_feedback(local - flat, residual, k)
            update.add_to(total)
            if turn in task.rounds and len(kept) < devices and isinstance(update.values, StepValues):
                step = update.values
                kept.append(Captured(turn, device, update.indices, step.negative, step.levels))
        captured += kept
        flat += (total / len(cohort)).astype(np.float32)
        if turn % 10 == 0:
            print(f"{task.name} {density:.1%} round {turn}: loss {np.mean(losses):.3f}", flush=True)
    return captured


def _embeds(task: Task) -> bool:
    return bool(task.devices[0][0].dtype == np.int64)


def _views(flat: F32, shapes: tuple[tuple[int, ...], ...]) -> list[F32]:
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    return [part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


def _epoch(task: Task, parameters: list[F32], device: int, rng: np.random.Generator) -> Iterator[float]:
    x, y = task.devices[device]
    order = rng.permutation(len(y))[: task.examples]
    for at in range(0, len(order), task.batch):
        part = order[at : at + task.batch]
        yield learn(parameters, x[part], y[part], task.rate)


def fashion_mnist() -> Task:
    """100 devices with two shards of 300 images each, sorted by label."""
    folder = DATA / "fashion-mnist"
    pixels = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    images = np.frombuffer(pixels, np.uint8).reshape(-1, 784).astype(np.float32) / 255
    order = np.argsort(labels, kind="stable").reshape(200, 300)
    shards = np.random.default_rng(1).permutation(200).reshape(100, 2)
    devices = [(images[i], labels[i].astype(np.int64)) for i in (order[pair].ravel() for pair in shards)]
    return Task("fashion-mnist", _mlp(784, 200, 200, 10), devices, 0.05, 20, (20, 40, 60, 80, 100))


def watch_har() -> Task:
    """16 devices: both wrists of people 1 to 8; windows of 100 samples every 50, each axis standardised."""
    data = np.load(DATA / "watch-har/watch_har.npz")
    recordings = np.split(data["samples"].astype(np.float32), np.cumsum(data["length"])[:-1])
    seen = np.concatenate([r for r, person in zip(recordings, data["person"], strict=True) if person <= 8])
    devices = []
    for x, labels in (demo_data.device_windows(*device) for device in demo_data.DEVICES):
        scaled = (x.reshape(-1, 100, 6) - seen.mean(0)) / seen.std(0)
        devices.append((scaled.reshape(len(x), -1), labels))
    return Task("watch-har", _mlp(600, 256, 128, 7), devices, 0.02, 16, (20, 40, 60, 80, 100))


def next_word() -> Task:
    """Four words predict the next; one device per file of the fortunes packages with 2,000 words or more."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True, capture_output=True)
        for package in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        files = sorted(p for p in Path(folder, "usr/share/games/fortunes").iterdir() if p.is_file() and not p.suffix)
        texts = [re.findall(r"[a-z']+|[.,;:!?%]", p.read_text("utf-8", "replace").lower()) for p in files]
    texts = [words for words in texts if len(words) >= 2000]
    counts = Counter(word for words in texts for word in words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - 1]
    number = {word: i + 1 for i, word in enumerate(ranked)}  # 0: any other word
    devices = []
    for words in texts:
        ids = np.array([number.get(word, 0) for word in words], np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)
        devices.append((windows[:, :-1], windows[:, -1].copy()))
    shapes = ((VOCABULARY, 64), *_mlp(CONTEXT * 64, 64, VOCABULARY))
    return Task("next-word", shapes, devices, 0.3, 16, (10, 20, 30, 40, 50), examples=1600)


def _mlp(*widths: int) -> tuple[tuple[int, ...], ...]:
    shapes: list[tuple[int, ...]] = []
    for inputs, outputs in pairwise(widths):
        shapes += [(inputs, outputs), (outputs,)]
    return tuple(shapes)


TASKS = {"fashion-mnist": fashion_mnist, "watch-har": watch_har, "next-word": next_word}


def save(path: Path, shapes: tuple[tuple[int, ...], ...], captured: list[Captured]) -> None:
    """Write updates of one task and density; `load` reads them. Positions as gaps: they compress."""
    arrays: dict[str, Array] = {"shapes": np.array([(*s, 0)[:2] for s in shapes], np.int32)}
    arrays["rounds"] = np.array([c.round for c in captured], np.int32)
    arrays["devices"] = np.array([c.device for c in captured], np.int32)
    for i, each in enumerate(captured):
        arrays[f"gaps{i}"] = np.diff(each.indices, prepend=-1).astype(np.uint32)
        arrays[f"negative{i}"] = np.packbits(each.negative)
        arrays[f"levels{i}"] = each.levels
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options


def load(path: Path) -> tuple[Tensors, list[Captured]]:
    """(rows, columns) of the tensors in the order of the flat vector, one row of a vector, and the updates."""
    with np.load(path) as data:
        tensors = [(first, second) if second else (1, first) for first, second in data["shapes"].tolist()]
        captured = []
        for i, (turn, device) in enumerate(zip(data["rounds"].tolist(), data["devices"].tolist(), strict=True)):
            indices = np.cumsum(data[f"gaps{i}"].astype(np.int64)) - 1
            negative = np.unpackbits(data[f"negative{i}"])[: indices.size].astype(np.bool_)
            captured.append(Captured(turn, device, indices, negative, data[f"levels{i}"]))
    return tensors, captured


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the .npz files")
    parser.add_argument("--task", choices=sorted(TASKS), action="append")
    parser.add_argument("--density", type=float, action="append")
    parser.add_argument("--devices", type=int, help="updates kept of each round (at 1 %%: all 10, else 2)")
    parser.add_argument("--quick", action="store_true", help="1 %% only, rounds 6 and 10: seconds, and early masks")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.task or TASKS:
        task = TASKS[name]()
        if options.quick:
            task = replace(task, rounds=(6, 10), examples=min(task.examples, 400))
        for density in options.density or ((0.01,) if options.quick else DENSITIES):
            whole = density == 0.01 or options.quick
            kept = task if whole else replace(task, rounds=(TUNED[name], task.rounds[-1]))
            captured = capture(kept, density, devices=options.devices or (COHORT if whole else 2))
            save(options.out / f"{name}-{density:g}.npz", task.shapes, captured)


if __name__ == "__main__":
    main()
