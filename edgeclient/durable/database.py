"""The store's file: opened, brought forward, and written in transactions; SQLite's errors become two of our own."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edgeclient.durable.lock import DiskFull, StoreError
from edgeclient.durable.schema import MIGRATIONS
from edgeclient.wire.life import LIFE, Event, State

_FULL: Final = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_PRIMARY: Final = 0xFF  # of an extended result code


class Database:
    """One connection.

    Args:
        path: the database file; made if missing.

    Raises:
        StoreError: not a store, a damaged one, or one of a newer version. Every method raises it for damage.
        DiskFull: there is no room, or another program holds the file; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; nothing is pending."""
        self._db.close()

    def unusable(self, error: Exception) -> StoreError:
        """What to say of damage."""
        remedy = "edgeclient store check says more; move the folder away to begin a new store"
        return StoreError(f"{self._path} cannot be used ({error}): {remedy}")

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What a query finds, as tuples."""
        with self._errors():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it is durable when the block has ended, or nothing of it if that raises."""
        with self._errors():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite has rolled some failures back itself
                    self._db.execute("ROLLBACK")
                raise

    def _prepare(self) -> None:
        self.rows("PRAGMA journal_mode = WAL")
        self.rows("PRAGMA synchronous = FULL")
        ((version,),) = self.rows("PRAGMA user_version")
        if version > len(MIGRATIONS):
            newer = f"has schema {version}, this program knows {len(MIGRATIONS)}"
            raise StoreError(f"{self._path} {newer}: update edgeclient")
        for number, step in enumerate(MIGRATIONS[version:], version + 1):
            with self.transaction() as db:
                step(db)
                db.execute(f"PRAGMA user_version = {number}")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0)  # of errors that Python makes there is none
            if code in _FULL:
                raise DiskFull(f"{self._path}: {error}: make room there") from None
            if code & _PRIMARY == sqlite3.SQLITE_BUSY:
                raise DiskFull(f"{self._path}: {error}: end the program that holds store.db") from None
            if code & _PRIMARY == sqlite3.SQLITE_READONLY:
                raise DiskFull(f"{self._path}: {error}: see that this account may write there") from None
            raise self.unusable(error) from None


def move(db: sqlite3.Connection, event: Event, key: str, values: Sequence[int], *only: State) -> int:
    """Take one step of LIFE with the frames that can; how many they were."""
    moved = 0
    for (state, happens), then in LIFE.items():
        if happens is not event or (only and state not in only):
            continue
        where = f"WHERE {key} = ? AND state = ?"
        for value in values:
            if then is None:
                done = db.execute(f"DELETE FROM frame {where}", (value, state))  # noqa: S608 (two fixed names)
            else:
                done = db.execute(f"UPDATE frame SET state = ? {where}", (then, value, state))  # noqa: S608 (as above)
            moved += done.rowcount
    return moved
