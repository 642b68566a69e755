"""Tables of the ledger, schema version 1."""

from typing import Final

SCHEMA_VERSION: Final = 1

SCHEMA: Final = (
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
