"""Ledgers for tests: the implementations that the conformance kit examines, and what goes into one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger
from broker.ledger.rows import Contribution, Entry, Version
from edgeclient.wire.messages import Hello, Refusal

# A new implementation joins this list and writes no new test: opens the ledger of a folder, with read_only=True to look
# on.
IMPLEMENTATIONS: Final[dict[str, Callable[..., Ledger]]] = {
    "sqlite": lambda folder, **how: open_ledger(folder / "ledger.db", **how),
}
EPOCH: Final = 2**64 - 3
# Frames admitted, batches closed and frame rows after a kill in the second round of two frames each.
INTERRUPTED: Final = {
    "ledger.before-hello": (2, 1, 0),
    "ledger.after-hello": (2, 1, 0),
    "ledger.before-commit": (2, 1, 0),
    "ledger.after-commit": (4, 1, 2),
    "ledger.before-close": (4, 1, 2),
    "ledger.after-close": (4, 2, 2),
    "ledger.before-compact": (4, 2, 2),
    "ledger.after-compact": (4, 2, 0),
}


@contextmanager
def of_an_aggregator(folder: Path) -> Iterator[Ledger]:
    """The ledger of the aggregator whose directory is `data` in the folder, with a task t."""
    (folder / "data").mkdir()
    with open_ledger(folder / "data/ledger.db") as made:
        made.add_task("t", "b", {"goal": 4}, version(0))
        yield made


def entry(  # noqa: PLR0913 (each has a default)
    sequence: int,
    *,
    device: str = "d",
    epoch: int = EPOCH,
    number: int | None = None,
    part: int = 0,
    parts: int = 1,
    weight: int = 10,
    refusal: Refusal | None = None,
    digest: bytes | None = None,
) -> Entry:
    return Entry(
        task="t", device=device, epoch=epoch, sequence=sequence,
        digest=digest or f"{device}{sequence}".encode(), number=sequence if number is None else number, part=part,
        parts=parts, base_version=0, num_examples=5, weight=weight, refusal=refusal,
        body=f"{device}/{epoch}/{sequence}".encode(),
    )  # fmt: skip


def version(number: int, batch: int | None = None, members: Sequence[Contribution] = ()) -> Version:
    weights = [member.weight for member in members if member.leads]
    return Version(number, f"{number:064x}", batch, 100.0 + number, len(weights), len(members), sum(weights), {})


def close(ledger: Ledger, number: int) -> None:
    """What waits becomes the next version."""
    members = ledger.open_contributions("t", 10_000)
    ledger.close_batch("t", members, version(number, number, members))


def admitted(ledger: Ledger) -> set[bytes]:
    contributions = ledger.open_contributions("t", 10_000)
    bodies = [each.body for each in contributions]
    assert len(set(bodies)) == len(bodies)
    return set(bodies)


def hello(ledger: Ledger, confirmed: int, *, device: str = "d", epoch: int = EPOCH, upcoming: int = 10_000) -> int:
    """The device says that it has settled everything below `confirmed`; how many of these are lost."""
    return ledger.greet([("t", device, Hello(epoch, upcoming, confirmed))])[0]
