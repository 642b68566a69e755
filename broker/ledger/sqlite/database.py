"""The ledger's file: opened, migrated, and written in transactions that end before or after a kill, never between."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from broker.ledger.protocol import LedgerError, LedgerUnavailable
from broker.ledger.sqlite import schema
from edgeclient import failpoint, files

_PRIMARY: Final = 0xFF  # of an extended result code
# A full disk, a failing one, or a neighbour that holds the file: the same write may succeed later.
_FOR_NOW: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY}


class Database:
    """One connection; see `opening.open_ledger`."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if not read_only and not path.exists() and path.parent.is_dir():
            _make(path)
        try:
            where = f"{path.resolve().as_uri()}?mode=ro" if read_only else path
            self.db = sqlite3.connect(where, uri=read_only, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{path} cannot be opened: {error}") from None
        try:
            self._prepare(read_only=read_only)
        except BaseException:
            self.db.close()
            raise

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it is durable when the block has ended, or nothing of it if that raises."""
        with self._translated("written"):
            try:
                self.db.execute("BEGIN IMMEDIATE")
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # SQLite has rolled some failures back itself
                    with contextlib.suppress(sqlite3.Error):
                        self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """What the block reads is of one state; inside a moment or a transaction, of that one."""
        if self.db.in_transaction:
            yield self.db
            return
        with self._translated("read"):
            self.db.execute("BEGIN")
            try:
                yield self.db
            finally:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")

    @contextmanager
    def _translated(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _FOR_NOW:
                raise LedgerUnavailable(f"{self.path} cannot be {done}: {error}") from None
            raise LedgerError(f"{self.path} cannot be {done} ({error}): see edgebroker ledger check --help") from error

    def check_pages(self) -> None:
        try:  # 26 ms for 54 MB, measured
            (found,) = self.db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise self._damaged(found)

    def _damaged(self, found: str) -> LedgerError:
        todo = "move it away and restore a backup, see edgebroker restore --help"
        return LedgerError(f"{self.path} is damaged ({' '.join(found.split())}): {todo}")

    def _prepare(self, *, read_only: bool) -> None:
        try:
            self.db.execute("PRAGMA busy_timeout = 10000")
            self._recognise()
            if not read_only:
                self.db.execute("PRAGMA journal_mode = WAL")
                self.db.execute("PRAGMA synchronous = FULL")
            (version,) = self.db.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{self.path} cannot be opened: {error}") from None
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & _PRIMARY == sqlite3.SQLITE_CORRUPT:
                raise self._damaged(str(error)) from None
            raise LedgerError(f"{self.path} is not a ledger ({error}): restore a backup or move it away") from None
        newest = len(schema.MIGRATIONS)
        if version > newest:
            raise LedgerError(f"{self.path} has schema {version}, this program knows {newest}: update edgeclient")
        if version < newest and read_only:
            raise LedgerError(
                f"{self.path} has schema {version}, this program reads {newest}:"
                " start edgebroker serve, which brings it forward"
            )
        for number in range(version, newest):
            with self.transaction() as db:
                schema.MIGRATIONS[number](db)
                db.execute(f"PRAGMA user_version = {number + 1}")
                failpoint.hit("ledger.before-migration")
            failpoint.hit("ledger.after-migration")

    def _recognise(self) -> None:
        """Before anything is written: a file that was emptied, or another program's, is no new ledger."""
        (application,) = self.db.execute("PRAGMA application_id").fetchone()
        if application != schema.APPLICATION:
            empty = not self.path.stat().st_size
            what = "is empty" if empty else "is no ledger but the database of another program"
            raise LedgerError(f"{self.path} {what}: restore a backup, see edgebroker restore --help, or move it away")

    def copy_to(self, path: Path) -> None:
        copy = sqlite3.connect(path, isolation_level=None)
        try:
            self.db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            raise LedgerUnavailable(f"{path} cannot be written: {error}") from None
        finally:
            copy.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def size(self) -> dict[str, int]:
        """Bytes of the file, of the write-ahead log, free bytes inside the file, and rows of each table."""
        (page,), (free,) = (self.db.execute(f"PRAGMA {name}").fetchone() for name in ("page_size", "freelist_count"))
        log = self.path.with_name(self.path.name + "-wal")
        tables = [name for (name,) in self.db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {f"{name}_rows": self.db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}  # noqa: S608 (its own tables)
        return {
            "ledger_bytes": self.path.stat().st_size,
            "log_bytes": log.stat().st_size if log.exists() else 0,
            "free_bytes": page * free,
            **rows,
        }


def _make(path: Path) -> None:
    """A file that is known as a ledger and holds nothing, whole or not at all."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"PRAGMA application_id = {schema.APPLICATION}")
        content = db.serialize()
    try:
        files.replace(path, content)
    except OSError as error:
        raise LedgerError(f"{path} cannot be made: {error}") from None
