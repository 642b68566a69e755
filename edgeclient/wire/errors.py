"""The one error of the wire: the sender's fault, with a reason that is also a metric label."""

from typing import Final

REASONS: Final = frozenset(
    {
        "truncated",  # the bytes end before the structure does
        "trailing",  # bytes are left after the structure's end
        "magic",  # not one of our messages
        "version",  # a wire version this code does not speak
        "kind",  # a message kind that does not belong on this topic
        "flags",  # a reserved bit is set
        "checksum",  # CRC-32 does not match
        "range",  # a field lies outside its documented limits
        "value",  # a non-finite or out-of-range number
        "digest",  # content does not have the announced SHA-256
        "json",  # not the JSON object that the format asks for
        "name",  # a device or task id outside [A-Za-z0-9_-]{1,64}
        "topic",  # a topic that is not one of ours
        "too-large",  # over the limit for this kind of message
        "address",  # made for another task, device or ledger
        "layout",  # parameters do not add up to the named layout
    }
)


class WireError(Exception):
    """Bytes from outside are not what FORMAT.md allows.

    `reason` is one of `REASONS` (a metric label and log field); the text says what was found.

    Example:
        >>> WireError("checksum", "frame says 0x00000001, bytes give 0x00000002").reason
        'checksum'
    """

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
