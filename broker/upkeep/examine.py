"""Whether ledger and registry are as promised, and how large they are; works while the aggregator runs."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from broker.aggregate.version import Strategy, finish
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.ledger.rows import TaskRow
from broker.registry.blobs import Blobs, RegistryError
from broker.settings import Aggregator
from broker.task.open_batch import add_all, empty, state_of
from broker.views import REPORT, Breach
from edgeclient.bundle import archive
from edgeclient.wire.errors import WireError


def examine(settings: Aggregator) -> tuple[list[Breach], int]:
    """Everything that is wrong with ledger and registry, and how many versions came out bit for bit when made again."""
    with open_ledger(settings.ledger, read_only=True) as ledger:
        found = ledger.check()
        if any(each.where == str(settings.ledger) for each in found):
            return found, 0
        blobs, again = Blobs(settings.registry), 0
        for digest in sorted(ledger.digests()):
            try:
                blobs.get(digest)
            except RegistryError as error:
                if digest in ledger.digests():  # else the aggregator has dropped the version meanwhile
                    path = blobs.path(digest)
                    what = str(error).removeprefix(str(path)).lstrip(": ")
                    found.append(Breach(str(path), what, "copy it from a backup's registry"))
        for task in ledger.tasks():
            try:
                for version, same in remade(ledger, blobs, task):
                    again += same
                    if not same:
                        what = "made again from its batch it has other parameters"
                        found.append(Breach(f"task {task.name} version {version}", what, REPORT))
            except RegistryError:
                continue  # found above
            except (WireError, ValueError) as error:
                found.append(Breach(f"task {task.name}", f"a frame cannot be added again: {error}", REPORT))
    return found, again


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
            strategy, partial = Strategy.recorded(after.terms), empty(layout)
            add_all(partial, members, layout, strategy)
            made = finish(strategy, blobs.parameters(before.digest), state_of(before, blobs), partial)
            same = (
                made.parameters.astype("<f4").tobytes() == blobs.get(after.digest)
                and made.state == state_of(after, blobs)
                and (made.total_weight, made.terms) == (after.total_weight, after.terms)
            )
            yield after.number, same


def size(settings: Aggregator) -> dict[str, Any]:
    """Bytes and rows of the ledger, contents and bytes of the registry, and versions kept of each task."""
    with open_ledger(settings.ledger, read_only=True) as ledger:
        contents, total = Blobs(settings.registry).size()
        kept = {task.name: len(ledger.versions(task.name)) for task in ledger.tasks()}
        return {**ledger.size(), "registry_contents": contents, "registry_bytes": total, "versions_kept": kept}
