"""Versions made again from their recorded batches, by the two functions that made them."""

from collections.abc import Iterator
from itertools import pairwise

from broker.aggregate.batch import Partial, Strategy, finish
from broker.ledger.protocol import Ledger
from broker.ledger.rows import TaskRow
from broker.registry.blobs import Blobs
from broker.task.batch import add_all, state_of
from edgeclient.bundle import archive


def remade(ledger: Ledger, blobs: Blobs, task: TaskRow) -> Iterator[tuple[int, bool]]:
    """Each version whose predecessor and frames are all still kept, and whether it comes out the same bit for bit.

    Raises:
        RegistryError: a content is missing or damaged.
        WireError, ValueError: a frame cannot be added again.
    """
    layout = archive.decode(blobs.get(task.bundle)).manifest.layout
    for before, after in pairwise(ledger.versions(task.name)):
        if after.batch is None or after.number != before.number + 1:
            continue
        members = ledger.batch(task.name, after.batch)
        if len(members) == after.frames:
            strategy, partial = Strategy.recorded(after.terms), Partial.empty(layout.size)
            add_all(partial, members, layout, strategy)
            made = finish(strategy, blobs.parameters(before.digest), state_of(before, blobs), partial)
            same = (
                made.parameters.astype("<f4").tobytes() == blobs.get(after.digest)
                and made.state == state_of(after, blobs)
                and (made.total_weight, made.terms) == (after.total_weight, after.terms)
            )
            yield after.number, same
