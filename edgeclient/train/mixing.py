"""Examples of many blocks in an order that crosses blocks and files, in bounded memory; and whether they are mixed.

Data ordered by class teaches the last class alone. What fits into the pool is shuffled whole. Of more, every batch is
drawn from the pool, which the next blocks fill up again: as mixed as the order in which blocks come, and a pool deep.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Final, TypeAlias

import numpy as np

from edgeclient.compress.arrays import F64, I64, Array
from edgeclient.train.batches import Batch

# Half a million rows of six columns; a Raspberry Pi Zero 2 W has 512 MB.
POOL_BYTES: Final = 16 << 20
# Examples that are compared with all: random ones of a few classes differ by less than a tenth.
_STRETCH: Final = 256
_STRETCHES: Final = 4
_MOST_STRETCHES: Final = 1000
_UNMIXED: Final = 0.5
_MOST_CLASSES: Final = 1024

# A block, and which of its examples are wanted, int64 (k,).
Chosen: TypeAlias = tuple[Batch, I64]


def shuffled(blocks: Iterator[Chosen], batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """All the examples once, in batches of one size but for the last.

    Args:
        blocks: see Chosen; one that is alone is not copied, whatever its size.
        batch_size: examples a batch.
        rng: orders them; the same blocks and generator give the same batches.

    Example:
        >>> ordered = [((np.full(100, label),), np.arange(100)) for label in range(3)]
        >>> [set(batch[0].tolist()) for batch in shuffled(iter(ordered), 150, np.random.default_rng(0))]
        [{0, 1, 2}, {0, 1, 2}]
    """
    first = next(blocks, None)
    if first is None:
        return
    second = next(blocks, None)
    if second is None:
        (block, chosen) = first
        yield from sliced(block, chosen[rng.permutation(len(chosen))], batch_size)
        return
    capacity = max(2 * batch_size, POOL_BYTES // max(1, sum(array[:1].nbytes for array in first[0])))
    pool = tuple(np.empty((capacity, *array.shape[1:]), array.dtype) for array in first[0])
    count = 0
    for block, chosen in chain((first, second), blocks):
        for part in sliced(block, chosen[rng.permutation(len(chosen))], batch_size):
            if count + len(part[-1]) > capacity:
                drawn = rng.choice(count, batch_size, replace=False)
                yield tuple(array[drawn] for array in pool)
                count -= batch_size
                stays = np.ones(batch_size, np.bool_)
                stays[drawn[drawn >= count] - count] = False
                tail = count + np.flatnonzero(stays)
                _put(pool, drawn[drawn < count], tuple(array[tail] for array in pool))
            _put(pool, np.arange(count, count + len(part[-1])), part)
            count += len(part[-1])
    yield from sliced(pool, rng.permutation(count), batch_size)


def sliced(block: Batch, order: I64, batch_size: int) -> Iterator[Batch]:
    """These examples of a block, in batches."""
    for first in range(0, len(order), batch_size):
        part = order[first : first + batch_size]
        yield tuple(array[part] for array in block)


def _put(pool: Batch, places: I64, examples: Batch) -> None:
    for array, part in zip(pool, examples, strict=True):
        array[places] = part


class Labels:
    """What labels a pass gave, and in what order: stretches of it are compared with the whole.

    Example:
        >>> ordered, alike = Labels(), Labels()
        >>> for label in range(8):
        ...     ordered.add(np.full(256, label))
        ...     alike.add(np.zeros(32, np.int64))
        >>> ordered.unmixed, ordered.constant, alike.unmixed, alike.constant
        (True, None, False, 0.0)
    """

    def __init__(self) -> None:
        self._waiting: list[Array] = []
        self._stretches: list[F64] = []
        self._total = np.zeros(0)
        self._least, self._most = np.inf, -np.inf
        self.examples = 0

    def add(self, labels: Array) -> None:
        """Those of a batch, of any shape and type."""
        self.examples += len(labels)
        if labels.size:
            self._least, self._most = min(self._least, float(labels.min())), max(self._most, float(labels.max()))
        self._waiting.append(labels)
        if sum(map(len, self._waiting)) >= _STRETCH:
            self._count()

    @property
    def counts(self) -> F64:
        """How often each class came, float64 (classes,); empty where labels are no classes."""
        self._count()
        return self._total

    @property
    def constant(self) -> float | None:
        """The one label that all examples have."""
        return self._least if self.examples > 1 and self._least == self._most else None

    @property
    def unmixed(self) -> bool:
        """Whether examples of one class came after those of another."""
        if len(self._stretches) < _STRETCHES:
            return False
        share = self.counts / self.counts.sum()
        apart = [np.abs(_padded(each, len(share)) / each.sum() - share).sum() / 2 for each in self._stretches]
        return float(np.mean(apart)) > _UNMIXED

    def _count(self) -> None:
        labels = np.concatenate([each.ravel() for each in self._waiting]) if self._waiting else np.empty(0)
        self._waiting = []
        if labels.size and labels.dtype.kind == "i" and labels.min() >= 0 and labels.max() < _MOST_CLASSES:
            found = np.bincount(labels).astype(np.float64)
            size = max(len(found), len(self._total))
            self._total = _padded(self._total, size) + _padded(found, size)
            if len(self._stretches) < _MOST_STRETCHES:
                self._stretches.append(found)


def _padded(counts: F64, size: int) -> F64:
    return np.pad(counts, (0, size - len(counts)))
