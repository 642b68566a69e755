"""A device's and an aggregator's work on their files, without a network: what `--power-loss` records and cuts.

`python -m tools.chaos.driver ROOT SIDE SEED STEPS`: everything that must survive is in ROOT; SIDE holds what was said
(`marks`) and copies of what goes through mappings. {"done": i, …} is said once step i has returned.
"""

import json
import os
import random
import sys
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from broker.ledger.opening import open_ledger
from broker.ledger.rows import Entry, Version
from broker.registry.blobs import Blobs
from edgeclient import files
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.models.slots import Models
from edgeclient.wire.life import State
from edgeclient.wire.messages import Refusal
from tools.chaos import stores
from tools.chaos.plan import TASK

_WEIGHT = 7


class Driver:
    """Steps at random; each is one promise: when it has returned, its work survives."""

    def __init__(self, root: Path, side: Path, seed: int) -> None:
        self._root = root
        self._side = side
        self._rng = random.Random(f"{seed}/driver")  # noqa: S311 (a schedule)
        self._random = self._rng.randbytes
        self._numbers = count(1)
        self._frames = self._bytes = 0  # given to the stores: frames, and their bytes with those of residuals
        self._marks = os.open(side / "marks", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for name in ("device", "aggregator"):  # the operator's folders
            (root / name).mkdir()
        files.sync_directory(root)

    def run(self, steps: int) -> None:
        """Set up, then so many steps."""
        self._open()
        self._models = Models(self._root / "device" / "models")
        self._blobs = Blobs(self._root / "aggregator" / "registry")
        self._models.install_bundle(sha256(stores.BUNDLE).hexdigest(), stores.BUNDLE)
        initial = self._blobs.put(self._random(400))
        self._ledger.add_task(TASK, self._blobs.put(stores.BUNDLE), {}, Version(0, initial, None, 0.0, 0, 0, 0, {}))
        self._done(0, "set up")
        work = {
            self._round: 6, self._send: 5, self._settle: 4, self._withdraw: 1, self._restart: 1,
            self._activate: 2, self._note: 2, self._admit: 6, self._close_batch: 2, self._forget: 1, self._compact: 1,
        }  # fmt: skip
        for i in range(1, steps + 1):
            (step,) = self._rng.choices(list(work), list(work.values()))
            step()
            self._done(i, step.__name__.strip("_"))

    # Device

    def _round(self) -> None:
        number, size = next(self._numbers), stores.SIZE
        delta = np.random.default_rng(number).normal(0, 1, size).astype(np.float32)
        returned = [each.id for each in self._store.frames(State.RETURNED)]
        layers = [[self._random(self._rng.randint(20, 6000))] for _ in range(self._rng.randint(0, 2))]
        self._auditor.begin(f"r{number}", delta, SparseUpdate(size, np.arange(0), FloatValues(delta[:0])))
        if self._rng.random() < 0.5:
            residual = self._store.residual() + delta
        else:
            live, residual = self._store.slots()
            made = live + delta
            copy = self._side / f"residual-{number}"
            copy.write_bytes(made.astype("<f4").tobytes())
            assert isinstance(residual, np.memmap)
            self._say({"map": str(Path(str(residual.filename)).relative_to(self._root)), "copy": str(copy)})
            residual[:] = made
        self._store.commit_round(
            layers, residual, token=f"r{number}", base_version=number, merged=returned, now_s=float(number)
        )
        self._auditor.confirm()
        self._frames += len(layers)
        self._bytes += residual.nbytes + sum(len(body) for layer in layers for body in layer)

    def _send(self) -> None:
        self._store.mark_sent([each.id for each in self._store.frames(State.QUEUED)[: self._rng.randint(1, 4)]])

    def _settle(self) -> None:
        answers: dict[str, list[int]] = {"applied": [], "refused": []}
        for each in self._store.frames(State.SENT, State.WITHDRAWING):
            if each.sequence is not None:
                answers[self._rng.choice(("applied", "applied", "refused"))].append(each.sequence)
        self._store.settle(applied=answers["applied"], refused=answers["refused"])

    def _withdraw(self) -> None:
        self._store.withdraw([each.id for each in self._store.frames(State.QUEUED, State.SENT)[:2]])

    def _activate(self) -> None:
        content = np.full(stores.announcement(0, b"").size, next(self._numbers), "<f4").tobytes()
        self._models.activate(stores.announcement(next(self._numbers), content), content)

    def _note(self) -> None:
        files.replace(self._root / "device" / stores.NOTE, self._random(self._rng.randint(0, 9000)))

    # Aggregator

    def _admit(self) -> None:
        entries = []
        for _ in range(self._rng.randint(1, 8)):
            sequence = self._rng.randrange(200)  # some come twice
            body = random.Random(sequence).randbytes(200 + 20 * sequence)  # noqa: S311 (the same bytes each time)
            entries.append(
                Entry(
                    TASK, f"d{sequence % 3}", epoch=9, sequence=sequence, digest=sha256(body).digest()[:8],
                    number=sequence, part=0, parts=1, base_version=0, num_examples=5, weight=_WEIGHT,
                    refusal=Refusal.STALE if sequence % 5 == 0 else None, body=body,
                )
            )  # fmt: skip
        self._ledger.admit(entries, float(next(self._numbers)))
        self._frames += len(entries)
        self._bytes += sum(len(each.body) for each in entries)

    def _close_batch(self) -> None:
        members = self._ledger.open_contributions(TASK, 100)
        (last,) = self._ledger.versions(TASK, last=1)
        number, total = last.number + 1, _WEIGHT * len(members)
        digest = self._blobs.put(self._random(5000))
        self._ledger.close_batch(
            TASK, members, Version(number, digest, number, float(number), len(members), len(members), total, {})
        )

    def _forget(self) -> None:
        (last,) = self._ledger.versions(TASK, last=1)
        self._ledger.forget_bodies(TASK, last.number - 2)

    def _compact(self) -> None:
        (last,) = self._ledger.versions(TASK, last=1)
        self._ledger.compact(TASK, before_batch=last.number - 2, before_base=0)

    # Both

    def _restart(self) -> None:
        self._store.close()
        self._ledger.close()
        self._open()

    def _open(self) -> None:
        self._store, self._auditor = stores.open_device(self._root)
        self._ledger = open_ledger(self._root / "aggregator" / "ledger.db")

    def _done(self, step: int, what: str) -> None:
        states = stores.states(self._root, self._store, self._auditor, self._models)
        self._say({"done": step, "what": what, "states": states, "frames": self._frames, "bytes": self._bytes})

    def _say(self, said: dict[str, Any]) -> None:
        os.write(self._marks, (json.dumps(said) + "\n").encode())


if __name__ == "__main__":
    Driver(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])).run(int(sys.argv[4]))
