"""What one side says when it cannot read the other."""

from dataclasses import replace
from pathlib import Path

import fleet

from broker.publish import retained
from edgeclient.link.mqtt import Endpoint
from edgeclient.wire import topics
from edgeclient.wire.limits import FRAME_VERSION


def test_a_device_whose_frames_nobody_reads_says_so_in_one_line(tmp_path: Path, endpoint: Endpoint) -> None:
    announced = replace(fleet.announcement("unread-1", 0, fleet.START), wire=(FRAME_VERSION + 1, FRAME_VERSION + 2))
    with fleet.hand(endpoint, topics.head("unread-1")) as hand:
        hand.publish(*retained.head(announced), retain=True)
        with fleet.device(tmp_path, endpoint, "lone", "unread-1"):
            fleet.log_says(tmp_path, f"frame versions [{FRAME_VERSION + 1}, {FRAME_VERSION + 2}]")
    told = [line for line in (tmp_path / "d.log").read_text().splitlines() if "version" in line]
    assert len(told) == 1
    assert f"this device writes {FRAME_VERSION}: update edgeclient here" in told[0]
