"""Tables of the store, and the way from every older schema to the newest."""

import sqlite3
import time
from collections.abc import Callable
from typing import Final

SCHEMA: Final = (
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
        renewals        INTEGER NOT NULL,   -- residuals dropped, each with a new epoch
        withdrawn       INTEGER NOT NULL DEFAULT 0  -- frames taken back before they counted
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


def _withdrawals(db: sqlite3.Connection) -> None:
    """1 → 2: layers, ages and withdrawals. Frames of before are first layers of the last version, made now."""
    db.execute("ALTER TABLE account ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE frame RENAME TO old")
    db.execute(SCHEMA[1])
    db.execute(
        "INSERT INTO frame SELECT id, state, sequence, 0, (SELECT coalesce(trained_version, 0) FROM account), ?, body"
        " FROM old",
        (time.time(),),
    )
    db.execute("DROP TABLE old")


# From schema i + 1 to schema i + 2, each in a transaction of its own.
MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_withdrawals,)
SCHEMA_VERSION: Final = len(MIGRATIONS) + 1
