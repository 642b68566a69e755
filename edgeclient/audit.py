"""An account of what was trained, kept apart from compression and the store, so that the law can be checked.

Per epoch one file holds the sums of all deltas whose round the store has committed, and the delta of a
round that is under way. A kill between the two is settled at the next start, by asking the store which
round it committed last. Tensors that travel as absolute values are outside the law: their delta is 0.
"""

import io
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient import files
from edgeclient.compress.arrays import F32, F64
from edgeclient.compress.update import SparseUpdate, add
from edgeclient.settings import Device
from edgeclient.wire.life import Account

_NONE: Final = np.empty(0, np.float32)


class Auditor:
    """The account of one epoch.

    Args:
        directory: made if missing.
        epoch: of the store; every epoch has its own file.
        size: n.
        committed: token of the round that the store committed last.

    Attributes:
        trained: sum of the deltas, float64 (n,).
        absolute: sum of their magnitudes and of those that were sent, float64 (n,): what rounding errors scale with,
            since no residual is larger.
        rounds: how many they were.

    Example:
        >>> import tempfile
        >>> from edgeclient.compress.update import FloatValues
        >>> folder = Path(tempfile.mkdtemp())
        >>> auditor = Auditor(folder, epoch=7, size=2, committed="")
        >>> sent = SparseUpdate(2, np.array([1]), FloatValues(np.array([-2], np.float32)))
        >>> auditor.begin("r0", np.array([1, -2], np.float32), sent)
        >>> again = Auditor(folder, epoch=7, size=2, committed="r0")  # killed after the store's commit
        >>> again.trained, again.absolute, again.rounds
        (array([ 1., -2.]), array([1., 4.]), 1)
    """

    def __init__(self, directory: Path, *, epoch: int, size: int, committed: str) -> None:
        files.make_directory(directory)
        self._path = directory / f"{epoch:016x}.npz"
        self.trained: F64 = np.zeros(size)
        self.absolute: F64 = np.zeros(size)
        self.rounds = 0
        self._pending: tuple[str, F32, F32] | None = None
        if self._path.exists():
            with np.load(self._path, allow_pickle=False) as saved:
                self.trained, self.absolute = saved["trained"], saved["absolute"]
                self.rounds = int(saved["rounds"])
                token = str(saved["token"])
                self._pending = (token, saved["delta"], saved["magnitudes"]) if token else None
        if self._pending is not None:
            if self._pending[0] == committed:
                self.confirm()
            else:
                self._pending = None
                self._save()

    def begin(self, token: str, delta: F32, sent: SparseUpdate) -> None:
        """A delta was trained; its round, which sends this update, is about to be committed under this token."""
        magnitudes = np.abs(delta)
        add(magnitudes, sent.indices, np.abs(sent.values.decoded()))
        self._pending = (token, delta, magnitudes)
        self._save()

    def confirm(self) -> None:
        """The round that was begun is committed."""
        assert self._pending is not None, "begin comes first"
        _, delta, magnitudes = self._pending
        self.trained += delta
        self.absolute += magnitudes
        self.rounds += 1
        self._pending = None
        self._save()

    def _save(self) -> None:
        token, delta, magnitudes = self._pending or ("", _NONE, _NONE)
        content = io.BytesIO()
        np.savez(
            content,
            trained=self.trained,
            absolute=self.absolute,
            rounds=np.int64(self.rounds),
            token=np.str_(token),
            delta=delta,
            magnitudes=magnitudes,
        )
        files.replace(self._path, content.getvalue())


def of(settings: Device, account: Account) -> "Auditor | Unaudited":
    """The auditor of a store's epoch, where the owner wants one."""
    if not settings.audit:
        return Unaudited()
    directory, committed = settings.directory / "audit", account.round_token
    return Auditor(directory, epoch=account.epoch, size=account.size, committed=committed)


class Unaudited:
    """In an auditor's place where the owner wants none."""

    def begin(self, token: str, delta: F32, sent: SparseUpdate) -> None:
        """Nothing is kept."""

    def confirm(self) -> None:
        """Nothing is kept."""
