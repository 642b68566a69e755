"""What the service tells whoever looks on, as one small interface that costs a call where nobody does."""

from collections.abc import Callable, Mapping


class Watch:
    """Looks away: every method may be called by the service at any rate, and none answers anything.

    Attributes:
        listens: whether the service shall subscribe to what devices say of themselves.

    Example:
        >>> Watch().heard("edge/v1/har/status/pi-7", b"{}")
        False
    """

    listens = False

    def task(self, task: str, dense_bytes: int) -> None:
        """A task is served, whose parameters take so many bytes as float32."""

    def ended(self, task: str) -> None:
        """It is served no longer."""

    def rests(self, task: str, *, rests: bool) -> None:
        """Whether versions of it are made, or it has learnt enough."""

    def learns(self, task: str, wrong: str) -> None:
        """The kind of what is wrong with its learning curve; "" for nothing."""

    def asks(self, url: Callable[[], str]) -> None:
        """Where the MQTT broker tells about itself over HTTP, if it is a NATS server; "" while there is none."""

    def turned(self, *, writable: bool, uncounted: int = 0) -> None:
        """The service has done a turn, with or without room on the disk; so many messages wait to be counted."""

    def connected(self, *, up: bool) -> None:
        """The service listens on the MQTT broker, or does no longer."""

    def heard(self, topic: str, payload: bytes) -> bool:
        """Whether this message was for the watch and needs nothing more."""
        return bool(topic and payload and self.listens)

    def uploaded(self, size: int) -> None:
        """A message of `size` bytes has come on `up`, whatever it is."""

    def rejected(self, reason: str) -> None:
        """Bytes that were no message: see WireError."""

    def committed(self, seconds: float) -> None:
        """One transaction of the ledger took so long."""

    def answered(self, task: str, verdict: str, reason: str) -> None:
        """The ledger has answered a frame or a withdrawal; `reason` is "" but for refusals."""

    def applied(self, task: str, size: int, parts: int, base_version: int) -> None:
        """It has counted a frame of `size` bytes, one of `parts` of an update that was trained from a version."""

    def kept(self, task: str, device: str, entries: int) -> None:
        """A device has sent an update of about so many entries (parts are about alike), whatever becomes of it."""

    def waits(self, task: str, updates: int, age_s: float) -> None:
        """So many updates wait for the next version, the first of them for so long (s)."""

    def version(self, task: str, number: int, created_s: float) -> None:
        """The current version, when the service starts, and each one that it makes (Unix seconds)."""

    def closed(self, task: str) -> None:
        """What waited has become a version."""

    def held(self, task: str, number: int, why: str) -> None:
        """A version is held back: the fleet does not see it."""

    def evaluated(self, task: str, number: int, metrics: Mapping[str, float]) -> None:
        """What a version is worth."""

    def served(self, task: str, *, yes: bool) -> None:
        """Whether this aggregator serves a task, or another one does."""

    def met(self, task: str, contact: str) -> None:
        """Another aggregator has to do with a task; see `broker.ledger.rows.Contact`."""

    def lost(self, frames: int) -> None:
        """Frames that a restored ledger does not know."""
