"""`--crashes N`: the real stores and state machines, killed at named crash points in forked children.

One of the three of a world lives at a time: a forked child opens its store, hears what the network has for it, works
through some seconds of a simulated clock, and dies by SIGKILL at a crash point that was drawn, or at the end. At last
everybody lives undisturbed until nothing is under way, and the accounts are compared.
"""

import logging
import os
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import broker
import edgeclient
from broker.ledger.opening import open_ledger
from broker.registry.blobs import Blobs
from broker.upkeep import accounts, examine
from edgeclient import failpoint
from edgeclient.commands.warmup import warm
from tools.chaos import lives
from tools.chaos.lives import TASK, Said
from tools.chaos.world import NAMES, World, begun

SABOTAGE: Final = ("drop", "double", "residual", "tombstone")
_WORLD: Final = 250  # crashes
_HEAD: Final = struct.Struct("<?HI")
_LIFE_S: Final = 20.0
_YEAR_S: Final = 31_557_600.0
_DRAIN_LIVES: Final = 60
_TOTALS: Final = (
    "kills", "lives", "versions", "frames", "refused", "rounds", "lost", "doubled", "renewals", "useful_bytes",
    "sent_bytes",
)  # fmt: skip


def points(*packages: Any) -> list[str]:
    """Every crash point of these packages' sources."""
    text = "".join(path.read_text() for each in packages for path in Path(each.__file__).parent.rglob("*.py"))
    return sorted(set(re.findall(r'failpoint\.hit\("([^"]+)"\)', text)))


def run_world(seed: int, crashes: int, sabotage: str | None) -> dict[str, Any]:
    """One world up to so many crashes, drained and examined."""
    folder = Path(tempfile.mkdtemp(prefix="crashes-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108 (memory, not a fixed name)
    try:
        world = begun(folder, seed, sabotage)
        of_device, of_aggregator = points(edgeclient), points(edgeclient, broker)
        while sum(world.killed.values()) < crashes:
            who = world.rng.choice([*NAMES, "aggregator"])
            # A point that this life does not come to kills nobody: the second is one that it comes to often.
            mine, second, often = of_device, "agent.after-publish", (3, 14)
            if who == "aggregator":
                mine, second, often = of_aggregator, "service.after-ack", (2, 7)
            first = world.rng.choice(mine)
            times = world.rng.randint(*often), world.rng.choice([1, 1, 1, 2, 3])
            live(world, who, {second: f"kill@{times[0]}", first: f"kill@{times[1]}"})
        drain(world)
        return examined(world)
    finally:
        shutil.rmtree(folder)


def live(world: World, who: str, kills: dict[str, str] | None = None, *, calm: bool = False) -> None:
    """One life; `kills` are crash points and their actions, `calm` a perfect network and no new versions."""
    world.lives += 1
    inbox = world.up if who == "aggregator" else world.down[who]
    script = list(inbox) if calm else world.drawn(inbox)
    if calm:
        inbox.clear()
    actions = (kills or {}) | ({"sabotage." + world.sabotage: "on"} if world.sabotage else {})
    # The wall clock of a board without a battery: a year off now and then.
    jump_s = 0.0 if calm or world.rng.random() < 0.9 else world.rng.choice([-_YEAR_S, _YEAR_S])
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _be_child(world, who, script, actions, writer, calm=calm, jump_s=jump_s)
    os.close(writer)
    place = b""
    with os.fdopen(reader, "rb") as stream:
        for retain, said in _heard(stream):
            if said.topic == lives.DEATH:
                place = said.payload
            else:
                world.spread(said, retain=retain)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        world.killed[place.decode()] += 1
    elif status:
        raise RuntimeError(f"seed {world.seed}: {who} failed in life {world.lives}, see above")
    world.clock_s += _LIFE_S


def _be_child(
    world: World, who: str, script: list[Said], actions: dict[str, str], writer: int, *, calm: bool, jump_s: float
) -> None:
    """Never returns."""
    code = 1
    try:
        logging.disable()
        failpoint.arm(actions, partial(_die, writer))
        clock = lives.Clock(world.clock_s, jump_s)
        link = lives.Scripted(script, world.retained, clock, partial(_tell, writer))
        if who == "aggregator":
            lives.aggregate(world.settings, link, clock, calm=calm)
        else:
            lives.learn(world.devices[who], link, clock)
        code = 0
    except BaseException:  # noqa: BLE001 (a child must not come back into the campaign)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _die(writer: int, name: str) -> None:
    """Say where, so that the campaign can count, and die as at any crash point."""
    _tell(writer, False, Said(lives.DEATH, name.encode()))
    os.kill(os.getpid(), signal.SIGKILL)


def _tell(writer: int, retain: bool, said: Said) -> None:
    topic = said.topic.encode()
    data = _HEAD.pack(retain, len(topic), len(said.payload)) + topic + said.payload
    while data:
        data = data[os.write(writer, data) :]


def _heard(stream: Any) -> Iterator[tuple[bool, Said]]:
    """What a child has published; a kill may cut the last of it."""
    data, at = stream.read(), 0
    while len(data) - at >= _HEAD.size:
        retain, topic, payload = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if len(data) - at < topic + payload:
            return
        yield retain, Said(data[at : at + topic].decode(), data[at + topic : at + topic + payload])
        at += topic + payload


def drain(world: World) -> None:
    """A perfect network and no kills, until nothing is under way."""
    world.up += world.due(1 << 62)
    for _ in range(_DRAIN_LIVES):
        live(world, "aggregator", calm=True)
        for name in NAMES:
            live(world, name, calm=True)
        if not any(lives.under_way(world.folder / name / "store" / TASK) for name in NAMES):
            return
    raise RuntimeError(f"seed {world.seed}: {_DRAIN_LIVES} undisturbed lives were not enough: something is stuck")


def examined(world: World) -> dict[str, Any]:
    """The accounts of both sides, and the same batches once more in a world without disturbances."""
    with open_ledger(world.settings.ledger, read_only=True) as ledger:
        found = [accounts.examine(ledger, TASK, name, world.config(name)) for name in NAMES]
        versions = ledger.versions(TASK)
        (task,) = ledger.tasks()
        remade = sum(same for _, same in examine.remade(ledger, Blobs(world.settings.registry), task))
        undisturbed = lives.undisturbed(ledger, world.folder / "undisturbed")
        counts = ledger.frame_counts(TASK).values()
        useful = sum(len(each.body) for each in accounts.contributions(ledger, TASK))
    return {
        "seed": world.seed,
        "kills": sum(world.killed.values()),
        "points": dict(world.killed),
        "lives": world.lives,
        "network": dict(world.delivered),
        "versions": versions[-1].number,
        "frames": sum(applied for applied, _, _ in counts),
        "refused": sum(refused for _, refused, _ in counts),
        "rounds": sum(each.rounds for each in found),
        "lost": sum(each.lost for each in found),
        "doubled": sum(doubled for _, _, doubled in counts),
        "renewals": sum(each.renewals for each in found),
        "law_holds": all(each.law_holds for each in found),
        "worst_error": max(each.worst_error for each in found),
        "same_model": remade == versions[-1].number and undisturbed == versions[-1].digest,
        "useful_bytes": useful,
        "sent_bytes": world.sent_bytes,
    }


def run(crashes: int, seed: int, sabotage: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """The campaign: worlds of at most 250 crashes, on all cores.

    Raises:
        RuntimeError: a process failed, or something is stuck.
    """
    began_s = time.monotonic()
    shares = [min(_WORLD, crashes - at) for at in range(0, crashes, _WORLD)]
    total: Counter[str] = Counter()
    per_point: Counter[str] = Counter(dict.fromkeys(points(edgeclient, broker), 0))
    found: list[dict[str, Any]] = []
    warm()  # here, for all that are forked: in plain Python the context coder is half of what they do
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        futures = [pool.submit(run_world, seed + i, share, sabotage) for i, share in enumerate(shares)]
        for future in futures:
            found.append(told := future.result())
            total.update({key: told[key] for key in _TOTALS})
            per_point.update(told["points"])
            law = all(each["law_holds"] for each in found)
            say(f"{total['kills']} crashes, {total['frames']} frames, lost {total['lost']}, law {law}")
    return {
        "mode": "crashes", "seed": seed, "sabotage": sabotage, **total,
        "law_holds": all(each["law_holds"] for each in found), "same_model": all(each["same_model"] for each in found),
        "worst_error": max((each["worst_error"] for each in found), default=0.0), "points": dict(per_point),
        "wrong_seeds": [each["seed"] for each in found if not holds(each)],
        "seconds": round(time.monotonic() - began_s, 1),
    }  # fmt: skip


def holds(told: dict[str, Any]) -> bool:
    """Whether nothing was lost, nothing counted twice, no residual dropped, and the model is that of a quiet world."""
    return bool(told["law_holds"] and told["same_model"]) and not (told["lost"] or told["doubled"] or told["renewals"])
