"""`--power-loss`: what the stores write is recorded with strace, cut anywhere, and what survives is opened again."""

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tools.chaos import oplog, stores
from tools.chaos.disk import Disk, lay_out
from tools.chaos.oplog import Mark, Operation, Reader, Sync, Write

STEPS: Final = 150
SABOTAGE: Final = ("residual-fsync", "store-fsync", "ledger-fsync", "folder-fsync")
_SHOWN: Final = 5


class PowerLossError(Exception):
    """The recording cannot be made here; one line that says why."""


def run(seed: int, cuts: int, sabotage: str | None, say: Callable[[str], None], steps: int = STEPS) -> dict[str, Any]:
    """Record once, cut often; one JSON object.

    Raises:
        PowerLossError: strace is missing or not allowed, or the driver failed.
    """
    began_s = time.monotonic()
    operations, unsynced = record(seed, steps, sabotage)
    marks = [each.said for each in operations if isinstance(each, Mark)]
    first = next(i for i, each in enumerate(operations) if isinstance(each, Mark))
    say(f"{len(operations)} operations, {len(marks) - 1} steps; {cuts} cuts")
    rng = random.Random(f"{seed}/cuts")  # noqa: S311 (a schedule)
    # A tenth of them while everything is being set up.
    places = sorted(
        rng.randint(0, first) if rng.random() < 0.1 else rng.randint(first, len(operations)) for _ in range(cuts)
    )
    found: list[tuple[int, str, str]] = []
    disk, done = Disk(), 0
    for number, place in enumerate(places):
        for operation in operations[done:place]:
            if not (isinstance(operation, Sync) and operation.node in unsynced):
                disk.apply(operation)
        done = place
        said = sum(isinstance(each, Mark) for each in operations[:place])
        damage = _judge(disk.survivor(random.Random(f"{seed}/cut/{number}")), marks, said)  # noqa: S311 (as above)
        if damage is not None:
            found.append((place, *damage))
            if len(found) <= _SHOWN:
                say(f"cut {number} at operation {place}, after step {said - 1}: {damage[0]}: {damage[1]}")
    kinds = Counter(kind for _, kind, _ in found)
    written = sum(len(each.content) for each in operations if isinstance(each, Write))
    return {
        "mode": "power-loss",
        "seed": seed,
        "sabotage": sabotage,
        "kills": cuts,
        "operations": len(operations),
        "syncs": sum(isinstance(each, Sync) for each in operations),
        "steps": len(marks) - 1,
        "frames": marks[-1]["frames"],
        "lost": kinds["lost"],
        "doubled": kinds["ahead"],
        "damaged": kinds["damaged"],
        "law_holds": not found,
        "useful_bytes": marks[-1]["bytes"],
        "sent_bytes": written,
        "seconds": round(time.monotonic() - began_s, 1),
        "found": [f"operation {place}: {kind}: {what}" for place, kind, what in found[:_SHOWN]],
    }


def holds(told: dict[str, Any]) -> bool:
    """Whether every cut left everything that had been promised, and nothing else."""
    return bool(told["law_holds"])


def record(seed: int, steps: int, sabotage: str | None) -> tuple[list[Operation], set[int]]:
    """What the driver did under strace, and the inodes whose syncs a sabotage leaves out."""
    if shutil.which(oplog.STRACE[0]) is None:
        raise PowerLossError("strace is not installed: on Debian and its kin, apt install strace")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        root, side, trace = Path(folder).resolve() / "root", Path(folder).resolve() / "side", Path(folder) / "trace"
        root.mkdir()
        side.mkdir()
        driver = [sys.executable, "-m", "tools.chaos.driver", str(root), str(side), str(seed), str(steps)]
        done = subprocess.run([*oplog.STRACE, "-o", str(trace), *driver], capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise PowerLossError(f"the driver under strace ends with {done.returncode}: {last[0]}")
        reader = Reader(root, side / "marks")
        with trace.open() as lines:
            return list(reader.read(lines)), _unsynced(reader, sabotage)


def _unsynced(reader: Reader, sabotage: str | None) -> set[int]:
    wanted: dict[str | None, Callable[[str], bool]] = {
        None: lambda _: False,
        "residual-fsync": lambda path: path.startswith("device/store/residual."),
        "store-fsync": lambda path: path.startswith("device/store/store.db"),
        "ledger-fsync": lambda path: path.startswith("aggregator/ledger.db"),
        "folder-fsync": lambda path: path != "" and bool(reader.names[path] & reader.folders),
    }
    return {node for path, nodes in list(reader.names.items()) if wanted[sabotage](path) for node in nodes}


def _judge(survivor: dict[str, bytes | None], marks: Sequence[dict[str, Any]], said: int) -> tuple[str, str] | None:
    """What is wrong with a survivor, as (kind, text); None when each component is as promised or one step ahead."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        lay_out(survivor, Path(folder))
        if not said:  # nothing was promised yet, but whatever is there must open
            marks = ()
            for name in ("device", "aggregator"):
                (Path(folder) / name).mkdir(exist_ok=True)
        try:
            states = stores.examine(Path(folder))
        except Exception as error:  # noqa: BLE001 (whatever the product raises is the finding)
            return "damaged", f"{type(error).__name__}: {error}".replace(folder, "")
    for component in stores.COMPONENTS if said else ():
        state, expected = states[component], [each["states"][component] for each in marks[max(0, said - 1) : said + 1]]
        if state not in expected:
            older = state in [each["states"][component] for each in marks[: said - 1]]
            newer = state in [each["states"][component] for each in marks[said + 1 :]]
            return ("lost" if older else "ahead" if newer else "damaged"), f"{component} is {state or 'gone'}"
    return None
