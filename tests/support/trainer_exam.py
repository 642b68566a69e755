"""The exam that every trainer sits: training and evaluation against NumPy definitions in float64."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from broker.demo import data as demo_data
from edgeclient.bundle import archive
from edgeclient.bundle.archive import Bundle
from edgeclient.bundle.manifest import MANIFEST, Optimiser
from edgeclient.compress.arrays import F32, F64, I64
from edgeclient.train.batches import Dataset
from edgeclient.train.data import open_data
from edgeclient.train.rounds import RoundTrainer
from edgeclient.train.trainer import Plan, TrainingError
from edgeclient.train.trainers import open_trainer

PLAN = Plan(0.02, 2, 16)


def unpack(opened: Bundle, folder: Path, optimiser: Optimiser | None = None) -> Path:
    """The files of a bundle in a folder, perhaps with another optimiser."""
    if optimiser is not None:
        files = {name: content for name, content in opened.files.items() if name != MANIFEST}
        opened = archive.decode(archive.encode(replace(opened.manifest, optimiser=optimiser), files))
    for name, content in opened.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def windows(opened: Bundle, folder: Path) -> Dataset:
    """What one person's left wrist did."""
    x, labels = demo_data.device_windows(1, 0)
    np.savez(folder / "windows.npz", x=x, labels=labels)
    return open_data(str(folder / "windows.npz"), {}, opened.manifest)


def _forward(p: dict[str, F64], x: F32) -> tuple[F64, F64, F64]:
    inputs = (x - np.tile(demo_data.MEAN, 100)) / np.tile(demo_data.SPREAD, 100)
    hidden = inputs @ p["hidden.weight"] + p["hidden.bias"]
    logits = np.maximum(hidden, 0) @ p["output.weight"] + p["output.bias"]
    return inputs, hidden, logits


def _softmax(logits: F64) -> F64:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    made: F64 = powers / powers.sum(axis=1, keepdims=True)
    return made


def _gradient(p: dict[str, F64], x: F32, labels: I64) -> dict[str, F64]:
    inputs, hidden, logits = _forward(p, x)
    g = _softmax(logits)
    g[np.arange(len(labels)), labels] -= 1
    g /= len(labels)
    back = (g @ p["output.weight"].T) * (hidden > 0)
    return {
        "hidden.weight": inputs.T @ back,
        "hidden.bias": back.sum(0),
        "output.weight": np.maximum(hidden, 0).T @ g,
        "output.bias": g.sum(0),
    }


class Definition:
    """A round in float64: clipped gradients, and an optimiser as its paper writes it."""

    def __init__(self, opened: Bundle, optimiser: Optimiser) -> None:
        self._layout = opened.manifest.layout
        self._start = opened.parameters.astype(np.float64)
        self._of = optimiser

    def delta(self, data: Dataset, plan: Plan, rng: np.random.Generator) -> F64:
        """Local − base."""
        p, m, v, t = self._start.copy(), np.zeros_like(self._start), np.zeros_like(self._start), 0
        for _ in range(plan.epochs):
            for x, labels in data.batches(plan.batch_size, rng):
                if plan.max_steps is not None and t >= plan.max_steps:
                    break
                t += 1
                named = {each.name: p[self._layout.slices[each.name]].reshape(each.shape)
                         for each in self._layout.parameters}  # fmt: skip
                g = np.concatenate([each.ravel() for each in _gradient(named, x, labels).values()])
                if plan.clip_norm is not None:
                    g *= min(1, plan.clip_norm / np.linalg.norm(g))
                p, m, v = self._step(p, m, v, g, t, plan.learning_rate)
        return p - self._start

    def _step(self, p: F64, m: F64, v: F64, g: F64, t: int, rate: float) -> tuple[F64, F64, F64]:
        of = self._of
        if of.name == "sgd":
            m = of.momentum * m + g
            return p - rate * m, m, v
        m = of.beta1 * m + (1 - of.beta1) * g
        v = of.beta2 * v + (1 - of.beta2) * g * g
        c1, c2 = (1 - of.beta1**t, 1 - of.beta2**t) if of.correct_bias else (1.0, 1.0)
        if of.decay_first:
            p = p - rate * of.weight_decay * p
            return p - rate / c1 * m / (np.sqrt(v / c2) + of.epsilon), m, v
        p = p - rate * np.sqrt(c2) / c1 * m / (np.sqrt(v) + of.epsilon)
        return p - rate * of.weight_decay * p, m, v


OPTIMISERS = {
    "sgd": Optimiser("sgd"),
    "momentum": Optimiser("sgd", momentum=0.9),
    "adamw": Optimiser("adamw", weight_decay=0.1),
    "adamw of torch": Optimiser("adamw", weight_decay=0.1, epsilon=1e-8, decay_first=True),
    "adamw without correction": Optimiser("adamw", correct_bias=False),
}


class TrainerExam:
    """Subclasses say which runtime, and give the demo's bundle as the fixture `opened`."""

    runtime: ClassVar[str]

    def open(self, opened: Bundle, folder: Path, optimiser: Optimiser | None = None) -> RoundTrainer:
        """A trainer of the subclass's kind."""
        made = open_trainer(unpack(opened, folder, optimiser), self.runtime)  # type: ignore[arg-type]  # a Literal
        assert isinstance(made, RoundTrainer)
        return made

    @pytest.mark.parametrize("name", OPTIMISERS)
    @pytest.mark.parametrize("plan", [PLAN, replace(PLAN, clip_norm=0.5, max_steps=9)], ids=["plain", "clipped"])
    def test_delta_equals_the_definition(self, name: str, plan: Plan, opened: Bundle, tmp_path: Path) -> None:
        optimiser = OPTIMISERS[name]
        plan = replace(plan, learning_rate=0.001 if optimiser.name == "adamw" else 0.02)
        trainer, data = self.open(opened, tmp_path, optimiser), windows(opened, tmp_path)
        made = trainer.train(opened.parameters, data, plan, np.random.default_rng(5))
        expected = Definition(opened, optimiser).delta(data, plan, np.random.default_rng(5))
        count = len(demo_data.device_windows(1, 0)[1])
        steps = plan.epochs * -(-count // plan.batch_size)
        assert made.steps == (steps if plan.max_steps is None else plan.max_steps)
        assert made.num_examples == (count if plan.max_steps is None else plan.max_steps * plan.batch_size)
        assert np.linalg.norm(made.delta - expected) <= 2e-4 * np.linalg.norm(expected)

    def test_micro_batches_add_up(self, opened: Bundle, tmp_path: Path) -> None:
        trainer, data = self.open(opened, tmp_path), windows(opened, tmp_path)
        whole, parts = (
            trainer.train(opened.parameters, data, replace(PLAN, micro_batch=size), np.random.default_rng(5))
            for size in (None, 5)
        )
        assert whole.steps == parts.steps
        assert np.linalg.norm(whole.delta - parts.delta) <= 1e-5 * np.linalg.norm(whole.delta)
        assert parts.loss == pytest.approx(whole.loss, rel=1e-5)

    def test_the_same_seed_gives_the_same_bits(self, opened: Bundle, tmp_path: Path) -> None:
        trainer, data = self.open(opened, tmp_path), windows(opened, tmp_path)
        first, second, other = (
            trainer.train(opened.parameters, data, PLAN, np.random.default_rng(seed)).delta for seed in (1, 1, 2)
        )
        assert np.array_equal(first, second)
        assert not np.array_equal(first, other)

    def test_evaluation_equals_the_definition(self, opened: Bundle, tmp_path: Path) -> None:
        trainer, data = self.open(opened, tmp_path), windows(opened, tmp_path)
        x, labels = demo_data.device_windows(1, 0)
        p = {name: value.astype(np.float64) for name, value in opened.manifest.layout.split(opened.parameters).items()}
        logits = _forward(p, x)[2]
        found = trainer.evaluate(opened.parameters, data)
        assert found.num_examples == len(labels)
        assert found.accuracy == (logits.argmax(1) == labels).mean()
        assert found.loss == pytest.approx(-np.log(_softmax(logits)[np.arange(len(labels)), labels]).mean(), rel=1e-4)
        assert found.majority == np.bincount(labels).max() / len(labels)

    def test_training_lowers_the_loss_and_leaves_its_input(self, opened: Bundle, tmp_path: Path) -> None:
        trainer, data = self.open(opened, tmp_path), windows(opened, tmp_path)
        start = opened.parameters.copy()
        made = trainer.train(start, data, replace(PLAN, epochs=5), np.random.default_rng(0))
        assert np.array_equal(start, opened.parameters)
        assert trainer.evaluate(start + made.delta, data).loss < 0.5 * trainer.evaluate(start, data).loss

    def test_divergence_is_an_error(self, opened: Bundle, tmp_path: Path) -> None:
        trainer, data = self.open(opened, tmp_path), windows(opened, tmp_path)
        with pytest.raises(TrainingError, match="smaller learning rate"):
            trainer.train(opened.parameters, data, replace(PLAN, learning_rate=1e6), np.random.default_rng(0))
