"""What came of the device's frames: receipts → settled frames."""

import logging

from edgeclient.logs.complaints import Complaints
from edgeclient.uplink.outbox import Frames
from edgeclient.uplink.sender import Sender
from edgeclient.uplink.settle import Settlement, settle
from edgeclient.wire import frame, messages
from edgeclient.wire.limits import MAX_RECEIPT_LIST

_LOG = logging.getLogger(__name__)
_REMEMBERED = 1024  # settled sequences
_NAMESAKE = 3  # receipts of another store, before people hear of it ...
_NAMESAKE_S = 600.0  # ... so often at most
_CONFIRM = 1000  # settled sequences, before HELLO says so


class Receipts:
    """Settles what receipts answer, in one transaction each.

    Args:
        sender: its window hears of answers, and its identity names frames in the log.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._settled: dict[int, bytes | None] = {}  # digests, to know a copy of this store by
        self._unconfirmed = 0
        self._own = {messages.NOBODY}  # and epochs of this store, since the process began
        self._others = 0  # receipts of another store
        self._namesake = Complaints(_NAMESAKE_S)

    def connected(self, frames: Frames | None) -> None:
        """Ask a new connection for receipts, and say HELLO."""
        self._sender.connected()
        self.greet(frames)

    def greet(self, frames: Frames | None) -> None:
        """HELLO tells the ledger what is settled, and the receipt that answers it settles whatever was missed."""
        if frames is not None:
            self._unconfirmed = 0
            self._sender.greet(frames.outbox())

    def take(self, frames: Frames, payload: bytes) -> bool:
        """Settle what a receipt answers; whether a new epoch has begun.

        Raises:
            WireError: it is no receipt.
        """
        outbox = frames.outbox()
        account, awaiting = outbox.account, outbox.numbered
        receipt = messages.decode_receipt(payload)

        def digest(sequence: int) -> bytes | None:
            if sequence not in awaiting:
                return self._settled.get(sequence)
            return frame.digest(frame.stamp(frames.body(awaiting[sequence].id), epoch=account.epoch, sequence=sequence))

        settlement = settle(
            receipt, epoch=account.epoch, next_sequence=account.next_sequence, awaiting=awaiting, digest=digest
        )
        self._own.add(account.epoch)
        if receipt.epoch == account.epoch:
            self._sender.window.answered()
        elif receipt.epoch not in self._own:
            self._hear_namesake()
        if settlement.renew:
            _LOG.warning("another device uses a copy of this store, or it is an old backup. A new epoch begins")
            frames.renew()
            self._settled.clear()
            self.greet(frames)
            return True
        if settlement.empty:
            return False
        self._log(settlement, account.epoch)
        refused = [sequence for sequence, _ in settlement.refused]
        settled = [*settlement.applied, *settlement.withdrawn, *refused]
        self._settled |= {sequence: digest(sequence) for sequence in settled}
        self._settled = dict(sorted(self._settled.items())[-_REMEMBERED:])
        frames.settle(applied=settlement.applied, refused=refused, withdrawn=settlement.withdrawn)
        self._unconfirmed += len(settled)
        # The ledger folds what is confirmed, and tells no refusal twice.
        if self._unconfirmed > _CONFIRM or len(receipt.refused) > MAX_RECEIPT_LIST // 2:
            self.greet(frames)
        return False

    def _hear_namesake(self) -> None:
        """A receipt of another store: one may be late, from before this one began; several have another reason."""
        self._others += 1
        if self._others >= _NAMESAKE:
            told = "another board uses this id, its receipts come here: give one of them another, device = …"
            self._namesake.tell("two boards", told, told)

    def _log(self, settlement: Settlement, epoch: int) -> None:
        for sequence, refusal in settlement.refused:
            fields = self._sender.identity(epoch, sequence, verdict="refused", reason=refusal.reason)
            text = "frame %d refused (%s): its entries join the next round"
            _LOG.info(text, sequence, refusal.reason, extra=fields)
        for verdict, sequences in (("applied", settlement.applied), ("withdrawn", settlement.withdrawn)):
            for sequence in sequences:
                fields = self._sender.identity(epoch, sequence, verdict=verdict)
                _LOG.debug("frame %d %s", sequence, verdict, extra=fields)
