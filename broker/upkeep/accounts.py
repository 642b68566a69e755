"""Checks from outside that nothing was lost or counted twice: devices' accounts against the ledger.

Tensors that travel as absolute values (running statistics, and what else a bundle bounds) are outside the account: a
round's delta is 0 there, and so is the residual.

A device says through `edgeclient audit` what it trained and what waits; the ledger says what it applied.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from broker.ledger.protocol import Ledger
from broker.ledger.rows import Contribution
from broker.upkeep.backup import UpkeepError
from edgeclient.compress.arrays import F32, F64, Array
from edgeclient.compress.update import SparseUpdate
from edgeclient.wire import frame
from edgeclient.wire.life import State

_ALL: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Account:
    """What came of one device's work in its current epoch.

    Attributes:
        rounds: local rounds trained.
        waiting: frames on their way that the ledger has not applied yet.
        returned: frames that came back; what they hold goes out with the next round.
        lost: sequences that neither the ledger nor the device knows.
        law_holds: whether trained = applied + waiting + returned + residual.
        worst_error: largest difference, in units of what float32 rounding explains.
        renewals: residuals dropped before this epoch.
    """

    device: str
    rounds: int
    waiting: int
    returned: int
    lost: int
    law_holds: bool
    worst_error: float
    renewals: int


def examine(ledger: Ledger, task: str, device: str, config: Path) -> Account:
    """Compare both sides of a device's account; the device must not be running.

    Raises:
        UpkeepError: the device's account cannot be read.
    """
    with tempfile.TemporaryDirectory() as directory:
        told, exported = _export(config, Path(directory) / "account.npz")
    settled = ledger.settled(task, device, told["epoch"])
    tensors = [(rows, columns) for rows, columns in exported["tensors"].tolist()]
    applied = [frame.decode(each.body, tensors).update for each in ledger.by_device(task, device, told["epoch"])]
    held = _frames(exported)
    # A frame may be applied while its receipt is still under way: the ledger's word counts.
    unapplied = [
        frame.decode(body, tensors).update for sequence, body in held if settled.get(sequence, "unknown") is not None
    ]
    balance = balanced(
        exported["trained"], exported["absolute"], told["rounds"], exported["residual"], [*applied, *unapplied]
    )
    known = settled.keys() | {sequence for sequence, _ in held}
    return Account(
        device=device,
        rounds=told["rounds"],
        waiting=len(unapplied) - told[State.RETURNED.value],
        returned=told[State.RETURNED.value],
        lost=sum(sequence not in known for sequence in range(told["next_sequence"])),
        law_holds=balance.holds,
        worst_error=balance.worst,
        renewals=told["renewals"],
    )


@dataclass(frozen=True, slots=True)
class Balance:
    """Whether the law holds for one account: the worst error in units of what float32 rounding explains."""

    holds: bool
    worst: float
    coordinate: int


def balanced(trained: F64, absolute: F64, rounds: int, residual: F32, elsewhere: Iterable[SparseUpdate]) -> Balance:
    """Compare both sides of the account, coordinate by coordinate.

    Every round adds and subtracts once in float32, and no intermediate magnitude exceeds what was trained and sent:
    the error is at most rounds · 2^-23 · (sum |delta| + sum |sent|).

    Args:
        trained: sum of deltas as the auditor knows it (n,).
        absolute: sum of their magnitudes, and of those of all entries that were ever sent (n,).
        rounds: how many.
        residual: what the store holds (n,).
        elsewhere: the entries of every applied frame and of every frame that still waits, each once.

    Example:
        >>> one = np.ones(1)
        >>> balanced(one, one, 1, np.ones(1, np.float32), []).holds
        True
        >>> balanced(one, one, 1, np.zeros(1, np.float32), []).holds
        False
    """
    accounted = residual.astype(np.float64)
    for update in elsewhere:
        update.add_to(accounted)
    allowed = (rounds + 1) * 2.0**-23 * absolute + 1e-30
    excess = np.abs(trained - accounted) / allowed
    worst = int(excess.argmax())
    return Balance(bool(excess[worst] <= 1), float(excess[worst]), worst)


def contributions(ledger: Ledger, task: str) -> list[Contribution]:
    """Every applied frame whose body is kept: those of all batches, and those that wait for the next."""
    batches = [ledger.batch(task, version.batch) for version in ledger.versions(task) if version.batch is not None]
    return [each for batch in (*batches, ledger.open_contributions(task, _ALL)) for each in batch]


def _export(config: Path, out: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    command = [sys.executable, "-m", "edgeclient.cli", "audit", str(config), "--out", str(out), "--json"]
    answered = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own command)
    if answered.returncode:
        raise UpkeepError(f"the account of {config} cannot be read: {answered.stderr.strip()}")
    with np.load(out, allow_pickle=False) as exported:
        return json.loads(answered.stdout), dict(exported)


def _frames(exported: dict[str, Array]) -> list[tuple[int, bytes]]:
    """(sequence, bytes) of every frame on the device; -1 for one that never left."""
    bodies, lengths = exported["frame_bytes"].tobytes(), exported["frame_lengths"]
    starts = (np.cumsum(lengths) - lengths).tolist()
    sequences = exported["frame_sequences"].tolist()
    return [
        (sequence, bodies[start : start + length])
        for sequence, start, length in zip(sequences, starts, lengths.tolist(), strict=True)
    ]
