"""Tables of the ledger, as migrations: the n-th leads from schema version n to n + 1, and a new file takes all of them.

A published migration never changes; a new schema is a new function at the end.
"""

import secrets
import sqlite3
from collections.abc import Callable
from typing import Final

# In the header of the file: "ECLB".
APPLICATION: Final = 0x45434C42

_TABLES: Final = (
    """
    CREATE TABLE identity (
        only   INTEGER PRIMARY KEY CHECK (only = 0),
        ledger TEXT NOT NULL,            -- 16 hexadecimal digits, drawn when it was made
        term   INTEGER NOT NULL          -- of the last start on it
    ) STRICT
    """,
    """
    CREATE TABLE lineage (
        task    TEXT NOT NULL,
        ledger  TEXT NOT NULL,           -- this one, which has served the task; or one that it was taken over from
        term    INTEGER NOT NULL,        -- of the last start that is known of
        service TEXT NOT NULL,           -- of that start; of this ledger
        place   TEXT NOT NULL,           -- where that was; of this ledger
        since   REAL NOT NULL,
        PRIMARY KEY (task, ledger)
    ) STRICT, WITHOUT ROWID
    """,
    # Other aggregators that were met.
    """
    CREATE TABLE rival (
        task    TEXT NOT NULL,
        ledger  TEXT NOT NULL,
        term    INTEGER NOT NULL,
        service TEXT NOT NULL,
        contact TEXT NOT NULL,           -- what came of it
        met     REAL NOT NULL,
        PRIMARY KEY (task, ledger, service, contact)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE task (
        name     TEXT PRIMARY KEY,
        bundle   TEXT NOT NULL,          -- digest of the bundle
        settings TEXT NOT NULL,          -- JSON
        removed  INTEGER NOT NULL,       -- 1: to be taken off the MQTT broker and forgotten
        since    INTEGER NOT NULL        -- the version from which max_versions and patience count
    ) STRICT
    """,
    # The newest version of a task that was removed: one of the same name goes on above.
    """
    CREATE TABLE gone (
        task    TEXT PRIMARY KEY,
        version INTEGER NOT NULL
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
    # What an epoch of a device has reached: every sequence below the watermark is settled. What its frame rows have
    # left behind: applied rows below the watermark fold into `past`, and so do refused ones that the device has
    # confirmed.
    """
    CREATE TABLE epoch (
        task            TEXT NOT NULL,
        device          TEXT NOT NULL,
        epoch           INTEGER NOT NULL,
        watermark       INTEGER NOT NULL,
        seen            INTEGER NOT NULL,
        confirmed       INTEGER NOT NULL,            -- the device has settled everything below
        folded          INTEGER NOT NULL DEFAULT 0,  -- the watermark at the last folding
        applied         INTEGER NOT NULL DEFAULT 0,  -- frames folded as applied
        refused         INTEGER NOT NULL DEFAULT 0,  -- frames folded as refused
        forgotten       INTEGER NOT NULL DEFAULT 0,  -- contributions whose rows are gone
        lost_to_restore INTEGER NOT NULL DEFAULT 0,  -- confirmed, but unknown here
        PRIMARY KEY (task, device, epoch)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE past (
        task     TEXT NOT NULL,
        device   TEXT NOT NULL,
        epoch    INTEGER NOT NULL,
        chunk    INTEGER NOT NULL,       -- sequences from 960 * chunk on
        digests  BLOB NOT NULL,          -- 4 bytes for each, see digests.py
        refusals BLOB NOT NULL,          -- 3 bytes for each that was refused
        PRIMARY KEY (task, device, epoch, chunk)
    ) STRICT
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
        terms        TEXT NOT NULL,      -- what else was fixed with the weight: JSON, numbers by name
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
        batch        INTEGER,            -- NULL: not made of one
        created      REAL NOT NULL,
        updates      INTEGER NOT NULL,
        frames       INTEGER NOT NULL,
        frame_bytes  INTEGER NOT NULL,
        total_weight INTEGER NOT NULL,
        terms        TEXT NOT NULL,      -- what it depended on besides its members: JSON, numbers by name
        state        TEXT NOT NULL,      -- of the server's optimiser after it: JSON, numbers by name
        state_digest TEXT NOT NULL,      -- of the rest of that state in the registry; empty: there is none
        metrics      TEXT NOT NULL,      -- JSON
        held         TEXT NOT NULL,      -- why the fleet does not see it; empty: it does
        record       BLOB,               -- who was in its batch, see record.py; NULL: no batch
        PRIMARY KEY (task, number)
    ) STRICT, WITHOUT ROWID
    """,
)


def _create(db: sqlite3.Connection) -> None:
    for statement in _TABLES:
        db.execute(statement)
    db.execute("INSERT INTO identity VALUES (0, ?, 0)", (secrets.token_hex(8),))


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create,)
