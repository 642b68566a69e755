import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.simulate.world import Part, World
from edgeclient.bundle import archive
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.train.batches import fitting
from edgeclient.train.trainer import Plan
from tools.compare.tasks import convex, fashion_mnist
from tools.compare.tasks.fashion_mnist import DEBIAN, read_idx
from tools.compare.tasks.next_word import next_word
from tools.compare.tasks.task import Task
from tools.compare.tasks.watch_har import watch_har

TASKS: dict[str, Any] = {
    "fashion-mnist": fashion_mnist.fashion_mnist,
    "watch-har": watch_har,
    "next-word": next_word,
    "convex": convex.convex,
}


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    if request.param == "fashion-mnist" and not DEBIAN.is_dir():
        pytest.skip("apt install dataset-fashion-mnist")
    made: Task = TASKS[request.param]()
    return made


def world(task: Task, folder: Path) -> World:
    devices = [Part(task.examples, places) for places in task.split(0)]
    test = Part(task.test, np.arange(len(task.test[-1])))
    return World.open(task.bundle, folder, devices, test, task.start(0))


def plan(task: Task) -> Plan:
    return Plan(task.policy.learning_rate, task.policy.local_epochs, task.policy.batch_size, max_steps=12)


def test_every_example_is_on_one_device(task: Task) -> None:
    for seed in (0, 1):
        split = task.split(seed)
        assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(task.examples[-1])))
        assert task.cohort <= len(split)


def test_runs_with_one_seed_share_split_and_start(task: Task) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(task.split(3), task.split(3), strict=True))
    assert np.array_equal(task.start(3), task.start(3))


def test_the_bundle_learns_from_the_start(task: Task, tmp_path: Path) -> None:
    assert not archive.decode(task.bundle).parameters.any()
    made = world(task, tmp_path)
    trainer, start, some = made.trainer, made.parameters, Part(task.examples, task.split(0)[0][:256])
    for arrays in (task.examples, task.test):
        first = tuple(array[:8] for array in arrays)
        fitted = fitting(first, trainer.manifest, task.name)
        assert all(a.dtype == b.dtype for a, b in zip(first, fitted, strict=True))
    learnt = trainer.train(start, some, plan(task), np.random.default_rng(0))
    assert start.dtype == np.float32
    assert start.size == trainer.manifest.layout.size == learnt.delta.size
    assert trainer.evaluate(learnt.applied_to(start), some).loss < trainer.evaluate(start, some).loss


@pytest.mark.parametrize("task", ["fashion-mnist"], indirect=True)
def test_a_device_has_two_shards_of_one_class_each(task: Task) -> None:
    labels = task.examples[-1]
    split = task.split(0)
    classes = [len(np.unique(labels[places])) for places in split]
    assert [places.size for places in split] == [600] * 100
    assert set(classes) == {1, 2}
    assert np.mean(classes) > 1.8
    assert [places.tolist() for places in split] != [places.tolist() for places in task.split(1)]


@pytest.mark.parametrize("task", ["fashion-mnist"], indirect=True)
def test_pixels_go_from_0_to_1(task: Task) -> None:
    assert task.examples[0].shape == (60_000, 784)
    assert task.test[0].shape == (10_000, 784)
    assert (task.test[0].min(), task.test[0].max()) == (0, 1)
    assert np.bincount(task.test[-1]).tolist() == [1000] * 10


def test_images_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt install dataset-fashion-mnist, or name a folder"):
        fashion_mnist.fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x08\0", b"\0\0\x08\1\0\0\0\2a", b"\0\0\x0d\1\0\0\0\1abcd"]
)
def test_what_is_no_idx_file_of_bytes_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(content)[: 8 if not content else None])
    with pytest.raises(ValueError, match=r"images\.gz is no IDX file of bytes"):
        read_idx(path)


@pytest.mark.parametrize("task", ["watch-har"], indirect=True)
def test_devices_are_wrists_of_people_who_are_not_the_test(task: Task) -> None:
    x, labels = task.examples
    split = task.split(0)
    assert len(split) == 16
    assert {len(np.unique(labels[places])) for places in split} == {7}
    assert not {row.tobytes() for row in task.test[0]} & {row.tobytes() for row in x}
    axes = x.reshape(-1, 6)
    assert np.abs(axes.mean(0)).max() < 0.1
    assert np.abs(axes.std(0) - 1).max() < 0.1


@pytest.mark.parametrize("task", ["next-word"], indirect=True)
def test_a_book_ends_in_the_test(task: Task) -> None:
    x, labels = task.examples
    assert x.shape == (len(labels), 4)
    assert len(task.split(0)) == 61
    for places in task.split(0):
        assert np.array_equal(x[places[1:], -1], labels[places[:-1]])  # words in their order
    assert 0.09 < len(task.test[-1]) / (len(labels) + len(task.test[-1])) < 0.1
    assert np.bincount(task.test[-1]).max() / len(task.test[-1]) == pytest.approx(0.094, abs=0.001)


@pytest.mark.parametrize("task", ["convex"], indirect=True)
def test_at_the_optimum_only_the_sum_of_the_gradients_vanishes(task: Task, tmp_path: Path) -> None:
    assert task.optimum is not None
    assert np.abs(convex.slope(task.optimum)[0]).max() < 1e-8
    made, rng = world(task, tmp_path), np.random.default_rng(0)
    rounds = [made.trainer.train(task.optimum, device, plan(task), rng) for device in made.devices]
    assert {each.steps for each in rounds} == {1}
    assert np.abs(np.mean([each.delta for each in rounds], axis=0)).max() < 1e-6
    assert min(float(np.abs(each.delta).max()) for each in rounds) > 0.01
    assert made.trainer.evaluate(task.optimum, made.test).loss == pytest.approx(convex.loss(task.optimum), rel=1e-6)


@pytest.mark.parametrize("task", ["convex"], indirect=True)
def test_error_feedback_comes_closer_where_plain_top_k_stalls(task: Task) -> None:
    assert task.optimum is not None
    x, labels = task.examples
    least, k = convex.loss(task.optimum), round(task.policy.density * task.optimum.size)
    gaps = {}
    for feedback in (True, False):
        at, residuals = task.start(0), [np.zeros_like(task.optimum)] * len(task.split(0))
        for version in range(200):
            total = np.zeros(at.size)
            for device, places in enumerate(task.split(0)):
                error = 1 / (1 + np.exp(-(x[places] @ at))) - labels[places, 0]
                delta = error @ x[places] * np.float32(-task.rate(version) / len(places))
                update, residual = compress_with_feedback(delta, residuals[device], k)
                residuals[device] = residual if feedback else residuals[device]
                update.add_to(total)
            at = at + (total / len(residuals)).astype(np.float32)
        gaps[feedback] = convex.loss(at) - least
    assert gaps[True] < 3e-3
    assert gaps[False] > 3e-2
