"""What a message asks of the ledger."""

from broker.aggregate.weight import weight
from broker.intake.decode import FrameIn, Incoming, WithdrawIn, refusal
from broker.ledger.rows import Entry, Withdrawal
from edgeclient.bundle.layout import Layout
from edgeclient.wire import frame


def asked(said: Incoming, layout: Layout, version: int, max_staleness: int) -> list[Entry | Withdrawal]:
    """Frames that ask to be counted, or not to be; judged by the terms of this moment, `version` being current."""
    match said:
        case FrameIn():
            return [_entry(said, layout, version, max_staleness)]
        case WithdrawIn(task, device, wish):
            return [Withdrawal(task, device, wish.epoch, *each) for each in wish.frames]
    return []


def _entry(said: FrameIn, layout: Layout, version: int, max_staleness: int) -> Entry:
    made = said.frame
    return Entry(
        task=said.task,
        device=said.device,
        epoch=made.epoch,
        sequence=made.sequence,
        digest=frame.digest(said.body),
        number=made.number,
        part=made.part,
        parts=made.parts,
        base_version=made.base_version,
        num_examples=made.num_examples,
        weight=weight(made.num_examples, max(0, version - made.base_version)),
        refusal=refusal(made, layout, version, max_staleness),
        body=said.body,
    )
