"""Every file that device and aggregator write, as four components whose whole state is one digest each."""

import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from broker.ledger.opening import open_ledger
from broker.publish.retained import blob_of
from broker.registry.blobs import Blobs
from edgeclient.audit import Auditor
from edgeclient.bundle import archive
from edgeclient.durable.store import Store
from edgeclient.models.slots import Models
from edgeclient.wire.announcement import Announcement
from tools.chaos import plan
from tools.chaos.plan import TASK

LAYOUT: Final = "ab" * 32
SIZE: Final = 5000  # of the residual: five pages
BUNDLE: Final = plan.BUNDLE.read_bytes()
NOTE: Final = "note"  # of files.replace alone
COMPONENTS: Final = ("device", "models", "files", "aggregator")


def announcement(version: int, content: bytes) -> Announcement:
    """Of these parameters."""
    layout = archive.decode(BUNDLE).manifest.layout
    return Announcement(
        task=TASK,
        version=version,
        service="0" * 16,
        ledger="0" * 16,
        term=1,
        parameters=blob_of(sha256(content).hexdigest(), len(content)),
        bundle=blob_of(sha256(BUNDLE).hexdigest(), len(BUNDLE)),
        layout=layout.digest,
        size=layout.size,
    )


def open_device(root: Path) -> tuple[Store, Auditor]:
    """The device's store and its auditor."""
    store = Store(root / "device" / "store", layout=LAYOUT, size=SIZE)
    account = store.account()
    directory = root / "device" / "audit"
    return store, Auditor(directory, epoch=account.epoch, size=SIZE, committed=account.round_token)


def states(root: Path, store: Store, auditor: Auditor, models: Models) -> dict[str, str]:
    """Of each component: what its tables, files and memory hold."""
    tables = _dump(root / "device" / "store" / "store.db")
    known = store.residual().tobytes(), auditor.trained.tobytes(), str(auditor.rounds).encode()
    model, note = models.active(), root / "device" / NOTE
    active = () if model is None else (str(model.announcement.version).encode(), model.parameters.tobytes())
    return {
        "device": _digest(tables, *known),
        "models": _digest(*active) if active else "",
        "files": _digest(note.read_bytes()) if note.exists() else "",
        "aggregator": _digest(_dump(root / "aggregator" / "ledger.db")),
    }


class Damage(Exception):
    """What the stores themselves found, or could not."""


def examine(root: Path) -> dict[str, str]:
    """Open everything as the product does after a power cut; the state of each component.

    Each must go on working, too.

    Raises:
        Damage, and whatever the product raises.
    """
    store, auditor = open_device(root)
    with store:
        if store.notice:
            raise Damage(f"the store says: {store.notice}")
        models, blobs = Models(root / "device" / "models"), Blobs(root / "aggregator" / "registry")
        with open_ledger(root / "aggregator" / "ledger.db") as ledger:
            found = states(root, store, auditor, models)
            for version in ledger.versions(TASK):
                blobs.get(version.digest)  # whole
            ledger.forget_bodies(TASK, 0)
        store.commit_round([[b"next"]], np.ones(SIZE, np.float32), token="next", base_version=0)  # noqa: S106 (names a round)
    return found


def _dump(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump()).encode()


def _digest(*parts: bytes) -> str:
    return sha256(b"\0".join(sha256(part).digest() for part in parts)).hexdigest()[:16]
