"""The device's store: one SQLite file is the only commit point (ARCHITECTURE: durability).

A frame lives through QUEUED → SENT → gone, or SENT → RETURNED → into the next round's residual. A round
is one transaction: frames in, returned rows out, new residual slot named. Both or neither: a frame
without its residual would count twice, a residual without its frame would lose.
"""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from edgeclient import failpoint
from edgeclient.durable.lock import Lock, StoreError
from edgeclient.durable.rows import Account, State, Stored
from edgeclient.durable.slots import Slots, checksum

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = (
    """
CREATE TABLE account (
    only            INTEGER PRIMARY KEY CHECK (only = 0),
    epoch           INTEGER NOT NULL,   -- random 64 bits, as a signed SQLite integer
    next_sequence   INTEGER NOT NULL,
    next_update     INTEGER NOT NULL,
    layout          TEXT NOT NULL,      -- digest of the parameter layout that the residual belongs to
    size            INTEGER NOT NULL,
    slot            INTEGER NOT NULL,   -- live residual slot
    checksum        INTEGER NOT NULL,   -- CRC-32 of the live slot
    trained_version INTEGER,            -- base version of the last committed round
    round_token     TEXT NOT NULL,      -- of the last committed round
    rounds          INTEGER NOT NULL,
    applied         INTEGER NOT NULL,   -- frames that the aggregator has applied
    refused         INTEGER NOT NULL,
    renewals        INTEGER NOT NULL    -- residuals dropped, each with a new epoch
) STRICT
""",
    """
CREATE TABLE frame (
    id       INTEGER PRIMARY KEY,
    state    TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'returned')),
    sequence INTEGER UNIQUE,            -- assigned when first sent
    body     BLOB NOT NULL
) STRICT
""",
)


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
        ...     store.commit_round([b"frame"], np.ones(3, np.float32), token="r0", base_version=0, consumed=[])
        ...     sent = store.mark_sent(store.frames(State.QUEUED)[0].id, lambda body, epoch, sequence: body)
        ...     store.settle(applied=[sent.sequence], refused=[])
        ...     store.frames(), store.residual()
        ([], array([1., 1., 1.], dtype=float32))
    """

    def __init__(self, directory: Path, *, layout: str, size: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._lock = Lock(directory / "lock")
        try:
            self._db = self._open(directory / "store.db", layout, size)
            account = self.account()
            self._slots = Slots(directory, account.size)
            self.notice = self._why_begin_anew(account, layout, size)
            if self.notice:
                self._begin(layout, size)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the store; nothing is pending, since every method commits."""
        self._db.close()
        self._lock.close()

    def account(self) -> Account:
        """The counters as last committed."""
        row = self._db.execute(
            "SELECT epoch, next_sequence, next_update, layout, size, trained_version, round_token, rounds, applied,"
            " refused, renewals FROM account"
        ).fetchone()
        return Account(row[0] & (2**64 - 1), *row[1:])

    def confirmed(self) -> int:
        """Every sequence below this one is settled here."""
        (first,) = self._db.execute("SELECT min(sequence) FROM frame WHERE state = 'sent'").fetchone()
        return self.account().next_sequence if first is None else int(first)

    def residual(self) -> npt.NDArray[np.float32]:
        """The live residual, float32 (n,)."""
        (slot,) = self._db.execute("SELECT slot FROM account").fetchone()
        return self._slots.read(slot)

    def slots(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The live residual, read-only, and room for the next one, which `commit_round` takes; no copies, (n,) each.

        Both are mapped from their files, so a residual larger than the memory will do. The room holds anything.

        Example:
            >>> import tempfile
            >>> with Store(Path(tempfile.mkdtemp()), layout="ab", size=3) as store:
            ...     live, idle = store.slots()
            ...     np.add(live, 1, out=idle)
            ...     store.commit_round([], idle, token="r0", base_version=0, consumed=[])
            ...     store.residual()
            memmap([1., 1., 1.], dtype=float32)
            array([1., 1., 1.], dtype=float32)
        """
        (live,) = self._db.execute("SELECT slot FROM account").fetchone()
        return self._slots.view(live), self._slots.open(1 - live)

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

    def oldest_queued(self) -> int | None:
        """Id of the frame to send next, or None."""
        (id_,) = self._db.execute("SELECT min(id) FROM frame WHERE state = 'queued'").fetchone()
        return None if id_ is None else int(id_)

    def commit_round(
        self,
        bodies: Iterable[bytes],
        residual: npt.NDArray[np.float32],
        *,
        token: str,
        base_version: int,
        consumed: Sequence[int],
    ) -> None:
        """One commit: frames queued, new residual live, returned frames `consumed` (ids) gone.

        The residual is the room that `slots` gave, filled, or any other array (n,).
        """
        (live,) = self._db.execute("SELECT slot FROM account").fetchone()
        idle = 1 - live
        if failpoint.sabotaged("residual"):
            residual = self._slots.read(live)
        self._slots.write(idle, residual)
        failpoint.hit("durable.before-commit")
        with self._transaction() as db:
            db.executemany("INSERT INTO frame (state, body) VALUES ('queued', ?)", [(body,) for body in bodies])
            db.executemany("DELETE FROM frame WHERE id = ? AND state = 'returned'", [(id_,) for id_ in consumed])
            db.execute(
                "UPDATE account SET slot = ?, checksum = ?, trained_version = ?, round_token = ?, rounds = rounds + 1,"
                " next_update = next_update + 1",
                (idle, checksum(residual), base_version, token),
            )
        failpoint.hit("durable.after-commit")

    def mark_sent(self, id_: int, stamp: Callable[[bytes, int, int], bytes]) -> Stored:
        """Give a queued frame its sequence; `stamp(body, epoch, sequence)` writes it into the bytes."""
        with self._transaction() as db:
            epoch, sequence = db.execute("SELECT epoch, next_sequence FROM account").fetchone()
            (body,) = db.execute("SELECT body FROM frame WHERE id = ? AND state = 'queued'", (id_,)).fetchone()
            stamped = stamp(body, epoch & (2**64 - 1), sequence)
            db.execute("UPDATE frame SET state = 'sent', sequence = ?, body = ? WHERE id = ?", (sequence, stamped, id_))
            db.execute("UPDATE account SET next_sequence = next_sequence + 1")
        failpoint.hit("durable.after-sent")
        return Stored(id_, State.SENT, sequence, stamped)

    def settle(self, *, applied: Sequence[int], refused: Sequence[int]) -> None:
        """Receipts: applied sequences are forgotten, refused ones await the next round."""
        with self._transaction() as db:
            for sequence in applied:
                gone = db.execute("DELETE FROM frame WHERE sequence = ? AND state = 'sent'", (sequence,)).rowcount
                db.execute("UPDATE account SET applied = applied + ?", (gone,))
            for sequence in refused:
                back = db.execute(
                    "UPDATE frame SET state = 'returned' WHERE sequence = ? AND state = 'sent'", (sequence,)
                ).rowcount
                db.execute("UPDATE account SET refused = refused + ?", (back,))
        failpoint.hit("durable.after-settle")

    def renew(self) -> None:
        """Mint a new epoch and drop residual and frames: the aggregator has seen more than this store knows.

        At most one residual is lost, and nothing is counted twice.
        """
        account = self.account()
        self._begin(account.layout, account.size)

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
        with self._transaction() as db:
            db.execute("DELETE FROM frame")
            db.execute(
                "UPDATE account SET epoch = ?, next_sequence = 0, next_update = 0, layout = ?, size = ?, slot = 0,"
                " checksum = ?, trained_version = NULL, round_token = '', rounds = 0, renewals = renewals + 1",
                (_new_epoch(), layout, size, checksum(np.zeros(size, np.float32))),
            )

    def _open(self, path: Path, layout: str, size: int) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            db.close()
            raise StoreError(f"{path} cannot be used ({error}): move the folder away to begin a new store") from None
        if version > SCHEMA_VERSION:
            db.close()
            raise StoreError(f"{path} has schema {version}, this program knows {SCHEMA_VERSION}: update edgeclient")
        self._db = db
        if version == 0:
            try:
                self._create(layout, size)
            except BaseException:
                db.close()
                raise
        return db

    def _create(self, layout: str, size: int) -> None:
        self._slots = Slots(self.directory, size)
        self._create_slots()
        with self._transaction() as db:
            for table in _SCHEMA:
                db.execute(table)
            db.execute(
                "INSERT INTO account VALUES (0, ?, 0, 0, ?, ?, 0, ?, NULL, '', 0, 0, 0, 0)",
                (_new_epoch(), layout, size, checksum(np.zeros(size, np.float32))),
            )
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _create_slots(self) -> None:
        try:
            self._slots.create()
        except OSError as error:
            need = 8 * self._slots.size >> 20
            raise StoreError(f"no room for two residual slots ({need} MiB) in {self.directory}: {error}") from None

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
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _new_epoch() -> int:
    return int.from_bytes(secrets.token_bytes(8), "little", signed=True)
