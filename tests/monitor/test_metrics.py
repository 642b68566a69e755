"""Prometheus: what is counted, what is served, and that alerts and dashboard name nothing else."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import fleet
import pytest
import yaml
from scrapes import get, samples

from broker.monitor.backlog import MOST_BYTES, MOST_TOPICS, Backlog
from broker.monitor.fleet import Fleet
from broker.monitor.metrics import STUCK_S, Metrics
from broker.processes import children
from broker.settings import Aggregator, Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Mqtt
from edgeclient.wire import status, topics
from edgeclient.wire.errors import REASONS
from edgeclient.wire.status import Status

ROOT = Path(str(files("firmware_configs")))
ALERTS = ROOT / "prometheus/alerts.yml"
DASHBOARD = ROOT / "grafana/dashboard.json"
OURS = re.compile(r"\b(?:edgebroker|process)_\w+")
ENDING = re.compile(r"_(bucket|g?sum|g?count)$")
SELECTED = re.compile(r"\b((?:edgebroker|process)_\w+)(?:\{([^}]*)\})?")


def made(**values: Any) -> Metrics:
    metrics = Metrics(**{"disk": lambda: (0, 0), **values})
    metrics.task("har", 4000)
    metrics.version("har", 0, 0.0)
    return metrics


def series() -> dict[str, set[str]]:
    """Every name that a scrape may show, with its labels; those of targets are Prometheus' own."""
    endings = {
        "counter": ["_total"],
        "gauge": [""],
        "histogram": ["_bucket", "_sum", "_count"],
        "gaugehistogram": ["_bucket", "_gsum", "_gcount"],
    }
    found = {}
    for family in made().series.registry.collect():
        for ending in endings[family.type]:
            labels = {"le"} if ending == "_bucket" else set[str]()
            found[family.name + ending] = labels | {"job", "instance"}
    for base, own in LABELS.items():
        for name in found:
            if ENDING.sub("", name) == base:
                found[name] |= own
    return found


# What distinguishes series: all of it is bounded by what the operator adds or by constants.
LABELS = {
    "edgebroker_admissions_total": {"task", "verdict", "reason"},
    "edgebroker_rejected_messages_total": {"reason"},
    "edgebroker_applied_frame_bytes_total": {"task"},
    "edgebroker_applied_dense_bytes_total": {"task"},
    "edgebroker_staleness_versions": {"task"},
    "edgebroker_round_seconds": {"task"},
    "edgebroker_model_version": {"task"},
    "edgebroker_model_version_created_timestamp_seconds": {"task"},
    "edgebroker_model_evaluated_version": {"task"},
    "edgebroker_model_metric": {"task", "metric"},
    "edgebroker_versions_held_total": {"task"},
    "edgebroker_updates_waiting": {"task"},
    "edgebroker_rests": {"task"},
    "edgebroker_task_served": {"task"},
    "edgebroker_rivals_total": {"task", "contact"},
    "edgebroker_learning_wrong": {"task", "kind"},
    "edgebroker_devices": {"task", "state"},
    "edgebroker_devices_doing": {"task", "doing"},
    "edgebroker_silent_devices": {"task", "reason"},
    "edgebroker_outbox_frames": {"task", "stage"},
    "edgebroker_device_outbox_frames": {"task"},
    "edgebroker_device_oldest_frame_seconds": {"task"},
    "edgebroker_device_residual_norm": {"task"},
}


def expressions() -> dict[str, str]:
    """Title or alert → PromQL, of both files."""
    rules = yaml.safe_load(ALERTS.read_text())["groups"]
    found = {rule["alert"]: rule["expr"] for group in rules for rule in group["rules"]}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    return found


def unknown(expression: str) -> set[str]:
    """Series, and labels in their selectors, that no scrape has."""
    known = series()
    wrong = set()
    for name, selector in SELECTED.findall(expression):
        labels = set(re.findall(r"(\w+)\s*[=!]~?", selector))
        wrong |= {name} if name not in known else {f"{name}.{label}" for label in labels - known[name]}
    return wrong


@pytest.mark.parametrize("name", sorted(expressions()))
def test_alerts_and_dashboard_name_series_that_exist(name: str) -> None:
    assert OURS.search(expressions()[name]) or name == "EdgebrokerDown"
    assert unknown(expressions()[name]) == set()


def test_an_unknown_series_or_label_would_be_found() -> None:
    assert unknown('rate(edgebroker_frames_total[5m]) / edgebroker_devices{device="a"}') == {
        "edgebroker_frames_total",
        "edgebroker_devices.device",
    }
    assert unknown("edgebroker_commit_seconds > 1") == {"edgebroker_commit_seconds"}


def test_the_dashboard_shows_every_series_and_reads_as_grafana_does() -> None:
    shown = " ".join(expressions().values())
    families = {ENDING.sub("", name) for name in series() if name.startswith("edgebroker_")}
    assert {family for family in families if family not in shown} == set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one in panels:
        for other in panels:
            a, b = one["gridPos"], other["gridPos"]
            apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            apart |= a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            assert one is other or apart, (one["title"], other["title"])
            assert a["x"] + a["w"] <= 24


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_itself_takes_the_rules() -> None:
    command = ["promtool", "check", "rules", str(ALERTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_labels_are_as_listed_and_no_device_is_one() -> None:
    metrics = made()
    fill(metrics)
    for family in metrics.series.registry.collect():
        for sample in family.samples:
            if sample.name.startswith("edgebroker_"):
                name = ENDING.sub("", sample.name)
                assert set(sample.labels) - {"le"} == LABELS.get(name, set()), sample.name
    assert set(LABELS) - {ENDING.sub("", name) for name in series()} == set()
    assert b"pi-7" not in metrics.exposition()


def fill(metrics: Metrics) -> None:
    health = Status("online", "a", queued=2, sent=1, returned=4, doing="metered", oldest_s=70, residual_norm=2.5)
    metrics.heard(topics.status("har", "pi-7"), status.encode(health))
    metrics.heard("$SYS/broker/publish/messages/dropped", b"17")
    metrics.turned(writable=True, uncounted=5)
    metrics.uploaded(130)
    metrics.answered("har", "applied", "")
    metrics.answered("har", "refused", "stale")
    metrics.version("har", 7, 1e9)
    metrics.applied("har", 100, parts=2, base_version=4)
    metrics.applied("har", 20, parts=2, base_version=4)
    metrics.waits("har", 5, 12.0)
    metrics.closed("har")
    metrics.evaluated("har", 6, {"accuracy": 0.75})
    metrics.evaluated("har", 7, {})
    metrics.committed(0.003)
    metrics.rejected("checksum")
    metrics.rejected("somebody's invention")
    metrics.lost(3)


def test_what_is_told_is_counted() -> None:
    metrics = made(disk=lambda: (4096, 512))
    fill(metrics)
    found = samples(metrics.exposition())
    for name, labels, value in (
        ("admissions_total", ("har", "applied", ""), 1),
        ("admissions_total", ("har", "refused", "stale"), 1),
        ("admissions_total", ("har", "refused", "conflict"), 0),
        ("upload_bytes_total", (), 130),
        ("applied_frame_bytes_total", ("har",), 120),
        ("applied_dense_bytes_total", ("har",), 4000),  # both parts of one update
        ("staleness_versions_sum", ("har",), 6),
        ("round_seconds_sum", ("har",), 12),
        ("model_version", ("har",), 7),
        ("model_evaluated_version", ("har",), 6),
        ("model_metric", ("har", "accuracy"), 0.75),
        ("updates_waiting", ("har",), 5),
        ("commit_seconds_count", (), 1),
        ("rejected_messages_total", ("checksum",), 1),
        ("rejected_messages_total", ("other",), 1),
        ("lost_to_restore_frames_total", (), 3),
        ("devices", ("har", "online"), 1),
        ("outbox_frames", ("har", "queued"), 2),
        ("outbox_frames", ("har", "returned"), 4),
        ("devices_doing", ("har", "metered"), 1),
        ("device_outbox_frames_bucket", ("har", "5.0"), 0),
        ("device_outbox_frames_bucket", ("har", "10.0"), 1),
        ("device_outbox_frames_gsum", ("har",), 7),
        ("device_oldest_frame_seconds_bucket", ("har", "300.0"), 1),
        ("device_residual_norm_gcount", ("har",), 1),
        ("device_residual_norm_gsum", ("har",), 2.5),
        ("mqtt_dropped_messages_total", (), 17),
        ("uncounted_messages", (), 5),
        ("ledger_bytes", (), 4096),
        ("registry_bytes", (), 512),
        ("mqtt_connected", (), 0),
        ("writable", (), 1),
        ("statuses_left_out_total", (), 0),
    ):
        assert found[f"edgebroker_{name}", frozenset(labels)] == value, name


def test_reasons_are_bounded() -> None:
    metrics = made()
    for number in range(1000):
        metrics.rejected(f"reason-{number}")
    metrics.heard(topics.status("har", "a"), b"\xff" * 10)
    metrics.heard("edge/v1/har/status/../../x", b"{}")
    rejected = {labels for name, labels in samples(metrics.exposition()) if name.endswith("rejected_messages_total")}
    assert rejected == {frozenset({reason}) for reason in (*REASONS, "other")}


def test_health_and_readiness() -> None:
    now = [100.0]
    metrics = made(clock=lambda: now[0])
    assert (metrics.healthy(), metrics.ready()) == ("", "not connected to the MQTT broker")
    metrics.connected(up=True)
    assert metrics.ready() == ""
    metrics.turned(writable=False)
    assert (metrics.healthy(), "written" in metrics.ready()) == ("", True)
    metrics.turned(writable=True)
    now[0] += STUCK_S + 1
    assert "no turn for 61 s" in metrics.healthy()
    assert metrics.ready() == metrics.healthy()
    metrics.turned(writable=True)
    metrics.connected(up=False)
    assert "not connected" in metrics.ready()


def test_the_lag_of_the_intake_is_how_long_some_have_waited_without_a_break() -> None:
    now = [0.0]
    metrics = made(clock=lambda: now[0])

    def lag() -> float:
        return samples(metrics.exposition())["edgebroker_uncounted_seconds", frozenset()]

    for now[0], uncounted, seconds in (
        (5.0, 0, 0),
        (10.0, 3, 0),
        (11.0, 2, 1),
        (15.0, 9, 5),
        (16.0, 0, 0),
        (20.0, 1, 0),
    ):
        metrics.turned(writable=True, uncounted=uncounted)
        assert lag() == seconds
    now[0] = 27.0
    assert lag() == 7


def test_ten_thousand_devices_are_scraped_in_a_tenth_of_a_second() -> None:
    metrics = made()
    for number in range(10_000):
        body = status.encode(Status(("online", "offline")[number % 2], f"{number:016x}", queued=number % 5))
        assert metrics.heard(topics.status("har", f"device-{number}"), body)
    while metrics.unread:
        metrics.turned(writable=True)  # the service is idle
    taken = []
    for _ in range(5):
        began_s = time.perf_counter()
        text = metrics.exposition()
        taken.append(time.perf_counter() - began_s)
    found = samples(text)
    assert (found["edgebroker_devices", frozenset({"har", "online"})], len(text) < 20_000) == (5000, True)
    assert found["edgebroker_outbox_frames", frozenset({"har", "queued"})] == 20_000
    assert min(taken) < 0.1


# Statuses that wait


def test_uploads_go_first_and_statuses_are_read_when_there_is_time() -> None:
    metrics = made()
    for number in range(3000):
        metrics.heard(topics.status("har", f"d{number}"), status.encode(Status("online", "s")))
    metrics.turned(writable=True, uncounted=1)
    assert len(metrics.fleet) == 0
    metrics.turned(writable=True)
    assert metrics.summary("har").connections["online"] == 256
    found = samples(metrics.exposition())
    assert found["edgebroker_devices", frozenset({"har", "online"})] == 256 + 1000
    metrics.connected(up=True)  # the broker tells all of them again
    assert not samples(metrics.exposition()).keys() & {("edgebroker_devices", frozenset({"har", "online"}))}


def test_what_waits_to_be_read_is_bounded() -> None:
    metrics = made()
    for number in range(MOST_TOPICS + 500):
        metrics.heard(topics.status("har", f"d{number}"), b"{}")
    assert metrics.unread <= MOST_TOPICS
    for number in range(3000):
        metrics.heard(topics.status("har", f"long-{number}"), b"x" * 8000)
    assert metrics._backlog._bytes <= MOST_BYTES + 8000
    metrics.heard(topics.status("har", "a"), b"x" * 10_000)
    assert samples(metrics.exposition())["edgebroker_rejected_messages_total", frozenset({"too-large"})] == 1
    metrics.connected(up=True)
    assert metrics._backlog._bytes == 0


def test_a_late_will_does_not_hide_who_came_back_while_nobody_read() -> None:
    backlog, topic = Backlog(), topics.status("har", "a")
    born, again = (status.encode(Status("online", session)) for session in ("s1", "s2"))
    will = status.encode(Status("offline", "s1"))
    for payload in (born, again, will):
        backlog.put(topic, payload)
    book = Fleet()
    for message in backlog.take(9):
        book.hear(*message)
    assert [device.state for device in book.devices("har").values()] == ["waiting"]
    for payload in (born, will):
        backlog.put(topic, payload)
    assert backlog.take(9) == [(topic, born), (topic, will)]
    for payload in (will, again):
        backlog.put(topic, payload)
    assert backlog.take(9) == [(topic, again)]


# HTTP


@contextmanager
def monitored(folder: Path, endpoint: Endpoint, task: str, settings: Task) -> Iterator[str]:
    """`edgebroker serve` with [monitor]; gives its address."""
    fleet.add_task(Aggregator(directory=folder / "data", mqtt=Mqtt(port=endpoint.port)), task, fleet.BUNDLE, settings)
    (folder / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n[monitor]\nport = 0\n')
    command = [sys.executable, "-m", "broker.cli", "serve", str(folder / "a.toml")]
    log = folder / "a.log"
    with fleet._guarded(children.spawn(command, log=log), log):
        until_s = time.monotonic() + 30
        while not (told := re.search(r"metrics on (http://127\.0\.0\.1:\d+)/metrics", log.read_text())):
            assert time.monotonic() < until_s, log.read_text()
        yield told[1]


def test_a_running_aggregator_counts_and_answers(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "metrics"
    frames = [
        fleet.make_frame(task, "a", epoch=7, sequence=0),
        fleet.make_frame(task, "a", epoch=7, sequence=0),
        fleet.make_frame(task, "a", epoch=7, sequence=1, base_version=10**6),
        b"junk",
        fleet.make_frame(task, "a", epoch=7, sequence=2, seed=1),
    ]
    with (
        # First, so that nothing is published while the subscription is under way.
        fleet.hand(endpoint, topics.head(task)) as link,
        monitored(tmp_path, endpoint, task, Task(goal=2, min_interval_s=0)) as url,
    ):
        fleet.await_message(link, lambda message: message.topic == topics.head(task))
        link.publish(topics.status(task, "a"), status.encode(Status("online", "s", queued=4)), retain=True)
        link.publish(topics.status(task, "a") + "b", b"\xff\xfe")
        for body in frames:
            link.publish(topics.up(task, "a"), body)
        until_s = time.monotonic() + 30
        while True:
            code, text = get(f"{url}/metrics")
            found = samples(text.encode())
            if found.get(("edgebroker_model_version", frozenset({task}))) == 1 and found.get(
                ("edgebroker_outbox_frames", frozenset({task, "queued"}))
            ):
                break
            assert time.monotonic() < until_s, text
        assert code == 200
        for name, labels, value in (
            ("admissions_total", (task, "applied", ""), 2),
            ("admissions_total", (task, "duplicate", ""), 1),
            ("admissions_total", (task, "refused", "future"), 1),
            ("upload_bytes_total", (), sum(map(len, frames))),
            ("applied_frame_bytes_total", (task,), len(frames[0]) + len(frames[4])),
            ("applied_dense_bytes_total", (task,), 2 * 4 * fleet.LAYOUT.size),
            ("rejected_messages_total", ("magic",), 1),
            ("rejected_messages_total", ("json",), 1),
            ("staleness_versions_count", (task,), 2),
            ("round_seconds_count", (task,), 1),
            ("devices", (task, "online"), 1),
            ("mqtt_connected", (), 1),
        ):
            assert found[f"edgebroker_{name}", frozenset(labels)] == value, name
        assert found["edgebroker_commit_seconds_sum", frozenset()] > 0
        assert found["edgebroker_ledger_bytes", frozenset()] > 4096
        assert found["edgebroker_registry_bytes", frozenset()] > 4 * fleet.LAYOUT.size
        assert get(f"{url}/healthz") == get(f"{url}/readyz") == (200, "ok\n")


def test_a_task_that_is_removed_leaves_the_gauges() -> None:
    metrics = Metrics(disk=lambda: (0, 0))
    for task in ("har", "other"):
        metrics.task(task, 4)
        metrics.version(task, 3, 1.7e9)
        metrics.evaluated(task, 3, {"loss": 1.0, "accuracy": 0.5})
        metrics.heard(topics.status(task, "pi-7"), status.encode(Status("online", "s")))
        metrics.rests(task, rests=True)
        metrics.learns(task, "chance")
    metrics.look()
    assert 'edgebroker_learning_wrong{kind="chance",task="har"} 1.0' in metrics.exposition().decode()
    metrics.ended("har")
    text = metrics.exposition().decode()
    assert 'edgebroker_model_version{task="har"}' not in text
    assert 'edgebroker_model_metric{metric="loss",task="har"}' not in text
    assert 'edgebroker_model_metric{metric="loss",task="other"} 1.0' in text
    assert 'edgebroker_rests{task="har"}' not in text
    assert 'edgebroker_learning_wrong{kind="overfits",task="other"} 0.0' in text
    assert metrics.fleet.tasks() == ["other"]
