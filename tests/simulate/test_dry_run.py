"""`edgebroker simulate`: data is dealt out, settings are searched for, and a user's mistakes are one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from broker.cli import cli
from broker.settings import Task
from edgeclient.settings import ConfigError, load
from edgeclient.train.batches import DataError

ROOT = Path(__file__).parents[2]
BUNDLE = str(ROOT / "tools/chaos/task.bundle")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten classes that a linear model tells apart, of eight people."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (10, 128)).astype(np.float32)
    labels = np.arange(400) % 10
    x = (centres[labels] + rng.normal(0, 1, (400, 128))).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "mine.npz"
    np.savez(path, x=x, labels=labels, person=np.array([f"p{at % 8}" for at in range(400)]))
    return str(path)


def call(*words: str) -> Any:
    done = CliRunner().invoke(cli, ["simulate", BUNDLE, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_one_run_ends_in_figures_and_settings(data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("--data", data, "--split", "by=person", "--rounds", "5", "--no-search", "--out", str(out), "--json")
    found = json.loads(done.stdout)
    assert found == json.loads((out / "dry-run.json").read_text())
    assert found["devices"] == 8
    (trial,) = found["trials"]
    assert [each["version"] for each in trial["points"]] == list(range(6))
    assert load(out / "task.toml", Task) == Task()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--split", "by=persn"], "has no array 'persn'; it has x, labels, person"),
        (["--devices", "1000"], "1000 devices, and 32. examples to train on"),
        (["--split", "by=person", "--devices", "9"], "9 devices, and person tells 8 apart: p0, p1"),
        (["--split", "people"], "split 'people' is none"),
        (["--links", "fast"], "links 'fast'"),
        (["--density", "a"], "--density a: numbers"),
        (["--option", "count"], "KEY=VALUE"),
        (["--cohort", "17"], "--cohort 17: there are 16 devices"),
    ],
)
def test_a_mistake_is_one_line(data: str, words: list[str], error: str) -> None:
    with pytest.raises((ConfigError, DataError), match=error) as raised:
        call("--data", data, *words)
    assert "\n" not in str(raised.value)
