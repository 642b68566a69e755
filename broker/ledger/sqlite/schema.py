"""Tables of the ledger, as migrations: the n-th leads from schema version n to n + 1, and a new file takes all of them.

A published migration never changes; a new schema is a new function at the end.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from broker.ledger import record

_VERSION_1: Final = (
    """
    CREATE TABLE task (
        name     TEXT PRIMARY KEY,
        bundle   TEXT NOT NULL,          -- digest of the bundle
        settings TEXT NOT NULL           -- JSON
    ) STRICT
    """,
    # One row per identity, applied or refused: what makes a second copy a duplicate.
    """
    CREATE TABLE frame (
        task     TEXT NOT NULL,
        device   TEXT NOT NULL,
        epoch    INTEGER NOT NULL,       -- unsigned 64 bits as a signed integer
        sequence INTEGER NOT NULL,
        digest   BLOB NOT NULL,          -- first 8 bytes of the SHA-256 of the frame
        refusal  INTEGER,                -- NULL: applied
        received REAL NOT NULL,
        PRIMARY KEY (task, device, epoch, sequence)
    ) STRICT, WITHOUT ROWID
    """,
    # What an epoch of a device has reached: every sequence below the watermark is settled.
    """
    CREATE TABLE epoch (
        task      TEXT NOT NULL,
        device    TEXT NOT NULL,
        epoch     INTEGER NOT NULL,
        watermark INTEGER NOT NULL,
        seen      INTEGER NOT NULL,
        confirmed INTEGER NOT NULL,      -- the device has settled everything below
        PRIMARY KEY (task, device, epoch)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE contribution (
        id           INTEGER PRIMARY KEY,
        task         TEXT NOT NULL,
        device       TEXT NOT NULL,
        epoch        INTEGER NOT NULL,
        sequence     INTEGER NOT NULL,
        number       INTEGER NOT NULL,   -- of the update
        part         INTEGER NOT NULL,
        parts        INTEGER NOT NULL,
        leads        INTEGER NOT NULL,   -- 1: first admitted frame of its update
        weight       INTEGER NOT NULL,   -- fixed then
        base_version INTEGER NOT NULL,
        num_examples INTEGER NOT NULL,
        received     REAL NOT NULL,
        batch        INTEGER,            -- NULL: waits for the next one
        body         BLOB                -- NULL: forgotten after its batch
    ) STRICT
    """,
    "CREATE INDEX contribution_open ON contribution (task, id) WHERE batch IS NULL",
    "CREATE INDEX contribution_batch ON contribution (task, batch)",
    "CREATE INDEX contribution_update ON contribution (task, device, epoch, number)",
    """
    CREATE TABLE version (
        task         TEXT NOT NULL,
        number       INTEGER NOT NULL,
        digest       TEXT NOT NULL,      -- of the parameters in the registry
        batch        INTEGER,            -- NULL: the initial version
        created      REAL NOT NULL,
        updates      INTEGER NOT NULL,
        frames       INTEGER NOT NULL,
        total_weight INTEGER NOT NULL,
        metrics      TEXT NOT NULL,      -- JSON
        PRIMARY KEY (task, number)
    ) STRICT, WITHOUT ROWID
    """,
)

_VERSION_2: Final = (
    # What an epoch's frame rows have left behind: applied rows below the watermark fold into `past`, and so do refused
    # ones that the device has confirmed.
    "ALTER TABLE epoch ADD COLUMN folded INTEGER NOT NULL DEFAULT 0",  # the watermark at the last folding
    "ALTER TABLE epoch ADD COLUMN applied INTEGER NOT NULL DEFAULT 0",  # frames folded as applied
    "ALTER TABLE epoch ADD COLUMN refused INTEGER NOT NULL DEFAULT 0",  # frames folded as refused
    "ALTER TABLE epoch ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0",  # contributions whose rows are gone
    "ALTER TABLE epoch ADD COLUMN lost_to_restore INTEGER NOT NULL DEFAULT 0",  # confirmed, but unknown here
    """
    CREATE TABLE past (
        task     TEXT NOT NULL,
        device   TEXT NOT NULL,
        epoch    INTEGER NOT NULL,
        chunk    INTEGER NOT NULL,       -- sequences from 960 * chunk on
        digests  BLOB NOT NULL,          -- 4 bytes for each, see past.py
        refusals BLOB NOT NULL,          -- 3 bytes for each that was refused
        PRIMARY KEY (task, device, epoch, chunk)
    ) STRICT
    """,
    "ALTER TABLE version ADD COLUMN record BLOB",  # what its batch was, see record.py; NULL: no batch
)


def _create(db: sqlite3.Connection) -> None:
    for statement in _VERSION_1:
        db.execute(statement)


def _compact(db: sqlite3.Connection) -> None:
    for statement in _VERSION_2:
        db.execute(statement)
    for task, number, batch in db.execute("SELECT task, number, batch FROM version WHERE batch IS NOT NULL").fetchall():
        members = db.execute(
            "SELECT device, epoch, sequence, base_version, weight, leads FROM contribution"
            " WHERE task = ? AND batch = ? ORDER BY id",
            (task, batch),
        )
        listed = [record.Member(d, epoch, s, base, weight, bool(leads)) for d, epoch, s, base, weight, leads in members]
        written = record.encode(listed, {})
        db.execute("UPDATE version SET record = ? WHERE task = ? AND number = ?", (written, task, number))


MIGRATIONS: Final[tuple[Callable[[sqlite3.Connection], None], ...]] = (_create, _compact)
SCHEMA_VERSION: Final = len(MIGRATIONS)
