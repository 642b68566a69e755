"""The crash campaign in its short form, and that it notices every promise that is broken on purpose."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tools.chaos import crashes


def campaign(*options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and account."""
    command = [sys.executable, "-m", "tools.chaos", "--json", "--crashes", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_300_crashes_lose_nothing_and_count_nothing_twice() -> None:
    code, told = campaign("300", "--seed", "7")
    assert (code, told["kills"], told["lost"], told["doubled"], told["renewals"]) == (0, 300, 0, 0, 0)
    assert told["law_holds"]
    assert told["same_model"]
    assert told["frames"] > 100
    assert told["versions"] > 20
    hit = {name for name, times in told["points"].items() if times}
    assert {"durable.before-slot-fsync", "durable.before-commit", "durable.after-sent", "agent.after-publish"} <= hit
    assert {"service.before-ack", "service.after-ack"} <= hit


@pytest.mark.parametrize("promise", crashes.SABOTAGE)
def test_sabotage_is_noticed(promise: str) -> None:
    # Few copies come so late that a missing tombstone shows: one in ten campaigns of 300 crashes has none.
    crashes_, tries = ("300", 4) if promise == "tombstone" else ("50", 1)
    for seed in range(1, tries + 1):
        code, told = campaign(crashes_, "--seed", str(seed), "--sabotage", promise)
        if code:
            break
    assert code == 1
    assert told["lost"] or told["doubled"] or not told["law_holds"]
