"""Verifying a store from outside: what is wrong with it, and what to do. Nothing is changed, not even the schema."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeclient.durable.lock import in_use
from edgeclient.durable.schema import MIGRATIONS
from edgeclient.durable.slots import Slots
from edgeclient.wire.life import State


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong; `remedy` says what it costs and what to do."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        faults: none for a sound store.
        running: a process uses the store; what was read may be a moment old.
        schema: version of the tables.
        epoch: of the account.
        frames: in each state.
        size: n.
        disk_bytes: of all files of the store.
    """

    faults: tuple[Fault, ...]
    running: bool = False
    schema: int = 0
    epoch: int = 0
    frames: tuple[tuple[str, int], ...] = ()
    size: int = 0
    disk_bytes: int = 0


ANEW = "move the folder away: the device begins a new epoch, and one residual is lost"


def check_store(directory: Path, readable: Callable[[bytes], str | None]) -> Report:
    """Verify database, counters, frames and the live residual slot.

    Args:
        directory: of the store.
        readable: why the bytes of a frame cannot be read, None when they can.

    Example:
        >>> import tempfile
        >>> check_store(Path(tempfile.mkdtemp()), lambda body: None).faults[0].what
        'there is no store.db'
    """
    path = directory / "store.db"
    if not path.exists():
        return Report((Fault("there is no store.db", "nothing was trained here yet, or the folder is another one"),))
    disk_bytes = sum(each.stat().st_size for each in directory.iterdir() if each.is_file())
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        if schema != (known := len(MIGRATIONS)):
            remedy = "start edgeclient run once: it takes the store over" if schema < known else "update edgeclient"
            fault = Fault(f"store.db has schema {schema}, this program knows {known}", remedy)
            return Report((fault,), in_use(directory / "lock"), schema, disk_bytes=disk_bytes)
        db.execute("BEGIN")  # one moment for all that is read
        faults = tuple(_faults(db, directory, readable))
        epoch, size = db.execute("SELECT epoch, size FROM account").fetchone() or (0, 0)
        counts = dict(db.execute("SELECT state, count(*) FROM frame GROUP BY state").fetchall())
        frames = tuple((state.value, counts.get(state, 0)) for state in State)
        return Report(faults, in_use(directory / "lock"), schema, epoch & (2**64 - 1), frames, size, disk_bytes)
    except sqlite3.DatabaseError as error:
        return Report((Fault(f"store.db cannot be read: {error}", ANEW),), disk_bytes=disk_bytes)
    finally:
        db.close()


def _faults(db: sqlite3.Connection, directory: Path, readable: Callable[[bytes], str | None]) -> Iterator[Fault]:
    for (line,) in db.execute("PRAGMA integrity_check(10)"):
        if line != "ok":
            yield Fault(f"store.db is damaged: {line}", ANEW)
    accounts = db.execute("SELECT next_sequence, size, slot, checksum FROM account").fetchall()
    if len(accounts) != 1:
        yield Fault(f"store.db has {len(accounts)} accounts, not one", ANEW)
        return
    next_sequence, size, slot, checksum = accounts[0]
    for id_, state, sequence in db.execute("SELECT id, state, sequence FROM frame ORDER BY id"):
        if (sequence is None) == (state in {State.SENT, State.WITHDRAWING}) and state != State.RETURNED:
            yield Fault(f"frame {id_} is {state} with sequence {sequence}", ANEW)
        if sequence is not None and sequence >= next_sequence:
            yield Fault(f"frame {id_} has sequence {sequence}, and the next one is {next_sequence}", ANEW)
    for id_, body in db.execute("SELECT id, body FROM frame"):
        if (why := readable(bytes(body))) is not None:
            yield Fault(f"frame {id_} cannot be read: {why}", ANEW)
    try:
        whole = Slots(directory, size).checksum(slot) == checksum
    except OSError as error:
        yield Fault(f"residual.{slot} cannot be read: {error.strerror}", ANEW)
        return
    if not whole:
        yield Fault(f"residual.{slot} is not what was committed", "at its next start the device begins a new epoch")
