"""Whom the ledger's answers concern: a pure function of what was said, asked and answered."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from broker.ledger.rows import Admission, Entry, Withdrawal
from edgeclient.wire.messages import Hello

Whom: TypeAlias = tuple[str, str, int]  # task, device, epoch


def due(
    hellos: Iterable[tuple[str, str, Hello]], asked: Sequence[Entry | Withdrawal], admissions: Sequence[Admission]
) -> dict[Whom, tuple[int, bytes] | None]:
    """Every epoch of which a device is told now, with the newest conflict in it (sequence, digest).

    Args:
        hellos: task, device and what it says.
        asked: of the ledger.
        admissions: its answers to that.

    Example:
        >>> due([("har", "pi-7", Hello(5, 3, 0))], [], [])
        {('har', 'pi-7', 5): None}
    """
    found: dict[Whom, tuple[int, bytes] | None] = {(task, device, hello.epoch): None for task, device, hello in hellos}
    for each, admission in zip(asked, admissions, strict=True):
        key = (each.task, each.device, each.epoch)
        found[key] = (each.sequence, each.digest) if admission.conflict else found.get(key)
    return found
