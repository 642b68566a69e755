"""The law of conservation over real parts without MQTT: store, compression, frames, ledger and receipts.

Per coordinate: Σ trained = Σ applied + Σ in frames that are not applied + residual, to float32 rounding, after any
sequence of rounds, duplicates, reorderings, losses, refusals and restarts; and sabotage breaks it.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.aggregate.weight import weight
from broker.intake.decode import FrameIn, HelloIn, decode, refusal
from broker.ledger.opening import open_ledger
from broker.ledger.rows import Entry
from broker.upkeep.accounts import Balance, balanced
from edgeclient import failpoint
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.durable.store import Store, Stored
from edgeclient.uplink.settle import settle
from edgeclient.wire import frame, messages, topics
from edgeclient.wire.life import State
from edgeclient.wire.messages import Hello, Receipt, encode_hello, encode_receipt

SIZE = 600
LAYOUT = Layout((Parameter("w", (SIZE,)),))
TOPIC = topics.up("t", "d")
# Small enough that an update of a few dozen entries takes several; a lone entry of the highest level takes 126.
FRAME_BYTES = 130


class World:
    """One device, one aggregator, and a network that keeps what was published until it is delivered or dropped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store", layout=LAYOUT.digest, size=SIZE)
        self.ledger = open_ledger(folder / "ledger.db")
        self.version = 0
        self.trained = np.zeros(SIZE)
        self.absolute = np.zeros(SIZE)
        self.rounds = 0
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.parts = 0
        self.refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()
        self.ledger.close()

    # Device

    def train(self, seed: int, k: int, exponent: int) -> None:
        rng = np.random.default_rng(seed)
        delta = (rng.standard_normal(SIZE) * 10.0**exponent).astype(np.float32)
        delta[rng.random(SIZE) < 0.2] = 0
        self.train_delta(delta, k)

    def train_delta(self, delta: np.ndarray, k: int) -> None:
        account = self.store.account()
        returned = self.store.frames(State.RETURNED)
        update, residual = compress_with_feedback(
            delta,
            self.store.residual(),
            k,
            returned=[frame.decode(each.body).update for each in returned],
            limit=16.0,
        )
        origin = frame.Origin("t", "d", LAYOUT.tag, account.next_update, self.version, 5)
        frames = frame.encode_update(update, origin, FRAME_BYTES)
        self.parts = max(self.parts, len(frames))
        self.store.commit_round(
            [frames],
            residual,
            token=str(self.rounds),
            base_version=self.version,
            merged=[each.id for each in returned],
        )
        self.trained += delta
        self.absolute += np.abs(delta)
        self.rounds += 1

    def send(self) -> None:
        """The oldest frame gets its sequence and goes out."""
        for id_ in self.queued()[:1]:
            self.store.mark_sent([id_])
            (sent,) = (each for each in self.store.frames(State.SENT) if each.id == id_)
            assert sent.sequence is not None
            if failpoint.sabotaged("drop") and sent.sequence % 4 == 3:
                self.store.settle(applied=[sent.sequence])
            else:
                self.up.append(self.stamped(sent))

    def queued(self) -> list[int]:
        return [row.id for row in self.store.outbox().rows if row.state is State.QUEUED]

    def stamped(self, sent: Stored) -> bytes:
        assert sent.sequence is not None
        return frame.stamp(sent.body, epoch=self.store.account().epoch, sequence=sent.sequence)

    def resend(self, choice: int) -> None:
        waiting = self.store.frames(State.SENT)
        if waiting:
            self.up.append(self.stamped(waiting[choice % len(waiting)]))

    def greet(self) -> None:
        account = self.store.account()
        self.up.append(encode_hello(Hello(account.epoch, account.next_sequence, self.store.outbox().confirmed)))

    def hear(self, choice: int) -> None:
        """A receipt arrives, in any order."""
        if self.down:
            receipt = messages.decode_receipt(self.down.pop(choice % len(self.down)))
            account = self.store.account()
            awaiting = [row.sequence for row in self.store.outbox().rows if row.sequence is not None]
            settled = settle(receipt, epoch=account.epoch, next_sequence=account.next_sequence, awaiting=awaiting)
            assert not settled.renew
            self.store.settle(
                applied=settled.applied,
                refused=[sequence for sequence, _ in settled.refused],
                withdrawn=settled.withdrawn,
            )
            self.refused += len(settled.refused)

    # Aggregator

    def deliver(self, choice: int, *, keep: bool, answer: bool) -> None:
        """A message arrives, in any order, perhaps again later; the receipt may be lost."""
        if not self.up:
            return
        at = choice % len(self.up)
        said = decode(TOPIC, self.up[at] if keep else self.up.pop(at), {})
        if isinstance(said, HelloIn):
            self.ledger.greet([("t", "d", said.hello)])
        else:
            assert isinstance(said, FrameIn)
            made = said.frame
            entry = Entry(
                task="t", device="d", epoch=made.epoch, sequence=made.sequence, digest=frame.digest(said.body),
                number=made.number, part=made.part, parts=made.parts, base_version=made.base_version,
                num_examples=made.num_examples, weight=weight(made.num_examples, self.version - made.base_version),
                refusal=refusal(made, LAYOUT, self.version, 1), body=said.body,
            )  # fmt: skip
            (admission,) = self.ledger.admit([entry], 1.0)
            assert not admission.conflict
        if answer:
            self.down.append(encode_receipt(self.receipt()))

    def receipt(self) -> Receipt:
        return self.ledger.receipt("t", "d", self.store.account().epoch)

    def crash(self, *, device: bool) -> None:
        """What was not committed is gone, and so is what was on the way."""
        if device:
            self.store.close()
            self.store = Store(self.folder / "store", layout=LAYOUT.digest, size=SIZE)
            assert self.store.notice is None
        else:
            self.ledger.close()
            self.ledger = open_ledger(self.folder / "ledger.db")
            self.down.clear()

    def drain(self) -> None:
        """A good link at last: everything is sent, delivered and answered."""
        while self.queued():
            self.send()
        for each in self.store.frames(State.SENT):
            self.up.append(self.stamped(each))
        while self.up:
            self.deliver(0, keep=False, answer=True)
        while self.down:
            self.hear(0)

    # The account

    def law(self) -> Balance:
        applied = self.ledger.by_device("t", "d", self.store.account().epoch)
        known = {each.sequence for each in applied}
        waiting = [each for each in self.store.frames() if each.sequence is None or each.sequence not in known]
        bodies = [each.body for each in applied] + [each.body for each in waiting]
        elsewhere = [frame.decode(body).update for body in bodies]
        return balanced(self.trained, self.absolute, self.rounds, self.store.residual(), elsewhere)


STEPS = st.one_of(
    st.tuples(st.just("train"), st.integers(0, 2**32 - 1), st.integers(0, 150), st.sampled_from([-38, -3, 0, 1, 3])),
    st.tuples(st.just("send"), st.integers(1, 4)),
    st.tuples(st.just("resend"), st.integers(0, 99)),
    st.tuples(st.just("greet")),
    st.tuples(st.just("deliver"), st.integers(0, 99), st.booleans(), st.booleans()),
    st.tuples(st.just("deliver"), st.integers(0, 99), st.booleans(), st.booleans()),
    st.tuples(st.just("drop"), st.integers(0, 99)),
    st.tuples(st.just("hear"), st.integers(0, 99)),
    st.tuples(st.just("lose receipt"), st.integers(0, 99)),
    st.tuples(st.just("new version"), st.integers(1, 3)),
    st.tuples(st.just("crash"), st.booleans()),
)


def run(world: World, step: tuple) -> None:  # type: ignore[type-arg]  # a name and its arguments
    match step:
        case ("train", seed, k, exponent):
            world.train(seed, k, exponent)
        case ("send", count):
            for _ in range(count):
                world.send()
        case ("resend", choice):
            world.resend(choice)
        case ("greet",):
            world.greet()
        case ("deliver", choice, keep, answer):
            world.deliver(choice, keep=keep, answer=answer)
        case ("drop", choice) if world.up:
            world.up.pop(choice % len(world.up))
        case ("hear", choice):
            world.hear(choice)
        case ("lose receipt", choice) if world.down:
            world.down.pop(choice % len(world.down))
        case ("new version", count):
            world.version += count
        case ("crash", device):
            world.crash(device=device)


# A round of which every part is refused and joins the next one, with everything twice.
REFUSED = [
    ("train", 1, 150, 0), ("send", 4), ("new version", 3), ("deliver", 0, True, True), ("deliver", 0, False, True),
    ("hear", 1), ("hear", 0), ("crash", True), ("train", 2, 150, 0), ("send", 4), ("deliver", 0, True, False),
    ("crash", False), ("deliver", 0, True, True), ("hear", 0),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=60))
@example(REFUSED)
def test_nothing_is_lost_and_nothing_counts_twice(steps: list[tuple]) -> None:  # type: ignore[type-arg]  # as above
    with tempfile.TemporaryDirectory() as folder, World(Path(folder)) as world:
        for step in steps:
            run(world, step)
        assert world.law().holds
        world.drain()
        finding = world.law()
        assert finding.holds, finding
        counts = world.store.outbox().counts()
        assert (counts[State.QUEUED], counts[State.SENT]) == (0, 0)
        account = world.store.account()
        assert account.applied == len(world.ledger.by_device("t", "d", account.epoch))
        assert world.ledger.frame_counts("t").get("d", (0, 0, 0))[2] == 0


def whole_run(folder: Path) -> Balance:
    """Eight rounds over a network that delivers everything twice, with refusals and restarts."""
    with World(folder) as world:
        for number in range(8):
            world.train(number, 150, 0)
            while world.queued():
                world.send()
            world.version += 1 + number % 3
            for _ in range(len(world.up)):
                world.deliver(0, keep=True, answer=True)
                world.deliver(0, keep=False, answer=True)
                world.hear(0)
            world.crash(device=number % 2 == 0)
        world.drain()
        assert world.parts > 1
        assert world.refused > 0
        return world.law()


def test_a_whole_run_keeps_the_law(tmp_path: Path) -> None:
    assert whole_run(tmp_path).holds


@pytest.mark.parametrize("promise", ["residual", "drop", "double"])
def test_sabotage_breaks_the_law(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promise: str) -> None:
    """The product's own switches: a skipped residual write, a dropped frame, a double apply."""
    monkeypatch.setattr(failpoint, "_ACTIONS", {f"sabotage.{promise}": "on"})
    finding = whole_run(tmp_path)
    assert not finding.holds
    assert finding.worst > 1000


def test_one_lost_entry_breaks_the_law(tmp_path: Path) -> None:
    """The check is sharp: the smallest entry of a single frame is noticed."""
    with World(tmp_path) as world:
        for number in range(3):
            world.train(number, 10, 0)
        world.drain()
        assert world.law().holds
        residual = world.store.residual()
        smallest = int(np.argmin(np.where(residual == 0, np.inf, np.abs(residual))))
        residual[smallest] = 0
        world.store.commit_round([], residual, token="x", base_version=0)
        finding = world.law()
        assert not finding.holds
        assert finding.coordinate == smallest


def test_the_law_survives_a_hundred_refused_rounds(tmp_path: Path) -> None:
    """Every update comes back and goes out again: the worst case for rounding."""
    with World(tmp_path) as world:
        rng = np.random.default_rng(3)
        for _ in range(100):
            world.train_delta(rng.standard_normal(SIZE).astype(np.float32), 200)
            while world.queued():
                world.send()
            world.version += 2
            world.drain()
        assert world.refused > 100
        finding = world.law()
        assert finding.holds, finding
