"""What came of a fleet's run, from outside: the ledger, the devices' accounts, and what went over the links."""

from dataclasses import asdict
from typing import Any, Final

from broker.registry.blobs import Blobs
from broker.upkeep import accounts, examine
from tools.chaos import schedule
from tools.chaos.fleet import Run
from tools.chaos.plan import TASK

_ROUND: Final = 4


def report(fleet: Run) -> dict[str, Any]:
    """One JSON object; all processes must have ended.

    Raises:
        UpkeepError: a device's account cannot be read.
    """
    plan, ledger = fleet.plan, fleet.ledger
    found = [accounts.examine(ledger, TASK, name, plan.config(name)) for name in plan.names]
    counts = ledger.frame_counts(TASK)
    versions = ledger.versions(TASK)
    (task,) = ledger.tasks()
    remade = sum(same for _, same in examine.remade(ledger, Blobs(fleet.settings.registry), task))
    applied = accounts.contributions(ledger, TASK)
    useful = sum(len(each.body) for each in applied)
    sent, counters = fleet.sent, fleet.proxy.counters
    usual, recovery_s = schedule.recovery(fleet.samples, *fleet.outage) if fleet.outage else (None, None)
    updates = sum(version.updates for version in versions) + ledger.pending(TASK).updates
    last_s = next((sample.seconds for sample in fleet.samples if sample.updates >= updates), fleet.seconds)
    return {
        "mode": "fleet",
        "broker": plan.broker,
        "seed": plan.seed,
        "sabotage": plan.sabotage,
        "devices": plan.devices,
        "kills": dict(fleet.kills),
        "updates": updates,
        "updates_wanted": plan.updates,
        "complete": fleet.drained and updates >= plan.updates,
        "frames": len(applied),
        "refused": sum(refused for _, refused, _ in counts.values()),
        "waiting": sum(account.waiting for account in found),
        # Taken back while the fleet was told to send only: in the account, and in the next round, which never comes.
        "returned": sum(account.returned for account in found),
        "lost": sum(account.lost for account in found),
        "doubled": sum(doubled for _, _, doubled in counts.values()),
        "residuals_dropped": sum(account.renewals for account in found),
        "law_holds": all(account.law_holds for account in found) and remade == versions[-1].number,
        "law_worst_error": max(account.worst_error for account in found),
        "versions": versions[-1].number,
        "versions_remade": remade,
        "died": fleet.died,
        "tracebacks": sum("Traceback" in log.read_text(errors="replace") for log in plan.out.glob("logs/*.log")),
        "useful_bytes": useful,
        "sent_bytes": counters.up_bytes,
        "goodput": round(useful / counters.up_bytes, _ROUND) if counters.up_bytes else 0.0,
        "payload_bytes": sent.payload_bytes,
        "payload_goodput": round(useful / sent.payload_bytes, _ROUND) if sent.payload_bytes else 0.0,
        "sent_packets": dict(sent.packets),
        "sent_packet_bytes": dict(sent.bytes),
        "down_bytes": counters.down_bytes,
        "connections": counters.connections,
        "resets": counters.resets,
        "stalls": counters.stalls,
        "updates_per_s": round(updates / last_s, 2),
        "outage_s": plan.outage_s,
        "usual_updates_per_s": usual,
        "recovery_s": None if recovery_s is None else round(recovery_s, 1),
        "seconds": round(fleet.seconds, 1),
        "wrong": [asdict(each) for each in found if not each.law_holds or each.lost or each.renewals],
    }


def holds(told: dict[str, Any]) -> bool:
    """Whether everything was applied, once, and the account adds up."""
    bad = ("lost", "doubled", "waiting", "residuals_dropped", "died", "tracebacks")
    return bool(told["complete"] and told["law_holds"]) and not any(told[key] for key in bad)
