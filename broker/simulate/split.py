"""Which examples each simulated device has. Pure functions of labels or groups and a generator."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from edgeclient.compress.arrays import F64, I64, Array
from edgeclient.settings import ConfigError

DEVICES: Final = 16  # where nobody says how many
_FORMS: Final = "even, by=COLUMN, dirichlet=0.3 or classes=2"
_NAMED: Final = 5  # of those that are told


@dataclass(frozen=True, slots=True)
class Split:
    """How examples are dealt out.

    Attributes:
        kind: "even": at random; "by": a group is a device, or several are; "dirichlet": shares of labels are drawn for
            each device (1909.06335); "classes": sorted by label and cut into shards, so many a device (1602.05629).
        column: of the groups.
        amount: concentration, or shards.
    """

    kind: Literal["even", "by", "dirichlet", "classes"] = "even"
    column: str = ""
    amount: float = 0.0

    @classmethod
    def of(cls, text: str) -> "Split":
        """As it is written on a command line.

        Raises:
            ConfigError: it is no split.

        Example:
            >>> Split.of("by=person").column, Split.of("dirichlet=0.3").amount, Split.of("iid").kind
            ('person', 0.3, 'even')
        """
        name, _, value = text.partition("=")
        try:
            if name in {"even", "iid"} and not value:
                return cls()
            if name == "by" and value:
                return cls("by", value)
            if name == "dirichlet" and 0 < float(value) < np.inf:
                return cls("dirichlet", amount=float(value))
            if name == "classes" and int(value) > 0:
                return cls("classes", amount=int(value))
        except ValueError:
            pass
        raise ConfigError(f"split {text!r} is none: {_FORMS} is wanted")


def deal(split: Split, labels: Array, groups: Array | None, devices: int | None, rng: np.random.Generator) -> list[I64]:
    """Places of each device's examples; each has one at least, and each example one device.

    Args:
        split: how.
        labels: (n, …).
        groups: (n,), of numbers or words, for `by`.
        devices: how many; None for as many as there are groups, else 16.
        rng: draws.

    Raises:
        ConfigError: that cannot be; the text says why.

    Example:
        >>> [each.tolist() for each in deal(Split.of("by=person"), np.zeros(4), np.array(list("abba")), None,
        ...                                 np.random.default_rng(0))]
        [[0, 3], [1, 2]]
    """
    count = len(labels)
    if split.kind == "by":
        assert groups is not None
        return _by_group(split.column, groups, devices)
    wanted = DEVICES if devices is None else devices
    if count < wanted:
        raise ConfigError(f"{wanted} devices, and {count} examples to train on: some device would have none")
    if split.kind == "even":
        return [np.sort(each) for each in np.array_split(rng.permutation(count), wanted)]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ConfigError(f"split {split.kind} needs labels that are classes: even or by=COLUMN go without")
    if split.kind == "classes":
        return _by_shards(labels, wanted, int(split.amount), rng)
    return _by_shares(labels, wanted, split.amount, rng)


def halves(places: I64, rng: np.random.Generator) -> I64:
    """A random half of a device's examples, one at least."""
    return np.sort(rng.permutation(places)[: max(1, len(places) // 2)])


def _by_group(column: str, groups: Array, devices: int | None) -> list[I64]:
    names, place = np.unique(groups, return_inverse=True)
    wanted = len(names) if devices is None else devices
    if wanted > len(names):
        some = ", ".join(map(str, names[:_NAMED])) + (" …" if len(names) > _NAMED else "")
        raise ConfigError(f"{wanted} devices, and {column} tells {len(names)} apart: {some}")
    # Large groups are dealt first, each to whoever has least.
    sizes: I64 = np.bincount(place, minlength=len(names))
    load, owner = np.zeros(wanted, np.int64), np.empty(len(names), np.int64)
    first: dict[int, int] = {}
    for group in np.argsort(-sizes, kind="stable").tolist():
        at = int(load.argmin())
        owner[group] = at
        load[at] += sizes[group]
        first.setdefault(at, group)
    # Devices are numbered as their largest groups are.
    rank = np.empty(wanted, np.int64)
    rank[sorted(first, key=first.__getitem__)] = np.arange(wanted)
    return _gathered(rank[owner[place]], wanted)


def _by_shards(labels: Array, devices: int, shards: int, rng: np.random.Generator) -> list[I64]:
    if devices * shards > len(labels):
        raise ConfigError(f"{devices} devices with {shards} shards each need more than {len(labels)} examples")
    cut = np.array_split(np.argsort(labels, kind="stable"), devices * shards)
    dealt = rng.permutation(devices * shards).reshape(devices, shards)
    return [np.sort(np.concatenate([cut[at] for at in row])) for row in dealt.tolist()]


def _by_shares(labels: Array, devices: int, concentration: float, rng: np.random.Generator) -> list[I64]:
    """As many examples for each device; proportions of classes from Dirichlet(concentration · how common each is)."""
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    pools = [rng.permutation(np.flatnonzero(place == each)) for each in range(len(counts))]
    prior: F64 = concentration * len(counts) * counts / counts.sum()
    left = counts.astype(np.int64)
    made: list[I64] = []
    for size in map(len, np.array_split(np.arange(len(labels)), devices)):
        shares = rng.dirichlet(prior)
        taken = np.zeros_like(left)
        while missing := size - int(taken.sum()):
            # A class that is used up gives its share to the others of the device, at last to whatever is there.
            room = left - taken
            some: Any = np.where(room > 0, shares, 0.0)
            some = some / some.sum() if some.sum() > 0 else room / room.sum()
            taken += np.minimum(room, rng.multinomial(missing, some))
        ends = np.cumsum(taken)
        assert ends[-1] == size
        made.append(np.sort(np.concatenate([pool[n - t : n] for pool, n, t in zip(pools, left, taken, strict=True)])))
        left -= taken
    return made


def _gathered(owner: I64, devices: int) -> list[I64]:
    order = np.argsort(owner, kind="stable")
    return np.split(order, np.cumsum(np.bincount(owner, minlength=devices))[:-1])
