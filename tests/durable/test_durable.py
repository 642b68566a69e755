"""The device's store: both or neither, whatever happens and wherever it is killed."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeclient.conditions.budgets import round_bytes
from edgeclient.durable.lock import DiskFull, StoreError
from edgeclient.durable.schema import MIGRATIONS
from edgeclient.durable.store import Store
from edgeclient.failpoint import VARIABLE
from edgeclient.wire.life import State

SIZE = 6
# A frame of these tests is its entries, eight bytes of identity and the float32 numbers themselves.


def entries(body: bytes) -> np.ndarray:
    return np.frombuffer(body[12:], "<f4")


def body_of(numbers: np.ndarray) -> bytes:
    return bytes(12) + numbers.astype("<f4").tobytes()


def opened(folder: Path) -> Store:
    return Store(folder, layout="ab" * 32, size=SIZE)


def mass(store: Store) -> np.ndarray:
    total = store.residual().astype(np.float64)
    for each in store.frames():
        total += entries(each.body)
    return total


WAITS = {State.QUEUED, State.SENT}
OPEN = (State.SENT, State.WITHDRAWING)


class Conservation(RuleBasedStateMachine):
    """Whole numbers, so that sums are exact: trained = applied + frames + residual, through reopening."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = opened(Path(self.folder.name) / "store")
        self.epoch = self.store.account().epoch
        self.trained = np.zeros(SIZE)
        self.applied = np.zeros(SIZE)
        self.rounds = 0
        self.sequences: list[int] = []
        self.counted = {"applied": 0, "refused": 0, "withdrawn": 0}

    @rule(delta=st.lists(st.integers(-9, 9), min_size=SIZE, max_size=SIZE), cut=st.integers(0, SIZE))
    def commit_round(self, delta: list[int], cut: int) -> None:
        returned = self.store.frames(State.RETURNED, *[State.QUEUED] * (cut % 3 == 0))
        x = self.store.residual() + np.array(delta, np.float32)
        for each in returned:
            x += entries(each.body)
        sent, kept = x.copy(), x.copy()
        sent[cut:], kept[:cut] = 0, 0
        token = f"r{self.rounds}"
        self.store.commit_round(
            [[]] * (cut % 2) + [[body_of(sent)] * (cut > 0)],
            kept,
            token=token,
            base_version=self.rounds,
            merged=[each.id for each in returned],
        )
        self.trained += delta
        self.rounds += 1
        account = self.store.account()
        assert (account.round_token, account.trained_version) == (token, self.rounds - 1)

    @precondition(lambda self: self.store.outbox().counts()[State.QUEUED])
    @rule(count=st.integers(1, 3))
    def mark_sent(self, count: int) -> None:
        ids = [row.id for row in self.store.outbox().rows if row.state is State.QUEUED][:count]
        self.store.mark_sent(ids)
        self.store.mark_sent(ids)  # a sequence is given once
        rows = {row.id: row for row in self.store.outbox().rows}
        assert [rows[id_].sequence for id_ in ids] == [len(self.sequences) + i for i in range(len(ids))]
        assert all(rows[id_].state is State.SENT for id_ in ids)
        self.sequences += range(len(self.sequences), len(self.sequences) + len(ids))

    @precondition(lambda self: any(row.state in WAITS for row in self.store.outbox().rows))
    @rule(choice=st.integers(0, 99))
    def withdraw(self, choice: int) -> None:
        rows = [row for row in self.store.outbox().rows if row.state in WAITS]
        one = rows[choice % len(rows)]
        self.store.withdraw([one.id])
        self.store.withdraw([one.id])
        self.counted["withdrawn"] += one.state is State.QUEUED
        wanted = State.RETURNED if one.state is State.QUEUED else State.WITHDRAWING
        assert [row.state for row in self.store.outbox().rows if row.id == one.id] == [wanted]

    @precondition(lambda self: any(row.state in OPEN for row in self.store.outbox().rows))
    @rule(choice=st.integers(0, 99), how=st.sampled_from(["applied", "refused", "withdrawn"]), twice=st.booleans())
    def settle(self, choice: int, how: Literal["applied", "refused", "withdrawn"], twice: bool) -> None:
        waiting = self.store.frames(*OPEN)
        one = waiting[choice % len(waiting)]
        assert one.sequence is not None
        for _ in range(1 + twice):
            self.store.settle(**{how: [one.sequence]})
        self.counted[how] += 1
        if how == "applied":
            self.applied += entries(one.body)

    @rule(sequence=st.integers(0, 50), refuse=st.booleans())
    def a_receipt_for_what_is_not_sent(self, sequence: int, refuse: bool) -> None:
        if sequence not in [each.sequence for each in self.store.frames(*OPEN)]:
            self.store.settle(applied=[] if refuse else [sequence], refused=[sequence] if refuse else [])

    @rule()
    def reopen(self) -> None:
        before = self.store.account(), self.store.frames()
        self.store.close()
        self.store = opened(Path(self.folder.name) / "store")
        assert self.store.notice is None
        assert (self.store.account(), self.store.frames()) == before

    @invariant()
    def nothing_is_lost_and_nothing_is_twice(self) -> None:
        assert np.array_equal(self.trained, self.applied + mass(self.store))

    @invariant()
    def the_counters_are_right(self) -> None:
        account, counts = self.store.account(), self.store.outbox().counts()
        assert account.epoch == self.epoch
        assert account.rounds == account.next_update == self.rounds
        assert account.next_sequence == len(self.sequences)
        assert {key: getattr(account, key) for key in self.counted} == self.counted
        assert counts == {state: len(self.store.frames(state)) for state in State}
        open_ = [each.sequence for each in self.store.frames(*OPEN) if each.sequence is not None]
        assert self.store.outbox().confirmed == min(open_, default=len(self.sequences))

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestConservation = Conservation.TestCase
TestConservation.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


# Kills

CHILD = """
import sys
from pathlib import Path
import numpy as np
from edgeclient.durable.store import Store
from edgeclient.wire.life import State

with Store(Path(sys.argv[1]), layout="ab" * 32, size=6) as store:
    print(store.account().epoch, flush=True)
    for number in range(1, 4):
        print("round", number, flush=True)
        live, idle = store.slots() if "mapped" in sys.argv else (store.residual(), None)
        x = live + np.arange(6, dtype=np.float32) * 10 ** number
        returned = store.frames(State.RETURNED)
        for each in returned:
            x += np.frombuffer(each.body[12:], "<f4")
        sent, kept = x.copy(), x.copy()
        sent[3:], kept[:3] = 0, 0
        if idle is not None:
            idle[:] = kept
            kept = idle
        store.commit_round([[bytes(12) + sent.tobytes()]], kept, token=str(number), base_version=number,
                           merged=[each.id for each in returned])
        ids = [row.id for row in store.outbox().rows]
        store.mark_sent(ids)
        store.withdraw(ids)
        store.settle(refused=[number - 1])
print("end", flush=True)
"""

POINTS = [
    "durable.before-slot",
    "durable.before-slot-fsync",
    "durable.before-commit",
    "durable.after-commit",
    "durable.after-sent",
    "durable.after-withdraw",
    "durable.after-settle",
]


def run_child(folder: Path, failpoints: str, *how: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: failpoints}
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), *how], env=environment, capture_output=True, text=True, check=False
    )


def test_every_failpoint_of_the_store_is_in_the_list() -> None:
    import edgeclient.durable  # noqa: PLC0415

    source = "".join(path.read_text() for path in Path(edgeclient.durable.__file__).parent.glob("*.py"))
    assert {part.split('"')[0] for part in source.split('failpoint.hit("')[1:]} == set(POINTS)


@pytest.mark.parametrize("how", ["copied", "mapped"])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_the_store_is_before_or_after(tmp_path: Path, point: str, nth: int, how: str) -> None:
    child = run_child(tmp_path, f"{point}=kill@{nth}", how)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert child.stdout.splitlines()[-1] == f"round {nth}"
    with opened(tmp_path) as store:
        assert store.notice is None
        assert store.account().epoch == int(child.stdout.splitlines()[0])
        rounds = store.account().rounds
        assert rounds == (nth if point in POINTS[3:] else nth - 1)
        assert store.account().round_token == (str(rounds) if rounds else "")
        trained = sum((np.arange(6) * 10.0**number for number in range(1, rounds + 1)), np.zeros(6))
        assert np.array_equal(mass(store), trained)
        wanted = {
            "durable.after-commit": State.QUEUED,
            "durable.after-sent": State.SENT,
            "durable.after-withdraw": State.WITHDRAWING,
        }.get(point, State.RETURNED)
        assert [each.state for each in store.frames()] == [wanted] * (rounds > 0)
        assert store.account().next_sequence == rounds - (wanted is State.QUEUED)
    again = run_child(tmp_path, "", how)
    assert again.returncode == 0, again.stderr
    with opened(tmp_path) as store:
        assert np.array_equal(mass(store), trained + np.arange(6) * 1110.0)


# What opening can find


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with opened(tmp_path):
        with pytest.raises(StoreError, match="in use by another edgeclient process"):
            opened(tmp_path)
        child = run_child(tmp_path, "")
        assert child.returncode == 1
        assert "StoreError" in child.stderr
    opened(tmp_path).close()


def round_of(store: Store, numbers: list[float], *, frames: int = 1) -> None:
    store.commit_round([[body_of(np.ones(SIZE))] * frames], np.array(numbers, np.float32), token="t", base_version=0)


@pytest.mark.parametrize("damage", ["flip", "shorten", "remove"])
def test_a_damaged_residual_is_noticed_and_dropped(tmp_path: Path, damage: str) -> None:
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6])
        epoch = store.account().epoch
        slot = store._live
    path = tmp_path / f"residual.{slot}"
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[5] ^= 4
        path.write_bytes(content[:-1] if damage == "shorten" else content)
    with opened(tmp_path) as store:
        assert store.notice is not None
        assert f"residual.{slot} is damaged" in store.notice
        account = store.account()
        assert account.epoch != epoch
        assert (account.renewals, account.rounds, account.next_sequence, account.trained_version) == (1, 0, 0, None)
        assert store.frames() == []
        assert not store.residual().any()
    with opened(tmp_path) as store:
        assert store.notice is None


def test_damage_of_the_idle_slot_does_not_matter(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6])
        slot = store._live
    (tmp_path / f"residual.{1 - slot}").write_bytes(b"\xff" * 4 * SIZE)
    with opened(tmp_path) as store:
        assert store.notice is None
        assert store.residual().tolist() == [1, 2, 3, 4, 5, 6]


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(tmp_path / "store.db") as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(StoreError, match=f"schema {len(MIGRATIONS) + 1}.*update edgeclient"):
        opened(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == before
    with pytest.raises(StoreError, match="schema"):  # the lock is free again: the same error, not "in use"
        opened(tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"store\.db cannot be used"):
        opened(tmp_path)


def test_a_new_layout_begins_a_new_account_and_archives_the_residual(tmp_path: Path) -> None:
    layouts = ["ab" * 32, "cd" * 32]
    for turn in range(4):
        numbers = np.full(3 + turn % 2, turn + 1, np.float32)
        with Store(tmp_path, layout=layouts[turn % 2], size=numbers.size) as store:
            assert (store.notice is None) == (turn == 0)
            assert store.account().renewals == turn
            assert store.residual().tolist() == [0.0] * numbers.size
            assert store.frames() == []
            store.commit_round([[b"frame"]], numbers, token="t", base_version=0)
    archived = sorted(np.fromfile(path, "<f4").tolist() for path in tmp_path.glob("*.archived"))
    assert archived == [[1.0] * 3, [2.0] * 4, [3.0] * 3]


def test_renewal_drops_residual_and_frames_under_a_new_epoch(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6], frames=3)
        store.mark_sent([store.outbox().rows[0].id])
        epoch = store.account().epoch
        store.renew()
        renewed = store.account()
        assert renewed.epoch != epoch
        assert (renewed.next_sequence, renewed.renewals, renewed.round_token) == (0, 1, "")
        assert store.frames() == []
        assert not store.residual().any()
        round_of(store, [6, 5, 4, 3, 2, 1])
    with opened(tmp_path) as store:
        assert store.account().epoch == renewed.epoch
        assert store.residual().tolist() == [6, 5, 4, 3, 2, 1]


def test_a_residual_of_another_size_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6])
        with pytest.raises(ValueError, match="shape"):
            round_of(store, [1, 2])
        assert store.account().rounds == 1
        assert store.residual().tolist() == [1, 2, 3, 4, 5, 6]


def test_the_next_residual_is_written_into_the_idle_slot(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for turn in range(1, 5):
            live, idle = store.slots()
            assert not live.flags.writeable
            np.add(live, turn, out=idle)
            before = store.residual()
            assert np.array_equal(before, live)
            store.commit_round([], idle, token="t", base_version=0)
            assert np.array_equal(store.residual(), before + turn)
        _, idle = store.slots()
        idle[:] = 99  # a round that came to nothing
        round_of(store, [1, 2, 3, 4, 5, 6])
    with opened(tmp_path) as store:
        assert store.notice is None
        assert store.residual().tolist() == [1, 2, 3, 4, 5, 6]
        _, idle = store.slots()
        idle[:] = 99
    with opened(tmp_path) as store:
        assert store.notice is None
        assert store.residual().tolist() == [1, 2, 3, 4, 5, 6]


def test_an_idle_slot_that_was_cut_short_is_made_whole(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        slot = store._live
        os.truncate(tmp_path / f"residual.{1 - slot}", 5)
        live, idle = store.slots()
        idle[:] = live + 3
        store.commit_round([], idle, token="t", base_version=0)
        assert store.residual().tolist() == [3.0] * SIZE


@pytest.mark.parametrize("when", ["before", "while"])
def test_an_idle_slot_that_is_gone_is_made_again(tmp_path: Path, when: str) -> None:
    """Gone before the store is opened, or after a round has begun to fill it."""
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6])
        live = store._live
        epoch, kept = store.account().epoch, store.residual()
    idle_path = tmp_path / f"residual.{1 - live}"
    if when == "before":
        idle_path.unlink()
    with opened(tmp_path) as store:
        assert (store.notice, store.account().epoch) == (None, epoch)
        residual, idle = store.slots()
        idle[:] = residual + 3
        wanted = idle.tolist()
        if when == "while":
            idle_path.unlink()
            idle = np.array(idle)  # not the mapping, which the missing file was
        store.commit_round([], idle, token="t", base_version=0)
        assert store.residual().tolist() == wanted == (kept + 3).tolist()
    with opened(tmp_path) as store:
        assert (store.notice, store.residual().tolist()) == (None, wanted)


def test_a_live_slot_that_is_cut_short_says_what_to_do_and_begins_a_new_epoch(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6])
        live = store._live
        epoch = store.account().epoch
        os.truncate(tmp_path / f"residual.{live}", 5)
        with pytest.raises(StoreError, match=rf"residual\.{live} is damaged .*: start again, and a new epoch begins"):
            store.slots()
    with opened(tmp_path) as store:
        assert "is damaged: it is dropped and a new epoch begins" in (store.notice or "")
        assert store.account().epoch != epoch
        store.slots()


def test_epochs_are_random_and_use_64_bits(tmp_path: Path) -> None:
    epochs = set()
    for i in range(20):
        with opened(tmp_path / str(i)) as store:
            epochs.add(store.account().epoch)
    assert len(epochs) == 20
    assert max(epochs) >= 2**63
    assert all(0 <= epoch < 2**64 for epoch in epochs)


@pytest.mark.parametrize("first", ["applied", "refused"])
def test_a_late_receipt_settles_nothing_a_second_time(tmp_path: Path, first: str) -> None:
    """A frame whose mass has returned must not be forgotten, and one that is gone does not come back."""
    with opened(tmp_path) as store:
        round_of(store, [0] * SIZE)
        store.mark_sent([store.outbox().rows[0].id])
        store.settle(applied=[0] * (first == "applied"), refused=[0] * (first == "refused"))
        before = store.frames(), store.account()
        store.settle(applied=[0], refused=[])
        store.settle(applied=[], refused=[0])
        assert (store.frames(), store.account()) == before
        assert [each.state for each in store.frames()] == [State.RETURNED] * (first == "refused")


def test_the_order_of_sending_is_by_layer_then_by_age(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for version, layers in enumerate(([2, 1], [1, 1])):
            frames = [[b"%d" % version] * count for count in layers]
            store.commit_round(frames, np.zeros(SIZE, np.float32), token="t", base_version=version, now_s=7.0 + version)
        assert [(row.layer, row.base_version, row.created_s) for row in store.outbox().rows] == [
            (0, 0, 7.0), (0, 0, 7.0), (0, 1, 8.0), (1, 0, 7.0), (1, 1, 8.0),
        ]  # fmt: skip
        assert [store.body(row.id) for row in store.outbox().rows] == [b"0", b"0", b"1", b"0", b"1"]


def test_a_store_of_an_older_schema_is_brought_forward_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6])
        before = store.account(), store.frames()
    steps = (*MIGRATIONS, lambda db: db.execute("ALTER TABLE frame ADD COLUMN later INTEGER NOT NULL DEFAULT 3"))
    monkeypatch.setattr("edgeclient.durable.database.MIGRATIONS", steps)
    for _ in range(2):
        with opened(tmp_path) as store:
            assert store.notice is None
            assert (store.account(), store.frames()) == before
            assert store._db.rows("PRAGMA user_version") == [(len(steps),)]
            assert store._db.rows("SELECT later FROM frame") == [(3,)]


class Full:
    """A file system of its own with little room."""

    def __init__(self, folder: Path, size: str) -> None:
        folder.mkdir()
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_changes_nothing_and_is_survived(tmp_path: Path) -> None:
    with Full(tmp_path / "small", "1m") as disk, opened(disk.folder / "store") as store:
        round_of(store, [1, 2, 3, 4, 5, 6])
        disk.fill()
        before = store.account(), store.frames(), store.residual().tolist()
        big = [[bytes(60_000)] * 4]
        with pytest.raises(DiskFull, match="make room"):
            store.commit_round(big, np.ones(SIZE, np.float32), token="u", base_version=1)
        assert (store.account(), store.frames(), store.residual().tolist()) == before
        (disk.folder / "filler").unlink()
        store.commit_round(big, np.ones(SIZE, np.float32), token="u", base_version=1)
        assert store.account().rounds == 2
        disk.fill()
        with pytest.raises(DiskFull, match="database or disk is full"):
            Store(disk.folder / "other", layout="ab" * 32, size=1 << 20)


def written() -> int:
    """Bytes that this process has handed to write(2) and its kin; pages of a mapping are not among them."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])


@pytest.mark.parametrize(("size", "frame_bytes", "frames"), [(187_655, 2_200, 1), (1_000_000, 60_000, 4)])
def test_a_round_wears_the_card_no_more_than_predicted(
    tmp_path: Path, size: int, frame_bytes: int, frames: int
) -> None:
    """At most 1.1 times the residual and four times the frames, counted over 30 rounds with their receipts."""
    rounds = 30
    with Store(tmp_path / "store", layout="ab", size=size) as store:
        began = written()
        for number in range(rounds):
            live, idle = store.slots()
            np.copyto(idle, live)
            idle[number::7] += 1
            bodies = [[os.urandom(frame_bytes) for _ in range(frames)]]
            store.commit_round(bodies, idle, token=str(number), base_version=number)
            store.mark_sent([row.id for row in store.outbox().rows])
            store.settle(applied=[row.sequence for row in store.outbox().rows if row.sequence is not None])
        a_round = (written() - began) / rounds + 4 * size
        assert a_round <= 1.1 * 4 * size + 4 * frames * frame_bytes
        assert a_round <= round_bytes(size, frames * frame_bytes)
        assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 8 * size + 8_000_000  # the log is cut back


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_renewal_on_a_full_disk_drops_nothing(tmp_path: Path) -> None:
    """The residual goes with the transaction that counts it, or it stays."""
    with Full(tmp_path / "small", "1m") as disk, opened(disk.folder / "store") as store:
        # Frames enough that deleting them needs room in the log.
        round_of(store, [1, 2, 3, 4, 5, 6], frames=200)
        store._db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        disk.fill()
        before = store.account(), store.frames(), store.residual().tolist()
        with pytest.raises(DiskFull, match="make room"):
            store.renew()
        assert (store.account(), store.frames(), store.residual().tolist()) == before
        (disk.folder / "filler").unlink()
        store.renew()
        assert (store.account().renewals, store.frames()) == (1, [])
        assert not store.residual().any()


@pytest.mark.parametrize("page", [0, 1])
def test_damage_to_the_account_is_one_line(tmp_path: Path, page: int) -> None:
    with opened(tmp_path) as store:
        round_of(store, [1, 2, 3, 4, 5, 6], frames=50)
        store._db.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "store.db").open("r+b") as file:
        file.seek(4096 * page)
        file.write(b"\xa5" * 4096)
    with pytest.raises(StoreError, match=r"store\.db cannot be used"):
        opened(tmp_path)


@pytest.mark.case("fleet 42")
def test_a_store_that_another_program_holds_is_not_a_crash(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store._db.rows("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DiskFull, match="end the program that holds"):
            round_of(store, [1, 2, 3, 4, 5, 6])
        other.execute("ROLLBACK")
        other.close()
        round_of(store, [1, 2, 3, 4, 5, 6])
        assert store.account().rounds == 1
