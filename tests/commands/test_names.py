"""`join` on boards that share a host name, and what `doctor` says of the conditions that `run` will have."""

import platform
import re
from pathlib import Path

import fleet
import numpy as np
import pytest
from command_lines import edgeclient

from edgeclient.commands.doctor.machine import granted, judge_grant
from edgeclient.conditions.reasons import Train, Wait
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Conditions, Device, load
from edgeclient.wire import status, topics
from edgeclient.wire.status import Status

HOST = re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:60]


@pytest.mark.case("fleet 15")
def test_join_offers_a_name_that_is_free(tmp_path: Path, endpoint: Endpoint) -> None:
    url = f"mqtt://127.0.0.1:{endpoint.port}/j-names"

    warnings: list[str] = []

    def joined(*more: str) -> tuple[str, str]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        done = edgeclient("join", url, "--data", "w.npz", "--out", str(out), *more)
        assert done.returncode == 0, done.stderr
        warnings[:] = [line.partition(",")[0].partition(";")[0] for line in done.stderr.splitlines()]
        return load(out, Device).device, done.stdout

    assert joined()[0] == HOST
    assert warnings[0] == "warning: nobody announces the task j-names"
    assert warnings[1].endswith("w.npz does not exist: [data] source in the configuration names it")
    np.savez(tmp_path / "w.npz", x=np.zeros((3, 2)))
    with fleet.hand(endpoint, topics.everyone("j-names", "status"), topics.head("j-names")) as link:
        for name in (HOST, f"{HOST}-2", "pi-7"):
            link.publish(topics.status("j-names", name), status.encode(Status("offline", "s")), retain=True)
            fleet.await_message(link, lambda message, name=name: message.topic.endswith(f"/{name}"))  # type: ignore[misc]
        link.publish(topics.head("j-names"), b"anything", retain=True)
        fleet.await_message(link, lambda message: message.topic == topics.head("j-names"))
    name, said = joined()
    assert not warnings
    assert name == f"{HOST}-3"
    assert f"{HOST} is there already, so this one is called {HOST}-3" in said
    name, said = joined("--device", "pi-7")
    assert name == "pi-7"
    assert "choose another id, such as pi-7-2" in said
    assert "there already" not in joined("--device", "pi-8")[1]


def test_join_without_a_broker_says_what_it_does_not_know(tmp_path: Path) -> None:
    done = edgeclient("join", "mqtt://127.0.0.1:1/t", "--data", "w.npz", "--out", str(tmp_path / "d.toml"))
    assert done.returncode == 0
    assert f"another board called {HOST}, is not known: nobody listens at 127.0.0.1:1: does the" in done.stdout
    assert "does not exist" in done.stderr
    assert "announces" not in done.stderr
    assert load(tmp_path / "d.toml", Device).device == HOST


def test_the_doctor_reads_conditions_as_run_does() -> None:
    busy = Wait("others wait for a core 97 % of the time, over 40 %: training waits", "load", forbidden=True)
    found = judge_grant(busy, Conditions())
    assert (found.level, "97 %" in found.what) == ("warn", True)
    assert 'preset = "eager"' in found.advice
    hot = Wait("81 °C is over 75 °C: training waits", "heat", forbidden=True)
    assert "eager" not in judge_grant(hot, Conditions()).advice
    assert judge_grant(Train(), Conditions("frugal")).what == "training would begin: preset frugal"


def test_the_doctor_says_so_of_a_paused_device(tmp_path: Path) -> None:
    config = fleet.write_device(tmp_path, Endpoint("127.0.0.1", 1), "pi", "j-paused")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/paused").touch()
    (found,) = granted(load(config, Device))
    assert (found.level, "paused by its owner" in found.what) == ("warn", True)
