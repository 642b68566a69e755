"""The aggregator of a simulated fleet: admission, batch, version, gate, by the functions that the service calls."""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from broker.aggregate.version import MAX_FRAMES, Member, Partial, Sgd, State, Strategy, add, finish
from broker.intake.decode import FrameIn
from broker.ledger.rows import Entry
from broker.publish.retained import CHUNK_BYTES
from broker.registry.cliff import WINDOW, fallen
from broker.rounds import goal
from broker.rounds.goal import Turnout
from broker.rounds.trigger import Buffer
from broker.settings import AUTO, Task
from broker.simulate.scheme import Scheme
from broker.simulate.world import World
from broker.task.asked import asked
from edgeclient.compress.arrays import F32
from edgeclient.wire.announcement import Announcement, Blob, Policy
from edgeclient.wire.frame import Frame
from edgeclient.wire.messages import Refusal

TASK: Final = "simulated"
LEDGER: Final = "51d0000000000000"


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version as the fleet sees it.

    Attributes:
        number: rises.
        parameters: float32 (n,).
        created_s: virtual.
        updates: that it was made of.
    """

    number: int
    parameters: F32
    created_s: float
    updates: int


class Taken(NamedTuple):
    """What was in the frames of an update, and which of them are the device's again."""

    read: list[Frame]
    refused: list[Frame]


class Aggregator:
    """Of one task, with its batch that is open.

    Attributes:
        current: the version that the fleet sees.
        applied: updates so far.
        refused: frames, by reason.
        held: versions that the gate held back.
        cpu_s: seconds of reading, adding and making versions, here.
    """

    def __init__(self, world: World, settings: Task, scheme: Scheme) -> None:
        self._world, self._settings, self._scheme = world, settings, scheme
        self._strategy = Strategy(Sgd(settings.learning_rate))
        self._state = State()
        self.current = Version(0, world.parameters, 0.0, 0)
        self.applied, self.held, self.cpu_s = 0, 0, 0.0
        self.refused: Counter[str] = Counter()
        self._metrics: list[Mapping[str, float]] = []
        # When the last versions were made, of how many updates, and by whom.
        self._made: deque[tuple[float, int]] = deque(maxlen=goal.ROUNDS + 1)
        self._members: deque[set[str]] = deque(maxlen=goal.ROUNDS)
        self._empty()

    def _empty(self) -> None:
        layout = self._world.manifest.layout
        self._partial = Partial.empty(layout.size, layout.domain)
        self._waiting: set[str] = set()
        self._opened_s: float | None = None
        turnout = Turnout.of(list(self._made), list(self._members))
        wanted = goal.goal(turnout) if self._settings.goal == AUTO else self._settings.goal
        waits_s = goal.deadline_s(turnout, wanted) if self._settings.deadline_s == AUTO else self._settings.deadline_s
        self._trigger = Buffer(wanted, waits_s, self._settings.min_interval_s)

    def announcement(self, policy: Policy) -> Announcement:
        """Of the current version."""
        layout, (digest, size) = self._world.manifest.layout, self._world.bundle
        parameters = self.current.parameters
        return Announcement(
            TASK, self.current.number, "0" * 16, LEDGER, 1,
            Blob(sha256(parameters.tobytes()).hexdigest(), parameters.nbytes, CHUNK_BYTES),
            Blob(digest, size, CHUNK_BYTES), layout.digest, layout.size, policy=policy,
        )  # fmt: skip

    def take(self, device: str, bodies: Sequence[bytes], now_s: float) -> Taken:
        """Count the frames of an update."""
        layout, taken, began_s = self._world.manifest.layout, Taken([], []), time.process_time()
        leader: Entry | None = None
        for body in bodies:
            made = self._scheme.read(body, layout)
            taken.read.append(made)
            (entry,) = asked(
                FrameIn(TASK, device, body, made), layout, self.current.number, self._settings.policy.max_staleness
            )
            assert isinstance(entry, Entry)
            if entry.refusal is not None:
                taken.refused.append(made)
                self.refused[Refusal(entry.refusal).reason] += 1
                continue
            leader = leader or entry
            update = device, entry.number
            add(self._partial, Member(made.update, update, leader.weight, leader.terms, made.absolute), self._strategy)
        if leader is not None:
            self.applied += 1
            self._waiting.add(device)
            self._opened_s = now_s if self._opened_s is None else self._opened_s
        self.cpu_s += time.process_time() - began_s
        return taken

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until the batch closes; None while nothing waits."""
        full = self._partial.frames >= MAX_FRAMES // 2
        wait_s = self._trigger.wait_s(
            updates=len(self._partial.weights),
            opened_s=self._opened_s,
            last_s=self.current.created_s if self.current.number else -self._settings.min_interval_s,
            now=now_s,
        )
        return 0.0 if full and wait_s is not None else wait_s

    def close(self, now_s: float) -> Version:
        """The next version; `judge` says whether the fleet sees it."""
        began_s, updates = time.process_time(), len(self._partial.weights)
        made = finish(self._strategy, self.current.parameters, self._state, self._partial)
        self._next_state = made.state
        self._made.append((now_s, updates))
        self._members.append(self._waiting)
        self._empty()
        self.cpu_s += time.process_time() - began_s
        return Version(self.current.number + 1, made.parameters, now_s, updates)

    def judge(self, made: Version, metrics: Mapping[str, float]) -> bool:
        """Release a version, or hold it back: then a new one with the parameters of the last good one follows."""
        why = self._world.manifest.layout.fault(made.parameters) or fallen(metrics, self._metrics)
        if metrics:
            self._metrics = [*self._metrics, metrics][-WINDOW:]
        if not why:
            self.release(made)
            return True
        self.held += 1
        self.current = Version(made.number + 1, self.current.parameters, made.created_s, 0)
        return False

    def release(self, made: Version) -> None:
        """The fleet sees it from now on."""
        self.current, self._state = made, self._next_state
