"""The next version of a task, as far as it has been added: follows the ledger, is made again from it after a start."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from broker.aggregate.version import MAX_FRAMES, Made, Member, Partial, State, Strategy, add, finish
from broker.ledger.protocol import Ledger
from broker.ledger.rows import Contribution, Version
from broker.registry.blobs import Blobs
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32
from edgeclient.wire import frame

# Frames that were just decoded, by their bytes: of one identity there may be two in a turn.
Decoded: TypeAlias = Mapping[bytes, frame.Frame]


def add_all(
    partial: Partial,
    contributions: Iterable[Contribution],
    layout: Layout,
    strategy: Strategy,
    decoded: Decoded | None = None,
) -> None:
    """Add what the ledger has counted; frames that are not at hand are decoded."""
    known = decoded or {}
    for each in contributions:
        made = known.get(each.body) or frame.decode(each.body, layout.tensors)
        update = each.device, each.epoch, each.number
        add(partial, Member(made.update, update, each.weight, each.terms, made.absolute), strategy)


def empty(layout: Layout) -> Partial:
    """Nothing yet, of a model with this layout."""
    return Partial.empty(layout.size, layout.domain)


def state_of(version: Version, blobs: Blobs) -> State:
    """Of the server's optimiser after this version."""
    return State(version.state, blobs.get(version.state_digest) if version.state_digest else b"")


class OpenBatch:
    """What waits in the ledger for the next version of a task."""

    def __init__(self, task: str, layout: Layout) -> None:
        self._task, self._layout = task, layout
        self._members: list[Contribution] = []
        self._newest = 0  # of their ids
        self._partial: Partial | None = empty(layout)  # None: too many members for one batch

    def follow(self, ledger: Ledger, strategy: Strategy, decoded: Decoded) -> None:
        """Add what the ledger has admitted since the last time, and nothing else; all that waits, after a start."""
        if self._partial is None:
            return
        found = ledger.open_contributions(self._task, MAX_FRAMES + 1, self._newest)
        if len(self._members) + len(found) > MAX_FRAMES:
            self._members, self._partial = [], None
            return
        add_all(self._partial, found, self._layout, strategy, decoded)
        self._members += [replace(each, body=b"") for each in found]
        self._newest = max([self._newest, *(each.id for each in found)])

    def finish(
        self, ledger: Ledger, strategy: Strategy, parameters: F32, state: State
    ) -> tuple[list[Contribution], Made]:
        """The members of the batch that closes now, at most 4,096, leading ones first; and what they are made into."""
        self.follow(ledger, strategy, {})
        members, partial = self._members, self._partial
        if partial is None:
            members, partial = ledger.open_contributions(self._task, MAX_FRAMES), empty(self._layout)
            add_all(partial, members, self._layout, strategy)
        return members, finish(strategy, parameters, state, partial)
