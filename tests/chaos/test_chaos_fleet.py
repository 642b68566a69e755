import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.chaos import account, brokers

SHORT = ("--fleet", "--updates", "40", "--devices", "4", "--goal", "2", "--kill-every", "1.5")
RESETS = ("--reset-after", "12000,60000")
# In CI a missing program is a failure, not a gap.
MISSING = brokers.mosquitto() is None


def chaos(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tools.chaos", *arguments, "--json"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "broker",
    [
        "nats",
        pytest.param("mosquitto", marks=pytest.mark.skipif(MISSING, reason="mosquitto is not installed: tools/test")),
    ],
)
def test_nothing_is_lost_or_doubled(broker: str, tmp_path: Path) -> None:
    code, told = chaos(*SHORT, *RESETS, "--seed", "1", "--broker", broker, "--out", str(tmp_path / "run"))
    exact = {
        "complete": True, "lost": 0, "doubled": 0, "waiting": 0, "residuals_dropped": 0, "law_holds": True, "died": [],
        "tracebacks": 0,
    }  # fmt: skip
    assert {key: told[key] for key in exact} == exact, told
    assert code == 0
    assert told["updates"] == told["frames"] >= 40
    assert told["kills"].keys() == {"device", "aggregator", "broker"}
    assert told["versions_remade"] == told["versions"] > 0
    assert told["resets"] > 0
    assert 0 < told["useful_bytes"] < told["payload_bytes"] < told["sent_bytes"]


def test_a_double_apply_is_noticed(tmp_path: Path) -> None:
    code, told = chaos(
        *SHORT, "--kill-every", "0", "--sabotage", "double", "--seed", "1", "--out", str(tmp_path / "run")
    )
    assert code == 1
    assert told["doubled"] > 0
    assert not told["law_holds"]


def test_one_wrong_thing_is_enough() -> None:
    well: dict[str, Any] = dict.fromkeys(("lost", "doubled", "waiting", "residuals_dropped", "tracebacks"), 0)
    good = {**well, "died": [], "complete": True, "law_holds": True}
    assert account.holds(good)
    bad: list[dict[str, Any]] = [{key: 1} for key in well]
    bad += [{"died": ["device-0"]}, {"complete": False}, {"law_holds": False}]
    assert not any(account.holds({**good, **each}) for each in bad)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fleet", "--sabotage", "residual-fsync"], "here it is one of drop, double"),
        (["--fleet", "--power-loss"], "not allowed with"),
        ([], "one of the arguments"),
    ],
)
def test_a_wrong_command_is_one_line(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.chaos", *arguments],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
