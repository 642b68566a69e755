"""The doctor tries the task's learning rate on the device's own data, and looks at what the loss is put on."""

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import attrs
import numpy as np
import pytest
from held_models import holding, write_random_examples

from edgeclient.bundle import archive
from edgeclient.commands.doctor.learning import judge_answers, judge_rate, learning
from edgeclient.wire.announcement import Policy

BUNDLE: Final = (resources.files("edgeclient.commands.new") / "classifier/model.bundle").read_bytes()
MANIFEST: Final = archive.decode(BUNDLE).manifest


def test_a_learning_rate_that_kills(tmp_path: Path) -> None:
    write_random_examples(tmp_path / "data.npz", BUNDLE, 100)
    (found,) = learning(holding(tmp_path, BUNDLE))
    assert (found.level, "in 7 steps at the task's learning rate of 0.02" in found.what) == ("ok", True)
    (found,) = learning(holding(tmp_path, BUNDLE, policy=Policy(learning_rate=1e4)))
    assert (found.level, found.what.endswith(": it kills the model")) == ("warn", True)
    assert "a smaller [policy] learning_rate for the task, such as 1000" in found.advice


def test_it_is_silent_without_a_model_and_leaves_data_to_the_check_of_data(tmp_path: Path) -> None:
    settings = holding(tmp_path, BUNDLE)  # whose data is missing
    assert list(learning(settings)) == []
    assert list(learning(attrs.evolve(settings, directory=tmp_path / "new"))) == []


@pytest.mark.parametrize(
    ("before", "after", "level"), [(1.1, 1.6, "ok"), (1.1, 3.0, "warn"), (0.01, float("nan"), "warn")]
)
def test_a_rate_is_judged_by_the_loss(before: float, after: float, level: str) -> None:
    assert judge_rate(0.02, before, after, 20).level == level


@pytest.mark.parametrize(
    ("loss", "classes", "answers", "said"),
    [
        ("cross_entropy", 3, [[0.2, 0.3, 0.5], [1, 0, 0]], "ends in a Softmax"),
        ("cross_entropy", 3, [[9.0, -5, 700], [1, 0, 0]], ""),
        ("cross_entropy", 1, [[9.0], [3.0]], "has one class"),
        ("bce_with_logits", None, [[0.0], [1.0]], "ends in a Sigmoid"),
        ("bce_with_logits", None, [[-900.0], [1000.0]], ""),
        ("bce_with_logits", None, [[0.0], [0.0]], ""),  # a head that begins at zero
        ("mse", None, [[0.0], [1.0]], ""),
    ],
)
def test_answers_are_judged_by_what_the_loss_wants(loss: str, classes: int | None, answers: Any, said: str) -> None:
    found = list(judge_answers(replace(MANIFEST, loss=loss, classes=classes), np.array(answers, np.float32)))
    assert [said in each.what for each in found] == [True] * bool(said)
