"""A version in two halves, each stated once: `add` takes members in, in any order; `finish` makes the version.

Whoever makes a version, or makes one again, calls these two: the service, `edgebroker ledger check`, an account from
outside.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from broker.aggregate.absolute import BLEND, Sums
from broker.aggregate.weight import MAX_WEIGHT
from edgeclient.bundle.domain import NOWHERE, Domain
from edgeclient.compress.absolute import Absolute
from edgeclient.compress.arrays import F32, F64, I64
from edgeclient.compress.update import SparseUpdate, add_units
from edgeclient.wire.announcement import SCALE_BITS, VALUE_LIMIT

# value · 2^s ≤ 2^30 (announcement) · weight ≤ 2^20 · frames ≤ 2^12 stays below 2^63.
MAX_FRAMES: Final = 1 << 12


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One frame of a batch, as it was admitted.

    Attributes:
        entries: what it carries.
        update: which update it is part of.
        weight: of that update, fixed at the admission of its first frame.
        terms: what else was fixed then, as numbers.
        absolute: what it carries as it is.
    """

    entries: SparseUpdate
    update: Hashable
    weight: int
    terms: Mapping[str, float] = field(default_factory=dict)
    absolute: Absolute | None = None


@dataclass(slots=True, eq=False)
class Partial:
    """What has been added of a batch so far.

    Attributes:
        total: Σ weight · round(value · 2^s) over its frames, int64 (n,).
        weights: of every update that has frames in it, once each: else late parts of a heavy update that come into the
            batch of a light one would be multiplied, not averaged.
        frames: how many.
        absolute: the sums of what travels as absolute values.
    """

    total: I64
    absolute: Sums
    weights: dict[Hashable, int] = field(default_factory=dict)
    frames: int = 0

    @classmethod
    def empty(cls, size: int, domain: Domain = NOWHERE) -> "Partial":
        """Of no frames, for `size` parameters, of which those of `domain` travel as absolute values."""
        return cls(np.zeros(size, np.int64), Sums.empty(domain))


@dataclass(frozen=True, slots=True)
class State:
    """What an optimiser keeps from version to version.

    Attributes:
        numbers: by name; recorded beside the version.
        content: arrays as bytes, kept in the registry; b"" for none.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Sgd:
    """new = old + learning_rate · mean (FedAvg with learning rate 1, 1602.05629); keeps nothing."""

    learning_rate: float = 1.0

    def step(self, parameters: F32, mean: F64, state: State) -> tuple[F32, State]:
        """New parameters, float32 (n,), and the next state; `mean` is of the batch's updates by their weights (n,).

        Example:
            >>> Sgd().step(np.zeros(1, np.float32), np.array([1.5]), State())[0]
            array([1.5], dtype=float32)
        """
        stepped = parameters.astype(np.float64) + self.learning_rate * mean
        largest = float(np.finfo(np.float32).max)
        return np.clip(stepped, -largest, largest).astype(np.float32), state


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a batch becomes a version.

    Attributes:
        optimiser: how the mean moves the model.
        scale_bits: s of the fixed point.
        value_limit: largest magnitude of an admitted entry.
        blend: how far an absolute value moves towards the mean of those sent, 0 to 1.

    Example:
        >>> Strategy.recorded(Strategy(Sgd(0.5)).terms) == Strategy(Sgd(0.5))
        True
    """

    optimiser: Sgd
    scale_bits: int = SCALE_BITS
    value_limit: float = VALUE_LIMIT
    blend: float = BLEND

    @property
    def terms(self) -> dict[str, float]:
        """As numbers, for the record."""
        return {
            "learning_rate": self.optimiser.learning_rate,
            "scale_bits": self.scale_bits,
            "value_limit": self.value_limit,
            "blend": self.blend,
        }

    @classmethod
    def recorded(cls, terms: Mapping[str, float]) -> "Strategy":
        """The one that a version was made with, whatever the settings are today.

        Raises:
            ValueError: the record does not tell it.
        """
        try:
            return cls(Sgd(terms["learning_rate"]), int(terms["scale_bits"]), terms["value_limit"], terms["blend"])
        except KeyError as error:
            raise ValueError(f"the record has no {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a batch was made into.

    Attributes:
        parameters: float32 (n,).
        state: of the optimiser, for the next batch.
        total_weight: of the updates in it.
        terms: numbers that it depended on besides its members.
    """

    parameters: F32
    state: State
    total_weight: int
    terms: dict[str, float]


def add(partial: Partial, member: Member, strategy: Strategy) -> None:
    """Take a member in; whatever the order, the partial is the same bit for bit.

    Raises:
        ValueError: a bound is broken, so that the sum might wrap; the partial is as before.

    Example:
        >>> from edgeclient.compress.update import FloatValues
        >>> partial = Partial.empty(2)
        >>> entries = SparseUpdate(2, np.array([1]), FloatValues(np.array([0.5], np.float32)))
        >>> add(partial, Member(entries, "pi-7's first", weight=3), Strategy(Sgd(), scale_bits=4))
        >>> partial.total, partial.weights
        (array([ 0, 24]), {"pi-7's first": 3})
    """
    values = member.entries.values.decoded()
    largest = max(float(values.max()), -float(values.min())) * 2.0**strategy.scale_bits
    if partial.frames >= MAX_FRAMES or not 1 <= member.weight <= MAX_WEIGHT or largest > 2.0**30:
        raise ValueError(f"a member with weight {member.weight} is outside the bounds of the fixed-point sum")
    partial.absolute.add(member.absolute, member.weight)
    add_units(partial.total, member.entries.indices, values, strategy.scale_bits, member.weight)
    partial.weights[member.update] = member.weight
    partial.frames += 1


def finish(strategy: Strategy, parameters: F32, state: State, partial: Partial) -> Made:
    """The next version, of the current one's parameters (n,) and state; the inputs stay as they are.

    Raises:
        ValueError: a batch in which no update has a frame has no mean.
    """
    total_weight = sum(partial.weights.values())
    if total_weight < 1:
        raise ValueError("a batch without members makes no version")
    mean = np.ldexp(partial.total.astype(np.float64), -strategy.scale_bits) / total_weight
    stepped, state = strategy.optimiser.step(parameters, mean, state)
    partial.absolute.blend(stepped, parameters, strategy.blend)
    return Made(stepped, state, total_weight, strategy.terms)
