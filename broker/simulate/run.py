"""One run of a simulated fleet: who is there trains, what is sent arrives when links let it, batches close when due."""

import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import numpy as np

from broker.monitor import measures
from broker.publish import retained
from broker.simulate.aggregator import TASK, Aggregator, Version
from broker.simulate.device import Device, Update, local_round, returned
from broker.simulate.links import Presence, training_s
from broker.simulate.residuals import Residuals
from broker.simulate.scheme import Scheme, Sparse
from broker.simulate.trial import Point, Run, Trial
from broker.simulate.world import World
from edgeclient.compress.arrays import F32, F64
from edgeclient.compress.update import SparseUpdate
from edgeclient.link.limits import packet_bytes
from edgeclient.settings import ConfigError
from edgeclient.wire import messages, topics
from edgeclient.wire.announcement import Announcement, Blob

# Of a receipt that settles one update, as it is sent while nothing else waits.
_RECEIPT_BYTES: Final = len(messages.encode_receipt(messages.Receipt(1, 1, 1, None, (), ())))
_COHORTS, _RATES = 0xC0, 0x11  # what generators of one seed are for


@dataclass(slots=True)
class _Spent:
    up: int = 0
    down: int = 0
    frames: int = 0
    updates: int = 0
    trained_from: int = 0
    fetched: int = 0
    train_s: float = 0.0
    send_s: float = 0.0
    cosines: float = 0.0
    staleness: int = 0


def run(
    world: World,
    trial: Trial,
    scheme: Scheme | None = None,
    *,
    told: Callable[[Point], None] = lambda _: None,
    rate: Callable[[int], float] = lambda _: 1.0,
) -> Run:
    """Make so many versions.

    Args:
        world: who learns what.
        trial: how.
        scheme: how deltas travel; None for the product's way.
        told: hears of every version.
        rate: what the devices' learning rate is multiplied by at a version.

    Raises:
        TrainingError: a round diverges.
        ConfigError: no device is there again before the next version is due.
    """
    with Residuals(world.manifest.layout.size) as residuals:
        return _Simulation(world, trial, scheme or Sparse(), residuals, rate).run(told)


class _Simulation:
    def __init__(
        self, world: World, trial: Trial, scheme: Scheme, residuals: Residuals, rate: Callable[[int], float]
    ) -> None:
        self._world, self._trial, self._scheme, self._residuals = world, trial, scheme, residuals
        self._rate = rate
        self._server = Aggregator(world, trial.settings, scheme)
        rates = trial.links.rates(len(world.devices), np.random.default_rng([trial.seed, _RATES]))
        self._devices = [Device(at, f"d{at}", part, float(rates[at])) for at, part in enumerate(world.devices)]
        # Of each device: whether it is at work, the newest version that it has trained from, whether it is there.
        self._busy = np.zeros(len(world.devices), np.bool_)
        self._trained = np.full(len(world.devices), -1)
        self._presence = Presence(trial.availability, len(world.devices))
        self._begun = 0  # rounds so far
        self._coming: list[tuple[float, int, Update]] = []
        self._started = -1  # newest version that a cohort has begun at
        self._announced: Announcement | None = None
        self._announced_bytes = 0
        self._now_s = 0.0
        self._spent = _Spent()
        self._points: list[Point] = []
        self._last: deque[F32] = deque(maxlen=measures.window(trial.versions))

    def run(self, told: Callable[[Point], None]) -> Run:
        trial, server = self._trial, self._server
        self._note(server.current, told, self._metrics(server.current.parameters))
        while server.current.number < trial.versions:
            self._begin()
            wait_s = server.wait_s(self._now_s)
            due_s = math.inf if wait_s is None else self._now_s + max(0.0, wait_s)
            if self._coming and self._coming[0][0] <= due_s:
                self._arrive()
            elif due_s < math.inf:
                self._now_s = due_s
                self._close(told)
            else:
                self._wait()
        return self._result()

    # Version → devices

    def _begin(self) -> None:
        """Whoever is there, has nothing to do and has not trained from this version yet begins."""
        trial, version = self._trial, self._server.current.number
        if trial.refill == "version" and trial.cohort and self._started == version:
            return
        room = trial.cohort - (len(self._coming) if trial.refill == "always" else 0)
        if trial.cohort and room <= 0:
            return
        free = np.flatnonzero(~self._busy & (self._trained < version) & self._presence.there(self._now_s))
        if not free.size:
            return
        if trial.cohort:
            rng = np.random.default_rng([trial.seed, _COHORTS, version, self._begun])
            free = np.sort(rng.choice(free, min(room, free.size), replace=False))
        for at in free.tolist():
            self._start(self._devices[at])
        self._started = version

    def _start(self, device: Device) -> None:
        trial, spent = self._trial, self._spent
        announced = self._announcement()
        before, down = spent.up, self._downloaded(device, announced)
        spent.trained_from += 1
        update = local_round(
            self._world, self._scheme, self._residuals, device, announced, self._server.current.parameters, trial.seed
        )
        topic = topics.up(TASK, device.name)
        spent.up += sum(packet_bytes(topic, len(body)) for body in update.bodies)
        spent.frames += sum(map(len, update.bodies))
        spent.train_s += update.train_s
        spent.send_s += update.send_s
        work_s = training_s(self._world.manifest.layout.size, update.examples, trial.flops)
        seconds = (down + spent.up - before) / device.rate + work_s
        self._busy[device.at], self._trained[device.at] = True, announced.version
        arrives_s = trial.availability.after(device.at, self._now_s, seconds)
        heapq.heappush(self._coming, (arrives_s, self._begun, update))
        self._begun += 1

    def _announcement(self) -> Announcement:
        version, policy = self._server.current.number, self._trial.settings.policy
        if self._announced is None or self._announced.version != version:
            rate = policy.learning_rate * self._rate(version)
            self._announced = self._server.announcement(replace(policy, learning_rate=rate))
            topic, payload = retained.head(self._announced)
            self._announced_bytes = packet_bytes(topic, len(payload)) + _blob_bytes(self._announced.parameters)
        return self._announced

    def _downloaded(self, device: Device, announced: Announcement) -> int:
        """Bytes of head and parameters, and of the bundle where it is the first time."""
        taken = self._announced_bytes
        if device.trained < 0:
            self._spent.fetched += 1
            taken += _blob_bytes(announced.bundle)
        self._spent.down += taken
        return taken

    # Devices → version

    def _arrive(self) -> None:
        self._now_s, _, update = heapq.heappop(self._coming)
        device, spent = update.device, self._spent
        self._busy[device.at] = False
        spent.staleness += self._server.current.number - device.trained
        taken = self._server.take(device.name, update.bodies, self._now_s)
        spent.down += packet_bytes(topics.down(TASK, device.name), _RECEIPT_BYTES)
        spent.updates += 1
        spent.cosines += _cosine(update.made.delta.astype(np.float64), [each.update for each in taken.read])
        if taken.refused and self._scheme.feedback:
            returned(self._residuals, device, taken.refused)

    def _close(self, told: Callable[[Point], None]) -> None:
        trial = self._trial
        made = self._server.close(self._now_s)
        evaluated = made.number % trial.every == 0 or made.number >= trial.versions
        metrics = self._metrics(made.parameters) if evaluated else {}
        seen = not trial.gate or self._server.judge(made, metrics)
        if not trial.gate:
            self._server.release(made)
        self._last.append(self._server.current.parameters)
        self._note(made, told, metrics, held=not seen)

    def _metrics(self, parameters: F32) -> dict[str, float]:
        with np.errstate(all="ignore"):
            found = self._world.trainer.evaluate(parameters, self._world.test)
        told = {
            "loss": found.loss, "accuracy": found.accuracy, "majority": found.majority,
            "num_examples": found.num_examples,
        }  # fmt: skip
        return {name: float(value) for name, value in told.items() if value is not None}

    def _note(
        self, version: Version, told: Callable[[Point], None], metrics: Mapping[str, float], *, held: bool = False
    ) -> None:
        spent = self._spent
        point = Point(version.number, self._now_s, metrics, spent.up, spent.down, self._server.applied, held)
        self._points.append(point)
        told(point)

    def _wait(self) -> None:
        """Nothing is under way and nothing waits: until somebody is there."""
        trial = self._trial
        candidates = [each.at for each in self._devices if each.trained < self._server.current.number]
        next_s = min((trial.availability.next_s(at, self._now_s) for at in candidates), default=math.inf)
        if not self._now_s < next_s < math.inf:
            raise ConfigError(
                f"version {self._server.current.number + 1} never comes: every device has trained from the last one,"
                " and none has anything to send"
            )
        self._now_s = next_s

    def _result(self) -> Run:
        spent, server, n = self._spent, self._server, self._world.manifest.layout.size
        mean = np.zeros(n)
        for each in self._last:
            mean += each
        averaged = self._metrics((mean / max(1, len(self._last))).astype(np.float32))
        updates = max(1, spent.updates)
        cost = measures.cost(
            parameters=n, updates=server.applied, trained_from=spent.trained_from, fetched=spent.fetched,
            bundle_bytes=self._world.bundle[1], uplink_bytes=spent.up, downlink_bytes=spent.down,
            socket_bytes=spent.up + spent.down,
        )  # fmt: skip
        parameters = server.current.parameters
        late = measures.late(
            [(each.version, each.accuracy) for each in self._points if not each.held], server.current.number
        )
        return Run(
            self._points, late, averaged.get("accuracy"), averaged["loss"], parameters,
            sha256(parameters.tobytes()).hexdigest(), cost, spent.frames / updates, spent.cosines / updates,
            spent.train_s, spent.send_s, server.cpu_s, spent.staleness / updates, dict(server.refused), server.held,
        )  # fmt: skip


def _blob_bytes(blob: Blob) -> int:
    """Of all its chunks with their headers."""
    topic = topics.blob(TASK, blob.digest, blob.chunks - 1)
    return blob.size + blob.chunks * packet_bytes(topic, 0)


def _cosine(delta: F64, sent: Sequence[SparseUpdate]) -> float:
    """Between a delta (n,) and what its messages say, which never say a coordinate twice."""
    product = squares = 0.0
    for each in sent:
        values: F64 = each.values.decoded().astype(np.float64)
        product += float(values @ delta[each.indices])
        squares += float(values @ values)
    norm = math.sqrt(squares * float(delta @ delta))
    return product / norm if norm else 0.0
