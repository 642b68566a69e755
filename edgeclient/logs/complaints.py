"""What goes wrong many times, told in bounded memory and few lines."""

import logging
import time
from dataclasses import dataclass, field
from typing import Final

_LOG = logging.getLogger(__name__)

EVERY_S: Final = 30.0
# Who publishes chooses the device's name, so that names must not take memory without end.
MAX_KEYS: Final = 1024
OTHERS: Final = "(others)"


@dataclass(slots=True)
class _Told:
    since: int = 0
    last_s: float | None = None


@dataclass(slots=True)
class Complaints:
    """What goes wrong many times a second becomes a log line now and then for each device and reason.

    Attributes:
        every_s: at least so long between two lines about the same.

    Example:
        >>> complaints = Complaints()
        >>> complaints.note("pi-7", "checksum", "CRC-32 does not match", now=0.0)
        'pi-7: CRC-32 does not match'
        >>> complaints.note("pi-7", "checksum", "CRC-32 does not match", now=10.0) is None
        True
        >>> complaints.note("pi-7", "checksum", "CRC-32 does not match", now=31.0)
        'pi-7: CRC-32 does not match (2 times in 31 s, reason checksum)'
    """

    every_s: float = EVERY_S
    _by_key: dict[tuple[str, str], _Told] = field(default_factory=dict)

    def note(self, device: str, reason: str, detail: str, *, now: float) -> str | None:
        """Count one, and return the line to log if one is due for this device and reason (of a few short ones).

        Beyond 1,024 pairs of them, all further devices are one; `now` in monotonic seconds.
        """
        key = (device, reason)
        if key not in self._by_key and len(self._by_key) >= MAX_KEYS:
            key = (OTHERS, reason)
        told = self._by_key.setdefault(key, _Told())
        told.since += 1
        if told.last_s is not None and now - told.last_s < self.every_s:
            return None
        said = "" if reason == detail else f", reason {reason}"
        often = "" if told.last_s is None else f" ({told.since} times in {now - told.last_s:.0f} s{said})"
        told.since, told.last_s = 0, now
        return f"{device or 'somebody'}: {detail}{often}"

    def tell(self, device: str, reason: str, detail: str, *, level: int = logging.WARNING) -> bool:
        """Log the line that is due, if one is: see `note`; whether one was."""
        line = self.note(device, reason, detail, now=time.monotonic())
        if line is not None:
            _LOG.log(level, "%s", line, extra={"device": device, "reason": reason})
        return line is not None
