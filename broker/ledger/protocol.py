"""What callers see of a ledger, whichever database holds it; `opening.open_ledger` chooses.

Every method that writes is one transaction: when it returns, what it says is durable, and when it raises, nothing of
it has happened. Every method that reads sees one state. The conformance kit, tests/ledger/conformance, holds every
implementation to this.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self

from broker.ledger.rows import Admission, Contribution, Entry, Pending, Start, TaskRow, Version, Withdrawal
from broker.views import Breach, Epoch, Mark, NewMark, NewVersion, Past, Point, Recent, Rival, Round
from edgeclient.wire.messages import Hello, Receipt, Refusal


class LedgerError(Exception):
    """The ledger cannot be used; one line that says which and what to do."""


class LedgerUnavailable(LedgerError):
    """The ledger cannot be used for now; what was asked has not happened and may be asked again."""


class Ledger(Protocol):
    """Identities, contributions, batches and versions of all tasks.

    Every method raises LedgerUnavailable while the disk is full or failing, and LedgerError when the ledger is
    damaged, or cannot be written by whoever only looks on.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it; nothing is pending."""

    def moment(self) -> AbstractContextManager[object]:
        """Everything read inside the block is of one state, however others write; nothing is written inside."""

    # Who serves

    def identity(self) -> Start:
        """Of the ledger, drawn when it was made, and the term of the last start."""

    def begin(self, above: int = 0) -> Start:
        """A start of an aggregator: the next term, above that of every earlier start, and above another one."""

    def lineage(self, task: str) -> dict[str, Start]:
        """Who has served a task or was succeeded, by ledger: the last start of each that is known of."""

    def inherit(self, task: str, start: Start, now: float) -> None:
        """A start serves the task from now on; or, of another ledger: up to that term this one has taken it over."""

    def meet(self, rival: Rival) -> None:
        """Remember another aggregator, as it was met last; of each task the newest 16."""

    def rivals(self, task: str) -> list[Rival]:
        """Newest first."""

    # Tasks

    def add_task(self, name: str, bundle: str, settings: dict[str, Any], version: Version) -> None:
        """Record a task with its initial version; LedgerError when the name is taken.

        Devices take no version that is older than theirs: a task that has the name of a removed one begins above it.
        """

    def tasks(self) -> list[TaskRow]:
        """All that are served, by name."""

    def change_task(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> TaskRow:
        """Give a task other settings, which are made of those it has.

        What is counted, and what versions were made with, stays as it is recorded. With another `evaluation`, metrics
        of versions are unknown: they were measured on other data. LedgerError when there is no such task; what `change`
        raises leaves the task as it was.
        """

    def since(self, task: str) -> int:
        """The version from which its `max_versions` and `patience` count: the first, or the last named by `go_on`.

        Or the one that `jump` made.
        """

    def go_on(self, task: str, since: int) -> None:
        """Count from another version on: new data has come."""

    def grown(self, task: str) -> list[str]:
        """Devices with new data: an update of theirs that waits has a tenth more examples than any counted before."""

    def remove_task(self, name: str) -> None:
        """Serve a task no longer; it is in `removed` from then on. LedgerError when there is no such task."""

    def removed(self) -> list[TaskRow]:
        """Tasks that are to be taken off the MQTT broker and then forgotten, by name."""

    def forget_task(self, name: str) -> list[str]:
        """Drop a removed task, its versions and contributions; returns digests that nothing names any more.

        What its devices have settled stays so, in one row an epoch: a task of the same name counts none of it again.
        """

    # Frames

    def admit(self, asked: Sequence[Entry | Withdrawal], now: float) -> list[Admission]:
        """Decide and record in ONE transaction, in this order; the answers are durable when this returns."""

    def greet(self, hellos: Sequence[tuple[str, str, Hello]]) -> list[int]:
        """Note what devices (task, name, hello) have settled; for each, frames of that which this ledger never saw."""

    def receipt(self, task: str, device: str, epoch: int, *, conflict: tuple[int, bytes] | None = None) -> Receipt:
        """What is known about one epoch of a device."""

    # Batches and versions

    def pending(self, task: str) -> Pending:
        """What waits for the next batch."""

    def open_contributions(self, task: str, limit: int, after: int = 0) -> list[Contribution]:
        """Contributions in no batch yet whose id is above `after`: those that lead an update first, then the oldest."""

    def close_batch(self, task: str, members: Sequence[Contribution], version: Version) -> None:
        """Members leave the queue, and their record and the version that is made of them exist; or nothing of it."""

    def batch(self, task: str, number: int) -> list[Contribution]:
        """The members of a closed batch whose bodies are still kept, in order of their admission."""

    def by_device(self, task: str, device: str, epoch: int) -> list[Contribution]:
        """Every contribution of an epoch whose body is still kept."""

    def versions(self, task: str, last: int | None = None) -> list[Version]:
        """The versions that are kept, oldest first, or the last few of them."""

    def add_metrics(self, task: str, number: int, metrics: Mapping[str, float]) -> None:
        """Attach an evaluation to a version."""

    def judge(self, task: str, number: int, held: str, instead: Version | None = None) -> None:
        """A version is seen by the fleet from now on ("") or held back, for a reason; then `instead` follows it."""

    def digests(self) -> set[str]:
        """Every content of the registry that a task or a version names: bundles, parameters, states."""

    def jump(self, now: float, only: str = "") -> None:
        """For a restored ledger: its parameters become versions that no device has seen (LEDGER.md, restore).

        A task may have made versions after the backup, at most one a second and a thousand more, as is assumed.
        """

    # Compaction

    def forget_bodies(self, task: str, before_batch: int) -> None:
        """Drop the frames of old batches; identities, weights and members stay."""

    def compact(self, task: str, *, before_batch: int, before_base: int, limit: int = 8192) -> int:
        """One bounded step: settled frames fold, and contributions of old batches go; returns how many rows went.

        Args:
            task: task id.
            before_batch: contributions of older batches go once their bodies have.
            before_base: updates of several parts stay until their base version is older.
            limit: rows of either kind at most; 8192 take 0.2 s at most, measured with 60,000 frames of 50 devices.
        """

    def forget_versions(self, task: str, numbers: Iterable[int]) -> list[str]:
        """Drop these versions; returns digests that nothing names any more."""

    # The account

    def frame_counts(self, task: str) -> dict[str, tuple[int, int, int]]:
        """Per device: frames applied, refused, and contributions beyond one per identity (must be 0)."""

    def lost_to_restore(self, task: str) -> dict[str, int]:
        """Per device, where there are any: frames that it has settled and that a restored ledger does not know."""

    def settled(self, task: str, device: str, epoch: int) -> dict[int, Refusal | None]:
        """Every sequence of an epoch that is known: None for applied, else the refusal.

        More than 65,536 below the watermark all that is known is how many frames there were: when they are all that
        there could be, they are told as applied, otherwise they are left out.
        """

    # For people

    def devices(self) -> list[str]:
        """All that have ever uploaded, by name."""

    def device(self, task: str, name: str) -> Past:
        """What is known of a device; zeros for one that nobody knows."""

    def stores(self, task: str, device: str | None = None) -> dict[str, list[tuple[float, float]]]:
        """Per device, for each store that it has begun: when its first and newest frame came, where still known."""

    def recent(self, task: str, device: str, limit: int = 20) -> list[Recent]:
        """The newest counted frames of a device that are not compacted yet, newest first."""

    def news(self, versions: Mapping[str, int], marks: Mapping[Epoch, Mark]) -> tuple[list[NewVersion], list[NewMark]]:
        """What there is beyond the newest known version of each task, and the known marks of each epoch.

        13 ms for 10,000 devices when nothing is new, measured.
        """

    def points(self, task: str) -> list[Point]:
        """The learning curve, thinned to what a chart can show; the first and the last version always stay.

        Versions that are no longer kept count like the next one that is.
        """

    def rounds(self, task: str, before: int, limit: int) -> list[Round]:
        """The newest rounds whose version is below `before`, newest first."""

    def contributors(self, task: str, number: int) -> list[str]:
        """Every device of a round; none for a version that is not kept, or not made of any."""

    # Upkeep

    def check_pages(self) -> None:
        """LedgerError when the store is damaged."""

    def check(self) -> list[Breach]:
        """Everything that is not as promised, as of one moment; works while the aggregator writes."""

    def copy_to(self, path: Path) -> None:
        """A consistent copy as one file, synced; another process may write meanwhile."""

    def size(self) -> dict[str, int]:
        """Bytes of the file, of its log, free bytes inside, and rows of each table."""
