"""The benchmark of monitoring measures real work: both aggregators count every upload, and one of them tells."""

from pathlib import Path

import fleet
from scrapes import samples

from broker.ledger.opening import open_ledger
from broker.monitor.metrics import Metrics
from broker.monitor.watch import Watch
from tools.bench import monitor


def test_both_sides_do_the_same_work(tmp_path: Path) -> None:
    metrics = Metrics(disk=lambda: (0, 0))
    plain = monitor.Side(tmp_path / "plain", fleet.BUNDLE, Watch())
    watched = monitor.Side(tmp_path / "watched", fleet.BUNDLE, metrics)
    plain.turn()
    watched.turn()
    uploads = monitor._uploads(fleet.BUNDLE, seed=0, ledger="0" * 16)
    rows = monitor._slices(plain, watched, metrics, uploads, slices=2, devices=100, share=0.5)
    assert [row["wall_ratio"] > 0 for row in rows] == [True, True]
    for side in ("plain", "watched"):
        with open_ledger(tmp_path / side / "ledger.db", read_only=True) as ledger:
            assert sum(applied for applied, _, _ in ledger.frame_counts("har").values()) == 2 * monitor.BATCH
            assert [version.number for version in ledger.versions("har")] == [0, 1, 2]
    found = samples(metrics.exposition())
    assert found["edgebroker_admissions_total", frozenset({"har", "applied", ""})] == 2 * monitor.BATCH
    assert found["edgebroker_model_version", frozenset({"har"})] == 2
    states = [found.get(("edgebroker_devices", frozenset({"har", state})), 0) for state in ("online", "offline")]
    assert sum(states) == monitor.BATCH - 1  # half a status an upload, over two slices; the last one waits
