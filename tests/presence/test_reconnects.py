"""What others read of a device whose connection breaks while it is busy."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from edgeclient.link.mqtt import Link
from edgeclient.presence.session import Session
from edgeclient.presence.teller import Standing, Teller
from edgeclient.settings import Device, structure
from edgeclient.wire import status, topics


class Line:
    """A connection that comes and goes, and keeps what is published."""

    connected, connection, why = True, 1, ""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []

    def socket_bytes(self) -> tuple[int, int]:
        return 0, 0

    def publish(self, topic: str, payload: bytes, **_: Any) -> None:
        self.published.append((topic, payload))


@pytest.mark.case("fleet 65")
def test_a_reconnect_within_a_round_says_the_status_again(tmp_path: Path) -> None:
    """The will of the connection that broke said offline; no event is looked at before the round ends."""
    values = {"device": "pi", "task": "har", "directory": str(tmp_path), "data": {"source": "x.npz"}}
    settings, line = structure(values, Device, where="test"), Line()
    standing = Standing("training", "training on version 3", forbidden=False, done=False)
    teller = Teller(settings, cast("Link", line), Session.of(settings.upload), lambda: standing)
    teller.report(now=True)
    line.published.clear()
    teller.report()  # as every step of the round does
    assert line.published == []
    line.connection = 2
    teller.report()
    ((topic, said),) = line.published
    assert topic == topics.status("har", "pi")
    assert (status.decode(said).state, status.decode(said).doing) == ("online", "training")
    teller.report()
    assert len(line.published) == 1


def test_the_last_word_keeps_why_there_was_no_connection(tmp_path: Path) -> None:
    values = {"device": "pi", "task": "har", "directory": str(tmp_path), "data": {"source": "x.npz"}}
    settings, line = structure(values, Device, where="test"), Line()
    standing = Standing("model", "waiting for the model", forbidden=False, done=False)
    teller = Teller(settings, cast("Link", line), Session.of(settings.upload), lambda: standing)
    assert teller.goodbye("stopped")["note"] == "waiting for the model"
    assert status.decode(line.published[-1][1]).note == "stopped"
    line.connected, line.why = False, "nobody listens at pi:1883"
    teller.goodbye("stopped")
    said = json.loads((tmp_path / "status.json").read_text())["note"]
    assert said == "stopped, waiting without a connection: nobody listens at pi:1883"
