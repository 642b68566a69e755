"""What one update may be: what the task asks for, as far as this device's owner and link grant it. Pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass

from edgeclient.bundle.layout import Layout
from edgeclient.compress.pace import Limits, Pace, Target, target
from edgeclient.compress.quantise import Quantiser
from edgeclient.settings import Device
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.frame import Coding, Origin
from edgeclient.wire.life import Account, Row


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of updates from one version.

    Attributes:
        announced: the version, and what its task asks for.
        settings: the device's configuration.
        layout: of the model.
        frame_bytes: of a frame, at most.
    """

    announced: Announcement
    settings: Device
    layout: Layout
    frame_bytes: int

    @property
    def budget_bytes(self) -> int:
        """Of all frames of an update together, at most; 0 for no limit."""
        budgets = self.announced.policy.update_bytes, self.settings.upload.max_update_bytes
        return min(filter(None, budgets), default=0)

    @property
    def quantiser(self) -> Quantiser:
        """How precise the entries are."""
        return Quantiser(self.announced.value_limit, self.settings.upload.values, bounds=self.layout.bounds)

    @property
    def coding(self) -> Coding:
        """How the update becomes frames."""
        return Coding(self.frame_bytes, self.layout.tensors, self.settings.training.accel)

    def aim(self, pace: Pace, *, share: float, free_bytes: int | None, held: Iterable[Row]) -> Target:
        """How many entries to send.

        Args:
            pace: from earlier rounds.
            share: of the work that was asked for, the part that was done.
            free_bytes: memory there is; None if unknown.
            held: what stays in the outbox. Where that leaves no room, the whole delta joins the residual.
        """
        if sum(row.size for row in held) >= self.settings.upload.max_outbox_bytes:
            return Target(0, 0, 0)
        policy = self.announced.policy
        return target(
            self.announced.size,
            policy.density,
            pace,
            Limits(self.settings.training.max_density, self.budget_bytes, share, free_bytes),
            steady=policy.steady,
            warm_up=self.announced.version < policy.warm_up,
        )

    def origin(self, account: Account, num_examples: int) -> Origin:
        """What the frames say of the account's next update, and of the examples behind it."""
        announced, number = self.announced, account.next_update
        return Origin(
            announced.task, self.settings.device, self.layout.tag, number, announced.version, num_examples,
            account.ledger,
        )  # fmt: skip
