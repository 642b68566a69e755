"""Learning that does not work is told in one line: in the log, by `edgebroker status`, on the page."""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import fleet
import numpy as np
import pytest
import served
from click.testing import CliRunner

from broker.cli import cli
from broker.demo import data
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.ledger.rows import Version
from broker.monitor.learning import finding
from broker.registry.best import best
from broker.settings import Aggregator, Task
from broker.task.new import add_task
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Mqtt, Source

Curve: TypeAlias = list[tuple[int, Mapping[str, float]]]


def classes(
    loss: Callable[[int], float], accuracy: Callable[[int], float], count: int = 30, majority: float = 0.2
) -> Curve:
    return [
        (number, {"loss": loss(number), "accuracy": accuracy(number), "majority": majority, "num_examples": 500.0})
        for number in range(count)
    ]


CURVES: dict[str, tuple[Curve, str | None]] = {
    "learns": (classes(lambda n: 2.3 / (1 + n), lambda n: 0.2 + n / 50), None),
    "learns, and holds": (classes(lambda n: max(0.3, 2.3 - n / 5), lambda n: min(0.9, n / 10)), None),
    "loss is no number": (classes(lambda n: math.nan if n > 3 else 2.3, lambda _: 0.2), "diverged"),
    "loss is infinite": (classes(lambda n: math.inf if n == 29 else 1 / (1 + n), lambda _: 0.5), "diverged"),
    "worse than before training": (classes(lambda n: 2.3 * 1.1**n, lambda _: 0.1), "diverged"),
    "names the commonest class": (classes(lambda _: 1.9, lambda _: 0.2), "chance"),
    "by luck a little over it": (classes(lambda _: 1.9, lambda n: 0.2 + 0.01 * (n % 3)), "chance"),
    "too early to say": (classes(lambda _: 1.9, lambda _: 0.2, count=9), None),
    # All of one class but for a few: accuracy cannot rise, the loss tells.
    "rare classes": (classes(lambda n: 0.7 if n < 5 else 0.01, lambda _: 0.97, majority=0.97), None),
    "learns by heart": (classes(lambda n: 2.0 - n / 10 if n < 15 else n / 15, lambda _: 0.6), "overfits"),
    # Near zero, and back again after an odd update: nothing of it is worth a word.
    "learnt, and wavers a little": (classes(lambda n: max(0.017, 1.4 - n / 5) + n % 3 / 100, lambda _: 0.97), None),
    "one version worse": (classes(lambda n: 2.0 if n == 29 else 1 / (1 + n), lambda n: n / 30), None),
    "one version far worse than before training": (classes(lambda n: 9 if n == 29 else 1, lambda n: n / 30), None),
    "jumps again and again": (classes(lambda n: 3.0 if n in {21, 25} else 1 / (1 + n), lambda n: n / 30), "diverged"),
    "no classes, nothing learnt": ([(n, {"loss": 1.0}) for n in range(30)], "chance"),
    "no classes, learns": ([(n, {"loss": 1.0 / (1 + n)}) for n in range(30)], None),
    "nothing evaluated": ([(n, {}) for n in range(30)], None),
}


@pytest.mark.parametrize("name", CURVES)
def test_findings(name: str) -> None:
    curve, kind = CURVES[name]
    found = finding("har", curve, 0.02)
    assert (found and found.kind) == kind
    if found is not None:
        assert "\n" not in found.text
        assert len(found.text) < 250


def test_a_finding_that_jumps_bring_does_not_alternate_with_another() -> None:
    """As measured with adamw and a rate of 0.02: three of 44 versions fell, and were held back."""
    curve = classes(
        lambda n: {30: 0.9, 34: 1.6, 38: 2.2}.get(n, max(0.02, 1.1 - n / 13)), lambda n: min(1.0, 0.24 + n / 17), 45
    )
    found = [finding("m", curve[:end], 0.02) for end in range(1, 46)]
    assert [each.kind if each else "" for each in found] == [""] * 34 + ["diverged"] * 10 + [""]


def test_what_helps_is_in_the_line() -> None:
    found = finding("har", CURVES["worse than before training"][0], 0.4)
    assert found is not None
    assert found.text.endswith("try edgebroker task set har policy.learning_rate=0.1")


def test_the_best_is_the_oldest_of_equals() -> None:
    assert best([(3, {"loss": 1.0, "accuracy": 0.5}), (7, {"loss": 0.9, "accuracy": 0.5})]) == 7
    assert best([(3, {"loss": 1.0}), (7, {"loss": 1.0})]) == 3
    assert best([]) is None


def no_learning(ledger: Ledger, task: str, measured: int = 13) -> None:
    """A learning curve of a fleet that learns nothing; the newest version is the first one again."""
    digest = ledger.versions(task)[0].digest
    for number in range(1, 13):
        ledger.close_batch(task, [], Version(number, digest, number, 1e9 + number))
    for number in range(measured):
        accuracy = 0.21 if number == 4 else 0.2
        ledger.add_metrics(task, number, {"loss": 1.9, "accuracy": accuracy, "majority": 0.2, "num_examples": 100})


def test_the_page_and_status_tell_it_and_mark_the_best(tmp_path: Path) -> None:
    with served.served(tmp_path) as page, open_ledger(page.settings.ledger) as ledger:
        no_learning(ledger, served.TASK)
        told = page.json("/api/first")["learning"]
        assert told["best"] == 4
        assert "no better than chance (accuracy 0.2, always the commonest class: 0.2)" in told["wrong"]
    (tmp_path / "a.toml").write_text('directory = "data"\n[mqtt]\n')
    status = CliRunner().invoke(cli, ["status", str(tmp_path / "a.toml"), "--json"])
    (row,) = json.loads(status.output)["tasks"]
    assert (row["best"], row["learning"]) == (4, told["wrong"])
    assert row["late"] is told["late"] is None  # of the last fifth too few are known
    text = CliRunner().invoke(cli, ["status", str(tmp_path / "a.toml")]).output
    assert f"best is version 4\n  {told['wrong']}\n" in text


def test_the_page_and_status_show_what_the_last_versions_are_worth(tmp_path: Path) -> None:
    with served.served(tmp_path) as page, open_ledger(page.settings.ledger) as ledger:
        digest = ledger.versions(served.TASK)[0].digest
        for number in range(1, 21):
            ledger.close_batch(served.TASK, [], Version(number, digest, number, 1e9 + number))
            ledger.add_metrics(served.TASK, number, {"loss": 1 / number, "accuracy": 0.5 + number % 2 / 10})
        assert page.json("/api/first")["learning"]["late"] == pytest.approx(0.55)
    (tmp_path / "a.toml").write_text('directory = "data"\n[mqtt]\n')
    assert (
        "the last fifth of the versions: 0.55 (late)"
        in CliRunner().invoke(cli, ["status", str(tmp_path / "a.toml")]).output
    )


def test_devices_that_learn_by_heart_show_on_the_page(tmp_path: Path) -> None:
    with served.served(tmp_path) as page:
        for device, change in {"a": 0.25, "b": 0.125, "c": -0.5}.items():
            page.hear(device, holdout_change=change, doing="next-version")
        page.hear("d")  # holds nothing out
        told = page.json("/api/first")["learning"]["wrong"]
        assert told.startswith("the last rounds of 2 of 3 devices made the model worse on held-out examples")
        assert "a lower policy.learning_rate" in told
        story = page.json("/api/device", device="a")["story"]
        assert any(
            line.startswith("Its last round made the model 25% worse on its held-out examples") for line in story
        )
        assert "held-out" not in " ".join(page.json("/api/device", device="c")["story"])


def test_the_log_tells_it_once(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "learns-nothing"
    x, labels = data.held_out_windows()
    np.savez(tmp_path / "few.npz", x=x[:20], labels=labels[:20])
    settings = Aggregator(tmp_path / "data", mqtt=Mqtt(port=endpoint.port))
    add_task(settings, task, fleet.BUNDLE, Task(evaluation=Source(f"{tmp_path}/few.npz")))
    with open_ledger(settings.ledger) as ledger:
        no_learning(ledger, task, measured=11)
    (tmp_path / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n{fleet.NO_PAGE}')
    with fleet.restarted_aggregator(tmp_path), open_ledger(settings.ledger, read_only=True) as ledger:
        until_s = time.monotonic() + 30
        while not ledger.versions(task)[-1].metrics:
            assert time.monotonic() < until_s
            time.sleep(0.1)
        # Other data measures all of them anew, which is no news.
        np.savez(tmp_path / "other.npz", x=x[20:50], labels=labels[20:50])
        config = ["--config", str(tmp_path / "a.toml")]
        done = CliRunner().invoke(cli, ["task", "set", task, f"evaluation={tmp_path}/other.npz", *config])
        assert done.output.startswith("version 12: accuracy"), done.output
        while ledger.versions(task)[-1].metrics.get("num_examples") != 30:
            assert time.monotonic() < until_s
            time.sleep(0.1)
    log = (tmp_path / "a.log").read_text()
    assert log.count("no better than chance") == 1
    assert f"task {task}: version 12: accuracy " in log
