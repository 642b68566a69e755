"""What a demo came to, as report.json has it: worked out from outside, after everything has ended."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from broker.demo.observer import Moment, Observer
from broker.demo.plan import TASK, Plan
from broker.ledger.opening import open_ledger
from broker.ledger.rows import Version
from broker.monitor.measures import cost
from broker.registry.blobs import Blobs
from broker.settings import Aggregator
from broker.upkeep import accounts, examine
from edgeclient.bundle import archive


def make(
    plan: Plan,
    settings: Aggregator,
    bundle: bytes,
    devices: Sequence[str],
    observer: Observer,
    moments: Mapping[int, Moment],
) -> dict[str, Any]:
    """The report; BENCH keys, and what they come from.

    Aggregator and devices have ended, each device has fetched `bundle` once; `moments`: when each version was first
    seen.
    """
    n = archive.decode(bundle).manifest.layout.size
    with open_ledger(settings.ledger, read_only=True) as ledger:
        versions = ledger.versions(TASK)
        found = [accounts.examine(ledger, TASK, name, plan.config(name)) for name in devices]
        counts = ledger.frame_counts(TASK)
        updates = sum(version.updates for version in versions) + ledger.pending(TASK).updates
        trained_from = len({(each.device, each.base_version) for each in accounts.contributions(ledger, TASK)})
        (task,) = (task for task in ledger.tasks() if task.name == TASK)
        remade = sum(same for _, same in examine.remade(ledger, Blobs(settings.registry), task))
    last = observer.now
    made = len(versions) - 1  # the last number may be higher: a ledger from before goes on above what the fleet knows
    # The end may come before the last version is evaluated.
    evaluated = [version.metrics for version in versions if version.metrics] or [versions[0].metrics]
    fetched = sum(device.said.version >= 0 for device in observer.fleet.devices(TASK).values())
    return {
        "accuracy_before": evaluated[0].get("accuracy"),
        "accuracy_after": evaluated[-1].get("accuracy"),
        "majority_baseline": evaluated[0].get("majority"),
        "versions": made,
        "versions_remade": remade,
        "versions_trained_from": trained_from,
        "devices": len(devices),
        "updates_applied": updates,
        "frames_applied": sum(applied for applied, _, _ in counts.values()),
        "frames_refused": sum(refused for _, refused, _ in counts.values()),
        "frames_waiting": sum(account.waiting for account in found),
        "frames_lost": sum(account.lost for account in found),
        "frames_doubled": sum(doubled for _, _, doubled in counts.values()),
        "law_holds": all(account.law_holds for account in found) and remade == made,
        "law_worst_error": max(account.worst_error for account in found),
        "residuals_dropped": sum(account.renewals for account in found),
        **cost(
            parameters=n,
            updates=updates,
            trained_from=trained_from,
            fetched=fetched,
            bundle_bytes=len(bundle),
            uplink_bytes=last.uplink_bytes,
            downlink_bytes=last.downlink_bytes,
            socket_bytes=last.socket_bytes,
        )._asdict(),
        "receipt_bytes": observer.payload_bytes["down"],
        "status_bytes": observer.payload_bytes["status"],
        "density": plan.density,
        "seed": plan.seed,
        "sabotage": plan.sabotage,
        "parameters": n,
        "host": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "curve": [_point(version, versions, moments.get(version.number, last), n) for version in versions],
        "accounts": [asdict(account) for account in found],
    }


def adds_up(report: Mapping[str, Any]) -> bool:
    """Whether nothing was lost, nothing was counted twice, and the law holds."""
    return bool(report["law_holds"] and not report["frames_lost"] and not report["frames_doubled"])


def _point(version: Version, versions: Sequence[Version], seen: Moment, parameters: int) -> dict[str, Any]:
    updates = sum(each.updates for each in versions if each.number <= version.number)
    return {
        "version": version.number,
        "accuracy": version.metrics.get("accuracy"),
        **seen._asdict(),
        "dense_bytes": 4 * parameters * updates,
    }
