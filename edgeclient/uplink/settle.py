"""What a receipt means for the frames that await one: a pure function."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgeclient.wire.messages import Receipt, Refusal


@dataclass(frozen=True, slots=True)
class Settlement:
    """Sequences to forget, sequences whose mass returns, and whether this epoch must end."""

    applied: tuple[int, ...]
    refused: tuple[tuple[int, Refusal], ...]
    renew: bool


def settle(receipt: Receipt, *, epoch: int, next_sequence: int, awaiting: Iterable[int]) -> Settlement:
    """Read a receipt.

    Args:
        receipt: the aggregator's answer.
        epoch: of this store; a receipt of another epoch settles nothing.
        next_sequence: the first sequence that this store has not assigned. If the ledger has seen it
            already, this store is a clone or a restored backup.
        awaiting: sequences that have no receipt yet.

    Example:
        >>> receipt = Receipt(epoch=7, watermark=2, seen=4, applied=(3,), refused=((1, Refusal.STALE),))
        >>> settle(receipt, epoch=7, next_sequence=5, awaiting=[0, 1, 2, 3, 4])
        Settlement(applied=(0, 3), refused=((1, <Refusal.STALE: 2>),), renew=False)
    """
    if receipt.epoch != epoch:
        return Settlement((), (), renew=False)
    if receipt.conflict or receipt.seen > next_sequence:
        return Settlement((), (), renew=True)
    refusals = dict(receipt.refused)
    extra = set(receipt.applied)
    open_ = sorted(awaiting)
    return Settlement(
        tuple(s for s in open_ if s not in refusals and (s < receipt.watermark or s in extra)),
        tuple((s, refusals[s]) for s in open_ if s in refusals),
        renew=False,
    )
