"""Fields of a log line: the identity of an update (task, device, epoch, sequence), the same on device and aggregator.

One search finds the life of a frame. Only the fields listed here are written.
"""

from typing import Any, Final

FIELDS: Final = ("task", "device", "epoch", "sequence", "version", "verdict", "reason")


def identity(task: str, device: str, epoch: int, sequence: int, **more: Any) -> dict[str, Any]:
    """Fields of one frame, for `extra` of a log call; `more` are others of FIELDS.

    Example:
        >>> identity("har", "pi-7", 255, 3, reason="stale")["epoch"]
        '00000000000000ff'
    """
    # 64 bits are too many for the numbers of most JSON readers.
    return {"task": task, "device": device, "epoch": f"{epoch:016x}", "sequence": sequence, **more}
