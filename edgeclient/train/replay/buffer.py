"""The replay buffer: what a growing source gave, kept in a bounded file, so that old examples are not forgotten.

Places: `capacity` examples drawn evenly from all that ever came, the `capacity` newest ones, and the holdout's share,
drawn evenly too. A round learns from the first two, each example once. The file is written before the state that
counts its examples and says how far the source was read: after a crash in between, the same examples come again and
go to the same places.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeclient import failpoint, files
from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import I64
from edgeclient.train.batches import Batch, Cursor, DataError, NoExamplesError, Source
from edgeclient.train.holdout import Side, held_out, nothing
from edgeclient.train.replay.records import Records
from edgeclient.train.replay.reservoir import places

_LOG = logging.getLogger(__name__)
_FORMAT: Final = 1
_STATE: Final = "state.json"
_RECORDS: Final = "examples"
# New examples beyond this many times the capacity wait for the next round: an endless source does not stop training.
_MOST_NEW: Final = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """What the buffer has behind it.

    Attributes:
        about: what its examples are; another model, source or size begins anew.
        trained: examples that came for training, ever.
        held: examples that came for the holdout, ever.
        cursor: how far the source was read.
    """

    about: str
    trained: int = 0
    held: int = 0
    cursor: Cursor = None


class Replay:
    """See the module.

    Args:
        directory: of its files.
        manifest: of the model that learns from it.
        capacity: examples drawn from all that came, and as many newest ones.
        holdout: fraction of the examples that training never sees.
        seed: of the sampling.
        about: what determines the examples, beside the model.
        name: of the source, for errors.
    """

    def __init__(
        self, directory: Path, manifest: Manifest, capacity: int, holdout: float, *, seed: int,
        about: Mapping[str, Any], name: str,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._capacity, self._holdout, self._held = capacity, holdout, math.ceil(capacity * holdout)
        self._seed = seed
        self._records = Records(directory / _RECORDS, manifest, 2 * capacity + self._held)
        shapes = [(each.name, each.dtype, each.shape) for each in (*manifest.inputs, manifest.labels)]
        described = {**about, "seed": seed, "capacity": (capacity, holdout), "arrays": shapes}
        self._about = json.dumps(described, sort_keys=True, default=str)
        self._name = name

    def take(self, source: Source, proceed: Callable[[], bool] = lambda: True) -> int:
        """Take in what is new, and keep it through power loss; says how many examples that was.

        `proceed` is asked after every block whether to go on; what is left waits.

        Raises:
            DataError: the source has failed; what came before is kept.
            OSError: the disk is full; nothing was lost.
        """
        state = before = self._begin()
        most = before.trained + before.held + _MOST_NEW * self._capacity
        try:
            for batch, cursor in source.blocks(None, state.cursor):
                state = self._add(state, batch, cursor)
                if state.trained + state.held >= most or not proceed():
                    break
        finally:
            if state != before:
                self._records.sync()
                failpoint.hit("replay.before-state")
                self._save(state)
        return state.trained + state.held - before.trained - before.held

    def side(self, side: Side) -> "Kept":
        """What training, or the holdout, has whenever a pass begins."""
        return Kept(self._records, lambda: self._live(side), nothing(self._name, side))

    def _add(self, state: Progress, batch: Batch, cursor: Cursor) -> Progress:
        capacity, held_places = self._capacity, self._held
        mask = held_out(batch, self._holdout)
        learnt, held = (tuple(array[chosen] for array in batch) for chosen in (~mask, mask))
        numbers = np.arange(state.trained, state.trained + len(learnt[-1]))
        self._put(places(self._seed, state.trained, len(numbers), capacity), numbers, learnt)
        newest = slice(max(0, len(numbers) - capacity), None)
        self._put(capacity + numbers[newest] % capacity, numbers[newest], tuple(array[newest] for array in learnt))
        held_numbers = np.arange(state.held, state.held + len(held[-1]))
        chosen = places(self._seed + 1, state.held, len(held_numbers), held_places)
        self._put(np.where(chosen < 0, -1, 2 * capacity + chosen), held_numbers, held)
        return Progress(state.about, state.trained + len(numbers), state.held + len(held_numbers), cursor)

    def _put(self, where: I64, numbers: I64, batch: Batch) -> None:
        kept = np.flatnonzero(where >= 0)
        if kept.size:
            self._records.write(where[kept], numbers[kept], tuple(array[kept] for array in batch))

    def _live(self, side: Side) -> I64:
        """The places with an example of this side, each example once."""
        capacity = self._capacity
        state = self._load()
        if state is None or state.about != self._about:
            return np.empty(0, np.int64)
        numbers = self._records.numbers()
        there = np.flatnonzero(numbers >= 0)
        if side == "holdout":
            return there[there >= 2 * capacity]
        newest = there[(there >= capacity) & (there < 2 * capacity)]
        drawn = there[there < capacity]
        return np.concatenate([drawn[~np.isin(numbers[drawn], numbers[newest])], newest])

    def _begin(self) -> Progress:
        state = self._load()
        if state is not None and state.about == self._about and self._records.whole:
            return state
        if state is not None:
            _LOG.warning(
                "%s: the model, the source or its options have changed: the buffer begins anew", self._directory
            )
        (self._directory / _STATE).unlink(missing_ok=True)
        self._records.create()
        return Progress(self._about)

    def _load(self) -> Progress | None:
        path = self._directory / _STATE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("format")
            if version <= _FORMAT:
                return Progress(**values)
        except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
            return None  # a buffer is no account: it fills again
        raise DataError(f"{path} is of a newer edgeclient: update this one, or delete {self._directory}")

    def _save(self, state: Progress) -> None:
        files.replace(self._directory / _STATE, json.dumps({"format": _FORMAT, **asdict(state)}).encode())


@dataclass(frozen=True, slots=True)
class Kept:
    """Examples of a buffer as a Dataset; see `Replay.side`."""

    records: Records
    live: Callable[[], I64]
    otherwise: str

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        """See Dataset.

        Raises:
            NoExamplesError: there is none.
        """
        live = self.live()
        if not len(live):
            raise NoExamplesError(self.otherwise)
        order = live if rng is None else live[rng.permutation(len(live))]
        for first in range(0, len(order), batch_size):
            batch = self.records.read(order[first : first + batch_size])
            if len(batch[-1]):
                yield batch
