"""Tables of the store, and the way to them from every older schema."""

import sqlite3
from collections.abc import Callable
from typing import Final

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
        withdrawn       INTEGER NOT NULL,   -- frames taken back before they counted
        renewals        INTEGER NOT NULL,   -- residuals dropped, each with a new epoch
        task            TEXT NOT NULL,      -- whose account it is
        device          TEXT NOT NULL,
        ledger          TEXT NOT NULL       -- that counts its frames, and no other does
    ) STRICT
    """,
    """
    CREATE TABLE frame (
        id           INTEGER PRIMARY KEY,
        state        TEXT NOT NULL CHECK (state IN ('queued', 'sent', 'withdrawing', 'returned')),
        sequence     INTEGER UNIQUE,        -- assigned when first sent
        layer        INTEGER NOT NULL,      -- 0 goes first
        base_version INTEGER NOT NULL,
        created      REAL NOT NULL,         -- Unix seconds
        body         BLOB NOT NULL          -- without identity; that is in sequence and account.epoch
    ) STRICT
    """,
)


def _tables(db: sqlite3.Connection) -> None:
    for table in _SCHEMA:
        db.execute(table)


# From schema i to schema i + 1, each in a transaction of its own; 0 is an empty file.
MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_tables,)
