"""`edgebroker simulate`: data is dealt out, settings are searched for, and a user's mistakes are one line."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from broker.cli import cli
from broker.settings import Task
from broker.simulate import charts
from broker.simulate.crew import Crew, Job
from broker.simulate.findings import document, told, toml
from broker.simulate.population import populate, read
from broker.simulate.rehearsal import Rehearsal, Step, rehearse
from broker.simulate.split import Split
from broker.simulate.trial import Point, Trial
from edgeclient.bundle import archive
from edgeclient.settings import ConfigError, load
from edgeclient.train import runtime
from edgeclient.train.batches import DataError
from edgeclient.train.trainer import TrainingError
from edgeclient.wire.announcement import Policy

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
    if find_spec("matplotlib"):
        assert (out / charts.BY_BYTES).read_bytes()[:4] == (out / charts.BY_VERSION).read_bytes()[:4] == b"\x89PNG"
    else:
        assert "no charts: they need matplotlib" in done.stderr


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


def test_a_search_ends_in_settings_that_a_task_takes(data: str, tmp_path: Path) -> None:
    given = Task(goal=4, evaluation_wait_s=5.0, policy=Policy(learning_rate=0.001, batch_size=8))
    content = Path(BUNDLE).read_bytes()
    population = populate(archive.decode(content).manifest, data, {}, split=Split.of("by=person"), devices=4, seed=0)
    heard: list[Step] = []
    rehearsal = Rehearsal(Trial(given, versions=4), [0.01])
    with Crew(content, population) as crew:
        rehearse(crew, rehearsal, lambda step, _: heard.append(step), search=True)
    assert rehearsal.winner is not None
    assert rehearsal.why
    assert rehearsal.settings.policy.learning_rate > 0.001
    assert {step.purpose for step in heard} == {"search", "confirm", "half"}
    (tmp_path / "task.toml").write_text(toml(rehearsal.settings))
    assert load(tmp_path / "task.toml", Task) == rehearsal.settings
    said = "\n".join(told(rehearsal))
    assert "better: learning_rate" in said
    assert "is the data enough?" in said
    json.dumps(document(rehearsal), allow_nan=False)


def test_divergence_is_a_result(data: str) -> None:
    content = Path(BUNDLE).read_bytes()
    population = populate(archive.decode(content).manifest, data, {}, split=Split(), devices=3, seed=0)
    rehearsal = Rehearsal(Trial(Task(policy=Policy(learning_rate=1e6, local_epochs=50)), versions=2), [])
    with Crew(content, population) as crew:
        rehearse(crew, rehearsal, lambda *_: None, search=False)
    assert any("diverge" in line for line in told(rehearsal))
    json.dumps(document(rehearsal), allow_nan=False)


def test_who_has_had_enough_gets_what_is_known(data: str) -> None:
    content = Path(BUNDLE).read_bytes()
    population = populate(archive.decode(content).manifest, data, {}, split=Split(), devices=3, seed=0)
    rehearsal = Rehearsal(Trial(Task(), versions=3), [])
    heard: list[Step] = []

    def interrupts(step: Step, _: object) -> None:
        heard.append(step)
        if len(heard) == 11:  # three versions, the start and the end of two trials: in the third
            raise KeyboardInterrupt

    with Crew(content, population) as crew:
        rehearse(crew, rehearsal, interrupts, search=True)
    assert [each.ended for each in rehearsal.outcomes.values()] == ["", "", "stopped"]
    assert "highest so far, not confirmed" in "\n".join(told(rehearsal))


def test_without_a_runtime_it_is_one_line(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise TrainingError("ONNX Runtime cannot be imported")

    monkeypatch.setattr(runtime, "load", missing)
    with pytest.raises(TrainingError, match="cannot be imported"):
        call("--data", data, "--rounds", "2", "--no-search")


def test_children_play_as_this_process_does(data: str) -> None:
    content = Path(BUNDLE).read_bytes()
    population = populate(archive.decode(content).manifest, data, {}, split=Split(), devices=3, seed=0)
    jobs = [Job(Trial(Task(), versions=2, seed=seed), judges=seed % 2, half=seed == 2) for seed in range(3)]
    made = []
    for children in (0, 2):
        points: list[tuple[int, Point]] = []
        with Crew(content, population, children) as crew:
            outcomes = crew.play(jobs, lambda at, point, points=points: points.append((at, point)))  # type: ignore[misc]
        made.append([each.run.digest for each in outcomes if each.run])
        assert len(points) == 9
    assert made[0] == made[1]
    assert len(set(made[0])) == 3


def test_a_column_of_a_table_tells_devices_apart(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [f"{at % 3},{','.join(['0.5'] * 128)},{'ab'[at // 40 % 2]}" for at in range(160)]
    path.write_text("\n".join([",".join(["labels", *(f"x{at}" for at in range(128)), "who"]), *rows, ""]))
    manifest = archive.decode(Path(BUNDLE).read_bytes()).manifest
    arrays, groups = read(manifest, str(path), {}, "who")
    assert groups is not None
    assert groups.tolist() == [row[-1] for row in rows]
    assert arrays[-1].tolist() == [at % 3 for at in range(160)]
    with pytest.raises(ConfigError, match="needs a column"):
        read(manifest, f"{ROOT / 'edgeclient/commands/new/classifier/my_data.py'}:examples", {}, "who")
