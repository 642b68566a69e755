"""What a child of the crash campaign does in its life: a device's or an aggregator's own code on a scripted network."""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import attrs
import numpy as np

from broker import service as service_module
from broker.intake import door as door_module
from broker.ledger.protocol import Ledger
from broker.ledger.rows import TaskRow
from broker.service import Service
from broker.settings import Aggregator, Embedded, task_settings, task_values
from broker.task import incumbency
from broker.task import live as live_module
from broker.task import roster as roster_module
from broker.task.live import LiveTask
from broker.task.new import add_task
from edgeclient import agent
from edgeclient.compress.quantise import quantise
from edgeclient.compress.update import SparseUpdate
from edgeclient.conditions import guard, pauses, spells
from edgeclient.conditions.board import Board, Observed
from edgeclient.durable import store
from edgeclient.link.events import Event
from edgeclient.link.mqtt import Connected, Link, Message
from edgeclient.models import allegiance, follow, incoming
from edgeclient.presence import teller
from edgeclient.settings import Device
from edgeclient.settings.device import MAX_PACKET_BYTES
from edgeclient.train.learner import Learner
from edgeclient.train.local import Local
from edgeclient.train.trainer import LocalRound
from edgeclient.uplink import sender
from edgeclient.wire import frame, topics
from tools.chaos import plan

TASK: Final = "crash"
BUNDLE: Final = plan.BUNDLE.read_bytes()
DEATH: Final = "/died"
_TURNS: Final = 8
_EXAMPLES: Final = 5
# Where the aggregator looks at the clock.
_BROKER: Final = (service_module, door_module, live_module, roster_module, incumbency)


@dataclass(frozen=True, slots=True)
class Said:
    """A message on the network."""

    topic: str
    payload: bytes


class Clock:
    """Stands in for the module `time`; only waiting moves it. The wall clock may be off."""

    def __init__(self, now_s: float, jump_s: float = 0.0) -> None:
        self.now_s = now_s
        self._jump_s = jump_s

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s

    def thread_time(self) -> float:
        """Nothing takes any time here."""
        return 0.0

    def time(self) -> float:
        """Unix seconds, perhaps wrong."""
        return self.now_s + self._jump_s


class Scripted(Link):
    """A connection that holds from the first to the last moment of a life, and delivers what was drawn for it.

    `script` are messages on `up` or `down`, in order; subscriptions find what is `retained`; `tell` takes what is
    published.
    """

    connected = True
    connection = 1

    def __init__(  # no super: there is no socket here
        self, script: list[Said], retained: Mapping[str, bytes], clock: Clock, tell: Callable[[bool, Said], None]
    ) -> None:
        self._script = deque(script)
        self._retained = retained
        self._clock = clock
        self._tell = tell
        self._ready: deque[Event] = deque()
        self._rested = self._listens = False

    def start(self) -> None:
        """Connected at once."""
        self._ready.append(Connected(1))

    def poll(self, timeout_s: float, *, limit: int = 64) -> list[Event]:
        """What is ready; then time passes, and a few messages of the script come."""
        if not self._ready and self._rested and self._listens:
            for _ in range(min(4, len(self._script))):
                self._ready.append(_message(self._script.popleft(), retained=False))
        self._rested = not self._ready
        if self._rested:
            self._clock.now_s += max(timeout_s, 0.05)
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    def subscribe(self, *topics: str, qos: int = 1) -> None:  # noqa: ARG002 (as in Link)
        """Retained messages are there at once."""
        for topic in topics:
            self._listens |= "/up/" in topic or "/down/" in topic
            if self._retained.get(topic):
                self._ready.append(_message(Said(topic, self._retained[topic]), retained=True))

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:  # noqa: ARG002 (as in Link)
        """Out into the network; a kill later does not take it back. Who asks on a claim topic hears itself."""
        if topic.endswith("/claim"):
            self._ready.append(_message(Said(topic, payload), retained=False))
        self._tell(retain, Said(topic, payload))

    def ignore(self, *_: Any) -> None:
        """Nobody waits, and nothing is held."""

    stop = wake = unsubscribe = ignore

    def reconnect(self, why: str) -> None:
        """It never breaks."""

    def room(self, topic: str, packet_bytes: int = MAX_PACKET_BYTES) -> int:  # noqa: ARG002 (as in Link)
        """There is no limit."""
        return packet_bytes

    def acknowledge(self, message: Message) -> None:
        """Sessions are clean: what was delivered does not come again by itself."""

    @property
    def busy(self) -> bool:
        """Whether something is still to be heard."""
        return bool(self._ready or self._script)

    def socket_bytes(self) -> tuple[int, int]:
        """There is no socket."""
        return 0, 0


def _message(said: Said, *, retained: bool) -> Message:
    return Message(said.topic, said.payload, retained, 1, 1, 1)


class Noise:
    """A trainer whose deltas are noise: every coordinate counts, none is zero."""

    def train(self, parameters: Any, *given: Any) -> LocalRound:
        """See Trainer."""
        (rng,) = (each for each in given if isinstance(each, np.random.Generator))
        delta = (rng.standard_normal(parameters.size) * 0.1).astype(np.float32)
        return LocalRound(delta, _EXAMPLES, 1, 1.0, 1.0, np.empty(0, np.float32))

    def evaluate(self, parameters: Any, data: Any, local: Any = None) -> Any:
        """Nobody asks."""
        raise NotImplementedError


class Silent(Board):
    """A board that tells nothing, and takes no time for it."""

    def observe(self) -> Observed:
        """Nothing."""
        return Observed()


def nothing() -> Iterator[Any]:
    """The data of a device here: its trainer does not look at any."""
    return iter(())


@contextmanager
def _timed(clock: Clock, *modules: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "time", clock))
        yield


def _live(link: Scripted, turn: Callable[[], object]) -> None:
    turns = 0
    while link.busy or turns < _TURNS:
        turn()
        turns += 1


def learn(settings: Device, link: Scripted, clock: Clock) -> None:
    """A device's life."""
    with _timed(clock, store, guard, pauses, spells, allegiance, follow, incoming, teller, sender):
        granted = guard.Guard(settings.conditions, settings.directory, Silent())
        learner = Learner(settings, lambda *_: (Noise(), Local(mock.Mock())))
        device = agent.Agent(settings, link, learner, granted)
        device.start()
        _live(link, device.turn)


def aggregate(settings: Aggregator, link: Scripted, clock: Clock, *, calm: bool) -> None:
    """An aggregator's life; a calm one makes no more versions, so that devices find an end."""
    with _timed(clock, *_BROKER):
        service = Service(settings, link, mock.Mock(side_effect=NotImplementedError))
        if calm:
            for running in service._tasks._candidates.values():  # noqa: SLF001 (the ledger keeps its settings)
                _change(running, goal=4096, deadline_s=1e7)
        link.start()
        _live(link, service._turn)  # noqa: SLF001 (one step of `run`)


def undisturbed(ledger: Ledger, folder: Path) -> str:
    """Digest of the last version that a quiet aggregator makes of the same frames in the same batches."""
    settings = Aggregator(directory=folder, embedded=Embedded())
    ((_, _, values),) = ledger.tasks()
    add_task(settings, TASK, BUNDLE, task_settings(TASK, values))
    with closing(sqlite3.connect(settings.ledger, isolation_level=None)) as db:  # the frames are for that one
        db.execute("UPDATE identity SET ledger = ?", (ledger.identity().ledger,))
    clock = Clock(1e9)
    with _timed(clock, *_BROKER):
        link = Scripted([], {}, clock, lambda *_: None)
        service = Service(settings, link, mock.Mock(side_effect=NotImplementedError))
        (running,) = service._tasks._candidates.values()  # noqa: SLF001 (as above)
        link.start()
        while running not in service._tasks:  # noqa: SLF001 (as above)
            service._turn()  # noqa: SLF001 (as above)
        jumped = 0
        for version in ledger.versions(TASK):
            if version.batch is None:
                jumped = version.number
                continue
            _change(running, goal=4096, deadline_s=1e7)
            members = ledger.batch(TASK, version.batch)
            # What was admitted before an older ledger went on as a newer version, and after.
            for after in (False, True):
                if after and jumped > running.version.number:
                    aged_s = jumped - running.version.number - 1000 + 0.5
                    service._ledger.jump(running.version.created_s + aged_s, TASK)  # noqa: SLF001 (as above)
                    (running.version,) = service._ledger.versions(TASK, last=1)  # noqa: SLF001 (as above)
                said = [each for each in members if (each.base_version >= jumped) is after]
                link._script.extend(Said(topics.up(TASK, each.device), each.body) for each in said)  # noqa: SLF001 (ours)
                while link.busy:
                    service._turn()  # noqa: SLF001 (as above)
            _change(running, goal=1, deadline_s=0.1)
            made = running.version.number + 1
            while running.version.number < made:
                service._turn()  # noqa: SLF001 (as above)
        return running.version.digest


def _change(running: LiveTask, **values: Any) -> None:
    running.change(TaskRow(running.name, running.bundle.digest, task_values(attrs.evolve(running.settings, **values))))


def warm_up() -> None:
    """What every child would do again: compiled kernels and converters are inherited."""
    update = SparseUpdate(4096, np.arange(0, 4096, 8), quantise(np.ones(512, np.float32), 16.0))
    for body in frame.encode_update(update, frame.Origin("t", "d", bytes(4), 0, 0, 1), 65_536, tensors=[(64, 64)]):
        frame.decode(body, [(64, 64)])
    task_settings(TASK, {})


def under_way(folder: Path) -> int:
    """Frames of a device's store that are not settled; 0 if it has none."""
    if not (folder / "store.db").exists():
        return 0
    with closing(sqlite3.connect(f"{(folder / 'store.db').resolve().as_uri()}?mode=ro", uri=True)) as db:
        (count,) = db.execute("SELECT count(*) FROM frame WHERE state != 'returned'").fetchone()
        return int(count)
