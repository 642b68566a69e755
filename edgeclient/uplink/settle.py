"""What a receipt means for the frames that await one: a pure function."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgeclient.wire.messages import Receipt, Refusal


@dataclass(frozen=True, slots=True)
class Settlement:
    """Sequences to forget, sequences whose mass returns, and whether this epoch must end."""

    applied: tuple[int, ...] = ()
    refused: tuple[tuple[int, Refusal], ...] = ()
    withdrawn: tuple[int, ...] = ()
    renew: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is settled."""
        return not (self.applied or self.refused or self.withdrawn)


def settle(
    receipt: Receipt,
    *,
    epoch: int,
    next_sequence: int,
    awaiting: Iterable[int],
    digest: Callable[[int], bytes | None] = lambda _: None,
) -> Settlement:
    """Read a receipt.

    Args:
        receipt: the aggregator's answer.
        epoch: of this store; a receipt of another epoch settles nothing.
        next_sequence: the first sequence that this store has not assigned. If the ledger has seen it
            already, this store is a clone or a restored backup.
        awaiting: sequences that have no receipt yet.
        digest: of a frame of this store by sequence, None if it is not remembered; asked only where the receipt speaks
            of a conflict.

    Example:
        >>> receipt = Receipt(epoch=7, watermark=2, seen=4, applied=(3,), refused=((1, Refusal.STALE),))
        >>> settle(receipt, epoch=7, next_sequence=5, awaiting=[0, 1, 2, 3, 4])
        Settlement(applied=(0, 3), refused=((1, <Refusal.STALE: 2>),), withdrawn=(), renew=False)
    """
    if receipt.epoch != epoch:
        return Settlement()
    if receipt.seen > next_sequence:
        return Settlement(renew=True)
    if receipt.conflict is not None and digest(receipt.conflict[0]) == receipt.conflict[1]:
        return Settlement(renew=True)
    open_ = sorted(awaiting)
    refusals = dict(receipt.refused)
    extra = set(receipt.applied)
    back = [(s, refusals[s]) for s in open_ if s in refusals]
    return Settlement(
        applied=tuple(s for s in open_ if s not in refusals and (s < receipt.watermark or s in extra)),
        refused=tuple((s, why) for s, why in back if why is not Refusal.WITHDRAWN),
        withdrawn=tuple(s for s, why in back if why is Refusal.WITHDRAWN),
    )
