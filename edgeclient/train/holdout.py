"""Which examples are kept aside for measuring: decided by their bytes, so that it stays the same for ever.

Equal examples fall on the same side, whatever file, order or run they come in, and however the data grows.
"""

import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeclient.compress.arrays import Bools
from edgeclient.train.batches import Batch, NoExamplesError, Source, in_memory
from edgeclient.train.mixing import POOL_BYTES, Chosen, Labels, shuffled, sliced

Side: TypeAlias = Literal["train", "holdout"]
_RANGE: Final = float(1 << 32)


def held_out(batch: Batch, fraction: float) -> Bools:
    """Which examples of a batch of n belong to the holdout, bool (n,).

    Args:
        batch: arrays as `fitting` leaves them, labels last.
        fraction: of all examples, from 0 to 1.

    Example:
        >>> many = (np.arange(20000, dtype=np.float32).reshape(10000, 2), np.zeros(10000, np.int64))
        >>> mask = held_out(many, 0.1)
        >>> int(mask.sum()), bool((mask[7000:] == held_out(tuple(a[7000:] for a in many), 0.1)).all())
        (971, True)
    """
    count = len(batch[-1])
    if not fraction or not count:
        return np.zeros(count, np.bool_)
    codes = [0] * count
    for array in batch:
        content, size = array.tobytes(), array.nbytes // count
        codes = [zlib.crc32(content[at * size : (at + 1) * size], code) for at, code in enumerate(codes)]
    return mixed(np.array(codes, np.uint32)) < fraction * _RANGE


def mixed(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """A bijection after which neighbours are far apart (the end of MurmurHash3): CRC-32 alone is linear."""
    codes = codes ^ (codes >> np.uint32(16))
    codes = codes * np.uint32(0x85EBCA6B)
    codes ^= codes >> np.uint32(13)
    codes = codes * np.uint32(0xC2B2AE35)
    return codes ^ (codes >> np.uint32(16))


@dataclass(frozen=True, slots=True)
class Examples:
    """One side of a source, as batches.

    Attributes:
        source: where the examples come from.
        fraction: of them in the holdout; 0 for no holdout.
        side: which side these are.
    """

    source: Source
    fraction: float = 0.0
    side: Side = "train"

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Generator[Batch, None, None]:
        """See Dataset; a source that decides the size of batches is not shuffled.

        Raises:
            NoExamplesError: this side has none.
        """
        labels, whole = Labels(), False
        try:
            with in_memory(self.source.name):
                for batch in self._batches(batch_size, rng):
                    labels.add(batch[-1])
                    yield batch
            whole = True
        finally:
            self._judge(labels, whole=whole, mixed=rng is not None)
        if not labels.examples:
            raise NoExamplesError(nothing(self.source.name, self.side))

    def _batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        chosen = self._chosen(rng)
        if rng is not None and not self.source.sized:
            yield from shuffled(chosen, batch_size, rng)
            return
        for block, wanted in chosen:
            yield from sliced(block, wanted, len(block[-1]) if self.source.sized else batch_size)

    def _chosen(self, rng: np.random.Generator | None) -> Iterator[Chosen]:
        found = False
        for block, _ in self.source.blocks(rng):
            found = True
            yield block, np.flatnonzero(held_out(block, self.fraction) == (self.side == "holdout"))
        if not found:
            waits = "".join(f": {line}" for line in self.source.notes.values())
            what = "yielded no batch" if self.source.sized else "has no examples"
            raise NoExamplesError(f"{self.source.name} {what}{waits}")

    def _judge(self, labels: Labels, *, whole: bool, mixed: bool) -> None:
        """Tell of labels that teach nothing, or one after the other."""
        if self.side == "holdout" or not mixed:
            return
        if whole:
            always = labels.constant
            self.source.note(
                "labels", "" if always is None else f"all {labels.examples} labels are {always:g}: nothing to learn"
            )
        way = (
            "the function decides their order, and can mix them"
            if self.source.sized
            else f"{POOL_BYTES >> 20} MB are mixed at a time: smaller files, or .npy files, are read in any order"
        )
        why = f"examples are ordered by label, and learnt in that order; {way}"
        self.source.note("order", why if labels.unmixed else "")


def nothing(source: str, side: Side) -> str:
    """What to say of a side without examples."""
    if side == "holdout":
        return f"{source}: no example has fallen into the holdout yet: more data, or a larger [data] holdout"
    return f"{source}: there is no example to train on yet: more data, or a smaller [data] holdout"
