"""Between a version that is made and the fleet: it waits for its evaluation, then it is released or held back.

What is held back is never announced. A new version with the parameters of the last good one follows it, since devices
that have trained from that one wait for another.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from broker.aggregate.version import State
from broker.ledger.protocol import Ledger
from broker.ledger.rows import SAME_AS, Version
from broker.registry.blobs import Blobs
from broker.registry.cliff import WINDOW, fallen
from broker.registry.evaluator import Evaluated
from broker.task.open_batch import state_of
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32

# Each that was held back is followed by one with older parameters.
_LOOKED_AT: Final = 2 * WINDOW + 2


class Judged(NamedTuple):
    """What became of a version.

    Attributes:
        made: the version.
        held: why the fleet does not see it; "": it does.
        current: the version that the fleet is to see.
        parameters: of that, float32 (n,).
        state: of the server's optimiser after it.
    """

    made: Version
    held: str
    current: Version
    parameters: F32
    state: State


@dataclass(slots=True, eq=False)
class _Candidate:
    version: Version
    parameters: F32
    state: State
    since_s: float
    metrics: Mapping[str, float] | None = None


class Gate:
    """Of one task; at most one version waits in it, and no batch closes meanwhile."""

    def __init__(self, task: str, layout: Layout) -> None:
        self._task, self._layout = task, layout
        self._waiting: _Candidate | None = None

    @property
    def busy(self) -> bool:
        """Whether a version waits."""
        return self._waiting is not None

    def opened(self, ledger: Ledger, blobs: Blobs) -> Version:
        """The version that the fleet sees, when the aggregator starts; one that came after it waits once more."""
        newest = ledger.versions(self._task, last=1)[0]
        if newest.held:
            # Perhaps with its evaluation: the last life ended between that and the judgement.
            self.put(newest, blobs.parameters(newest.digest), state_of(newest, blobs), newest.metrics or None)
        return newest if not newest.held else _good(ledger.versions(self._task), newest.number)

    def put(self, version: Version, parameters: F32, state: State, metrics: Mapping[str, float] | None = None) -> None:
        """A version waits from now on, perhaps with its metrics."""
        self._waiting = _Candidate(version, parameters, state, time.monotonic(), metrics)

    def clear(self) -> None:
        """What waits is overtaken."""
        self._waiting = None

    def take(self, found: Evaluated) -> None:
        """An evaluation has come; one that could not be done has no metrics."""
        if self._waiting is not None and found.version == self._waiting.version.number:
            self._waiting.metrics = found.metrics

    def fell(self, ledger: Ledger, found: Evaluated) -> bool:
        """Whether a version that the fleet sees already should have been held back."""
        return bool(fallen(found.metrics, _before(ledger.versions(self._task, _LOOKED_AT), found.version)))

    def judge(self, ledger: Ledger, blobs: Blobs, waits: Callable[[float], bool]) -> Judged | None:
        """Release or hold back what waits, durably; None if nothing does, or its evaluation is still waited for.

        Args:
            ledger: of the task.
            blobs: of the task.
            waits: whether an evaluation is waited for after so many seconds.
        """
        made = self._waiting
        if made is None:
            return None
        held = self._layout.fault(made.parameters)
        if not held:
            if made.metrics is None and waits(time.monotonic() - made.since_s):
                return None
            versions = ledger.versions(self._task, _LOOKED_AT)
            held = fallen(made.metrics or {}, _before(versions, made.version.number))
        if not held:
            if made.version.held:
                ledger.judge(self._task, made.version.number, "")
            self._waiting = None
            version = replace(made.version, held="", metrics=made.metrics or made.version.metrics)
            return Judged(version, "", version, made.parameters, made.state)
        good = _good(ledger.versions(self._task), made.version.number)
        current = replace(
            good, number=made.version.number + 1, batch=None, created_s=time.time(), updates=0, frames=0,
            total_weight=0, terms={SAME_AS: good.number},
        )  # fmt: skip
        parameters, state = blobs.parameters(good.digest), state_of(good, blobs)
        ledger.judge(self._task, made.version.number, held, current)
        self._waiting = None
        return Judged(made.version, held, current, parameters, state)


def _before(versions: Sequence[Version], number: int) -> list[Mapping[str, float]]:
    """Metrics of what batches were made into before it, held back or not."""
    return [each.metrics for each in versions if each.batch is not None and each.number < number]


def _good(versions: Sequence[Version], number: int) -> Version:
    """The newest before it that is not held back, and did not fall when its evaluation came too late for that."""
    older = [each for each in versions if each.number < number and not each.held]
    for each in reversed(older):
        if not fallen(each.metrics, _before(versions, each.number)):
            return each
    return older[0]
