"""The device's store: one SQLite file is the only commit point (PROTOCOL.md).

A frame's life is the table `rows.LIFE`. A round is one transaction: frames in, merged ones out, new residual slot
named. Both or neither: a frame without its residual would count twice, a residual without its frame would lose.
"""

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from edgeclient import failpoint, files
from edgeclient.durable.lock import DiskFull, Lock, StoreError
from edgeclient.durable.rows import LIFE, Account, Event, Outgoing, Row, State, Stored
from edgeclient.durable.schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION
from edgeclient.durable.slots import Slots, checksum

_ERRORS: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}


class Store:
    """Outbox, residual and epoch of one device and task; one process at a time.

    Args:
        directory: made if missing.
        layout: digest of the parameter layout.
        size: n.

    Attributes:
        notice: what had to be given up when the store was opened, or None.

    Raises:
        StoreError: another process holds it, it is from a newer version, or the disk is full.

    Example:
        >>> import tempfile
        >>> with Store(Path(tempfile.mkdtemp()), layout="ab", size=3) as store:
        ...     store.commit_round([Outgoing(b"frame")], np.ones(3, np.float32), token="r0", base_version=0)
        ...     store.mark_sent([row.id for row in store.outbox()])
        ...     store.settle(applied=[0])
        ...     store.frames(), store.residual()
        ([], array([1., 1., 1.], dtype=float32))
    """

    def __init__(self, directory: Path, *, layout: str, size: int) -> None:
        files.make_directory(directory)
        self.directory = directory
        self._lock = Lock(directory / "lock")
        self._db = sqlite3.connect(directory / "store.db", isolation_level=None)
        try:
            self._open(directory / "store.db", layout, size)
            account = self.account()
            self._slots = Slots(directory, account.size)
            self.notice = self._why_begin_anew(account, layout, size)
            if self.notice:
                self._begin(layout, size)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise _unusable(directory / "store.db", error) from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.DatabaseError):  # a damaged page
            path = self.directory / "store.db"
            raise StoreError(f"{path} cannot be read ({error}): edgeclient store check says more") from None

    def close(self) -> None:
        """Release the store; nothing is pending, since every method commits."""
        self._db.close()
        self._lock.close()

    def account(self) -> Account:
        """The counters as last committed."""
        row = self._db.execute(
            "SELECT epoch, next_sequence, next_update, layout, size, trained_version, round_token, rounds, applied,"
            " refused, withdrawn, renewals FROM account"
        ).fetchone()
        return Account(row[0] & (2**64 - 1), *row[1:])

    def confirmed(self) -> int:
        """Every sequence below this one is settled here."""
        (first,) = self._db.execute("SELECT min(sequence) FROM frame WHERE state IN ('sent', 'withdrawing')").fetchone()
        return self.account().next_sequence if first is None else int(first)

    def residual(self) -> npt.NDArray[np.float32]:
        """The live residual, float32 (n,)."""
        (slot,) = self._db.execute("SELECT slot FROM account").fetchone()
        return self._slots.read(slot)

    def slots(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
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
        (live,) = self._db.execute("SELECT slot FROM account").fetchone()
        try:
            kept = self._slots.view(live)
        except (OSError, ValueError) as error:  # it was whole when the store was opened
            path = self.directory / f"residual.{live}"
            raise StoreError(f"{path} is damaged ({error}): start again, and a new epoch begins") from None
        try:
            return kept, self._slots.open(1 - live)
        except OSError as error:
            raise DiskFull(f"{self.directory}: no room for a residual slot: {error}") from None

    def frames(self, *states: State) -> list[Stored]:
        """Frames in the given states (all if none is given), oldest first."""
        wanted = states or tuple(State)
        marks = ",".join("?" * len(wanted))
        rows = self._db.execute(
            f"SELECT id, state, sequence, body FROM frame WHERE state IN ({marks}) ORDER BY id",  # noqa: S608 (marks are ?)
            wanted,
        )
        return [Stored(id_, State(state), sequence, body) for id_, state, sequence, body in rows]

    def counts(self) -> dict[State, int]:
        """How many frames are in each state."""
        rows = self._db.execute("SELECT state, count(*) FROM frame GROUP BY state").fetchall()
        return dict.fromkeys(State, 0) | {State(state): count for state, count in rows}

    def outbox(self) -> list[Row]:
        """Every frame without its bytes, in the order of sending: by layer, then oldest first."""
        rows = self._db.execute(
            "SELECT id, state, sequence, layer, base_version, created, length(body) FROM frame ORDER BY layer, id"
        )
        return [Row(row[0], State(row[1]), *row[2:]) for row in rows]

    def body(self, id_: int) -> bytes:
        """The bytes of a frame, without identity."""
        (body,) = self._db.execute("SELECT body FROM frame WHERE id = ?", (id_,)).fetchone()
        return bytes(body)

    def commit_round(
        self,
        frames: Iterable[Outgoing],
        residual: npt.NDArray[np.float32],
        *,
        token: str,
        base_version: int,
        merged: Sequence[int] = (),
        now_s: float = 0.0,
    ) -> None:
        """One commit: frames queued, new residual live, merged frames gone.

        Args:
            frames: of the round's update.
            residual: the room that `slots` gave, filled, or any other array (n,).
            token: names the round.
            base_version: model version that it was trained from.
            merged: ids of queued and returned frames whose entries the residual or the frames hold now.
            now_s: Unix seconds.

        Raises:
            DiskFull: nothing was changed.
        """
        (live,) = self._db.execute("SELECT slot FROM account").fetchone()
        idle = 1 - live
        if failpoint.sabotaged("residual"):
            residual = self._slots.read(live)
        self._slots.write(idle, residual)
        failpoint.hit("durable.before-commit")
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO frame (state, layer, base_version, created, body) VALUES ('queued', ?, ?, ?, ?)",
                [(each.layer, base_version, now_s, each.body) for each in frames],
            )
            self._move(Event.MERGE, "id", merged)
            db.execute(
                "UPDATE account SET slot = ?, checksum = ?, trained_version = ?, round_token = ?, rounds = rounds + 1,"
                " next_update = next_update + 1",
                (idle, checksum(residual), base_version, token),
            )
        failpoint.hit("durable.after-commit")

    def mark_sent(self, ids: Sequence[int]) -> None:
        """Give queued frames their sequences, in this order; only then may they leave the device."""
        with self._transaction() as db:
            (sequence,) = db.execute("SELECT next_sequence FROM account").fetchone()
            for id_ in ids:
                if self._move(Event.SEND, "id", [id_]):
                    db.execute("UPDATE frame SET sequence = ? WHERE id = ?", (sequence, id_))
                    sequence += 1
            db.execute("UPDATE account SET next_sequence = ?", (sequence,))
        failpoint.hit("durable.after-sent")

    def withdraw(self, ids: Sequence[int]) -> None:
        """Take frames back: those that never left at once, of the others the aggregator must be asked."""
        with self._transaction() as db:
            home = self._move(Event.WITHDRAW, "id", ids, State.QUEUED)
            self._move(Event.WITHDRAW, "id", ids, State.SENT)
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
                    self._move(Event.APPLIED, "sequence", applied),
                    self._move(Event.REFUSED, "sequence", refused),
                    self._move(Event.REFUSED, "sequence", withdrawn),
                ),
            )
        failpoint.hit("durable.after-settle")

    def _move(self, event: Event, key: str, values: Sequence[int], *only: State) -> int:
        """Take one step of LIFE with the frames that can; how many they were."""
        moved = 0
        for (state, happens), then in LIFE.items():
            if happens is not event or (only and state not in only):
                continue
            where = f"WHERE {key} = ? AND state = ?"
            for value in values:
                if then is None:
                    done = self._db.execute(f"DELETE FROM frame {where}", (value, state))  # noqa: S608 (two fixed names)
                else:
                    done = self._db.execute(f"UPDATE frame SET state = ? {where}", (then, value, state))  # noqa: S608 (as above)
                moved += done.rowcount
        return moved

    def renew(self) -> None:
        """Mint a new epoch and drop residual and frames: the aggregator has seen more than this store knows.

        At most one residual is lost, and nothing is counted twice.
        """
        account = self.account()
        (live,) = self._db.execute("SELECT slot FROM account").fetchone()
        # Not both slots: while the transaction has not come, the old account has its residual.
        self._slots.write(1 - live, np.zeros(account.size, np.float32))
        self._name(account.layout, account.size, 1 - live)

    def _begin(self, layout: str, size: int) -> None:
        """A new account: zero residual, no frames, new epoch. The old residual is kept under its layout."""
        old = self.account()
        (live,) = self._db.execute("SELECT slot FROM account").fetchone()
        if (old.layout, old.size) != (layout, size):
            archive = self.directory / f"residual.{old.layout[:16]}.{old.epoch:016x}.archived"
            if not archive.exists():  # a crash further down repeats this step
                (self.directory / f"residual.{live}").replace(archive)
        self._slots = Slots(self.directory, size)
        self._create_slots()
        self._name(layout, size, 0)

    def _name(self, layout: str, size: int, slot: int) -> None:
        """The new account, whose residual is a slot of zeros."""
        with self._transaction() as db:
            db.execute("DELETE FROM frame")
            db.execute(
                "UPDATE account SET epoch = ?, next_sequence = 0, next_update = 0, layout = ?, size = ?, slot = ?,"
                " checksum = ?, trained_version = NULL, round_token = '', rounds = 0, renewals = renewals + 1",
                (_new_epoch(), layout, size, slot, checksum(np.zeros(size, np.float32))),
            )

    def _open(self, path: Path, layout: str, size: int) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode in _ERRORS:
                raise DiskFull(f"{path}: {error}: make room there") from None
            raise
        if version > SCHEMA_VERSION:
            raise StoreError(f"{path} has schema {version}, this program knows {SCHEMA_VERSION}: update edgeclient")
        if version == 0:
            self._create(layout, size)
        for number in range(version, SCHEMA_VERSION) if version else ():
            with self._transaction():
                MIGRATIONS[number - 1](self._db)
                self._db.execute(f"PRAGMA user_version = {number + 1}")

    def _create(self, layout: str, size: int) -> None:
        self._slots = Slots(self.directory, size)
        self._create_slots()
        with self._transaction() as db:
            for table in SCHEMA:
                db.execute(table)
            db.execute(
                "INSERT INTO account VALUES (0, ?, 0, 0, ?, ?, 0, ?, NULL, '', 0, 0, 0, 0, 0)",
                (_new_epoch(), layout, size, checksum(np.zeros(size, np.float32))),
            )
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _create_slots(self) -> None:
        try:
            self._slots.create()
        except OSError as error:
            need = 8 * self._slots.size >> 20
            raise DiskFull(f"no room for two residual slots ({need} MiB) in {self.directory}: {error}") from None

    def _why_begin_anew(self, account: Account, layout: str, size: int) -> str | None:
        """Why this store's account cannot be continued, for the log; None when it can."""
        if (account.layout, account.size) != (layout, size):
            return "the parameter layout changed: a new account begins, the old residual is archived"
        slot, stored = self._db.execute("SELECT slot, checksum FROM account").fetchone()
        try:
            whole = self._slots.checksum(slot) == stored
        except OSError:
            whole = False
        return None if whole else f"residual.{slot} is damaged: it is dropped and a new epoch begins"

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode in _ERRORS:
                raise DiskFull(f"{self.directory}: {error}: make room there") from None
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise DiskFull(f"{self.directory}: {error}: end the program that holds store.db") from None
            raise


def _unusable(path: Path, error: sqlite3.Error) -> StoreError:
    return StoreError(f"{path} cannot be used ({error}): move the folder away to begin a new store")


def _new_epoch() -> int:
    return int.from_bytes(secrets.token_bytes(8), "little", signed=True)
