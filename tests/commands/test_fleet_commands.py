"""`edgebroker init` and `devices`, beside real processes."""

import json
import time
from pathlib import Path
from typing import Any

import fleet
from command_lines import edgebroker

from broker.settings import Aggregator, Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import load


def listed(config: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(edgebroker("devices", config, "--json").stdout)["devices"]
    return rows


def test_init_writes_what_serve_reads(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    assert edgebroker("init", str(path), "--port", "1999").returncode == 0
    made = load(path, Aggregator)
    assert made.embedded is not None
    assert (made.embedded.port, made.directory) == (1999, tmp_path / "broker-data")
    again = edgebroker("init", str(path))
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    before = edgebroker("devices", str(path))
    assert (before.returncode, "nothing was counted" in before.stderr) == (1, True)


def test_devices_are_listed_with_what_they_say_and_what_was_counted(tmp_path: Path, endpoint: Endpoint) -> None:
    task = "list"
    (tmp_path / "broker").mkdir()
    (tmp_path / "device").mkdir()
    with fleet.aggregator(tmp_path / "broker", endpoint, task, Task(goal=1, min_interval_s=0.2)):
        config = str(tmp_path / "broker/a.toml")
        assert "no device has been heard of" in edgebroker("devices", config).stdout
        with fleet.device(tmp_path / "device", endpoint, "pi", task):
            until_s = time.monotonic() + 60
            while (
                not (rows := json.loads(edgebroker("devices", config, "--json").stdout)["devices"])
                or not rows[0]["applied"]
            ):
                assert time.monotonic() < until_s
            assert (rows[0]["device"], rows[0]["task"], rows[0]["state"]) == ("pi", task, "online")
        (row,) = listed(config)
        assert (row["state"], row["applied"] > 0) == ("offline", True)
        assert "list/pi: " in edgebroker("devices", config).stdout
