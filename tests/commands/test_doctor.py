"""The doctor: what is missing or broken is a line that says what to do, and nothing hangs or is changed."""

import json
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import fleet
import numpy as np
import pytest

from broker.settings import Task
from edgeclient.commands.doctor import bench, connection, machine, software, task
from edgeclient.commands.doctor.connection import Heard
from edgeclient.commands.doctor.data import data
from edgeclient.commands.doctor.findings import Finding, found, table, worst
from edgeclient.compress.select import KERNEL
from edgeclient.conditions.board import Observed
from edgeclient.link.limits import Answer, Limits
from edgeclient.link.mqtt import Endpoint
from edgeclient.models.slots import Models
from edgeclient.settings import Data, Device, Source, load, structure
from edgeclient.train.batches import DataError
from edgeclient.wire import announcement, topics

ROOT = Path(__file__).parents[2]
LEARNER = structure(
    {"device": "pi-7", "task": "har", "directory": "d", "data": {"source": "x.npz"}}, Device, where="test"
)


def doctor(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeclient.cli", "doctor", *arguments]
    env = {"PATH": "", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100)


def answered(*arguments: str, folder: Path, **environment: str) -> dict[str, Finding]:
    """Findings by topic, from the command itself."""
    done = doctor(*arguments, "--json", folder=folder, **environment)
    assert done.stderr == ""
    said = json.loads(done.stdout)
    findings = [Finding(**each) for each in said["findings"]]
    assert said["level"] == worst(findings)
    assert done.returncode == (said["level"] == "fail")
    return {each.topic: each for each in findings}


def device(folder: Path, endpoint: Endpoint, name: str = "har") -> Device:
    return load(fleet.write_device(folder, endpoint, "pi-7", name), Device)


# Findings


def test_a_check_that_hangs_or_breaks_is_a_finding() -> None:
    forever = threading.Event()
    (hung,) = found("disk", lambda: [Finding("ok", "disk", str(forever.wait()))], 0.02)
    assert hung == Finding("fail", "disk", "no answer within 0.02 s")
    forever.set()

    (broken,) = found("luck", lambda: [[]][0][0], 5)
    assert broken.what == "the check broke: IndexError: list index out of range"

    def leaves() -> Iterator[Finding]:
        yield Finding("ok", "data", "so far")
        sys.exit(3)

    (broken,) = found("data", leaves, 5)
    assert (broken.level, broken.what) == ("fail", "the check broke: SystemExit: 3")


@pytest.mark.parametrize(
    ("level", "finding"),
    [
        ("ok", software.judge_python("3.11.2", 64, "aarch64")),
        ("fail", software.judge_python("3.11.2", 32, "aarch64")),
        ("ok", software.judge_packages({"numpy": "2.4.6"})),
        ("fail", software.judge_packages({"numpy": "2.4.6", "attrs": None})),
        ("ok", software.judge_numba("0.68.1", None)),
        ("ok", software.judge_numba(None, "ModuleNotFoundError: No module named 'numba'")),
        ("warn", software.judge_numba("0.68.1", "OSError: cannot allocate executable memory")),
        ("warn", software.judge_numba("0.68.1", "RuntimeError: cannot cache function '_kth': no locator available")),
        ("ok", software.judge_cache(Path("/c/x"), Path("/c"), [], writeable=True, compiled=False)),
        ("ok", software.judge_cache(Path("/c/x"), None, [], writeable=False, compiled=False)),
        ("warn", software.judge_cache(Path("/home/c"), Path("/c"), [], writeable=True, compiled=False)),
        ("warn", software.judge_cache(Path("/c/x"), None, ["add"], writeable=True, compiled=False)),
        ("warn", software.judge_cache(Path("/c/x"), None, ["add"], writeable=False, compiled=False)),
        ("warn", software.judge_cache(Path("/c/x"), None, [], writeable=True, compiled=True)),
        ("ok", machine.judge_conditions(Observed(False, None, 0.1))),
        ("warn", machine.judge_conditions(Observed(None, None, None))),
        ("ok", machine.judge_memory(512 << 20, None)),
        ("ok", machine.judge_memory(512 << 20, 300 << 20)),
        ("warn", machine.judge_memory(512 << 20, 100 << 20)),
        ("ok", machine.judge_space(10**10, Path("/data"))),
        ("warn", machine.judge_space(10**8, Path("/data"))),
        ("fail", machine.judge_space(10**7, Path("/data"))),
        ("ok", machine.judge_speed(12.0, 25.0)),
        ("warn", machine.judge_speed(1.0, 25.0)),
        ("warn", machine.judge_speed(12.0, 400.0)),
    ],
)
def test_judgements(level: str, finding: Finding) -> None:
    assert finding.level == level
    assert level == "ok" or finding.advice


@pytest.mark.parametrize(
    ("what", "finding"),
    [
        ("attrs missing, numpy 2.4.6", software.judge_packages({"numpy": "2.4.6", "attrs": None})),
        (
            "2 kernels not compiled yet in /c",
            software.judge_cache(Path("/c"), None, ["sweep", "add"], writeable=True, compiled=False),
        ),
        ("on_battery no, load_per_core 0.25; not t", machine.judge_conditions(Observed(False, load_per_core=0.25))),
        ("1.0 MiB free at /data", machine.judge_space(1 << 20, Path("/data"))),
        ("20.0 MB/s, 3.00 ms a sync", machine.judge_speed(20.0, 3.0)),
        ("pi:1883 answers, but not as an MQTT broker", task.judge_connection(Heard(), "pi:1883", 1.0)),
        ("pi:1883 accepts this device, reached in 1.0 ms", task.judge_connection(Heard(accepted=True), "pi:1883", 1.0)),
        ("nobody announces har", task.judge_task(Heard(), LEARNER)),
        ("nobody announces har; announced are: a, b", task.judge_task(Heard(others={"b", "a"}), LEARNER)),
        (
            f"the broker does not let this device read {topics.head('har')}",
            task.judge_task(Heard(refused=(topics.head("har"),)), LEARNER),
        ),
        ("no receipt answered HELLO", task.judge_answer(Heard(head=b""), LEARNER)),
        (
            "no receipt answered HELLO; of the HELLO the broker says: Not authorized",
            task.judge_answer(Heard(head=b"", told=Answer(Limits(1 << 20), "Not authorized")), LEARNER),
        ),
        (
            f"the broker does not let this device read {topics.down('har', 'pi-7')}",
            task.judge_answer(Heard(head=b"", refused=(topics.down("har", "pi-7"),)), LEARNER),
        ),
        ("the aggregator answered HELLO in 20 ms", task.judge_answer(Heard(head=b"", answer_s=0.02), LEARNER)),
        *(
            (what, *task.judge_limits(Heard(told=Answer(Limits(size, retain=retain, qos=qos)))))
            for what, size, retain, qos in [
                ("packets of 4096 bytes at most: frames", 4096, True, 1),
                ("packets of 1024 bytes at most", 1024, True, 1),
                ("it keeps no retained messages", 1 << 20, False, 1),
                ("QoS 0 only", 1 << 20, True, 0),
            ]
        ),
    ],
)
def test_what_is_found(what: str, finding: Finding) -> None:
    assert finding.what.startswith(what)


def test_findings_are_a_table() -> None:
    findings = [Finding("ok", "memory", "3 GiB"), Finding("warn", "clock", "2001", "set it")]
    lines = ["ok    memory  3 GiB", "warn  clock   2001", f"{'':14}→ set it"]
    assert table(findings) == "\n".join(lines)
    assert (worst(findings), worst([])) == ("warn", "ok")


@pytest.mark.parametrize(
    ("now", "synchronised", "level"),
    [
        ("2026-05-01", True, "ok"),
        ("2026-05-01", None, "ok"),
        ("2026-05-01", False, "warn"),
        ("1970-01-01", None, "fail"),
        ("2026-04-20", True, "fail"),
        ("2026-04-29", None, "ok"),
    ],
)
def test_a_clock_in_the_past_is_noticed(now: str, synchronised: bool | None, level: str) -> None:
    times = [datetime.fromisoformat(f"{each}T12:00+00:00") for each in (now, "2026-04-30")]
    assert machine.judge_clock(times[0], times[1], synchronised).level == level


def test_the_nearest_mount_decides() -> None:
    mounts = (
        "/dev/sda / ext4 rw 0 0\ntmpfs /mnt tmpfs rw 0 0\n/dev/sdb /mnt/data\\040x ext4 rw 0 0\noverlay / overlay rw"
    )
    assert machine.filesystem(mounts, Path("/mnt/data")) == "tmpfs"
    assert machine.filesystem(mounts, Path("/mntx")) == "overlay"
    assert machine.filesystem("", Path("/mnt")) is None


# Disk


def test_looking_at_a_disk_leaves_nothing(tmp_path: Path) -> None:
    findings = {each.topic: each for each in machine.disk(tmp_path / "not" / "yet")}
    assert findings["disk speed"].level in {"ok", "warn"}
    assert " ms a sync" in findings["disk speed"].what
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    (*_, last) = machine.disk(tmp_path / "state" / "store")
    assert (last.level, last.what) == ("fail", f"{tmp_path / 'state'} cannot be written: Not a directory")


# Broker


def test_a_broker_without_and_with_the_task(tmp_path: Path, endpoint: Endpoint) -> None:
    settings = device(tmp_path, endpoint, secrets.token_hex(8))
    reached, missing = task.broker(settings)
    assert (reached.level, missing.level) == ("ok", "warn")
    assert missing.what.startswith(f"nobody announces {settings.task}")
    with fleet.hand(endpoint, topics.head(settings.task)) as link:
        for content, level, said in [
            (announcement.encode(fleet.announcement(settings.task, 7, fleet.START)), "ok", "is at version 7"),
            (b"junk", "fail", "unknown here"),
        ]:
            link.publish(topics.head(settings.task), content, retain=True)
            fleet.await_message(link, lambda message, content=content: message.payload == content)  # type: ignore[misc]
            _, finding, answer = task.broker(settings)
            assert finding.level == level
            assert said in finding.what
            assert (answer.level, answer.topic) == ("fail", "answer")


def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    (finding,) = task.broker(device(tmp_path, Endpoint("127.0.0.1", port)))
    assert (finding.level, finding.what) == (
        "fail",
        f"nobody listens at 127.0.0.1:{port}: does the MQTT broker run there?",
    )


@contextmanager
def answering(answer: bytes) -> Iterator[Endpoint]:
    """A server that says one thing to whoever has said something."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                with listening.accept()[0] as connection:
                    connection.settimeout(20)
                    said = connection.recv(1000)
                    if said == b"stop":
                        return
                    if said:
                        connection.sendall(answer)
                        connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint("127.0.0.1", listening.getsockname()[1])
        finally:
            with socket.create_connection(listening.getsockname()) as last:
                last.sendall(b"stop")
            thread.join(20)


@pytest.mark.parametrize(
    ("answer", "said"), [(bytes([0x20, 2, 0, 5]), "refuses us"), (b"", "answers, but not as an MQTT broker")]
)
def test_a_broker_that_refuses_or_is_none(
    answer: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_CONNECT_S", 0.5)
    with answering(answer) as endpoint:
        (finding,) = task.broker(device(tmp_path, endpoint))
    assert finding.level == "fail"
    assert said in finding.what


# The command


def test_a_device_that_can_take_part(tmp_path: Path, endpoint: Endpoint) -> None:
    config = fleet.write_device(tmp_path, endpoint, "pi-7", secrets.token_hex(8))
    findings = answered(str(config), folder=tmp_path)
    wanted = {"python", "packages", "onnxruntime", "numba", "kernels", "numba cache", "conditions", "memory", "clock"}
    assert wanted | {"disk space", "disk speed", "configuration", "data", "broker", "task"} <= findings.keys()
    assert {name for name, each in findings.items() if each.level == "fail"} == set()
    assert "selection numba" in findings["kernels"].what
    assert not (tmp_path / "state").exists()


def test_for_people_there_is_a_table(tmp_path: Path) -> None:
    done = doctor(folder=tmp_path)
    assert done.returncode == 0
    assert "ok    memory" in done.stdout
    assert "configuration" not in done.stdout


def test_a_bad_configuration_does_not_hide_the_rest(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('device = "pi-7"\ntask = "har"\ndirectory = "s"\n[data]\nsauce = "x.npz"\n')
    findings = answered("d.toml", folder=tmp_path)
    assert "unknown key data.sauce" in findings["configuration"].what
    assert findings["python"].level == "ok"


def test_missing_data_is_a_line(tmp_path: Path, endpoint: Endpoint) -> None:
    settings = device(tmp_path, endpoint)
    (tmp_path / "windows.npz").unlink()
    (finding,) = data(settings)
    assert finding.level == "fail"
    assert "does not exist" in finding.what


# What may be absent or broken


def shadow(folder: Path, **files: str) -> str:
    """A folder before all others on Python's path, with these modules in it."""
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    return f"{folder}:{ROOT}"


def test_a_broken_numba_is_a_warning(tmp_path: Path) -> None:
    path = shadow(tmp_path, numba="raise OSError('no executable memory')\n")
    findings = answered(folder=tmp_path, PYTHONPATH=path)
    assert findings["numba"].level == "warn"
    assert "no executable memory" in findings["numba"].what
    assert findings["kernels"].what.count("numpy") == 3
    assert "numba cache" not in findings


def test_a_broken_onnxruntime_is_a_failure(tmp_path: Path) -> None:
    path = shadow(tmp_path, onnxruntime="raise ImportError('libgomp.so.1 is missing')\n")
    finding = answered(folder=tmp_path, PYTHONPATH=path)["onnxruntime"]
    assert finding.level == "fail"
    assert "libgomp.so.1 is missing" in finding.what
    assert finding.advice.startswith("pip install '.[onnx]' in the clone")


def test_two_runtimes_are_a_failure(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_training_cpu"):
        made = tmp_path / f"{name}-1.30.0.dist-info"
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.30.0\n")
    finding = answered(folder=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")["onnxruntime"]
    assert finding.level == "fail"
    assert finding.advice.startswith("pip uninstall both")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = answered(folder=tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file"))["numba cache"]
    assert finding.level == "warn"
    assert f"NUMBA_CACHE_DIR={tmp_path / 'file'} cannot be written" in finding.what


# Measurements


def test_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KERNEL.why_not() is None
    monkeypatch.setattr(bench, "_CODED", 400_000)
    made = [*bench.selection(20_000), *bench.selection(100_000), *bench.codecs()]
    assert all(each.value > 0 for each in made)
    by_name: dict[str, Any] = {each.name: each.value for each in made}
    assert {"selection, 20,000 parameters (numpy)", "selection, 100,000 parameters (numba)"} <= by_name.keys()
    assert 1 <= by_name["positions, uniform mask"] / by_name["positions, least possible"] <= 1.01
    assert by_name["whole frames, uniform mask"] > by_name["positions, uniform mask"]


def test_the_command_measures(tmp_path: Path) -> None:
    said = json.loads(doctor("--bench", "--json", folder=tmp_path).stdout)
    assert {each["unit"] for each in said["bench"]} >= {"ns each", "× the in-place add", "M positions/s"}


def test_large_vectors_need_memory() -> None:
    assert bench.sizes(100 << 20) == bench.SIZES[:2]
    assert bench.sizes(1 << 30) == bench.SIZES
    assert bench.sizes(None) == bench.SIZES[:2]


def test_training_is_measured_where_there_is_a_model(tmp_path: Path, endpoint: Endpoint) -> None:
    settings = device(tmp_path, endpoint)
    assert list(bench.training(settings)) == []
    assert not settings.directory.exists()
    models = Models(settings.models)
    models.install_bundle(sha256(fleet.BUNDLE).hexdigest(), fleet.BUNDLE)
    models.activate(fleet.announcement("har", 1, fleet.START), fleet.START.astype("<f4").tobytes())
    (measured,) = bench.training(settings)
    assert measured.value > 0
    np.savez(tmp_path / "windows.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="no array"):
        list(bench.training(settings))


def test_data_is_compared_with_what_is_announced_before_a_model_has_come(tmp_path: Path, endpoint: Endpoint) -> None:
    settings = device(tmp_path, endpoint, "doctor-data")
    with fleet.aggregator(tmp_path, endpoint, "doctor-data", Task()):
        with fleet.hand(endpoint, topics.head("doctor-data")) as link:
            fleet.await_message(link, lambda message: bool(message.payload))
        (finding, *_) = data(settings)
        assert (finding.level, "examples fit the model" in finding.what) == ("ok", True)
        assert not settings.directory.exists()
        rows = [f"{at},0,0,0,{at // 100}" for at in range(300)]
        (tmp_path / "d.csv").write_text("\n".join(["t,ax,ay,az,labels", *rows]) + "\n")
        given = Data(Source(str(tmp_path / "d.csv")), {"window": 16, "columns": ["ax", "ay", "az"]})
        (finding,) = data(attrs.evolve(settings, data=given))
        assert (finding.level, "window = 200 in [data.options]" in finding.what) == ("fail", True)
