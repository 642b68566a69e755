"""`python -m tools.chaos --crashes N | --fleet | --power-loss [--seed S] [--sabotage S] [--json]`."""

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from broker.processes.embedded import EmbeddedBrokerError
from broker.upkeep.backup import UpkeepError
from tools.chaos import account, crashes, fleet, oplog, powerloss
from tools.chaos.brokers import KINDS, BrokerError
from tools.chaos.plan import Plan
from tools.chaos.schedule import Faults

Say: TypeAlias = Callable[[str], None]

EXPECTED: Final = (
    fleet.FleetError, powerloss.PowerLossError, oplog.UnknownOperation, BrokerError, EmbeddedBrokerError, UpkeepError,
    OSError,
)  # fmt: skip


def main() -> int:
    """Run one mode; its account is one JSON object on the last line, and 1 is returned when something is wrong."""
    parser = _parser()
    given = parser.parse_args()
    run, holds, promises = next(mode for name, mode in MODES.items() if getattr(given, name))
    if given.sabotage not in {None, *promises}:
        parser.error(f"--sabotage {given.sabotage}: here it is one of {', '.join(promises)}")
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    say: Say = (lambda _: None) if given.json else (lambda text: print(text, flush=True))
    say(f"seed {seed}")
    try:
        told = run(given, seed, say)
    except EXPECTED as error:
        print(f"chaos: seed {seed}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(told))
    return 0 if holds(told) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tools.chaos", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--crashes", type=int, metavar="N", help="stores and state machines, killed at N crash points")
    mode.add_argument("--fleet", action="store_true", help="real processes over bad links, killed at random")
    mode.add_argument("--power-loss", action="store_true", help="what is written is cut, and what survives is opened")
    parser.add_argument("--seed", type=int, help="of everything that is drawn; printed")
    promises = sorted({promise for *_, some in MODES.values() for promise in some})
    parser.add_argument("--sabotage", choices=promises, help="break a promise; must be noticed, so the exit code is 1")
    parser.add_argument("--json", action="store_true", help="only one JSON object")
    some = parser.add_argument_group("--fleet")
    some.add_argument("--broker", choices=KINDS, default="nats")
    some.add_argument("--updates", type=int, default=1000, help="end when so many are applied (%(default)s)")
    some.add_argument("--devices", type=int, default=8)
    some.add_argument("--goal", type=int, default=4, help="updates per model version (%(default)s)")
    some.add_argument("--kill-every", type=float, default=4.0, help="mean seconds between kills; 0: none (%(default)s)")
    some.add_argument("--outage", type=float, default=0.0, help="seconds without any link, at half of the updates")
    some.add_argument("--reset-after", type=_spread, default=(20_000, 150_000), help="bytes: MIN,MAX; 0: never")
    some.add_argument("--latency", type=float, default=5.0, help="of a chunk, at most, in milliseconds (%(default)s)")
    some.add_argument("--up-rate", type=float, default=0.0, help="bytes a second that a link takes; 0: no limit")
    some.add_argument("--upload", action="append", default=[], metavar="LINE", help="for [upload] of every device")
    some.add_argument("--out", type=Path, help="folder for logs and stores, made anew and kept")
    some = parser.add_argument_group("--power-loss")
    some.add_argument("--cuts", type=int, default=300, help="(%(default)s)")
    return parser


def _spread(text: str) -> tuple[int, int] | None:
    low, _, high = text.partition(",")
    return (int(low), int(high or low)) if int(low) else None


def _crashes(given: argparse.Namespace, seed: int, say: Say) -> dict[str, Any]:
    return crashes.run(given.crashes, seed, given.sabotage, say)


def _fleet(given: argparse.Namespace, seed: int, say: Say) -> dict[str, Any]:
    out = given.out or Path(tempfile.mkdtemp(prefix="chaos-"))
    latency_s = given.latency / 5000, given.latency / 1000
    plan = Plan(
        out=out, broker=given.broker, seed=seed, updates=given.updates, devices=given.devices, goal=given.goal,
        kill_every_s=given.kill_every, outage_s=given.outage,
        faults=Faults(latency_s, reset_after_bytes=given.reset_after, up_bytes_s=given.up_rate),
        upload=tuple(given.upload), sabotage=given.sabotage,
    )  # fmt: skip
    told = fleet.run(plan, say, account.report)
    if given.out is None and account.holds(told):
        shutil.rmtree(out)
    else:
        say(f"logs and stores: {out}")
    return told


def _power_loss(given: argparse.Namespace, seed: int, say: Say) -> dict[str, Any]:
    return powerloss.run(seed, given.cuts, given.sabotage, say)


# By option: what runs, whether all is well by its account, and which promises it can break.
MODES: Final = {
    "crashes": (_crashes, crashes.holds, crashes.SABOTAGE),
    "fleet": (_fleet, account.holds, fleet.SABOTAGE),
    "power_loss": (_power_loss, powerloss.holds, powerloss.SABOTAGE),
}


if __name__ == "__main__":
    sys.exit(main())
