"""The device's store: one SQLite file is the only commit point (PROTOCOL.md).

A frame's life is the table `wire.life.LIFE`; a round is the one transaction of `commit`.
"""

import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from edgeclient import failpoint, files
from edgeclient.compress.arrays import F32
from edgeclient.durable.commit import Round, commit
from edgeclient.durable.database import Database, move
from edgeclient.durable.lock import Lock
from edgeclient.durable.slots import Slots, checksum
from edgeclient.wire.errors import WireError
from edgeclient.wire.life import Account, Event, Outbox, Owner, Row, State

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """A frame with its bytes; `sequence` is None until it is first sent, and is not in the bytes."""

    id: int
    state: State
    sequence: int | None
    body: bytes


class Store:
    """Outbox, residual and epoch of one device and task; one process at a time.

    Args:
        directory: made if missing.
        layout: digest of the parameter layout.
        size: n.
        owner: whose account it is, and with which ledger; None for whosever it is.

    Attributes:
        notice: what had to be given up when the store was opened, or None.

    Raises:
        StoreError: another process holds it, it is from a newer version, or the disk is full.

    Example:
        >>> import tempfile
        >>> with Store(Path(tempfile.mkdtemp()), layout="ab", size=3) as store:
        ...     store.commit_round([[b"frame"]], np.ones(3, np.float32), token="r0", base_version=0)
        ...     store.mark_sent([row.id for row in store.outbox().rows])
        ...     store.settle(applied=[0])
        ...     store.frames(), store.residual()
        ([], array([1., 1., 1.], dtype=float32))
    """

    def __init__(self, directory: Path, *, layout: str, size: int, owner: Owner | None = None) -> None:
        files.make_directory(directory)
        self.directory = directory
        self._lock = Lock(directory / "lock")
        self._held: Outbox | None = None  # None until it is read again
        try:
            self._db = Database(directory / "store.db")
        except BaseException:
            self._lock.close()
            raise
        try:
            self.notice = self._take_over(layout, size, owner)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the store; nothing is pending, since every method commits."""
        self._db.close()
        self._lock.close()

    def outbox(self) -> Outbox:
        """What is held and counted, without bytes; read again only after a commit."""
        if self._held is None:
            ((epoch, *counted),) = self._db.rows(
                "SELECT epoch, next_sequence, next_update, layout, size, trained_version, round_token, rounds, applied,"
                " refused, withdrawn, renewals, task, device, ledger FROM account"
            )
            rows = self._db.rows(
                "SELECT id, state, sequence, layer, base_version, created, length(body) FROM frame ORDER BY layer, id"
            )
            account = Account(epoch & (2**64 - 1), *counted)
            self._held = Outbox(account, tuple(Row(id_, State(state), *rest) for id_, state, *rest in rows))
        return self._held

    def account(self) -> Account:
        """The counters as last committed."""
        return self.outbox().account

    def residual(self) -> F32:
        """The live residual, float32 (n,)."""
        return self._slots.read(self._live)

    def slots(self) -> tuple[F32, F32]:
        """The live residual, read-only, and room for the next one, which `commit_round` takes; no copies, (n,) each.

        Both are mapped from their files, so a residual larger than the memory will do. The room holds anything.

        Raises:
            DiskFull: a slot was cut short or copied with holes, and there is no room to fill it.
            StoreError: the live slot was damaged while the store was open.

        Example:
            >>> import tempfile
            >>> with Store(Path(tempfile.mkdtemp()), layout="ab", size=3) as store:
            ...     live, idle = store.slots()
            ...     np.add(live, 1, out=idle)
            ...     store.commit_round([], idle, token="r0", base_version=0)
            ...     store.residual()
            memmap([1., 1., 1.], dtype=float32)
            array([1., 1., 1.], dtype=float32)
        """
        live = self._live
        return self._slots.view(live), self._slots.open(1 - live)

    def frames(self, *states: State) -> list[Stored]:
        """Frames in the given states (all if none is given), oldest first."""
        wanted = states or tuple(State)
        marks = ",".join("?" * len(wanted))
        rows = self._db.rows(
            f"SELECT id, state, sequence, body FROM frame WHERE state IN ({marks}) ORDER BY id",  # noqa: S608 (marks are ?)
            *wanted,
        )
        return [Stored(id_, State(state), sequence, body) for id_, state, sequence, body in rows]

    def read(self, ids: Sequence[int], decode: Callable[[bytes], T]) -> list[T]:
        """Frames as their reader sees them.

        Raises:
            StoreError: `decode` raises WireError, of what was whole when it was committed.
        """
        try:
            return [decode(self.body(id_)) for id_ in ids]
        except WireError as error:
            raise self._db.unusable(error) from None

    def body(self, id_: int) -> bytes:
        """The bytes of a frame, without identity."""
        ((body,),) = self._db.rows("SELECT body FROM frame WHERE id = ?", id_)
        return bytes(body)

    def commit_round(
        self,
        layers: Sequence[Sequence[bytes]],
        residual: F32,
        *,
        token: str,
        base_version: int,
        merged: Sequence[int] = (),
        now_s: float | None = None,
    ) -> None:
        """One commit: frames queued, new residual live, merged frames gone.

        Args:
            layers: frames of the round's update, the layer that matters most first.
            residual: the room that `slots` gave, filled, or any other array (n,).
            token: names the round.
            base_version: model version that it was trained from.
            merged: ids of queued and returned frames whose entries the residual or the frames hold now.
            now_s: Unix seconds; None for this moment.

        Raises:
            DiskFull: nothing was changed.
        """
        if failpoint.sabotaged("residual"):
            residual = self.residual()
        made_s, idle = time.time() if now_s is None else now_s, 1 - self._live
        self._slots.write(idle, residual)
        failpoint.hit("durable.before-commit")
        with self._transaction() as db:
            commit(db, layers, Round(idle, checksum(residual), base_version, token), merged=merged, made_s=made_s)
        failpoint.hit("durable.after-commit")

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Give queued frames their sequences, in this order; only then may they leave the device."""
        with self._transaction() as db:
            (sequence,) = db.execute("SELECT next_sequence FROM account").fetchone()
            for id_ in ids:
                if move(db, Event.SEND, "id", [id_]):
                    db.execute("UPDATE frame SET sequence = ? WHERE id = ?", (sequence, id_))
                    sequence += 1
            db.execute("UPDATE account SET next_sequence = ?", (sequence,))
        failpoint.hit("durable.after-sent")

    def withdraw(self, ids: Sequence[int]) -> None:
        """Take frames back: those that never left at once, of the others the aggregator must be asked."""
        with self._transaction() as db:
            home = move(db, Event.WITHDRAW, "id", ids, State.QUEUED)
            move(db, Event.WITHDRAW, "id", ids, State.SENT)
            db.execute("UPDATE account SET withdrawn = withdrawn + ?", (home,))
        failpoint.hit("durable.after-withdraw")

    def settle(
        self, *, applied: Sequence[int] = (), refused: Sequence[int] = (), withdrawn: Sequence[int] = ()
    ) -> None:
        """Receipts, by sequence: applied frames are forgotten, the others await the next round."""
        with self._transaction() as db:
            db.execute(
                "UPDATE account SET applied = applied + ?, refused = refused + ?, withdrawn = withdrawn + ?",
                (
                    move(db, Event.APPLIED, "sequence", applied),
                    move(db, Event.REFUSED, "sequence", refused),
                    move(db, Event.REFUSED, "sequence", withdrawn),
                ),
            )
        failpoint.hit("durable.after-settle")

    def renew(self) -> None:
        """Mint a new epoch and drop residual and frames: the aggregator has seen more than this store knows.

        At most one residual is lost, and nothing is counted twice.
        """
        account, idle = self.account(), 1 - self._live
        # Not both slots: while the transaction has not come, the old account has its residual.
        self._slots.write(idle, np.zeros(account.size, np.float32))
        self._begin(account.layout, account.size, idle, account.owner)

    @property
    def _live(self) -> int:
        """The slot that holds the residual."""
        ((slot,),) = self._db.rows("SELECT slot FROM account")
        return int(slot)

    def _take_over(self, layout: str, size: int, owner: Owner | None) -> str | None:
        """Go on with the account that is there, or begin one; what had to be given up for it."""
        notice = None
        if self._db.rows("SELECT 1 FROM account"):
            old = self.account()
            self._slots = Slots(self.directory, old.size)
            owner = owner or old.owner
            notice = self._why_begin_anew(old, layout, size, owner)
            if not notice:
                return None
            if (old.layout, old.size) != (layout, size):
                archive = self.directory / f"residual.{old.layout[:16]}.{old.epoch:016x}.archived"
                if not archive.exists():  # a crash further down repeats this step
                    (self.directory / f"residual.{self._live}").replace(archive)
        self._slots = Slots(self.directory, size)
        self._slots.create()
        self._begin(layout, size, 0, owner or Owner())
        if notice:
            _LOG.warning("%s", notice)
        return notice

    def _why_begin_anew(self, account: Account, layout: str, size: int, owner: Owner) -> str | None:
        """Why this store's account cannot be continued, for the log; None when it can."""
        if (account.layout, account.size) != (layout, size):
            return "the parameter layout changed: a new account begins, the old residual is archived"
        if account.owner[:2] != owner[:2]:
            return f"the store is of {account.device} in task {account.task}: a new account begins"
        if account.ledger != owner.ledger:
            gone = "what the other may have counted is not sent again: a new account begins"
            return f"ledger {owner.ledger} has taken task {owner.task} over from {account.ledger}; {gone}"
        ((slot, stored),) = self._db.rows("SELECT slot, checksum FROM account")
        whole = self._slots.whole(slot, stored)
        return None if whole else f"residual.{slot} is damaged: it is dropped and a new epoch begins"

    def _begin(self, layout: str, size: int, slot: int, owner: Owner) -> None:
        """A new epoch without frames, whose residual is a slot of zeros; counters of a life go on."""
        epoch = int.from_bytes(secrets.token_bytes(8), "little", signed=True)
        with self._transaction() as db:
            db.execute("DELETE FROM frame")
            db.execute(
                "INSERT INTO account VALUES (0, ?, 0, 0, ?, ?, ?, ?, NULL, '', 0, 0, 0, 0, 0, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET"
                " epoch = excluded.epoch, next_sequence = 0, next_update = 0, layout = excluded.layout,"
                " size = excluded.size, slot = excluded.slot, checksum = excluded.checksum, trained_version = NULL,"
                " round_token = '', rounds = 0, renewals = renewals + 1,"
                " task = excluded.task, device = excluded.device, ledger = excluded.ledger",
                (epoch, layout, size, slot, checksum(np.zeros(size, np.float32)), *owner),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._held = None
        with self._db.transaction() as db:
            yield db
